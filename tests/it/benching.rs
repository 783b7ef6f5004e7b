//! `chinwag bench`, at its shortest: against a server of its own, against one that runs, and against none.

use serde_json::{Value, json};

use crate::support::{Finished, Process, TestServer, chinwag};

/// As short as it can be where nothing has to come of it.
const SHORT: [&str; 2] = ["--duration", "500ms"];
/// Enough of every verb also on a busy machine with a slow disk.
const OF_ALL: [&str; 4] = ["--duration", "2s", "--mix", "send=2,pull=1,ack=1"];

fn bench(load: &[&str], arguments: &[&str]) -> Finished {
    let few = ["bench", "--connections", "4", "--conversations", "10", "--warm-up", "100ms"];
    Process::run(chinwag(&[&few, load, arguments].concat()))
}

/// The number in a column of the line that begins with a verb.
#[track_caller]
fn column(finished: &Finished, verb: &str, column: usize) -> f64 {
    let line = finished.stdout.iter().find(|line| line.starts_with(verb));
    let line = line.unwrap_or_else(|| panic!("no {verb} in {finished:?}"));
    line.split_whitespace().nth(column).and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn a_bench_without_a_server_starts_its_own_and_leaves_nothing() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (dir, json) = (place.path().join("dir"), place.path().join("result.json"));
    std::fs::create_dir(&dir).expect("a directory");
    let [dir_text, json_text] = [&dir, &json].map(|path| path.to_str().expect("UTF-8"));
    let finished = bench(&OF_ALL, &["--dir", dir_text, "--json", json_text, "--", "--segment-bytes", "1MiB"]);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    for verb in ["send", "pull", "ack", "all"] {
        assert!(column(&finished, verb, 1) > 0.0, "{finished:?}");
        assert_eq!(column(&finished, verb, 2), 0.0, "errors: {finished:?}");
    }
    assert!(finished.stdout.iter().any(|line| line.starts_with("disk's fdatasync")), "{finished:?}");
    let left: Vec<_> = std::fs::read_dir(&dir).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
    let json: Value = serde_json::from_slice(&std::fs::read(&json).expect("a file")).expect("JSON");
    assert_eq!(json["server"], "own, --sync always");
    assert!(json["all"]["latency_us"]["p99"].as_f64() > Some(0.0), "{json}");
    assert!(json["disk"]["fdatasync_us"]["p50"].as_f64() > Some(0.0), "{json}");
    assert!(json["server_cpu_us_per_request"].is_number(), "{json}");
}

#[test]
fn a_bench_of_a_running_server_keeps_to_a_rate_and_its_messages_are_there() {
    let server = TestServer::start();
    let url = format!("http://{}", server.ready().http);
    let data = server.data().to_str().expect("UTF-8");
    let place = tempfile::tempdir().expect("a temporary directory");
    let json = place.path().join("result.json");
    let json_text = json.to_str().expect("UTF-8");
    let rate = ["--rate", "200", "--mix", "send=1", "--json", json_text];
    let finished = bench(&SHORT, &[&["--url", &url, "--data", data], &rate[..]].concat());
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let json: Value = serde_json::from_slice(&std::fs::read(&json).expect("a file")).expect("JSON");
    let [sent, unsent] =
        [&json["all"]["requests"], &json["unsent"]].map(|count| count.as_u64().expect("a count"));
    // A hundred are due in half a second; a busy machine may leave some of them, and says so.
    assert!(sent <= 100 && sent + unsent >= 100, "{json}");
    let page = server.client("bench-0").with("bench-1").beginning();
    assert!(!page.indices().is_empty(), "bench-0 talks with its neighbour");
}

#[test]
fn a_bench_over_websockets_has_many_requests_in_flight_and_every_one_is_answered() {
    let server = TestServer::start();
    let url = format!("http://{}", server.ready().http);
    let place = tempfile::tempdir().expect("a temporary directory");
    let json = place.path().join("result.json");
    let [data, json_text] = [server.data(), &json].map(|path| path.to_str().expect("UTF-8"));
    let sockets = ["--transport", "ws", "--pipeline", "8", "--json", json_text];
    let finished = bench(&OF_ALL, &[&["--url", &url, "--data", data], &sockets[..]].concat());
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    for verb in ["send", "pull", "ack", "all"] {
        assert!(column(&finished, verb, 1) > 0.0, "{finished:?}");
        assert_eq!(column(&finished, verb, 2), 0.0, "errors: {finished:?}");
    }
    let json: Value = serde_json::from_slice(&std::fs::read(&json).expect("a file")).expect("JSON");
    assert_eq!((&json["transport"], &json["pipeline"]), (&"ws".into(), &8.into()), "{json}");
    let page = server.client("bench-0").with("bench-1").beginning();
    assert!(page.indices().len() > 1, "bench-0 talks with its neighbour, and not only before the load");
}

#[test]
fn a_bench_in_groups_makes_them_once_and_everybody_is_in_them() {
    let server = TestServer::start();
    let url = format!("http://{}", server.ready().http);
    let data = server.data().to_str().expect("UTF-8");
    for _ in 0..2 {
        let finished = bench(&SHORT, &["--url", &url, "--data", data, "--members", "120"]);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        assert_eq!(column(&finished, "all", 2), 0.0, "errors: {finished:?}");
        assert!(finished.stdout[0].contains("10 groups of 120 of 120 users"), "{finished:?}");
    }
    let info = server.client("bench-7").group_call("info", &json!({"group_id": "bench-9-of-120"}));
    assert_eq!(info["members_count"], 120);
}

#[test]
fn a_bench_that_finds_no_server_or_no_key_says_so_in_one_line() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path().to_str().expect("UTF-8");
    let no_key = bench(&SHORT, &["--url", "http://127.0.0.1:1", "--data", data]);
    no_key.assert_refused_in_one_line(1, &["token.key", "--key"]);
    let key = place.path().join("token.key");
    std::fs::write(&key, "00".repeat(32)).expect("a file");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let no_server = bench(&SHORT, &["--url", "http://127.0.0.1:1", "--data", data]);
    no_server.assert_refused_in_one_line(1, &["cannot connect"]);
}
