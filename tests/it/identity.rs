//! Who a caller is: tokens good and bad, ids, and which conversation a pair of them has.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Client, DEADLINE, TestServer, claims_of, fresh, key_file, key_path, request, shared_server,
    sign_with_secret, since_epoch, unsigned,
};

const BODY: &str =
    r#"{"target":"bob","target_type":"user","direction":"after","start_msg_index":1,"count":1}"#;

fn pull_with(server: &TestServer, headers: &[(&str, &str)]) -> crate::support::Reply {
    server.exchange(request("POST", "/im.chat/pull", headers, BODY.as_bytes()))
}

#[track_caller]
fn assert_not_accepted(server: &TestServer, what: &str, token: &str) {
    let bearer = format!("Bearer {token}");
    for header in [("Authorization", bearer.as_str()), ("Token", token)] {
        let reply = pull_with(server, &[header]);
        assert_eq!(reply.status, 401, "{what} in {}: {}", header.0, reply.text());
        reply.assert_error(401, 10004);
    }
}

#[test]
fn a_token_is_taken_from_either_header() {
    let server = shared_server();
    let token = server.sign(&claims_of("alice"));
    for (name, value) in [
        ("Authorization", format!("Bearer {token}")),
        ("authorization", format!("bearer {token}")),
        ("Token", token.clone()),
        ("token", token.clone()),
    ] {
        assert_eq!(pull_with(&server, &[(name, &value)]).status, 200, "{name}: {value}");
    }
    let both = [("Authorization", format!("Bearer {token}")), ("Token", token)];
    let both: Vec<_> = both.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(pull_with(&server, &both).status, 200);
}

#[test]
fn without_a_token_no_verb_answers() {
    let server = shared_server();
    for path in [
        "/im.chat/send",
        "/im.chat/recall",
        "/im.chat/ack",
        "/im.chat/pull",
        "/im.group/create",
        "/im.group/info",
        "/im.group/members",
        "/im.group/add",
        "/im.group/kick",
        "/im.group/leave",
    ] {
        for headers in [&[][..], &[("Authorization", "")], &[("Authorization", "Bearer ")], &[("Token", "")]]
        {
            let reply = server.exchange(request("POST", path, headers, b"{}"));
            reply.assert_error(401, 10004);
        }
    }
}

#[test]
fn a_token_in_the_url_or_another_scheme_is_no_token() {
    let server = shared_server();
    let token = server.sign(&claims_of("alice"));
    for key in ["token", "access_token", "Token"] {
        let path = format!("/im.chat/pull?{key}={token}");
        server.exchange(request("POST", &path, &[], BODY.as_bytes())).assert_error(401, 10004);
    }
    let basic = format!("Basic {token}");
    pull_with(&server, &[("Authorization", &basic)]).assert_error(401, 10004);
}

#[test]
fn a_token_that_nobody_signed_is_refused() {
    let server = shared_server();
    let good = server.sign(&claims_of("alice"));
    let (body, signature) = good.rsplit_once('.').expect("three parts");
    let other = sign_with_secret(&[7; 32], &claims_of("alice"));
    let stolen = other.rsplit_once('.').expect("three parts").1;
    for (what, token) in [
        ("garbage", "garbage".to_owned()),
        ("dots", "..".to_owned()),
        ("not base64", "a!.b!.c!".to_owned()),
        ("alg none", unsigned(&good)),
        ("alg none with a signature", format!("{}{signature}", unsigned(&good))),
        ("no signature", format!("{body}.")),
        ("two parts", body.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("another key", other.clone()),
        ("another token's signature", format!("{body}.{stolen}")),
        ("an empty key", sign_with_secret(b"", &claims_of("alice"))),
        ("longer than any token", format!("{body}.{}", "A".repeat(8000))),
    ] {
        assert_not_accepted(&server, what, &token);
    }
}

#[test]
fn one_changed_letter_anywhere_in_a_token_is_refused() {
    let server = shared_server();
    let good = server.sign(&claims_of("alice"));
    // The last letter of a part may hold bits that no byte uses; every other one counts.
    for at in (0..good.len() - 1).step_by(7) {
        let mut letters = good.clone().into_bytes();
        if letters[at] == b'.' || letters[at + 1] == b'.' {
            continue;
        }
        letters[at] = if letters[at] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(letters).expect("ASCII");
        assert_eq!(pull_with(&server, &[("Token", &bad)]).status, 401, "changed at {at}");
    }
}

#[test]
fn claims_that_do_not_name_a_user_now_are_refused() {
    let server = shared_server();
    let now = since_epoch().as_secs();
    let later = now + 3600;
    for (what, claims) in [
        ("expired", json!({"sub": "alice", "exp": now - 3600})),
        ("expired in 1970", json!({"sub": "alice", "exp": 0})),
        ("no exp", json!({"sub": "alice"})),
        ("exp null", json!({"sub": "alice", "exp": null})),
        ("exp a text", json!({"sub": "alice", "exp": later.to_string()})),
        ("exp negative", json!({"sub": "alice", "exp": -1})),
        ("nbf in the future", json!({"sub": "alice", "exp": later + 3600, "nbf": later})),
        ("nbf a text", json!({"sub": "alice", "exp": later, "nbf": "now"})),
        ("no sub", json!({"exp": later})),
        ("sub empty", json!({"sub": "", "exp": later})),
        ("sub null", json!({"sub": null, "exp": later})),
        ("sub a number", json!({"sub": 7, "exp": later})),
        ("sub too long", json!({"sub": "a".repeat(129), "exp": later})),
        ("sub too long in bytes", json!({"sub": "é".repeat(65), "exp": later})),
        ("sub with a newline", json!({"sub": "a\nb", "exp": later})),
        ("sub with a zero", json!({"sub": "a\u{0}b", "exp": later})),
        ("sub with a C1 control", json!({"sub": "a\u{85}b", "exp": later})),
        ("no claims", json!({})),
        ("claims that are no object", json!(["alice", later])),
    ] {
        assert_not_accepted(&server, what, &server.sign(&claims));
    }
}

#[test]
fn claims_that_are_good_are_accepted() {
    let server = shared_server();
    let now = since_epoch().as_secs();
    let later = now + 3600;
    for claims in [
        json!({"sub": "alice", "exp": later, "nbf": now - 1, "iat": now, "iss": "app", "jti": "1"}),
        json!({"sub": "a".repeat(128), "exp": later}),
        json!({"sub": "é".repeat(64), "exp": later}),
        json!({"sub": "alice", "exp": later, "admin": false}),
    ] {
        let token = server.sign(&claims);
        assert_eq!(pull_with(&server, &[("Token", &token)]).status, 200, "{claims}");
    }
}

/// The algorithm belongs to the key: a public key is no secret, whatever the token says.
#[test]
fn a_public_key_is_not_accepted_as_a_secret() {
    for name in ["rsa.public.pem", "p256.public.pem", "ed25519.public.pem"] {
        let path = key_path(name);
        let server = TestServer::start_with(&["--verify-key", path.to_str().expect("UTF-8")]);
        let pem = key_file(name);
        assert_not_accepted(&server, name, &sign_with_secret(&pem, &claims_of("alice")));
        assert_not_accepted(&server, name, &sign_with_secret(pem.trim_ascii_end(), &claims_of("alice")));
    }
}

#[test]
fn a_refusal_does_not_say_what_was_wrong_with_the_signature() {
    let server = shared_server();
    let words = |token: &str| pull_with(&server, &[("Token", token)]).assert_error(401, 10004);
    let wrong_key = words(&sign_with_secret(&[7; 32], &claims_of("alice")));
    let wrong_user = words(&sign_with_secret(&[7; 32], &claims_of("mallory")));
    assert_eq!(wrong_key, wrong_user);
    assert!(!wrong_key.contains("alice"));
}

#[test]
fn a_token_that_expires_on_an_open_connection_is_refused_from_then_on() {
    let server = shared_server();
    let exp = (since_epoch() + Duration::from_secs(1)).as_secs();
    let user = fresh("alice");
    let client = Client::new(server.ready().http, &user, server.sign(&json!({"sub": user, "exp": exp})));
    // Each call lasts a moment, and clocks are allowed to differ a little.
    let wait = json!({"direction": "after", "start_msg_index": 1, "count": 1, "wait_ms": 500});
    let deadline = Instant::now() + 3 * DEADLINE;
    let refused = loop {
        assert!(Instant::now() < deadline, "accepted long after its time");
        let reply = client.with("bob").call("pull", &wait);
        if reply.status != 200 {
            break reply;
        }
    };
    refused.assert_error(401, 10004);
    assert!(since_epoch().as_secs() >= exp, "refused before its time");
}

#[test]
fn two_users_on_one_connection_are_told_apart() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let mut connection = server.connect();
    for (sender, text) in [(&alice, "one"), (&bob, "two"), (&alice, "three")] {
        let target = fresh("target");
        let body = json!({"target": target, "target_type": "user", "msg": text}).to_string();
        connection.write(sender.request("/im.chat/send", &[], body.as_bytes())).expect("the server reads");
        assert_eq!(connection.read_reply().expect("a reply").ok()["msg_index"], 1);
        let seen = server.client(&target).with(&sender.user).beginning();
        assert_eq!(seen.msgs[0].sender, sender.user);
    }
}

/// Sends one text each way and checks that both see both, under the ids as given.
fn assert_conversation(server: &TestServer, a: &str, b: &str) {
    let (alice, bob) = (server.client(a), server.client(b));
    assert_eq!(alice.with(b).beginning().max_msg_index, 0, "{a:?} and {b:?} begin with nothing");
    alice.with(b).send("there");
    bob.with(a).send("and back");
    let (left, right) = (alice.with(b).beginning(), bob.with(a).beginning());
    assert_eq!(left.texts(), ["there", "and back"]);
    assert_eq!(right.texts(), ["there", "and back"]);
    assert_eq!((left.msgs[0].sender.as_str(), left.msgs[1].sender.as_str()), (a, b));
    assert_eq!((left.msgs[0].target.as_str(), right.msgs[0].target.as_str()), (b, a));
}

#[test]
fn ids_may_hold_any_character_but_controls() {
    let server = TestServer::start();
    for odd in [
        "a b",
        "a/b",
        "a\\b",
        "\"",
        "'",
        "%2F",
        "a+b",
        "a&b=c",
        "..",
        "*",
        "{}",
        "null",
        "0",
        "日本語",
        "\u{1F600}",
        "\u{202E}rtl",
        "é",
        "e\u{301}",
        " ",
        "a ",
        "a",
        "A",
    ] {
        assert_conversation(&server, odd, "someone");
    }
    assert_conversation(&server, &"x".repeat(128), &"é".repeat(64));
}

#[test]
fn pairs_whose_joined_names_are_equal_are_separate() {
    let server = TestServer::start();
    for (a, b) in [
        ("a-b", "c"),
        ("a", "b-c"),
        ("a:b", "c"),
        ("a", "b:c"),
        ("ab", "c"),
        ("a", "bc"),
        ("a|b", "c"),
        ("a", "b|c"),
        ("a,b", "c"),
        ("a", "b,c"),
        ("a/b", "c"),
        ("a", "b/c"),
    ] {
        assert_conversation(&server, a, b);
    }
}

#[test]
fn a_group_named_like_a_pair_or_a_user_is_separate() {
    let server = TestServer::start();
    let alice = server.client("alice");
    alice.with("bob").send("in private");
    for id in ["alice-bob", "alice:bob", "bob", "alice", "alice|bob"] {
        alice.create_group(id, &[]);
        assert_eq!(alice.group(id).beginning().max_msg_index, 0, "{id}");
        assert_eq!(alice.group(id).send("in a group").msg_index, 1);
    }
    assert_eq!(alice.with("bob").beginning().texts(), ["in private"]);
}

#[test]
fn a_user_may_talk_to_themselves() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    let own = alice.with(&alice.user);
    assert_eq!(own.send("remember the milk").msg_index, 1);
    let page = own.beginning();
    assert_eq!(page.texts(), ["remember the milk"]);
    assert_eq!((&page.msgs[0].sender, &page.msgs[0].target), (&alice.user, &alice.user));
    own.ack(1);
    assert_eq!(own.recall(1), 1);
}

#[test]
fn nobody_reads_a_conversation_of_two_others() {
    let server = shared_server();
    let (alice, bob) = server.strangers();
    let carol = server.client(&fresh("carol"));
    alice.with(&bob.user).send("for bob only");
    for other in [&alice.user, &bob.user, &carol.user] {
        let page = carol.with(other).beginning();
        assert_eq!((page.msgs.len(), page.max_msg_index), (0, 0));
        carol.with(other).call("recall", &json!({"msg_index": 1})).assert_error(404, 20001);
    }
}

#[test]
fn only_true_makes_an_admin() {
    let server = shared_server();
    let owner = server.client(&fresh("owner"));
    let group = fresh("group");
    owner.create_group(&group, &[]);
    let info = json!({"group_id": group});
    for (admin, status) in [
        (json!(true), 200),
        (json!(false), 403),
        (json!("true"), 403),
        (json!(1), 403),
        (Value::Null, 403),
        (json!({}), 403),
    ] {
        let mut claims = claims_of("app");
        claims["admin"] = admin.clone();
        let client = Client::new(server.ready().http, "app", server.sign(&claims));
        // A claim of the wrong type may as well make the whole token bad.
        let reply = client.call("/im.group/info", &info);
        assert!(reply.status == status || (status == 403 && reply.status == 401), "{admin}: {reply:?}");
    }
}
