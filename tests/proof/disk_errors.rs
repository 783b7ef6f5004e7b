//! System calls that fail or take long, on the real binary.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::check::assert_whole;
use crate::client::Client;
use crate::ledger::Ledger;
use crate::load::{Load, Talk};
use crate::server::{Ended, Server, Settings};
use crate::strace::Attached;
use crate::world::{Room, found_groups, rooms, user};
use crate::{PATIENCE, directory, seed, until};

/// It takes a moment, to which strace and a busy machine add theirs; nothing but the fault ends it.
const EXITS_WITHIN: Duration = Duration::from_secs(30);

/// A server with everybody in their groups.
fn start(dir: &Path, settings: impl FnOnce(Settings) -> Settings) -> (Server, Settings, Arc<Ledger>) {
    let settings = settings(Settings::new(&dir.join("data")).with("segment-bytes", "1MiB"));
    let server = settings.start();
    let ledger = Arc::new(Ledger::new(rooms()));
    found_groups(&server, &ledger);
    (server, settings, ledger)
}

fn talk(seed: u64) -> Talk {
    Talk { seed, text_bytes: 300 }
}

/// Starts on what was left and checks it.
fn assert_recovers(settings: &Settings, ledger: &Ledger) {
    let server = settings.start();
    assert_whole(&server, ledger);
    assert_eq!(server.stop().status.code(), Some(0));
}

/// Under load, the log's thread meets `fault`. Gives how the server ended and what strace saw.
fn fail_log(dir: &Path, call: &str, fault: &str) -> (Ended, String) {
    let (server, settings, ledger) = start(dir, |settings| settings);
    let strace = Attached::inject(&server, "wal", call, fault, &dir.join("strace"));
    let load = Load::start(&server, &ledger, talk(seed(&format!("{call} {fault}"))));
    until(PATIENCE, "the fault", || strace.log().contains("INJECTED").then_some(()));
    let acknowledged = ledger.acknowledged();
    let ended = server.ended(EXITS_WITHIN);
    load.stop();
    // What was on its way when the fault was seen had been synced before it; the failed batch is never answered.
    let late = ledger.acknowledged() - acknowledged;
    assert!(late <= crate::world::USERS, "{late} sends were acknowledged after the log had failed");
    assert_recovers(&settings, &ledger);
    (ended, strace.let_go())
}

fn assert_disk_failed(ended: &Ended) {
    assert_eq!(ended.status.code(), Some(74), "{ended:?}");
    let errors = ended.stderr.lines().filter(|line| line.contains("ERROR")).count();
    assert_eq!(errors, 1, "one line says what happened: {}", ended.stderr);
    assert!(ended.stderr.contains("the log failed"), "{}", ended.stderr);
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_failed_sync_ends_the_server_and_is_never_tried_again() {
    for nth in [1, 3, 40] {
        let dir = directory();
        let (ended, strace) = fail_log(dir.path(), "fdatasync", &format!("error=EIO:when={nth}"));
        assert_disk_failed(&ended);
        let (_, after) = strace.split_once("INJECTED").expect("it was waited for");
        assert!(!after.contains("fdatasync("), "a sync after the failed one: {after}");
    }
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_failed_write_of_the_log_ends_the_server() {
    for fault in ["error=ENOSPC:when=2", "error=EIO:when=5"] {
        let dir = directory();
        assert_disk_failed(&fail_log(dir.path(), "pwrite64", fault).0);
    }
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_failed_rotation_ends_the_server() {
    for (call, fault) in
        [("fsync", "error=EIO:when=1"), ("renameat2", "error=EIO:when=2"), ("fsync", "error=EIO:when=4")]
    {
        let dir = directory();
        assert_disk_failed(&fail_log(dir.path(), call, fault).0);
    }
}

/// One after the other, so that every message is a batch of its own.
fn send(client: &mut Client, said: u32) -> std::io::Result<u16> {
    let fields = json!({"msg": format!("message {said}"), "client_msg_id": said.to_string()});
    let answer = client.call("/im.chat/send", &Room::Direct(0, 1).request(0, fields))?;
    assert!(answer.status != 200 || answer.number("msg_index") == said, "{answer:?}");
    assert!(answer.status == 200 || answer.status == 503 && answer.code() == 10011, "{answer:?}");
    Ok(answer.status)
}

fn alice(server: &Server) -> Client {
    Client::new(server.public(), server.token(&user(0)))
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn the_message_whose_sync_failed_is_never_acknowledged() {
    let dir = directory();
    let settings = Settings::new(&dir.path().join("data"));
    let server = settings.start();
    let strace =
        Attached::inject(&server, "wal", "fdatasync", "error=EIO:when=3", &dir.path().join("strace"));
    let mut client = alice(&server);
    let answers: Vec<_> = (1..=5).map(|said| send(&mut client, said).unwrap_or(0)).collect();
    assert_eq!(answers[..2], [200, 200]);
    assert!(answers[2..].iter().all(|status| *status != 200), "{answers:?}");
    assert_disk_failed(&server.ended(EXITS_WITHIN));
    drop(strace);
    // It may be there all the same, once; a retry finds out. Control: the message before it must be there.
    let server = settings.start();
    let mut client = alice(&server);
    assert_eq!([2, 3, 4].map(|said| send(&mut client, said).expect("an answer")), [200; 3]);
}

/// The control of the tests above: a sync that takes its time is no failure, and the same calls find a living server.
#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_slow_sync_costs_time_and_nothing_else() {
    const SLOW: Duration = Duration::from_millis(200);
    let dir = directory();
    let settings = Settings::new(&dir.path().join("data"));
    let mut server = settings.start();
    let fault = format!("delay_enter={}", SLOW.as_micros());
    let strace = Attached::inject(&server, "wal", "fdatasync", &fault, &dir.path().join("strace"));
    let mut client = alice(&server);
    for said in 1..=5 {
        let began = Instant::now();
        assert_eq!(send(&mut client, said).expect("an answer"), 200);
        assert!(began.elapsed() >= SLOW, "answered before its sync: {:?}", began.elapsed());
    }
    assert!(server.is_running());
    assert_eq!(server.readyz(), 200);
    strace.let_go();
    server.kill();
    let server = settings.start();
    assert_eq!(send(&mut alice(&server), 5).expect("an answer"), 200);
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_checkpoint_that_fails_is_counted_and_taken_again() {
    for (call, nth) in
        [("pwrite64", 1), ("fsync", 1), ("fsync", 2), ("renameat2", 1), ("renameat2", 2), ("openat", 1)]
    {
        let dir = directory();
        let (mut server, settings, ledger) =
            start(dir.path(), |settings| settings.with("checkpoint-interval", "1s"));
        let fault = format!("error=EIO:when={nth}");
        let strace = Attached::inject(&server, "checkpoint", call, &fault, &dir.path().join("strace"));
        let load = Load::start(&server, &ledger, talk(seed(&format!("checkpoint {call} {fault}"))));
        let count = |result| server.metric(&format!("chinwag_checkpoints_total{{result=\"{result}\"}}"));
        until(PATIENCE, "a failed checkpoint", || (count("failed") >= 1.0).then_some(()));
        let taken = count("ok");
        until(PATIENCE, "a later checkpoint", || (count("ok") > taken).then_some(()));
        assert_eq!(server.readyz(), 200);
        assert!(server.is_running());
        load.stop();
        strace.let_go();
        assert_whole(&server, &ledger);
        server.kill();
        assert_recovers(&settings, &ledger);
    }
}
