//! The verbs across conversations, over HTTP: list, sync, acks, signal, online.

use serde_json::{Value, json};

use crate::support::{Client, fresh, protobuf, shared_server};

#[track_caller]
fn call(client: &Client, verb: &str, body: &Value) -> Value {
    client.call(&format!("/im.chat/{verb}"), body).ok()
}

#[test]
fn a_list_has_every_conversation_newest_first_and_page_by_page() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    let friends: Vec<_> = (0..5).map(|_| server.client(&fresh("friend"))).collect();
    for friend in &friends {
        friend.with(&alice.user).send("hello");
    }
    friends[1].with(&alice.user).send("again");
    alice.with(&friends[0].user).ack(1);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = call(&alice, "list", &json!({"cursor": cursor, "count": 2}));
        assert_eq!(page["total_unread"], 5, "{page}");
        for chat in page["chats"].as_array().expect("chats") {
            assert_eq!(chat["last"]["sender"], chat["target"], "{chat}");
            assert!(chat["timestamp_ns"].is_string(), "{chat}");
            seen.push((chat["target"].clone(), chat["unread"].as_u64().expect("a number")));
        }
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    let expected = [(1, 2), (4, 1), (3, 1), (2, 1), (0, 0)]
        .map(|(place, unread)| (json!(friends[place as usize].user), unread));
    assert_eq!(seen, expected);
    alice.call("/im.chat/list", &json!({"count": 201})).assert_error_naming(400, 10001, &["count", "200"]);
    alice.call("/im.chat/list", &json!({"cursor": "nonsense!"})).assert_error(400, 10001);
}

#[test]
fn a_sync_has_only_what_moved_past_the_cursors() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let carol = server.client(&fresh("carol"));
    for text in ["1", "2", "3"] {
        bob.with(&alice.user).send(text);
    }
    bob.with(&alice.user).recall(1);
    carol.with(&alice.user).send("first");
    carol.with(&alice.user).send("second");
    let cursor = |client: &Client, msg: u32, recall: u32| json!({"target": client.user, "target_type": "user", "msg_index": msg, "recall_index": recall});
    let synced = call(&alice, "sync", &json!({"cursors": [cursor(&bob, 2, 0), cursor(&carol, 2, 0)]}));
    let chats = synced["chats"].as_array().expect("chats");
    assert_eq!(chats.len(), 1, "{synced}");
    assert_eq!(chats[0]["msgs"].as_array().map(Vec::len), Some(1), "{synced}");
    assert_eq!((&chats[0]["recalls"], &chats[0]["more"]), (&json!({"1": 1}), &json!(false)), "{synced}");
    assert_eq!((&chats[0]["max_msg_index"], &chats[0]["unread"]), (&json!(3), &json!(2)), "{synced}");
    // Nothing named: everything, from its newest message.
    let synced = call(&alice, "sync", &json!({}));
    let texts: Vec<_> =
        synced["chats"].as_array().expect("chats").iter().map(|chat| &chat["msgs"][0]["msg"]).collect();
    assert_eq!(texts, [&json!("second"), &json!("3")], "{synced}");
    // It waits for what comes.
    let all = json!({"cursors": [cursor(&bob, 3, 1), cursor(&carol, 2, 0)], "wait_ms": 20_000});
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(&alice, "sync", &all));
        carol.with(&alice.user).send("third");
        let synced = waiting.join().expect("a sync");
        assert_eq!(synced["chats"][0]["msgs"][0]["msg"], "third", "{synced}");
    });
    let form =
        alice.post("/im.chat/sync", &[("Content-Type", "application/x-www-form-urlencoded")], b"cursors=a");
    form.expect("a reply").assert_error_naming(400, 10001, &["cursors", "form", "protobuf"]);
}

#[test]
fn read_cursors_of_everybody_are_told() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("1");
    alice.with(&bob.user).send("2");
    bob.with(&alice.user).ack(1);
    let acks = alice.with(&bob.user).call("acks", &json!({})).ok();
    assert_eq!(acks, json!({"acks": {alice.user.as_str(): 2, bob.user.as_str(): 1}}));
    let group = json!({"target": fresh("group"), "target_type": "group"});
    alice.call("/im.chat/acks", &group).assert_error(404, 22002);
}

#[test]
fn who_shares_a_conversation_sees_who_is_online() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let stranger = server.client(&fresh("stranger"));
    let (_of_bob, _of_stranger) = (bob.stream(), stranger.stream());
    bob.with(&alice.user).send("hi");
    let asked = json!({"user_ids": [bob.user, stranger.user, "nobody"]});
    let online = call(&alice, "online", &asked);
    assert_eq!(online["online"][&bob.user], true, "{online}");
    assert_eq!(online["online"][&stranger.user], false, "{online}");
    assert_eq!(online["online"]["nobody"], false, "{online}");
    let many: Vec<_> = (0..1001).map(|number| number.to_string()).collect();
    alice.call("/im.chat/online", &json!({"user_ids": many})).assert_error_naming(400, 10001, &["1000"]);
}

#[test]
fn signals_have_limits_and_reach_members_only() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("hi");
    let mut stream = bob.stream();
    let signal = |fields: Value| alice.with(&bob.user).call("signal", &fields);
    signal(json!({"kind": "typing", "data": "x".repeat(1024)})).ok();
    assert_eq!(stream.event_of("signal")["content"]["data"], "x".repeat(1024));
    signal(json!({"kind": "typing", "data": "x".repeat(1025)})).assert_error_naming(
        400,
        10001,
        &["data", "1024"],
    );
    signal(json!({"kind": ""})).assert_error_naming(400, 10001, &["kind"]);
    signal(json!({"kind": "typing", "data": 5})).ok();
    assert_eq!(
        stream.event_of("signal")["content"],
        json!({"user": alice.user, "kind": "typing", "data": 5})
    );
    let form = format!("target={}&target_type=user&kind=k&data=text", bob.user);
    let form = alice.post(
        "/im.chat/signal",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        form.as_bytes(),
    );
    form.expect("a reply").ok();
    assert_eq!(stream.event_of("signal")["content"]["data"], "text");
    let group = fresh("group");
    bob.create_group(&group, &[]);
    alice.group(&group).call("signal", &json!({"kind": "typing"})).assert_error(403, 10008);
}

#[test]
fn replies_are_protobuf_for_whoever_accepts_it() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    bob.with(&alice.user).send("hi");
    let headers = [("Content-Type", "application/json"), ("Accept", "application/x-protobuf")];
    let reply = alice.post(
        "/im.chat/acks",
        &headers,
        json!({"target": bob.user, "target_type": "user"}).to_string().as_bytes(),
    );
    let reply = reply.expect("a reply");
    assert_eq!(reply.header("content-type"), Some("application/x-protobuf"));
    let reply: protobuf::AcksResp = prost::Message::decode(reply.body.as_slice()).expect("protobuf");
    assert_eq!(reply.acks.get(&bob.user), Some(&1));
}
