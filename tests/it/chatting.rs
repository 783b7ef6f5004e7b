//! Sending and what a pull shows of it: indices, time, texts.

use std::collections::BTreeSet;
use std::thread;

use serde_json::json;

use crate::support::{TestServer, fresh, shared_server, since_epoch};

#[test]
fn indices_are_dense_from_1_and_shared_by_both_sides() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for expected in 1..=10 {
        let (from, to) = if expected % 3 == 0 { (&bob, &alice) } else { (&alice, &bob) };
        assert_eq!(from.with(&to.user).send(&format!("text {expected}")).msg_index, expected);
    }
    let page = bob.with(&alice.user).beginning();
    assert_eq!(page.indices(), (1..=10).collect::<Vec<_>>());
    assert_eq!(page.max_msg_index, 10);
    for msg in &page.msgs {
        assert_eq!(msg.msg, format!("text {}", msg.msg_index));
        assert_eq!(msg.sender, if msg.msg_index % 3 == 0 { bob.user.as_str() } else { &alice.user });
    }
}

#[test]
fn conversations_count_for_themselves() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.create_group(&group, &[&bob.user]);
    assert_eq!(alice.with(&bob.user).send("one").msg_index, 1);
    assert_eq!(alice.with(&alice.user).send("one").msg_index, 1);
    assert_eq!(alice.group(&group).send("one").msg_index, 1);
    assert_eq!(bob.group(&group).send("two").msg_index, 2);
    assert_eq!(bob.with(&alice.user).send("two").msg_index, 2);
}

#[test]
fn what_was_acknowledged_is_readable_at_once_by_everybody() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for index in 1..=50 {
        alice.with(&bob.user).send(&index.to_string());
        let page = bob.with(&alice.user).pull(&json!({"start_msg_index": index}));
        assert_eq!(page.texts(), [index.to_string()]);
    }
}

#[test]
fn a_message_comes_back_as_it_was_sent() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let sent = alice.with(&bob.user).call("send", &json!({"msg": "hi", "extra": "{\"kind\":1}"})).ok();
    for (reader, other) in [(&alice, &bob), (&bob, &alice)] {
        let page = reader.with(&other.user).beginning();
        let msg = &page.msgs[0];
        assert_eq!((msg.msg.as_str(), msg.extra.as_str()), ("hi", "{\"kind\":1}"));
        assert_eq!((msg.msg_index, msg.recall_index), (1, 0));
        assert_eq!(json!(msg.timestamp), sent["timestamp"]);
        assert_eq!(msg.sender, alice.user);
        assert_eq!((msg.target.as_str(), msg.target_type.as_str()), (other.user.as_str(), "user"));
    }
}

#[test]
fn in_a_group_the_target_is_the_group() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.create_group(&group, &[&bob.user]);
    alice.group(&group).send("hi");
    for reader in [&alice, &bob] {
        let page = reader.group(&group).beginning();
        assert_eq!(
            (page.msgs[0].target.as_str(), page.msgs[0].target_type.as_str()),
            (group.as_str(), "group")
        );
        assert_eq!(page.msgs[0].sender, alice.user);
    }
}

#[test]
fn time_is_now_in_seconds_and_the_same_moment_in_nanoseconds() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let before = since_epoch();
    let sent = alice.with(&bob.user).send("hi");
    let after = since_epoch();
    assert_eq!(u64::from(sent.timestamp), sent.nanoseconds() / 1_000_000_000);
    let sent = u128::from(sent.nanoseconds());
    assert!(before.as_nanos() <= sent && sent <= after.as_nanos(), "{before:?} {sent} {after:?}");
}

#[test]
fn time_never_runs_backwards_in_a_conversation() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let receipts: Vec<_> = (0..40).map(|_| alice.with(&bob.user).send("tick")).collect();
    assert!(receipts.windows(2).all(|pair| pair[0].nanoseconds() <= pair[1].nanoseconds()));
    let shown: Vec<_> = bob.with(&alice.user).beginning().msgs.iter().map(|msg| msg.timestamp).collect();
    assert_eq!(shown, receipts.iter().map(|receipt| receipt.timestamp).collect::<Vec<_>>());
}

#[test]
fn many_senders_at_once_get_every_index_once() {
    const SENDERS: u32 = 8;
    const EACH: u32 = 40;
    let server = shared_server();
    let group = fresh("group");
    let users: Vec<_> = (0..SENDERS).map(|_| fresh("sender")).collect();
    let members: Vec<_> = users.iter().map(String::as_str).collect();
    server.client(&users[0]).create_group(&group, &members);
    let answers: Vec<(u32, String, u64)> = thread::scope(|scope| {
        let senders: Vec<_> = users
            .iter()
            .map(|user| {
                let (server, group) = (&server, &group);
                scope.spawn(move || {
                    let client = server.client(user);
                    let send = |number: u32| {
                        let text = format!("{user} {number}");
                        let receipt = client.group(group).send(&text);
                        (receipt.msg_index, text, receipt.nanoseconds())
                    };
                    (0..EACH).map(send).collect::<Vec<_>>()
                })
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("a sender")).collect()
    });
    let indices: BTreeSet<_> = answers.iter().map(|(index, ..)| *index).collect();
    assert_eq!(indices, (1..=SENDERS * EACH).collect());
    let kept = server.client(&users[0]).group(&group).everything();
    assert_eq!(kept.indices(), (1..=SENDERS * EACH).collect::<Vec<_>>());
    for (index, text, _) in &answers {
        assert_eq!(&kept.msgs[*index as usize - 1].msg, text);
    }
    let mut in_order = answers;
    in_order.sort_unstable();
    assert!(in_order.windows(2).all(|pair| pair[0].2 <= pair[1].2), "time runs with the index");
}

#[test]
fn one_senders_messages_keep_their_order() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut connection = server.connect();
    let mut bytes = Vec::new();
    for number in 0..20 {
        let body = alice.with(&bob.user).body(&json!({"msg": number.to_string()})).to_string();
        bytes.extend(alice.request("/im.chat/send", &[], body.as_bytes()));
    }
    connection.write(bytes).expect("the server reads");
    for expected in 1..=20 {
        assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], expected);
    }
    let kept = bob.with(&alice.user).beginning();
    assert_eq!(kept.texts(), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn the_largest_body_that_is_allowed_is_a_message() {
    let server = TestServer::start();
    let alice = server.client("alice");
    let chat = alice.with("bob");
    let empty = chat.body(&json!({"msg": "", "extra": ""})).to_string().len();
    let room = 65_536 - empty;
    let (msg, extra) = ("m".repeat(room / 2), "e".repeat(room - room / 2));
    assert_eq!(chat.call("send", &json!({"msg": msg, "extra": extra})).ok()["msg_index"], 1);
    let page = server.client("bob").with("alice").beginning();
    assert!(page.msgs[0].msg == msg && page.msgs[0].extra == extra);
    chat.call("send", &json!({"msg": format!("{msg}m"), "extra": extra})).assert_error(413, 10001);
    assert_eq!(chat.beginning().max_msg_index, 1);
}

#[test]
fn a_page_of_the_largest_messages_comes_whole() {
    let server = TestServer::start_with(&["--body-limit", "1MiB", "--sync", "never"]);
    let alice = server.client("alice");
    // Every letter is six bytes in JSON: a page far larger than any one body.
    let text = "\u{1}".repeat(150_000);
    for _ in 0..20 {
        alice.with("bob").send(&text);
    }
    let page = server.client("bob").with("alice").beginning();
    assert_eq!(page.msgs.len(), 20);
    assert!(page.msgs.iter().all(|msg| msg.msg == text));
}
