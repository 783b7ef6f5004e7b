//! How streams end: the token's time, the drain, silence.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, EventSource, LATEST, Stream, TestServer, eventually, since_epoch};

/// A client whose token the server takes for a second or two more.
fn about_to_expire(server: &TestServer, user: &str) -> Client {
    let claims = json!({"sub": user, "exp": since_epoch().as_secs() + 2});
    Client::new(server.ready().http, user, server.sign(&claims))
}

/// The stream behind its hello, if it is not refused.
fn said_hello(mut source: EventSource) -> Option<EventSource> {
    if !source.head.starts_with("HTTP/1.1 200") {
        return None;
    }
    assert_eq!(source.event().expect("an event")["type"], "hello");
    Some(source)
}

#[test]
fn a_stream_ends_with_its_token_and_says_so() {
    let server = TestServer::start();
    // A busy machine may find the token expired before both are open.
    let (alice, mut stream, mut source) = eventually("both are open in time", || {
        let alice = about_to_expire(&server, "alice");
        let (stream, source) = (alice.stream_at("").ok()?, said_hello(alice.event_source())?);
        Some((alice, stream, source))
    });
    let told = json!({"type": "close", "code": 4401, "msg": "token expired"});
    assert_eq!(stream.event(), told);
    assert_eq!(stream.close_code(), Some(4401));
    assert_eq!(source.event(), Some(told));
    assert_eq!(source.event(), None);
    assert_eq!(alice.stream_at("").err(), Some(401));
}

#[test]
fn a_drain_answers_what_is_in_flight_and_sends_clients_elsewhere() {
    let mut server = TestServer::start();
    let alice = server.client("alice");
    let (mut stream, mut source) = (alice.stream(), alice.event_source());
    assert_eq!(source.event().expect("an event")["type"], "hello");
    let wait = json!({"target": "bob", "target_type": "user", "direction": "after", "start_msg_index": 1,
        "count": 1, "wait_ms": 30_000});
    let waiting = stream.ask("pull", &wait);
    // Answered after the pull has begun to wait.
    stream.assert_quiet_but_for(waiting);
    server.signal(Signal::TERM);
    let answer = stream.result();
    assert_eq!((&answer["id"], &answer["result"]["msgs"]), (&json!(waiting), &json!([])));
    let told = stream.event_of("close");
    assert_eq!(told["code"], 1012);
    assert_eq!(stream.close_code(), Some(1012));
    assert_eq!(source.event(), Some(told));
    assert_eq!(source.event(), None);
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn streams_that_read_nothing_do_not_hold_up_the_end() {
    let mut server = TestServer::start_with(&["--drain-timeout", "60s"]);
    let _streams: Vec<Stream> =
        (0..20).map(|number| server.client(&format!("user-{number}")).stream()).collect();
    let started = std::time::Instant::now();
    server.stop();
    assert!(started.elapsed() < LATEST, "took {:?}", started.elapsed());
}

#[test]
fn who_answers_no_ping_is_closed_and_who_does_is_not() {
    let server = TestServer::start_with(&["--stream-ping", "2s"]);
    let mut silent = server.client("alice").stream();
    let mut alive = server.client("bob").stream();
    // Pongs are written when something is read: the one that reads lives.
    let mut bytes = Vec::new();
    std::thread::scope(|scope| {
        let closed = scope.spawn(|| {
            use std::io::Read;
            silent.tcp().read_to_end(&mut bytes).expect("the server closes");
        });
        while !closed.is_finished() {
            // Reads what is there, and asks for something no more often than the other does: never.
            alive.read_for(std::time::Duration::from_millis(100));
        }
    });
    assert!(bytes.starts_with(&[0x89, 0]), "{bytes:?}");
    let close = [0x88, 2 + "pings were not answered".len() as u8, (4408_u16 >> 8) as u8, 4408_u16 as u8];
    assert!(bytes.windows(4).any(|window| window == close), "{bytes:?}");
    alive.call("list", &json!({}));
}

#[test]
fn a_client_that_closes_gets_its_close_back() {
    let server = TestServer::start();
    let mut stream = server.client("alice").stream();
    stream.socket().close(None).expect("written");
    stream.close_code();
    eventually("the stream is gone", || {
        (server.metric("chinwag_streams{kind=\"websocket\"} ") == Some(0.0)).then_some(())
    });
}
