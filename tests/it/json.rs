//! How JSON maps to the API's fields and back: proto3's rules.

use serde_json::{Value, json};

use crate::support::{Client, Reply, shared_server};

fn post(client: &Client, verb: &str, body: &str) -> Reply {
    client
        .post(&format!("/im.chat/{verb}"), &[("Content-Type", "application/json")], body.as_bytes())
        .expect("a reply")
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn an_absent_and_a_null_field_are_the_zero_value() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for fields in [
        json!({"msg": "m"}),
        json!({"msg": "m", "extra": null, "client_msg_id": null}),
        json!({"msg": "m", "extra": "", "client_msg_id": ""}),
    ] {
        assert_eq!(alice.with(&bob.user).call("send", &fields).ok()["duplicate"], false);
    }
    let page = alice.with(&bob.user).beginning();
    assert_eq!(page.msgs.iter().map(|msg| msg.extra.as_str()).collect::<Vec<_>>(), ["", "", ""]);
    let nulls = json!({"direction": "after", "count": 50, "start_msg_index": null, "start_recall_index": null,
        "wait_ms": null});
    assert_eq!(alice.with(&bob.user).call("pull", &nulls).ok()["msgs"], json!([]));
    alice.with(&bob.user).call("send", &json!({"msg": null})).assert_error_naming(400, 10001, &["msg"]);
    alice.with(&bob.user).call("ack", &json!({"msg_index": null})).ok();
}

#[test]
fn unknown_fields_are_ignored_whatever_they_hold() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let fields = json!({"msg": "m", "unknown": {"a": [1, {"b": null}], "msg": "other"}, "": 1, "Msg": 7});
    assert_eq!(alice.with(&bob.user).call("send", &fields).ok()["msg_index"], 1);
    assert_eq!(alice.with(&bob.user).beginning().texts(), ["m"]);
}

#[test]
fn camel_case_names_are_as_good() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let at = |rest: &str| format!(r#"{{"target":"{}","targetType":"user",{rest}}}"#, bob.user);
    let sent = post(&alice, "send", &at(r#""msg":"m","clientMsgId":"one""#)).ok();
    assert_eq!(sent["msg_index"], 1);
    assert_eq!(alice.with(&bob.user).send_named("one", "m").msg_index, 1);
    post(&alice, "ack", &at(r#""msgIndex":1"#)).ok();
    assert_eq!(post(&alice, "recall", &at(r#""msgIndex":1"#)).ok()["recall_index"], 1);
    let pull = at(r#""direction":"after","startMsgIndex":1,"startRecallIndex":1,"count":5,"waitMs":1"#);
    let page = post(&alice, "pull", &pull).ok();
    assert_eq!((&page["msgs"][0]["msg_index"], &page["recalls"]), (&json!(1), &json!({"1": 1})));
}

#[test]
fn a_number_may_be_a_text_or_end_in_point_zero() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for text in ["one", "two", "three"] {
        alice.with(&bob.user).send(text);
    }
    for (start, count) in [("2", "1"), ("\"2\"", "\"1\""), ("2.0", "1.0"), ("2e0", "10e-1")] {
        let body = format!(
            r#"{{"target":"{}","target_type":"user","direction":"after","start_msg_index":{start},"count":{count}}}"#,
            bob.user
        );
        assert_eq!(post(&alice, "pull", &body).ok()["msgs"][0]["msg"], "two", "{start}");
    }
}

#[test]
fn what_is_no_u32_is_refused_and_named() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("one");
    for bad in [
        "-1",
        "4294967296",
        "1.5",
        "1e400",
        "99999999999999999999",
        "\"\"",
        "\"one\"",
        "\"-1\"",
        "\" 1\"",
        "\"4294967296\"",
        "true",
        "[]",
        "{}",
        "NaN",
    ] {
        for (verb, field, rest) in [
            ("ack", "msg_index", ""),
            ("recall", "msg_index", ""),
            ("pull", "start_msg_index", r#","direction":"after","count":1"#),
            ("pull", "start_recall_index", r#","direction":"after","count":1"#),
            ("pull", "count", r#","direction":"after","start_msg_index":1"#),
            ("pull", "wait_ms", r#","direction":"after","start_msg_index":1,"count":1"#),
        ] {
            let body = format!(r#"{{"target":"{}","target_type":"user","{field}":{bad}{rest}}}"#, bob.user);
            let words = post(&alice, verb, &body).assert_error(400, 10001);
            // What is not even JSON has no field.
            assert!(bad == "NaN" || bad == "1e400" || words.contains(field), "{words:?} for {field}: {bad}");
        }
    }
    assert_eq!(alice.with(&bob.user).beginning().max_recall_index, 0);
}

#[test]
fn the_largest_u32_is_a_number_like_any_other() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    alice.with(&bob.user).send("one");
    let chat = alice.with(&bob.user);
    for max in [json!(u32::MAX), json!(u32::MAX.to_string())] {
        let before = json!({"direction": "before", "start_msg_index": max, "start_recall_index": max});
        assert_eq!(chat.pull(&before).indices(), [1]);
        let after = json!({"start_msg_index": max, "start_recall_index": max});
        assert_eq!(chat.pull(&after).msgs, []);
        chat.call("ack", &json!({"msg_index": max})).assert_error(404, 20001);
        chat.call("recall", &json!({"msg_index": max})).assert_error(404, 20001);
    }
}

#[test]
fn a_text_is_nothing_but_a_text() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for bad in [json!(1), json!(true), json!(["m"]), json!({"m": 1})] {
        for field in ["msg", "extra", "client_msg_id"] {
            let mut fields = json!({"msg": "m"});
            fields[field] = bad.clone();
            alice.with(&bob.user).call("send", &fields).assert_error_naming(400, 10001, &[field]);
        }
    }
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0);
}

#[test]
fn replies_carry_every_field_and_only_known_ones() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let chat = alice.with(&bob.user);
    let sent = chat.call("send", &json!({"msg": "m"})).ok();
    assert_eq!(keys(&sent), ["duplicate", "msg_index", "timestamp", "timestamp_ns"]);
    assert!(sent["msg_index"].is_u64() && sent["timestamp"].is_u64(), "{sent}");
    assert!(sent["timestamp_ns"].is_string() && sent["duplicate"] == false, "{sent}");

    const PAGE: [&str; 6] =
        ["epoch", "max_msg_index", "max_recall_index", "min_msg_index", "msgs", "recalls"];
    let pull = json!({"direction": "after", "start_msg_index": 1, "count": 1});
    let page = chat.call("pull", &pull).ok();
    assert_eq!(keys(&page), PAGE);
    assert_eq!(page["recalls"], json!({}));
    let info = &page["msgs"][0];
    assert_eq!(
        keys(info),
        ["extra", "msg", "msg_index", "recall_index", "sender", "target", "target_type", "timestamp"]
    );
    assert_eq!((&info["extra"], &info["recall_index"]), (&json!(""), &json!(0)));

    let empty = alice.with("nobody at all").call("pull", &pull).ok();
    assert_eq!(keys(&empty), PAGE);
    assert_eq!((&empty["msgs"], &empty["recalls"]), (&json!([]), &json!({})));

    assert_eq!(chat.call("ack", &json!({"msg_index": 1})).ok(), json!({}));
    assert_eq!(chat.call("recall", &json!({"msg_index": 1})).ok(), json!({"recall_index": 1}));
    let both = json!({"direction": "after", "start_recall_index": 1, "count": 1});
    assert_eq!(chat.call("pull", &both).ok()["recalls"], json!({"1": 1}));
}

#[test]
fn any_text_comes_back_as_it_was() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let texts = [
        "\"quoted\" \\ back/slash",
        "line\nbreak\r\n\ttab",
        "\u{0}\u{1}\u{1f}\u{7f}\u{85}",
        "日本語 \u{1F600}",
        "\u{2028}\u{2029}\u{feff}\u{ffff}\u{10ffff}",
        "</script><!--",
        "{\"msg\":\"nested\"}",
        " ",
        "e\u{301}",
        "\u{202e}",
    ];
    for text in texts {
        let fields = json!({"msg": text, "extra": text, "client_msg_id": ""});
        alice.with(&bob.user).call("send", &fields).ok();
    }
    let page = bob.with(&alice.user).beginning();
    assert_eq!(page.texts(), texts);
    assert!(page.msgs.iter().all(|msg| msg.extra == msg.msg));
}

#[test]
fn escapes_in_json_mean_their_characters() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let body = format!(
        r#"{{"target":"{}","target_type":"\u0075ser","\u006dsg":"\ud83d\ude00\/\u00e9\n"}}"#,
        bob.user
    );
    post(&alice, "send", &body).ok();
    assert_eq!(alice.with(&bob.user).beginning().texts(), ["\u{1F600}/é\n"]);
}

#[test]
fn what_is_no_json_object_is_refused() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let good = alice.with(&bob.user).body(&json!({"msg": "m"})).to_string();
    let lone = good.replace("\"m\"", r#""\ud800""#);
    for body in [
        "",
        " ",
        "null",
        "[]",
        "1",
        "\"x\"",
        "{",
        "{]",
        "{\"msg\"}",
        "{\"a\":1,}",
        "{'a':1}",
        "nul",
        &good[..good.len() - 1],
        &format!("{good}x"),
        &format!("{good}{good}"),
        &format!("{good},"),
        &lone,
    ] {
        post(&alice, "send", body).assert_error(400, 10001);
    }
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0);
}

#[test]
fn bytes_that_are_no_utf8_are_refused() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for fields in [json!({"msg": "m?m"}), json!({"msg": "m", "unknown": "?"})] {
        let good = alice.with(&bob.user).body(&fields).to_string().into_bytes();
        let at = good.iter().position(|byte| *byte == b'?').expect("the mark");
        for bad in [0x80_u8, 0xc0, 0xff] {
            let mut body = good.clone();
            body[at] = bad;
            let reply = alice.post("/im.chat/send", &[("Content-Type", "application/json")], &body);
            reply.expect("a reply").assert_error(400, 10001);
        }
    }
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0);
}

#[test]
fn deep_nesting_is_refused_and_the_server_lives() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 60_000 / (open.len() + close.len() + 1);
        let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let body = format!(r#"{{"target":"{}","target_type":"user","msg":"m","deep":{nested}}}"#, bob.user);
        // Unknown fields are ignored, whatever they hold; refusing what is absurd is as good.
        let reply = post(&alice, "send", &body);
        assert!(reply.status == 200 || reply.status == 400, "{reply:?}");
        post(&alice, "send", &nested).assert_error(400, 10001);
        post(&alice, "send", &open.repeat(depth)).assert_error(400, 10001);
    }
    alice.with(&bob.user).send("alive");
}
