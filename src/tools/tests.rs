//! The tools on stores that a server's own code has written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::conversation::{self, Calls, Options, Place, Started, compaction, recovery};
use crate::data_dir::{DataDir, Lock};
use crate::disk::Real;
use crate::message::{Address, Caller, Draft, GroupId, UserId};
use crate::telemetry::Metrics;

mod copying;
mod people;
mod transfer;
mod verifying;

/// One life of a server without its edge.
struct Life {
    _lock: Lock,
    started: Started,
    _draining: watch::Sender<bool>,
}

impl Life {
    /// With segments so small that days of chat take several.
    fn begin(dir: &Path) -> Self {
        Self::with(dir, 64 << 10, Duration::ZERO)
    }

    fn with(dir: &Path, segment_bytes: u64, keep_log: Duration) -> Self {
        let lock = Lock::acquire(dir).unwrap();
        let disk = Arc::new(Real);
        let mut data = DataDir::open(disk.clone(), dir).unwrap();
        let place = Place::of(&data, disk);
        let recovered = recovery::recover(&place, &data.wal_dir()).unwrap();
        let metrics = Arc::new(Metrics::new(crate::config::SyncMode::Always));
        let (draining, is_draining) = watch::channel(false);
        let options = Options {
            log: wal::Options { segment_bytes, first_segment_bytes: segment_bytes, ..Default::default() },
            keep_log,
            // Merges come when they are asked for, and not while a test copies files.
            compaction: compaction::Options { bytes_per_second: 1, ..Default::default() },
            ..Options::default()
        };
        let calls = Calls {
            before_first_batch: Box::new(|| {}),
            on_log_failure: Box::new(|why| panic!("the log failed: {why}")),
        };
        let started =
            conversation::start(recovered, place, &data.wal_dir(), options, &metrics, is_draining, calls);
        data.mark_started().unwrap();
        Self { _lock: lock, started: started.unwrap(), _draining: draining }
    }

    async fn send(&self, from: &str, to: &Address, msg: &str) -> u32 {
        let draft = Draft {
            msg: msg.into(),
            extra: format!("{{\"of\":{msg:?}}}"),
            client_msg_id: format!("{:016x}", xxh3_64(msg.as_bytes())),
        };
        self.started.conversations.send(&user(from), to, draft).await.unwrap().msg_index
    }

    async fn recall(&self, from: &str, to: &Address, msg_index: u32) {
        self.started.conversations.recall(&user(from), to, msg_index).await.unwrap();
    }

    async fn ack(&self, from: &str, to: &Address, msg_index: u32) {
        self.started.conversations.ack(&user(from), to, msg_index).await.unwrap();
    }

    /// A day of chat: direct conversations, saved messages, a group whose members come and go.
    async fn chat(&self, day: &str) {
        let bob = Address::User(user("bob"));
        for number in 0..20 {
            let index = self.send("alice", &bob, &format!("{day} \"{number}\" é\n")).await;
            self.ack("bob", &Address::User(user("alice")), index - number / 2).await;
        }
        self.recall("alice", &bob, 3).await;
        self.send("bob", &Address::User(user("bob")), &format!("{day}: to myself")).await;
        self.group(day).await;
    }

    async fn group(&self, day: &str) {
        let conversations = &self.started.conversations;
        let owner = Caller { user: user("carol"), admin: false };
        let id = GroupId::parse("team").unwrap();
        let _ =
            conversations.create_group(&owner, Some(id.clone()), "The team".into(), vec![user("dave")]).await;
        let team = Address::Group(id.clone());
        let first = self.send("carol", &team, &format!("{day}: one")).await;
        self.send("dave", &team, &format!("{day}: two")).await;
        conversations.add_members(&owner, &id, vec![user("erin"), user("alice")]).await.unwrap();
        self.send("erin", &team, &format!("{day}: three")).await;
        self.recall("carol", &team, first + 1).await;
        conversations.kick_members(&owner, &id, vec![user("erin")]).await.unwrap();
    }

    fn checkpoint(&self, compact: bool) {
        self.started.operator().checkpoint(compact).unwrap();
    }

    /// Ends as a server does.
    async fn stop(self) {
        self.started.stop().await.unwrap();
    }

    /// Ends as a killed one does: no last checkpoint, no end of the log.
    async fn kill(self, dir: &Path) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_all(dir, copy.path());
        self.stop().await;
        copy
    }
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn copy_all(from: &Path, to: &Path) {
    for (file, bytes) in files(from) {
        let copy = to.join(file);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(copy, bytes).unwrap();
    }
    for dir in ["wal", "snap", "tmp", "quarantine"] {
        std::fs::create_dir_all(to.join(dir)).unwrap();
    }
    let _ = std::fs::remove_file(to.join("LOCK"));
}

/// Every file below a directory, with its content.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => found.push((path.strip_prefix(dir).unwrap().into(), std::fs::read(&path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

/// A store after three lives with some checkpoints: two manifests, packs, a log behind them.
async fn store() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let first = Life::begin(dir.path());
    first.chat("monday").await;
    first.checkpoint(false);
    first.chat("tuesday").await;
    first.stop().await;
    let second = Life::begin(dir.path());
    second.chat("wednesday").await;
    second.checkpoint(false);
    second.chat("thursday").await;
    let copy = second.kill(dir.path()).await;
    drop(dir);
    copy
}

fn verified(dir: &Path) -> (Report, String) {
    let mut out = Vec::new();
    let report = verify(dir, &mut out).unwrap();
    (report, String::from_utf8(out).unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn newest(dir: &Path, sub: &str, extension: &str) -> PathBuf {
    let mut names: Vec<_> =
        std::fs::read_dir(dir.join(sub)).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|end| end == extension));
    names.sort();
    names.pop().unwrap()
}

/// Damages a text in the newest pack, and says where its chunk begins.
fn damage_alice_and_bob(dir: &Path) -> (PathBuf, usize) {
    let pack = newest(dir, "snap", "pack");
    let bytes = std::fs::read(&pack).unwrap();
    let key = b"\x05alice\x03bob";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    flip(&pack, at + key.len() + 40);
    // The key begins with its kind, behind the chunk's header of 88 bytes.
    (pack, at - 1 - 88)
}
