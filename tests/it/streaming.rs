//! Streams: every device of everybody hears everything, once, in order; verbs work over them.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, fresh, request, shared_server};

/// How a message of `sender` looks to who addresses the conversation as `target`.
#[track_caller]
fn assert_msg(event: &Value, target: &str, index: u32, msg: &str, sender: &str) {
    assert_eq!((&event["type"], &event["target"]), (&json!("msg"), &json!(target)), "{event}");
    let content = &event["content"];
    for (field, value) in [
        ("msg_index", json!(index)),
        ("recall_index", json!(0)),
        ("msg", json!(msg)),
        ("extra", json!("")),
        ("sender", json!(sender)),
        ("target", json!(target)),
        ("target_type", event["target_type"].clone()),
    ] {
        assert_eq!(content[field], value, "{field} of {event}");
    }
    assert!(content["timestamp"].as_u64().is_some_and(|seconds| seconds > 1_600_000_000), "{event}");
}

#[test]
fn hello_says_who_and_where_everything_stands() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let stream = alice.stream();
    assert_eq!((&stream.hello["user"], &stream.hello["chats"]), (&json!(alice.user), &json!([])));
    let chat = bob.with(&alice.user);
    chat.send("one");
    chat.send("two");
    chat.send("three");
    chat.recall(2);
    alice.with(&bob.user).ack(1);
    let hello = alice.stream().hello;
    let expected = json!([{"target": bob.user, "target_type": "user", "msg_index": 3, "recall_index": 1,
        "ack_index": 1, "unread": 1}]);
    assert_eq!(hello["chats"], expected, "{hello}");
}

#[test]
fn every_device_of_both_hears_a_message_once() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut streams = [alice.stream(), alice.stream(), bob.stream(), bob.stream()];
    alice.with(&bob.user).send("hello");
    let receipt =
        streams[0].call("send", &json!({"target": bob.user, "target_type": "user", "msg": "again"}));
    assert_eq!((&receipt["msg_index"], &receipt["duplicate"]), (&json!(2), &json!(false)));
    for (place, stream) in streams.iter_mut().enumerate() {
        let target = if place < 2 { &bob.user } else { &alice.user };
        for (index, msg) in [(1, "hello"), (2, "again")] {
            assert_msg(&stream.event(), target, index, msg, &alice.user);
        }
        stream.assert_quiet();
    }
}

#[test]
fn every_kind_of_event_reaches_everybody_in_the_group() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let (carol, group) = (server.client(&fresh("carol")), fresh("group"));
    let (mut of_alice, mut of_bob, mut of_carol) = (alice.stream(), bob.stream(), carol.stream());
    alice.create_group(&group, &[&bob.user]);
    alice.group(&group).send("hi");
    bob.group(&group).ack(1);
    bob.group(&group).call("signal", &json!({"kind": "typing", "data": {"on": [true]}})).ok();
    alice.group(&group).recall(1);
    alice.group_call("kick", &json!({"group_id": group, "user_ids": [bob.user]}));
    alice.group(&group).send("alone");
    for (stream, is_out) in [(&mut of_alice, false), (&mut of_bob, true)] {
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &Value| event["content"]["action"] != "kick") {
            let event = stream.event();
            assert_eq!(
                (&event["target"], &event["target_type"]),
                (&json!(group), &json!("group")),
                "{event}"
            );
            events.push(event);
        }
        let of = |kind: &str| -> Vec<_> { events.iter().filter(|event| event["type"] == kind).collect() };
        assert_msg(of("msg")[0], &group, 1, "hi", &alice.user);
        // Whether the sender's own read cursor is told too is the server's business.
        let acks = of("ack");
        let ack = acks.iter().find(|ack| ack["content"]["user"] == json!(bob.user)).expect("bob's ack");
        assert_eq!(ack["content"]["msg_index"], 1, "{ack}");
        assert_eq!(
            of("signal")[0]["content"],
            json!({"user": bob.user, "kind": "typing", "data": {"on": [true]}})
        );
        assert_eq!(of("recall")[0]["content"], json!({"msg_index": 1, "recall_index": 1, "by": alice.user}));
        let kick = of("group").into_iter().next_back().expect("a kick");
        assert_eq!(kick["content"], json!({"action": "kick", "user": bob.user, "by": alice.user}));
        if !is_out {
            assert_msg(&stream.event(), &group, 2, "alone", &alice.user);
        }
        stream.assert_quiet();
    }
    of_carol.assert_quiet();
}

#[test]
fn who_comes_and_goes_in_a_crowd_is_told_of_themselves_and_others_how_many() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let (carol, group) = (server.client(&fresh("carol")), fresh("group"));
    let (mut of_alice, mut of_bob, mut of_carol) = (alice.stream(), bob.stream(), carol.stream());
    let strangers: Vec<String> = (0..1_200).map(|number| format!("{group}-{number}")).collect();
    let strangers: Vec<&str> = strangers.iter().map(String::as_str).collect();
    let with =
        |user: &str| -> Vec<String> { strangers.iter().copied().chain([user]).map(str::to_owned).collect() };
    let own = |action: &str, user: &str| json!({"action": action, "user": user, "by": alice.user});
    let crowd = |action: &str, count| json!({"action": action, "user": "", "by": alice.user, "count": count});
    alice.create_group(&group, &[&strangers[..], &[&bob.user]].concat());
    alice.group_call("kick", &json!({"group_id": group, "user_ids": with(&bob.user)}));
    alice.group_call("add", &json!({"group_id": group, "user_ids": with(&carol.user)}));
    alice.group(&group).send("hi");
    for content in [own("create", &alice.user), crowd("add", 1201), crowd("kick", 1201), crowd("add", 1201)] {
        assert_eq!(of_alice.event_of("group")["content"], content);
    }
    assert_msg(&of_alice.event(), &group, 1, "hi", &alice.user);
    for content in [own("add", &bob.user), crowd("add", 1201), own("kick", &bob.user)] {
        assert_eq!(of_bob.event_of("group")["content"], content);
    }
    for content in [own("add", &carol.user), crowd("add", 1201)] {
        assert_eq!(of_carol.event_of("group")["content"], content);
    }
    assert_msg(&of_carol.event(), &group, 1, "hi", &alice.user);
    [&mut of_alice, &mut of_bob, &mut of_carol].into_iter().for_each(|stream| stream.assert_quiet());
}

#[test]
fn verbs_have_the_same_rules_and_codes_as_over_http() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut stream = alice.stream();
    let to_bob = |fields: Value| bob_body(&bob, fields);
    let named = to_bob(json!({"msg": "once", "client_msg_id": "c-1"}));
    let first = stream.call("send", &named);
    let again = stream.call("im.chat/send", &named);
    assert_eq!((&again["msg_index"], &again["duplicate"]), (&first["msg_index"], &json!(true)));
    assert_eq!(stream.refused("send", &to_bob(json!({"msg": "other", "client_msg_id": "c-1"}))), 20003);
    assert_eq!(stream.refused("send", &to_bob(json!({"msg": ""}))), 10001);
    assert_eq!(stream.refused("send", &json!({"target": bob.user})), 10001);
    assert_eq!(stream.refused("ack", &to_bob(json!({"msg_index": 9}))), 20001);
    assert_eq!(stream.refused("recall", &to_bob(json!({"msg_index": 9}))), 20001);
    assert_eq!(
        stream.refused("send", &json!({"target": "no-such", "target_type": "group", "msg": "x"})),
        22002
    );
    assert_eq!(stream.refused("dance", &json!({})), 10001);
    let page = stream.call("pull", &to_bob(json!({"direction": "after", "start_msg_index": 1, "count": 5})));
    assert_eq!(page["msgs"][0]["msg"], "once", "{page}");
    let group = stream.call("group.create", &json!({"name": "Friends", "members": [bob.user]}));
    let info = stream.call("im.group/info", &group);
    assert_eq!(info["members_count"], 2, "{info}");
    assert_eq!(stream.call("recall", &to_bob(json!({"msg_index": 1}))), json!({"recall_index": 1}));
    bob.with(&alice.user).send("back");
    assert_eq!(stream.call("ack", &to_bob(json!({"msg_index": 2}))), json!({}));
    // What one said, the other way shows.
    assert_eq!(bob.with(&alice.user).beginning().recalls.len(), 1);
    assert_eq!(alice.with(&bob.user).send_named("c-1", "whatever").msg_index, 1);
}

fn bob_body(bob: &Client, mut fields: Value) -> Value {
    fields["target"] = json!(bob.user);
    fields["target_type"] = json!("user");
    fields
}

#[test]
fn pipelined_sends_keep_their_order_and_get_their_own_answers() {
    const SENDS: u64 = 1000;
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut stream = alice.stream();
    let first = stream.ask("send", &bob_body(&bob, json!({"msg": "0"})));
    for number in 1..SENDS {
        stream.ask("send", &bob_body(&bob, json!({"msg": number.to_string()})));
    }
    let mut answered = vec![0; SENDS as usize];
    for _ in 0..SENDS {
        let answer = stream.result();
        let place = answer["id"].as_u64().expect("our id") - first;
        answered[place as usize] = answer["result"]["msg_index"].as_u64().expect("an index");
    }
    assert!(answered.iter().copied().eq(1..=SENDS), "{answered:?}");
    for index in 1..=SENDS as u32 {
        assert_msg(&stream.event(), &bob.user, index, &(index - 1).to_string(), &alice.user);
    }
}

#[test]
fn a_pull_that_waits_holds_up_nothing() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut stream = alice.stream();
    let wait = json!({"direction": "after", "start_msg_index": 1, "count": 5, "wait_ms": 30_000});
    let waiting = stream.ask("pull", &bob_body(&bob, wait));
    let list = stream.ask("list", &json!({}));
    assert_eq!(stream.result()["id"], list);
    bob.with(&alice.user).send("at last");
    let answer = stream.result();
    assert_eq!((&answer["id"], &answer["result"]["msgs"][0]["msg"]), (&json!(waiting), &json!("at last")));
}

#[test]
fn who_gives_no_id_gets_no_result_but_is_told_of_errors() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut stream = alice.stream();
    let send = json!({"method": "send", "params": bob_body(&bob, json!({"msg": "quiet"}))});
    stream.write(&send.to_string()).expect("written");
    assert_msg(&stream.event(), &bob.user, 1, "quiet", &alice.user);
    stream.write(r#"{"method":"send","params":{}}"#).expect("written");
    let error = stream.result();
    assert_eq!((&error["id"], &error["error"]["code"]), (&Value::Null, &json!(10001)), "{error}");
    for id in [json!("text"), json!(-1.5), json!(9_007_199_254_740_993_u64)] {
        stream.write(&json!({"id": id, "method": "list"}).to_string()).expect("written");
        assert_eq!(stream.result()["id"], id);
    }
    stream.assert_quiet();
}

#[test]
fn what_is_refused_is_refused_before_the_upgrade() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    let bearer = format!("Bearer {}", alice.token());
    let auth = ("Authorization", bearer.as_str());
    let refused = |query: &str, headers: &[(&str, &str)]| alice.stream_with(query, headers).err();
    assert_eq!(refused("", &[]), Some(401));
    assert_eq!(refused("", &[("Token", "a.b.c")]), Some(401));
    let in_url = format!("?token={}", alice.token());
    assert_eq!(refused(&in_url, &[]), Some(401));
    assert_eq!(refused(&in_url, &[auth]), Some(400));
    assert_eq!(refused("", &[auth, ("Origin", "https://evil.example.com")]), Some(403));
    assert_eq!(refused("", &[auth, ("Origin", "null")]), Some(403));
    let own = format!("http://{}", server.ready().http);
    assert!(alice.stream_with("", &[auth, ("Origin", &own)]).is_ok());
    assert!(alice.stream_with("", &[("Token", alice.token())]).is_ok());
    let reply = server.exchange(alice.get("/im.chat/stream", &[]));
    reply.assert_error_naming(426, 10001, &["WebSocket", "text/event-stream"]);
    server.exchange(request("GET", "/im.chat/stream", &[auth], b"{}")).assert_error(400, 10001);
}

#[test]
fn a_browser_sends_its_token_as_a_subprotocol() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    let protocols = format!("chinwag.v1, bearer.{}", alice.token());
    let stream = alice.stream_with("", &[("Sec-WebSocket-Protocol", &protocols)]).expect("a stream");
    assert_eq!(stream.protocol.as_deref(), Some("chinwag.v1"));
    assert_eq!(stream.hello["user"], json!(alice.user));
    let bad = [("Sec-WebSocket-Protocol", "chinwag.v1, bearer.a.b.c")];
    assert_eq!(alice.stream_with("", &bad).err(), Some(401));
}

#[test]
fn pages_of_a_listed_origin_may_open_streams() {
    let server = TestServer::start_with(&["--origin", "https://app.example.com"]);
    let alice = server.client("alice");
    let bearer = format!("Bearer {}", alice.token());
    let from =
        |origin: &str| alice.stream_with("", &[("Authorization", &bearer), ("Origin", origin)]).map(|_| ());
    assert_eq!(from("https://app.example.com"), Ok(()));
    assert_eq!(from("https://other.example.com"), Err(403));
}

#[test]
fn a_user_has_a_limited_number_of_streams() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    let mut streams: Vec<_> = (0..64).map(|_| alice.stream()).collect();
    assert_eq!(alice.stream_at("").err(), Some(429));
    streams.pop();
    crate::support::eventually("a place is free", || alice.stream_at("").ok());
}

#[test]
fn server_sent_events_are_the_same_objects() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("before");
    let mut source = bob.event_source();
    let head = source.head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-cache"), "{head}");
    let hello = source.event().expect("hello");
    assert_eq!((&hello["type"], &hello["chats"][0]["msg_index"]), (&json!("hello"), &json!(1)), "{hello}");
    alice.with(&bob.user).send("line\nbreak");
    assert_msg(&source.event().expect("an event"), &alice.user, 2, "line\nbreak", &alice.user);
    let signal = json!({"kind": "typing"});
    alice.with(&bob.user).call("signal", &signal).ok();
    assert_eq!(source.event().expect("an event")["type"], "signal");
    // A body with a line end inside of its data.
    let body = format!(
        "{{\"target\":\"{}\",\"target_type\":\"user\",\"kind\":\"k\",\"data\":{{\n\"a\":\n1}}}}",
        bob.user
    );
    let reply = alice.post("/im.chat/signal", &[("Content-Type", "application/json")], body.as_bytes());
    reply.expect("a reply").ok();
    assert_eq!(source.event().expect("an event")["content"]["data"], json!({"a": 1}));
}

#[test]
fn streams_are_counted() {
    let server = TestServer::start();
    let alice = server.client("alice");
    let (mut first, source) = (alice.stream(), alice.event_source());
    alice.with("bob").send("hi");
    first.event_of("msg");
    let is = |series: &str, value: f64| {
        crate::support::eventually(series, || (server.metric(series) == Some(value)).then_some(()));
    };
    is("chinwag_streams{kind=\"websocket\"} ", 1.0);
    is("chinwag_streams{kind=\"sse\"} ", 1.0);
    first.call("list", &json!({}));
    is("chinwag_requests_total{verb=\"list\",code=\"0\"} ", 1.0);
    is("chinwag_requests_total{verb=\"stream\",code=\"0\"} ", 2.0);
    drop((first, source));
    is("chinwag_streams{kind=\"websocket\"} ", 0.0);
}
