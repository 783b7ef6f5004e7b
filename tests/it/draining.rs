//! The end: SIGTERM and SIGINT finish what was accepted, take nothing new, and end in time.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, Connection, LATEST, Reply, TestServer, eventually, fresh};

#[test]
fn both_stop_signals_end_an_idle_server_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = TestServer::start();
        server.signal(signal);
        assert_eq!(server.finish().code(), Some(0), "{signal:?}");
    }
}

/// Time enough for whatever a test does meanwhile, on any machine.
const PATIENT: [&str; 6] = ["--drain-timeout", "60s", "--body-timeout", "60s", "--header-timeout", "60s"];

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let mut server = TestServer::start_with(&PATIENT);
    let alice = server.client("alice");
    // The client keeps its connection.
    alice.with("bob").send("hello");
    let untouched = server.connect();
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < LATEST, "took {:?}", started.elapsed());
    drop(untouched);
}

/// Somebody who hangs gets some of the time, and the end comes within all of it.
#[test]
fn a_hanging_connection_holds_up_the_end_no_longer_than_the_drain_timeout() {
    let mut server = TestServer::start_with(&["--drain-timeout", "2s", "--body-timeout", "60s"]);
    let mut hanging = stalled_send(&server, "never finished");
    let started = Instant::now();
    server.stop();
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(500), "cut off after {took:?}");
    assert!(took < LATEST, "took {took:?}");
    hanging.write(b"}").ok();
    let left = hanging.read_to_close().expect("the connection is closed");
    assert!(!left.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&left));
}

#[test]
fn a_second_signal_changes_nothing() {
    let mut server = TestServer::start_with(&PATIENT);
    let mut hanging = stalled_send(&server, "finished at last");
    server.signal(Signal::TERM);
    server.wait_until_draining();
    server.signal(Signal::TERM);
    server.wait_until_draining();
    hanging.write(b"}").expect("the server reads");
    hanging.read_reply().expect("an answer");
    assert_eq!(server.finish().code(), Some(0));
}

/// A send of which the last byte has not been written yet, and the server has seen the rest.
fn stalled_send(server: &TestServer, text: &str) -> Connection {
    let alice = server.client("alice");
    let body = json!({"target": "bob", "target_type": "user", "msg": text}).to_string();
    let bytes = alice.request("/im.chat/send", &[("Expect", "100-continue")], body.as_bytes());
    let mut connection = server.connect();
    connection.write(&bytes[..bytes.len() - 1]).expect("the server reads");
    // Asked to say so, it says when it begins to wait for the body.
    connection.read_continue().expect("the server waits for the body");
    connection
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    let mut server = TestServer::start_with(&PATIENT);
    let mut connection = stalled_send(&server, "in flight");
    server.signal(Signal::TERM);
    server.wait_until_draining();
    connection.write(b"}").expect("the server reads");
    let reply = connection.read_reply().expect("an answer");
    if reply.status == 200 {
        assert_eq!(reply.json()["msg_index"], 1);
    } else {
        assert_refused_by_a_drain(&reply);
    }
    assert!(reply.closes(), "{reply:?}");
    assert_eq!(server.finish().code(), Some(0));
    server.start_again();
    let kept = server.client("bob").with("alice").beginning().msgs.len();
    assert_eq!(kept, usize::from(reply.status == 200), "stored exactly if it was acknowledged");
}

#[track_caller]
fn assert_refused_by_a_drain(reply: &Reply) {
    reply.assert_error(503, 10011);
    let seconds: u32 = reply.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!(seconds >= 1, "{reply:?}");
    assert!(reply.json()["retry_after_ms"].as_u64().expect("milliseconds") > 0);
}

#[test]
fn a_waiting_pull_is_answered_at_once() {
    let mut server = TestServer::start_with(&PATIENT);
    let alice = server.client("alice");
    let body = json!({"target": "bob", "target_type": "user", "direction": "after", "start_msg_index": 1,
        "count": 1, "wait_ms": 30_000});
    let mut connection = server.connect();
    let bytes = alice.request("/im.chat/pull", &[], body.to_string().as_bytes());
    connection.write(bytes).expect("the server reads");
    eventually("the pull is in flight", || (server.metric("chinwag_in_flight ")? == 1.0).then_some(()));
    // Its body came with its head, so it has begun to wait when another call is answered.
    alice.with("bob").beginning();
    let started = Instant::now();
    server.signal(Signal::TERM);
    let reply = connection.read_reply().expect("an answer");
    assert_eq!(reply.ok()["msgs"], json!([]));
    assert_eq!(server.finish().code(), Some(0));
    assert!(started.elapsed() < LATEST, "took {:?}", started.elapsed());
}

#[test]
fn nothing_new_is_taken_while_draining() {
    let mut server = TestServer::start_with(&PATIENT);
    let hanging = stalled_send(&server, "never finished");
    let late = server.client("late");
    server.signal(Signal::TERM);
    server.wait_until_draining();
    match late.with("bob").try_call("send", &json!({"msg": "too late"})) {
        Ok(reply) => assert_refused_by_a_drain(&reply),
        Err(why) => assert_ne!(why.kind(), io::ErrorKind::WouldBlock, "left hanging"),
    }
    drop(hanging);
    assert_eq!(server.finish().code(), Some(0));
    server.start_again();
    assert_eq!(server.client("late").with("bob").beginning().max_msg_index, 0);
}

#[test]
fn an_order_drains_like_a_signal_and_again_changes_nothing() {
    let mut server = TestServer::start_with(&PATIENT);
    let (operator, mut hanging) = (server.operator(), stalled_send(&server, "finished at last"));
    server.client("owner").create_group("g", &[]);
    for _ in 0..2 {
        assert_eq!(operator.call("/im.admin/drain", &json!({})).ok(), json!({}));
        // It has begun when it is answered.
        assert_eq!(server.ops("GET", "/readyz").status, 503);
        assert_eq!(server.ops("GET", "/healthz").status, 200);
    }
    assert_refused_by_a_drain(&operator.call("/im.admin/members", &json!({"group_id": "g"})));
    hanging.write(b"}").expect("the server reads");
    assert_eq!(hanging.read_reply().expect("an answer").ok()["msg_index"], 1);
    let finished = server.finish();
    assert_eq!(finished.code(), Some(0));
    finished.assert_says(&["ordered to drain", "drained"]);
    server.start_again();
    assert_eq!(server.client("bob").with("alice").beginning().texts(), ["finished at last"]);
}

/// An idle server has nothing to finish but the answer itself.
#[test]
fn an_order_is_answered_before_the_end_however_soon_that_is() {
    for timeout in ["10s", "0s"] {
        for _ in 0..3 {
            let mut server = TestServer::start_with(&["--drain-timeout", timeout]);
            assert_eq!(server.operator().call("/im.admin/drain", &json!({})).ok(), json!({}));
            assert_eq!(server.finish().code(), Some(0));
        }
    }
}

#[test]
fn an_order_that_is_none_drains_nothing() {
    let server = TestServer::start();
    let (operator, no_admin) = (server.operator(), server.client("root"));
    let no_admin = Client::new(server.ready().ops, "root", no_admin.token().to_owned());
    no_admin.call("/im.admin/drain", &json!({})).assert_error(403, 10008);
    operator.call("/im.admin/drain", &json!({"now": true})).assert_error_naming(400, 10001, &["now"]);
    server.admin("root").call("/im.admin/drain", &json!({})).assert_error(404, 10001);
    assert_eq!(server.ops("GET", "/readyz").status, 200);
    server.client("alice").with("bob").send("still taken");
}

/// Sends until it is told no; gives what was acknowledged and what was refused.
fn send_until_refused(
    server: &TestServer,
    user: &str,
    sent: &AtomicU32,
) -> (BTreeMap<u32, String>, Vec<String>) {
    let client = server.client(user);
    let chat = client.with("reader");
    let mut acknowledged = BTreeMap::new();
    for number in 1.. {
        let text = format!("{user} {number}");
        let Ok(reply) = chat.try_call("send", &json!({"msg": text})) else {
            return (acknowledged, Vec::new());
        };
        if reply.status != 200 {
            assert_refused_by_a_drain(&reply);
            return (acknowledged, vec![text]);
        }
        let index = reply.json()["msg_index"].as_u64().expect("an index");
        acknowledged.insert(index.try_into().expect("a u32"), text);
        sent.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("a drain ends it")
}

#[test]
fn what_was_acknowledged_in_a_drain_is_kept_and_what_was_refused_is_not() {
    let mut server = TestServer::start();
    let users: Vec<_> = (0..4).map(|_| fresh("writer")).collect();
    let sent = AtomicU32::new(0);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let server = &server;
        let sent = &sent;
        let writers: Vec<_> =
            users.iter().map(|user| scope.spawn(move || send_until_refused(server, user, sent))).collect();
        while sent.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        server.signal(Signal::TERM);
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    assert_eq!(server.finish().code(), Some(0));
    server.start_again();
    for (user, (acknowledged, refused)) in users.iter().zip(outcomes) {
        let kept = server.client("reader").with(user).everything();
        for (index, text) in &acknowledged {
            assert_eq!(&kept.msgs[*index as usize - 1].msg, text);
        }
        for text in &refused {
            assert!(!kept.texts().contains(&text.as_str()), "{text} was refused and stored");
        }
        assert!(kept.msgs.len() <= acknowledged.len() + 1, "at most one outcome is unknown");
    }
}
