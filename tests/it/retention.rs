//! Retention: what is not kept is not shown at once, and leaves the disk with a merge.

use std::path::Path;

use serde_json::json;

use crate::support::{Chat, Client, Finished, Process, TestServer, chinwag};

const KEPT: u32 = 10;
const SENT: u32 = 40;

fn text_of(number: u32) -> String {
    format!("<text {number}>")
}

fn run(arguments: &[&str]) -> Finished {
    let finished = Process::run(chinwag(arguments));
    assert_eq!(finished.code(), Some(0), "{arguments:?}: {finished:?}");
    finished
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

/// Forty messages of whom ten are kept, some of both recalled.
fn write(server: &TestServer) {
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    for number in 1..=SENT {
        let sent = alice.with("bob").send_named(&format!("id {number}"), &text_of(number));
        assert_eq!(sent.msg_index, number);
        if [5, 15, 35].contains(&number) {
            alice.with("bob").recall(number);
        }
    }
    bob.with("alice").ack(3);
}

/// What must be so in every state of memory and disk.
fn check(chat: &Chat<'_>, kept_from: u32, sent: u32) {
    let page = chat.pull(&json!({"start_msg_index": 1, "start_recall_index": 1}));
    assert_eq!(page.indices(), (kept_from..=sent).collect::<Vec<_>>());
    assert_eq!((page.min_msg_index, page.max_msg_index), (kept_from, sent));
    let recalls: Vec<_> = page.recalls.into_iter().collect();
    assert_eq!(recalls, [(1, 5), (2, 15), (3, 35)], "recalls stay dense");
    let before = json!({"direction": "before", "start_msg_index": sent, "count": 50});
    assert_eq!(chat.pull(&before).indices(), (kept_from..=sent).rev().collect::<Vec<_>>());
    let below = json!({"direction": "before", "start_msg_index": kept_from - 1, "count": 50});
    assert_eq!(chat.pull(&below).msgs, []);
    for gone in [1, 5, kept_from - 1] {
        chat.call("recall", &json!({"msg_index": gone})).assert_error(404, 20001);
    }
}

/// The numbers of the texts that stand in a snapshot.
fn texts_on_disk(data: &Path) -> Vec<u32> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(data.join("snap")).expect("a directory") {
        bytes.extend(std::fs::read(entry.expect("an entry").path()).expect("a file"));
    }
    let has = |number: &u32| {
        let text = text_of(*number);
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    (1..=SENT).filter(has).collect()
}

fn snapshot(server: &TestServer, compact: bool) {
    let admin = server.admin("root");
    let operator = Client::new(server.ready().ops, "root", admin.token().to_owned());
    operator.call("/im.admin/snapshot", &json!({"compact": compact})).ok();
}

#[test]
fn only_the_newest_are_kept_in_replies_and_after_a_merge_on_the_disk() {
    let count = KEPT.to_string();
    let mut server = TestServer::start_with(&["--retain-count", &count]);
    write(&server);
    let kept_from = SENT - KEPT + 1;
    let check_all = |server: &TestServer| {
        check(&server.client("alice").with("bob"), kept_from, SENT);
        check(&server.client("bob").with("alice"), kept_from, SENT);
    };
    check_all(&server);
    snapshot(&server, false);
    assert!(texts_on_disk(server.data()).contains(&7), "it is on the disk for a while");
    snapshot(&server, true);
    let kept: Vec<_> = (kept_from..=SENT).filter(|number| *number != 35).collect();
    assert_eq!(texts_on_disk(server.data()), kept);
    for end in ["go on", "stop", "kill"] {
        match end {
            "stop" => server.stop(),
            "kill" => server.kill(),
            _ => {}
        }
        if end != "go on" {
            server.start_again();
        }
        check_all(&server);
        let alice = server.client("alice");
        let again = alice.with("bob").send_named("id 2", &text_of(2));
        assert_eq!((again.duplicate, again.msg_index), (true, 2), "a retry is one, kept or not");
    }
    server.stop();

    // Tools know it too.
    let (data, other) = (server.data().to_owned(), tempfile::tempdir().expect("a directory"));
    let verified = run(&["verify", path(&data)]);
    let hash = verified.stdout.iter().find(|line| line.starts_with("state hash")).expect("a hash").clone();
    let file = other.path().join("all.jsonl");
    run(&["export", path(&data), "--out", path(&file)]);
    let moved = other.path().join("moved");
    run(&["import", path(&moved), "--in", path(&file)]);
    assert!(run(&["verify", path(&moved)]).stdout.contains(&hash));
    let again = other.path().join("again.jsonl");
    run(&["export", path(&moved), "--out", path(&again)]);
    assert_eq!(std::fs::read(&again).expect("a file"), std::fs::read(&file).expect("a file"));

    // What is gone does not come back.
    server.arrange(&["--retain-count", "off"]);
    server.start_again();
    check_all(&server);
    assert_eq!(server.client("bob").with("alice").send("goes on").msg_index, SENT + 1);
    check(&server.client("bob").with("alice"), kept_from, SENT + 1);
}

#[test]
fn with_a_higher_limit_what_is_still_on_the_disk_is_shown_again() {
    let mut server = TestServer::start_with(&["--retain-count", "10"]);
    write(&server);
    check(&server.client("bob").with("alice"), SENT - 9, SENT);
    server.stop();
    server.arrange(&["--retain-count", "20", "--retain-days", "1"]);
    server.start_again();
    check(&server.client("bob").with("alice"), SENT - 19, SENT);
    server.stop();
    server.arrange(&["--retain-days", "0"]);
    server.start_in_vain().assert_refused_in_one_line(2, &["--retain-days", "between 1 and 36500", "off"]);
}
