//! Damage: a torn end is cut, everything else is reported with its place and never passed over.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Finished, TestServer, eventually};

/// A server that was killed after ten messages, each in a batch of its own.
fn killed_after_ten_messages() -> TestServer {
    let mut server = TestServer::start();
    let alice = server.client("alice");
    for number in 1..=10 {
        alice.with("bob").send(&text(number));
    }
    server.kill();
    server
}

fn text(number: u32) -> String {
    format!("the text of message {number:02}")
}

/// The file of the log that holds `text`, and where.
fn find(data: &Path, text: &str) -> (PathBuf, usize) {
    try_find(&data.join("wal"), text).unwrap_or_else(|| panic!("{text:?} is nowhere in the log"))
}

/// A file below `directory` that holds `text`, and where.
fn try_find(directory: &Path, text: &str) -> Option<(PathBuf, usize)> {
    image(directory).into_iter().find_map(|(path, bytes)| {
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((path, at))
    })
}

/// In place, as bits rot: a running server never sees the file shorter than it is.
fn flip(path: &Path, at: usize) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).expect("a readable file");
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).expect("a writable file");
}

/// Every file below a directory with its bytes.
fn image(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(image(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            // A running server may have removed it since.
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

#[track_caller]
fn assert_damaged(finished: &Finished, parts: &[&str]) {
    assert_eq!(finished.code(), Some(65), "exit code; {finished:?}");
    assert_eq!(finished.stdout, Vec::<String>::new());
    finished.assert_says(parts);
}

/// Whether the words hold the offset of the record in which the byte at `at` is.
fn names_a_place_before(words: &str, at: usize) -> bool {
    let numbers = words.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok());
    numbers.into_iter().any(|number: usize| number <= at && at - number < 512)
}

#[test]
fn without_damage_it_starts() {
    let mut server = killed_after_ten_messages();
    server.start_again();
    assert_eq!(server.client("bob").with("alice").beginning().max_msg_index, 10);
}

#[test]
fn a_flipped_bit_in_an_earlier_batch_is_65_and_names_the_place() {
    for number in [1, 5, 9] {
        let server = killed_after_ten_messages();
        let (file, at) = find(server.data(), &text(number));
        flip(&file, at + 3);
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let before = image(&server.data().join("wal"));
        let finished = server.start_in_vain();
        assert_damaged(&finished, &[&name]);
        assert!(names_a_place_before(&finished.stderr, at), "{} for byte {at}", finished.stderr);
        assert_eq!(image(&server.data().join("wal")), before, "the evidence is left as it was");
        // Refused once, refused always.
        assert_damaged(&server.start_in_vain(), &[&name]);
    }
}

#[test]
fn a_flipped_bit_that_is_put_right_is_forgotten() {
    let mut server = killed_after_ten_messages();
    let (file, at) = find(server.data(), &text(5));
    flip(&file, at);
    assert_damaged(&server.start_in_vain(), &[]);
    flip(&file, at);
    server.start_again();
    assert_eq!(server.client("bob").with("alice").beginning().max_msg_index, 10);
}

#[test]
fn a_torn_end_is_cut_reported_and_kept_aside() {
    let mut server = killed_after_ten_messages();
    let (file, at) = find(server.data(), &text(10));
    // As if the machine had died with the last batch half on its way.
    let mut bytes = fs::read(&file).expect("a readable file");
    bytes[at + 5..].fill(0);
    fs::write(&file, bytes).expect("a writable file");
    server.start_again();
    let page = server.client("bob").with("alice").beginning();
    assert_eq!(page.texts(), (1..=9).map(text).collect::<Vec<_>>());
    let kept = image(&server.data().join("quarantine"));
    assert!(kept.iter().any(|(_, bytes)| bytes.windows(5).any(|window| window == &text(10).as_bytes()[..5])));
    assert!(server.stderr().contains("torn"), "{}", server.stderr());
    assert_eq!(server.client("alice").with("bob").send("again").msg_index, 10);
    server.kill();
    server.start_again();
    assert_eq!(server.client("bob").with("alice").beginning().max_msg_index, 10);
}

#[test]
fn a_file_cut_short_is_a_torn_end() {
    let mut server = killed_after_ten_messages();
    let (file, at) = find(server.data(), &text(10));
    let handle = fs::OpenOptions::new().write(true).open(file).expect("a writable file");
    handle.set_len(at as u64 + 5).expect("a shorter file");
    server.start_again();
    assert_eq!(server.client("bob").with("alice").beginning().max_msg_index, 9);
}

#[test]
fn a_log_that_is_gone_is_damage_and_not_a_fresh_start() {
    let server = killed_after_ten_messages();
    for entry in fs::read_dir(server.data().join("wal")).expect("the log's directory") {
        fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
    assert_damaged(&server.start_in_vain(), &["wal"]);
}

#[test]
fn a_missing_segment_in_the_middle_is_damage() {
    let mut server = killed_after_ten_messages();
    server.start_again();
    server.client("alice").with("bob").send("in a second segment");
    server.kill();
    server.start_again();
    server.client("alice").with("bob").send("in a third segment");
    server.kill();
    let (file, _) = find(server.data(), "in a second segment");
    fs::remove_file(file).expect("removed");
    assert_damaged(&server.start_in_vain(), &["wal"]);
}

#[test]
fn a_missing_or_odd_format_file_is_damage_and_not_a_fresh_start() {
    let server = killed_after_ten_messages();
    let format = server.data().join("FORMAT");
    let good = fs::read(&format).expect("the format file");
    let before = image(&server.data().join("wal"));
    fs::remove_file(&format).expect("removed");
    assert_damaged(&server.start_in_vain(), &["FORMAT"]);
    for bad in [&b""[..], b"junk\n", &good[..good.len() / 2]] {
        fs::write(&format, bad).expect("a writable file");
        assert_damaged(&server.start_in_vain(), &["FORMAT"]);
    }
    assert_eq!(image(&server.data().join("wal")), before);
}

#[test]
fn the_log_of_another_store_is_not_taken_for_ones_own() {
    let (one, other) = (killed_after_ten_messages(), killed_after_ten_messages());
    let (file, _) = find(other.data(), &text(1));
    let (own, _) = find(one.data(), &text(1));
    fs::copy(file, own).expect("copied");
    assert_damaged(&one.start_in_vain(), &["wal"]);
}

/// A server that was killed behind a checkpoint of ten messages and one more message.
fn killed_after_a_checkpoint() -> TestServer {
    let mut server = TestServer::start_with(&["--checkpoint-interval", "1h"]);
    let alice = server.client("alice");
    alice.with("carol").send("in another conversation");
    for number in 1..=10 {
        alice.with("bob").send(&text(number));
    }
    // On order and not by the clock: one pack has all ten, and a manifest names it.
    let operator = server.operator();
    operator.call("/im.admin/snapshot", &json!({})).ok();
    assert!(try_find(&server.data().join("snap"), &text(10)).is_some());
    alice.with("bob").send(&text(11));
    server.kill();
    server
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let all = image(directory).into_iter().map(|(path, _)| path);
    all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[test]
fn a_checkpoint_without_damage_is_used() {
    let mut server = killed_after_a_checkpoint();
    server.start_again();
    assert_eq!(server.client("bob").with("alice").beginning().max_msg_index, 11);
}

#[test]
fn damage_in_the_files_that_name_a_checkpoint_is_65_or_loses_nothing() {
    for extension in ["manifest", "pack"] {
        let mut server = killed_after_a_checkpoint();
        for file in files(&server.data().join("snap"), extension) {
            let last = fs::metadata(&file).expect("a file").len() as usize - 1;
            flip(&file, last);
        }
        match server.try_again() {
            Some(finished) => assert_damaged(&finished, &[extension]),
            None => {
                let page = server.client("bob").with("alice").beginning();
                assert_eq!(page.texts(), (1..=11).map(text).collect::<Vec<_>>(), "lost in silence");
            }
        }
    }
}

#[test]
fn a_missing_pack_is_damage() {
    let server = killed_after_a_checkpoint();
    for file in files(&server.data().join("snap"), "pack") {
        fs::remove_file(file).expect("removed");
    }
    assert_damaged(&server.start_in_vain(), &["pack"]);
}

#[test]
fn a_chunk_that_rots_is_found_before_anybody_needs_it() {
    let mut server = killed_after_a_checkpoint();
    server.arrange(&["--scrub-interval", "1s", "--scrub-rate", "1GiB"]);
    server.start_again();
    eventually("a round without findings", || {
        server.metric("chinwag_scrub_finished_timestamp_seconds").filter(|finished| *finished > 0.0)
    });
    assert_eq!(server.metric("chinwag_scrub_damaged_total"), Some(0.0));
    while let Some((file, at)) = try_find(&server.data().join("snap"), &text(5)) {
        flip(&file, at);
    }
    eventually("it is found", || server.metric("chinwag_scrub_damaged_total").filter(|found| *found > 0.0));
    let told = server.stderr();
    let line = told.lines().find(|line| line.contains("damaged chunk")).expect("a line of the log");
    for part in [".pack", "offset=", "alice", "bob"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let alice = server.client("alice");
    assert_eq!(alice.with("carol").send("goes on").msg_index, 2);
}

#[test]
fn a_damaged_conversation_is_refused_and_the_others_are_served() {
    let mut server = killed_after_a_checkpoint();
    while let Some((file, at)) = try_find(&server.data().join("snap"), &text(5)) {
        flip(&file, at);
    }
    if let Some(finished) = server.try_again() {
        // To refuse all of it is lawful too.
        return assert_damaged(&finished, &["pack"]);
    }
    let alice = server.client("alice");
    for (verb, fields) in [
        ("pull", json!({"direction": "after", "start_msg_index": 1, "count": 50})),
        ("send", json!({"msg": "as if nothing had been said"})),
        ("ack", json!({"msg_index": 1})),
        ("recall", json!({"msg_index": 1})),
    ] {
        let reply = alice.with("bob").call(verb, &fields);
        assert!(reply.status == 500 || reply.status == 503, "{verb}: {reply:?}");
        assert!(reply.json()["code"].is_u64(), "{reply:?}");
    }
    assert!(server.stderr().contains(".pack"), "the log names the file:\n{}", server.stderr());
    assert_eq!(alice.with("carol").beginning().texts(), ["in another conversation"]);
    assert_eq!(alice.with("carol").send("goes on").msg_index, 2);
}
