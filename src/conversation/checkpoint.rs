//! Checkpoints: writing what is new into a pack, so that the log can be cut behind it.
//!
//! A thread of its own asks each conversation that changed for its newest chunks, writes them into
//! a pack and has it published. No actor and no append waits for it. An error costs nothing but
//! time: the log is kept, and the next checkpoint asks again.
//!
//! Why it is right: the log's end is read *before* the list of changed conversations is taken, and
//! an actor enters the list *before* it appends. So every record up to that end is in a chunk that
//! is collected now or was published before. Chunks may hold records behind it: those are synced
//! before the manifest is published, and replay skips what a chunk has.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{error, info};

use super::actor::Message;
use super::archive::Archive;
use super::chunk::{self, Chunk, Saved};
use super::completion::Ticket;
use super::directory::Directory;
use super::durable::DurableHead;
use super::people::ConversationPack;
use super::publisher::{self, Published, Publisher};
use super::record::encode_key;
use crate::message::ConversationKey;
use crate::snapshot::{self, ChunkMeta};
use crate::telemetry::{Metrics, PackMaker};
use crate::wal::{Lsn, Wal};

/// When to take one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// At the latest so long after the last one.
    pub interval: Duration,
    /// Or as soon as the log has grown by so much.
    pub log_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), log_bytes: 64 << 20 }
    }
}

/// Conversations with records that no collected chunk covers.
#[derive(Debug, Default)]
pub(crate) struct DirtyList {
    keys: Mutex<Vec<ConversationKey>>,
}

impl DirtyList {
    pub(crate) fn add(&self, key: ConversationKey) {
        self.lock().push(key);
    }

    pub(crate) fn add_all(&self, keys: BTreeSet<ConversationKey>) {
        self.lock().extend(keys);
    }

    /// Each once, in an order of their own.
    pub(crate) fn take(&self) -> BTreeSet<ConversationKey> {
        std::mem::take(&mut *self.lock()).into_iter().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ConversationKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a checkpoint was not taken. The log still has everything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pack could not be written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The pack could not be published.
    #[error(transparent)]
    Publish(#[from] publisher::Error),
    /// An actor died between two chunks of its conversation. The next checkpoint leaves it out.
    #[error("{0} ended in the middle of its chunks")]
    Interrupted(ConversationKey),
    /// The thread panicked, or is gone.
    #[error("the checkpoint thread panicked")]
    Panicked,
    /// The node stops.
    #[error("the node stops and takes its last checkpoint by itself")]
    Stopped,
}

/// So many conversations are asked at once, so that the thread does not sleep and wake for each. Each answers
/// with a few chunks, most of them far below the 1 MiB of texts that one may have: some 32 MiB at worst.
const ASKED_AT_ONCE: usize = 32;

enum Order {
    /// The log or memory has grown.
    Ask,
    /// Take one now and say how it went.
    Now(mpsc::SyncSender<Result<(), Error>>),
    /// Take the last one and end.
    Stop,
}

/// Asks the thread for a checkpoint. Cheap to clone and call.
#[derive(Clone)]
pub(crate) struct Growth {
    orders: mpsc::Sender<Order>,
    bytes: u64,
    log_bytes: u64,
}

impl Growth {
    /// Counts what a batch wrote, and asks when it is enough.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= self.log_bytes {
            self.bytes = 0;
            self.ask();
        }
    }

    /// Asks for one.
    pub(crate) fn ask(&mut self) {
        // The thread is gone only while the node stops.
        let _ = self.orders.send(Order::Ask);
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

/// The running thread.
pub(crate) struct Checkpoints {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// The way to ask for one.
    pub(crate) fn caller(&self) -> Caller {
        Caller { orders: self.orders.clone() }
    }

    /// Takes the last checkpoint and ends the thread. Blocks.
    pub(crate) fn stop(self) {
        let _ = self.orders.send(Order::Stop);
        if self.thread.join().is_err() {
            error!("the checkpoint thread panicked");
        }
    }
}

/// Asks the thread for a checkpoint and hears how it went. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Caller {
    orders: mpsc::Sender<Order>,
}

impl Caller {
    /// Takes a checkpoint now. Blocks.
    pub(crate) fn take_now(&self) -> Result<(), Error> {
        let (done, answer) = mpsc::sync_channel(1);
        self.orders.send(Order::Now(done)).map_err(|_| Error::Stopped)?;
        answer.recv().unwrap_or(Err(Error::Stopped))
    }
}

/// What the thread works with.
pub(crate) struct Checkpointer {
    pub(crate) options: Options,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) archive: Arc<Archive>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) log: Arc<Wal<Ticket>>,
    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) metrics: Arc<Metrics>,
    /// Called after each one that published a pack.
    pub(crate) on_published: Box<dyn Fn() + Send>,
}

/// A conversation, and up to which record the pack has it.
type Saving = (Arc<DurableHead>, u64);

/// What a checkpoint did.
#[derive(Default)]
struct Taken {
    /// `None` when no conversation gave anything.
    published: Option<Published>,
    saved: Vec<Saving>,
    /// Damaged, or their actor died.
    failed: BTreeSet<ConversationKey>,
}

impl Checkpointer {
    fn run(self, inbox: &mpsc::Receiver<Order>) {
        let mut order = next_order(inbox, self.options.interval);
        loop {
            match order {
                Ok(Order::Ask) | Err(RecvTimeoutError::Timeout) => self.attempt_or_report(),
                Ok(Order::Now(done)) => {
                    let _ = done.send(self.attempt());
                }
                Ok(Order::Stop) => return self.attempt_or_report(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            order = next_order(inbox, self.options.interval);
        }
    }

    fn attempt_or_report(&self) {
        self.attempt().unwrap_or_else(|why| error!(%why, "checkpoint failed; the log is kept"));
    }

    /// Takes one, unless nothing has changed.
    fn attempt(&self) -> Result<(), Error> {
        let started = Instant::now();
        // The order matters, see the top of the file.
        let covered = self.log.durable_lsn();
        let newcomers = self.directory.newcomers();
        let sealed = newcomers.seal();
        let keys = self.dirty.take();
        if keys.is_empty() {
            self.publisher.cover(covered);
            return Ok(());
        }
        // A bug in here must not end the thread: nothing would cut the log any more.
        let result = catch_unwind(AssertUnwindSafe(|| self.take(covered, &keys)));
        let result = result.unwrap_or(Err(Error::Panicked));
        let is_whole = matches!(&result, Ok(taken) if taken.failed.is_empty());
        self.metrics.observe_checkpoint(is_whole, started.elapsed());
        let Taken { published, saved, failed } = match result {
            Ok(taken) => taken,
            Err(why) => {
                self.dirty.add_all(keys);
                return Err(why);
            }
        };
        newcomers.forget(sealed, &failed);
        if !failed.is_empty() {
            let (count, first) = (failed.len(), failed.first().map(ToString::to_string));
            error!(
                count,
                first, "conversations that cannot be read are left out; the log behind them is kept"
            );
            self.dirty.add_all(failed);
        }
        let Some(Published { pack_bytes, segments_removed }) = published else { return Ok(()) };
        self.metrics.observe_pack(PackMaker::Checkpoint, pack_bytes);
        (self.on_published)();
        let (conversations, ms) = (saved.len(), started.elapsed().as_millis());
        info!(conversations, pack_bytes, segments_removed, ms, "checkpoint taken");
        Ok(())
    }

    fn take(&self, covered: Lsn, keys: &BTreeSet<ConversationKey>) -> Result<Taken, Error> {
        let mut pack = self.publisher.create_pack()?;
        let mut taken = Taken::default();
        // One conversation that cannot be read must not keep the others from the packs; but its
        // records must stay in the log.
        let mut kept_from = covered;
        let (mut keys, mut asked) = (keys.iter(), VecDeque::new());
        loop {
            let more = keys.by_ref().take(ASKED_AT_ONCE - asked.len());
            asked.extend(more.map(|key| self.ask(key, self.archive.saved(key))));
            let Some(first) = asked.pop_front() else { break };
            let key = first.key;
            match self.save(&mut pack, first)? {
                Some(saved) => taken.saved.push(saved),
                None => {
                    kept_from = kept_from.min(Lsn(self.directory.saved_through(key)));
                    taken.failed.insert(key.clone());
                }
            }
        }
        if pack.chunks() > 0 {
            taken.published = Some(self.publisher.append(pack, kept_from)?);
            taken.saved.iter().for_each(|(head, lsn)| head.mark_saved(*lsn));
        }
        Ok(taken)
    }

    /// Writes the series of one conversation, a few chunks at a time; `None` when it gives none.
    fn save(&self, pack: &mut ConversationPack, asked: Asked<'_>) -> Result<Option<Saving>, Error> {
        let (key, before) = (asked.key, asked.saved);
        let key_bytes = encode_key(key);
        let (mut asked, mut saved) = (asked, before);
        loop {
            let Some((head, chunks)) = self.answer_of(asked) else {
                // Half a series would make the conversation unreadable.
                return if saved == before { Ok(None) } else { Err(Error::Interrupted(key.clone())) };
            };
            // Nothing has happened in a conversation whose first record the log refused.
            for chunk in chunks.iter().filter(|chunk| chunk.applied_lsn > 0) {
                pack.add(&key_bytes, chunk)?;
                saved = chunk.summary.after();
            }
            if let Some(last) = chunks.last().filter(|chunk| chunk.complete) {
                return Ok(Some((head, last.applied_lsn)));
            }
            #[cfg(test)]
            self.directory.meanwhile.happen();
            asked = self.ask(key, saved);
        }
    }

    /// Asks a conversation for its next chunks. It is read from the disk first if it is not in memory.
    fn ask<'a>(&self, key: &'a ConversationKey, saved: Saved) -> Asked<'a> {
        let entered = self.directory.escort(key).ok();
        let answer = entered.map(|(running, permit)| {
            let (to, answer) = oneshot::channel();
            // An actor that does not take it drops `to`, which is the answer of one that died.
            let _ = running.actor.cast(Message::Collect { saved, to, permit });
            (running.head, answer)
        });
        Asked { key, saved, answer }
    }

    fn answer_of(&self, asked: Asked<'_>) -> Option<(Arc<DurableHead>, Vec<Chunk>)> {
        let (head, answer) = asked.answer?;
        match answer.blocking_recv() {
            Ok(chunks) => Some((head, chunks)),
            Err(_) => {
                self.directory.quarantine(&head);
                None
            }
        }
    }
}

/// A conversation that was asked for its chunks.
struct Asked<'a> {
    key: &'a ConversationKey,
    saved: Saved,
    /// `None` when it is refused.
    answer: Option<(Arc<DurableHead>, oneshot::Receiver<Vec<Chunk>>)>,
}

/// The next order, or what ends the wait for one. However often a checkpoint was asked for meanwhile,
/// it is one wish; but it is one, also behind the attempt during which it came.
fn next_order(inbox: &mpsc::Receiver<Order>, interval: Duration) -> Result<Order, RecvTimeoutError> {
    let mut asked = false;
    for order in inbox.try_iter() {
        match order {
            Order::Ask => asked = true,
            other => return Ok(other),
        }
    }
    if asked { Ok(Order::Ask) } else { inbox.recv_timeout(interval) }
}

/// What the pack notes beside a chunk's payload.
pub(crate) fn meta_of(chunk: &Chunk, key: Vec<u8>) -> ChunkMeta {
    ChunkMeta {
        key,
        kind: chunk::KIND,
        version: chunk.version,
        applied_lsn: chunk.applied_lsn,
        summary: chunk.summary.to_numbers(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wishes_are_one_and_none_is_forgotten() {
        let (orders, inbox) = mpsc::channel();
        let send = |order| orders.send(order).expect("the inbox is there");
        (0..3).for_each(|_| send(Order::Ask));
        assert!(matches!(next_order(&inbox, Duration::ZERO), Ok(Order::Ask)));
        assert!(matches!(next_order(&inbox, Duration::ZERO), Err(RecvTimeoutError::Timeout)));
        send(Order::Ask);
        send(Order::Stop);
        assert!(matches!(next_order(&inbox, Duration::ZERO), Ok(Order::Stop)));
    }
}
