//! Compaction: merging packs, so that there are few of them and recalled texts leave the disk.
//!
//! Each checkpoint adds a pack behind the others. A run of packs at the end is merged once the
//! packs behind a pack are together as large as it (so a byte is rewritten about log2(size /
//! checkpoint) times), or when there are too many. The merged pack holds the same conversations
//! chunk by chunk, without the heads that later ones replaced and without the texts that a recall
//! in the run took back. It is written at a limited rate, and published in the place of the run;
//! checkpoints go on meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::actor::now_ns;
use super::archive::Archive;
use super::background::step_back;
use super::chunk::{Merger, Retention, Summary};
use super::people::{ConversationPack, is_block};
use super::publisher::{self, Publisher};
use super::{history, retention};
use crate::snapshot::{self, IndexEntry, PACK_CHUNKS_MAX, PackReader};
use crate::telemetry::{Metrics, PackMaker};
use pace::Pace;

mod pace;

/// How packs are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// More packs than this are merged whatever their sizes. Each is an open file and a look-up.
    pub packs_max: usize,
    /// Bytes written per second, so that commits do not wait behind a merge.
    pub bytes_per_second: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { packs_max: 8, bytes_per_second: 8 << 20 }
    }
}

/// Why packs were not merged. They are all still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A chunk cannot be read or makes no sense.
    #[error("pack {pack}: {why}")]
    Unreadable {
        /// The number of its pack.
        pack: u64,
        /// What is wrong.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The merged pack cannot be written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The merged pack cannot be published.
    #[error(transparent)]
    Publish(#[from] publisher::Error),
    /// The node stops.
    #[error("interrupted by the stop of the node")]
    Stopped,
    /// A bug.
    #[error("the compaction thread panicked")]
    Panicked,
}

/// The signals between the node and the thread.
#[derive(Default)]
struct Bell {
    /// One asks for a merge of everything at a time: each hears of its own.
    asking: Mutex<()>,
    state: Mutex<Wanted>,
    rang: Condvar,
    stopped: AtomicBool,
}

/// What the thread is asked for.
#[derive(Default)]
struct Wanted {
    /// Look whether something is to be merged.
    look: bool,
    /// Merge everything: somebody waits for it.
    all: bool,
    /// How many whole merges have ended, and how the last one did.
    ended: u64,
    outcome: Option<Result<(), Error>>,
}

/// The running thread.
pub(crate) struct Compaction {
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

/// Tells the thread that a pack was published.
#[derive(Clone)]
pub(crate) struct Nudge {
    bell: Arc<Bell>,
}

impl Nudge {
    pub(crate) fn look(&self) {
        self.bell.lock().look = true;
        self.bell.rang.notify_all();
    }

    /// Merges all packs into one. Blocks until it is done.
    pub(crate) fn merge_all(&self) -> Result<(), Error> {
        let _asking = self.bell.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = self.bell.lock();
        wanted.all = true;
        self.bell.rang.notify_all();
        let ended = wanted.ended;
        let running =
            |wanted: &mut Wanted| wanted.ended == ended && !self.bell.stopped.load(Ordering::Acquire);
        let mut wanted = self.bell.rang.wait_while(wanted, running).unwrap_or_else(PoisonError::into_inner);
        wanted.outcome.take().unwrap_or(Err(Error::Stopped))
    }
}

impl Bell {
    fn lock(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an order; `None` when the node stops. `true`: merge everything.
    fn wait(&self) -> Option<bool> {
        let mut wanted = self.lock();
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return None;
            }
            if wanted.look || wanted.all {
                wanted.look = false;
                return Some(wanted.all);
            }
            wanted = self.rang.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether somebody waits for everything to be merged.
    fn is_hurried(&self) -> bool {
        self.lock().all
    }

    /// Sleeps, but not beyond a stop, and not while the hurry is another one.
    fn pause(&self, time: Duration, is_hurried: bool) -> Result<(), Error> {
        let stopped = || self.stopped.load(Ordering::Acquire);
        let goes_on = |wanted: &mut Wanted| !stopped() && wanted.all == is_hurried;
        let waited = self.rang.wait_timeout_while(self.lock(), time, goes_on);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.check()
    }

    /// An error when the node stops.
    fn check(&self) -> Result<(), Error> {
        if self.stopped.load(Ordering::Acquire) { Err(Error::Stopped) } else { Ok(()) }
    }
}

impl Compaction {
    /// Starts the thread.
    pub(crate) fn start(
        options: Options,
        retention: retention::Options,
        archive: Arc<Archive>,
        publisher: Arc<Publisher>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let unmergeable = HashSet::new();
        let compactor =
            Compactor { options, retention, archive, publisher, metrics, bell: bell.clone(), unmergeable };
        let thread = std::thread::Builder::new().name("compaction".into()).spawn(move || {
            step_back();
            compactor.run();
        })?;
        Ok(Self { bell, thread })
    }

    /// What a checkpoint rings.
    pub(crate) fn nudge(&self) -> Nudge {
        Nudge { bell: self.bell.clone() }
    }

    /// Ends the thread; a merge under way is given up. Blocks.
    pub(crate) fn stop(self) {
        self.bell.stopped.store(true, Ordering::Release);
        // Under the lock, so that a thread about to wait does not miss it.
        drop(self.bell.lock());
        self.bell.rang.notify_all();
        if self.thread.join().is_err() {
            error!("the compaction thread panicked");
        }
    }
}

struct Compactor {
    options: Options,
    retention: retention::Options,
    archive: Arc<Archive>,
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
    bell: Arc<Bell>,
    /// Packs that have a chunk which cannot be read. They stay as they are, for a repair; runs begin
    /// behind them.
    unmergeable: HashSet<u64>,
}

impl Compactor {
    fn run(mut self) {
        while let Some(all) = self.bell.wait() {
            // A bug in here must not end the thread: packs would pile up.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.merge_what_can_be(all)));
            let outcome = outcome.unwrap_or(Err(Error::Panicked));
            report(&outcome);
            if all {
                let mut wanted = self.bell.lock();
                wanted.all = false;
                wanted.ended += 1;
                wanted.outcome = Some(outcome);
                self.bell.rang.notify_all();
            }
        }
    }

    /// Merges what is due, behind the packs that cannot be read; the first of those is the outcome.
    fn merge_what_can_be(&mut self, all: bool) -> Result<(), Error> {
        if all {
            // Whoever asks is to hear of every pack that stays as it is.
            self.unmergeable.clear();
        }
        let mut unreadable = None;
        loop {
            match self.merge_what_is_due(all) {
                Err(why @ Error::Unreadable { pack, .. }) => {
                    self.unmergeable.insert(pack);
                    unreadable.get_or_insert(why);
                }
                Ok(()) => return unreadable.map_or(Ok(()), Err),
                failed => return failed,
            }
        }
    }

    fn merge_what_is_due(&self, all: bool) -> Result<(), Error> {
        let packs = self.archive.packs();
        let is_bad = |pack: &Arc<PackReader>| self.unmergeable.contains(&pack.info().number);
        let readable = packs.iter().rposition(is_bad).map_or(0, |bad| bad + 1);
        let (unreadable, packs) = packs.split_at(readable);
        let sizes: Vec<u64> = packs.iter().map(|pack| pack.info().bytes).collect();
        let wanted = if all { 0 } else { first_of_run(&sizes, self.options.packs_max) };
        let first = wanted.max(first_that_fits(packs));
        // One pack alone is merged only on request: a recall in it may have a text in it too.
        let worth_it = if all { 1 } else { 2 };
        if packs.len() - first < worth_it {
            return Ok(());
        }
        let before = [unreadable, &packs[..first]].concat();
        self.merge(&before, &packs[first..], all)
    }

    /// Merges a run of packs; `older` are those before it.
    fn merge(&self, older: &[Arc<PackReader>], run: &[Arc<PackReader>], for_good: bool) -> Result<(), Error> {
        let started = Instant::now();
        let before: u64 = run.iter().map(|pack| pack.info().bytes).sum();
        let mut merging = Merging {
            pack: self.publisher.create_pack()?,
            pace: Pace::begin(self.options.bytes_per_second, &self.bell, &self.metrics),
            retention: self.retention,
            history: self.archive.history,
            older,
        };
        for places in by_conversation(run).into_values() {
            merging.conversation(run, &places)?;
        }
        let published = self.publisher.replace(run, merging.pack, for_good)?;
        self.metrics.observe_pack(PackMaker::Merge, published.pack_bytes);
        let (packs, ms) = (run.len(), started.elapsed().as_millis());
        info!(packs, bytes_before = before, bytes = published.pack_bytes, ms, "packs merged");
        Ok(())
    }
}

/// A pack in the making.
struct Merging<'a> {
    pack: ConversationPack,
    pace: Pace<'a>,
    retention: retention::Options,
    history: history::Options,
    /// The packs before the run.
    older: &'a [Arc<PackReader>],
}

impl Merging<'_> {
    /// Writes one conversation of the run (or the few that share a hash).
    fn conversation(&mut self, run: &[Arc<PackReader>], places: &[PlaceInRun]) -> Result<(), Error> {
        let mut mergers = BTreeMap::<Vec<u8>, Merger>::new();
        // Twice: what a later chunk recalls must be known before an earlier one is written.
        for (number, entry) in places {
            let pack = &run[*number];
            let chunk = pack.chunk(entry).map_err(unreadable(pack))?;
            let merger = mergers.entry(chunk.meta.key).or_insert_with(|| self.merger(entry.key_hash));
            let is_hollow = Summary::from_numbers(entry.summary).hollow;
            merger.survey(&chunk.payload, is_hollow).map_err(unreadable(pack))?;
        }
        for (number, entry) in places {
            let pack = &run[*number];
            let chunk = pack.chunk(entry).map_err(unreadable(pack))?;
            let merger = mergers.get_mut(&chunk.meta.key).expect("surveyed above");
            let merged = merger.merge(chunk.meta.applied_lsn, &chunk.payload).map_err(unreadable(pack))?;
            for chunk_out in merged {
                self.pack.add(&chunk.meta.key, &chunk_out)?;
            }
            self.pace.keep(self.pack.bytes())?;
        }
        Ok(())
    }

    /// Retention takes from the beginning of a conversation, or nothing: what is gone leaves no hole.
    fn merger(&self, key_hash: u128) -> Merger {
        let has = |pack: &Arc<PackReader>| {
            let entries = pack.entries();
            let first = entries.partition_point(|entry| entry.key_hash < key_hash);
            entries.get(first).is_some_and(|entry| entry.key_hash == key_hash)
        };
        match self.retention.is_off() || self.older.iter().any(has) {
            true => Merger::default(),
            false => Merger::with(Retention::new(self.retention, self.history, now_ns())),
        }
    }
}

fn report(outcome: &Result<(), Error>) {
    match outcome {
        Ok(()) | Err(Error::Stopped) => {}
        Err(why) => error!(%why, "packs could not be merged; they are kept as they are"),
    }
}

fn unreadable<E>(pack: &PackReader) -> impl FnOnce(E) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let pack = pack.info().number;
    move |why| Error::Unreadable { pack, why: Box::new(why) }
}

/// Chunks of a merged pack that are left to its people blocks: packs that are older than blocks bring none.
const BLOCKS_MAX: usize = PACK_CHUNKS_MAX / 8;

/// The first pack from which on one pack holds all chunks.
fn first_that_fits(packs: &[Arc<PackReader>]) -> usize {
    let mut room = (PACK_CHUNKS_MAX - BLOCKS_MAX) as u64;
    for (number, pack) in packs.iter().enumerate().rev() {
        match room.checked_sub(pack.info().chunks) {
            Some(rest) => room = rest,
            None => return number + 1,
        }
    }
    0
}

/// The first pack of the run at the end that is due, or the number of packs when none is.
fn first_of_run(sizes: &[u64], packs_max: usize) -> usize {
    let mut behind = 0;
    let mut first = sizes.len();
    for (number, size) in sizes.iter().enumerate().rev() {
        if behind > 0 && *size <= behind {
            first = number;
        }
        behind += size;
    }
    match sizes.len() > packs_max {
        // The newest half is the cheapest way back under the limit.
        true => first.min(sizes.len() / 2),
        false => first,
    }
}

/// A chunk: which pack of the run, and its entry there.
type PlaceInRun = (usize, IndexEntry);

/// Where each conversation's chunks are, in their order.
fn by_conversation(run: &[Arc<PackReader>]) -> BTreeMap<u128, Vec<PlaceInRun>> {
    let mut places = BTreeMap::<u128, Vec<PlaceInRun>>::new();
    for (number, pack) in run.iter().enumerate() {
        // The people blocks are made anew from what is merged.
        for entry in pack.entries().iter().filter(|entry| !is_block(entry)) {
            places.entry(entry.key_hash).or_default().push((number, *entry));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_begins_where_the_packs_behind_weigh_as_much() {
        assert_eq!(first_of_run(&[], 8), 0);
        assert_eq!(first_of_run(&[10], 8), 1);
        assert_eq!(first_of_run(&[100, 10], 8), 2);
        assert_eq!(first_of_run(&[100, 10, 10], 8), 1);
        assert_eq!(first_of_run(&[20, 10, 10], 8), 0);
        assert_eq!(first_of_run(&[100, 40, 30, 1], 8), 4);
    }

    #[test]
    fn too_many_packs_are_merged_whatever_their_sizes() {
        let sizes = [512, 256, 128, 64, 32, 16, 8, 4, 2];
        assert_eq!(first_of_run(&sizes, 9), 9);
        assert_eq!(first_of_run(&sizes, 8), 4);
    }
}
