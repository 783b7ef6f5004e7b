//! Out of one store and into another.

use super::*;
use crate::message::ConversationKey;

fn exported(dir: &Path, selection: &Selection) -> Vec<u8> {
    let (mut out, mut complaints) = (Vec::new(), Vec::new());
    export(dir, selection, &mut out, &mut complaints).unwrap();
    assert_eq!(String::from_utf8_lossy(&complaints), "");
    out
}

fn imported(dir: &Path, lines: &[u8]) -> Result<Imported, Error> {
    import(dir, &mut &*lines, Path::new("the test"))
}

#[test]
fn export_import_export_is_the_same_bytes_and_the_same_state_hash() {
    let (from, to) = (runtime().block_on(store()), tempfile::tempdir().unwrap());
    let lines = exported(from.path(), &Selection::All);
    let report = imported(to.path(), &lines).unwrap();
    assert_eq!((report.conversations, report.messages, report.recalls), (3, 96, 5));
    assert_eq!(String::from_utf8(exported(to.path(), &Selection::All)), String::from_utf8(lines));
    let (before, (after, told)) = (verified(from.path()).0, verified(to.path()));
    assert_eq!((after.verdict, after.state_hash), (Verdict::Clean, before.state_hash), "{told}");
    assert_eq!(Some(report.state_hash), before.state_hash);
}

#[test]
fn a_server_goes_on_where_the_exported_one_was() {
    let runtime = runtime();
    let (from, to) = (runtime.block_on(store()), tempfile::tempdir().unwrap());
    imported(to.path(), &exported(from.path(), &Selection::All)).unwrap();
    runtime.block_on(async {
        let life = Life::begin(to.path());
        let bob = Address::User(user("bob"));
        assert_eq!(life.send("alice", &bob, "monday \"0\" é\n").await, 1, "a retry from before");
        assert_eq!(life.send("alice", &bob, "friday").await, 81);
        life.chat("saturday").await;
        life.checkpoint(true);
        life.chat("sunday").await;
        life.stop().await;
    });
    let (report, told) = verified(to.path());
    assert_eq!((report.verdict, report.messages), (Verdict::Clean, 96 + 1 + 48), "{told}");
}

#[test]
fn conversations_can_be_taken_one_by_one_and_join() {
    let (from, to) = (runtime().block_on(store()), tempfile::tempdir().unwrap());
    let direct = |a, b| Selection::One(ConversationKey::direct(user(a), user(b)));
    let team = Selection::One(ConversationKey::Group(GroupId::parse("team").unwrap()));
    let parts = [direct("bob", "alice"), direct("bob", "bob"), team].map(|one| exported(from.path(), &one));
    assert_eq!(parts.concat(), exported(from.path(), &Selection::All));
    imported(to.path(), &parts[1]).unwrap();
    imported(to.path(), &[&parts[2][..], b"\n", &parts[0]].concat()).unwrap();
    assert_eq!(exported(to.path(), &Selection::All), parts.concat());
    let refused = imported(to.path(), &parts[1]).unwrap_err();
    assert!(refused.to_string().contains("is there already") && refused.exit_code() == 1, "{refused}");
    let absent = export(from.path(), &direct("x", "y"), &mut Vec::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(absent.exit_code(), 1);
    assert_eq!(verified(to.path()).0.verdict, Verdict::Clean);
}

#[test]
fn a_history_from_elsewhere_needs_no_hash_and_gets_the_same_one_every_time() {
    let lines = br#"{"type":"conversation","version":1,"users":["b","a"],"messages":2,"recalls":1,"last_timestamp_ns":"7","participants":[{"user":"a","ack_index":2},{"user":"b","ack_index":0}]}
{"type":"message","msg_index":1,"sender":"a","timestamp_ns":"5","msg":"hello"}
{"type":"message","msg_index":2,"recall_index":1,"sender":"a","timestamp_ns":"7","msg":""}
{"type":"recall","recall_index":1,"msg_index":2}
"#;
    let hashes = [(); 2].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        imported(dir.path(), lines).unwrap();
        verified(dir.path()).0.state_hash.unwrap()
    });
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], StateHash::default());
}

#[test]
fn a_line_that_breaks_a_rule_is_named_and_nothing_is_imported() {
    let head = |changes: &str| {
        format!(
            r#"{{"type":"conversation","version":1,"users":["a","b"],"messages":1,"recalls":0,"last_timestamp_ns":"9","participants":[{{"user":"a","ack_index":1}}]{changes}}}"#
        )
    };
    let message =
        |changes: &str| format!(r#"{{"type":"message","sender":"a","timestamp_ns":"5",{changes}}}"#);
    let good = message(r#""msg_index":1,"msg":"x""#);
    let whole = format!("{}\n{good}\n", head(""));
    for (lines, line, expected) in [
        (good.clone(), 1, "belongs to no conversation"),
        (format!("{}\n", head("")), 2, "were announced"),
        (
            head("").replace("\"messages\":1", "\"messages\":0").replace(r#"{"user":"a","ack_index":1}"#, ""),
            2,
            "no participants",
        ),
        (head(r#","hash":"12""#), 1, "hash"),
        (head(r#","colour":"red""#), 1, "unknown field"),
        (head("").replace("\"version\":1", "\"version\":2"), 1, "version 2"),
        (head("").replace("[\"a\",\"b\"]", "[\"\",\"b\"]"), 1, "users"),
        (head("").replace("\"ack_index\":1", "\"ack_index\":2") + "\n" + &good, 3, "has read up to 2"),
        (whole.replace("er\":\"a\"", "er\":\"c\""), 3, "two others"),
        (format!("{}\n{}", head(""), message(r#""msg_index":2,"msg":"x""#)), 2, "1 comes next"),
        (format!("{}\n{}", head(""), message(r#""msg_index":1,"msg":"""#)), 2, "must not be empty"),
        (format!("{}\n{}", head(""), message(r#""msg_index":1,"recall_index":1,"msg":"x""#)), 2, "no text"),
        (
            format!("{}\n{}", head(""), good.replace("\"sender\":\"a\"", "\"sender\":\"z\"")),
            2,
            "no participant",
        ),
        (format!("{}\n{}", head(""), good.replace("\"5\"", "\"-5\"")), 2, "nanoseconds"),
        (format!("{}\n{}", head(""), good.replace("\"5\"", "\"50\"")), 3, "clock is behind"),
        (format!("{whole}{{\"type\":\"recall\",\"recall_index\":1,\"msg_index\":1}}\n"), 3, "does not name"),
        (format!("{whole}{whole}"), 3, "is there already"),
        (format!("{whole}not json\n"), 3, "expected"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let refused = imported(dir.path(), lines.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains(expected), "{lines}: {refused}");
        assert!(refused.contains(&format!("line {line}: ")), "{lines}: {refused}");
        let (report, told) = verified(dir.path());
        assert_eq!((report.verdict, report.conversations), (Verdict::Clean, 0), "{told}");
    }
    let dir = tempfile::tempdir().unwrap();
    imported(dir.path(), whole.as_bytes()).expect("the control: the whole one is taken");
}

#[test]
fn what_is_whole_of_a_damaged_store_is_exported_and_the_rest_named() {
    let dir = runtime().block_on(store());
    damage_alice_and_bob(dir.path());
    let (mut out, mut complaints) = (Vec::new(), Vec::new());
    let failed = export(dir.path(), &Selection::All, &mut out, &mut complaints).unwrap_err();
    assert_eq!(failed.exit_code(), 65);
    let complaints = String::from_utf8(complaints).unwrap();
    assert!(complaints.contains("left out direct \"alice\" \"bob\""), "{complaints}");
    let to = tempfile::tempdir().unwrap();
    assert_eq!(imported(to.path(), &out).unwrap().conversations, 2);
    let file = to.path().join("all.jsonl");
    assert!(export_to_file(dir.path(), &Selection::All, &file, &mut Vec::new()).is_err());
    assert!(!file.exists(), "a file that lacks something does not get its name");
}
