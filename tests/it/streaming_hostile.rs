//! Hostile WebSockets: every frame that breaks a rule ends its stream with the code that says why, and
//! nothing else.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use crate::support::{DEADLINE, LATEST, Stream, TestServer, eventually, fresh, shared_server};

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// A frame of a client, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        middle @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The code with which a new stream ends after these bytes.
#[track_caller]
fn ends_with(bytes: &[u8]) -> Option<u16> {
    let server = shared_server();
    let mut stream = server.client(&fresh("eve")).stream();
    // The server may close before it has read everything.
    let _ = stream.tcp().write_all(bytes);
    let code = stream.close_code();
    assert_eq!(server.ops("GET", "/healthz").status, 200);
    code
}

#[test]
fn what_breaks_the_protocol_is_1002() {
    let mut unmasked = vec![FIN | TEXT, 2];
    unmasked.extend(b"{}");
    assert_eq!(ends_with(&unmasked), Some(1002), "unmasked");
    assert_eq!(ends_with(&frame(FIN | CONTINUATION, b"{}")), Some(1002), "a continuation of nothing");
    let mut nested = frame(TEXT, b"{");
    nested.extend(frame(FIN | TEXT, b"}"));
    assert_eq!(ends_with(&nested), Some(1002), "a message inside a message");
    assert_eq!(ends_with(&frame(FIN | 0x40 | TEXT, b"{}")), Some(1002), "a reserved bit");
    assert_eq!(ends_with(&frame(FIN | 3, b"{}")), Some(1002), "an unknown opcode");
    assert_eq!(ends_with(&frame(PING, b"")), Some(1002), "a fragmented ping");
    assert_eq!(ends_with(&frame(FIN | PING, &[0; 126])), Some(1002), "a long ping");
    assert_eq!(ends_with(&frame(FIN | CLOSE, &[3])), Some(1002), "half a code");
}

#[test]
fn what_is_no_text_is_1003_or_1007() {
    assert_eq!(ends_with(&frame(FIN | BINARY, b"{}")), Some(1003));
    assert_eq!(ends_with(&frame(FIN | TEXT, b"{\"a\":\"\xff\"}")), Some(1007));
    let mut split = frame(TEXT, b"\"\xc3");
    split.extend(frame(FIN | CONTINUATION, b"\x28\""));
    assert_eq!(ends_with(&split), Some(1007));
}

#[test]
fn what_is_too_large_is_1009_before_it_is_there() {
    let announced = [FIN | TEXT, 0x80 | 127, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    assert_eq!(ends_with(&announced), Some(1009));
    let most = [FIN | TEXT, 0x80 | 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    assert_eq!(ends_with(&most), Some(1009));
    let mut pieces = frame(TEXT, &[b' '; 1000]);
    for _ in 0..70 {
        pieces.extend(frame(CONTINUATION, &[b' '; 1000]));
    }
    assert_eq!(ends_with(&pieces), Some(1009));
}

#[test]
fn a_body_of_the_largest_kind_fits_and_one_more_is_refused() {
    let server = TestServer::start_with(&["--body-limit", "2KiB"]);
    let mut stream = server.client("alice").stream();
    let params = |length: usize| {
        let body = json!({"target": "bob", "target_type": "user", "msg": ""});
        let rest = body.to_string().len();
        json!({"target": "bob", "target_type": "user", "msg": "x".repeat(length - rest)})
    };
    stream.call("send", &params(2048));
    assert_eq!(stream.refused("send", &params(2049)), 10001);
    stream.call("send", &params(100));
}

#[test]
fn a_call_in_pieces_with_pings_between_is_a_call() {
    let server = shared_server();
    let mut stream = server.client(&fresh("alice")).stream();
    let call = br#"{"id":1,"method":"list"}"#;
    let mut bytes = frame(TEXT, &call[..5]);
    for byte in &call[5..20] {
        bytes.extend(frame(FIN | PING, b"x"));
        bytes.extend(frame(CONTINUATION, &[*byte]));
        bytes.extend(frame(CONTINUATION, b""));
    }
    bytes.extend(frame(FIN | CONTINUATION, &call[20..]));
    // Byte by byte, so that every frame is cut everywhere.
    for byte in bytes {
        stream.tcp().write_all(&[byte]).expect("the server reads");
    }
    assert_eq!(stream.result()["id"], 1);
}

#[test]
fn many_calls_in_one_piece_are_all_made_in_their_order() {
    // More than one read takes, and more than may be in flight: what was read ahead waits.
    const CALLS: usize = 600;
    let server = shared_server();
    let mut stream = server.client(&fresh("alice")).stream();
    let bob = fresh("bob");
    let bytes: Vec<u8> = (1..=CALLS)
        .flat_map(|id| {
            let msg = "x".repeat(id * 37 % 1500);
            let params = json!({"target": bob, "target_type": "user", "msg": msg});
            let call = json!({"id": id, "method": "send", "params": params});
            frame(FIN | TEXT, call.to_string().as_bytes())
        })
        .collect();
    stream.tcp().write_all(&bytes).expect("the server reads");
    let mut indices: Vec<_> = (0..CALLS)
        .map(|_| {
            let answer = stream.result();
            (answer["id"].as_u64(), answer["result"]["msg_index"].as_u64())
        })
        .collect();
    indices.sort_unstable();
    let expected = (1..=CALLS as u64).map(|id| (Some(id), Some(id)));
    assert!(indices.into_iter().eq(expected), "a call was lost, made twice or out of order");
}

#[test]
fn a_flood_of_pings_is_1008() {
    let mut pings = Vec::new();
    for _ in 0..200 {
        pings.extend(frame(FIN | PING, b"hello?"));
    }
    assert_eq!(ends_with(&pings), Some(1008));
}

#[test]
fn nonsense_counts_against_the_rate_and_the_stream_survives_it() {
    let server = TestServer::start_with(&["--rate", "2"]);
    let mut stream = server.client("alice").stream();
    let mut codes = Vec::new();
    for _ in 0..40 {
        stream.write("nonsense").expect("the server reads");
    }
    for _ in 0..40 {
        codes.push(stream.result()["error"]["code"].as_u64().expect("a code"));
    }
    assert!(codes.contains(&10001) && codes.contains(&10009), "{codes:?}");
}

#[test]
fn a_message_that_is_not_finished_has_its_time() {
    let server = TestServer::start_with(&["--body-timeout", "300ms"]);
    let mut stream = server.client("alice").stream();
    let started = Instant::now();
    stream.tcp().write_all(&frame(TEXT, b"{\"id\":1,")).expect("the server reads");
    assert_eq!(stream.close_code(), Some(4408));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(250) && took < LATEST, "{took:?}");
    // Control: one that is finished has no time.
    let mut stream = server.client("bob").stream();
    stream.call("list", &json!({}));
    stream.read_for(Duration::from_millis(800));
    stream.call("list", &json!({}));
}

#[test]
fn a_ping_in_two_pieces_is_no_message_that_is_late() {
    let server = TestServer::start_with(&["--body-timeout", "2s"]);
    let mut stream = server.client("alice").stream();
    let ping = frame(FIN | PING, b"hello?");
    stream.tcp().write_all(&ping[..3]).expect("the server reads");
    stream.read_for(Duration::from_millis(50));
    stream.tcp().write_all(&ping[3..]).expect("the server reads");
    stream.read_for(Duration::from_millis(2500));
    stream.call("list", &json!({}));
    // Control: half a ping is late.
    stream.tcp().write_all(&ping[..3]).expect("the server reads");
    assert_eq!(stream.close_code(), Some(4408));
}

#[test]
fn behind_the_answer_to_a_close_comes_nothing() {
    let server = shared_server();
    let mut stream = server.client(&fresh("alice")).stream();
    // Each has its answer at once.
    let pull = json!({"id": 1, "method": "pull", "params": {"target": "nobody", "target_type": "user",
        "direction": "after", "start_msg_index": 1, "count": 50}});
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.extend(frame(FIN | TEXT, pull.to_string().as_bytes()));
    }
    bytes.extend(frame(FIN | CLOSE, &1000_u16.to_be_bytes()));
    stream.tcp().write_all(&bytes).expect("the server reads");
    let mut answers = Vec::new();
    stream.tcp().read_to_end(&mut answers).expect("the server closes");
    let close = [FIN | CLOSE, 2, (1000_u16 >> 8) as u8, 1000_u16 as u8];
    assert!(answers.ends_with(&close), "{}", String::from_utf8_lossy(&answers));
}

#[test]
fn nonsense_in_texts_is_answered_and_the_stream_goes_on() {
    let server = shared_server();
    let mut stream = server.client(&fresh("alice")).stream();
    for text in
        ["", "null", "[]", "{", "{\"method\":{}}", "{\"id\":{},\"method\":\"send\"}", &"[".repeat(60_000)]
    {
        stream.write(text).expect("the server reads");
        let answer = stream.result();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(null), &json!(10001)), "{answer}");
    }
    let deep =
        format!(r#"{{"id":1,"method":"signal","params":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    stream.write(&deep).expect("the server reads");
    assert_eq!(stream.result()["error"]["code"], 10001);
    stream.call("list", &json!({}));
}

#[test]
fn who_asks_and_never_reads_is_closed_and_stops_nobody() {
    let server = TestServer::start_with(&["--write-timeout", "500ms"]);
    let alice = server.client("alice");
    for _ in 0..50 {
        alice.with("bob").send(&"x".repeat(1000));
    }
    let mut stream: Stream = alice.stream();
    let pull = json!({"id": 1, "method": "pull", "params": {"target": "bob", "target_type": "user",
        "direction": "after", "start_msg_index": 1, "count": 50}});
    let text = pull.to_string();
    stream.tcp().set_write_timeout(Some(DEADLINE)).expect("a time above zero");
    let started = Instant::now();
    // Until the server has closed: it stops reading long before, because it cannot write.
    while stream.socket().send(Message::text(text.as_str())).is_ok() {
        assert!(started.elapsed() < DEADLINE, "asked without end");
    }
    eventually("the stream is closed for its stall", || {
        (server.metric("chinwag_stream_stalled_total ") == Some(1.0)).then_some(())
    });
    assert_eq!(alice.with("bob").send("and now").msg_index, 51);
    let mut rest = Vec::new();
    let _ = stream.tcp().read_to_end(&mut rest);
}
