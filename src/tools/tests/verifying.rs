//! `verify` and `inspect` on whole and damaged stores.

use super::*;
use crate::message::ConversationKey;
use crate::snapshot::{self, Manifest};
use crate::tools::reader::Reader;

#[test]
fn a_store_is_clean_after_every_kind_of_life_and_not_changed_by_the_look() {
    let dir = runtime().block_on(store());
    let before = files(dir.path());
    let (report, told) = verified(dir.path());
    assert_eq!(report.verdict, Verdict::Clean, "{told}");
    assert_eq!((report.conversations, report.findings), (3, 0));
    assert_eq!((report.messages, report.recalls), (4 * (20 + 1 + 3), 1 + 4), "{told}");
    assert!(told.ends_with("clean\n") && told.contains("manifests=2"), "{told}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn the_state_hash_is_the_same_before_and_after_checkpoints_and_compaction() {
    let runtime = runtime();
    let dir = runtime.block_on(store());
    let (before, _) = verified(dir.path());
    runtime.block_on(async {
        let life = Life::begin(dir.path());
        life.checkpoint(true);
        life.stop().await;
    });
    let (after, told) = verified(dir.path());
    assert_eq!((after.verdict, after.state_hash), (Verdict::Clean, before.state_hash), "{told}");
    runtime.block_on(async {
        let life = Life::begin(dir.path());
        life.send("alice", &Address::User(user("bob")), "one more").await;
        life.stop().await;
    });
    assert_ne!(verified(dir.path()).0.state_hash, before.state_hash, "the control: other histories differ");
}

#[test]
fn a_torn_tail_alone_is_exit_1_and_stays_where_it_is() {
    let dir = runtime().block_on(store());
    let segment = newest(dir.path(), "wal", "wal");
    let bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(&segment, &bytes[..end - 3]).unwrap();
    let (report, told) = verified(dir.path());
    assert_eq!(report.verdict, Verdict::TornTail, "{told}");
    assert!(told.contains("torn tail: ") && told.contains(" at byte "), "{told}");
    assert_eq!(report.into_result(dir.path()).unwrap_err().exit_code(), 1);
    assert_eq!(std::fs::read(&segment).unwrap().len(), end - 3);
}

#[test]
fn a_log_that_was_cut_within_what_snapshots_have_is_damage_and_not_what_a_crash_leaves() {
    let dir = runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::begin(dir.path());
        life.chat("monday").await;
        life.checkpoint(false);
        life.stop().await;
        dir
    });
    let segment = newest(dir.path(), "wal", "wal");
    let bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(&segment, &bytes[..end - 200]).unwrap();
    let (report, told) = verified(dir.path());
    assert_eq!(report.verdict, Verdict::Damaged, "{told}");
    assert!(told.contains(&format!("{} ends the log at byte ", segment.display())), "{told}");
    assert!(told.contains("bytes that are no whole batch\n"), "{told}");
}

#[test]
fn a_damaged_chunk_is_named_with_file_offset_and_conversation() {
    let dir = runtime().block_on(store());
    let (pack, offset) = damage_alice_and_bob(dir.path());
    let (report, told) = verified(dir.path());
    assert_eq!((report.verdict, report.findings, report.state_hash), (Verdict::Damaged, 1, None), "{told}");
    let line = told.lines().next().unwrap();
    assert!(line.contains(pack.to_str().unwrap()) && line.contains(&format!("at byte {offset}:")), "{line}");
    assert!(line.contains("; concerns direct \"alice\" \"bob\""), "{line}");
    assert_eq!(report.conversations, 2, "the others are whole");
    assert_eq!(report.into_result(dir.path()).unwrap_err().exit_code(), 65);
}

#[test]
fn every_damaged_place_is_a_finding_and_the_look_goes_on() {
    let dir = runtime().block_on(store());
    let pack = newest(dir.path(), "snap", "pack");
    let segment = newest(dir.path(), "wal", "wal");
    flip(&pack, 4096 + 8);
    flip(&segment, 4096 + 50);
    let (report, told) = verified(dir.path());
    assert_eq!(report.verdict, Verdict::Damaged);
    for file in [&pack, &segment] {
        assert!(told.contains(file.to_str().unwrap()), "{} is missing: {told}", file.display());
    }
}

#[test]
fn every_flipped_byte_of_every_file_is_found() {
    let dir = runtime().block_on(store());
    for file in [newest(dir.path(), "snap", "pack"), newest(dir.path(), "snap", "manifest")] {
        let bytes = std::fs::read(&file).unwrap();
        for offset in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            flip(&file, offset);
            let (report, told) = verified(dir.path());
            assert_eq!(report.verdict, Verdict::Damaged, "{} byte {offset}: {told}", file.display());
            flip(&file, offset);
        }
    }
    assert_eq!(verified(dir.path()).0.verdict, Verdict::Clean);
}

#[test]
fn a_missing_segment_and_a_missing_pack_are_found() {
    for (sub, extension) in [("wal", "wal"), ("snap", "pack")] {
        let dir = runtime().block_on(store());
        std::fs::remove_file(newest(dir.path(), sub, extension)).unwrap();
        let told = verify(dir.path(), &mut Vec::new()).and_then(|report| report.into_result(dir.path()));
        assert_eq!(told.unwrap_err().exit_code(), 65, "{sub}");
    }
}

#[test]
fn a_directory_in_use_is_refused_with_73_and_one_without_a_store_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(dir.path()).unwrap();
    let refused = verify(dir.path(), &mut Vec::new()).unwrap_err();
    assert_eq!(refused.exit_code(), 73, "{refused}");
    drop(lock);
    let refused = verify(dir.path(), &mut Vec::new()).unwrap_err();
    assert_eq!(refused.exit_code(), 2, "{refused}");
}

#[test]
fn inspect_names_files_and_the_largest_conversations() {
    let dir = runtime().block_on(store());
    let (mut text, mut json) = (Vec::new(), Vec::new());
    inspect(dir.path(), false, &mut text).unwrap();
    inspect(dir.path(), true, &mut json).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with("sound\n") && text.contains("direct \"alice\" \"bob\""), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((json["conversations"].as_u64(), json["messages"].as_u64()), (Some(3), Some(96)));
    assert_eq!(json["largest"][0]["conversation"], "direct \"alice\" \"bob\"");
    assert!(json["sound"].as_bool().unwrap() && json["log"]["bytes"].as_u64() > Some(4096));
}

#[test]
fn what_both_manifests_have_in_the_same_chunks_is_told_from_what_went_on() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::begin(dir.path());
        let [bob, dave] = ["bob", "dave"].map(|id| Address::User(user(id)));
        life.send("alice", &bob, "once").await;
        life.send("alice", &dave, "first").await;
        life.checkpoint(false);
        life.send("alice", &dave, "second").await;
        life.checkpoint(false);
        let copy = life.kill(dir.path()).await;
        let reader = Reader::open(Arc::new(Real), copy.path()).unwrap();
        let [newest, older] = &reader.images[..] else { panic!("two manifests") };
        let is_same = |with| {
            let key = ConversationKey::direct(user("alice"), user(with));
            older.archive.has_the_chunks_of(&newest.archive, &key)
        };
        assert_eq!([is_same("bob"), is_same("dave"), is_same("nobody")], [true, false, true]);
    });
}

#[test]
fn what_the_newest_manifest_covers_and_no_pack_has_is_found() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::begin(dir.path());
        life.send("alice", &Address::User(user("bob")), "saved").await;
        life.checkpoint(false);
        life.send("alice", &Address::User(user("bob")), "only in the log").await;
        life.send("alice", &Address::User(user("dave")), "only in the log, and new").await;
        let copy = life.kill(dir.path()).await;
        assert_eq!(verified(copy.path()).0.verdict, Verdict::Clean, "the control");
        let newest = Reader::open(Arc::new(Real), copy.path()).unwrap().images[0].manifest.clone();
        let number = newest.number + 1;
        let ahead = Manifest { number, replay_after_lsn: newest.replay_after_lsn + 2, ..newest };
        let (tmp, snap) = (copy.path().join("tmp"), copy.path().join("snap"));
        snapshot::publish(&Real, &tmp, &snap, &ahead).unwrap();
        let (report, told) = verified(copy.path());
        assert_eq!((report.verdict, report.findings), (Verdict::Damaged, 2), "{told}");
        assert!(told.contains("but its packs lack record 2") && told.contains("lack record 3"), "{told}");
    });
}
