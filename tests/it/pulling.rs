//! Pulls: which indices, in which order, how many.

use std::sync::Arc;

use serde_json::json;

use crate::support::{Client, TestServer, eventually, fresh, shared_server};

/// Two users with sixty messages, of which 1 to 55 were recalled from the last to the first.
fn long_conversation() -> (Arc<TestServer>, Client, Client) {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for number in 1..=60 {
        alice.with(&bob.user).send(&number.to_string());
    }
    for index in (1..=55).rev() {
        alice.with(&bob.user).recall(index);
    }
    (server, alice, bob)
}

#[test]
fn after_walks_up_and_before_walks_down_and_both_include_the_start() {
    let (_server, alice, bob) = long_conversation();
    let chat = bob.with(&alice.user);
    let indices = |direction: &str, start: u32, count: u32| {
        chat.pull(&json!({"direction": direction, "start_msg_index": start, "count": count})).indices()
    };
    assert_eq!(indices("after", 10, 3), [10, 11, 12]);
    assert_eq!(indices("before", 10, 3), [10, 9, 8]);
    assert_eq!(indices("after", 59, 50), [59, 60]);
    assert_eq!(indices("before", 2, 50), [2, 1]);
    assert_eq!(indices("after", 60, 1), [60]);
    assert_eq!(indices("before", 1, 1), [1]);
    assert_eq!(indices("after", 61, 50), [0; 0]);
    assert_eq!(indices("before", 1000, 2), [60, 59]);
    assert_eq!(indices("after", 1, 50), (1..=50).collect::<Vec<_>>());
    assert_eq!(indices("before", 60, 50), (11..=60).rev().collect::<Vec<_>>());
}

#[test]
fn recalls_walk_the_same_way() {
    let (_server, alice, bob) = long_conversation();
    let chat = bob.with(&alice.user);
    let recalls = |direction: &str, start: u32, count: u32| {
        let page = chat.pull(&json!({"direction": direction, "start_recall_index": start, "count": count}));
        assert_eq!(page.msgs, []);
        page.recalls.into_iter().collect::<Vec<_>>()
    };
    // Recall 1 took back message 55, recall 2 message 54, and so on.
    assert_eq!(recalls("after", 2, 2), [(2, 54), (3, 53)]);
    assert_eq!(recalls("before", 2, 2), [(1, 55), (2, 54)]);
    assert_eq!(recalls("after", 55, 50), [(55, 1)]);
    assert_eq!(recalls("after", 56, 50), []);
    assert_eq!(recalls("before", 100, 1), [(55, 1)]);
    assert_eq!(recalls("after", 1, 50).len(), 50);
    assert_eq!(recalls("before", 55, 50), (6..=55).map(|index| (index, 56 - index)).collect::<Vec<_>>());
}

#[test]
fn a_start_of_0_leaves_its_half_out() {
    let (_server, alice, bob) = long_conversation();
    let chat = bob.with(&alice.user);
    for direction in ["after", "before"] {
        let neither = chat.pull(&json!({"direction": direction}));
        assert_eq!((neither.msgs.len(), neither.recalls.len()), (0, 0));
        assert_eq!((neither.max_msg_index, neither.max_recall_index), (60, 55));
        let msgs = chat.pull(&json!({"direction": direction, "start_msg_index": 60}));
        assert!(!msgs.msgs.is_empty() && msgs.recalls.is_empty());
        let recalls = chat.pull(&json!({"direction": direction, "start_recall_index": 55}));
        assert!(recalls.msgs.is_empty() && !recalls.recalls.is_empty());
    }
}

#[test]
fn the_count_holds_for_each_half() {
    let (_server, alice, bob) = long_conversation();
    let chat = bob.with(&alice.user);
    for count in [1, 2, 49, 50] {
        let page = chat.pull(&json!({"start_msg_index": 1, "start_recall_index": 1, "count": count}));
        assert_eq!((page.msgs.len(), page.recalls.len()), (count, count));
    }
    for count in [0, 51, u32::MAX] {
        let fields = json!({"direction": "after", "start_msg_index": 1, "count": count});
        chat.call("pull", &fields).assert_error_naming(400, 10001, &["count", "1", "50"]);
    }
}

#[test]
fn the_bounds_tell_how_far_there_is_to_go() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    for _ in 0..3 {
        chat.send("m");
    }
    chat.recall(2);
    let epochs: Vec<_> =
        [json!({}), json!({"start_msg_index": 3}), json!({"direction": "before", "start_recall_index": 1})]
            .iter()
            .map(|fields| {
                let page = chat.pull(fields);
                assert_eq!(
                    (page.max_msg_index, page.max_recall_index, page.min_msg_index),
                    (3, 1, 1),
                    "{fields}"
                );
                page.epoch
            })
            .collect();
    assert!(epochs.windows(2).all(|pair| pair[0] == pair[1]), "{epochs:?}");
}

#[test]
fn the_epoch_survives_restarts() {
    let mut server = TestServer::start();
    let epoch = |server: &TestServer| server.client("alice").with("bob").beginning().epoch;
    server.client("alice").with("bob").send("m");
    let first = epoch(&server);
    server.kill();
    server.start_again();
    assert_eq!(epoch(&server), first);
    server.stop();
    server.start_again();
    assert_eq!(epoch(&server), first);
}

#[test]
fn a_conversation_nobody_began_is_empty_and_a_pull_does_not_begin_it() {
    let mut server = TestServer::start();
    let alice = server.client("alice");
    for direction in ["after", "before"] {
        let page = alice
            .with("bob")
            .pull(&json!({"direction": direction, "start_msg_index": 1, "start_recall_index": 1}));
        assert_eq!((page.msgs.len(), page.recalls.len()), (0, 0));
        assert_eq!((page.max_msg_index, page.max_recall_index), (0, 0));
    }
    alice.with("bob").ack(0);
    alice.with("bob").call("recall", &json!({"msg_index": 1})).assert_error(404, 20001);
    alice.with("carol").send("the only conversation there is");
    let counted = || server.metric("chinwag_conversations").filter(|conversations| *conversations > 0.0);
    assert_eq!(eventually("conversations are counted", counted), 1.0);
    server.stop();
    server.start_again();
    assert_eq!(server.ready().conversations, 1);
}

#[test]
fn a_pull_shows_the_same_before_and_after_a_restart() {
    let mut server = TestServer::start();
    let (alice, group) = (fresh("alice"), fresh("group"));
    let client = server.client(&alice);
    client.create_group(&group, &["bob"]);
    for number in 0..60 {
        let fields = json!({"msg": format!("text {number}"), "extra": format!("extra {number}")});
        client.with("bob").call("send", &fields).ok();
        client.group(&group).call("send", &fields).ok();
    }
    client.with("bob").recall(7);
    client.group(&group).recall(9);
    let shown = |server: &TestServer| {
        let client = server.client(&alice);
        (client.with("bob").everything(), client.group(&group).everything())
    };
    let before = shown(&server);
    server.stop();
    server.start_again();
    assert_eq!(shown(&server), before);
}
