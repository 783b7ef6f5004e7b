//! What an operator does: look, copy, go back, move elsewhere. The tools are the real binary too.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Finished, LATEST, Process, TestServer, chinwag, since_epoch};

/// Runs the binary with these arguments to its end.
fn run(arguments: &[&str]) -> Finished {
    Process::run(chinwag(arguments))
}

/// The same where it must end well; gives its standard output.
#[track_caller]
fn ran(arguments: &[&str]) -> Vec<String> {
    let finished = run(arguments);
    assert_eq!(finished.code(), Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[track_caller]
fn state_hash(told: &[String]) -> &str {
    let hash = told.iter().find_map(|line| line.strip_prefix("state hash "));
    hash.unwrap_or_else(|| panic!("no state hash in {told:?}"))
}

/// A chat of two with a recall and acks, and a group.
fn chat(server: &TestServer, messages: u32) {
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    for number in 1..=messages {
        alice.with("bob").send_named(&format!("id {number}"), &format!("message \"{number}\""));
    }
    alice.with("bob").recall(2);
    bob.with("alice").ack(messages - 1);
    alice.create_group("team", &["bob", "carol"]);
    bob.group("team").send("hello all");
}

/// The same server on another directory.
fn serve(data: &Path) -> TestServer {
    let directory = std::sync::Arc::new(directory());
    let arrangement = Default::default();
    let process = Process::start(
        crate::support::Arrangement::command(&arrangement, data),
        &directory.path().join("stderr"),
    );
    TestServer::of(process, directory, data.to_path_buf(), arrangement)
}

#[test]
fn verify_finds_a_killed_and_a_stopped_server_clean_with_one_state_hash() {
    let mut server = TestServer::start();
    chat(&server, 20);
    run(&["verify", text(server.data())]).assert_refused_in_one_line(73, &["is in use by process"]);
    server.kill();
    let killed = ran(&["verify", text(server.data())]);
    assert_eq!(killed.last().map(String::as_str), Some("clean"));
    assert!(killed.contains(&"chat conversations=2 messages=21 recalls=1".to_owned()), "{killed:?}");
    server.start_again();
    server.stop();
    let stopped = ran(&["verify", text(server.data())]);
    assert_eq!(state_hash(&stopped), state_hash(&killed));
    let inspected = ran(&["inspect", text(server.data()), "--json"]).concat();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("one JSON object");
    assert_eq!((&inspected["sound"], &inspected["messages"]), (&json!(true), &json!(21)));
}

#[test]
fn what_is_no_data_directory_is_bad_usage_and_named_in_one_line() {
    let there = directory();
    let [missing, empty, file] = ["missing", "empty", "file"].map(|name| there.path().join(name));
    std::fs::create_dir(&empty).expect("a directory");
    std::fs::write(&file, "mine").expect("a file");
    let new = there.path().join("new");
    for (path, why) in [
        (&missing, "is not there"),
        (&empty, "holds no store"),
        (&file, "is not a directory"),
        (&file.join("below"), "is not a directory"),
    ] {
        let path = text(path);
        for arguments in [
            &["verify", path][..],
            &["inspect", path],
            &["export", path],
            &["export", path, "--out", text(&new)],
            &["backup", "--data", path, "--to", text(&new)],
            &["restore", path, "--data", text(&new)],
        ] {
            run(arguments).assert_refused_in_one_line(2, &[path, why]);
        }
        assert!(
            !new.exists()
                && !missing.exists()
                && std::fs::read_dir(&empty).expect("it is there").count() == 0
        );
    }
}

#[test]
fn verify_ends_with_65_for_damage_and_with_1_for_a_torn_tail() {
    let mut server = TestServer::start();
    chat(&server, 20);
    server.kill();
    let wal = server.data().join("wal");
    let entry = std::fs::read_dir(&wal).expect("the log's directory").next();
    let segment = entry.expect("a segment").expect("an entry").path();
    let whole = std::fs::read(&segment).expect("the segment");
    let end = whole.iter().rposition(|byte| *byte != 0).expect("records");
    std::fs::write(&segment, &whole[..end - 2]).expect("the segment is written");
    let torn = run(&["verify", text(server.data())]);
    assert_eq!(torn.code(), Some(1), "{torn:?}");
    assert!(torn.stdout[0].starts_with("torn tail: ") && torn.stderr.contains("nothing but a torn tail"));
    let mut damaged = whole.clone();
    damaged[4096 + 40] ^= 1;
    std::fs::write(&segment, &damaged).expect("the segment is written");
    let found = run(&["verify", text(server.data())]);
    assert_eq!(found.code(), Some(65), "{found:?}");
    assert!(
        found.stdout[0].contains(text(&segment)) && found.stdout[0].contains("at byte 4096"),
        "{found:?}"
    );
    assert_eq!(found.stderr.lines().count(), 1, "{}", found.stderr);
    std::fs::write(&segment, &whole).expect("the segment is written");
    ran(&["verify", text(server.data())]);
}

#[test]
fn an_export_imported_elsewhere_exports_the_same_bytes_and_serves() {
    let (mut server, there) = (TestServer::start(), directory());
    chat(&server, 20);
    server.stop();
    let [first, second] = ["first.jsonl", "second.jsonl"].map(|name| there.path().join(name));
    let data = there.path().join("data");
    ran(&["export", text(server.data()), "--out", text(&first)]);
    let told = ran(&["import", text(&data), "--in", text(&first)]);
    assert_eq!(told[0], "imported conversations=2 messages=21 recalls=1");
    ran(&["export", text(&data), "--out", text(&second)]);
    let bytes = [&first, &second].map(|file| std::fs::read(file).expect("an export"));
    assert!(bytes[0] == bytes[1] && !bytes[0].is_empty());
    assert_eq!(state_hash(&told), state_hash(&ran(&["verify", text(server.data())])));
    let one = ran(&["export", text(&data), "--user", "bob", "--peer", "alice"]);
    assert_eq!(one.len(), 1 + 20 + 1);
    let refused = run(&["import", text(&data), "--in", text(&first)]);
    refused.assert_refused_in_one_line(1, &["line 1", "is there already"]);
    run(&["export", text(&data), "--out", text(&first)])
        .assert_refused_in_one_line(73, &["name another file"]);
    run(&["export", text(&data), "--group", "none"])
        .assert_refused_in_one_line(1, &["has no group \"none\""]);
    let mut server = serve(&data);
    let alice = server.client("alice");
    assert_eq!(server.ready().conversations, 2);
    assert!(alice.with("bob").send_named("id 7", "message \"7\"").duplicate);
    assert_eq!(alice.with("bob").send("on it goes").msg_index, 21);
    server.stop();
    ran(&["verify", text(&data)]);
}

#[test]
fn a_backup_of_a_running_server_is_restored_with_everything_acknowledged_before_it() {
    let (server, there) = (TestServer::start(), directory());
    chat(&server, 20);
    let [backup, data] = ["backup", "data"].map(|name| there.path().join(name));
    let stop = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let (carol, mut slowest) = (server.client("carol"), Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                carol.with("dave").send(&"x".repeat(2_000));
                slowest = slowest.max(began.elapsed());
            }
            slowest
        });
        let ops = server.ready().ops.to_string();
        let told = ran(&["backup", "--data", text(server.data()), "--ops", &ops, "--to", text(&backup)]);
        assert!(told[0].starts_with("backed up to=") && !told[0].contains("linked=0 "), "{told:?}");
        stop.store(true, Ordering::Relaxed);
        sending.join().expect("no panic")
    });
    assert!(slowest < LATEST, "a send took {slowest:?}");
    let backed_up = ran(&["verify", text(&backup)]);
    let epoch = server.client("alice").with("bob").beginning().epoch;
    let told = ran(&["restore", text(&backup), "--data", text(&data)]);
    assert_eq!(state_hash(&told), state_hash(&backed_up));
    let restored = serve(&data);
    let alice = restored.client("alice");
    let page = alice.with("bob").everything();
    assert_eq!(
        (page.max_msg_index, page.max_recall_index, page.msgs[0].msg.as_str()),
        (20, 1, "message \"1\"")
    );
    assert!(page.epoch > epoch);
    assert!(alice.with("bob").send_named("id 20", "message \"20\"").duplicate, "a retry across the restore");
    let of_before = server.client("bob");
    let same_key = restored.client("bob");
    assert_eq!(of_before.token().split('.').next(), same_key.token().split('.').next());
    run(&["restore", text(&backup), "--data", text(&data)]).assert_refused_in_one_line(73, &[]);
}

#[test]
fn a_restore_goes_back_to_a_moment() {
    let (mut server, there) = (TestServer::start(), directory());
    let alice = server.client("alice");
    alice.with("bob").send("before");
    let moment = since_epoch();
    alice.with("bob").send("after");
    server.stop();
    let at = humantime::format_rfc3339_nanos(std::time::UNIX_EPOCH + moment).to_string();
    for (at, expected) in [(at.as_str(), &["before"][..]), ("1", &["before"]), ("2", &["before", "after"])] {
        let data = there.path().join(format!("to-{at}"));
        ran(&["restore", text(server.data()), "--data", text(&data), "--at", at]);
        assert_eq!(serve(&data).client("alice").with("bob").everything().texts(), expected, "{at}");
    }
    let data = there.path().join("never");
    let refused = run(&["restore", text(server.data()), "--data", text(&data), "--at", "3"]);
    refused.assert_refused_in_one_line(1, &["the log ends at record 2"]);
    let refused = run(&["restore", text(server.data()), "--data", text(&data), "--at", "soon"]);
    refused.assert_refused_in_one_line(2, &["--at", "2026-01-31T12:00:00Z"]);
}

#[test]
fn a_snapshot_on_order_takes_recalled_texts_off_the_disk() {
    let mut server = TestServer::start();
    let alice = server.client("alice");
    let secret = "a secret that has to go";
    alice.with("bob").send(secret);
    alice.create_group("team", &["bob"]);
    alice.group("team").send(secret);
    let order = |client: &crate::support::Client, body| {
        let ops = crate::support::Client::new(server.ready().ops, "ops", client.token().to_owned());
        ops.call("/im.admin/snapshot", &body)
    };
    let admin = server.admin("root");
    order(&admin, json!({})).ok();
    alice.with("bob").send("what stays");
    alice.with("bob").recall(1);
    alice.group("team").recall(1);
    let before = files_with(server.data(), secret);
    for directory in ["wal", "snap"] {
        let is_in = |path: &PathBuf| path.parent().is_some_and(|parent| parent.ends_with(directory));
        assert!(before.iter().any(is_in), "the control: {directory} has it; {before:?}");
    }
    order(&admin, json!({"compact": true})).ok();
    assert_eq!(files_with(server.data(), secret), [""; 0].map(PathBuf::from));
    order(&alice, json!({})).assert_error(403, 10008);
    server.kill();
    server.start_again();
    let alice = server.client("alice");
    assert_eq!(alice.with("bob").beginning().texts(), ["", "what stays"]);
    assert_eq!(alice.with("bob").send("goes on").msg_index, 3);
    assert_eq!(alice.group("team").beginning().texts(), [""]);
    server.stop();
    assert_eq!(files_with(server.data(), secret), [""; 0].map(PathBuf::from));
}

/// Segments are mostly zeros, and a search through them takes seconds.
fn without_zeros(bytes: &[u8]) -> Vec<u8> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let blocks = bytes.chunks(ZEROS.len()).filter(|block| **block != ZEROS[..block.len()]);
    blocks.flatten().copied().collect()
}

/// The files below a directory that hold this text, in whatever directory below.
fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && without_zeros(&bytes).windows(text.len()).any(|at| at == text.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_backup_says_in_one_line_why_it_cannot_be_taken() {
    let (server, there) = (TestServer::start(), directory());
    let (ops, data) = (server.ready().ops.to_string(), text(server.data()));
    std::fs::write(there.path().join("mine"), "x").expect("a file");
    let to = |to: &Path| run(&["backup", "--data", data, "--ops", &ops, "--to", text(to)]);
    to(there.path()).assert_refused_in_one_line(1, &["is not empty"]);
    to(&server.data().join("backup")).assert_refused_in_one_line(1, &["lies inside"]);
    let backup = there.path().join("backup");
    let token = server.client("alice").token().to_owned();
    let refused = run(&["backup", "--ops", &ops, "--token", &token, "--to", text(&backup)]);
    refused.assert_refused_in_one_line(1, &["403", "admin token"]);
    let refused = run(&["backup", "--ops", "127.0.0.1:1", "--token", &token, "--to", text(&backup)]);
    refused.assert_refused_in_one_line(1, &["no answer from the server at 127.0.0.1:1"]);
    assert!(!backup.exists());
}
