//! Pulls that wait: what wakes them, what does not, and when they end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Chat, Client, Connection, LATEST, Page, TestServer, fresh, shared_server};

/// A pull on its way, which waits far longer than a test may take.
fn begin(server: &TestServer, client: &Client, chat: &Chat<'_>, fields: &Value) -> Connection {
    let mut all = json!({"direction": "after", "count": 50, "wait_ms": 30_000});
    for (name, value) in fields.as_object().expect("fields") {
        all[name] = value.clone();
    }
    let body = chat.body(&all).to_string();
    let mut connection = server.connect();
    connection.write(client.request("/im.chat/pull", &[], body.as_bytes())).expect("the server reads");
    // Calls that come later and are answered: by now the pull is waiting.
    for _ in 0..5 {
        chat.call("pull", &json!({"direction": "after", "count": 1})).ok();
    }
    connection
}

fn page(mut connection: Connection) -> Page {
    serde_json::from_value(connection.read_reply().expect("a reply").ok()).expect("a page")
}

/// Pulls and gives how long it took.
fn timed(chat: &Chat<'_>, fields: &Value) -> (Page, Duration) {
    let started = Instant::now();
    let page = chat.pull(fields);
    (page, started.elapsed())
}

#[test]
fn a_send_by_the_other_side_wakes_it() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("one");
    let chat = bob.with(&alice.user);
    let waiting = begin(&server, &bob, &chat, &json!({"start_msg_index": 2}));
    let sent = Instant::now();
    alice.with(&bob.user).send("two");
    assert_eq!(page(waiting).texts(), ["two"]);
    assert!(sent.elapsed() < LATEST, "woken after {:?}", sent.elapsed());
}

#[test]
fn a_conversation_that_begins_wakes_it() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = bob.with(&alice.user);
    let waiting = begin(&server, &bob, &chat, &json!({"start_msg_index": 1}));
    alice.with(&bob.user).send("the very first");
    assert_eq!(page(waiting).texts(), ["the very first"]);
}

#[test]
fn who_is_put_out_or_loses_the_group_hears_so_at_once() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for (verb, fields, status, code) in
        [("kick", json!({"user_ids": [bob.user]}), 403, 10008), ("dismiss", json!({}), 404, 22002)]
    {
        let group = fresh("group");
        alice.create_group(&group, &[&bob.user]);
        let chat = bob.group(&group);
        let mut waiting = begin(&server, &bob, &chat, &json!({"start_msg_index": 1}));
        let mut fields = fields;
        fields["group_id"] = json!(group);
        let changed = Instant::now();
        alice.group_call(verb, &fields);
        waiting.read_reply().expect("a reply").assert_error(status, code);
        assert!(changed.elapsed() < LATEST, "told after {:?} of {verb}", changed.elapsed());
    }
}

#[test]
fn a_recall_wakes_who_waits_for_recalls() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("one");
    let chat = bob.with(&alice.user);
    let waiting = begin(&server, &bob, &chat, &json!({"start_msg_index": 2, "start_recall_index": 1}));
    alice.with(&bob.user).recall(1);
    let woken = page(waiting);
    assert_eq!((woken.msgs.len(), woken.recalls.into_iter().collect::<Vec<_>>()), (0, vec![(1, 1)]));
}

#[test]
fn everybody_who_waits_is_woken() {
    let server = shared_server();
    let owner = server.client(&fresh("owner"));
    let group = fresh("group");
    let members: Vec<_> = (0..10).map(|_| server.client(&fresh("member"))).collect();
    owner.create_group(&group, &members.iter().map(|member| member.user.as_str()).collect::<Vec<_>>());
    let from = json!({"start_msg_index": 1});
    let waiting: Vec<_> =
        members.iter().map(|member| begin(&server, member, &member.group(&group), &from)).collect();
    owner.group(&group).send("all of you");
    for connection in waiting {
        assert_eq!(page(connection).texts(), ["all of you"]);
    }
}

#[test]
fn what_would_still_be_empty_does_not_wake_it() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = bob.with(&alice.user);
    let waiting = begin(&server, &bob, &chat, &json!({"start_msg_index": 3}));
    alice.with(&bob.user).send("one");
    alice.with(&bob.user).send("two");
    alice.with(&bob.user).recall(1);
    bob.with(&alice.user).ack(2);
    alice.with(&fresh("carol")).send("elsewhere");
    alice.with(&bob.user).send("three");
    let woken = page(waiting);
    assert_eq!((woken.texts(), woken.max_recall_index), (vec!["three"], 1));
}

#[test]
fn it_ends_empty_when_its_time_is_over() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let unknown = alice.with(&bob.user);
    let (page, took) = timed(&unknown, &json!({"start_msg_index": 1, "wait_ms": 300}));
    assert_eq!((page.msgs.len(), page.recalls.len()), (0, 0));
    assert!(took >= Duration::from_millis(295) && took < LATEST, "{took:?}");
    unknown.send("one");
    let (page, took) =
        timed(&unknown, &json!({"start_msg_index": 2, "start_recall_index": 1, "wait_ms": 300}));
    assert_eq!((page.msgs.len(), page.max_msg_index), (0, 1));
    assert!(took >= Duration::from_millis(295) && took < LATEST, "{took:?}");
}

#[test]
fn what_has_something_to_say_does_not_wait() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    chat.send("one");
    chat.recall(1);
    for fields in [
        json!({"start_msg_index": 1, "wait_ms": 30_000}),
        json!({"start_recall_index": 1, "wait_ms": 30_000}),
        json!({"start_msg_index": 2, "start_recall_index": 1, "wait_ms": 30_000}),
        // Only "after" can become fuller.
        json!({"direction": "before", "start_recall_index": 1, "wait_ms": 30_000}),
        json!({"start_msg_index": 2}),
        json!({"start_msg_index": 2, "wait_ms": 0}),
    ] {
        let (_, took) = timed(&chat, &fields);
        assert!(took < LATEST, "{fields} took {took:?}");
    }
    let nobody = alice.with(&fresh("nobody"));
    let (_, took) = timed(&nobody, &json!({"direction": "before", "start_msg_index": 1, "wait_ms": 30_000}));
    assert!(took < LATEST, "before took {took:?}");
}

#[test]
fn longer_than_30_seconds_is_refused_and_named() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    chat.send("one");
    let fields =
        |wait_ms: u32| json!({"direction": "after", "start_msg_index": 1, "count": 1, "wait_ms": wait_ms});
    chat.call("pull", &fields(30_000)).ok();
    chat.call("pull", &fields(30_001)).assert_error_naming(400, 10001, &["wait_ms", "30000"]);
}

#[test]
fn outsiders_do_not_wait() {
    let server = shared_server();
    let (owner, outsider) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[]);
    let fields = json!({"direction": "after", "start_msg_index": 1, "count": 1, "wait_ms": 30_000});
    let started = Instant::now();
    outsider.group(&group).call("pull", &fields).assert_error(403, 10008);
    outsider.group(&fresh("nothing")).call("pull", &fields).assert_error(404, 22002);
    assert!(started.elapsed() < LATEST);
}

#[test]
fn who_is_put_out_while_waiting_reads_nothing() {
    let server = shared_server();
    let (owner, member) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[&member.user]);
    let chat = member.group(&group);
    let mut waiting = begin(&server, &member, &chat, &json!({"start_msg_index": 1, "wait_ms": 1000}));
    owner.group_call("kick", &json!({"group_id": group, "user_ids": [member.user]}));
    owner.group(&group).send("now that they are gone");
    let reply = waiting.read_reply().expect("a reply");
    if reply.status == 200 {
        assert_eq!(reply.json()["msgs"], json!([]));
    } else {
        reply.assert_error(403, 10008);
    }
}

#[test]
fn a_client_that_stops_waiting_disturbs_nobody() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = bob.with(&alice.user);
    for _ in 0..20 {
        drop(begin(&server, &bob, &chat, &json!({"start_msg_index": 1})));
    }
    let waiting = begin(&server, &bob, &chat, &json!({"start_msg_index": 1}));
    alice.with(&bob.user).send("one");
    assert_eq!(page(waiting).texts(), ["one"]);
}
