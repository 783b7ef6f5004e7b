//! Many streams: what an idle one costs, and what verbs over a stream cost. Measurements, which run when they
//! are asked for (deliveries a second: `benches/figures fanout`):
//!
//! `cargo test --release --test it -- --ignored --nocapture streaming_many`

#![allow(clippy::print_stdout, reason = "their result is what they print")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::json;

use crate::support::{Client, DEADLINE, Stream, TestServer};

/// A stream behind its hello, without the library's buffers.
fn bare_stream(client: &Client) -> TcpStream {
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut stream = TcpStream::connect(client.address()).expect("the server accepts connections");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time above zero");
    stream.write_all(&client.get("/im.chat/stream", &headers)).expect("the server reads");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // The head, and a hello that is small here.
    while !answer.windows(13).any(|window| window == b"\"more\":false}") {
        let read = stream.read(&mut buffer).expect("hello");
        assert!(read > 0, "closed: {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{:?}", String::from_utf8_lossy(&answer));
    stream
}

/// Ten thousand by default, which takes as many descriptors here and in the server:
/// `CHINWAG_STREAMS=1000` for fewer.
fn count() -> usize {
    std::env::var("CHINWAG_STREAMS").map_or(10_000, |count| count.parse().expect("a number"))
}

#[test]
#[ignore = "a measurement that takes 10,000 descriptors"]
fn idle_streams_take_little_memory_and_hear_the_next_message() {
    let count = count();
    let server = TestServer::start_with(&["--connections", &(count + 100).to_string()]);
    let clients: Vec<_> = (0..count).map(|number| server.client(&format!("user-{number}"))).collect();
    let before = server.resident_bytes();
    let started = Instant::now();
    let mut streams: Vec<_> = clients.iter().map(bare_stream).collect();
    let took = started.elapsed();
    let each = server.resident_bytes().saturating_sub(before) / count as u64;
    println!("{count} idle streams: {each} bytes of memory each, opened in {took:?}");
    assert!(each < 16 * 1024, "an idle stream takes {each} bytes");
    let last = streams.last_mut().expect("a stream");
    clients[0].with(&clients[count - 1].user).send("still there?");
    let mut buffer = [0; 4096];
    let read = last.read(&mut buffer).expect("an event");
    assert!(String::from_utf8_lossy(&buffer[..read]).contains("still there?"));
}

/// Pipelines sends over a stream, so many in flight at a time; gives how many were accepted: the server
/// refuses what it cannot deliver as fast as it comes.
fn pipeline(stream: &mut Stream, params: &serde_json::Value, sends: usize, window: usize) -> usize {
    let (mut asked, mut answered, mut accepted) = (0, 0, 0);
    while answered < sends {
        let batch = (window - (asked - answered)).min(sends - asked);
        for _ in 0..batch {
            stream.ask_unflushed("send", params);
        }
        asked += batch;
        stream.flush();
        for _ in 0..window / 2 {
            if answered < asked {
                accepted += usize::from(stream.result().get("error").is_none());
                answered += 1;
            }
        }
        stream.events_so_far();
    }
    accepted
}

#[test]
#[ignore = "a measurement"]
fn print_pipelined_sends_per_second() {
    const SOCKETS: usize = 8;
    const SENDS: usize = 40_000;
    let server = TestServer::start();
    let started = Instant::now();
    let accepted: usize = std::thread::scope(|scope| {
        let streams = (0..SOCKETS).map(|number| {
            let client = server.client(&format!("user-{number}"));
            scope.spawn(move || {
                let mut stream = client.stream();
                let params = json!({"target": "somebody", "target_type": "user", "msg": "x".repeat(200)});
                pipeline(&mut stream, &params, SENDS, 64)
            })
        });
        let streams: Vec<_> = streams.collect();
        streams.into_iter().map(|stream| stream.join().expect("a stream")).sum()
    });
    let rate = accepted as f64 / started.elapsed().as_secs_f64();
    println!("{SOCKETS} streams, 64 in flight on each: {rate:.0} sends/s");
}
