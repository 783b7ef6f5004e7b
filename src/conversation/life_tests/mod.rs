//! The life of conversations on the real parts: actors, log, packs and their threads, on a simulated disk.
//!
//! What one part promises alone is tested beside it. Here is what they promise together: loading, damage,
//! passivation, checkpoints, compaction, full disks and restarts, seen through [`Conversations`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::actor::Message;
use super::chunk::{Chunk, Saved};
use super::state::tests::{draft, user};
use super::*;
use crate::config::SyncMode;
use crate::data_dir::DataDir;
use crate::disk::{Disk, Simulated};
use crate::message::{GroupId, MessageView, Page};
use crate::snapshot::{self, Manifest};
use crate::telemetry::Metrics;
use crate::wal;

mod counting;
mod damage;
mod delivering;
mod encoding;
mod erasing;
mod faults;
mod feeding;
mod in_place;
mod listing;
mod loading;
mod merging;
mod mishaps;
mod paging;
mod passivating;
mod people;
mod reloading;
mod restarting;
mod scrubbing;

const ROOT: &str = "data";

/// A started node without its edge.
struct Life {
    disk: Simulated,
    started: Started,
    metrics: Arc<Metrics>,
    /// Kept, because a node whose sender is gone drains.
    draining: watch::Sender<bool>,
}

/// Small segments, so that the log rotates and is cut; nothing happens by the clock.
fn options() -> Options {
    Options {
        log: wal::Options {
            segment_bytes: 16 << 10,
            first_segment_bytes: 16 << 10,
            free_bytes_min: 0,
            seal_after: NEVER,
            spare_retry_after: Duration::from_millis(1),
            ..wal::Options::default()
        },
        checkpoint: checkpoint::Options { interval: NEVER, log_bytes: u64::MAX },
        compaction: compaction::Options { bytes_per_second: 1 << 30, ..compaction::Options::default() },
        passivation: passivation::Options { idle_after: NEVER, memory_bytes_max: u64::MAX },
        scrub: scrub::Options { interval: Duration::ZERO, ..scrub::Options::default() },
        reload: reload::Options { attempts_max: 0, ..reload::Options::default() },
        ..Options::default()
    }
}

/// The same with segments that take what a test writes: no call comes upon a log that waits for its next one.
fn with_room(options: Options) -> Options {
    let log = wal::Options { segment_bytes: 2 << 20, first_segment_bytes: 2 << 20, ..options.log };
    Options { log, ..options }
}

/// Longer than any test.
const NEVER: Duration = Duration::from_hours(24);

impl Life {
    fn begin(disk: &Simulated) -> Self {
        Self::begin_with(disk, Arc::new(disk.clone()), options())
    }

    fn begin_with_room(disk: &Simulated) -> Self {
        Self::begin_with(disk, Arc::new(disk.clone()), with_room(options()))
    }

    /// A life that sees `disk` through `seen`.
    fn begin_with(disk: &Simulated, seen: Arc<dyn Disk>, options: Options) -> Self {
        let mut data = DataDir::open(seen.clone(), Path::new(ROOT)).unwrap();
        let (wal_dir, place) = (data.wal_dir(), Place::of(&data, seen));
        let recovered = recovery::recover(&place, &wal_dir).unwrap();
        let metrics = Arc::new(Metrics::new(SyncMode::Always));
        let (draining, is_draining) = watch::channel(false);
        let calls = Calls { before_first_batch: Box::new(|| ()), on_log_failure: Box::new(|_| ()) };
        let started = start(recovered, place, &wal_dir, options, &metrics, is_draining, calls).unwrap();
        data.mark_started().unwrap();
        Self { disk: disk.clone(), started, metrics, draining }
    }

    /// Ends it as a drain does.
    async fn stop(self) -> Simulated {
        self.started.stop().await.unwrap();
        self.disk
    }

    /// Ends it as `kill -9` does.
    async fn kill(self) -> Simulated {
        let left = self.disk.kill();
        self.bury().await;
        left
    }

    /// Ends it as a power cut does.
    async fn cut_power(self) -> Simulated {
        let left = self.disk.crash();
        self.bury().await;
        left
    }

    /// Ends the threads of a life whose disk is gone.
    async fn bury(self) {
        self.started.stop().await.unwrap_err();
    }

    fn conversations(&self) -> &Conversations {
        &self.started.conversations
    }

    fn directory(&self) -> &Arc<Directory> {
        &self.conversations().shared.directory
    }

    fn checkpoint(&self) -> Result<(), start::CheckpointError> {
        tokio::task::block_in_place(|| self.started.operator().checkpoint(false))
    }

    fn compact(&self) -> Result<(), start::CheckpointError> {
        tokio::task::block_in_place(|| self.started.operator().checkpoint(true))
    }

    /// Sends; waits where the log's next segment is just being made.
    async fn send(&self, from: &str, to: &Address, text: &str) -> Receipt {
        loop {
            match self.conversations().send(&user(from), to, draft(text, "")).await {
                Err(Rejection::Overloaded) => tokio::task::yield_now().await,
                answer => return answer.unwrap(),
            }
        }
    }

    async fn pull(&self, by: &str, at: &Address) -> Result<Page, Rejection> {
        self.conversations().pull(&user(by), at, from_the_beginning()).await
    }

    async fn texts(&self, by: &str, at: &Address) -> Vec<String> {
        self.pull(by, at).await.unwrap().messages().map(text_of).collect()
    }

    async fn image(&self, key: &ConversationKey) -> Vec<Chunk> {
        image_of(self.directory(), key).await
    }

    async fn images(&self, keys: &[ConversationKey]) -> Vec<Vec<Chunk>> {
        let mut images = Vec::new();
        for key in keys {
            images.push(self.image(key).await);
        }
        images
    }

    /// The current manifest.
    fn manifest(&self) -> Manifest {
        manifest_on(&self.disk)
    }
}

/// Everything of a conversation, hash and all, as the chunks that would save it.
async fn image_of(directory: &Directory, key: &ConversationKey) -> Vec<Chunk> {
    let (running, permit) = directory.escort(key).expect("not quarantined");
    let (to, answer) = oneshot::channel();
    let collect = Message::Collect { saved: Saved::default(), to, permit };
    running.actor.cast(collect).expect("the actor lives");
    let chunks = answer.await.expect("the actor lives");
    assert!(chunks.last().is_some_and(|last| last.complete), "a test's conversation is one series");
    chunks
}

/// Lets the actor of a conversation die with the next message that it handles.
fn kill_actor(directory: &Directory, key: &ConversationKey) {
    let (running, _permit) = directory.escort(key).expect("not quarantined");
    running.actor.cast(Message::Panic).expect("the actor lives");
}

fn manifest_on(disk: &Simulated) -> Manifest {
    let data = DataDir::inspect(Arc::new(disk.clone()), Path::new(ROOT)).unwrap();
    let loaded = snapshot::load_newest(disk, &data.snap_dir(), &data.format().store).unwrap();
    loaded.expect("a checkpoint was taken").manifest
}

/// The first records of the log's segments.
fn segments(disk: &Simulated) -> Vec<u64> {
    let names = disk.list(&Path::new(ROOT).join("wal")).unwrap();
    let stems = names.iter().map(|name| Path::new(name).file_stem().unwrap().to_str().unwrap());
    stems.map(|stem| stem.parse().unwrap()).collect()
}

/// The files below these directories of the store that hold `text`, and where in them.
fn files_with(disk: &Simulated, directories: &[&str], text: &str) -> Vec<(PathBuf, usize)> {
    let mut found = Vec::new();
    for directory in directories {
        found.extend(files_of_one_moment(disk, &Path::new(ROOT).join(directory)).into_iter().filter_map(
            |(path, bytes)| {
                let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
                Some((path, at))
            },
        ));
    }
    found
}

/// The files of a directory with their bytes; looks again if a thread has made or removed one meanwhile.
fn files_of_one_moment(disk: &Simulated, directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    loop {
        let names = disk.list(directory).unwrap();
        let paths = names.iter().map(|name| directory.join(name));
        let files = paths.map(|path| disk.bytes(&path).map(|bytes| (path, bytes))).collect::<Result<_, _>>();
        if let (Ok(files), true) = (files, disk.list(directory).unwrap() == names) {
            return files;
        }
    }
}

fn from_the_beginning() -> Pull {
    Pull {
        direction: Direction::After,
        start_msg_index: 1,
        start_recall_index: 1,
        count: 50,
        wait: Duration::ZERO,
    }
}

fn text_of(message: MessageView<'_>) -> String {
    message.msg.to_owned()
}

fn to(id: &str) -> Address {
    Address::User(user(id))
}

fn group_id(id: &str) -> GroupId {
    GroupId::parse(id).expect("a valid id")
}

fn group(id: &str) -> Address {
    Address::Group(group_id(id))
}

fn key(by: &str, at: &Address) -> ConversationKey {
    ConversationKey::of(&user(by), at)
}

fn caller(id: &str) -> Caller {
    Caller { user: user(id), admin: false }
}

/// Carries a call out up to where it waits for its answer: it is in the actor's mailbox then.
async fn cast<F: Future>(call: F) -> std::pin::Pin<Box<F>> {
    let mut call = Box::pin(call);
    let waits =
        std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context).is_pending()));
    assert!(waits.await, "it has its answer already");
    call
}

/// Waits for what another thread is about to do.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}
