//! Hostile HTTP/2: what no library sends costs its sender the stream or the connection, and nobody else anything.

use std::time::{Duration, Instant};

use crate::support::h2::{PREFACE, Received, frame, head};
use crate::support::{Client, Connection, LATEST, TestServer, eventually, fresh, shared_server};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The code of a frame that ends a stream or a connection.
fn code(received: &Received) -> u32 {
    let at = if received.kind == GOAWAY { 4 } else { 0 };
    u32::from_be_bytes(received.payload[at..at + 4].try_into().expect("a code"))
}

fn open(server: &TestServer, settings: &[u8]) -> Connection {
    let mut connection = server.connect();
    let preface = &PREFACE[..PREFACE.len() - 9];
    connection.write([preface, &frame(SETTINGS, 0, 0, settings)].concat()).expect("the server reads");
    connection
}

fn pull(stream: u32, client: &Client) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/im.chat/pull"),
        (":authority", "x"),
        ("token", client.token()),
    ];
    head(stream, false, &fields)
}

fn waiting_pull(stream: u32, client: &Client) -> Vec<u8> {
    let body = br#"{"target":"bob","target_type":"user","direction":"after","start_msg_index":1,"count":1,"wait_ms":30000}"#;
    [pull(stream, client), frame(DATA, 1, stream, body)].concat()
}

#[test]
fn what_only_begins_like_http2_ends_its_connection() {
    let server = shared_server();
    for begin in [&b"PRI * HTTP/9.9\r\n\r\nSM\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRI x"] {
        let mut connection = server.connect();
        connection.write(begin).expect("the server reads");
        connection.half_close();
        connection.read_to_close().expect("the connection ends");
    }
    assert_eq!(server.exchange(b"PRI\r\n\r\n").status, 400);
    assert_eq!(server.ops("GET", "/healthz").status, 200);
}

#[test]
fn silence_ends_the_connection_at_every_point() {
    let server = TestServer::start_with(&["--header-timeout", "300ms"]);
    let almost_a_head = &head(1, true, &[(":method", "GET")])[..12];
    let unfinished = frame(HEADERS, 0, 1, &[]);
    for begun in [
        b"PRI",
        PREFACE,
        &PREFACE[..30],
        &[PREFACE, almost_a_head].concat(),
        &[PREFACE, &unfinished].concat(),
    ] {
        let started = Instant::now();
        let mut connection = server.connect();
        connection.write(begun).expect("the server reads");
        connection.read_to_close().expect("the connection ends");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(290) && took < LATEST, "{begun:?}: {took:?}");
    }
    eventually("none is counted", || (server.metric("chinwag_connections ")? == 0.0).then_some(()));
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    let mut connection = open(&server, &[]);
    let flood: Vec<u8> = (0..1000)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [waiting_pull(stream, &alice), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
        })
        .collect();
    // The server may close before it has read everything.
    let _ = connection.write(flood);
    let ended = connection.read_frame_of(GOAWAY).map(|frame| code(&frame));
    assert_eq!(ended.expect("a last word"), ENHANCE_YOUR_CALM);
    eventually("nothing of it is in flight", || (server.metric("chinwag_in_flight ")? < 100.0).then_some(()));
}

#[test]
fn an_answer_that_is_not_taken_loses_its_stream_and_not_the_connection() {
    let server = TestServer::start_with(&["--write-timeout", "300ms"]);
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    bob.with("alice").send(&"x".repeat(50_000));
    // A window of ten bytes for every stream.
    let mut connection = open(&server, &[0, 4, 0, 0, 0, 10]);
    let started = Instant::now();
    connection.write(waiting_pull(1, &alice)).expect("the server reads");
    assert_eq!(connection.read_frame_of(DATA).expect("what there is window for").payload.len(), 10);
    let reset = connection.read_frame_of(RST_STREAM).expect("the stream ends");
    let took = started.elapsed();
    assert_eq!((reset.stream, code(&reset)), (1, CANCEL));
    assert!(took >= Duration::from_millis(290) && took < LATEST, "{took:?}");
    // The next one gets its window.
    connection.write(waiting_pull(3, &alice)).expect("the server reads");
    connection.write(frame(WINDOW_UPDATE, 0, 3, &1_000_000_u32.to_be_bytes())).expect("the server reads");
    connection.write(frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes())).expect("the server reads");
    let mut bytes = 0;
    loop {
        let frame = connection.read_frame_of(DATA).expect("an answer");
        assert_eq!(frame.stream, 3);
        bytes += frame.payload.len();
        if frame.flags & 1 == 1 {
            break;
        }
    }
    assert!(bytes > 50_000, "{bytes}");
}

/// Also a short answer is not forgotten before its client has given window for all of it.
#[test]
fn a_short_answer_that_is_not_taken_loses_its_stream_too() {
    let server = TestServer::start_with(&["--write-timeout", "300ms"]);
    let mut connection = open(&server, &[0, 4, 0, 0, 0, 20]);
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")];
    connection.write(head(1, true, &fields)).expect("the server reads");
    assert_eq!(connection.read_frame_of(DATA).expect("what there is window for").payload.len(), 20);
    let reset = connection.read_frame_of(RST_STREAM).expect("the stream ends");
    assert_eq!((reset.stream, code(&reset)), (1, CANCEL));
}

#[test]
fn more_requests_than_may_be_open_are_refused_alone() {
    let server = TestServer::start();
    let alice = server.client("alice");
    let mut connection = open(&server, &[]);
    for number in 0..100 {
        connection.write(waiting_pull(2 * number + 1, &alice)).expect("the server reads");
    }
    // Whoever has seen the settings knows the limit, and is held to it.
    connection.write(frame(SETTINGS, 1, 0, &[])).expect("the server reads");
    eventually("all are in flight", || (server.metric("chinwag_in_flight ")? == 100.0).then_some(()));
    connection.write(waiting_pull(201, &alice)).expect("the server reads");
    let reset = connection.read_frame_of(RST_STREAM).expect("a refusal");
    assert_eq!((reset.stream, code(&reset)), (201, REFUSED_STREAM));
    connection.write(frame(PING, 0, 0, b"12345678")).expect("the server reads");
    assert_eq!(connection.read_frame_of(PING).expect("a pong").payload, b"12345678");
    drop(connection);
    eventually("nobody waits for them", || (server.metric("chinwag_in_flight ")? == 0.0).then_some(()));
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let server = shared_server();
    let mut connection = open(&server, &[]);
    let long = "x".repeat(12_000);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "x"),
        ("a", &*long),
        ("b", &*long),
    ];
    let whole = head(1, true, &fields);
    let (first, rest) = whole[9..].split_at(16_000);
    connection.write([frame(HEADERS, 1, 1, first), frame(9, 4, 1, rest)].concat()).expect("the server reads");
    // 431 has no short form: its digits stand in the head, or Huffman's of them.
    let answer = connection.read_frame_of(HEADERS).expect("an answer");
    assert_eq!(answer.stream, 1);
    assert!(answer.flags & 1 == 1, "a head alone: {answer:?}");
}

#[test]
fn a_request_that_is_no_request_loses_its_stream_alone() {
    let server = shared_server();
    let mut connection = open(&server, &[]);
    let good = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")];
    let bad: [&[(&str, &str)]; 3] = [
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "x"),
            ("connection", "upgrade"),
        ],
        &[(":method", "GET"), (":scheme", "http"), (":authority", "x")],
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/im.chat/stream"),
            (":authority", "x"),
        ],
    ];
    for (stream, fields) in [1, 3, 5].into_iter().zip(bad) {
        connection.write(head(stream, true, fields)).expect("the server reads");
        let reset = connection.read_frame_of(RST_STREAM).expect("a refusal");
        assert_eq!((reset.stream, code(&reset)), (stream, PROTOCOL_ERROR), "{fields:?}");
    }
    connection.write(head(7, true, &good)).expect("the server reads");
    assert_eq!(connection.read_frame_of(HEADERS).expect("an answer").stream, 7);
}

/// With a stream open it is not idle, and what little is written fits the system's buffers for hours.
#[test]
fn a_client_that_answers_no_ping_loses_its_streams() {
    let server = TestServer::start_with(&["--stream-ping", "1s"]);
    let alice = server.client("alice");
    let mut connection = open(&server, &[]);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/im.chat/stream"),
        (":authority", "x"),
        ("accept", "text/event-stream"),
        ("token", alice.token()),
    ];
    let started = Instant::now();
    connection.write(head(1, true, &fields)).expect("the server reads");
    assert!(connection.read_frame_of(DATA).expect("an event").payload.starts_with(b"retry"));
    connection.read_frame_of(PING).expect("a ping");
    connection.read_to_close().expect("the connection ends");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(2900) && took < LATEST, "{took:?}");
    eventually("the stream is not counted", || {
        (server.metric("chinwag_streams{kind=\"sse\"}")? == 0.0).then_some(())
    });
}
