//! Recalls: whose, when, and that the text is gone for everybody.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Chat, TestServer, eventually, fresh, shared_server};

#[test]
fn a_recalled_text_is_empty_for_everybody_in_every_pull() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for text in ["one", "two", "three"] {
        alice.with(&bob.user).call("send", &json!({"msg": text, "extra": "secret"})).ok();
    }
    assert_eq!(alice.with(&bob.user).recall(2), 1);
    for (reader, other) in [(&alice, &bob), (&bob, &alice)] {
        let chat = reader.with(&other.user);
        for fields in [
            json!({"start_msg_index": 1}),
            json!({"start_msg_index": 3, "direction": "before"}),
            json!({"start_msg_index": 2, "count": 1}),
        ] {
            let page = chat.pull(&fields);
            let recalled = page.msgs.iter().find(|msg| msg.msg_index == 2).expect("still at its index");
            assert_eq!((recalled.msg.as_str(), recalled.extra.as_str(), recalled.recall_index), ("", "", 1));
            assert_eq!(recalled.sender, alice.user);
            let others: Vec<_> = page.msgs.iter().filter(|msg| msg.msg_index != 2).collect();
            assert!(
                others
                    .iter()
                    .all(|msg| !msg.msg.is_empty() && msg.extra == "secret" && msg.recall_index == 0)
            );
        }
    }
}

#[test]
fn recall_indices_are_dense_from_1_in_the_order_of_recalling() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for number in 1..=5 {
        let (from, to) = if number % 2 == 0 { (&bob, &alice) } else { (&alice, &bob) };
        from.with(&to.user).send("m");
    }
    assert_eq!(alice.with(&bob.user).recall(5), 1);
    assert_eq!(bob.with(&alice.user).recall(2), 2);
    assert_eq!(alice.with(&bob.user).recall(1), 3);
    let page = bob.with(&alice.user).beginning();
    assert_eq!(page.recalls.into_iter().collect::<Vec<_>>(), [(1, 5), (2, 2), (3, 1)]);
    assert_eq!((page.max_recall_index, page.max_msg_index), (3, 5));
}

#[test]
fn recalling_twice_gives_the_first_index() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    chat.send("one");
    chat.send("two");
    assert_eq!(chat.recall(1), 1);
    assert_eq!(chat.recall(2), 2);
    assert_eq!(chat.recall(1), 1);
    assert_eq!(chat.beginning().max_recall_index, 2);
}

#[test]
fn recalls_at_the_same_time_give_one_index() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("one");
    let indices: Vec<_> = std::thread::scope(|scope| {
        let recall = || server.client(&alice.user).with(&bob.user).recall(1);
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(recall)).collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).collect()
    });
    assert_eq!(indices, [1; 8]);
    assert_eq!(alice.with(&bob.user).beginning().max_recall_index, 1);
}

#[test]
fn somebody_elses_message_is_20002_and_stays() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("mine");
    bob.with(&alice.user).call("recall", &json!({"msg_index": 1})).assert_error(403, 20002);
    alice.with(&bob.user).recall(1);
    // Not even to learn the index of what is recalled already.
    bob.with(&alice.user).call("recall", &json!({"msg_index": 1})).assert_error(403, 20002);
    assert_eq!(bob.with(&alice.user).beginning().max_recall_index, 1);
}

#[test]
fn a_message_that_is_not_there_is_20001() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    chat.call("recall", &json!({"msg_index": 1})).assert_error(404, 20001);
    chat.send("one");
    chat.call("recall", &json!({"msg_index": 2})).assert_error(404, 20001);
    let zero = chat.call("recall", &json!({"msg_index": 0}));
    assert!((zero.status, &zero.json()["code"]) == (404, &json!(20001)) || zero.status == 400, "{zero:?}");
    assert_eq!(chat.beginning().max_recall_index, 0);
}

#[test]
fn a_recall_moves_no_message_index() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    chat.send("one");
    chat.recall(1);
    assert_eq!(chat.send("two").msg_index, 2);
}

#[test]
fn in_a_group_owners_recall_anything_and_members_their_own() {
    let server = shared_server();
    let (owner, member) = server.strangers();
    let other = server.client(&fresh("other"));
    let group = fresh("group");
    owner.create_group(&group, &[&member.user, &other.user]);
    member.group(&group).send("from a member");
    owner.group(&group).send("from the owner");
    let recall = |index: u32| json!({"msg_index": index});
    other.group(&group).call("recall", &recall(1)).assert_error(403, 20002);
    member.group(&group).call("recall", &recall(2)).assert_error(403, 20002);
    assert_eq!(owner.group(&group).recall(1), 1);
    assert_eq!(member.group(&group).recall(1), 1, "their own, recalled already");
    assert_eq!(owner.group(&group).recall(2), 2);
    assert_eq!(other.group(&group).beginning().texts(), ["", ""]);
}

/// Sends and recalls within a second, for which a busy machine may need several tries: the message and its recall.
fn sent_and_recalled(chat: &Chat<'_>) -> (u32, u32) {
    eventually("a recall within the window", || {
        let started = Instant::now();
        let msg_index = chat.send("recalled in time").msg_index;
        let reply = chat.call("recall", &json!({"msg_index": msg_index}));
        let is_in_time = started.elapsed() < Duration::from_secs(1);
        let index = || reply.ok()["recall_index"].as_u64().and_then(|index| index.try_into().ok());
        (is_in_time || reply.status == 200).then(|| (msg_index, index().expect("an index")))
    })
}

#[test]
fn after_the_recall_window_it_is_20004() {
    let server = TestServer::start_with(&["--recall-window", "1s"]);
    let alice = server.client("alice");
    let chat = alice.with("bob");
    let sent = Instant::now();
    chat.send("old");
    let (recalled, first) = sent_and_recalled(&chat);
    assert_eq!(first, 1);
    // A pull of nothing, as the clock.
    let wait = json!({"start_msg_index": 99, "wait_ms": 1100});
    chat.pull(&wait);
    assert!(sent.elapsed() > Duration::from_millis(1000));
    chat.call("recall", &json!({"msg_index": 1})).assert_error_naming(409, 20004, &["1s"]);
    assert_eq!(chat.recall(recalled), 1, "what is recalled stays so");
    let (young, second) = sent_and_recalled(&chat);
    assert_eq!(second, 2);
    let page = chat.beginning();
    assert_eq!(
        (page.texts()[0], page.recalls.iter().map(|(recall, message)| (*recall, *message)).collect()),
        ("old", vec![(1, recalled), (2, young)])
    );
}

#[test]
fn without_a_window_any_age_can_be_recalled() {
    let mut server = TestServer::start();
    server.client("alice").with("bob").send("old");
    server.stop();
    server.start_again();
    assert_eq!(server.client("alice").with("bob").recall(1), 1);
}
