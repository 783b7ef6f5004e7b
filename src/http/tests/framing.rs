//! Where a request begins and ends: whoever makes that unclear gets one answer, and never a second request.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::connection::Protocol;
use super::drain::Drain;
use super::pieces::Pieces;
use super::response::Body;
use super::*;
use crate::config::limits::HEADERS_MAX;
use crate::tls::Socket;

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(options()).await;
    let requests = server.request("/im.chat/send", "{}")
        + &server.request("/nowhere", "some body")
        + &server.request("/im.chat/pull", r#"{"target":"bob","target_type":"user"}"#);
    let mut client = server.connect().await;
    client.send(&requests).await;
    let answers = [client.answer().await, client.answer().await, client.answer().await];
    assert!(answers[0].ends_with(r#"{"code":10001,"msg":"target_type must be \"user\" or \"group\""}"#));
    assert_eq!(status(&answers[1]), "404");
    assert!(answers[2].ends_with(r#"{"code":10001,"msg":"direction must be \"before\" or \"after\""}"#));
    assert!(answers.iter().all(|answer| !closes(answer)));
    server.drained().await;
}

#[tokio::test]
async fn refusals_before_the_body_keep_the_connection() {
    let server = Server::start(options()).await;
    let mut client = server.connect().await;
    let with = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 2\r\n\r\n{{}}")
    };
    let token = format!("Token: {}\r\n", server.token);
    for (request, expected, code) in [
        (with("POST /im.chat/sendx", &token), "404", 10001),
        (with("POST /im.chat/send/", &token), "404", 10001),
        (with("GET /im.chat/send", &token), "405", 10001),
        (with("POST /im.chat/send", ""), "401", 10004),
        (with("POST /im.chat/send?token=x", ""), "401", 10004),
        (with("POST /im.chat/send", "Token: a.b.c\r\n"), "401", 10004),
        (with("POST /im.chat/send", &format!("{token}Content-Type: text/plain\r\n")), "415", 10001),
        (with("POST /im.chat/send", &format!("{token}Content-Encoding: gzip\r\n")), "415", 10001),
        (with("POST http://other/im.chat/send", &token), "400", 10001),
        (with("POST /im.chat/send", &format!("{token}Accept: application/x-protobuf\r\n")), "400", 10001),
    ] {
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(status(&answer), expected, "{request}");
        assert!(answer.contains(&format!("{{\"code\":{code},\"msg\":\"")), "{answer}");
        assert!(answer.contains("\r\ncontent-type: application/json\r\n"), "{answer}");
        assert_eq!(expected == "405", answer.contains("\r\nallow: POST\r\n"), "{answer}");
        assert!(!closes(&answer), "{answer}");
    }
    server.drained().await;
}

#[tokio::test]
async fn a_request_has_exactly_one_host() {
    let server = Server::start(options()).await;
    for hosts in ["", "Host: x\r\nHost: x\r\n", "Host: x\r\nHost: y\r\n"] {
        let request = format!(
            "POST /im.chat/send HTTP/1.1\r\n{hosts}Content-Length: 2\r\n\r\n{{}}GET /next HTTP/1.1\r\n"
        );
        let answer = server.exchange(&request).await;
        assert_eq!(status(&answer), "400", "{answer}");
        assert!(closes(&answer) && answer.contains("exactly one Host"), "{answer}");
    }
    // HTTP/1.0 knows no Host, and ends after one answer by itself.
    let answer = server.exchange("POST /im.chat/send HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}").await;
    assert_eq!(status(&answer), "401", "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_unread() {
    let server = Server::start(options()).await;
    let head = server.head("/im.chat/send", "Content-Length: 1025");
    let answer = server.exchange(&head).await;
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(closes(&answer) && answer.contains("the body must be at most 1024 bytes"), "{answer}");
    let expecting = server.head("/im.chat/send", "Content-Length: 1025\r\nExpect: 100-continue");
    assert_eq!(status(&server.exchange(&expecting).await), "413");
    let fits = server.head("/im.chat/send", "Connection: close\r\nContent-Length: 1024") + &"x".repeat(1024);
    assert_eq!(status(&server.exchange(&fits).await), "400");
    server.drained().await;
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_and_what_follows_is_not_answered() {
    let server = Server::start(options()).await;
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let next = server.request("/im.chat/send", "{}");
    let head = server.head("/im.chat/send", "Transfer-Encoding: chunked");
    let answer = server.exchange(&format!("{head}{}0\r\n\r\n{next}", chunk.repeat(3))).await;
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(closes(&answer) && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    // Control: at the limit it is read whole, and the next request is answered.
    let mut client = server.connect().await;
    client.send(&format!("{head}{}0\r\n\r\n{next}", chunk.repeat(2))).await;
    assert_eq!(status(&client.answer().await), "400");
    assert_eq!(status(&client.answer().await), "400");
    server.drained().await;
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let server = Server::start(options()).await;
    let body = "x".repeat(600_000);
    let answer = server.exchange(&server.request("/im.chat/send", &body)).await;
    assert_eq!(status(&answer), "413", "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn ambiguous_framing_never_makes_a_second_request() {
    let server = Server::start(options()).await;
    let smuggled = server.request("/smuggled", "");
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Content-Length : 5",
        "X: y\r\n folded: z",
    ] {
        let answer =
            server.exchange(&format!("{}0\r\n\r\n{smuggled}", server.head("/im.chat/send", framing))).await;
        assert!(!answer.contains("404"), "{framing}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{framing}: {answer}");
        assert_eq!(status(&answer), "400", "{framing}: {answer}");
        assert!(closes(&answer), "{framing}: {answer}");
        assert_is_error(&answer, "");
    }
    server.drained().await;
}

/// The answer is one error as every other one, and whole.
#[track_caller]
fn assert_is_error(answer: &str, says: &str) {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        is_whole(answer.as_bytes()) && answer.contains("\r\ncontent-type: application/json\r\n"),
        "{answer}"
    );
    assert!(body.starts_with(r#"{"code":10001,"msg":""#) && body.ends_with(r#""}"#), "{answer}");
    assert!(body.contains(says), "{answer} does not say {says:?}");
}

#[tokio::test]
async fn what_is_no_request_is_answered_in_words_and_ends_the_connection() {
    let server = Server::start(options()).await;
    let next = server.request("/nowhere", "");
    for (head, says) in [
        ("POST\r\n\r\n", ""),
        ("PO(ST /im.chat/send HTTP/1.1\r\nHost: x\r\n\r\n", "method"),
        ("POST /im.chat/\u{7f} HTTP/1.1\r\nHost: x\r\n\r\n", "URI"),
        ("POST /im.chat/send HTTP/3.1\r\nHost: x\r\n\r\n", "version"),
        ("POST /im.chat/send HTTP/1.1\r\nHo st: x\r\n\r\n", "header"),
        ("POST /im.chat/send HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", "content-length"),
        ("POST /im.chat/send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer-encoding"),
        ("POST /im.chat/send HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer-encoding"),
    ] {
        let answer = server.exchange(&format!("{head}{next}")).await;
        assert_eq!(status(&answer), "400", "{head}");
        assert!(closes(&answer) && answer.matches("HTTP/1.1").count() == 1, "{head}: {answer}");
        assert_is_error(&answer, says);
    }
    server.drained().await;
}

#[tokio::test]
async fn what_is_no_request_costs_nothing_of_the_answers_before_it() {
    let server = Server::start(options()).await;
    let mut client = server.connect().await;
    client
        .send(&(server.request("/nowhere", "") + &server.request("/im.chat/send", "{}") + "nonsense\r\n\r\n"))
        .await;
    assert_eq!(status(&client.answer().await), "404");
    let answer = client.answer().await;
    assert!(status(&answer) == "400" && !closes(&answer), "{answer}");
    let last = client.rest().await;
    assert!(closes(&last), "{last}");
    assert_is_error(&last, "the head of the request cannot be read: ");
    server.drained().await;
}

/// An answer of the very form that hyper's own refusals have.
async fn bare_refusal(_: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let refusal = Response::builder().status(400).header("connection", "close");
    Ok(refusal.body(Body::Left(Pieces::default())).expect("a response"))
}

#[tokio::test]
async fn what_a_handler_answers_goes_out_as_it_is_whatever_it_looks_like() {
    let (_node, draining) = watch::channel(false);
    let protocol = Arc::new(Protocol::new(options(), Drain::new(draining)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    for (request, is_refused) in [("GET / HTTP/1.1\r\nHost: x\r\n\r\n", false), ("GET /\r\n\r\n", true)] {
        let mut client = Client(TcpStream::connect(address).await.expect("a connection"));
        let (stream, _) = listener.accept().await.expect("a connection");
        let wire = protocol.wire(Socket::Plain(stream), Arc::default());
        let running = protocol.clone();
        let serving = tokio::spawn(async move { running.run(wire, service_fn(bare_refusal)).await });
        client.send(request).await;
        let answer = client.rest().await;
        within(serving).await.expect("no panic");
        assert!(status(&answer) == "400" && closes(&answer), "{answer}");
        assert_eq!(refusal::may_be(answer.as_bytes()), !is_refused, "{answer}");
        assert_eq!(answer.ends_with("\"}"), is_refused, "{answer}");
    }
}

#[tokio::test]
async fn heads_have_a_largest_size() {
    let server = Server::start(options()).await;
    for headers in [format!("X: {}\r\n", "y".repeat(20_000)), "X: y\r\n".repeat(101)] {
        let answer =
            server.exchange(&format!("POST /im.chat/send HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        assert_eq!(status(&answer), "431", "{answer}");
        assert!(closes(&answer), "{answer}");
        assert_is_error(&answer, "must be at most 16384 bytes with 100 headers");
    }
    let most = "X: y\r\n".repeat(HEADERS_MAX - 2);
    let answer = server.exchange(&server.head("/nowhere", &format!("{most}Connection: close"))).await;
    assert_eq!(status(&answer), "431", "one more than the most: {answer}");
    let most = "X: y\r\n".repeat(HEADERS_MAX - 3);
    let answer = server.exchange(&server.head("/nowhere", &format!("{most}Connection: close"))).await;
    assert_eq!(status(&answer), "404", "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn whoever_has_sent_all_still_gets_the_answer() {
    let server = Server::start(options()).await;
    let mut client = server.connect().await;
    client.send(&server.request("/im.chat/send", "{}")).await;
    client.0.shutdown().await.expect("a half-closed connection");
    assert_eq!(status(&client.rest().await), "400");
    let mut client = server.connect().await;
    client.send(&(server.head("/im.chat/send", "Content-Length: 10") + "{}")).await;
    client.0.shutdown().await.expect("a half-closed connection");
    let answer = client.rest().await;
    assert!(status(&answer) == "400" && answer.contains("the body ended early"), "{answer}");
    server.drained().await;
}
