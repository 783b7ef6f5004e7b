//! Calls from pages of other origins, as browsers make them.

use serde_json::json;

use crate::support::{Client, Reply, TestServer, request, shared_server};

const PAGE: &str = "https://app.example.com";

fn ask(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Reply {
    server.exchange(request("OPTIONS", path, headers, b""))
}

fn send_from(alice: &Client, origin: &str, body: &str) -> Reply {
    let headers = [("Token", alice.token()), ("Origin", origin), ("Content-Type", "application/json")];
    alice.post("/im.chat/send", &headers, body.as_bytes()).expect("a reply")
}

#[test]
fn a_listed_page_is_told_what_it_may_send_and_reads_answers_and_errors() {
    let server = TestServer::start_with(&["--origin", PAGE]);
    let asked = [
        ("Origin", PAGE),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    let leave = ask(&server, "/im.chat/send", &asked);
    assert_eq!(leave.status, 204);
    assert_eq!(leave.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(leave.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(leave.header("vary"), Some("origin"));
    let headers = leave.header("access-control-allow-headers").expect("headers");
    for header in ["authorization", "token", "content-type"] {
        assert!(headers.split(", ").any(|allowed| allowed == header), "{header} is not in {headers}");
    }
    assert_eq!(leave.header("access-control-allow-credentials"), None);

    let alice = server.client("alice");
    let message = json!({"target": "bob", "target_type": "user", "msg": "hi"}).to_string();
    let sent = send_from(&alice, PAGE, &message);
    assert_eq!(sent.ok()["msg_index"], 1);
    assert_eq!(sent.header("access-control-allow-origin"), Some(PAGE));
    let refused = send_from(&alice, PAGE, "{");
    refused.assert_error(400, 10001);
    assert_eq!(refused.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(refused.header("access-control-expose-headers"), Some("retry-after"));
}

#[test]
fn other_pages_and_paths_get_no_leave() {
    let server = TestServer::start_with(&["--origin", PAGE]);
    let from = |origin| [("Origin", origin), ("Access-Control-Request-Method", "POST")];
    for origin in ["https://app.example.com.evil.org", "http://app.example.com", "null"] {
        let refused = ask(&server, "/im.chat/send", &from(origin));
        refused.assert_error(405, 10001);
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
    }
    ask(&server, "/im.chat/nothing", &from(PAGE)).assert_error(404, 10001);
    let alice = server.client("alice");
    let message = json!({"target": "bob", "target_type": "user", "msg": "hi"}).to_string();
    let sent = send_from(&alice, "https://other.example.com", &message);
    assert_eq!((sent.status, sent.header("access-control-allow-origin")), (200, None));
}

#[test]
fn a_page_that_asks_names_one_host() {
    let server = TestServer::start_with(&["--origin", "*"]);
    let asked = format!(
        "OPTIONS /im.chat/send HTTP/1.1\r\nHost: a\r\nHost: b\r\nOrigin: {PAGE}\r\n\
         Access-Control-Request-Method: POST\r\n\r\n"
    );
    server.exchange(asked).assert_error(400, 10001);
}

#[test]
fn without_origins_nothing_is_said_of_them() {
    let server = shared_server();
    let asked = [("Origin", PAGE), ("Access-Control-Request-Method", "POST")];
    let refused = ask(&server, "/im.chat/send", &asked);
    refused.assert_error(405, 10001);
    assert_eq!((refused.header("access-control-allow-origin"), refused.header("vary")), (None, None));
}

#[test]
fn with_a_star_every_page_may() {
    let server = TestServer::start_with(&["--origin", "*"]);
    let leave =
        ask(&server, "/im.chat/pull", &[("Origin", "null"), ("Access-Control-Request-Method", "POST")]);
    assert_eq!((leave.status, leave.header("access-control-allow-origin")), (204, Some("null")));
}
