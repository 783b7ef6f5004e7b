//! The three kinds of body and the two kinds of reply: each call means the same in all of them.

use prost::Message;
use serde_json::{Value, json};

use crate::support::protobuf::{IndexReq, MEDIA_TYPE, PullReq, PullResp, RecallResp, SendReq, SendResp};
use crate::support::{Client, Reply, fresh, shared_server};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn post(client: &Client, verb: &str, kind: &str, accept: Option<&str>, body: &[u8]) -> Reply {
    let mut headers = vec![("Content-Type", kind)];
    headers.extend(accept.map(|accept| ("Accept", accept)));
    client.post(&format!("/im.chat/{verb}"), &headers, body).expect("a reply")
}

/// The reply in protobuf, which it must say it is.
#[track_caller]
fn decode<T: Message + Default>(reply: &Reply) -> T {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("content-type"), Some(MEDIA_TYPE));
    T::decode(reply.body.as_slice()).expect("protobuf")
}

/// Percent-encodes every byte, which any form may do.
fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let field = |(name, value): &(&str, &str)| {
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("{name}={encoded}")
    };
    fields.iter().map(field).collect::<Vec<_>>().join("&").into_bytes()
}

#[test]
fn the_four_calls_work_in_json() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let at = |fields: Value| alice.with(&bob.user).body(&fields).to_string().into_bytes();
    let sent = post(&alice, "send", JSON, Some(JSON), &at(json!({"msg": "hi", "extra": "x"}))).ok();
    assert_eq!(sent["msg_index"], 1);
    assert_eq!(post(&alice, "ack", JSON, None, &at(json!({"msg_index": 1}))).ok(), json!({}));
    assert_eq!(
        post(&alice, "recall", JSON, None, &at(json!({"msg_index": 1}))).ok(),
        json!({"recall_index": 1})
    );
    let pull = json!({"direction": "after", "start_msg_index": 1, "start_recall_index": 1, "count": 50});
    assert_eq!(post(&alice, "pull", JSON, None, &at(pull)).ok()["recalls"], json!({"1": 1}));
}

#[test]
fn the_four_calls_work_as_forms() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let at = |fields: &[(&str, &str)]| {
        form(&[&[("target", bob.user.as_str()), ("target_type", "user")], fields].concat())
    };
    let text = "a+b & c=d \u{1F600}\n%41";
    let body = at(&[("msg", text), ("extra", "x y"), ("client_msg_id", "one")]);
    assert_eq!(post(&alice, "send", FORM, None, &body).ok()["msg_index"], 1);
    assert_eq!(post(&alice, "send", FORM, None, &body).ok()["duplicate"], true);
    assert_eq!(post(&alice, "ack", FORM, None, &at(&[("msg_index", "1")])).ok(), json!({}));
    let pull =
        at(&[("direction", "after"), ("start_msg_index", "1"), ("start_recall_index", "1"), ("count", "9")]);
    let page = post(&alice, "pull", FORM, None, &pull).ok();
    assert_eq!((&page["msgs"][0]["msg"], &page["msgs"][0]["extra"]), (&json!(text), &json!("x y")));
    let recalled = post(&alice, "recall", FORM, None, &at(&[("msg_index", "1")])).ok();
    assert_eq!(recalled, json!({"recall_index": 1}));
}

#[test]
fn a_plus_in_a_form_is_a_space_and_unknown_fields_are_ignored() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let body = format!("target={}&target_type=user&msg=one+two&unknown=1&flag", bob.user);
    post(&alice, "send", FORM, None, body.as_bytes()).ok();
    assert_eq!(alice.with(&bob.user).beginning().texts(), ["one two"]);
}

#[test]
fn the_four_calls_work_in_protobuf_with_replies_in_protobuf() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let (target, target_type) = (bob.user.clone(), "user".to_owned());
    let call = |verb: &str, body: Vec<u8>| post(&alice, verb, MEDIA_TYPE, Some(MEDIA_TYPE), &body);
    let send = SendReq {
        target: target.clone(),
        target_type: target_type.clone(),
        msg: "hello \u{1F600}".to_owned(),
        extra: "x".to_owned(),
        client_msg_id: "one".to_owned(),
    };
    let first: SendResp = decode(&call("send", send.encode_to_vec()));
    assert_eq!((first.msg_index, first.duplicate), (1, false));
    assert_eq!(first.timestamp_ns / 1_000_000_000, u64::from(first.timestamp));
    let again: SendResp = decode(&call("send", send.encode_to_vec()));
    assert_eq!(again, SendResp { duplicate: true, ..first });

    let index = IndexReq { target: target.clone(), target_type: target_type.clone(), msg_index: 1 };
    let acked = call("ack", index.encode_to_vec());
    assert_eq!((acked.status, acked.body.len()), (200, 0), "an empty message");
    let pull = PullReq {
        target,
        target_type,
        direction: "after".to_owned(),
        start_msg_index: 1,
        start_recall_index: 1,
        count: 50,
        wait_ms: 0,
    };
    let page: PullResp = decode(&call("pull", pull.encode_to_vec()));
    let [msg] = page.msgs.as_slice() else { panic!("one message: {page:?}") };
    assert_eq!((msg.msg_index, msg.recall_index, msg.timestamp), (1, 0, first.timestamp));
    assert_eq!((msg.msg.as_str(), msg.extra.as_str()), ("hello \u{1F600}", "x"));
    assert_eq!((&msg.sender, &msg.target, msg.target_type.as_str()), (&alice.user, &bob.user, "user"));
    assert_eq!((page.max_msg_index, page.max_recall_index, page.min_msg_index), (1, 0, 1));

    let recalled: RecallResp = decode(&call("recall", index.encode_to_vec()));
    assert_eq!(recalled.recall_index, 1);
    let page: PullResp = decode(&call("pull", pull.encode_to_vec()));
    assert_eq!(page.recalls.into_iter().collect::<Vec<_>>(), [(1, 1)]);
    assert_eq!((page.msgs[0].msg.as_str(), page.msgs[0].recall_index), ("", 1));
}

#[test]
fn every_kind_of_body_goes_with_every_kind_of_reply() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let send = SendReq {
        target: bob.user.clone(),
        target_type: "user".to_owned(),
        msg: "hi".to_owned(),
        ..SendReq::default()
    };
    let as_json = alice.with(&bob.user).body(&json!({"msg": "hi"})).to_string().into_bytes();
    let as_form = form(&[("target", &bob.user), ("target_type", "user"), ("msg", "hi")]);
    let mut next = 1;
    for (kind, body) in [(JSON, as_json), (FORM, as_form), (MEDIA_TYPE, send.encode_to_vec())] {
        let reply = post(&alice, "send", kind, Some(JSON), &body).ok();
        assert_eq!(reply["msg_index"], next, "{kind} to JSON");
        let reply: SendResp = decode(&post(&alice, "send", kind, Some(MEDIA_TYPE), &body));
        assert_eq!(reply.msg_index, next + 1, "{kind} to protobuf");
        next += 2;
    }
}

#[test]
fn the_reply_is_json_unless_accept_asks_for_protobuf() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let pull = json!({"direction": "after", "start_msg_index": 1, "count": 1});
    let body = alice.with(&bob.user).body(&pull).to_string().into_bytes();
    for accept in
        [None, Some("*/*"), Some("application/json"), Some("text/html"), Some("application/*"), Some("")]
    {
        post(&alice, "pull", JSON, accept, &body).ok();
    }
    for accept in [MEDIA_TYPE, "Application/X-Protobuf", "text/html, application/x-protobuf"] {
        decode::<PullResp>(&post(&alice, "pull", JSON, Some(accept), &body));
    }
}

#[test]
fn a_content_type_may_have_parameters_and_any_case_or_be_absent() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let body = alice.with(&bob.user).body(&json!({"msg": "hi"})).to_string();
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"] {
        post(&alice, "send", kind, None, body.as_bytes()).ok();
    }
    alice.post("/im.chat/send", &[], body.as_bytes()).expect("a reply").ok();
    let body = form(&[("target", &bob.user), ("target_type", "user"), ("msg", "hi")]);
    post(&alice, "send", "application/x-www-form-urlencoded; charset=UTF-8", None, &body).ok();
}

#[test]
fn a_content_type_nobody_knows_is_415() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let body = alice.with(&bob.user).body(&json!({"msg": "hi"})).to_string();
    for kind in
        ["text/plain", "multipart/form-data; boundary=x", "application/xml", "application/jsonx", "json"]
    {
        let words = post(&alice, "send", kind, None, body.as_bytes()).assert_error(415, 10001);
        assert!(words.contains("application/json"), "{words}");
    }
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0);
}

#[test]
fn bytes_that_are_no_protobuf_are_refused() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut invalid_text = SendReq { target: bob.user.clone(), ..SendReq::default() }.encode_to_vec();
    invalid_text.extend([0x1a, 2, 0xff, 0xfe]);
    for body in [
        &b"\xff\xff\xff\xff"[..],
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x05ab",
        b"{}",
        b"\x08\x01",
        &invalid_text,
    ] {
        post(&alice, "send", MEDIA_TYPE, None, body).assert_error(400, 10001);
    }
    // Groups nest without bound in what a decoder skips.
    post(&alice, "send", MEDIA_TYPE, None, &[0xa3; 60_000]).assert_error(400, 10001);
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0);
}

#[test]
fn unknown_protobuf_fields_are_ignored() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let send = SendReq {
        target: bob.user.clone(),
        target_type: "user".to_owned(),
        msg: "hi".to_owned(),
        ..SendReq::default()
    };
    let mut body = send.encode_to_vec();
    // Field 1000, a varint; field 1001, bytes.
    body.extend([0xc0, 0x3e, 0x07, 0xca, 0x3e, 0x02, b'h', b'i']);
    assert_eq!(post(&alice, "send", MEDIA_TYPE, None, &body).ok()["msg_index"], 1);
}

#[test]
fn a_form_that_is_no_text_is_refused() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    for text in ["%FF%FE", "%C3%28"] {
        let body = format!("target={}&target_type=user&msg={text}", bob.user);
        post(&alice, "send", FORM, None, body.as_bytes()).assert_error(400, 10001);
    }
    assert_eq!(alice.with(&bob.user).beginning().max_msg_index, 0);
}

#[test]
fn group_verbs_take_forms_with_repeated_keys() {
    let server = shared_server();
    let owner = server.client(&fresh("owner"));
    let group = fresh("group");
    let (bob, carol) = (fresh("bob"), fresh("carol"));
    let body = form(&[("group_id", &group), ("name", "Friends"), ("members", &bob), ("members", &carol)]);
    owner.post("/im.group/create", &[("Content-Type", FORM)], &body).expect("a reply").ok();
    let info = owner.group_call("info", &json!({"group_id": group}));
    assert_eq!((&info["members_count"], &info["name"]), (&json!(3), &json!("Friends")));
}
