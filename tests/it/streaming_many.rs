//! Many streams: what an idle one costs, how many deliveries a second go out, and what verbs over a
//! stream cost. Measurements, which run when they are asked for:
//!
//! `cargo test --release --test it -- --ignored --nocapture streaming_many`

#![allow(clippy::print_stdout, reason = "their result is what they print")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Reads whatever comes on many sockets until it is told that it is over.
fn swallow(streams: &mut [TcpStream], is_over: &AtomicBool) {
    let mut buffer = vec![0; 256 * 1024];
    for stream in streams.iter() {
        stream.set_nonblocking(true).expect("an open connection");
    }
    while !is_over.load(Ordering::Relaxed) {
        for stream in streams.iter_mut() {
            match stream.read(&mut buffer) {
                Ok(read) => assert!(read > 0, "closed"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
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
fn print_deliveries_per_second() {
    const READERS: usize = 200;
    const SENDS: usize = 20_000;
    let server = TestServer::start_with(&["--stream-queue", "64MiB"]);
    let users: Vec<_> = (0..READERS).map(|number| format!("reader-{number}")).collect();
    let members: Vec<_> = users.iter().map(String::as_str).collect();
    let writer = server.client("writer");
    writer.create_group("group", &members);
    let mut readers: Vec<_> = users.iter().map(|user| bare_stream(&server.client(user))).collect();
    let mut stream = writer.stream();
    let params = json!({"target": "group", "target_type": "group", "msg": "x".repeat(200)});
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swallow(&mut readers, &is_over));
        let started = Instant::now();
        let accepted = pipeline(&mut stream, &params, SENDS, 200);
        let delivered = || server.metric("chinwag_stream_events_total ").unwrap_or_default();
        let all = (accepted * (READERS + 1)) as f64;
        let behind = || server.metric("chinwag_stream_behind_total ").unwrap_or_default();
        while delivered() < all && behind() == 0.0 {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        let took = started.elapsed().as_secs_f64();
        let (delivered, behind) = (delivered(), behind());
        let sends = accepted as f64 / took;
        let bare = bare_broadcasts_per_second(READERS, SENDS);
        println!(
            "{READERS} readers: {sends:.0} sends/s, {:.0} deliveries/s, {behind} behind; \
             {:.2} of a bare broadcast's {bare:.0}",
            delivered / took,
            delivered / took / bare
        );
        is_over.store(true, Ordering::Relaxed);
    });
}

/// What a server does that has nothing to do but to write the same frame to every socket, with as many
/// frames of as many bytes as the streams above get.
fn bare_broadcasts_per_second(readers: usize, sends: usize) -> f64 {
    const FRAME_BYTES: usize = 420;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let mut streams: Vec<_> =
        (0..readers).map(|_| TcpStream::connect(address).expect("it accepts")).collect();
    let mut sockets: Vec<_> = (0..readers).map(|_| listener.accept().expect("a connection").0).collect();
    let (frame, is_over) = ([b'x'; FRAME_BYTES], AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| swallow(&mut streams, &is_over));
        let started = Instant::now();
        // A tenth is enough to know the pace.
        for _ in 0..sends / 10 {
            sockets.iter_mut().for_each(|socket| socket.write_all(&frame).expect("the reader reads"));
        }
        let rate = (readers * sends / 10) as f64 / started.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        rate
    })
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
