//! What an operator or an app's own backend gets from a running server: tokens, and the members of any group.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, TestServer, fresh, key_path, shared_server, since_epoch};

const TOKEN: &str = "/im.admin/token";
const MEMBERS: &str = "/im.admin/members";
const DAY_S: u64 = 24 * 3600;

/// A token for what `body` asks for, and when it ends.
#[track_caller]
fn token(server: &TestServer, body: &Value) -> (String, u64) {
    let reply = server.operator().call(TOKEN, body);
    assert_eq!(reply.header("cache-control"), Some("no-store"), "nobody keeps it on the way");
    let reply = reply.ok();
    let token = reply["token"].as_str().expect("a token").to_owned();
    (token, reply["expires"].as_u64().expect("seconds"))
}

#[test]
fn a_token_names_its_user_and_no_admin() {
    let server = shared_server();
    let (alice, bob) = (fresh("alice \u{1F600}"), fresh("bob"));
    let (token, expires) = token(&server, &json!({"user": alice}));
    assert!(expires.abs_diff(since_epoch().as_secs() + DAY_S) < 100, "{expires}");
    let client = Client::new(server.ready().http, &alice, token.clone());
    client.with(&bob).send("hello");
    assert_eq!(server.client(&bob).with(&alice).beginning().msgs[0].sender, alice);
    let no_operator = Client::new(server.ready().ops, &alice, token);
    no_operator.call(TOKEN, &json!({"user": "x"})).assert_error(403, 10008);
}

#[test]
fn a_token_lasts_as_long_as_was_asked_for() {
    let server = shared_server();
    let now = since_epoch().as_secs();
    for (ttl, seconds) in [
        (json!("90m"), 5400),
        (json!("1h 30m"), 5400),
        (json!(5400), 5400),
        (json!("1s"), 1),
        (json!(1), 1),
        (json!("3650days"), 3650 * DAY_S),
        (json!(3650 * DAY_S), 3650 * DAY_S),
        (Value::Null, DAY_S),
    ] {
        let (_, expires) = token(&server, &json!({"user": "a", "ttl": ttl}));
        assert!(expires.abs_diff(now + seconds) < 100, "{ttl}: {expires}");
    }
}

#[test]
fn an_admin_token_opens_the_admin_calls() {
    let server = shared_server();
    let (token, _) = token(&server, &json!({"user": "app", "ttl": "1m", "admin": true}));
    let app = Client::new(server.ready().ops, "app", token);
    app.call(TOKEN, &json!({"user": "x"})).ok();
    assert!(server.stderr().contains("signed an admin token"), "who has been made an operator is in the log");
}

#[test]
fn what_makes_no_token_is_named_with_its_limit() {
    let server = shared_server();
    let operator = server.operator();
    let long = "a".repeat(129);
    for (body, parts) in [
        (json!({}), ["user", "must not be empty"]),
        (json!({"user": ""}), ["user", "must not be empty"]),
        (json!({"user": long}), ["user", "128"]),
        (json!({"user": "a\nb"}), ["user", "control"]),
        (json!({"user": 7}), ["user", "text"]),
        (json!(["a"]), ["JSON object", "body"]),
        (json!({"user": "a", "ttl": "0s"}), ["ttl", "between 1s and"]),
        (json!({"user": "a", "ttl": 0}), ["ttl", "between 1s and"]),
        (json!({"user": "a", "ttl": "3651days"}), ["ttl", "between 1s and"]),
        (json!({"user": "a", "ttl": u32::MAX}), ["ttl", "between 1s and"]),
        (json!({"user": "a", "ttl": u64::MAX}), ["ttl", "seconds"]),
        (json!({"user": "a", "ttl": "soon"}), ["ttl", "not a duration"]),
        (json!({"user": "a", "ttl": "3600"}), ["ttl", "not a duration"]),
        (json!({"user": "a", "ttl": -1}), ["ttl", "seconds"]),
        (json!({"user": "a", "ttl": 1.5}), ["ttl", "seconds"]),
        (json!({"user": "a", "ttl": ["1h"]}), ["ttl", "seconds"]),
        (json!({"user": "a", "admin": "yes"}), ["admin", "true or false"]),
        (json!({"user": "a", "name": "x"}), ["unknown field", "name"]),
    ] {
        operator.call(TOKEN, &body).assert_error_naming(400, 10001, &parts);
    }
}

/// The server's own key is accepted beside others, so there is always one to sign with.
#[test]
fn tokens_are_signed_whatever_other_keys_are_accepted_and_last_over_a_restart() {
    let path = key_path("p256.public.pem");
    let mut server = TestServer::start_with(&["--verify-key", path.to_str().expect("UTF-8")]);
    let (token, _) = token(&server, &json!({"user": "alice"}));
    let send = |server: &TestServer| {
        let alice = Client::new(server.ready().http, "alice", token.clone());
        alice.with("bob").send("m").msg_index
    };
    assert_eq!(send(&server), 1);
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code(), Some(0));
    server.start_again();
    assert_eq!(send(&server), 2);
}

#[test]
fn calls_that_take_no_time_wait_for_no_order() {
    let server = TestServer::start();
    let operator = server.operator();
    let owner = server.client("owner");
    owner.create_group("g", &["bob"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                server.operator().call("/im.admin/snapshot", &json!({"compact": true})).ok();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            operator.call(TOKEN, &json!({"user": "a"})).ok();
            operator.call(MEMBERS, &json!({"group_id": "g"})).ok();
        }
    });
}

#[test]
fn an_operator_sees_the_members_of_any_group_page_by_page() {
    let server = shared_server();
    let owner = server.client(&fresh("owner"));
    let (group, operator) = (fresh("group"), server.operator());
    let names: Vec<String> = (0..5).map(|number| format!("member {number}")).collect();
    owner.create_group(&group, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let until = (since_epoch() + Duration::from_hours(1)).as_secs();
    owner.group_call("mute", &json!({"group_id": group, "user_id": names[3], "until": until}));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = operator.call(MEMBERS, &json!({"group_id": group, "count": 2, "cursor": cursor})).ok();
        seen.extend(page["members"].as_array().expect("members").clone());
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    let whole = owner.group_call("members", &json!({"group_id": group}));
    assert_eq!(json!({"members": seen, "cursor": ""}), whole, "it says what a member is told");
    assert_eq!((&seen[0]["user_id"], &seen[0]["duty"]), (&json!(owner.user), &json!(2)));
    assert_eq!((&seen[4]["user_id"], &seen[4]["muted_until"]), (&json!(names[3]), &json!(until)));
    for (body, field) in [
        (json!({}), "group_id"),
        (json!({"group_id": group, "count": 1001}), "count"),
        (json!({"group_id": group, "cursor": "c".repeat(257)}), "cursor"),
        (json!({"group_id": group, "cursor": "other"}), "cursor"),
        (json!([group]), "object"),
    ] {
        operator.call(MEMBERS, &body).assert_error_naming(400, 10001, &[field]);
    }
    operator.call(MEMBERS, &json!({"group_id": fresh("none")})).assert_error(404, 22002);
    let no_admin = Client::new(server.ready().ops, &owner.user, owner.token().to_owned());
    no_admin.call(MEMBERS, &json!({"group_id": group})).assert_error(403, 10008);
    owner.group_call("dismiss", &json!({"group_id": group}));
    operator.call(MEMBERS, &json!({"group_id": group})).assert_error(404, 22002);
}

#[test]
fn the_members_of_a_group_that_is_not_in_memory_are_read() {
    let mut server = TestServer::start();
    server.client("owner").create_group("g", &["bob"]);
    server.stop();
    server.start_again();
    let page = server.operator().call(MEMBERS, &json!({"group_id": "g"})).ok();
    assert_eq!(page["members"].as_array().map(Vec::len), Some(2));
}
