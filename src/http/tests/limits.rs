//! How long, how often and how many: a slow, a fast and one connection too many, and the drain.

use std::num::NonZeroU32;
use std::time::Instant;

use super::*;

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_only_so_long() {
    let server = Server::start(Options { body_timeout: SHORT, ..options() }).await;
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let started = Instant::now();
        let begun = if framing.starts_with('C') { "{" } else { "1\r\n{\r\n" };
        let answer = server.exchange(&(server.head("/im.chat/send", framing) + begun)).await;
        assert_eq!(status(&answer), "408", "{answer}");
        assert!(
            closes(&answer) && answer.contains("\"code\":10001") && answer.contains("within 200ms"),
            "{answer}"
        );
        assert!(started.elapsed() >= SHORT);
    }
    // A refused request does not wait longer for the body it throws away.
    let refused = "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
    let answer = server.exchange(refused).await;
    assert!(status(&answer) == "404" && closes(&answer), "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn bytes_that_trickle_do_not_extend_the_wait_for_a_body() {
    let server = Server::start(Options { body_timeout: SHORT, ..options() }).await;
    let mut client = server.connect().await;
    client.send(&server.head("/im.chat/send", "Content-Length: 1000")).await;
    let (mut read, mut write) = client.0.split();
    let trickle = async {
        let mut pulse = tokio::time::interval(SHORT / 10);
        while write.write_all(b"x").await.is_ok() {
            pulse.tick().await;
        }
        // Closed: whether there was an answer before that is for who reads.
        std::future::pending().await
    };
    let mut answer = vec![0; 4096];
    let bytes = tokio::select! {
        () = trickle => unreachable!("it never ends"),
        bytes = within(read.read(&mut answer)) => bytes.expect("an answer"),
    };
    assert_eq!(status(&String::from_utf8_lossy(&answer[..bytes])), "408");
    drop(client);
    server.drained().await;
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let server = Server::start(Options { header_timeout: SHORT, ..options() }).await;
    assert_eq!(server.exchange("").await, "");
    assert_eq!(server.exchange("POST /im.chat/send HTTP/1.1\r\nHos").await, "");
    let answers = server.exchange(&server.request("/im.chat/send", "{}")).await;
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
    server.drained().await;
}

#[tokio::test]
async fn a_user_who_is_too_fast_is_told_when_to_come_back() {
    let server = Server::start(Options { rate: NonZeroU32::new(1), ..options() }).await;
    let mut client = server.connect().await;
    // So many at a time that two of them meet within a second on any machine.
    client.send(&server.request("/im.chat/send", "{}").repeat(20)).await;
    assert_eq!(status(&client.answer().await), "400");
    let mut answer = client.answer().await;
    while status(&answer) == "400" {
        answer = client.answer().await;
    }
    assert_eq!(status(&answer), "429", "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n") && answer.contains("\"retry_after_ms\":"), "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn further_connections_wait_for_their_turn() {
    let server = Server::start(Options { connections: 1, ..options() }).await;
    let mut first = server.connect().await;
    first.send(&server.request("/im.chat/send", "{}")).await;
    assert_eq!(status(&first.answer().await), "400");
    let mut second = server.connect().await;
    second.send(&server.request("/im.chat/send", "{}")).await;
    let mut byte = [0];
    let early = tokio::time::timeout(SHORT, second.0.read(&mut byte)).await;
    assert!(early.is_err(), "the second was served beside the first");
    drop(first);
    assert_eq!(status(&second.answer().await), "400");
    server.drained().await;
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_refuses_what_had_begun() {
    let server = Server::start(options()).await;
    let mut begun = server.connect().await;
    begun.send("POST /im.chat/send HTTP/1.1\r\nHost: x\r\n").await;
    // Its answer comes after the server, which has one thread here, has read what came before.
    let mut idle = server.connect().await;
    idle.send(&server.request("/im.chat/send", "{}")).await;
    idle.answer().await;
    server.draining.send(true).expect("a running server");
    assert_eq!(idle.rest().await, "");
    begun.send(&format!("Token: {}\r\nContent-Length: 0\r\n\r\n", server.token)).await;
    let answer = begun.rest().await;
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(closes(&answer) && answer.contains("\"code\":10011"), "{answer}");
    assert!(TcpStream::connect(server.address).await.is_err());
    server.drained().await;
}
