//! Checkpoints: the log is cut behind them, and nothing is lost by it.

use std::path::Path;

use serde_json::json;

use crate::support::{Page, TestServer, eventually};

const SMALL: [&str; 4] = ["--checkpoint-interval", "1s", "--checkpoint-bytes", "1MiB"];

fn segments(data: &Path) -> usize {
    let entries = std::fs::read_dir(data.join("wal")).expect("the log's directory");
    entries
        .filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "wal"))
        })
        .count()
}

fn checkpoints(server: &TestServer) -> f64 {
    let metrics = server.ops("GET", "/metrics");
    let lines = metrics.text().lines().filter(|line| line.starts_with("chinwag_checkpoints_total{"));
    let failed: Vec<_> =
        lines.clone().filter(|line| !line.contains("\"ok\"") && !line.ends_with(" 0")).collect();
    assert_eq!(failed, Vec::<&str>::new(), "a checkpoint failed");
    lines
        .filter(|line| line.contains("\"ok\""))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// More than a checkpoint's worth of log; waits until one has been taken that covers it.
fn fill(server: &TestServer, life: u32) {
    let alice = server.client("alice");
    let before = checkpoints(server);
    for number in 0..24 {
        let text = format!("{life} {number} {}", "x".repeat(50_000));
        let target = format!("user {}", number % 3);
        let name = format!("{life} {number}");
        alice.with(&target).send_named(&name, &text);
    }
    eventually("a checkpoint", || (checkpoints(server) > before).then_some(()));
}

fn everything(server: &TestServer) -> Vec<Page> {
    let alice = server.client("alice");
    (0..3).map(|number| alice.with(&format!("user {number}")).everything()).collect()
}

#[test]
fn the_log_stays_short_over_many_lives_and_nothing_is_lost() {
    let mut server = TestServer::start_with(&SMALL);
    for life in 1..=6 {
        fill(&server, life);
        let alice = server.client("alice");
        // On top of the checkpoint, in the log alone.
        alice.with("user 0").send("behind the checkpoint");
        let page = alice.with("user 0").pull(&json!({}));
        alice.with("user 0").recall(page.max_msg_index);
        let before = everything(&server);
        if life % 2 == 0 {
            server.stop()
        } else {
            server.kill()
        }
        server.start_again();
        assert_eq!(everything(&server), before, "life {life}");
    }
    fill(&server, 7);
    eventually("a short log", || (segments(server.data()) <= 4).then_some(()));
    let again = server
        .client("alice")
        .with("user 1")
        .call("send", &json!({"msg": format!("7 1 {}", "x".repeat(50_000)), "client_msg_id": "7 1"}));
    assert_eq!(again.ok()["duplicate"], true);
}

#[test]
fn what_is_only_in_a_checkpoint_still_answers_retries_and_recalls() {
    let mut server = TestServer::start_with(&SMALL);
    let alice = server.client("alice");
    alice.create_group("g", &["bob"]);
    let first = alice.group("g").send_named("early", "early");
    alice.group("g").send("regretted");
    alice.group("g").recall(2);
    for life in 1..=3 {
        fill(&server, life);
        server.kill();
        server.start_again();
    }
    let alice = server.client("alice");
    let again = alice.group("g").send_named("early", "early");
    assert!(again.duplicate && again.timestamp_ns == first.timestamp_ns, "{again:?}");
    alice
        .group("g")
        .call("send", &json!({"msg": "other", "client_msg_id": "early"}))
        .assert_error(409, 20003);
    assert_eq!(alice.group("g").recall(2), 1);
    let page = server.client("bob").group("g").beginning();
    assert_eq!(page.texts(), ["early", ""]);
    assert_eq!(page.recalls.into_iter().collect::<Vec<_>>(), [(1, 2)]);
}

#[test]
fn a_kill_in_the_middle_of_checkpoints_loses_nothing() {
    let mut server = TestServer::start_with(&SMALL);
    for life in 1..=4 {
        let alice = server.client("alice");
        // A checkpoint is due somewhere in here, and nobody waits for it.
        for number in 0..30 {
            alice
                .with(&format!("user {}", number % 3))
                .send(&format!("{life} {number} {}", "x".repeat(50_000)));
        }
        let before = everything(&server);
        server.kill();
        server.start_again();
        assert_eq!(everything(&server), before, "life {life}");
    }
}
