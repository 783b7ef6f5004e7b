//! The same page pulled again and again, which the server may keep as it wrote it: it shows what a pull in another
//! encoding shows, whatever happened in between.

use prost::Message as _;
use serde_json::{Value, json};

use crate::support::protobuf::{MEDIA_TYPE, MsgInfo, PullResp};
use crate::support::{Chat, Client, Page, TestServer, fresh, shared_server};

/// Long enough that a page of few is worth keeping.
fn text(number: u32) -> String {
    format!("text {number};").repeat(60)
}

fn newest(count: u32) -> Value {
    json!({"direction": "before", "start_msg_index": 1000, "start_recall_index": 1000, "count": count})
}

fn oldest(count: u32) -> Value {
    json!({"direction": "after", "start_msg_index": 1, "start_recall_index": 1, "count": count})
}

/// The same in protobuf, which is never kept.
fn pull_protobuf(client: &Client, chat: &Chat<'_>, fields: &Value) -> PullResp {
    let headers = [("Content-Type", "application/json"), ("Accept", MEDIA_TYPE)];
    let body = chat.body(fields).to_string();
    let reply = client.post("/im.chat/pull", &headers, body.as_bytes()).expect("a reply");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(MEDIA_TYPE)));
    PullResp::decode(reply.body.as_slice()).expect("protobuf")
}

fn as_protobuf(page: Page) -> PullResp {
    let msgs = page.msgs.into_iter().map(|msg| MsgInfo {
        msg_index: msg.msg_index,
        recall_index: msg.recall_index,
        msg: msg.msg,
        extra: msg.extra,
        timestamp: msg.timestamp,
        sender: msg.sender,
        target: msg.target,
        target_type: msg.target_type,
    });
    PullResp {
        msgs: msgs.collect(),
        recalls: page.recalls,
        max_msg_index: page.max_msg_index,
        max_recall_index: page.max_recall_index,
        min_msg_index: page.min_msg_index,
        epoch: page.epoch,
    }
}

/// Pulls until the page is kept, and once more; each time it is as it should be.
#[track_caller]
fn pull_again(client: &Client, chat: &Chat<'_>, fields: &Value) -> PullResp {
    let expected = pull_protobuf(client, chat, fields);
    for _ in 0..4 {
        assert_eq!(as_protobuf(chat.pull(fields)), expected, "{fields}");
    }
    expected
}

/// What everybody sees, who is in a conversation as `chats` has it, in pages of several kinds.
#[track_caller]
fn check(readers: &[(&Client, Chat<'_>)], messages: u32, recalled: &[u32]) {
    for fields in [newest(50), newest(3), oldest(50), oldest(4)] {
        for (client, chat) in readers {
            let page = pull_again(client, chat, &fields);
            assert_eq!((page.max_msg_index, page.max_recall_index), (messages, recalled.len() as u32));
            for msg in page.msgs {
                let is_recalled = recalled.contains(&msg.msg_index);
                assert_eq!(msg.msg.is_empty(), is_recalled, "message {}", msg.msg_index);
                assert_eq!(msg.recall_index != 0, is_recalled);
            }
        }
    }
}

/// Sends, recalls and sends, while everybody in the conversation has pulled everything before.
fn live_through(readers: &[(&Client, Chat<'_>)]) {
    let (_, sender) = &readers[0];
    (1..=12).for_each(|number| drop(sender.send(&text(number))));
    check(readers, 12, &[]);
    sender.recall(11);
    check(readers, 12, &[11]);
    sender.send(&text(13));
    check(readers, 13, &[11]);
    sender.recall(2);
    sender.recall(13);
    check(readers, 13, &[11, 2, 13]);
    sender.send(&text(14));
    sender.recall(1);
    check(readers, 14, &[11, 2, 13, 1]);
}

#[test]
fn both_of_a_direct_conversation_see_it_as_each_addresses_it() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    live_through(&[(&alice, alice.with(&bob.user)), (&bob, bob.with(&alice.user))]);
    let seen_by = |client: &Client, other: &Client| {
        let page = pull_again(client, &client.with(&other.user), &newest(50));
        page.msgs.into_iter().map(|msg| msg.target).collect::<Vec<_>>()
    };
    assert_eq!(seen_by(&alice, &bob), vec![bob.user.clone(); 14]);
    assert_eq!(seen_by(&bob, &alice), vec![alice.user.clone(); 14]);
}

#[test]
fn saved_messages_have_one_reader() {
    let server = shared_server();
    let (alice, _) = server.strangers();
    live_through(&[(&alice, alice.with(&alice.user))]);
}

#[test]
fn all_members_of_a_group_see_it_alike() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.create_group(&group, &[&bob.user]);
    live_through(&[(&alice, alice.group(&group)), (&bob, bob.group(&group))]);
}

#[test]
fn who_came_later_or_is_out_gets_nothing_of_what_others_pulled() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let late = server.client(&fresh("late"));
    let group = fresh("group");
    alice.create_group(&group, &[&bob.user]);
    (1..=8).for_each(|number| drop(alice.group(&group).send(&text(number))));
    let members = |users: &[&str]| json!({"group_id": group, "user_ids": users});
    alice.group_call("add", &members(&[&late.user]));
    (9..=12).for_each(|number| drop(alice.group(&group).send(&text(number))));

    // The same four newest for everybody, and the whole for who was there.
    for (client, min_msg_index, messages) in [(&alice, 1, 12), (&late, 9, 4), (&bob, 1, 12), (&late, 9, 4)] {
        for (fields, count) in [(newest(4), 4), (newest(50), messages), (oldest(50), messages)] {
            let page = pull_again(client, &client.group(&group), &fields);
            assert_eq!((page.msgs.len(), page.min_msg_index), (count, min_msg_index), "{fields}");
        }
    }
    alice.group_call("kick", &members(&[&bob.user]));
    assert_eq!(pull_again(&alice, &alice.group(&group), &oldest(50)).msgs.len(), 12);
    bob.group(&group).call("pull", &oldest(50)).assert_error(403, 10008);
    late.with(&alice.user).send("another conversation");
    assert_eq!(pull_again(&late, &late.with(&alice.user), &oldest(50)).msgs.len(), 1);
}

#[test]
fn a_restart_and_retention_change_what_is_shown_at_once() {
    let mut server = TestServer::start();
    let sent = |server: &TestServer, from: u32, to: u32| {
        let alice = server.client("alice");
        (from..=to).for_each(|number| drop(alice.with("bob").send(&text(number))));
    };
    let seen = |server: &TestServer, fields: &Value| {
        let bob = server.client("bob");
        let page = pull_again(&bob, &bob.with("alice"), fields);
        (page.msgs.len(), page.min_msg_index)
    };
    sent(&server, 1, 20);
    assert_eq!(seen(&server, &newest(50)), (20, 1));
    server.kill();
    server.start_again();
    assert_eq!(seen(&server, &newest(50)), (20, 1));
    server.stop();
    server.arrange(&["--retain-count", "10"]);
    server.start_again();
    assert_eq!(seen(&server, &newest(50)), (10, 11));
    sent(&server, 21, 22);
    assert_eq!(seen(&server, &newest(50)), (10, 13));
}

#[test]
fn a_pull_that_waits_waits_behind_a_page_that_is_kept() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    (1..=4).for_each(|number| drop(alice.with(&bob.user).send(&text(number))));
    let chat = bob.with(&alice.user);
    pull_again(&bob, &chat, &oldest(50));
    let after = |start: u32, wait_ms: u32| json!({"start_msg_index": start, "wait_ms": wait_ms});
    assert_eq!(chat.pull(&after(1, 30_000)).indices(), [1, 2, 3, 4], "at once: it is not empty");
    assert_eq!(chat.pull(&after(5, 50)).indices(), [0; 0], "when the time is over");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| chat.pull(&after(5, 30_000)).indices());
        alice.with(&bob.user).send(&text(5));
        assert_eq!(waiting.join().expect("a page"), [5]);
    });
}
