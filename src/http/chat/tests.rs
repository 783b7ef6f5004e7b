use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::http::encoding::BodyEncoding;
use crate::http::request::decode;

fn send_from(encoding: BodyEncoding, body: &[u8]) -> Result<(Address, Draft), Rejection> {
    decode::<SendRequest<'_>>(encoding, body)?.check()
}

fn send_json(body: &str) -> Result<(Address, Draft), Rejection> {
    send_from(BodyEncoding::Json, body.as_bytes())
}

fn pull_json(body: &str) -> Result<(Address, Pull), Rejection> {
    decode::<PullRequest<'_>>(BodyEncoding::Json, body.as_bytes())?.check()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Rejection>) -> String {
    match result {
        Err(Rejection::Invalid(why)) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn expected_send() -> (Address, Draft) {
    let at = Address::User(UserId::parse("bob é").expect("an id"));
    (at, Draft { msg: "hi & bye".to_owned(), extra: "x=1".to_owned(), client_msg_id: "c".to_owned() })
}

#[test]
fn a_send_means_the_same_in_every_encoding() {
    let snake =
        r#"{"target":"bob é","target_type":"user","msg":"hi & bye","extra":"x=1","client_msg_id":"c"}"#;
    let camel = r#" {"clientMsgId":"c","targetType":"user","extra":"x=1","msg":"hi \u0026 bye","target":"bob \u00e9"} "#;
    let form = "target=bob+%C3%A9&target_type=user&msg=hi+%26+bye&extra=x%3D1&client_msg_id=c";
    let message = proto::SendReq {
        target: "bob é".into(),
        target_type: "user".into(),
        msg: "hi & bye".into(),
        extra: "x=1".into(),
        client_msg_id: "c".into(),
    };
    for json in [snake, camel] {
        assert_eq!(send_json(json), Ok(expected_send()));
    }
    assert_eq!(send_from(BodyEncoding::Form, form.as_bytes()), Ok(expected_send()));
    assert_eq!(send_from(BodyEncoding::Protobuf, &message.encode_to_vec()), Ok(expected_send()));
}

#[test]
fn absent_and_null_are_zero_and_the_unknown_is_ignored() {
    let (_, draft) = send_json(
        r#"{"target":"bob","target_type":"user","msg":"m","extra":null,"x":{"y":[1,{"z":null}]},"count":-1,"count":{}}"#,
    )
    .expect("a send");
    assert_eq!((draft.extra.as_str(), draft.client_msg_id.as_str()), ("", ""));
}

#[test]
fn every_rule_of_a_send_names_its_field() {
    let long = "i".repeat(65);
    for (field, value, expected) in [
        ("target", "\"\"", "target must not be empty"),
        ("target", &format!("\"{}\"", "t".repeat(129)), "target must be at most 128 bytes"),
        ("target", "\"a\\u0000b\"", "target must not contain control characters"),
        ("target", "5", "target must be one text"),
        ("target_type", "\"\"", "target_type must be \"user\" or \"group\""),
        ("target_type", "\"USER\"", "target_type must be \"user\" or \"group\""),
        ("msg", "\"\"", "msg must not be empty"),
        ("msg", "null", "msg must not be empty"),
        ("msg", "[\"m\"]", "msg must be one text"),
        ("extra", "7", "extra must be one text"),
        ("client_msg_id", &format!("\"{long}\""), "client_msg_id must be at most 64 bytes"),
    ] {
        let mut fields =
            [("target", "\"bob\""), ("target_type", "\"user\""), ("msg", "\"m\""), ("extra", "\"\"")]
                .into_iter()
                .filter(|(name, _)| *name != field)
                .collect::<Vec<_>>();
        fields.push((field, value));
        let body: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        assert_eq!(refusal(send_json(&format!("{{{}}}", body.join(",")))), expected);
    }
}

#[test]
fn hostile_json_is_refused_and_never_half_read() {
    let deep = format!("{{\"msg\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    for body in [
        "",
        "null",
        "[]",
        "[\"bob\",\"user\",\"m\",\"\",\"\"]",
        "\"text\"",
        "{",
        "{}}",
        "{\"msg\":\"a\"} {}",
        "{\"msg\":\"\\ud800\"}",
        "{\"msg\":\"a\nb\"}",
        "{'msg':'a'}",
        "{\"msg\":1e400}",
        "\u{feff}{}",
        &deep,
    ] {
        let why = refusal(send_json(body));
        assert!(why.starts_with("the body "), "{body:.40} gave {why}");
    }
    assert!(refusal(send_from(BodyEncoding::Json, b"{\"msg\":\"\xff\"}")).starts_with("the body "));
}

#[test]
fn a_doubled_field_is_refused_in_either_spelling() {
    for body in [
        r#"{"msg":"a","msg":"b"}"#,
        r#"{"target_type":"user","targetType":"user"}"#,
        r#"{"msg":null,"msg":"b"}"#,
        r#"{"msg":"a","m\u0073g":"b"}"#,
    ] {
        assert!(refusal(send_json(body)).contains("duplicate field"), "{body}");
    }
}

#[test]
fn hostile_forms_are_refused() {
    for (body, expected) in [
        ("target=a&target=b&target_type=user&msg=m", "target must be one text"),
        ("target=%ff&target_type=user&msg=m", "the form is not UTF-8"),
        ("target=b&target_type=user&msg=%e2%82", "the form is not UTF-8"),
        ("target=b&target_type=user", "msg must not be empty"),
        ("", "target_type must be"),
        (&"&".repeat(60_000), "a form must have at most"),
    ] {
        let why = refusal(send_from(BodyEncoding::Form, body.as_bytes()));
        assert!(why.starts_with(expected), "{body:.60} gave {why}");
    }
    assert!(refusal(send_from(BodyEncoding::Form, b"msg=\xff")).contains("UTF-8"));
    let (_, draft) =
        send_from(BodyEncoding::Form, b"target=b&target_type=user&msg=100%&other=1&other=2").expect("a send");
    assert_eq!(draft.msg, "100%");
}

#[test]
fn hostile_protobuf_is_refused() {
    let good = proto::SendReq {
        target: "b".into(),
        target_type: "user".into(),
        msg: "m".into(),
        ..Default::default()
    };
    let good = good.encode_to_vec();
    for cut in 1..good.len() {
        assert!(send_from(BodyEncoding::Protobuf, &good[..cut]).is_err(), "cut at {cut}");
    }
    for body in [
        b"\x1a\xff\xff\xff\xff\x0f".as_slice(),
        b"\x1a\x02\xff\xff",
        b"\x18\x05",
        b"\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert!(refusal(send_from(BodyEncoding::Protobuf, body)).contains("protobuf"), "{body:?}");
    }
    let unknown_behind = [good.as_slice(), b"\xfa\x01\x03abc"].concat();
    assert!(send_from(BodyEncoding::Protobuf, &unknown_behind).is_ok());
}

#[test]
fn the_message_of_ack_has_the_fields_of_recall() {
    let ack =
        proto::AckReq { target: "bob".into(), target_type: "user".into(), msg_index: 4 }.encode_to_vec();
    let request = decode::<MessageRequest<'_>>(BodyEncoding::Protobuf, &ack).expect("a request");
    assert_eq!(request.check().expect("an index").1, 4);
}

#[test]
fn indices_of_recall_and_ack_may_be_texts_and_have_32_bits() {
    let check = |json: &str| decode::<MessageRequest<'_>>(BodyEncoding::Json, json.as_bytes())?.check();
    let with = |index: &str| check(&format!(r#"{{"target":"g","targetType":"group","msgIndex":{index}}}"#));
    assert_eq!(with("\"12\"").expect("an index").1, 12);
    assert_eq!(with("null").expect("an index").1, 0);
    assert_eq!(refusal(with("-1")), "msg_index must be a whole number from 0 to 4294967295");
    assert_eq!(refusal(with("4294967296")), "msg_index must be a whole number from 0 to 4294967295");
}

#[test]
fn a_pull_has_a_direction_a_count_and_may_wait() {
    let (at, pull) = pull_json(
        r#"{"target":"g","target_type":"group","direction":"after","start_msg_index":3,"count":50,"wait_ms":30000}"#,
    )
    .expect("a pull");
    assert_eq!(at, Address::Group(crate::message::GroupId::parse("g").expect("an id")));
    assert_eq!((pull.direction, pull.start_msg_index, pull.start_recall_index), (Direction::After, 3, 0));
    assert_eq!((pull.count, pull.wait), (50, Duration::from_secs(30)));
    let (_, before) = pull_json(
        r#"{"target":"g","target_type":"group","direction":"before","startRecallIndex":"3","count":"1","waitMs":9}"#,
    )
    .expect("a pull");
    assert_eq!((before.start_recall_index, before.count, before.wait), (3, 1, Duration::ZERO));
}

#[test]
fn every_rule_of_a_pull_names_its_field() {
    let base = r#"{"target":"g","target_type":"group","#;
    for (rest, expected) in [
        (r#""direction":"after"}"#, "count must be from 1 to 50"),
        (r#""direction":"after","count":51}"#, "count must be from 1 to 50"),
        (r#""direction":"","count":1}"#, "direction must be \"before\" or \"after\""),
        (r#""count":1}"#, "direction must be \"before\" or \"after\""),
        (r#""direction":"after","count":1,"wait_ms":30001}"#, "wait_ms must be from 0 to 30000"),
        (
            r#""direction":"after","count":1,"start_msg_index":1.5}"#,
            "start_msg_index must be a whole number from 0 to 4294967295",
        ),
    ] {
        assert_eq!(refusal(pull_json(&format!("{base}{rest}"))), expected);
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_decoders(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
        text in "[{}\\[\\]\":,=&%+a-z0-9 \\\\]{0,64}",
    ) {
        for encoding in [BodyEncoding::Json, BodyEncoding::Form, BodyEncoding::Protobuf] {
            for body in [bytes.as_slice(), text.as_bytes()] {
                let _ = decode::<SendRequest<'_>>(encoding, body).and_then(SendRequest::check);
                let _ = decode::<PullRequest<'_>>(encoding, body).and_then(PullRequest::check);
            }
        }
    }

    #[test]
    fn any_text_arrives_as_it_was_sent(msg in any::<String>().prop_filter("not empty", |msg| !msg.is_empty())) {
        let json = serde_json::json!({"target": "b", "target_type": "user", "msg": msg}).to_string();
        let form = serde_html_form::to_string([("target", "b"), ("target_type", "user"), ("msg", &msg)]).expect("a form");
        let message = proto::SendReq { target: "b".into(), target_type: "user".into(), msg: msg.clone(), ..Default::default() };
        for (encoding, body) in [
            (BodyEncoding::Json, json.into_bytes()),
            (BodyEncoding::Form, form.into_bytes()),
            (BodyEncoding::Protobuf, message.encode_to_vec()),
        ] {
            prop_assert_eq!(&send_from(encoding, &body).expect("a send").1.msg, &msg);
        }
    }
}
