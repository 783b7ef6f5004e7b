//! The feed: a service that keeps its offset gets everything that was accepted once and in order, and no text that nobody
//! may read.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, Connection, LATEST, Process, TestServer, chinwag};

const FEED: &str = "/im.admin/feed";
/// The log changes its segment often, and nothing of it goes.
const KEEPING: [&str; 6] = ["--segment-bytes", "256KiB", "--keep-log", "1h", "--checkpoint-interval", "1s"];

/// Whoever follows a server.
fn consumer(server: &TestServer) -> Client {
    let admin = server.admin("moderation");
    Client::new(server.ready().ops, "moderation", admin.token().to_owned())
}

#[track_caller]
fn page(consumer: &Client, body: &Value) -> Value {
    consumer.call(FEED, body).ok()
}

fn records(page: &Value) -> &Vec<Value> {
    page["records"].as_array().expect("records")
}

/// Everything from an offset on.
#[track_caller]
fn everything(consumer: &Client, offset: u64) -> Vec<Value> {
    let (mut all, mut next) = (Vec::new(), json!(offset));
    loop {
        let page = page(consumer, &json!({"offset": next, "count": 1000}));
        if records(&page).is_empty() {
            return all;
        }
        all.extend(records(&page).clone());
        next = page["next"].clone();
    }
}

/// A feed that waits, begun while nothing comes.
fn waiting(server: &TestServer, consumer: &Client, body: &Value) -> Connection {
    let mut connection = Connection::open(server.ready().ops).expect("the ops address accepts connections");
    connection.write(consumer.request(FEED, &[], body.to_string().as_bytes())).expect("the server reads");
    // Calls that come later and are answered: by now the feed is waiting.
    for _ in 0..5 {
        page(consumer, &json!({"count": 1}));
    }
    connection
}

#[test]
fn every_kind_of_record_is_there_as_documented() {
    let server = TestServer::start();
    let (alice, bob, consumer) = (server.client("alice"), server.client("bob"), consumer(&server));
    let body =
        json!({"target": "bob", "target_type": "user", "msg": "hi", "extra": "{}", "client_msg_id": "c"});
    let sent = alice.call("/im.chat/send", &body).ok();
    bob.with("alice").ack(1);
    alice.with("bob").recall(1);
    alice.create_group("g", &["bob"]);
    alice.group_call("set_duty", &json!({"group_id": "g", "user_id": "bob", "duty": 3}));
    alice.group_call("rename", &json!({"group_id": "g", "name": "new"}));
    alice.group_call("mute", &json!({"group_id": "g", "user_id": "bob", "until": 4_000_000_000_u64}));
    alice.group("g").send("in the group");
    bob.call("/im.relation/block", &json!({"user_id": "alice"})).ok();
    bob.call("/im.relation/unblock", &json!({"user_id": "alice"})).ok();
    let page = page(&consumer, &json!({}));
    let pair = json!({"type": "user", "users": ["alice", "bob"]});
    let group = json!({"type": "group", "group_id": "g"});
    let expected = [
        json!({"kind": "send", "conversation": pair, "msg_index": 1, "sender": "alice", "client_msg_id": "c",
            "msg": "", "extra": "", "recall_index": 1, "hidden": "recalled", "timestamp_ns": sent["timestamp_ns"]}),
        json!({"kind": "ack", "conversation": pair, "user": "bob", "msg_index": 1}),
        json!({"kind": "recall", "conversation": pair, "recall_index": 1, "msg_index": 1, "by": "alice"}),
        json!({"kind": "group", "conversation": group, "action": "create", "by": "alice",
            "users": ["alice", "bob"], "name": "Friends"}),
        json!({"kind": "group", "conversation": group, "action": "duty", "by": "alice", "users": ["bob"], "duty": 3}),
        json!({"kind": "group", "conversation": group, "action": "rename", "by": "alice", "users": [], "name": "new"}),
        json!({"kind": "group", "conversation": group, "action": "mute", "by": "alice", "users": ["bob"],
            "until": 4_000_000_000_u64}),
        json!({"kind": "send", "conversation": group, "msg_index": 1, "sender": "alice", "client_msg_id": "",
            "msg": "in the group", "extra": "", "recall_index": 0, "hidden": ""}),
        json!({"kind": "block", "conversation": pair, "by": "bob", "user": "alice"}),
        json!({"kind": "unblock", "conversation": pair, "by": "bob", "user": "alice"}),
    ];
    for (place, (record, mut expected)) in records(&page).iter().zip(expected).enumerate() {
        expected["offset"] = json!(place + 1);
        if expected["kind"] != "ack" {
            let time = record["timestamp_ns"].as_str().expect("nanoseconds as text");
            assert!(time.parse::<u64>().is_ok_and(|ns| ns > 0), "{record}");
            expected["timestamp_ns"] = json!(time);
        }
        assert_eq!(*record, expected);
    }
    assert_eq!(records(&page)[0]["timestamp_ns"], sent["timestamp_ns"]);
    let places = [&page["next"], &page["first"], &page["newest"], &page["epoch"]];
    assert_eq!(places, [11, 1, 10, 1]);
    let format = std::fs::read_to_string(server.data().join("FORMAT")).expect("FORMAT");
    let store = format.lines().find_map(|line| line.strip_prefix("store ")).expect("the store's id");
    assert_eq!(page["store"], store);
    let old = json!({"group_id": "g"});
    alice.group_call("dismiss", &old);
    let last = &everything(&consumer, 8);
    assert_eq!((&last[0]["msg"], &last[0]["hidden"]), (&json!(""), &json!("dismissed")));
    assert_eq!(last[3]["action"], "dismiss");
}

#[test]
fn it_takes_an_admin_and_a_lawful_body() {
    let server = TestServer::start();
    let consumer = consumer(&server);
    let nobody = Client::new(server.ready().ops, "alice", server.client("alice").token().to_owned());
    nobody.call(FEED, &json!({})).assert_error(403, 10008);
    consumer.call(FEED, &json!({"offset": -1})).assert_error_naming(400, 10001, &["offset"]);
    consumer.call(FEED, &json!({"count": 1001})).assert_error_naming(400, 10001, &["count", "1000"]);
    consumer.call(FEED, &json!({"wait_ms": 30_001})).assert_error_naming(400, 10001, &["wait_ms", "30000"]);
    consumer.call(FEED, &json!({"form": 1})).assert_error_naming(400, 10001, &["form"]);
    // On the public address there is no such call.
    server.admin("moderation").call(FEED, &json!({})).assert_error(404, 10001);
}

#[test]
fn an_offset_that_is_not_kept_has_not_come_or_is_of_another_epoch_is_refused_with_where_the_log_stands() {
    let server = TestServer::start();
    let (alice, consumer) = (server.client("alice"), consumer(&server));
    alice.with("bob").send("one");
    for _ in 0..2 {
        alice.with("bob").send("more");
        consumer.call("/im.admin/snapshot", &json!({"compact": true})).ok();
    }
    alice.with("bob").send("the last");
    let refused = consumer.call(FEED, &json!({"offset": 1}));
    refused.assert_error_naming(410, 23001, &["offset 1 is no longer kept", "the oldest kept is 4"]);
    assert_eq!((&refused.json()["first"], &refused.json()["newest"]), (&json!(4), &json!(4)));
    let beyond = consumer.call(FEED, &json!({"offset": "6"}));
    beyond.assert_error_naming(416, 23002, &["offset 6 lies beyond the next record, 5"]);
    assert_eq!(beyond.json()["newest"], 4);
    let other = consumer.call(FEED, &json!({"offset": 4, "epoch": 7}));
    other.assert_error_naming(409, 23003, &["epoch 7 is over, this is 1"]);
    assert_eq!(other.json()["epoch"], 1);
    assert_eq!(records(&page(&consumer, &json!({"offset": 4, "epoch": 1})))[0]["msg"], "the last");
    assert_eq!(records(&page(&consumer, &json!({})))[0]["offset"], 4);
    let behind = page(&consumer, &json!({"offset": "newest"}));
    assert_eq!((records(&behind).len(), &behind["next"]), (0, &json!(5)));
}

#[test]
fn a_feed_that_waits_is_woken_by_a_record_and_ends_with_the_time_and_with_the_drain() {
    let mut server = TestServer::start();
    let (alice, consumer) = (server.client("alice"), consumer(&server));
    let mut one = waiting(&server, &consumer, &json!({"offset": 1, "wait_ms": 30_000}));
    let mut other = waiting(&server, &consumer, &json!({"offset": "newest", "wait_ms": 30_000}));
    let sent = Instant::now();
    alice.with("bob").send("hello");
    for feed in [&mut one, &mut other] {
        let page = feed.read_reply().expect("a reply").ok();
        assert_eq!((&records(&page)[0]["msg"], &page["next"]), (&json!("hello"), &json!(2)));
    }
    assert!(sent.elapsed() < LATEST, "woken after {:?}", sent.elapsed());
    let empty = page(&consumer, &json!({"offset": 2, "wait_ms": 50}));
    assert_eq!((records(&empty).len(), &empty["next"]), (0, &json!(2)));
    let mut last = waiting(&server, &consumer, &json!({"offset": 2, "wait_ms": 30_000}));
    let stopped = Instant::now();
    server.signal(Signal::TERM);
    let page = last.read_reply().expect("a reply").ok();
    assert_eq!((records(&page).len(), &page["next"]), (0, &json!(2)));
    assert_eq!(server.finish().code(), Some(0));
    assert!(stopped.elapsed() < LATEST, "the drain took {:?}", stopped.elapsed());
}

#[test]
fn consumers_that_close_give_their_places_back() {
    let server = TestServer::start();
    let consumer = consumer(&server);
    let began = Instant::now();
    let body = json!({"offset": "newest", "wait_ms": 30_000});
    let mut all: Vec<_> = (0..15).map(|_| waiting(&server, &consumer, &body)).collect();
    let mut last = Connection::open(server.ready().ops).expect("a connection");
    last.write(consumer.request(FEED, &[], body.to_string().as_bytes())).expect("the server reads");
    all.push(last);
    let answered = |status| Some(()).filter(|()| consumer.call(FEED, &json!({})).status == status);
    crate::support::eventually("all places are taken", || answered(429));
    drop(all);
    crate::support::eventually("there is one", || answered(200));
    assert!(began.elapsed() < Duration::from_secs(25), "before the waits are over");
}

#[test]
fn feeds_that_wait_have_a_limit_and_hold_up_no_order() {
    let server = TestServer::start();
    let (alice, consumer) = (server.client("alice"), consumer(&server));
    let body = json!({"offset": "newest", "wait_ms": 30_000});
    let mut all: Vec<_> = (0..15).map(|_| waiting(&server, &consumer, &body)).collect();
    let mut last = Connection::open(server.ready().ops).expect("a connection");
    last.write(consumer.request(FEED, &[], body.to_string().as_bytes())).expect("the server reads");
    let refused = crate::support::eventually("the sixteenth has its place", || {
        Some(consumer.call(FEED, &json!({}))).filter(|reply| reply.status != 200)
    });
    refused.assert_error_naming(429, 10009, &["16 feeds"]);
    assert_eq!(refused.header("retry-after"), Some("1"));
    consumer.call("/im.admin/snapshot", &json!({})).ok();
    assert_eq!(server.ops("GET", "/readyz").status, 200);
    alice.with("bob").send("hello");
    all.push(last);
    for mut feed in all {
        assert_eq!(records(&feed.read_reply().expect("a reply").ok()).len(), 1);
    }
    // All places are free again.
    assert_eq!(records(&page(&consumer, &json!({}))).len(), 1);
}

/// Sends where the log is small: its next segment may just be being made.
fn send_when_there_is_room(from: &Client, text: &str) {
    crate::support::eventually("the log has room", || {
        let reply = from.with("bob").call("send", &json!({"msg": text}));
        (reply.status != 503).then(|| reply.ok())
    });
}

#[test]
fn a_damaged_segment_is_told_with_file_and_offset_and_the_next_can_be_read() {
    let server = TestServer::start_with(&["--segment-bytes", "256KiB", "--keep-log", "1h"]);
    let (alice, consumer) = (server.client("alice"), consumer(&server));
    alice.with("bob").send("the needle");
    for _ in 0..20 {
        send_when_there_is_room(&alice, &"x".repeat(30_000));
    }
    let segment = server.data().join("wal/00000000000000000001.wal");
    let bytes = std::fs::read(&segment).expect("a segment");
    let at = bytes.windows(10).position(|window| window == b"the needle").expect("in the first segment");
    let file = std::fs::OpenOptions::new().write(true).open(&segment).expect("a segment");
    file.write_all_at(b"T", at as u64).expect("a byte is written");
    let refused = consumer.call(FEED, &json!({"offset": 1}));
    refused.assert_error_naming(500, 10003, &["00000000000000000001.wal", "byte 4096", "record 1"]);
    let resume = refused.json()["resume"].as_u64().expect("where to go on");
    assert!(resume > 2, "{refused:?}");
    consumer.call(FEED, &json!({"offset": resume - 1})).assert_error(500, 10003);
    assert_eq!(everything(&consumer, resume).len() as u64, 22 - resume);
    assert!(server.stderr().contains("00000000000000000001.wal"), "the log says so too");
}

#[test]
fn a_restore_changes_the_epoch_and_keeps_the_offsets() {
    let mut server = TestServer::start();
    let (alice, told) = (server.client("alice"), tempfile::tempdir().expect("a directory"));
    alice.with("bob").send("one");
    alice.with("bob").send("two");
    let before = page(&consumer(&server), &json!({}));
    server.stop();
    let data = told.path().join("data");
    let [from, to] = [server.data(), &data].map(|path| path.to_str().expect("UTF-8"));
    let restored = Process::run(chinwag(&["restore", from, "--data", to, "--at", "1"]));
    assert_eq!(restored.code(), Some(0), "{restored:?}");
    std::fs::remove_dir_all(server.data()).expect("removed");
    std::fs::rename(&data, server.data()).expect("in its place");
    server.start_again();
    let consumer = consumer(&server);
    let asked = json!({"offset": before["next"], "epoch": before["epoch"]});
    consumer.call(FEED, &asked).assert_error(409, 23003);
    consumer.call(FEED, &json!({"offset": 4})).assert_error(416, 23002);
    let after = page(&consumer, &json!({}));
    assert_eq!((records(&after).len(), &records(&after)[0]["msg"]), (1, &json!("one")));
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64() && after["store"] == before["store"]);
}

/// What senders were told, by user and index.
type Acknowledged = Mutex<BTreeMap<(String, u64), String>>;

/// Sends until the server goes away.
fn send_on(client: &Client, life: u32, done: &AtomicBool, acknowledged: &Acknowledged) {
    for number in 0.. {
        let text = format!("{life} {number} {}", "x".repeat(500));
        let fields = json!({"msg": text, "client_msg_id": format!("{life}-{number}")});
        let Ok(reply) = client.with("everybody").try_call("send", &fields) else { break };
        if reply.status == 200 {
            let index = reply.json()["msg_index"].as_u64().expect("an index");
            acknowledged.lock().expect("not poisoned").insert((client.user.clone(), index), text);
        }
    }
    done.store(true, Ordering::Relaxed);
}

/// Takes a page in, and asserts that it goes on where the last one ended.
fn take_in(page: &Value, next: &mut u64, seen: &mut BTreeMap<(String, u64), String>) {
    for record in records(page) {
        assert_eq!(record["offset"], *next);
        *next += 1;
        let (user, index) = (record["sender"].as_str(), record["msg_index"].as_u64());
        let (user, index) = (user.expect("a sender"), index.expect("an index"));
        let text = record["msg"].as_str().expect("a text").to_owned();
        assert!(seen.insert((user.to_owned(), index), text).is_none(), "twice: {record}");
        assert!(index == 1 || seen.contains_key(&(user.to_owned(), index - 1)), "a hole before {record}");
    }
    assert_eq!(page["next"], *next);
}

/// Across kills, checkpoints and segments.
#[test]
fn under_load_a_consumer_that_keeps_its_offset_gets_exactly_what_was_acknowledged() {
    let mut server = TestServer::start_with(&KEEPING);
    let (acknowledged, mut seen) = (Acknowledged::default(), BTreeMap::new());
    let mut next = 1;
    for life in 0..3 {
        let consumer = consumer(&server);
        let senders: Vec<_> = (0..4).map(|sender| server.client(&format!("sender-{sender}"))).collect();
        let done: Vec<_> = senders.iter().map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for (sender, done) in senders.iter().zip(&done) {
                scope.spawn(|| send_on(sender, life, done, &acknowledged));
            }
            let enough = next + 1_000;
            while next < enough {
                let body = json!({"offset": next, "count": 200, "wait_ms": 10_000});
                take_in(&page(&consumer, &body), &mut next, &mut seen);
            }
            server.kill();
        });
        assert!(done.iter().all(|done| done.load(Ordering::Relaxed)));
        server.start_again();
    }
    let consumer = consumer(&server);
    loop {
        let page = page(&consumer, &json!({"offset": next, "count": 1000}));
        take_in(&page, &mut next, &mut seen);
        if records(&page).is_empty() {
            break;
        }
    }
    for (place, text) in acknowledged.into_inner().expect("not poisoned") {
        assert_eq!(seen.get(&place), Some(&text), "{place:?}");
    }
    // What was stored and not answered before the kill may be more, and is readable too.
    for sender in 0..4 {
        let user = format!("sender-{sender}");
        let stored = server.client(&user).with("everybody").everything().max_msg_index;
        let given = seen.keys().filter(|(of, _)| *of == user).count();
        assert_eq!(given, stored as usize);
    }
    let again = everything(&consumer, 1);
    assert_eq!(again.len() as u64, next - 1, "and all of it again, from the beginning");
    let segments = std::fs::read_dir(server.data().join("wal")).expect("a directory").count();
    assert!(segments > 4, "the control: {segments} segments");
}
