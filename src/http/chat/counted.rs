//! What the edge costs in instructions: see [`crate::counted`].

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};

use super::*;
use crate::auth::{LocalKey, PublicKeys, Verifier};
use crate::counted::{measured, rounds};
use crate::http::credentials::LastCaller;
use crate::http::encoding::{BodyEncoding, ReplyEncoding};
use crate::http::request::decode;
use crate::message::{Caller, MessageView, Page, Receipt};

const REQUESTS: usize = 1_000;
const NOW_S: u64 = 1_700_000_000;
const TEXT_BYTES: usize = 200;

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid id")
}

#[test]
fn parse() {
    let text = "m".repeat(TEXT_BYTES);
    let body = format!(r#"{{"target":"bob","target_type":"user","msg":"{text}","extra":""}}"#);
    let bytes: usize = measured(|| {
        (0..rounds(REQUESTS))
            .map(|_| {
                let request = decode::<SendRequest<'_>>(BodyEncoding::Json, body.as_bytes());
                request.and_then(SendRequest::check).expect("a send").1.msg.len()
            })
            .sum()
    });
    assert_eq!(bytes, rounds(REQUESTS) * TEXT_BYTES);
}

/// Whoever a connection's requests are by, with so many callers in turn.
fn identify(callers: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    std::fs::write(&path, "2a".repeat(32)).expect("a file");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let key = LocalKey::read(&path).expect("a key");
    let verifier = Verifier::new(&key, &PublicKeys::default()).expect("a verifier");
    let heads = ["alice", "carol"].map(|id| {
        let token = key.sign(&Caller { user: user(id), admin: false }, NOW_S, Duration::from_secs(60));
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("plain letters");
        HeaderMap::from_iter([(AUTHORIZATION, bearer)])
    });
    let last = LastCaller::default();
    last.identify(&heads[0], &verifier, NOW_S).expect("alice");
    let known = measured(|| {
        let identify = |number: usize| last.identify(&heads[number % callers], &verifier, NOW_S);
        (0..rounds(REQUESTS)).filter(|number| identify(*number).is_ok()).count()
    });
    assert_eq!(known, rounds(REQUESTS));
}

#[test]
fn token_again() {
    identify(1);
}

#[test]
fn token_other() {
    identify(2);
}

#[test]
fn receipt() {
    let receipt = Receipt { msg_index: 123_456, timestamp_ns: NOW_S * 1_000_000_000, duplicate: false };
    let bytes: usize = measured(|| {
        (0..rounds(REQUESTS)).map(|_| Reply::Sent(receipt).encode(ReplyEncoding::Json).len()).sum()
    });
    assert!(bytes > 0);
}

#[test]
fn page() {
    let text = "m".repeat(TEXT_BYTES);
    let message = |msg_index| MessageView {
        msg_index,
        recall_index: 0,
        timestamp_ns: NOW_S * 1_000_000_000,
        sender: "alice",
        msg: &text,
        extra: "",
    };
    let mut page = Page::new(50, 0, 1);
    (1..=50).for_each(|msg_index| page.push(&user("alice"), message(msg_index)));
    let at = Address::User(user("bob"));
    let write = |_| Reply::Page(EncodedPage::of(rows_json(&page, &at).into(), &page));
    let bytes: usize =
        measured(|| (0..rounds(100)).map(write).map(|reply| reply.encode(ReplyEncoding::Json).len()).sum());
    assert!(bytes > rounds(100) * 50 * TEXT_BYTES);
}
