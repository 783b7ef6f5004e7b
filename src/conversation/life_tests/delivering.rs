//! Live delivery: whoever looks gets every event once, in order, without a hole, from wherever they
//! joined; who is put out hears that and nothing further.

use std::future::poll_fn;
use std::task::Poll;

use super::*;
use crate::live::{Behind, Content, Event, Limits, Session};
use crate::message::Chat;

pub(super) fn session() -> Arc<Session> {
    let no_limits = Limits { events_max: usize::MAX, bytes_max: usize::MAX, behind_max: usize::MAX };
    Arc::new(Session::new(no_limits))
}

/// The next events; waits for one.
async fn take(session: &Session) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    let behind: Option<Behind> = poll_fn(|cx| session.poll_take(cx, &mut events, usize::MAX)).await;
    assert_eq!(behind, None);
    events
}

/// Those that wait now, or none.
pub(super) async fn taken(session: &Session) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    poll_fn(|cx| {
        let _ = session.poll_take(cx, &mut events, usize::MAX);
        Poll::Ready(())
    })
    .await;
    events
}

pub(super) fn indices_of(events: &[Arc<Event>]) -> Vec<u32> {
    let index = |event: &Arc<Event>| match &event.content {
        Content::Message(message) => Some(message.msg_index),
        _ => None,
    };
    events.iter().filter_map(index).collect()
}

fn begun(chats: &[Chat], at: &Address) -> u32 {
    chats.iter().find(|chat| chat.at == *at).map_or(0, |chat| chat.msg_index)
}

/// Writers write, readers come and go, conversations leave memory: each reader gets exactly what is
/// behind the place where it joined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_while_others_write_misses_nothing_and_gets_nothing_twice() {
    const MESSAGES: u32 = 400;
    let life = Arc::new(Life::begin(&Simulated::new(1)));
    let members = ["ann", "ben", "cat"].map(user).to_vec();
    life.conversations()
        .create_group(&caller("ann"), Some(group_id("g")), "n".into(), members)
        .await
        .unwrap();
    let writers: Vec<_> = ["ann", "cat"]
        .into_iter()
        .map(|writer| {
            let life = life.clone();
            tokio::spawn(async move {
                for number in 0..MESSAGES {
                    let at = if number % 2 == 0 { to("ben") } else { group("g") };
                    life.send(writer, &at, "text").await;
                }
            })
        })
        .collect();
    let all = [(to("ann"), MESSAGES / 2), (to("cat"), MESSAGES / 2), (group("g"), MESSAGES)];
    let mut joined = 0;
    while !writers.iter().all(|writer| writer.is_finished()) || joined < 3 {
        joined += 1;
        let session = session();
        let (attached, chats) = life.conversations().attach(&user("ben"), session.clone(), 10).await.unwrap();
        let mut expected: Vec<_> = all.iter().map(|(at, _)| begun(&chats, at) + 1).collect();
        let mut left = if joined % 2 == 0 { 30 } else { 1_000_000 };
        while left > 0 && expected.iter().zip(&all).any(|(next, (_, end))| next <= end) {
            for event in take(&session).await {
                let at = event.key.address_for(&user("ben"));
                let place = all.iter().position(|(known, _)| *known == at).unwrap();
                for index in indices_of(&[event]) {
                    assert_eq!(index, expected[place], "{at:?} in session {joined}");
                    expected[place] += 1;
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        drop(attached);
        if joined % 4 == 0 {
            life.conversations().shared.context.inboxes.close_idle(u32::MAX, u64::MAX);
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newcomer_hears_of_coming_in_and_the_one_put_out_of_that_and_nothing_further() {
    let life = Life::begin(&Simulated::new(1));
    let conversations = life.conversations();
    let ben = session();
    let (_attached, chats) = conversations.attach(&user("ben"), ben.clone(), 10).await.unwrap();
    assert_eq!(chats, []);
    conversations.create_group(&caller("ann"), Some(group_id("g")), "n".into(), vec![]).await.unwrap();
    life.send("ann", &group("g"), "before").await;
    conversations.add_members(&caller("ann"), &group_id("g"), vec![user("ben")]).await.unwrap();
    life.send("ann", &group("g"), "while").await;
    conversations.kick_members(&caller("ann"), &group_id("g"), vec![user("ben")]).await.unwrap();
    life.send("ann", &group("g"), "behind").await;
    assert_eq!(told(&life, &ben).await, ["Add ben by ann", "Behind", "while", "Kick ben by ann"]);
    life.stop().await;
}

/// What waits in a session, in words: of changes who, of crowds how many.
async fn told(life: &Life, session: &Session) -> Vec<String> {
    life.conversations().shared.context.deliveries.caught_up().await;
    let tell = |event: &Arc<Event>| match &event.content {
        Content::Group { action, user, by, .. } => format!("{action:?} {user} by {by}"),
        Content::Crowd { action, count, by } => format!("{action:?} {count} by {by}"),
        Content::Message(message) => message.msg.to_string(),
        other => format!("{other:?}"),
    };
    taken(session).await.iter().map(tell).collect()
}

/// So many strangers, and then these.
fn strangers_and(count: usize, known: &[&str]) -> Vec<UserId> {
    let strangers = (0..count).map(|number| user(&format!("s{number}")));
    strangers.chain(known.iter().map(|id| user(id))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_crowd_each_hears_of_themselves_and_everybody_of_how_many() {
    let life = Life::begin_with_room(&Simulated::new(1));
    let conversations = life.conversations();
    // The queue that connections have by default: one by one it would not hold them.
    let [ann, ben, cat, dan] = [(); 4].map(|()| Arc::new(Session::default()));
    let mut attached = Vec::new();
    for (id, session) in [("ann", &ann), ("ben", &ben), ("cat", &cat), ("dan", &dan)] {
        attached.push(conversations.attach(&user(id), session.clone(), 10).await.unwrap());
    }
    let (by, g) = (caller("ann"), group_id("g"));
    let first = strangers_and(1_198, &["ben", "cat"]);
    conversations.create_group(&by, Some(g.clone()), "n".into(), first).await.unwrap();
    assert_eq!(told(&life, &ann).await, ["Create ann by ann", "Add 1200 by ann"]);
    assert_eq!(told(&life, &ben).await, ["Add ben by ann", "Add 1200 by ann"]);
    assert_eq!(told(&life, &cat).await, ["Add cat by ann", "Add 1200 by ann"]);
    assert_eq!(told(&life, &dan).await, [""; 0]);

    conversations.kick_members(&by, &g, strangers_and(1_100, &["ben"])).await.unwrap();
    life.send("ann", &group("g"), "behind").await;
    assert_eq!(told(&life, &ann).await, ["Kick 1101 by ann", "behind"]);
    assert_eq!(told(&life, &ben).await, ["Kick ben by ann"], "who is out hears nothing further");
    assert_eq!(told(&life, &cat).await, ["Kick 1101 by ann", "behind"]);

    conversations.add_members(&by, &g, strangers_and(1_100, &["dan"])).await.unwrap();
    assert_eq!(told(&life, &ann).await, ["Add 1101 by ann"]);
    assert_eq!(told(&life, &ben).await, [""; 0]);
    assert_eq!(told(&life, &dan).await, ["Add dan by ann", "Add 1101 by ann", "Behind"]);
    let listed = async |id| conversations.list(&user(id), "", 10).await.unwrap();
    assert_eq!((listed("ben").await.chats.len(), listed("cat").await.total_unread), (0, 1));
    assert_eq!((listed("dan").await.chats.len(), listed("dan").await.total_unread), (1, 0));

    // Who inherits the group is told before those who go, also to them.
    let app = Caller { user: user("app"), admin: true };
    conversations.kick_members(&app, &g, strangers_and(1_198, &["ann", "dan"])).await.unwrap();
    assert_eq!(told(&life, &ann).await, ["Duty(Owner) cat by app", "Kick ann by app"]);
    assert_eq!(told(&life, &dan).await, ["Duty(Owner) cat by app", "Kick dan by app"]);
    assert_eq!(told(&life, &cat).await, ["Add 1101 by ann", "Duty(Owner) cat by app", "Kick 1200 by app"]);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_up_to_the_limit_everybody_hears_of_each() {
    let life = Life::begin_with_room(&Simulated::new(1));
    let conversations = life.conversations();
    let (ann, ben) = (session(), session());
    let _ann = conversations.attach(&user("ann"), ann.clone(), 10).await.unwrap();
    let _ben = conversations.attach(&user("ben"), ben.clone(), 10).await.unwrap();
    let (by, g) = (caller("ann"), group_id("g"));
    conversations.create_group(&by, Some(g.clone()), "n".into(), strangers_and(62, &["ben"])).await.unwrap();
    let told_each = told(&life, &ann).await;
    assert_eq!(
        (told_each.len(), &*told_each[0], &*told_each[63]),
        (64, "Create ann by ann", "Add ben by ann")
    );
    assert_eq!(told(&life, &ben).await, told_each);
    conversations.kick_members(&by, &g, strangers_and(62, &["ben"])).await.unwrap();
    assert_eq!((told(&life, &ann).await.len(), told(&life, &ben).await.len()), (63, 63));
    // One more is a crowd.
    conversations.add_members(&by, &g, strangers_and(65, &[])).await.unwrap();
    assert_eq!(told(&life, &ann).await, ["Add 65 by ann"]);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_few_who_are_put_out_together_each_hears_nothing_behind_themselves() {
    let life = Life::begin_with_room(&Simulated::new(1));
    let conversations = life.conversations();
    let [ann, ben, cat, dan] = [(); 4].map(|()| session());
    let mut attached = Vec::new();
    for (id, session) in [("ann", &ann), ("ben", &ben), ("cat", &cat), ("dan", &dan)] {
        attached.push(conversations.attach(&user(id), session.clone(), 10).await.unwrap());
    }
    let (g, app) = (group_id("g"), Caller { user: user("app"), admin: true });
    let members = ["ben", "cat", "dan"].map(user).to_vec();
    conversations.create_group(&caller("ann"), Some(g.clone()), "n".into(), members).await.unwrap();
    for session in [&ann, &ben, &cat, &dan] {
        assert_eq!(told(&life, session).await.len(), 4);
    }
    conversations.kick_members(&app, &g, ["ben", "ann", "cat"].map(user).to_vec()).await.unwrap();
    life.send("dan", &group("g"), "behind").await;
    let all = ["Duty(Owner) dan by app", "Kick ben by app", "Kick ann by app", "Kick cat by app", "behind"];
    for (session, hears) in [(&ben, 2), (&ann, 3), (&cat, 4), (&dan, 5)] {
        assert_eq!(told(&life, session).await, all[..hears]);
    }
    for (id, chats) in [("ben", 0), ("ann", 0), ("cat", 0), ("dan", 1)] {
        assert_eq!(conversations.list(&user(id), "", 10).await.unwrap().chats.len(), chats, "{id}");
    }
    life.stop().await;
}

/// Inboxes are read while crowds come and go: each ends with what the group says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_that_is_read_while_crowds_come_and_go_lists_the_group_iff_its_user_is_in() {
    let life = Arc::new(Life::begin_with_room(&Simulated::new(1)));
    let conversations = life.conversations();
    let g = group_id("g");
    conversations.create_group(&caller("ann"), Some(g.clone()), "n".into(), vec![]).await.unwrap();
    let changes = tokio::spawn({
        let life = life.clone();
        async move {
            let (by, g) = (caller("ann"), group_id("g"));
            for round in 0..60 {
                let crowd = strangers_and(80, &["ben"]);
                life.conversations().add_members(&by, &g, crowd.clone()).await.unwrap();
                life.send("ann", &group("g"), "text").await;
                if round < 59 {
                    life.conversations().kick_members(&by, &g, crowd).await.unwrap();
                }
            }
        }
    });
    while !changes.is_finished() {
        let (attached, _) = conversations.attach(&user("ben"), session(), 10).await.unwrap();
        conversations.list(&user("ben"), "", 10).await.unwrap();
        drop(attached);
        conversations.shared.context.inboxes.close_idle(u32::MAX, u64::MAX);
    }
    changes.await.unwrap();
    let list = conversations.list(&user("ben"), "", 10).await.unwrap();
    assert_eq!((list.chats.len(), list.total_unread), (1, 1));
    conversations.kick_members(&caller("ann"), &g, strangers_and(80, &["ben"])).await.unwrap();
    assert_eq!(conversations.list(&user("ben"), "", 10).await.unwrap().chats.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reaches_who_is_in_and_leaves_nothing_behind() {
    let life = Life::begin(&Simulated::new(1));
    let conversations = life.conversations();
    life.send("ann", &to("ben"), "hello").await;
    let (ben, cat) = (session(), session());
    let _ben = conversations.attach(&user("ben"), ben.clone(), 10).await.unwrap();
    let _cat = conversations.attach(&user("cat"), cat.clone(), 10).await.unwrap();
    conversations.signal(&user("ann"), &to("ben"), "typing", "{}").await.unwrap();
    // To a stranger it goes nowhere, and begins nothing.
    conversations.signal(&user("ann"), &to("cat"), "typing", "{}").await.unwrap();
    assert!(matches!(&take(&ben).await[..], [event] if matches!(event.content, Content::Signal { .. })));
    assert_eq!(taken(&cat).await.len(), 0);
    assert_eq!(conversations.count(), 1);
    life.stop().await;
}

/// A conversation that comes into memory finds those who look already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_conversation_wakes_up_with_its_listeners() {
    let life = Life::begin(&Simulated::new(1));
    life.send("ann", &to("ben"), "one").await;
    let life = Life::begin(&life.stop().await);
    let ben = session();
    let (_attached, chats) = life.conversations().attach(&user("ben"), ben.clone(), 10).await.unwrap();
    assert_eq!(begun(&chats, &to("ann")), 1);
    assert_eq!(life.conversations().resident(), 0, "to look at it does not touch it");
    life.send("ann", &to("ben"), "two").await;
    assert_eq!(indices_of(&take(&ben).await), [2]);
    assert_eq!(life.conversations().recall(&user("ann"), &to("ben"), 1).await, Ok(1));
    let recalled = take(&ben).await;
    assert!(matches!(recalled[0].content, Content::Recall { msg_index: 1, recall_index: 1, .. }));
    life.stop().await;
}

/// The actor is there before anybody looks, and the conversation begins after somebody does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_reaches_who_began_to_look_after_the_actor_started() {
    let life = Life::begin(&Simulated::new(1));
    let entered = life.directory().escort(&key("ann", &to("ben"))).expect("it is not refused");
    let ben = session();
    let (_attached, chats) = life.conversations().attach(&user("ben"), ben.clone(), 10).await.unwrap();
    assert_eq!(chats, []);
    drop(entered);
    life.send("ann", &to("ben"), "hello").await;
    assert_eq!(indices_of(&take(&ben).await), [1]);
    let list = life.conversations().list(&user("ben"), "", 10).await.unwrap();
    assert_eq!((list.chats.len(), list.total_unread), (1, 1));
    life.stop().await;
}
