//! `--rate`: calls per second and user.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{DEADLINE, TestServer, eventually, fresh};

/// What comes of a few calls of a new user within a second; a machine that was too busy for that tries with another
/// user.
fn within_a_second<T>(mut attempt: impl FnMut(&str) -> T) -> T {
    eventually("a few calls within a second", || {
        let (user, started) = (fresh("hasty"), Instant::now());
        let outcome = attempt(&user);
        (started.elapsed() < Duration::from_secs(1)).then_some(outcome)
    })
}

#[test]
fn too_fast_is_429_which_says_when_to_come_back() {
    let server = TestServer::start_with(&["--rate", "1"]);
    let (alice, reply) = within_a_second(|user| {
        let alice = server.client(user);
        alice.with("bob").send("one");
        let reply = alice.with("bob").call("send", &json!({"msg": "two"}));
        (alice, reply)
    });
    reply.assert_error(429, 10009);
    let seconds: u64 = reply.header("retry-after").expect("Retry-After").parse().expect("whole seconds");
    let milliseconds = reply.json()["retry_after_ms"].as_u64().expect("milliseconds");
    assert!((1..=1000).contains(&milliseconds), "{milliseconds}");
    assert_eq!(seconds, 1);
    let stored = server.client("bob").with(&alice.user).beginning().max_msg_index;
    assert_eq!(stored, 1, "nothing was stored");
}

#[test]
fn after_the_time_it_said_the_call_is_welcome() {
    let server = TestServer::start_with(&["--rate", "2"]);
    let alice = server.client("alice");
    let send = || alice.with("bob").call("send", &json!({"msg": "m"}));
    let refused = loop {
        let reply = send();
        if reply.status != 200 {
            break reply;
        }
    };
    refused.assert_error(429, 10009);
    let wait_ms = refused.json()["retry_after_ms"].as_u64().expect("milliseconds") + 20;
    // Somebody else's pull of nothing, as the clock.
    let clock = json!({"start_msg_index": 1, "wait_ms": wait_ms});
    server.client("clock").with("nobody").pull(&clock);
    send().ok();
}

#[test]
fn everybody_has_their_own_measure_over_all_verbs_and_connections() {
    let server = TestServer::start_with(&["--rate", "1"]);
    let refused = within_a_second(|user| {
        server.client(user).with("bob").send("one");
        // Another connection, another verb: the same user.
        let pull = json!({"direction": "after", "start_msg_index": 1, "count": 1});
        let pulled = server.client(user).with("carol").call("pull", &pull);
        [pulled, server.client(user).call("/im.group/create", &json!({"name": "n"}))]
    });
    refused.iter().for_each(|reply| drop(reply.assert_error(429, 10009)));
    for number in 0..50 {
        server.client(&format!("user {number}")).with("bob").send("one");
    }
}

#[test]
fn without_a_rate_nobody_is_too_fast() {
    let server = TestServer::start_with(&["--sync", "never"]);
    let alice = server.client("alice");
    let started = Instant::now();
    for index in 1..=500 {
        assert_eq!(alice.with("bob").send("m").msg_index, index);
    }
    assert!(started.elapsed() < DEADLINE);
}
