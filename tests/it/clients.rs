//! The crate's own client against the real server: calls, and streams over lines that break.
//!
//! `CHINWAG_LINE_SEED` repeats the choices of a run.

#![allow(clippy::print_stdout, reason = "how to repeat a run")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chinwag::client::{Begin, Client, Error, Event, EventStream, Positions};
use chinwag::message::{Address, Direction, Draft, Duty, GroupId, Pull, Sync, UserId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::watch;

use crate::support::{DEADLINE, Line, TestServer, claims_of, fresh, shared_server, since_epoch};

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("an id")
}

fn to_user(id: &str) -> Address {
    Address::User(user(id))
}

fn to_group(id: &str) -> Address {
    Address::Group(GroupId::parse(id).expect("an id"))
}

/// A client of that user, straight to the server.
fn client_of(server: &TestServer, user: &str) -> Client {
    let url = format!("http://{}", server.ready().http);
    Client::new(&url, &server.sign(&claims_of(user))).expect("a client")
}

fn after(start_msg_index: u32, start_recall_index: u32) -> Pull {
    let (direction, wait) = (Direction::After, Duration::ZERO);
    Pull { direction, start_msg_index, start_recall_index, count: 50, wait }
}

/// The next event that `wanted` makes something of.
async fn until<T>(stream: &mut EventStream, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = stream.next().await.expect("the stream goes on").expect("an event");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.expect("in time")
}

fn message_index(event: Event) -> Option<u32> {
    match event {
        Event::Message { message, .. } => Some(message.msg_index),
        _ => None,
    }
}

async fn connected(stream: &mut EventStream) -> String {
    until(stream, |event| match event {
        Event::Connected { user } => Some(user),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn every_call_works_and_says_no_with_its_code() {
    let server = shared_server();
    let (alice, bob) = (fresh("alice"), fresh("bob"));
    let (of_alice, of_bob) = (client_of(&server, &alice), client_of(&server, &bob));
    let (to_bob, to_alice) = (to_user(&bob), to_user(&alice));

    let draft = Draft { msg: "hi".to_owned(), extra: "x".to_owned(), client_msg_id: "c1".to_owned() };
    let first = of_alice.send_draft(&to_bob, draft.clone()).await.expect("sent");
    let again = of_alice.send_draft(&to_bob, draft).await.expect("sent");
    assert_eq!((first.msg_index, first.duplicate), (1, false));
    assert_eq!((again.msg_index, again.timestamp_ns, again.duplicate), (1, first.timestamp_ns, true));
    assert_eq!(of_alice.send(&to_bob, "there").await.expect("sent").msg_index, 2);
    assert_eq!(of_alice.recall(&to_bob, 1).await.expect("recalled"), 1);
    let page = of_bob.pull(&to_alice, &after(1, 1)).await.expect("a page");
    assert_eq!((page.msgs[0].recall_index, page.msgs[1].msg.as_str()), (1, "there"));
    assert_eq!((page.recalls[&1], page.max_msg_index), (1, 2));

    let list = of_bob.list("", 10).await.expect("a list");
    assert_eq!((list.chats[0].0.unread, list.total_unread), (1, 1));
    assert_eq!(list.chats[0].1.as_ref().map(|last| last.msg.as_str()), Some("there"));
    of_bob.ack(&to_alice, 2).await.expect("acked");
    assert_eq!(of_alice.acks(&to_bob).await.expect("acks"), [(user(&alice), 2), (user(&bob), 2)]);
    let sync = Sync { positions: vec![], wait: Duration::ZERO, count: 50 };
    let synced = of_bob.sync(&sync).await.expect("synced");
    assert_eq!((synced.chats[0].at.clone(), synced.chats[0].unread), (to_alice.clone(), 0));
    of_alice.signal(&to_bob, "typing", &json!(null)).await.expect("told");
    assert_eq!(of_alice.online(&[user(&bob)]).await.expect("online"), [(user(&bob), false)]);

    let refused = of_bob.recall(&to_alice, 2).await.expect_err("not theirs");
    assert!(matches!(refused, Error::Refused { code: 20002, .. }), "{refused}");
    let stranger = Client::new(&format!("http://{}", server.ready().http), "nonsense").expect("a client");
    let refused = stranger.list("", 1).await.expect_err("no token");
    assert!(matches!(refused, Error::Refused { code: 10004, .. }), "{refused}");
}

#[tokio::test]
async fn groups_are_made_changed_and_left() {
    let server = shared_server();
    let (alice, bob, carol) = (fresh("alice"), fresh("bob"), fresh("carol"));
    let (of_alice, of_bob) = (client_of(&server, &alice), client_of(&server, &bob));
    let group = of_alice.create_group(None, "Friends", &[user(&bob)]).await.expect("a group");
    of_alice.add_members(&group, &[user(&carol)]).await.expect("added");
    of_alice.kick_members(&group, &[user(&carol)]).await.expect("kicked");
    let info = of_bob.group_info(&group).await.expect("info");
    assert_eq!((info.members_count, info.duty, info.name.as_str()), (2, Duty::Member, "Friends"));
    let members = of_bob.members(&group, "", 10).await.expect("members").members;
    assert_eq!(members[0].user.as_str(), alice);
    of_alice.block(&user(&bob)).await.expect("blocked");
    assert_eq!(of_alice.blocks("", 10).await.expect("blocks").users, [user(&bob)]);
    of_bob.send(&Address::User(user(&alice)), "x").await.expect_err("blocked");
    of_alice.unblock(&user(&bob)).await.expect("unblocked");
    of_bob.send(&Address::User(user(&alice)), "x").await.expect("sent");
    of_alice.set_duty(&group, &user(&bob), Duty::Admin).await.expect("given");
    of_bob.rename_group(&group, "Others").await.expect("renamed");
    let listed = of_bob.groups("", 10).await.expect("groups");
    assert_eq!((listed.groups.len(), listed.cursor.as_str()), (1, ""));
    assert_eq!((listed.groups[0].name.as_str(), listed.groups[0].duty), ("Others", Duty::Admin));
    of_alice.mute(&group, &user(&bob), u32::MAX).await.expect("muted");
    let members = of_bob.members(&group, "", 10).await.expect("members").members;
    assert_eq!((members[0].muted_until_s, members[1].muted_until_s), (0, u32::MAX.into()));
    let muted = of_bob.send(&Address::Group(group.clone()), "x").await.expect_err("muted");
    assert!(muted.to_string().contains("muted"), "{muted}");
    of_alice.mute(&group, &user(&bob), 0).await.expect("not muted any more");
    of_bob.send(&Address::Group(group.clone()), "x").await.expect("sent");
    of_bob.leave_group(&group).await.expect("left");
    let refused = of_bob.leave_group(&group).await.expect_err("left already");
    assert!(matches!(refused, Error::Refused { code: 10008, .. }), "{refused}");
}

#[tokio::test]
async fn a_stream_tells_of_everything_and_goes_on_from_positions() {
    let server = shared_server();
    let (alice, bob) = (fresh("alice"), fresh("bob"));
    let (of_alice, of_bob) = (client_of(&server, &alice), client_of(&server, &bob));
    let (to_bob, to_alice) = (to_user(&bob), to_user(&alice));
    for text in ["1", "2", "3"] {
        of_alice.send(&to_bob, text).await.expect("sent");
    }
    let mut stream = of_bob.stream(&Positions::default(), Begin::Newest);
    assert_eq!(connected(&mut stream).await, bob);
    assert_eq!(until(&mut stream, message_index).await, 3);
    of_alice.signal(&to_bob, "typing", &json!({"on": true})).await.expect("told");
    let signal = until(&mut stream, |event| match event {
        Event::Signal { at, kind, data, .. } => Some((at, kind, data)),
        _ => None,
    });
    assert_eq!(signal.await, (to_alice.clone(), "typing".to_owned(), json!({"on": true})));
    of_alice.recall(&to_bob, 1).await.expect("recalled");
    let recall = until(&mut stream, |event| match event {
        Event::Recall { msg_index, recall_index, by, .. } => Some((msg_index, recall_index, by)),
        _ => None,
    });
    assert_eq!(recall.await, (1, 1, alice.clone()));
    let positions = stream.positions();
    drop(stream);

    of_alice.send(&to_bob, "4").await.expect("sent");
    of_alice.send(&to_bob, "5").await.expect("sent");
    let mut stream = of_bob.stream(&positions, Begin::Newest);
    assert_eq!(until(&mut stream, message_index).await, 4);
    assert_eq!(until(&mut stream, message_index).await, 5);
    assert_eq!(stream.positions().chats[0].msg_index, 5);
}

#[tokio::test]
async fn a_stream_tells_what_a_group_has_become() {
    let server = shared_server();
    let (alice, bob) = (fresh("alice"), fresh("bob"));
    let (of_alice, of_bob) = (client_of(&server, &alice), client_of(&server, &bob));
    let group = of_alice.create_group(None, "Friends", &[user(&bob)]).await.expect("a group");
    let mut stream = of_bob.stream(&Positions::default(), Begin::Newest);
    connected(&mut stream).await;
    of_alice.rename_group(&group, "Others").await.expect("renamed");
    of_alice.mute(&group, &user(&bob), u32::MAX).await.expect("muted");
    of_alice.leave_group(&group).await.expect("left");
    for (action, whom, duty, name, until_s) in [
        ("rename", &alice, None, Some("Others"), None),
        ("mute", &bob, None, None, Some(u32::MAX.into())),
        ("duty", &bob, Some(Duty::Owner), None, None),
        ("leave", &alice, None, None, None),
    ] {
        let expected = Event::Group {
            at: Address::Group(group.clone()),
            action: action.to_owned(),
            user: whom.clone(),
            by: alice.clone(),
            duty,
            name: name.map(str::to_owned),
            until_s,
            count: None,
        };
        let told = until(&mut stream, |event| matches!(event, Event::Group { .. }).then_some(event));
        assert_eq!(told.await, expected);
    }
}

#[tokio::test]
async fn a_conversation_that_comes_later_comes_whole() {
    let server = shared_server();
    let (alice, bob) = (fresh("alice"), fresh("bob"));
    let (of_alice, of_bob) = (client_of(&server, &alice), client_of(&server, &bob));
    let mut stream = of_bob.stream(&Positions::default(), Begin::Newest);
    connected(&mut stream).await;
    // What follows the event of connecting is counted when the next is taken.
    of_bob.send(&to_user(&bob), "a note").await.expect("sent");
    assert_eq!(until(&mut stream, message_index).await, 1);
    let positions = stream.positions();
    assert!(positions.is_whole);
    drop(stream);
    for text in ["1", "2", "3"] {
        of_alice.send(&to_user(&bob), text).await.expect("sent");
    }
    let mut stream = of_bob.stream(&positions, Begin::Newest);
    for index in 1..=3 {
        assert_eq!(until(&mut stream, message_index).await, index);
    }
}

#[tokio::test]
async fn without_positions_what_was_missed_is_missed() {
    let server = shared_server();
    let (alice, bob) = (fresh("alice"), fresh("bob"));
    let (of_alice, of_bob) = (client_of(&server, &alice), client_of(&server, &bob));
    of_alice.send(&to_user(&bob), "1").await.expect("sent");
    let mut stream = of_bob.stream(&Positions::default(), Begin::Newest);
    assert_eq!(until(&mut stream, message_index).await, 1);
    drop(stream);
    of_alice.send(&to_user(&bob), "2").await.expect("sent");
    of_alice.send(&to_user(&bob), "3").await.expect("sent");
    let mut stream = of_bob.stream(&Positions::default(), Begin::Newest);
    assert_eq!(until(&mut stream, message_index).await, 3, "the tests of resuming would see a hole");
}

#[tokio::test]
async fn more_than_a_replay_holds_is_pulled() {
    let server = shared_server();
    let (alice, bob) = (fresh("alice"), fresh("bob"));
    let of_alice = client_of(&server, &alice);
    let sends = (0..15).map(|_| {
        let (client, at) = (of_alice.clone(), to_user(&bob));
        tokio::spawn(async move {
            for _ in 0..70 {
                client.send(&at, "m").await.expect("sent");
            }
        })
    });
    for send in sends.collect::<Vec<_>>() {
        send.await.expect("no panic");
    }
    let mut stream = client_of(&server, &bob).stream(&Positions::default(), Begin::Oldest);
    for index in 1..=1050 {
        assert_eq!(until(&mut stream, message_index).await, index);
    }
}

#[tokio::test]
async fn a_reader_that_stops_for_a_while_still_sees_everything() {
    // However long a busy machine takes to send all of it, the reader is not given up meanwhile.
    let patient = ["--stream-queue", "140KiB", "--write-timeout", "10m", "--stream-ping", "10m"];
    let server = TestServer::start_with(&patient);
    let (of_alice, of_bob) = (client_of(&server, "alice"), client_of(&server, "bob"));
    let mut stream = of_bob.stream(&Positions::default(), Begin::Oldest);
    connected(&mut stream).await;
    let text = "x".repeat(60_000);
    // 40 MB: more than the client's channel, the kernel and the server's queue hold together.
    let sent = 700;
    for _ in 0..sent {
        of_alice.send(&to_user("bob"), &text).await.expect("sent");
    }
    of_alice.recall(&to_user("bob"), 1).await.expect("recalled");
    for index in 1..=sent {
        assert_eq!(until(&mut stream, message_index).await, index);
    }
    until(&mut stream, |event| matches!(event, Event::Recall { recall_index: 1, .. }).then_some(())).await;
    let behind = server.metric("chinwag_stream_behind_total");
    assert!(behind.is_some_and(|behind| behind >= 1.0), "the reader was never behind: {behind:?}");
}

/// Two streams with a token that runs out soon, and another token set for the second; `None` if the machine was too
/// busy to do that in time.
async fn begun_before_the_token_ran_out(
    server: &TestServer,
    user: &str,
) -> Option<(EventStream, EventStream)> {
    let mut claims = claims_of(user);
    let runs_out_s = since_epoch().as_secs() + 2;
    claims["exp"] = json!(runs_out_s);
    let url = format!("http://{}", server.ready().http);
    let clients = [(); 2].map(|()| Client::new(&url, &server.sign(&claims)).expect("a client"));
    let mut streams = clients.each_ref().map(|client| client.stream(&Positions::default(), Begin::Newest));
    for stream in &mut streams {
        let first = tokio::time::timeout(DEADLINE, stream.next()).await.expect("in time");
        match first {
            Some(Ok(Event::Connected { .. })) => {}
            Some(Err(Error::TokenExpired)) if since_epoch().as_secs() >= runs_out_s => return None,
            other => panic!("not connected: {other:?}"),
        }
    }
    clients[1].set_token(&server.sign(&claims_of(user)));
    let [ends, goes_on] = streams;
    (since_epoch().as_secs() < runs_out_s).then_some((ends, goes_on))
}

#[tokio::test]
async fn a_token_that_runs_out_ends_the_stream_unless_another_was_set() {
    let server = shared_server();
    let bob = fresh("bob");
    let deadline = Instant::now() + DEADLINE;
    let (mut ends, mut goes_on) = loop {
        assert!(Instant::now() < deadline, "no two streams begin within a second");
        if let Some(both) = begun_before_the_token_ran_out(&server, &bob).await {
            break both;
        }
    };
    let end = tokio::time::timeout(DEADLINE, ends.next()).await.expect("in time");
    assert!(matches!(end, Some(Err(Error::TokenExpired))), "{end:?}");
    assert!(ends.next().await.is_none());
    connected(&mut goes_on).await;
}

/// What a reader was given, which has to be 1..n on both indices of every conversation.
#[derive(Default)]
struct Seen {
    chats: HashMap<Address, (u32, u32)>,
    connections: u32,
}

impl Seen {
    fn take(&mut self, who: &str, event: Event) {
        match event {
            Event::Message { at, message } => {
                let (last, _) = self.chats.entry(at.clone()).or_default();
                assert_eq!(message.msg_index, *last + 1, "{who} in {at:?}");
                *last += 1;
            }
            Event::Recall { at, recall_index, msg_index, .. } => {
                let (messages, last) = self.chats.entry(at.clone()).or_default();
                assert_eq!(recall_index, *last + 1, "a recall for {who} in {at:?}");
                assert!(msg_index <= *messages, "{who} in {at:?}: a recall before its message");
                *last += 1;
            }
            Event::Connected { .. } => self.connections += 1,
            Event::Reset { at } => panic!("{who}: nobody took history back: {at:?}"),
            Event::Problem { at, why } => println!("{who} in {at:?}: {why}"),
            _ => {}
        }
    }
}

/// How far conversations go in the end, as each reader addresses them.
type Ends = HashMap<Address, (u32, u32)>;

/// Reads until everything is there. One that is forgetful goes away now and then, and comes back with
/// its positions.
async fn read(
    who: &'static str,
    client: Client,
    mut ends: watch::Receiver<Option<Ends>>,
    seed: Option<u64>,
) -> Seen {
    let mut forgets = seed.map(StdRng::seed_from_u64);
    let mut seen = Seen::default();
    let mut stream = client.stream(&Positions::default(), Begin::Oldest);
    while ends.borrow_and_update().as_ref() != Some(&seen.chats) {
        tokio::select! {
            event = stream.next() => seen.take(who, event.expect("it goes on").expect("an event")),
            changed = ends.changed() => changed.expect("the test goes on"),
        }
        if forgets.as_mut().is_some_and(|random| random.random_bool(0.02)) {
            stream = client.stream(&stream.positions(), Begin::Oldest);
        }
    }
    seen
}

/// Sends to the group and to the other in turn, and takes some of it back.
async fn write(client: Client, other: &'static str, sent: watch::Sender<u32>) {
    for number in 0..60_u32 {
        let at = if number % 2 == 0 { to_group("friends") } else { to_user(other) };
        let receipt = client.send(&at, &format!("text {number}")).await.expect("sent");
        if number % 5 == 0 {
            client.recall(&at, receipt.msg_index).await.expect("recalled");
        }
        sent.send_modify(|sent| *sent += 1);
    }
}

async fn end_of(client: &Client, at: &Address) -> (u32, u32) {
    let page = client.pull(at, &after(1, 0)).await.expect("a page");
    (page.max_msg_index, page.max_recall_index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_lines_that_break_and_servers_that_die_each_reader_sees_1_to_n_once() {
    let seed = std::env::var("CHINWAG_LINE_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("repeat the choices with CHINWAG_LINE_SEED={seed}");
    let mut server = TestServer::start();
    let line = Line::to(server.ready().http, seed, 500..16_000).await;
    let client = |who| Client::new(&line.url(), &server.sign(&claims_of(who))).expect("a client");
    let group = GroupId::parse("friends").expect("an id");
    let alice = client_of(&server, "alice");
    alice.create_group(Some(&group), "Friends", &[user("bob"), user("carol")]).await.expect("a group");

    let (sent, mut sent_so_far) = watch::channel(0);
    let writers = [("alice", "bob"), ("bob", "alice")]
        .map(|(who, other)| tokio::spawn(write(client(who), other, sent.clone())));
    drop(sent);
    let (tell, ends) = watch::channel(None);
    let (tell_carol, ends_of_carol) = watch::channel(None);
    let (tell_bob, ends_of_bob) = watch::channel(None);
    let readers = [
        tokio::spawn(read("alice", client("alice"), ends, None)),
        tokio::spawn(read("bob", client("bob"), ends_of_bob.clone(), None)),
        tokio::spawn(read("bob, who forgets", client("bob"), ends_of_bob, Some(seed))),
        tokio::spawn(read("carol, who forgets", client("carol"), ends_of_carol, Some(seed ^ 1))),
    ];
    for life in 1..=3 {
        sent_so_far.wait_for(|sent| *sent >= life * 30).await.expect("the writers go on");
        tokio::task::block_in_place(|| {
            server.kill();
            server.start_again();
        });
        line.lead_to(server.ready().http);
    }
    for writer in writers {
        writer.await.expect("no panic");
    }

    let alice = client_of(&server, "alice");
    let in_group = end_of(&alice, &to_group("friends")).await;
    let direct = end_of(&alice, &to_user("bob")).await;
    assert_eq!((in_group, direct), ((60, 12), (60, 12)), "no send was lost or doubled");
    let group = (to_group("friends"), in_group);
    tell.send_replace(Some(HashMap::from([group.clone(), (to_user("bob"), direct)])));
    tell_bob.send_replace(Some(HashMap::from([group.clone(), (to_user("alice"), direct)])));
    tell_carol.send_replace(Some(HashMap::from([group])));
    for reader in readers {
        let seen = tokio::time::timeout(3 * DEADLINE, reader).await.expect("in time").expect("no panic");
        assert!(seen.connections > 1, "the line broke");
    }
}
