//! Blocks: what a blocked user cannot do, what nobody sees of it, and that it lasts.

use std::fmt::Write as _;

use prost::Message;
use serde_json::{Value, json};

use crate::support::protobuf::{BlockReq, BlocksResp, ListReq, MEDIA_TYPE};
use crate::support::{Client, Process, TestServer, chinwag, fresh, shared_server};

const FORM: &str = "application/x-www-form-urlencoded";
/// Most users that one user blocks, as the README says.
const BLOCKS_MAX: usize = 10_000;

fn relate(client: &Client, verb: &str, user: &str) {
    let answer = client.call(&format!("/im.relation/{verb}"), &json!({"user_id": user})).ok();
    assert_eq!(answer, json!({}), "{verb}");
}

fn blocks(client: &Client) -> Value {
    let answer = client.call("/im.relation/blocks", &json!({})).ok();
    assert_eq!(answer["cursor"], "", "one page");
    answer["user_ids"].clone()
}

#[track_caller]
fn assert_blocked(client: &Client, by: &str) {
    client.with(by).call("send", &json!({"msg": "m"})).assert_error(403, 10008);
}

#[test]
fn what_a_blocked_user_sends_is_refused_and_nothing_else_changes() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    bob.with(&alice.user).send_named("before", "before");
    relate(&alice, "block", &bob.user);
    relate(&alice, "block", &bob.user);
    assert_eq!((blocks(&alice), blocks(&bob)), (json!([bob.user]), json!([])));
    assert_blocked(&bob, &alice.user);
    assert!(bob.with(&alice.user).send_named("before", "before").duplicate, "it was stored before");
    // One-directional, and about what is sent only.
    assert_eq!(alice.with(&bob.user).send("from alice").msg_index, 2);
    assert_eq!(bob.with(&alice.user).beginning().texts(), ["before", "from alice"]);
    bob.with(&alice.user).ack(2);
    assert_eq!(bob.with(&alice.user).recall(1), 1);
    let group = fresh("group");
    alice.create_group(&group, &[&bob.user]);
    assert_eq!(bob.group(&group).send("in a group").msg_index, 1);
    relate(&alice, "unblock", &bob.user);
    relate(&alice, "unblock", &bob.user);
    assert_eq!(blocks(&alice), json!([]));
    assert_eq!(bob.with(&alice.user).send("again").msg_index, 3);
}

#[test]
fn a_block_of_a_stranger_holds_and_nobody_sees_it() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut streams = [alice.stream(), bob.stream()];
    relate(&alice, "block", &bob.user);
    assert_blocked(&bob, &alice.user);
    for (client, other) in [(&alice, &bob), (&bob, &alice)] {
        assert_eq!(client.call("/im.chat/list", &json!({})).ok()["chats"], json!([]));
        assert_eq!(client.call("/im.chat/sync", &json!({})).ok()["chats"], json!([]));
        assert_eq!(client.stream().hello["chats"], json!([]));
        assert_eq!(client.with(&other.user).call("acks", &json!({})).ok(), json!({"acks": {}}));
        let page = client.with(&other.user).beginning();
        assert_eq!((page.msgs.len(), page.max_msg_index, page.min_msg_index), (0, 0, 1));
        client.with(&other.user).call("ack", &json!({"msg_index": 1})).assert_error(404, 20001);
    }
    let typing = json!({"target": alice.user, "target_type": "user", "kind": "typing"});
    bob.call("/im.chat/signal", &typing).assert_error(403, 10008);
    streams.iter_mut().for_each(crate::support::Stream::assert_quiet);
    // The first message makes the conversation, as always; the block is still there.
    assert_eq!(alice.with(&bob.user).send("first").msg_index, 1);
    for stream in &mut streams {
        assert_eq!(stream.event_of("msg")["content"]["msg"], "first");
        stream.assert_quiet();
    }
    assert_blocked(&bob, &alice.user);
    let list = alice.call("/im.chat/list", &json!({})).ok();
    assert_eq!(
        (list["chats"][0]["msg_index"].clone(), list["chats"][0]["unread"].clone()),
        (1.into(), 0.into())
    );
    assert_eq!(blocks(&alice), json!([bob.user]));
}

#[test]
fn a_blocked_user_reaches_nobody_with_signals_and_sees_nobody_online() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let group = fresh("group");
    alice.with(&bob.user).send("hello");
    alice.create_group(&group, &[&bob.user]);
    let (mut of_alice, _of_bob) = (alice.stream(), bob.stream());
    let sees = |who: &Client, whom: &Client| {
        who.call("/im.chat/online", &json!({"user_ids": [whom.user]})).ok()["online"][&whom.user].clone()
    };
    assert_eq!((sees(&bob, &alice), sees(&alice, &bob)), (json!(true), json!(true)));
    relate(&alice, "block", &bob.user);
    assert_eq!((sees(&bob, &alice), sees(&alice, &bob)), (json!(false), json!(true)));
    let typing = |target: &str| json!({"target": target, "target_type": "user", "kind": "typing"});
    bob.call("/im.chat/signal", &typing(&alice.user)).assert_error(403, 10008);
    of_alice.assert_quiet();
    alice.call("/im.chat/signal", &typing(&bob.user)).ok();
    assert_eq!(of_alice.event_of("signal")["content"]["user"], alice.user);
    relate(&alice, "unblock", &bob.user);
    assert_eq!(sees(&bob, &alice), json!(true));
    bob.call("/im.chat/signal", &typing(&alice.user)).ok();
    assert_eq!(of_alice.event_of("signal")["content"]["user"], bob.user);
}

#[test]
fn both_may_block_each_other_and_each_ends_only_their_own() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    relate(&alice, "block", &bob.user);
    relate(&bob, "block", &alice.user);
    assert_blocked(&bob, &alice.user);
    assert_blocked(&alice, &bob.user);
    relate(&bob, "unblock", &alice.user);
    assert_blocked(&bob, &alice.user);
    assert_eq!(alice.with(&bob.user).send("m").msg_index, 1);
    assert_eq!((blocks(&alice), blocks(&bob)), (json!([bob.user]), json!([])));
}

#[test]
fn what_names_nobody_is_refused() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    for verb in ["block", "unblock"] {
        for user in
            [json!(alice.user), json!(""), json!(null), json!("a\nb"), json!("u".repeat(129)), json!(7)]
        {
            let reply = alice.call(&format!("/im.relation/{verb}"), &json!({"user_id": user}));
            reply.assert_error(400, 10001);
            assert!(reply.text().contains("user_id"), "{reply:?}");
        }
        alice.call(&format!("/im.relation/{verb}"), &json!({})).assert_error(400, 10001);
    }
    for body in [json!({"count": 1001}), json!({"cursor": "\u{7f}"}), json!({"cursor": "c".repeat(129)})] {
        alice.call("/im.relation/blocks", &body).assert_error(400, 10001);
    }
    alice.call("/im.relation/list", &json!({})).assert_error(404, 10001);
    assert_eq!(blocks(&alice), json!([]));
    relate(&alice, "unblock", &fresh("a stranger"));
    let anybody = server.exchange(crate::support::request("POST", "/im.relation/blocks", &[], b"{}"));
    assert_eq!(anybody.status, 401);
}

#[test]
fn the_verbs_work_over_a_websocket_as_forms_and_in_protobuf() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut stream = alice.stream();
    assert_eq!(stream.call("relation.block", &json!({"userId": bob.user})), json!({}));
    assert_blocked(&bob, &alice.user);
    let expected = json!({"user_ids": [bob.user], "cursor": ""});
    assert_eq!(stream.call("im.relation/blocks", &json!({})), expected);
    assert_eq!(stream.call("im.relation/unblock", &json!({"user_id": bob.user})), json!({}));
    assert_eq!(stream.refused("relation.block", &json!({"user_id": alice.user})), 10001);
    assert_eq!(stream.refused("relation.list", &json!({})), 10001);

    let form = |verb: &str| {
        let body = format!("user_id={}", bob.user);
        let path = format!("/im.relation/{verb}");
        alice.post(&path, &[("Content-Type", FORM)], body.as_bytes()).expect("a reply").ok()
    };
    assert_eq!(form("block"), json!({}));
    assert_blocked(&bob, &alice.user);
    assert_eq!(form("unblock"), json!({}));

    let protobuf = |verb: &str, body: Vec<u8>| {
        let headers = [("Content-Type", MEDIA_TYPE), ("Accept", MEDIA_TYPE)];
        let reply = alice.post(&format!("/im.relation/{verb}"), &headers, &body).expect("a reply");
        assert_eq!(reply.status, 200, "{verb}");
        reply.body
    };
    let user = BlockReq { user_id: bob.user.clone() }.encode_to_vec();
    assert!(protobuf("block", user.clone()).is_empty());
    let listed = protobuf("blocks", ListReq { cursor: String::new(), count: 5 }.encode_to_vec());
    let listed = BlocksResp::decode(listed.as_slice()).expect("protobuf");
    assert_eq!((listed.user_ids, listed.cursor.as_str()), (vec![bob.user.clone()], ""));
    assert!(protobuf("unblock", user).is_empty());
    assert_eq!(bob.with(&alice.user).send("m").msg_index, 1);
    for verb in ["block", "unblock", "blocks"] {
        let series = format!("chinwag_requests_total{{verb=\"relation_{verb}\",code=\"0\"}}");
        assert!(server.metric(&series).is_some_and(|count| count >= 1.0), "{series}");
    }
}

/// What there is of the blocks of this test.
fn shown(server: &TestServer) -> Value {
    let alice = server.client("alice");
    let refused = ["bob", "carol", "dave"]
        .map(|user| server.client(user).with("alice").call("send", &json!({"msg": "m"})).status);
    json!([
        blocks(&alice),
        blocks(&server.client("bob")),
        refused,
        alice.call("/im.chat/list", &json!({})).ok()
    ])
}

#[test]
fn blocks_survive_crashes_checkpoints_compaction_backup_and_a_move() {
    let mut server = TestServer::start();
    let alice = server.client("alice");
    alice.with("bob").send("a conversation");
    for user in ["bob", "carol", "dave", "erin"] {
        relate(&alice, "block", user);
    }
    relate(&alice, "unblock", "erin");
    relate(&server.client("bob"), "block", "alice");
    let snapshot = |server: &TestServer, body: Value| {
        server.operator().call("/im.admin/snapshot", &body).ok();
    };
    let before = shown(&server);
    assert_eq!(before[0], json!(["bob", "carol", "dave"]));
    assert_eq!((&before[1], &before[2]), (&json!(["alice"]), &json!([403, 403, 403])));
    assert_eq!(before[3]["chats"].as_array().map(Vec::len), Some(1));
    server.kill();
    server.start_again();
    assert_eq!(server.ready().conversations, 1, "a block is no conversation");
    assert_eq!(shown(&server), before);
    snapshot(&server, json!({}));
    server.kill();
    server.start_again();
    assert_eq!(server.ready().conversations, 1);
    assert_eq!(shown(&server), before);
    relate(&server.client("alice"), "unblock", "dave");
    snapshot(&server, json!({"compact": true}));
    server.kill();
    server.start_again();
    assert_eq!(blocks(&server.client("alice")), json!(["bob", "carol"]));
    assert_eq!(server.client("dave").with("alice").send("again").msg_index, 1);
    relate(&server.client("alice"), "block", "dave");
    let after = shown(&server);
    server.stop();
    let data = server.data().to_str().expect("UTF-8").to_owned();
    let run = |arguments: &[&str]| {
        let finished = Process::run(chinwag(arguments));
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        finished.stdout.join("\n") + "\n"
    };
    run(&["verify", &data]);
    let exported = run(&["export", &data]);
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("UTF-8").to_owned();
    let (lines, imported, copy, restored) = (path("lines"), path("imported"), path("copy"), path("restored"));
    std::fs::write(&lines, &exported).expect("written");
    run(&["import", &imported, "--in", &lines]);
    run(&["backup", "--data", &data, "--to", &copy]);
    run(&["restore", &copy, "--data", &restored]);
    for other in [&imported, &restored] {
        run(&["verify", other]);
        assert_eq!(run(&["export", other]), exported);
    }
    server.start_again();
    assert_eq!(shown(&server), after);
}

#[test]
fn blocks_come_in_pages_and_there_is_a_most() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("UTF-8").to_owned();
    let lines = path("lines");
    let mut text = String::new();
    for number in 0..BLOCKS_MAX {
        let line = json!({"type": "conversation", "version": 1, "users": ["alice", format!("user {number:05}")],
            "messages": 0, "recalls": 0, "last_timestamp_ns": "1", "blocked_by": ["alice"], "participants": []});
        writeln!(text, "{line}").expect("a String takes it");
    }
    std::fs::write(&lines, text).expect("written");
    let mut server = TestServer::start();
    server.stop();
    let imported = Process::run(chinwag(&["import", server.data().to_str().expect("UTF-8"), "--in", &lines]));
    assert_eq!(imported.code(), Some(0), "{imported:?}");
    server.start_again();
    assert_eq!(server.ready().conversations, 0);
    let alice = server.client("alice");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = alice.call("/im.relation/blocks", &json!({"count": 1000, "cursor": cursor})).ok();
        let ids = page["user_ids"].as_array().expect("ids").iter();
        seen.extend(ids.map(|id| id.as_str().expect("an id").to_owned()));
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), BLOCKS_MAX);
    assert!(seen.is_sorted_by(|one, next| one < next));
    assert_eq!(
        alice.call("/im.relation/blocks", &json!({})).ok()["user_ids"].as_array().map(Vec::len),
        Some(100)
    );
    let refused = alice.call("/im.relation/block", &json!({"user_id": "one too many"}));
    refused.assert_error(400, 10001);
    assert!(refused.text().contains("10000"), "{refused:?}");
    relate(&alice, "block", "user 00007");
    relate(&alice, "unblock", "user 00007");
    relate(&alice, "block", "one that fits");
    alice.call("/im.relation/block", &json!({"user_id": "user 00007"})).assert_error(400, 10001);
    assert_blocked(&server.client("user 09999"), "alice");
}
