//! Compaction: merging packs, so that there are few of them and recalled texts leave the disk.
//!
//! Each checkpoint adds a pack behind the others. A run of packs at the end is merged once the
//! packs behind a pack are together as large as it (so a byte is rewritten about log2(size /
//! checkpoint) times), or when there are too many. The merged pack holds the same conversations
//! chunk by chunk, without the heads that later ones replaced and without the texts that a recall
//! in the run took back. It is written at a limited rate, and published in the place of the run;
//! checkpoints go on meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::archive::Archive;
use super::checkpoint::meta_of;
use super::chunk::{self, Merger};
use super::publisher::{self, Publisher};
use crate::snapshot::{self, IndexEntry, PackReader, PackWriter};

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
    /// A chunk cannot be read, or the merged pack not be written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A chunk is whole but makes no sense.
    #[error(transparent)]
    Chunk(#[from] chunk::Error),
    /// The merged pack cannot be published.
    #[error(transparent)]
    Publish(#[from] publisher::Error),
    /// The node stops.
    #[error("interrupted")]
    Stopped,
}

/// The signals between the node and the thread.
#[derive(Default)]
struct Bell {
    state: Mutex<Wanted>,
    rang: Condvar,
    stopped: AtomicBool,
}

/// What the thread is asked for.
#[derive(Default)]
struct Wanted {
    /// Look whether something is to be merged.
    look: bool,
    /// Merge everything, at full speed.
    all: bool,
    /// How many whole merges have ended.
    ended: u64,
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

    /// Merges all packs into one, at full speed. Blocks until it is done.
    pub(crate) fn merge_all(&self) {
        let mut wanted = self.bell.lock();
        wanted.all = true;
        self.bell.rang.notify_all();
        let ended = wanted.ended;
        let done = |wanted: &mut Wanted| wanted.ended == ended && !self.bell.stopped.load(Ordering::Acquire);
        drop(self.bell.rang.wait_while(wanted, done));
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

    /// Sleeps, but not beyond a stop, and not while somebody waits for everything to be merged.
    fn pause(&self, time: Duration) -> Result<(), Error> {
        let wanted = self.lock();
        let stopped = || self.stopped.load(Ordering::Acquire);
        let (_wanted, _) = self
            .rang
            .wait_timeout_while(wanted, time, |wanted| !stopped() && !wanted.all)
            .unwrap_or_else(PoisonError::into_inner);
        if stopped() { Err(Error::Stopped) } else { Ok(()) }
    }
}

impl Compaction {
    /// Starts the thread.
    pub(crate) fn start(
        options: Options,
        archive: Arc<Archive>,
        publisher: Arc<Publisher>,
    ) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let compactor = Compactor { options, archive, publisher, bell: bell.clone() };
        let thread = std::thread::Builder::new().name("compaction".into()).spawn(move || compactor.run())?;
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
    archive: Arc<Archive>,
    publisher: Arc<Publisher>,
    bell: Arc<Bell>,
}

impl Compactor {
    fn run(self) {
        while let Some(all) = self.bell.wait() {
            self.merge_what_is_due(all);
            if all {
                let mut wanted = self.bell.lock();
                wanted.all = false;
                wanted.ended += 1;
                self.bell.rang.notify_all();
            }
        }
    }

    fn merge_what_is_due(&self, all: bool) {
        let packs = self.archive.packs();
        let sizes: Vec<u64> = packs.iter().map(|pack| pack.info().bytes).collect();
        let first = if all { 0 } else { first_of_run(&sizes, self.options.packs_max) };
        // One pack alone is merged only on request: a recall in it may have a text in it too.
        let worth_it = if all { 1 } else { 2 };
        if packs.len() - first < worth_it {
            return;
        }
        match self.merge(&packs[first..], all) {
            Ok(()) | Err(Error::Stopped) => {}
            Err(why) => error!(%why, "packs could not be merged; all of them are kept"),
        }
    }

    fn merge(&self, run: &[Arc<PackReader>], at_full_speed: bool) -> Result<(), Error> {
        let started = Instant::now();
        let before: u64 = run.iter().map(|pack| pack.info().bytes).sum();
        let mut pack = self.publisher.create_pack()?;
        for places in by_conversation(run).into_values() {
            merge_conversation(run, &places, &mut pack)?;
            if self.bell.stopped.load(Ordering::Acquire) {
                return Err(Error::Stopped);
            }
            if !at_full_speed {
                self.keep_to_the_rate(started, pack.bytes())?;
            }
        }
        let published = self.publisher.replace(run, pack)?;
        let (packs, ms) = (run.len(), started.elapsed().as_millis());
        info!(packs, bytes_before = before, bytes = published.pack_bytes, ms, "packs merged");
        Ok(())
    }

    fn keep_to_the_rate(&self, started: Instant, written: u64) -> Result<(), Error> {
        let due = Duration::from_secs_f64(written as f64 / self.options.bytes_per_second as f64);
        match due.checked_sub(started.elapsed()) {
            // Shorter pauses would cost more than they are worth.
            Some(early) if early > Duration::from_millis(20) => self.bell.pause(early),
            _ => Ok(()),
        }
    }
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
        for entry in pack.entries() {
            places.entry(entry.key_hash).or_default().push((number, *entry));
        }
    }
    places
}

/// Writes one conversation of the run (or the few that share a hash) into the merged pack.
fn merge_conversation(
    run: &[Arc<PackReader>],
    places: &[PlaceInRun],
    pack: &mut PackWriter,
) -> Result<(), Error> {
    let mut mergers = BTreeMap::<Vec<u8>, Merger>::new();
    // Twice: what a later chunk recalls must be known before an earlier one is written.
    for (number, entry) in places {
        let chunk = run[*number].chunk(entry)?;
        mergers.entry(chunk.meta.key).or_default().survey(&chunk.payload)?;
    }
    for (number, entry) in places {
        let chunk = run[*number].chunk(entry)?;
        let merger = mergers.get_mut(&chunk.meta.key).expect("surveyed above");
        for merged in merger.merge(chunk.meta.applied_lsn, &chunk.payload)? {
            pack.add(&meta_of(&merged, chunk.meta.key.clone()), &merged.payload)?;
        }
    }
    Ok(())
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
