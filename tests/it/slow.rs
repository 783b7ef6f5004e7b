//! Slow and silent clients: every wait has an end.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Connection, DEADLINE, LATEST, TestServer, eventually};

const TIMEOUT: &str = "200ms";
/// Timers may fire early by a tick.
const EARLIEST: Duration = Duration::from_millis(190);

/// A send of which everything but the last byte has been written.
fn almost_a_send(server: &TestServer, client: &Client) -> Connection {
    let body = client.with("bob").body(&json!({"msg": "slow"})).to_string();
    let bytes = client.request("/im.chat/send", &[], body.as_bytes());
    let mut connection = server.connect();
    connection.write(&bytes[..bytes.len() - 1]).expect("the server reads");
    connection
}

#[test]
fn a_body_that_does_not_come_is_408_and_the_connection_ends() {
    let server = TestServer::start_with(&["--body-timeout", TIMEOUT]);
    let alice = server.client("alice");
    let started = Instant::now();
    let mut connection = almost_a_send(&server, &alice);
    let reply = connection.read_reply().expect("a reply");
    let took = started.elapsed();
    reply.assert_error(408, 10001);
    assert!(took >= EARLIEST && took < LATEST, "{took:?}");
    assert_eq!(connection.read_to_close().expect("the connection ends"), b"");
    assert_eq!(alice.with("bob").beginning().max_msg_index, 0);
}

#[test]
fn a_body_that_drips_has_no_more_time_than_one_that_does_not_come() {
    let server = TestServer::start_with(&["--body-timeout", TIMEOUT, "--header-timeout", "60s"]);
    let alice = server.client("alice");
    let mut connection = server.connect();
    let head = format!(
        "POST /im.chat/send HTTP/1.1\r\nHost: x\r\nToken: {}\r\nContent-Length: 60000\r\n\r\n",
        alice.token()
    );
    connection.write(head).expect("the server reads");
    // Waiting a moment for the reply sets the pace of the drops.
    connection.wait_at_most(Duration::from_millis(20));
    let started = Instant::now();
    let reply = loop {
        assert!(started.elapsed() < LATEST, "dripping is allowed without end");
        connection.write(b" ").ok();
        if let Ok(reply) = connection.read_reply() {
            break reply;
        }
    };
    reply.assert_error(408, 10001);
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let server = TestServer::start_with(&["--header-timeout", TIMEOUT]);
    for begun in [&b""[..], b"P", b"POST /im.chat/send HTTP/1.1\r\nHost: x\r\n"] {
        let started = Instant::now();
        let mut connection = server.connect();
        connection.write(begun).expect("the server reads");
        let all = connection.read_to_close().expect("the connection ends");
        let took = started.elapsed();
        let all = String::from_utf8_lossy(&all);
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 408"), "{begun:?}: {all}");
        assert!(took >= EARLIEST && took < LATEST, "{begun:?}: {took:?}");
    }
}

#[test]
fn a_head_that_drips_ends_the_connection() {
    let server = TestServer::start_with(&["--header-timeout", TIMEOUT]);
    let mut connection = server.connect();
    connection.write("POST /im.chat/send HTTP/1.1\r\nHost: x\r\nX: ").expect("the server reads");
    connection.wait_at_most(Duration::from_millis(20));
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < LATEST, "dripping is allowed without end");
        if connection.write(b"x").is_err() || connection.read_to_close().is_ok() {
            return;
        }
    }
}

#[test]
fn an_idle_connection_is_closed() {
    // Not so short that a busy machine has not written the request by then.
    let server = TestServer::start_with(&["--header-timeout", "2s"]);
    let alice = server.client("alice");
    let body = alice.with("bob").body(&json!({"msg": "m"})).to_string();
    let request = alice.request("/im.chat/send", &[], body.as_bytes());
    let mut connection = server.connect();
    connection.write(request).expect("the server reads");
    connection.read_reply().expect("a reply").ok();
    let idle = Instant::now();
    assert_eq!(connection.read_to_close().expect("the connection ends"), b"");
    assert!(idle.elapsed() < LATEST, "{:?}", idle.elapsed());
}

#[test]
fn a_waiting_pull_is_not_idle() {
    let server = TestServer::start_with(&["--header-timeout", "2s", "--body-timeout", "2s"]);
    let alice = server.client("alice");
    let started = Instant::now();
    let page = alice.with("bob").pull(&json!({"start_msg_index": 1, "wait_ms": 4000}));
    assert_eq!(page.max_msg_index, 0);
    assert!(started.elapsed() >= Duration::from_millis(3990), "{:?}", started.elapsed());
}

#[test]
fn a_client_that_does_not_read_loses_its_connection_and_delays_nobody() {
    let server = TestServer::start_with(&["--write-timeout", "300ms", "--sync", "never"]);
    let alice = server.client("alice");
    for _ in 0..50 {
        alice.with("bob").send(&"x".repeat(60_000));
    }
    let pull = json!({"direction": "after", "start_msg_index": 1, "count": 50});
    let body = alice.with("bob").body(&pull).to_string();
    let bytes = alice.request("/im.chat/pull", &[], body.as_bytes());
    let mut deaf = server.connect();
    // Three megabytes of reply each: far more than any socket buffers.
    for _ in 0..10 {
        deaf.write(&bytes).expect("the server reads");
    }
    let started = Instant::now();
    assert_eq!(alice.with("bob").send("others go on").msg_index, 51);
    assert!(started.elapsed() < LATEST);
    // The server gives up: what is left in the buffers is less than what was asked for.
    eventually("the connection is given up", || (server.metric("chinwag_connections")? <= 1.0).then_some(()));
    let left = deaf.read_to_close().expect("the connection ends");
    assert!(left.len() < 30_000_000, "{} bytes came", left.len());
}

#[test]
fn slow_connections_do_not_keep_others_out() {
    let server = TestServer::start();
    let alice = server.client("alice");
    let slow: Vec<_> = (0..200).map(|_| almost_a_send(&server, &alice)).collect();
    assert_eq!(alice.with("bob").send("quick").msg_index, 1);
    drop(slow);
    assert_eq!(alice.with("bob").send("still quick").msg_index, 2);
}

#[test]
fn more_connections_than_allowed_wait_until_one_ends() {
    let server = TestServer::start_with(&["--connections", "2", "--body-timeout", "60s"]);
    let first = almost_a_send(&server, &server.client("alice"));
    let second = almost_a_send(&server, &server.client("alice"));
    let bob = server.client("bob");
    let mut third = server.connect();
    let body = bob.with("alice").body(&json!({"msg": "patience"})).to_string();
    third.write(bob.request("/im.chat/send", &[], body.as_bytes())).expect("the system takes it");
    third.wait_at_most(Duration::from_millis(100));
    assert!(third.read_reply().is_err(), "a third connection is served beside two");
    drop(first);
    third.wait_at_most(DEADLINE);
    assert_eq!(third.read_reply().expect("a reply").ok()["msg_index"], 1);
    drop(second);
}
