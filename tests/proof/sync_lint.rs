//! Every write is synced before anything depends on it: a whole life is traced and read by the rules of [`lint`].

use std::fs;
use std::path::Path;

use crate::ledger::Ledger;
use crate::lint::findings;
use crate::strace::CALLS;
use crate::{directory, script};

/// Traces the scripted life, from the start to the drain.
fn trace(dir: &Path) -> String {
    let (data, log) = (dir.join("data"), dir.join("strace"));
    let calls = format!("trace={},write,writev,sendto", CALLS.join(","));
    let log_text = log.to_str().expect("a UTF-8 path").to_owned();
    // -yy names sockets; 256 bytes of each text show which answer it is.
    let arguments = ["-yy", "-s", "256", "-e", &calls, "-o", &log_text].map(str::to_owned);
    let server = script::settings(&data).under_strace(&arguments).start();
    let ledger = Ledger::new(script::rooms());
    script::play(&server, &ledger, &data).expect("an undisturbed life");
    assert_eq!(server.stop().status.code(), Some(0));
    fs::read_to_string(log).expect("a log")
}

/// The trace without these lines, by their numbers from 0.
fn without(trace: &str, lines: &[usize]) -> String {
    let kept = trace.lines().enumerate().filter(|(number, _)| !lines.contains(number));
    kept.map(|(_, line)| format!("{line}\n")).collect()
}

/// The numbers of the lines with all of these words.
fn lines_with(trace: &str, words: &[&str]) -> Vec<usize> {
    let numbered = trace.lines().enumerate();
    numbered
        .filter(|(_, line)| words.iter().all(|word| line.contains(word)))
        .map(|(number, _)| number)
        .collect()
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn everything_is_synced_before_anything_depends_on_it() {
    let dir = directory();
    let trace = trace(dir.path());
    let root = dir.path().join("data").to_str().expect("a UTF-8 path").to_owned();
    let found = findings(&trace, &root);
    assert!(found.is_empty(), "{found:#?}");
    let acknowledged = lines_with(&trace, &["HTTP/1.1 200", "application/json"]).len();
    let (renames, removed) =
        (lines_with(&trace, &["rename"]).len(), lines_with(&trace, &["unlink", ".wal\""]).len());
    eprintln!(
        "{} calls, {acknowledged} successes, {renames} renames, {removed} segments removed",
        trace.lines().count()
    );
    assert!(acknowledged > 100 && renames > 10 && removed > 0, "the life was too short to show anything");
    assert_doctored_traces_are_found(&trace, &root);
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_recovery_syncs_what_it_changes_before_anything_depends_on_it() {
    let dir = directory();
    let data = dir.path().join("data");
    let server = script::settings(&data).start();
    script::play(&server, &Ledger::new(script::rooms()), &data).expect("an undisturbed life");
    server.kill();
    let trace = trace(dir.path());
    let root = data.to_str().expect("a UTF-8 path");
    let found = findings(&trace, root);
    assert!(found.is_empty(), "{found:#?}");
    // Control: the end of the last life's segment is cut, and that has to be synced.
    let cuts = lines_with(&trace, &["ftruncate(", ".wal>"]);
    let (thread, cut) = (trace.lines().next().expect("a line").split(' ').next(), cuts[0]);
    let after = trace.lines().enumerate().skip(cut).find(|(_, line)| {
        line.split(' ').next() == thread && line.contains("fsync(") && line.contains(".wal>")
    });
    let (sync, _) = after.expect("the cut is synced");
    assert!(!findings(&without(&trace, &[sync]), root).is_empty(), "nobody misses the sync of the cut");
}

/// The control: a trace in which one sync is missing.
fn assert_doctored_traces_are_found(trace: &str, root: &str) {
    let wal = format!("{root}/wal/");
    let mut doctored = Vec::new();
    // Any sync of a batch; behind the very last one, of the close, the file is cut and synced once more.
    let mut batches = lines_with(trace, &["fdatasync(", &wal]);
    batches.pop();
    doctored.extend(batches.into_iter().map(|line| vec![line]));
    // All syncs of a file that gets a name later.
    for name in ["FORMAT", "manifest", "pack"] {
        doctored.push(lines_with(trace, &["fsync(", &format!("{root}/tmp/"), name]));
    }
    doctored.push(lines_with(trace, &["fsync(", "token.key.unfinished"]));
    // All syncs of a directory.
    for dir in ["/wal>", "/snap>", ">"] {
        doctored.push(lines_with(trace, &["fsync(", &format!("<{root}{dir}")]));
    }
    for lines in &doctored {
        assert!(!lines.is_empty(), "there is nothing to leave out");
        let found = findings(&without(trace, lines), root);
        assert!(!found.is_empty(), "nobody misses {:?}", trace.lines().nth(lines[0]));
    }
    eprintln!("{} doctored traces were found", doctored.len());
}
