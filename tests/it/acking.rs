//! Acks: a read cursor that only grows, up to the newest message.

use serde_json::json;

use crate::support::{fresh, shared_server};

#[test]
fn any_message_up_to_the_newest_can_be_acknowledged_in_any_order() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for _ in 0..5 {
        alice.with(&bob.user).send("m");
    }
    for index in [3, 5, 1, 0, 5, 2] {
        bob.with(&alice.user).ack(index);
    }
    // The sender's own need none, and may.
    alice.with(&bob.user).ack(5);
}

#[test]
fn beyond_the_newest_is_20001() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let ack = |index: u32| json!({"msg_index": index});
    bob.with(&alice.user).call("ack", &ack(1)).assert_error(404, 20001);
    alice.with(&bob.user).send("m");
    bob.with(&alice.user).call("ack", &ack(2)).assert_error(404, 20001);
    bob.with(&alice.user).ack(1);
    bob.with(&alice.user).call("ack", &ack(u32::MAX)).assert_error(404, 20001);
}

#[test]
fn zero_is_a_success_even_where_nothing_was_said() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).ack(0);
    assert_eq!(alice.with(&bob.user).send("first").msg_index, 1);
}

#[test]
fn an_ack_leaves_messages_and_recalls_as_they_are() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.create_group(&group, &[&bob.user]);
    for (mine, theirs) in
        [(alice.with(&bob.user), bob.with(&alice.user)), (alice.group(&group), bob.group(&group))]
    {
        mine.send("one");
        mine.send("two");
        mine.recall(1);
        let before = mine.beginning();
        theirs.ack(2);
        theirs.ack(1);
        assert_eq!(mine.beginning(), before);
        assert_eq!(mine.send("three").msg_index, 3);
    }
}
