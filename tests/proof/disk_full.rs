//! A disk that the server fills up itself, and that gets room again.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::check::assert_whole;
use crate::client::Client;
use crate::image::Image;
use crate::ledger::Ledger;
use crate::load::{Load, Talk};
use crate::server::{Server, Settings};
use crate::world::{Room, found_groups, rooms, user};
use crate::{PATIENCE, directory, seed, until};

const IMAGE_MIB: u64 = 48;
/// What stands in the way, and later goes.
const BALLAST_MIB: u64 = 24;

fn settings(data: &Path) -> Settings {
    // No checkpoint may make room by itself.
    Settings::new(data).with("segment-bytes", "1MiB").with("checkpoint-interval", "1h")
}

fn lay_ballast(root: &Path) -> std::path::PathBuf {
    let ballast = root.join("ballast");
    fs::write(&ballast, vec![1; (BALLAST_MIB as usize) << 20]).expect("room for the ballast");
    ballast
}

/// One send, as the answer's status and code; what is stored is in no ledger's room.
fn send(server: &Server, said: &str) -> (u16, u32, bool) {
    let mut client = Client::new(server.public(), server.token(&user(5)));
    let body = Room::Direct(5, 7).request(5, json!({"msg": said, "client_msg_id": said}));
    let answer = client.call("/im.chat/send", &body).expect("an answer");
    (answer.status, answer.code(), answer.has_retry_after)
}

fn assert_read_only(server: &Server, ledger: &Ledger) {
    assert_eq!(send(server, "into a full disk"), (503, 10011, true));
    assert_eq!(server.readyz(), 503);
    let newest = ledger.known(0).newest();
    let mut client = Client::new(server.public(), server.token(&user(0)));
    let fields = json!({"direction": "after", "start_msg_index": 1, "count": 50});
    let answer = client.call("/im.chat/pull", &Room::Direct(0, 1).request(0, fields)).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.number("max_msg_index") >= newest, "{answer:?}");
}

fn wait_for_room(server: &Server) {
    until(PATIENCE, "room on the disk", || (server.readyz() == 200).then_some(()));
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_full_disk_refuses_sends_and_recovers_by_itself() {
    let dir = directory();
    let image = Image::make(dir.path(), "full", IMAGE_MIB);
    let ballast = lay_ballast(image.root());
    let settings = settings(&image.root().join("data"));
    let server = settings.start();
    let ledger = Arc::new(Ledger::new(rooms()));
    found_groups(&server, &ledger);
    // Control: with room, the same probe finds a server that takes sends.
    assert_eq!((server.readyz(), send(&server, "into an empty disk").0), (200, 200));
    let load = Load::start(&server, &ledger, Talk { seed: seed("disk full"), text_bytes: 30_000 });
    until(PATIENCE, "a full disk", || (server.readyz() == 503).then_some(()));
    assert_read_only(&server, &ledger);
    assert!(load.unavailable() > 0, "nobody was refused");
    let before = ledger.acknowledged();
    fs::remove_file(&ballast).expect("the ballast");
    wait_for_room(&server);
    until(PATIENCE, "sends that are taken again", || (ledger.acknowledged() > before + 10).then_some(()));
    load.stop();
    assert_whole(&server, &ledger);
    server.kill();
    let server = settings.start();
    assert_whole(&server, &ledger);
    assert_eq!(server.stop().status.code(), Some(0));
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_start_on_a_full_disk_reads_and_waits_for_room() {
    let dir = directory();
    let image = Image::make(dir.path(), "restart", IMAGE_MIB);
    let settings = settings(&image.root().join("data"));
    let server = settings.start();
    let ledger = Arc::new(Ledger::new(rooms()));
    found_groups(&server, &ledger);
    let load = Load::start(&server, &ledger, Talk { seed: seed("start on a full disk"), text_bytes: 30_000 });
    until(PATIENCE, "some sends", || (ledger.acknowledged() > 100).then_some(()));
    server.kill();
    load.stop();
    let ballast = fill(image.root());
    for _ in 0..2 {
        let server = settings.start();
        assert_read_only(&server, &ledger);
        server.kill();
    }
    let server = settings.start();
    fs::remove_file(&ballast).expect("the ballast");
    wait_for_room(&server);
    assert_whole(&server, &ledger);
    assert_eq!(server.stop().status.code(), Some(0));
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_new_store_on_a_full_disk_begins_when_there_is_room() {
    let dir = directory();
    let image = Image::make(dir.path(), "new", IMAGE_MIB);
    let ballast = fill(image.root());
    let settings = settings(&image.root().join("data"));
    // Twice: the first start must leave nothing that the next one takes for damage.
    for _ in 0..2 {
        let server = settings.start();
        assert_eq!((server.readyz(), send(&server, "into a full disk")), (503, (503, 10011, true)));
        server.kill();
    }
    let server = settings.start();
    fs::remove_file(&ballast).expect("the ballast");
    wait_for_room(&server);
    assert_eq!(send(&server, "the first message").0, 200);
    server.kill();
    let server = settings.start();
    // Its retry is a duplicate: it was there.
    assert_eq!(
        (send(&server, "the first message").0, server.metric("chinwag_commit_records_sum")),
        (200, 0.0)
    );
}

/// Leaves room for names and other small things only.
fn fill(root: &Path) -> std::path::PathBuf {
    let ballast = root.join("ballast");
    let file = fs::File::create(&ballast).expect("a file");
    let block = vec![1; 64 << 10];
    let mut written = 0;
    while std::os::unix::fs::FileExt::write_all_at(&file, &block, written).is_ok() {
        written += block.len() as u64;
    }
    file.set_len(written.saturating_sub(512 << 10)).expect("a shorter file");
    ballast
}
