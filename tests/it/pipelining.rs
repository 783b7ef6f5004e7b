//! Connections that are kept, filled ahead, or half closed.

use serde_json::{Value, json};

use crate::support::{Client, shared_server};

fn send(client: &Client, target: &str, text: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let body = client.with(target).body(&json!({"msg": text})).to_string();
    client.request("/im.chat/send", headers, body.as_bytes())
}

fn pull(client: &Client, target: &str, fields: &Value) -> Vec<u8> {
    client.request("/im.chat/pull", &[], client.with(target).body(fields).to_string().as_bytes())
}

#[test]
fn requests_written_at_once_are_answered_in_order() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let all = json!({"direction": "after", "start_msg_index": 1, "count": 50});
    let mut bytes = send(&alice, &bob.user, "one", &[]);
    bytes.extend(pull(&alice, &bob.user, &all));
    bytes.extend(send(&alice, &bob.user, "two", &[]));
    bytes.extend(alice.request("/im.chat/nothing", &[], b"{}"));
    bytes.extend(pull(&alice, &bob.user, &all));
    let mut connection = server.connect();
    connection.write(bytes).expect("the server reads");
    let mut next = || connection.read_reply().expect("a reply");
    assert_eq!(next().ok()["msg_index"], 1);
    assert_eq!(next().ok()["msgs"].as_array().map(Vec::len), Some(1));
    assert_eq!(next().ok()["msg_index"], 2);
    next().assert_error(404, 10001);
    assert_eq!(next().ok()["msgs"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_request_behind_a_waiting_pull_waits_its_turn() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut bytes = pull(
        &alice,
        &bob.user,
        &json!({"direction": "after", "start_msg_index": 1, "count": 1, "wait_ms": 200}),
    );
    bytes.extend(send(&alice, &bob.user, "behind", &[]));
    let mut connection = server.connect();
    connection.write(bytes).expect("the server reads");
    assert_eq!(connection.read_reply().expect("a reply").ok()["msgs"], json!([]));
    assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], 1);
}

#[test]
fn a_connection_is_kept_for_many_requests() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut connection = server.connect();
    for index in 1..=100 {
        connection.write(send(&alice, &bob.user, "m", &[])).expect("the server reads");
        let reply = connection.read_reply().expect("a reply");
        assert_eq!(reply.ok()["msg_index"], index);
        assert!(!reply.closes());
    }
}

#[test]
fn refusals_that_read_the_whole_request_keep_the_connection() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut connection = server.connect();
    connection.write(send(&alice, &bob.user, "", &[])).expect("the server reads");
    connection.read_reply().expect("a reply").assert_error(400, 10001);
    connection.write(send(&alice, &bob.user, "m", &[])).expect("the server reads");
    assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], 1);
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut connection = server.connect();
    let mut bytes = send(&alice, &bob.user, "one", &[]);
    bytes.extend(send(&alice, &bob.user, "two", &[]));
    connection.write(bytes).expect("the server reads");
    connection.half_close();
    assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], 1);
    assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], 2);
    assert_eq!(connection.read_to_close().expect("the connection ends"), b"");
}

#[test]
fn a_request_cut_off_in_its_body_stores_nothing() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let bytes = send(&alice, &bob.user, "cut off", &[]);
    let mut connection = server.connect();
    connection.write(&bytes[..bytes.len() - 1]).expect("the server reads");
    connection.half_close();
    let left = connection.read_to_close().expect("the connection ends");
    assert!(!left.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&left));
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0);
}

#[test]
fn connection_close_is_obeyed() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut connection = server.connect();
    connection.write(send(&alice, &bob.user, "last", &[("Connection", "close")])).expect("the server reads");
    let reply = connection.read_reply().expect("a reply");
    assert_eq!(reply.ok()["msg_index"], 1);
    assert!(reply.closes());
    assert_eq!(connection.read_to_close().expect("the connection ends"), b"");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut connection = server.connect();
    for byte in send(&alice, &bob.user, "drop by drop", &[]) {
        connection.write([byte]).expect("the server reads");
    }
    assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], 1);
}

#[test]
fn a_body_that_was_announced_is_asked_for() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let bytes = send(&alice, &bob.user, "may I?", &[("Expect", "100-continue")]);
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let mut connection = server.connect();
    connection.write(&bytes[..head]).expect("the server reads");
    connection.read_continue().expect("the server asks for the body");
    connection.write(&bytes[head..]).expect("the server reads");
    assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], 1);
}
