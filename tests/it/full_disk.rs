//! A full disk refuses what it cannot keep, keeps reads working, and recovers by itself.
//!
//! Needs the right to mount a small file system; says so and does nothing where that is missing.

use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Arrangement, Process, Reply, TestServer, eventually};

/// Room for a first segment of the log, and not for a second one.
const SMALL: &str = "100m";
/// Room for everything.
const LARGE: &str = "400m";

/// A file system in memory, of a size that can be changed.
struct SmallDisk {
    directory: Arc<TempDir>,
}

impl SmallDisk {
    #[allow(clippy::print_stderr, reason = "a test that does nothing has to say so")]
    fn mount(size: &str) -> Option<Self> {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let disk = Self { directory };
        let mounted = disk.run(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        if !mounted && !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root may mount a file system");
            return None;
        }
        assert!(mounted, "root may not mount a file system here");
        Some(disk)
    }

    fn resize(&self, size: &str) {
        assert!(self.run(&["-o", &format!("remount,size={size}")]));
    }

    fn run(&self, arguments: &[&str]) -> bool {
        let status = Command::new("mount").args(arguments).arg(self.directory.path()).status();
        status.is_ok_and(|status| status.success())
    }

    fn serve(&self) -> TestServer {
        let data = self.directory.path().join("data");
        let arrangement = Arrangement::flags(&["--checkpoint-interval", "1h"]);
        let process = Process::start(arrangement.command(&data), &self.directory.path().join("stderr"));
        TestServer::of(process, self.directory.clone(), data, arrangement)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that a failed test has left may still end a moment later.
        let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).status();
    }
}

fn send(server: &TestServer, number: u32) -> Reply {
    let text = format!("{number:05} {}", "x".repeat(60_000));
    let fields = json!({"msg": text, "client_msg_id": number.to_string()});
    server.client("alice").with("bob").call("send", &fields)
}

/// Sends until it is told no; gives how many messages were taken.
fn fill(server: &TestServer) -> u32 {
    for number in 1..1000 {
        let reply = send(server, number);
        if reply.status != 200 {
            reply.assert_error(503, 10011);
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            return number - 1;
        }
        assert_eq!(reply.json()["msg_index"], number);
    }
    panic!("the small disk never fills");
}

#[test]
fn a_full_disk_refuses_sends_keeps_reads_and_recovers_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(SMALL) else { return };
    let mut server = disk.serve();
    let taken = fill(&server);
    assert!(taken > 10, "{taken} messages fit");
    let kept = server.client("bob").with("alice").everything();
    assert_eq!(kept.max_msg_index, taken, "what was refused is not there");
    assert_eq!(server.ops("GET", "/healthz").status, 200);
    assert_eq!(server.ops("GET", "/readyz").status, 503);

    disk.resize(LARGE);
    let index = eventually("sends are taken again", || {
        let reply = send(&server, taken + 1);
        (reply.status == 200).then(|| reply.json()["msg_index"].clone())
    });
    assert_eq!(index, taken + 1, "no index was used up");
    assert_eq!(server.ops("GET", "/readyz").status, 200);
    server.kill();
    server.start_again();
    assert_eq!(server.client("bob").with("alice").everything().max_msg_index, taken + 1);
    assert_eq!(send(&server, taken + 1).ok()["duplicate"], true);
}

#[test]
fn a_server_on_a_full_disk_ends_cleanly_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(SMALL) else { return };
    let mut server = disk.serve();
    let taken = fill(&server);
    server.stop();
    disk.resize(LARGE);
    server.start_again();
    assert_eq!(server.client("bob").with("alice").everything().max_msg_index, taken);
    assert_eq!(send(&server, taken + 1).ok()["msg_index"], taken + 1);
}

#[test]
fn a_send_refused_by_a_full_disk_begins_no_conversation() {
    let Some(disk) = SmallDisk::mount(SMALL) else { return };
    let mut server = disk.serve();
    fill(&server);
    let first = server.client("alice").with("carol").call("send", &json!({"msg": "x".repeat(60_000)}));
    first.assert_error(503, 10011);
    server.stop();
    disk.resize(LARGE);
    server.start_again();
    assert_eq!(server.ready().conversations, 1);
}

#[test]
fn a_start_without_room_serves_what_there_is() {
    let Some(disk) = SmallDisk::mount(SMALL) else { return };
    let mut server = disk.serve();
    for number in 1..=5 {
        send(&server, number).ok();
    }
    server.kill();
    let filler = disk.directory.path().join("filler");
    // Ends with the disk being full, which is the purpose.
    let _ = std::fs::write(&filler, vec![1; 128 << 20]);
    server.start_again();
    assert_eq!(server.client("bob").with("alice").everything().max_msg_index, 5);
    send(&server, 6).assert_error(503, 10011);
    assert_eq!(server.ops("GET", "/readyz").status, 503);
    std::fs::remove_file(filler).expect("removed");
    disk.resize(LARGE);
    eventually("sends are taken again", || (send(&server, 6).status == 200).then_some(()));
    server.kill();
    server.start_again();
    assert_eq!(server.client("bob").with("alice").everything().max_msg_index, 6);
}

#[test]
fn a_first_start_without_room_is_no_damage_later() {
    let Some(disk) = SmallDisk::mount("8m") else { return };
    let mut server = disk.serve();
    send(&server, 1).assert_error(503, 10011);
    server.stop();
    server.start_again();
    server.kill();
    server.start_again();
    disk.resize(LARGE);
    eventually("sends are taken", || (send(&server, 1).status == 200).then_some(()));
    server.kill();
    server.start_again();
    assert_eq!(server.client("bob").with("alice").everything().max_msg_index, 1);
}
