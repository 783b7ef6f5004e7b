//! The figures of a node at a glance: who may see them, what they are called, and that they are true.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, eventually, request, shared_server, since_epoch};

const PATH: &str = "/im.admin/stats";

fn stats(server: &TestServer) -> Value {
    server.operator().call(PATH, &json!({})).ok()
}

/// The names of all fields, those inside of others behind a point; of maps by something else only the map.
fn names(value: &Value, before: &str, found: &mut Vec<String>) {
    for (name, inner) in value.as_object().expect("an object") {
        let name = format!("{before}{name}");
        match inner {
            Value::Object(_) if name != "requests.verbs" && name != "requests.errors_by_code" => {
                names(inner, &format!("{name}."), found);
            }
            _ => found.push(name),
        }
    }
}

#[test]
fn only_an_admin_token_sees_them() {
    let server = shared_server();
    let call =
        |token: &str, body: &Value| Client::new(server.ready().ops, "x", token.to_owned()).call(PATH, body);
    call(server.client("alice").token(), &json!({})).assert_error(403, 10008);
    call("a.b.c", &json!({})).assert_error(401, 10004);
    server.ops("POST", PATH).assert_error(401, 10004);
    let admin = server.admin("root");
    call(admin.token(), &json!({"verbose": true})).assert_error_naming(400, 10001, &["verbose"]);
    server.exchange(request("POST", PATH, &[("Token", admin.token())], b"{}")).assert_error(404, 10001);
    let got = server.operator().get(PATH, &[]);
    let mut connection = crate::support::Connection::open(server.ready().ops).expect("a connection");
    connection.write(got).expect("the server reads");
    connection.read_reply().expect("a reply").assert_error(405, 10001);
}

#[test]
fn every_field_is_there_from_the_start_and_is_in_the_handbook() {
    let (server, handbook) = (shared_server(), include_str!("../../docs/operations.md"));
    let mut found = Vec::new();
    names(&stats(&server), "", &mut found);
    assert!(found.len() > 50, "{found:?}");
    let missing: Vec<_> = found.iter().filter(|name| !handbook.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md does not name {missing:?}");
}

#[test]
fn they_move_with_what_happens() {
    let server =
        TestServer::start_with(&["--sync", "interval", "--connections", "77", "--memory-limit", "123456789"]);
    let fresh = stats(&server);
    assert_eq!(fresh["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&fresh["sync_mode"], &fresh["readiness"]), (&json!("interval"), &json!("ready")));
    assert_eq!((&fresh["epoch"], &fresh["connections"]["max"]), (&json!(1), &json!(77)));
    assert_eq!(fresh["store_id"].as_str().map(str::len), Some(32));
    assert_eq!(fresh["memory"]["conversations_max_bytes"], 123_456_789);
    assert_eq!(fresh["requests"]["verbs"], json!({}));
    assert_eq!(fresh["snapshot"]["last_checkpoint_s"], Value::Null);
    assert_eq!((&fresh["log"]["appended_lsn"], &fresh["log"]["state"]), (&json!(0), &json!("writable")));
    let time_s = fresh["time_s"].as_u64().expect("a time");
    assert!(since_epoch().as_secs().abs_diff(time_s) < 60);

    let (alice, bob) = (server.client("alice"), server.client("bob"));
    let _stream = bob.stream();
    alice.with("bob").send("one");
    alice.with("bob").send("two");
    alice.with("carol").send("three");
    alice.with("bob").call("send", &json!({"msg": ""})).assert_error(400, 10001);
    let busy = eventually("all of it is counted", || {
        let busy = stats(&server);
        (busy["requests"]["in_flight"] == 0 && busy["requests"]["permits_taken"] == 0).then_some(busy)
    });
    assert_eq!(busy["messages"], json!({"accepted": 3, "at_start": 0}));
    assert_eq!(
        (&busy["conversations"]["known"], &busy["conversations"]["in_memory"]),
        (&json!(2), &json!(2))
    );
    let sends = &busy["requests"]["verbs"]["send"];
    assert_eq!((&sends["answered"], &sends["errors"]), (&json!(4), &json!(1)));
    let quantiles =
        ["p50_us", "p90_us", "p99_us", "p999_us"].map(|name| sends[name].as_u64().expect("a time"));
    assert!(quantiles[0] > 0 && quantiles.is_sorted(), "{quantiles:?}");
    assert_eq!(busy["requests"]["errors_by_code"]["10001"], 1);
    assert_eq!(busy["requests"]["errors_by_code"]["10011"], 0);
    assert_eq!(busy["streams"]["websocket"], 1);
    assert!(busy["connections"]["open"].as_u64() >= Some(2), "{}", busy["connections"]);
    let log = &busy["log"];
    assert_eq!(
        (&log["appended_lsn"], &log["durable_lsn"], &log["waiting_records"]),
        (&json!(3), &json!(3), &json!(0))
    );
    assert!(log["kept_bytes"].as_u64() > log["appended_bytes"].as_u64(), "{log}");
    assert_eq!((&log["segments"], &log["oldest_lsn"]), (&json!(1), &json!(1)));
    assert!(busy["memory"]["resident_bytes"].as_u64() > Some(1 << 20));
    assert!(busy["disk"]["free_bytes"].as_u64() > Some(0));
}

#[test]
fn a_checkpoint_shows_in_them_and_a_start_begins_to_count_anew() {
    let mut server = TestServer::start();
    server.client("alice").with("bob").send("m");
    server.operator().call("/im.admin/snapshot", &json!({})).ok();
    let snapshot = stats(&server)["snapshot"].clone();
    assert_eq!(
        (&snapshot["packs"], &snapshot["checkpoints"], &snapshot["is_failing"]),
        (&json!(1), &json!(1), &json!(false))
    );
    assert!(
        snapshot["packs_bytes"].as_u64() > Some(0) && snapshot["last_checkpoint_ms"].is_u64(),
        "{snapshot}"
    );
    let written_s = snapshot["last_checkpoint_s"].as_u64().expect("a time");
    assert!(since_epoch().as_secs().abs_diff(written_s) < 60);
    server.stop();
    server.start_again();
    let anew = stats(&server);
    assert_eq!(anew["messages"], json!({"accepted": 0, "at_start": 1}));
    assert_eq!(
        (&anew["snapshot"]["checkpoints"], &anew["snapshot"]["last_checkpoint_s"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!((&anew["snapshot"]["packs"], &anew["log"]["appended_lsn"]), (&json!(1), &json!(1)));
}

#[test]
fn while_draining_they_say_so() {
    let mut server = TestServer::start_with(&["--drain-timeout", "60s", "--body-timeout", "60s"]);
    let alice = server.client("alice");
    let bytes = alice.request("/im.chat/send", &[("Expect", "100-continue")], b"{}");
    let mut hanging = server.connect();
    hanging.write(&bytes[..bytes.len() - 1]).expect("the server reads");
    hanging.read_continue().expect("the server waits for the body");
    server.signal(rustix::process::Signal::TERM);
    server.wait_until_draining();
    let stats = stats(&server);
    assert_eq!((&stats["readiness"], &stats["requests"]["in_flight"]), (&json!("draining"), &json!(1)));
    hanging.write(&bytes[bytes.len() - 1..]).expect("the server reads");
    assert_eq!(server.finish().code(), Some(0));
}
