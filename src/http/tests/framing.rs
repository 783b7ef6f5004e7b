//! Where a request begins and ends: whoever makes that unclear gets one answer, and never a second request.

use super::*;

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
    }
    server.drained().await;
}

#[tokio::test]
async fn heads_have_a_largest_size() {
    let server = Server::start(options()).await;
    for headers in [format!("X: {}\r\n", "y".repeat(20_000)), "X: y\r\n".repeat(101)] {
        let answer =
            server.exchange(&format!("POST /im.chat/send HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        assert_eq!(status(&answer), "431", "{answer}");
    }
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
