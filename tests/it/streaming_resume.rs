//! `resume`: history and live events meet without a hole or a repeat, whatever happens to the
//! connection or the server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::{Client, Stream, TestServer, fresh, shared_server};

fn cursor(target: &str, target_type: &str, msg_index: u32, recall_index: u32) -> Value {
    json!({"target": target, "target_type": target_type, "msg_index": msg_index, "recall_index": recall_index})
}

#[test]
fn what_was_missed_comes_before_what_is_new() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = bob.with(&alice.user);
    for number in 1..=120 {
        chat.send(&number.to_string());
    }
    chat.recall(3);
    chat.recall(110);
    let mut stream = alice.stream_at("?resume=1").expect("a stream");
    // Live already, and still behind what is replayed.
    chat.send("121");
    chat.recall(121);
    let id = stream.ask("resume", &json!({"cursors": [cursor(&bob.user, "user", 100, 1)]}));
    let mut indices = Vec::new();
    for index in 101..=120 {
        let event = stream.event_of("msg");
        assert_eq!(event["content"]["msg_index"], index, "{event}");
        assert_eq!(event["content"]["recall_index"], if index == 110 { 2 } else { 0 }, "{event}");
        assert_eq!(event["content"]["msg"] == "", index == 110, "{event}");
        indices.push(index);
    }
    let recall = stream.event_of("recall");
    assert_eq!(
        (&recall["content"]["recall_index"], &recall["content"]["msg_index"]),
        (&json!(2), &json!(110))
    );
    let result = stream.result();
    assert_eq!(result, json!({"id": id, "result": {"resumed": 1, "errors": []}}));
    assert_eq!(stream.event_of("msg")["content"]["msg_index"], 121);
    let recall = stream.event_of("recall");
    assert_eq!(recall["content"], json!({"msg_index": 121, "recall_index": 3, "by": bob.user}));
    stream.assert_quiet();
}

#[test]
fn without_resume_a_stream_goes_live_from_hello() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    bob.with(&alice.user).send("old");
    let mut stream = alice.stream();
    bob.with(&alice.user).send("new");
    assert_eq!(stream.event_of("msg")["content"]["msg"], "new");
    let mut other = alice.stream();
    // Another verb first is as good as waiting.
    other.call("list", &json!({}));
    bob.with(&alice.user).send("newer");
    assert_eq!(other.event_of("msg")["content"]["msg"], "newer");
}

#[test]
fn one_bad_cursor_does_not_fail_the_others() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let (theirs, none) = (fresh("group"), fresh("nobody"));
    bob.create_group(&theirs, &[]);
    bob.with(&alice.user).send("hi");
    let mut stream = alice.stream();
    let cursors = [
        cursor(&theirs, "group", 0, 0),
        cursor(&fresh("no-group"), "group", 0, 0),
        cursor(&none, "user", 0, 0),
        cursor(&bob.user, "user", 0, 0),
    ];
    let result = stream.call("resume", &json!({"cursors": cursors}));
    assert_eq!(result["resumed"], 2, "{result}");
    let codes: Vec<_> =
        result["errors"].as_array().expect("errors").iter().map(|error| &error["code"]).collect();
    assert_eq!(codes, [&json!(10008), &json!(22002)], "{result}");
    assert_eq!(stream.event_of("msg")["content"]["msg"], "hi");
    assert_eq!(stream.refused("resume", &json!({"cursors": "all"})), 10001);
    assert_eq!(stream.refused("resume", &json!({"cursors": [{"target": "x"}]})), 10001);
    assert_eq!(stream.call("resume", &json!({}))["resumed"], 0);
}

#[test]
fn what_is_named_twice_is_replayed_once() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    bob.with(&alice.user).send("hi");
    let mut stream = alice.stream();
    let result = stream.call("resume", &json!({"cursors": vec![cursor(&bob.user, "user", 0, 0); 100]}));
    assert_eq!((&result["resumed"], stream.events_so_far().len()), (&json!(1), 1), "{result}");
}

#[test]
fn who_missed_too_much_is_behind() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut sender = bob.stream();
    let body = json!({"target": alice.user, "target_type": "user", "msg": "m"});
    for _ in 0..1001 {
        sender.ask("send", &body);
    }
    for _ in 0..1001 {
        sender.result();
    }
    let mut stream = alice.stream_at("?resume=1").expect("a stream");
    stream.call("resume", &json!({"cursors": [cursor(&bob.user, "user", 0, 0)]}));
    let behind = stream.event_of("behind");
    assert_eq!(behind["chats"], json!([cursor(&bob.user, "user", 1001, 0)]));
    bob.with(&alice.user).send("next");
    assert_eq!(stream.event_of("msg")["content"]["msg_index"], 1002);
    let mut stream = alice.stream_at("?resume=1").expect("a stream");
    stream.call("resume", &json!({"cursors": [cursor(&bob.user, "user", 2, 0)]}));
    let events = stream.events_so_far();
    assert_eq!(events.len(), 1000);
    assert_eq!(events[999]["content"]["msg_index"], 1002);
}

#[test]
fn a_newcomer_to_a_group_has_no_hole_where_they_may_not_read() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.create_group(&group, &[]);
    for number in 1..=5 {
        alice.group(&group).send(&number.to_string());
    }
    alice.group_call("add", &json!({"group_id": group, "user_ids": [bob.user]}));
    alice.group(&group).send("6");
    let mut stream = bob.stream_at("?resume=1").expect("a stream");
    stream.call("resume", &json!({"cursors": [cursor(&group, "group", 0, 0)]}));
    let events = stream.events_so_far();
    assert_eq!(events[0]["chats"], json!([cursor(&group, "group", 5, 0)]), "{events:?}");
    assert_eq!(events[1]["content"]["msg_index"], 6, "{events:?}");
    assert_eq!(events.len(), 2);
}

#[test]
fn who_comes_into_a_group_hears_where_it_stands_before_anything_further() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.create_group(&group, &[]);
    alice.group(&group).send("not for bob");
    alice.group(&group).recall(1);
    let mut of_bob = bob.stream();
    alice.group_call("add", &json!({"group_id": group, "user_ids": [bob.user]}));
    alice.group(&group).send("two");
    let events: Vec<_> = (0..3).map(|_| of_bob.event()).collect();
    assert_eq!(events[0]["type"], "group", "{events:?}");
    assert_eq!(events[1]["chats"], json!([cursor(&group, "group", 1, 1)]), "{events:?}");
    assert_eq!(events[2]["content"]["msg_index"], 2, "{events:?}");
    of_bob.assert_quiet();
}

#[test]
fn who_comes_back_into_a_group_hears_where_it_stands_before_anything_further() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.create_group(&group, &[&bob.user]);
    let (mut of_alice, mut of_bob) = (alice.stream(), bob.stream());
    let of_group = json!({"group_id": group, "user_ids": [bob.user]});
    alice.group(&group).send("one");
    alice.group_call("kick", &of_group);
    alice.group(&group).send("not for bob");
    alice.group(&group).recall(1);
    alice.group_call("add", &of_group);
    alice.group(&group).send("three");
    alice.group(&group).recall(3);
    let kinds = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    };
    let events: Vec<_> = (0..6).map(|_| of_bob.event()).collect();
    assert_eq!(kinds(&events), ["msg", "group", "group", "behind", "msg", "recall"], "{events:?}");
    of_bob.assert_quiet();
    assert_eq!(events[3]["chats"], json!([cursor(&group, "group", 2, 1)]));
    assert_eq!(
        (&events[4]["content"]["msg_index"], &events[5]["content"]["recall_index"]),
        (&json!(3), &json!(2))
    );
    // It is nobody else's business.
    let events: Vec<_> = (0..7).map(|_| of_alice.event()).collect();
    assert_eq!(kinds(&events), ["msg", "group", "msg", "recall", "group", "msg", "recall"], "{events:?}");
    of_alice.assert_quiet();
}

/// What a reader has, over all of its connections.
#[derive(Default)]
struct Known {
    /// By conversation: newest message, newest recall.
    chats: BTreeMap<String, (u32, u32)>,
    texts: BTreeMap<(String, u32), String>,
}

impl Known {
    fn see(&mut self, event: &Value) {
        let number = |value: &Value| u32::try_from(value.as_u64().expect("a number")).expect("a u32");
        let target = event["target"].as_str().unwrap_or_default().to_owned();
        let known = self.chats.entry(target.clone()).or_default();
        let content = &event["content"];
        match event["type"].as_str() {
            Some("msg") => {
                let index = number(&content["msg_index"]);
                assert_eq!(index, known.0 + 1, "a hole or a repeat in {target}: {event}");
                known.0 = index;
                self.texts.insert((target, index), content["msg"].as_str().expect("a text").to_owned());
            }
            Some("recall") => {
                let index = number(&content["recall_index"]);
                assert_eq!(index, known.1 + 1, "a hole or a repeat in {target}: {event}");
                assert!(number(&content["msg_index"]) <= known.0, "recalled before it was there: {event}");
                known.1 = index;
                self.texts.insert((target, number(&content["msg_index"])), String::new());
            }
            Some("behind") => panic!("these readers are fast: {event}"),
            _ => {}
        }
    }

    fn cursors(&self) -> Value {
        let cursors = self.chats.iter().filter(|(target, _)| !target.is_empty());
        let cursors = cursors.map(|(target, (msg, recall))| {
            cursor(target, if target.starts_with("group") { "group" } else { "user" }, *msg, *recall)
        });
        json!({"cursors": cursors.collect::<Vec<_>>()})
    }
}

/// Reads for a while on one connection: to its end, or until it has had so many events.
fn read_once(client: &Client, known: &mut Known, events: u32) -> std::io::Result<()> {
    let mut stream: Stream = client.try_stream("?resume=1")?;
    // Named by hello and not known yet: from the start.
    for chat in stream.hello["chats"].as_array().expect("chats") {
        known.chats.entry(chat["target"].as_str().expect("a target").to_owned()).or_default();
    }
    stream.try_ask("resume", &known.cursors())?;
    for _ in 0..events {
        known.see(&stream.try_event()?);
    }
    Ok(())
}

/// One life of a server: writers write and recall; readers drop their connection at random. At its end
/// everybody reads to the end, if the server lives.
fn live(server: &mut TestServer, known: &mut [Known], random: &mut StdRng, sends: u32, kill: bool) {
    const WRITERS: [&str; 2] = ["writer-1", "writer-2"];
    let sent = AtomicU32::new(0);
    let over = AtomicBool::new(false);
    let seeds: Vec<u64> = (0..8).map(|_| random.random()).collect();
    let shared: &TestServer = server;
    std::thread::scope(|scope| {
        for (writer, seed) in WRITERS.iter().zip(&seeds) {
            let (sent, over) = (&sent, &over);
            scope.spawn(move || write(shared, writer, *seed, sends, sent, over));
        }
        for (reader, seed) in known.iter_mut().zip(&seeds[2..]) {
            let over = &over;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(*seed);
                let client = shared.client("reader");
                while !over.load(Ordering::Relaxed) {
                    // Whatever ends the connection, the next one goes on where it ended.
                    let _ = read_once(&client, reader, random.random_range(1..60));
                }
            });
        }
        while sent.load(Ordering::Relaxed) < sends {
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
        // Wakes readers that wait for the next event.
        if kill {
            shared.signal(rustix::process::Signal::KILL);
        } else {
            for writer in WRITERS {
                for _ in 0..60 {
                    shared.client(writer).with("reader").send("wake up");
                }
            }
        }
    });
    if kill {
        server.finish();
        server.start_again();
    }
}

fn write(server: &TestServer, writer: &str, seed: u64, sends: u32, sent: &AtomicU32, over: &AtomicBool) {
    let mut random = StdRng::seed_from_u64(seed);
    let client = server.client(writer);
    while sent.load(Ordering::Relaxed) < sends && !over.load(Ordering::Relaxed) {
        let to_group = random.random_bool(0.5);
        let chat = if to_group { client.group("group") } else { client.with("reader") };
        let text = format!("{writer} {}", random.random::<u32>());
        let Ok(reply) = chat.try_call("send", &json!({"msg": text})) else { return };
        let index = reply.ok()["msg_index"].clone();
        sent.fetch_add(1, Ordering::Relaxed);
        if random.random_ratio(1, 6) && chat.try_call("recall", &json!({"msg_index": index})).is_err() {
            return;
        }
    }
}

/// Reads until everything that a pull shows has come as events, and compares.
fn catch_up(server: &TestServer, known: &mut Known) {
    let reader = server.client("reader");
    let mut stream = reader.stream_at("?resume=1").expect("a stream");
    stream.call("resume", &known.cursors());
    for event in stream.events_so_far() {
        known.see(&event);
    }
    for (target, (msg, recall)) in known.chats.iter().filter(|(target, _)| !target.is_empty()) {
        let chat = if target == "group" { reader.group(target) } else { reader.with(target) };
        let all = chat.everything();
        assert_eq!((*msg, *recall), (all.max_msg_index, all.max_recall_index), "{target}");
        for message in &all.msgs {
            assert_eq!(known.texts[&(target.clone(), message.msg_index)], message.msg, "{target}");
        }
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a failing run has to say how to repeat it")]
fn readers_that_come_and_go_see_everything_once_and_in_order() {
    let lives = std::env::var("CHINWAG_STREAM_LIVES").map_or(4, |lives| lives.parse().expect("a number"));
    let seed = std::env::var("CHINWAG_STREAM_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("repeat the choices with CHINWAG_STREAM_SEED={seed} CHINWAG_STREAM_LIVES={lives}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = TestServer::start_with(&["--checkpoint-interval", "1s"]);
    server.client("writer-1").create_group("group", &["writer-2", "reader"]);
    let mut known: Vec<_> = (0..3).map(|_| Known::default()).collect();
    for life in 0..lives {
        let sends = random.random_range(50..400);
        live(&mut server, &mut known, &mut random, sends, life % 2 == 1);
    }
    for known in &mut known {
        catch_up(&server, known);
    }
}

/// The control: a reader that forgets one event is found out.
#[test]
fn a_lost_event_is_noticed() {
    let server = TestServer::start();
    let mut known = Known::default();
    for number in 0..10 {
        server.client("writer").with("reader").send(&number.to_string());
    }
    read_once(&server.client("reader"), &mut known, 5).expect("five events");
    known.chats.get_mut("writer").expect("the writer").0 += 1;
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| catch_up(&server, &mut known)));
    assert!(noticed.is_err(), "the check sees nothing");
}
