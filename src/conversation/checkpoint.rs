//! Checkpoints: writing what is new into a snapshot, so that the log can be cut behind it.
//!
//! A thread of its own asks each conversation that changed for its newest chunks, writes them into
//! a pack, and publishes. No actor and no append waits for it. An error costs nothing but time: the
//! log is kept, and the next checkpoint starts over.
//!
//! Why it is right: the log's end is read *before* the list of changed conversations is taken, and
//! an actor enters the list *before* it appends. So every record up to that end is in a chunk that
//! is collected now or was before. Chunks may hold records behind it: those are synced before the
//! manifest is published, and replay skips what a chunk has.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::actor::Message;
use super::chunk::{self, Chunk};
use super::completion::Ticket;
use super::directory::{Collected, Directory, Running};
use super::record::encode_key;
use crate::disk::Disk;
use crate::message::ConversationKey;
use crate::snapshot::{self, ChunkMeta, Manifest, PackWriter, StoreId};
use crate::telemetry::Metrics;
use crate::wal::{self, Lsn, Wal};

/// When to take one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// At the latest so long after the last one.
    pub interval: Duration,
    /// Or as soon as the log has grown by so much.
    pub log_bytes: u64,
    /// With so many packs the next checkpoint writes everything anew into one. Each pack is an
    /// open file and a step of recovery.
    pub packs_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), log_bytes: 64 << 20, packs_max: 8 }
    }
}

/// Where snapshots live.
#[derive(Clone)]
pub struct Place {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// `snap/` of the data directory.
    pub snap_dir: PathBuf,
    /// `tmp/` of the data directory.
    pub tmp_dir: PathBuf,
    /// `quarantine/` of the data directory.
    pub quarantine_dir: PathBuf,
    /// The store they belong to.
    pub store: StoreId,
    /// The epoch of the data directory.
    pub epoch: u32,
}

/// Conversations with records that no collected chunk covers. Each stands in it once.
#[derive(Debug, Default)]
pub(crate) struct DirtyList {
    keys: Mutex<Vec<ConversationKey>>,
}

impl DirtyList {
    pub(crate) fn add(&self, key: ConversationKey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key);
    }

    fn take(&self) -> Vec<ConversationKey> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_empty(&self) -> bool {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Why a checkpoint was not taken. The log still has everything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pack or manifest could not be written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The log could not be synced or cut.
    #[error(transparent)]
    Log(#[from] wal::Error),
    /// A conversation gave no chunks: its actor died. Its history is only in the log and the
    /// packs there are, so both are kept as they are until a restart.
    #[error("no chunks from {0}: snapshots are suspended until a restart")]
    Quarantined(ConversationKey),
}

/// What a checkpoint did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    conversations: usize,
    pack_bytes: u64,
    segments_removed: usize,
}

enum Order {
    /// The log has grown by `log_bytes`.
    Grown,
    /// Take one now and say when it is done.
    Now(mpsc::SyncSender<Result<(), Error>>),
    /// Take the last one and end.
    Stop,
}

/// The running thread.
pub(crate) struct Checkpoints {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

/// Tells the thread that the log has grown. Cheap to clone and call.
#[derive(Clone)]
pub(crate) struct Growth {
    orders: mpsc::Sender<Order>,
    bytes: u64,
    log_bytes: u64,
}

impl Growth {
    /// Counts what a batch wrote.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= self.log_bytes {
            self.bytes = 0;
            // The thread is gone only while the node stops.
            let _ = self.orders.send(Order::Grown);
        }
    }
}

/// The way to the thread before it runs: the log needs it first.
pub(crate) struct Desk {
    orders: mpsc::Sender<Order>,
    inbox: mpsc::Receiver<Order>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let (orders, inbox) = mpsc::channel();
        Self { orders, inbox }
    }

    pub(crate) fn growth(&self, options: &Options) -> Growth {
        Growth { orders: self.orders.clone(), bytes: 0, log_bytes: options.log_bytes }
    }

    /// Starts the thread.
    pub(crate) fn open(self, checkpointer: Checkpointer) -> std::io::Result<Checkpoints> {
        let inbox = self.inbox;
        let thread =
            std::thread::Builder::new().name("checkpoint".into()).spawn(move || checkpointer.run(&inbox))?;
        Ok(Checkpoints { orders: self.orders, thread })
    }
}

impl Checkpoints {
    /// Takes a checkpoint now. Blocks.
    pub(crate) fn take_now(&self) -> Result<(), Error> {
        let (done, answer) = mpsc::sync_channel(1);
        if self.orders.send(Order::Now(done)).is_err() {
            return Ok(());
        }
        answer.recv().unwrap_or(Ok(()))
    }

    /// Takes the last checkpoint and ends the thread. Blocks.
    pub(crate) fn stop(self) {
        let _ = self.orders.send(Order::Stop);
        if self.thread.join().is_err() {
            error!("the checkpoint thread panicked");
        }
    }
}

/// What the thread works with.
pub(crate) struct Checkpointer {
    pub(crate) options: Options,
    pub(crate) place: Place,
    pub(crate) directory: Arc<Directory>,
    pub(crate) log: Arc<Wal<Ticket>>,
    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) metrics: Arc<Metrics>,
    /// The manifest that is current.
    pub(crate) current: Option<Manifest>,
    /// Whether the next one must write everything: the one before failed half-way, so what the
    /// conversations take for saved is not.
    pub(crate) restart: bool,
}

impl Checkpointer {
    fn run(mut self, inbox: &mpsc::Receiver<Order>) {
        loop {
            match inbox.recv_timeout(self.options.interval) {
                Ok(Order::Grown) | Err(RecvTimeoutError::Timeout) => {
                    self.attempt().unwrap_or_else(|why| report_failure(&why));
                }
                Ok(Order::Now(done)) => {
                    let _ = done.send(self.attempt());
                }
                Ok(Order::Stop) => {
                    self.attempt().unwrap_or_else(|why| report_failure(&why));
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn attempt(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let result = self.take();
        self.restart |= result.is_err();
        self.metrics.observe_checkpoint(result.is_ok());
        if let Some(report) = result? {
            let Report { conversations, pack_bytes, segments_removed } = report;
            let ms = started.elapsed().as_millis();
            info!(conversations, pack_bytes, segments_removed, ms, "checkpoint taken");
        }
        Ok(())
    }

    /// Takes one; `None` when nothing changed since the last.
    fn take(&mut self) -> Result<Option<Report>, Error> {
        if self.dirty.is_empty() && !self.restart {
            return Ok(None);
        }
        let restart = self.restart || self.packs().len() >= self.options.packs_max;
        // The order matters, see the top of the file.
        let covered = self.log.durable_lsn();
        let changed = self.dirty.take();
        let keys = if restart { self.directory.keys() } else { changed };
        let number = snapshot::next_number(&*self.place.disk, &self.place.snap_dir)?;
        let mut pack = self.create_pack(number)?;
        for key in &keys {
            self.save(&mut pack, key, restart)?;
        }
        self.log.sync()?;
        let info = pack.finish()?;
        let pack_bytes = info.bytes;
        let mut packs = if restart { Vec::new() } else { self.packs().to_vec() };
        packs.push(info);
        self.publish(number, covered, packs)?;
        self.restart = false;
        let segments_removed = self.cut_log()?;
        Ok(Some(Report { conversations: keys.len(), pack_bytes, segments_removed }))
    }

    fn packs(&self) -> &[snapshot::PackInfo] {
        self.current.as_ref().map_or(&[], |manifest| &manifest.packs)
    }

    fn create_pack(&self, number: u64) -> Result<PackWriter, Error> {
        let Place { disk, tmp_dir, snap_dir, store, .. } = &self.place;
        Ok(PackWriter::create(disk.clone(), tmp_dir, snap_dir, *store, number)?)
    }

    /// Writes the series of one conversation, a few chunks at a time.
    fn save(&self, pack: &mut PackWriter, key: &ConversationKey, restart: bool) -> Result<(), Error> {
        let key_bytes = encode_key(key);
        let mut restart = restart;
        loop {
            let chunks = self.collect(key, restart)?;
            restart = false;
            for chunk in &chunks {
                pack.add(&meta_of(chunk, key_bytes.clone()), &chunk.payload)?;
            }
            if chunks.last().is_some_and(|chunk| chunk.complete) {
                return Ok(());
            }
        }
    }

    fn collect(&self, key: &ConversationKey, restart: bool) -> Result<Vec<Chunk>, Error> {
        let chunks = match self.directory.collect(key, restart) {
            Collected::Chunks(chunks) => Some(chunks),
            Collected::Ask(running) => ask(&running, restart),
            Collected::Nothing => None,
        };
        chunks.ok_or_else(|| Error::Quarantined(key.clone()))
    }

    fn publish(
        &mut self,
        number: u64,
        covered: Lsn,
        packs: Vec<snapshot::PackInfo>,
    ) -> Result<(), Error> {
        let Place { disk, tmp_dir, snap_dir, store, epoch, .. } = &self.place;
        let manifest = Manifest {
            number,
            store: *store,
            epoch: *epoch,
            replay_after_lsn: covered.0,
            state: [0; 8],
            packs,
        };
        snapshot::publish(&**disk, tmp_dir, snap_dir, &manifest)?;
        self.current = Some(manifest);
        Ok(())
    }

    /// Removes what two manifests no longer need. Both are published already, so a failure here
    /// leaves files behind and nothing else.
    fn cut_log(&self) -> Result<usize, Error> {
        let Place { disk, snap_dir, quarantine_dir, store, .. } = &self.place;
        let pruned = snapshot::prune(&**disk, snap_dir, quarantine_dir, store)?;
        for file in &pruned.quarantined {
            warn!(file = %file.display(), "a damaged snapshot file was moved to quarantine");
        }
        match pruned.log_needed_after {
            Some(lsn) => Ok(self.log.remove_below(Lsn(lsn + 1))?),
            None => Ok(0),
        }
    }
}

fn meta_of(chunk: &Chunk, key: Vec<u8>) -> ChunkMeta {
    ChunkMeta {
        key,
        kind: chunk::KIND,
        version: chunk::VERSION,
        applied_lsn: chunk.applied_lsn,
        summary: chunk.summary.to_numbers(),
    }
}

fn ask(running: &Running, restart: bool) -> Option<Vec<Chunk>> {
    let (to, answer) = oneshot::channel();
    running.actor.cast(Message::Collect { restart, to }).ok()?;
    answer.blocking_recv().ok()
}

fn report_failure(why: &Error) {
    error!(%why, "checkpoint failed; the log is kept and the next one starts over");
}
