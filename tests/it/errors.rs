//! Refusals of HTTP itself: paths, methods, sizes, framing. Always JSON with a code and words.

use serde_json::json;

use crate::support::protobuf::MEDIA_TYPE;
use crate::support::{TestServer, fresh, request, shared_server};

#[test]
fn an_unknown_path_is_404() {
    let server = shared_server();
    let alice = server.client("alice");
    for path in [
        "/",
        "/im.chat",
        "/im.chat/",
        "/im.chat/sends",
        "/im.chat/send/",
        "/im.chat/Send",
        "/IM.chat/send",
        "//im.chat/send",
        "/im.chat//send",
        "/im.group/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/im.chat/%73end",
    ] {
        alice.call(path, &json!({})).assert_error(404, 10001);
    }
}

#[test]
fn a_wrong_method_is_405_and_says_which_is_allowed() {
    let server = shared_server();
    for path in [
        "/im.chat/send",
        "/im.chat/recall",
        "/im.chat/ack",
        "/im.chat/pull",
        "/im.group/create",
        "/im.group/info",
    ] {
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            let reply = server.exchange(request(method, path, &[], b""));
            reply.assert_error(405, 10001);
            let allowed = reply.header("allow").unwrap_or_default();
            assert!(allowed.split(',').any(|one| one.trim() == "POST"), "Allow: {allowed:?} for {path}");
        }
    }
}

#[test]
fn a_stream_is_asked_for_with_get_whatever_comes_along() {
    let server = shared_server();
    for body in [&b""[..], b"{}"] {
        let reply = server.exchange(request("POST", "/im.chat/stream", &[], body));
        reply.assert_error(405, 10001);
        assert_eq!(reply.header("allow"), Some("GET"));
    }
}

#[test]
fn a_body_that_says_it_is_too_large_is_refused_before_it_is_sent() {
    let server = shared_server();
    let alice = server.client("alice");
    let mut connection = server.connect();
    let head = format!(
        "POST /im.chat/send HTTP/1.1\r\nHost: x\r\nToken: {}\r\nContent-Length: 65537\r\n\r\n",
        alice.token()
    );
    connection.write(head).expect("the server reads");
    let reply = connection.read_reply().expect("a reply without a body having been sent");
    reply.assert_error_naming(413, 10001, &["65536"]);
    assert!(reply.closes(), "the body that may come cannot be told from a request");
}

#[test]
fn a_length_that_no_number_holds_is_refused() {
    let server = shared_server();
    let alice = server.client("alice");
    for length in ["18446744073709551615", "99999999999999999999999", "-1", "1x", "0x10", ""] {
        let mut connection = server.connect();
        let head = format!(
            "POST /im.chat/send HTTP/1.1\r\nHost: x\r\nToken: {}\r\nContent-Length: {length}\r\n\r\n",
            alice.token()
        );
        connection.write(head).expect("the server reads");
        let reply = connection.read_reply().expect("a reply");
        assert!((400..500).contains(&reply.status) && reply.closes(), "{length}: {reply:?}");
    }
}

#[test]
fn a_chunked_body_is_a_body() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let body = alice.with(&bob.user).body(&json!({"msg": "in pieces"})).to_string();
    let mut connection = server.connect();
    let head = format!(
        "POST /im.chat/send HTTP/1.1\r\nHost: x\r\nToken: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        alice.token()
    );
    connection.write(head).expect("the server reads");
    for piece in body.as_bytes().chunks(7) {
        connection.write(format!("{:x}\r\n", piece.len())).expect("the server reads");
        connection.write(piece).expect("the server reads");
        connection.write("\r\n").expect("the server reads");
    }
    connection.write("0\r\n\r\n").expect("the server reads");
    assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], 1);
    assert_eq!(bob.with(&alice.user).beginning().texts(), ["in pieces"]);
}

#[test]
fn a_chunked_body_over_the_limit_is_413() {
    let server = shared_server();
    let alice = server.client("alice");
    let mut connection = server.connect();
    let head = format!(
        "POST /im.chat/send HTTP/1.1\r\nHost: x\r\nToken: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        alice.token()
    );
    connection.write(head).expect("the server reads");
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..17 {
        // The server may have refused and closed before the last one.
        if connection.write(&chunk).is_err() {
            break;
        }
    }
    connection.read_reply().expect("a reply").assert_error_naming(413, 10001, &["65536"]);
}

#[test]
fn what_is_too_large_stores_nothing_and_the_next_request_is_fine() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let text = "x".repeat(70_000);
    alice.with(&bob.user).call("send", &json!({"msg": text})).assert_error(413, 10001);
    assert_eq!(alice.with(&bob.user).send("short").msg_index, 1);
}

#[test]
fn errors_are_json_whatever_accept_says() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    for accept in [MEDIA_TYPE, "text/html", "image/png", "*/*;q=0"] {
        let headers = [("Accept", accept), ("Content-Type", "application/json")];
        let post = |path: &str, body: &str| alice.post(path, &headers, body.as_bytes()).expect("a reply");
        post("/im.chat/send", "{}").assert_error(400, 10001);
        post("/im.chat/recall", r#"{"target":"bob","target_type":"user","msg_index":1}"#)
            .assert_error(404, 20001);
        post("/nothing", "{}").assert_error(404, 10001);
        server
            .exchange(request("POST", "/im.chat/send", &[("Accept", accept)], b"{}"))
            .assert_error(401, 10004);
    }
}

#[test]
fn error_words_are_json_whatever_they_quote() {
    let server = shared_server();
    let alice = server.client("alice");
    for target in ["\u{1}\"\\", "\u{2028}<script>", "\u{7f}"] {
        let body = json!({"target": target, "target_type": target, "msg": "m"});
        alice.call("/im.chat/send", &body).assert_error(400, 10001);
    }
}

#[test]
fn one_host_header_is_required_and_no_more() {
    let server = shared_server();
    for hosts in ["", "Host: one\r\nHost: two\r\n", "Host: one\r\nHost: one\r\n"] {
        let bytes = format!("POST /im.chat/send HTTP/1.1\r\n{hosts}Content-Length: 2\r\n\r\n{{}}");
        assert_eq!(server.exchange(bytes).status, 400, "{hosts:?}");
    }
    let one = "POST /im.chat/send HTTP/1.1\r\nhost: one\r\nContent-Length: 2\r\n\r\n{}";
    server.exchange(one).assert_error(401, 10004);
}

#[test]
fn a_body_with_two_ends_is_refused_or_ends_the_connection() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let inner = alice.with(&bob.user).body(&json!({"msg": "smuggled"})).to_string();
    let inner = String::from_utf8(alice.request("/im.chat/send", &[], inner.as_bytes())).expect("UTF-8");
    let head = format!("POST /im.chat/pull HTTP/1.1\r\nHost: x\r\nToken: {}\r\n", alice.token());
    for framing in [
        "Content-Length: 0\r\nContent-Length: 4\r\n",
        "Content-Length: 4, 0\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: identity, chunked\r\nTransfer-Encoding: x\r\n",
        "Transfer-Encoding: x\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length : 0\r\n",
    ] {
        let mut connection = server.connect();
        connection.write(format!("{head}{framing}\r\n0\r\n\r\n{inner}")).expect("the server reads");
        connection.half_close();
        let all = connection.read_to_close().expect("the connection ends");
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 4"), "{framing:?}: {all}");
    }
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0, "a request came through inside another");
}

#[test]
fn a_head_that_is_too_large_or_has_too_many_lines_is_refused() {
    let server = shared_server();
    let long = format!("X-Long: {}\r\n", "x".repeat(40_000));
    let many: String = (0..2000).map(|number| format!("X-{number}: 1\r\n")).collect();
    for headers in [long, many] {
        let mut connection = server.connect();
        // The server may refuse and close before all of it is written.
        connection.write(format!("POST /im.chat/send HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).ok();
        let all = connection.read_to_close().expect("the connection ends");
        let all = String::from_utf8_lossy(&all);
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 4"), "{all}");
    }
}

#[test]
fn what_is_no_http_is_refused_and_the_connection_ends() {
    let server = shared_server();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /im.chat/send HTTP/9.9\r\n\r\n",
        b"\x00\x00\x00\x00",
        b"POST /im.chat/send HTTP/1.1\r\nHost: x\r\nBad\x00Name: 1\r\n\r\n",
        b"POST /im.chat/send HTTP/1.1\r\nHost: x\r\nFolded: 1\r\n 2\r\n\r\n",
    ] {
        let mut connection = server.connect();
        connection.write(bytes).expect("the server reads");
        connection.half_close();
        let all = connection.read_to_close().expect("the connection ends");
        let all = String::from_utf8_lossy(&all);
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 4"), "{bytes:?}: {all}");
    }
    assert_eq!(server.client(&fresh("alice")).with("bob").send("alive").msg_index, 1);
}

#[test]
fn a_refused_token_is_not_repeated_in_logs_or_replies() {
    let server = TestServer::start_with(&["--log-level", "trace"]);
    let alice = server.client("alice");
    alice.with("bob").send("a text that nobody may log");
    let body = alice.with("bob").body(&json!({"msg": "a text that nobody may log"})).to_string();
    let broken = format!("{}x", alice.token());
    let reply = server.exchange(request("POST", "/im.chat/send", &[("Token", &broken)], body.as_bytes()));
    reply.assert_error(401, 10004);
    assert!(!reply.text().contains(&broken));
    let log = server.stderr();
    for secret in [alice.token(), "a text that nobody may log"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
