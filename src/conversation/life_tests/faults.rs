//! Faults: full disks and failing ones, while records are taken, checkpoints and merges made.

use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::disk::File;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_log_refuses_leaves_no_conversation_behind() {
    let life = Life::begin(&Simulated::new(1));
    let conversations = life.conversations().clone();
    life.send("alice", &to("bob"), "first").await;
    life.disk.set_capacity(life.disk.used_bytes());
    let draft = draft(&"x".repeat(3000), "");
    let refused = loop {
        match conversations.send(&user("alice"), &to("bob"), draft.clone()).await {
            Ok(_) => {}
            // The disk is just being asked for room.
            Err(Rejection::Overloaded) => tokio::task::yield_now().await,
            Err(why) => break why,
        }
    };
    assert_eq!(refused, Rejection::ReadOnly);
    let stranger = to("stranger");
    assert_eq!(conversations.send(&user("alice"), &stranger, draft).await, Err(Rejection::ReadOnly));
    let group =
        conversations.create_group(&caller("alice"), Some(group_id("g")), "name".into(), vec![]).await;
    assert_eq!(group, Err(Rejection::ReadOnly));
    let newest = life.pull("alice", &to("bob")).await.expect("reads go on").max_msg_index;

    assert_left_nothing(&life, newest).await;
    life.checkpoint().expect_err("there is no room for a pack");
    assert_eq!(life.metrics.last_checkpoint.is_failing.get(), 1);
    life.disk.set_capacity(usize::MAX);
    life.checkpoint().unwrap();
    assert_eq!(life.metrics.last_checkpoint.is_failing.get(), 0);
    let chunks: u64 = life.manifest().packs.iter().map(|pack| pack.chunks).sum();
    assert_eq!(chunks, 1 + 1, "one conversation, and one block of people");
    assert_left_nothing(&life, newest).await;
    let disk = life.kill().await;
    let life = Life::begin(&disk);
    assert_left_nothing(&life, newest).await;
    assert_eq!(life.send("alice", &stranger, "now").await.msg_index, 1);
    // The actor counts it a moment after the log has it; this call stands behind that.
    assert_eq!(life.texts("alice", &stranger).await, ["now"]);
    assert_eq!(life.conversations().count(), 2);
    life.stop().await;
}

async fn assert_left_nothing(life: &Life, newest: u32) {
    assert_eq!(life.conversations().count(), 1);
    assert_eq!(life.pull("alice", &to("bob")).await.unwrap().max_msg_index, newest);
    assert_eq!(life.pull("alice", &to("stranger")).await.unwrap().max_msg_index, 0);
    assert_eq!(life.pull("alice", &group("g")).await, Err(Rejection::NoSuchGroup));
}

/// A disk on which one change to the snapshots fails: making, writing, syncing, renaming or removing
/// a pack or a manifest, or syncing their directory. The log does not notice.
#[derive(Clone)]
struct FailsOnce {
    inner: Simulated,
    /// Which of the changes from now on; 0 for none.
    countdown: Arc<AtomicU64>,
}

impl FailsOnce {
    fn change(&self, path: &Path) -> io::Result<()> {
        let of_snapshots =
            path.ends_with("snap") || path.extension().is_some_and(|end| end == "pack" || end == "manifest");
        if !of_snapshots {
            return Ok(());
        }
        let less = |left: u64| left.checked_sub(1);
        match self.countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(1) => Err(io::Error::other("as a test wanted")),
            _ => Ok(()),
        }
    }

    fn file(&self, path: &Path, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(FailsOnceFile { disk: self.clone(), path: path.to_path_buf(), file })
    }
}

impl Disk for FailsOnce {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.change(path)?;
        Ok(self.file(path, self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.inner.open(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.inner.open_write(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(to)?;
        self.inner.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(to)?;
        self.inner.rename_new(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.inner.hard_link(original, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(path)?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(dir)?;
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }
}

struct FailsOnceFile {
    disk: FailsOnce,
    path: PathBuf,
    file: Box<dyn File>,
}

impl File for FailsOnceFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)
    }

    /// A write that fails leaves half of it behind.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let changed = self.disk.change(&self.path);
        let written = if changed.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.file.write_at(written, offset).and(changed)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change(&self.path)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change(&self.path)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.change(&self.path)?;
        self.file.sync_all()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
}

/// What is tried on the failing disk.
type Attempt = fn(&Life) -> Result<(), start::CheckpointError>;

/// A life with a published pack, a longer log behind it, and a disk that is about to fail.
struct Doomed {
    life: Life,
    disk: FailsOnce,
    keys: Vec<ConversationKey>,
    images: Vec<Vec<Chunk>>,
    newest_record: u64,
}

impl Doomed {
    async fn begin(nth_change: u64) -> Self {
        let inner = Simulated::new(nth_change);
        let disk = FailsOnce { inner: inner.clone(), countdown: Arc::default() };
        // No merge by itself takes the fault that is meant for the attempt.
        let compaction = compaction::Options { bytes_per_second: 1, ..options().compaction };
        let life = Life::begin_with(&inner, Arc::new(disk.clone()), Options { compaction, ..options() });
        let peers = ["bob", "carol", "dave"].map(to);
        life.send("alice", &peers[0], "the regretted").await;
        life.checkpoint().unwrap();
        for number in 0..30 {
            life.send("alice", &peers[number % 3], &"x".repeat(1000)).await;
        }
        life.conversations().recall(&user("alice"), &peers[0], 1).await.unwrap();
        let keys: Vec<_> = peers.iter().map(|peer| key("alice", peer)).collect();
        let images = life.images(&keys).await;
        disk.countdown.store(nth_change, Ordering::SeqCst);
        Self { life, disk, keys, images, newest_record: 32 }
    }

    /// Whether the fault came; what stays true at once when it did.
    fn attempt(&self, attempt: Attempt) -> bool {
        let before = (self.life.manifest().number, segments(&self.life.disk));
        let outcome = attempt(&self.life);
        let came = self.disk.countdown.swap(0, Ordering::SeqCst) == 0;
        assert!(came || outcome.is_ok(), "{outcome:?}");
        if self.life.manifest().number == before.0 {
            let after = segments(&self.life.disk);
            assert!(after.starts_with(&before.1), "the log is cut only behind what is published: {after:?}");
        }
        came
    }

    async fn assert_whole(&self, life: &Life) {
        assert_eq!(life.images(&self.keys).await, self.images);
    }
}

/// Fails one change of the attempt after the other; whatever it was, nothing is lost, neither by a
/// kill, nor by a power cut, nor by going on.
async fn any_fault_loses_nothing(attempt: Attempt, changes_min: u64) {
    for nth in 1.. {
        let doomed = Doomed::begin(nth).await;
        let came = doomed.attempt(attempt);
        doomed.assert_whole(&doomed.life).await;
        go_on(&doomed, attempt, nth).await;
        for power_cut in [false, true] {
            let doomed = Doomed::begin(nth).await;
            doomed.attempt(attempt);
            let inner = &doomed.life.disk;
            let left = if power_cut { inner.crash() } else { inner.kill() };
            let life = Life::begin(&left);
            assert_eq!(life.conversations().count(), 3);
            doomed.assert_whole(&life).await;
            life.stop().await;
            doomed.life.bury().await;
        }
        if !came {
            assert!(nth > changes_min, "only {nth} changes could fail");
            return;
        }
    }
}

/// The next attempt covers everything, and the log is cut behind it as ever.
async fn go_on(doomed: &Doomed, attempt: Attempt, nth: u64) {
    let life = &doomed.life;
    for text in ["more", "and more"] {
        life.send("alice", &to("others"), text).await;
        attempt(life).unwrap_or_else(|why| panic!("after fault {nth}: {why}"));
        doomed.assert_whole(life).await;
    }
    assert_eq!(life.manifest().replay_after_lsn, doomed.newest_record + 2);
    assert!(segments(&life.disk)[0] > 2, "after fault {nth} the log is cut: {:?}", segments(&life.disk));
    let left = life.disk.kill();
    let next = Life::begin(&left);
    assert_eq!(next.images(&doomed.keys).await, doomed.images, "after fault {nth}");
    assert_eq!(next.texts("alice", &to("others")).await, ["more", "and more"]);
    next.stop().await;
    assert_eq!(files_with(&left, &["tmp"], "xxxx"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_checkpoint_loses_nothing_and_the_next_covers_everything() {
    any_fault_loses_nothing(Life::checkpoint, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_compaction_loses_nothing_and_the_next_merges_everything() {
    any_fault_loses_nothing(Life::compact, 20).await;
}
