//! `client_msg_id`: a retry gets the first answer and stores nothing.

use std::thread;

use serde_json::json;

use crate::support::{Receipt, TestServer, fresh, shared_server};

#[test]
fn a_retry_gets_the_first_answer_marked_as_duplicate_and_stores_nothing() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    let first = chat.send_named("id-1", "hello");
    assert!(!first.duplicate);
    chat.send("in between");
    for _ in 0..3 {
        assert_eq!(chat.send_named("id-1", "hello"), Receipt { duplicate: true, ..first.clone() });
    }
    let page = chat.beginning();
    assert_eq!(page.texts(), ["hello", "in between"]);
    assert_eq!(chat.send("next").msg_index, 3);
}

#[test]
fn the_same_id_with_other_content_is_20003_and_stores_nothing() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    chat.call("send", &json!({"msg": "hello", "extra": "x", "client_msg_id": "id"})).ok();
    for other in [
        json!({"msg": "hello!", "extra": "x", "client_msg_id": "id"}),
        json!({"msg": "hello", "extra": "y", "client_msg_id": "id"}),
        json!({"msg": "hello", "client_msg_id": "id"}),
        // The same bytes, split elsewhere.
        json!({"msg": "hellox", "client_msg_id": "id"}),
    ] {
        chat.call("send", &other).assert_error_naming(409, 20003, &["client_msg_id"]);
    }
    assert_eq!(chat.beginning().max_msg_index, 1);
    let again = chat.call("send", &json!({"msg": "hello", "extra": "x", "client_msg_id": "id"})).ok();
    assert_eq!(again["duplicate"], true);
}

#[test]
fn another_sender_or_conversation_may_use_the_same_id() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.create_group(&group, &[&bob.user]);
    let id = "the same";
    for receipt in [
        alice.with(&bob.user).send_named(id, "one"),
        bob.with(&alice.user).send_named(id, "two"),
        alice.with(&alice.user).send_named(id, "three"),
        alice.with(&fresh("carol")).send_named(id, "four"),
        alice.group(&group).send_named(id, "five"),
        bob.group(&group).send_named(id, "six"),
    ] {
        assert!(!receipt.duplicate, "{receipt:?}");
    }
    assert_eq!(alice.with(&bob.user).beginning().texts(), ["one", "two"]);
    assert_eq!(alice.group(&group).beginning().texts(), ["five", "six"]);
}

#[test]
fn without_an_id_equal_texts_are_two_messages() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    for (fields, expected) in [
        (json!({"msg": "m"}), 1),
        (json!({"msg": "m", "client_msg_id": ""}), 2),
        (json!({"msg": "m", "client_msg_id": null}), 3),
        (json!({"msg": "m"}), 4),
    ] {
        let answer = chat.call("send", &fields).ok();
        assert_eq!((&answer["msg_index"], &answer["duplicate"]), (&json!(expected), &json!(false)));
    }
}

#[test]
fn an_id_has_up_to_64_bytes_of_any_kind() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    for id in ["x".repeat(64), "é".repeat(32), " ".to_owned(), "\u{0}\n".to_owned(), "\u{1F600}".repeat(16)]
    {
        let first = chat.send_named(&id, &id);
        assert_eq!(chat.send_named(&id, &id), Receipt { duplicate: true, ..first });
    }
    for id in ["x".repeat(65), "é".repeat(33)] {
        let refused = chat.call("send", &json!({"msg": "m", "client_msg_id": id}));
        refused.assert_error_naming(400, 10001, &["client_msg_id", "64"]);
    }
    assert_eq!(chat.beginning().max_msg_index, 5);
}

#[test]
fn ids_that_begin_alike_are_different() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for id in ["a", "aa", "a ", "A", "a\u{0}", "b"] {
        assert!(!alice.with(&bob.user).send_named(id, "m").duplicate, "{id:?}");
    }
}

#[test]
fn retries_at_the_same_time_store_one_message() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for round in 1..=10 {
        let id = format!("round {round}");
        let receipts: Vec<_> = thread::scope(|scope| {
            let send = || server.client(&alice.user).with(&bob.user).send_named(&id, "m");
            let senders: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
            senders.into_iter().map(|sender| sender.join().expect("a sender")).collect()
        });
        assert!(receipts.iter().all(|receipt| receipt.msg_index == round), "{receipts:?}");
        assert!(receipts.iter().all(|receipt| receipt.timestamp_ns == receipts[0].timestamp_ns));
        assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1, "{receipts:?}");
    }
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 10);
}

#[test]
fn a_retry_of_a_recalled_message_gets_the_first_answer_and_brings_nothing_back() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    let first = chat.send_named("id", "regretted");
    chat.recall(1);
    assert_eq!(chat.send_named("id", "regretted"), Receipt { duplicate: true, ..first });
    let page = bob.with(&alice.user).beginning();
    assert_eq!((page.texts(), page.max_msg_index), (vec![""], 1));
}

#[test]
fn the_last_thousand_messages_are_remembered() {
    let mut server = TestServer::start_with(&["--sync", "never"]);
    let alice = server.client("alice");
    let first = alice.with("bob").send_named("number 1", "number 1");
    let mut connection = server.connect();
    for number in 2..=1000 {
        let text = format!("number {number}");
        let body = alice.with("bob").body(&json!({"msg": text, "client_msg_id": text})).to_string();
        connection.write(alice.request("/im.chat/send", &[], body.as_bytes())).expect("the server reads");
        assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], number);
    }
    let again = Receipt { duplicate: true, ..first };
    assert_eq!(alice.with("bob").send_named("number 1", "number 1"), again);
    server.kill();
    server.start_again();
    let alice = server.client("alice");
    assert_eq!(alice.with("bob").send_named("number 1", "number 1"), again);
    assert_eq!(alice.with("bob").send_named("number 1000", "number 1000").msg_index, 1000);
    assert_eq!(alice.with("bob").pull(&json!({})).max_msg_index, 1000);
}

#[test]
fn a_retry_is_recognised_after_a_crash_and_after_a_clean_end() {
    let mut server = TestServer::start();
    let chat = |server: &TestServer| server.client("alice").with("bob").send_named("id", "hello");
    let first = chat(&server);
    for round in 0..4 {
        if round % 2 == 0 {
            server.kill()
        } else {
            server.stop()
        }
        server.start_again();
        assert_eq!(chat(&server), Receipt { duplicate: true, ..first.clone() });
        let alice = server.client("alice");
        let other = alice.with("bob").call("send", &json!({"msg": "other", "client_msg_id": "id"}));
        other.assert_error(409, 20003);
    }
    assert_eq!(server.client("bob").with("alice").beginning().texts(), ["hello"]);
}
