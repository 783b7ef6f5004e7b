//! Rules of fields: every refusal names the field and the limit, and nothing has changed.

use serde_json::{Value, json};

use crate::support::{Reply, fresh, shared_server};

/// A body for each of the four calls that works once there is a message.
fn good(target: &str) -> [(&'static str, Value); 4] {
    let at = |fields: Value| {
        let mut body = json!({"target": target, "target_type": "user"});
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        body
    };
    [
        ("send", at(json!({"msg": "m"}))),
        ("recall", at(json!({"msg_index": 1}))),
        ("ack", at(json!({"msg_index": 1}))),
        ("pull", at(json!({"direction": "after", "start_msg_index": 1, "count": 1}))),
    ]
}

#[test]
fn a_bad_target_is_named_by_every_call() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("m");
    for (verb, body) in good(&bob.user) {
        for (bad, limit) in [
            (json!(""), ""),
            (Value::Null, ""),
            (json!("x".repeat(129)), "128"),
            (json!("é".repeat(65)), "128"),
            (json!("a\nb"), "control"),
            (json!("a\u{0}"), "control"),
            (json!("a\u{9f}"), "control"),
            (json!(7), ""),
        ] {
            let mut body = body.clone();
            body["target"] = bad;
            refused(&alice.call(&format!("/im.chat/{verb}"), &body), &["target", limit]);
        }
        let mut body = body;
        body.as_object_mut().expect("an object").remove("target");
        refused(&alice.call(&format!("/im.chat/{verb}"), &body), &["target"]);
    }
}

#[track_caller]
fn refused(reply: &Reply, parts: &[&str]) {
    reply.assert_error_naming(400, 10001, parts);
}

#[test]
fn a_bad_target_type_is_named_with_what_it_may_be() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for (verb, body) in good(&bob.user) {
        for bad in [
            json!(""),
            Value::Null,
            json!("User"),
            json!("users"),
            json!("user "),
            json!("channel"),
            json!(1),
        ] {
            let mut body = body.clone();
            body["target_type"] = bad.clone();
            let parts =
                if bad.is_number() { &["target_type"][..] } else { &["target_type", "user", "group"] };
            refused(&alice.call(&format!("/im.chat/{verb}"), &body), parts);
        }
    }
}

#[test]
fn an_empty_text_is_no_message() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for fields in
        [json!({}), json!({"msg": ""}), json!({"msg": null}), json!({"msg": "", "extra": "only this"})]
    {
        refused(&alice.with(&bob.user).call("send", &fields), &["msg"]);
    }
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0);
}

#[test]
fn a_bad_direction_is_named_with_what_it_may_be() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for bad in [json!(""), Value::Null, json!("After"), json!("up"), json!("after ")] {
        let fields = json!({"direction": bad, "start_msg_index": 1, "count": 1});
        refused(&alice.with(&bob.user).call("pull", &fields), &["direction", "before", "after"]);
    }
}

#[test]
fn the_first_mistake_is_enough_and_nothing_is_stored() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    chat.send("one");
    for fields in [
        json!({"msg": "two", "client_msg_id": "x".repeat(65)}),
        json!({"msg": "two", "extra": 1}),
        json!({"msg": "two", "target_type": "nobody"}),
    ] {
        let mut body = chat.body(&json!({}));
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        refused(&alice.call("/im.chat/send", &body), &[]);
    }
    let page = chat.beginning();
    assert_eq!((page.max_msg_index, page.max_recall_index), (1, 0));
    assert_eq!(chat.send("two").msg_index, 2, "no index was used up");
}

#[test]
fn group_fields_are_checked_and_named() {
    let server = shared_server();
    let owner = server.client(&fresh("owner"));
    let group = fresh("group");
    owner.create_group(&group, &[]);
    let long = "x".repeat(129);
    let call = |verb: &str, body: Value| owner.call(&format!("/im.group/{verb}"), &body);
    for verb in ["info", "members", "add", "kick", "leave"] {
        let body = |id: Value| json!({"group_id": id, "user_ids": ["someone"]});
        for id in [json!(""), Value::Null, json!(long), json!("a\nb")] {
            refused(&call(verb, body(id)), &["group_id"]);
        }
    }
    refused(&call("create", json!({"group_id": long, "name": "n"})), &["group_id", "128"]);
    refused(&call("create", json!({"group_id": fresh("g"), "name": "x".repeat(257)})), &["name", "256"]);
    for bad in [json!([""]), json!([long]), json!(["a\nb"]), json!([null]), json!([1]), json!(7)] {
        refused(&call("create", json!({"name": "n", "members": bad})), &["members"]);
        refused(&call("add", json!({"group_id": group, "user_ids": bad})), &["user_ids"]);
        refused(&call("kick", json!({"group_id": group, "user_ids": bad})), &["user_ids"]);
    }
    refused(&call("members", json!({"group_id": group, "count": 100_000})), &["count"]);
    refused(&call("members", json!({"group_id": group, "cursor": "not a cursor"})), &["cursor"]);
    assert_eq!(owner.group_call("info", &json!({"group_id": group}))["members_count"], 1);
}
