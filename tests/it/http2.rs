//! HTTP/2 on the port of HTTP/1.1: the same answers, many at a time, on a connection that goes on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::h2::{Http2, Never, block_on, reply};
use crate::support::{LATEST, TestServer, eventually, fresh, shared_server};

const SEND: &str = "/im.chat/send";
const PULL: &str = "/im.chat/pull";
const STREAM: &str = "/im.chat/stream";
const EVENTS: [(&str, &str); 1] = [("accept", "text/event-stream")];

fn send_to(target: &str, text: &str) -> Value {
    json!({"target": target, "target_type": "user", "msg": text})
}

fn waiting_pull(target: &str) -> Value {
    json!({"target": target, "target_type": "user", "direction": "after", "start_msg_index": 1, "count": 5,
        "wait_ms": 30_000})
}

#[test]
fn many_users_share_a_connection_and_none_is_taken_for_another() {
    let server = shared_server();
    let bob = fresh("bob");
    let users: Vec<_> = (0..90).map(|_| server.client(&fresh("user"))).collect();
    block_on(async {
        let connection = Http2::connect(&server).await;
        for round in 1..=3 {
            let text = format!("round {round}");
            let body = send_to(&bob, &text);
            let calls = users.iter().map(|user| connection.call(user, SEND, &body));
            for (status, reply) in futures_util::future::join_all(calls).await {
                assert_eq!((status, &reply["msg_index"]), (200, &json!(round)), "{reply}");
            }
        }
    });
    let bob = server.client(&bob);
    for user in &users {
        let page = bob.with(&user.user).beginning();
        assert_eq!(page.texts(), ["round 1", "round 2", "round 3"]);
        assert!(page.msgs.iter().all(|msg| msg.sender == user.user));
    }
}

/// Everything of a large page passes a window of the usual size, in many chunks.
#[test]
fn a_large_page_comes_whole() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for text in 0..20 {
        alice.with(&bob.user).send(&format!("{text}").repeat(30_000));
    }
    let expected = bob.with(&alice.user).beginning();
    let body = json!({"target": alice.user, "target_type": "user", "direction": "after", "start_msg_index": 1, "count": 50});
    let (status, page) = block_on(async { Http2::connect(&server).await.call(&bob, PULL, &body).await });
    assert_eq!(status, 200);
    let texts: Vec<_> =
        page["msgs"].as_array().expect("messages").iter().map(|msg| msg["msg"].as_str()).collect();
    assert_eq!(texts, expected.texts().into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn a_refusal_ends_its_stream_and_not_the_connection() {
    let server = TestServer::start();
    let alice = server.client("alice");
    block_on(async {
        let connection = Http2::connect(&server).await;
        let large = "x".repeat(200_000);
        for (path, headers, body, status) in [
            (SEND, &[("content-type", "application/json")][..], large.clone(), 413),
            (SEND, &[("content-type", "text/plain")], "{}".to_owned(), 415),
            (SEND, &[("content-type", "text/plain")], large, 415),
            ("/nothing", &[], "{}".to_owned(), 404),
            (SEND, &[("host", "elsewhere")], "{}".to_owned(), 400),
            (STREAM, &[], String::new(), 405),
        ] {
            let body = Full::new(Bytes::from(body));
            let answer = connection.ask(&alice, "POST", path, headers, body).await.expect("an answer");
            assert!(!answer.headers().contains_key("connection"), "{path}");
            let (is, body) = reply(answer).await;
            assert_eq!((is, &body["code"]), (status, &json!(10001)), "{path} {headers:?}: {body}");
        }
        let head = connection.ask(&alice, "HEAD", SEND, &[], Full::default()).await.expect("an answer");
        assert_eq!(head.status(), 405);
        assert_ne!(head.headers()["content-length"], "0", "it says how long the answer would be");
        assert!(head.into_body().collect().await.expect("no body").to_bytes().is_empty());
        let (status, _) = connection.call(&alice, SEND, &send_to("bob", "still here")).await;
        assert_eq!(status, 200);
    });
}

#[test]
fn a_websocket_is_refused_with_the_reason() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    block_on(async {
        let connection = Http2::connect(&server).await;
        let answer = connection.ask(&alice, "GET", STREAM, &[], Full::default()).await.expect("an answer");
        assert!(!answer.headers().contains_key("upgrade"));
        let (status, body) = reply(answer).await;
        assert_eq!(status, 400);
        assert!(body["msg"].as_str().expect("words").contains("HTTP/1.1"), "{body}");
    });
}

#[test]
fn a_body_that_does_not_come_is_408_and_the_connection_goes_on() {
    let server = TestServer::start_with(&["--body-timeout", "200ms"]);
    let alice = server.client("alice");
    block_on(async {
        let connection = Http2::connect(&server).await;
        for _ in 0..2 {
            let headers = [("content-type", "application/json"), ("content-length", "100")];
            let answer = connection.ask(&alice, "POST", SEND, &headers, Never).await.expect("an answer");
            assert_eq!(reply(answer).await.0, 408);
        }
        assert!(!connection.ended.is_finished());
    });
}

#[test]
fn an_idle_connection_ends_and_one_that_waits_does_not() {
    let server = TestServer::start_with(&["--header-timeout", "1s"]);
    let alice = server.client("alice");
    block_on(async {
        let connection = Http2::connect(&server).await;
        let mut waiting = waiting_pull("bob");
        waiting["wait_ms"] = json!(3000);
        let (status, _) = connection.call(&alice, PULL, &waiting).await;
        assert_eq!(status, 200, "it waited for longer than an idle connection may");
        let idle = Instant::now();
        // The sender is kept: only the server ends it.
        let Http2 { ended, .. } = &mut { connection };
        ended.await.expect("no panic").expect("a clean end");
        assert!(
            idle.elapsed() >= Duration::from_millis(900) && idle.elapsed() < LATEST,
            "{:?}",
            idle.elapsed()
        );
    });
    eventually("the connection is not counted", || {
        (server.metric("chinwag_connections ")? == 0.0).then_some(())
    });
}

#[test]
fn what_is_in_flight_is_answered_before_the_end() {
    let mut server = TestServer::start_with(&["--drain-timeout", "60s", "--header-timeout", "60s"]);
    let alice = server.client("alice");
    let started = block_on(async {
        let connection = Http2::connect(&server).await;
        let body = waiting_pull("bob");
        let asking = connection.call(&alice, PULL, &body);
        let stopping = async {
            while server.metric("chinwag_in_flight ") != Some(1.0) {
                tokio::task::yield_now().await;
            }
            // Its body came with its head, so it has begun to wait when another call is answered.
            let (status, _) = connection.call(&alice, SEND, &send_to("carol", "hello")).await;
            assert_eq!(status, 200);
            server.signal(Signal::TERM);
            Instant::now()
        };
        let ((status, page), started) = tokio::join!(asking, stopping);
        assert_eq!((status, &page["msgs"]), (200, &json!([])));
        let Http2 { ended, .. } = &mut { connection };
        ended.await.expect("no panic").expect("a clean end");
        started
    });
    assert_eq!(server.finish().code(), Some(0));
    assert!(started.elapsed() < LATEST, "took {:?}", started.elapsed());
}

/// The next event of a stream.
async fn event(body: &mut Incoming, received: &mut String) -> Value {
    loop {
        if let Some((event, rest)) = received.split_once("\n\n") {
            let (event, rest) = (event.to_owned(), rest.to_owned());
            *received = rest;
            if let Some(data) = event.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("JSON");
            }
        } else {
            let frame = body.frame().await.expect("the stream goes on").expect("a frame");
            received.push_str(std::str::from_utf8(&frame.into_data().expect("data")).expect("UTF-8"));
        }
    }
}

#[test]
fn events_come_beside_calls_on_one_connection() {
    let server = TestServer::start();
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    block_on(async {
        let connection = Http2::connect(&server).await;
        let answer = connection.ask(&bob, "GET", STREAM, &EVENTS, Full::default()).await.expect("an answer");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let (mut body, mut received) = (answer.into_body(), String::new());
        assert_eq!(event(&mut body, &mut received).await["type"], "hello");
        for index in 1..=200 {
            let (status, _) = connection.call(&alice, SEND, &send_to("bob", &"x".repeat(index * 50))).await;
            assert_eq!(status, 200);
            let event = event(&mut body, &mut received).await;
            assert_eq!(event["content"]["msg_index"], json!(index), "{event}");
        }
        server.signal(Signal::TERM);
        assert_eq!(event(&mut body, &mut received).await["type"], "close");
        assert_eq!(body.collect().await.expect("the stream ends").to_bytes(), "");
    });
}
