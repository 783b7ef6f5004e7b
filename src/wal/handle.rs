//! The log with its two threads: what a server holds.
//!
//! Promises what [`wal`](super) promises, from any thread and without waiting; that a panic of a thread counts as a
//! failure of the log; and that an idle log uses no processor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::committer::Sink;
use super::queue::{Bell, End, Reason, Refused, Shared, State};
use super::seat::Seat;
use super::segment::SegmentFile;
use super::spare::Stock;
use super::stepped::{Stepped, remove_below};
use super::{Error, Lsn, Options, Recovered, StoreId};
use crate::disk::Disk;

/// A running log. `T` is whatever waits for a record to become durable.
///
/// Dropping it without [`close`](Self::close) ends it as a crash would, but for what is already written.
pub struct Wal<T: Send + 'static> {
    disk: Arc<dyn Disk>,
    wal_dir: PathBuf,
    shared: Arc<Shared<T>>,
    seat: Arc<Seat<T>>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    committer: JoinHandle<Option<Lsn>>,
    stock: JoinHandle<()>,
}

/// What a log calls when it fails, on one of its threads.
pub type FailureCall = Box<dyn FnOnce(Error) + Send>;

/// Called once, by whichever thread fails first.
struct OnFailure(Mutex<Option<FailureCall>>);

impl OnFailure {
    fn call(&self, error: Error) {
        let call = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(call) = call {
            call(error);
        }
    }
}

impl<T: Send + 'static> Wal<T> {
    /// Begins a new life of a log that [`replay()`](super::replay()) has just read.
    ///
    /// `sink` gets every batch, on the thread that commits. `on_failure` is called at most once, on one of the
    /// log's threads, after the state is [`State::Failed`] and all tickets are dropped.
    ///
    /// # Errors
    /// [`Error::Options`], or [`Error::Io`] when the first segment cannot be made. A full disk is no error:
    /// the log starts read-only.
    #[allow(clippy::too_many_arguments)] // Each is a different thing, and there is one caller.
    pub fn start(
        disk: Arc<dyn Disk>,
        wal_dir: &Path,
        tmp_dir: &Path,
        store: StoreId,
        recovered: &Recovered,
        options: Options,
        sink: Sink<T>,
        on_failure: FailureCall,
    ) -> Result<Self, Error> {
        let log = Stepped::start(disk, wal_dir, tmp_dir, store, recovered, options, sink)?;
        let Stepped { disk, wal_dir, shared, committer, stock } = log;
        let on_failure = Arc::new(OnFailure(Mutex::new(Some(on_failure))));
        let seat = Arc::new(Seat::new(shared.clone(), committer));
        let threads = Threads::start(&shared, &seat, stock, &on_failure);
        let threads = Mutex::new(Some(threads.map_err(Error::io("start a thread for", &wal_dir))?));
        Ok(Self { disk, wal_dir, shared, seat, threads })
    }

    /// Hands a record to the log; never waits for the disk. The ticket comes out of the sink when the record is as
    /// durable as the mode says, and is dropped when the log fails before.
    ///
    /// # Panics
    /// When `kind` is not in [`KINDS`](super::KINDS).
    pub fn append(&self, kind: u8, payload: Vec<u8>, ticket: T) -> Result<Lsn, Refused<T>> {
        self.shared.append(kind, payload, ticket)
    }

    /// An append of nothing: its ticket comes out after those of everything appended before. Works on a full disk.
    pub fn barrier(&self, ticket: T) -> Result<(), Refused<T>> {
        self.shared.barrier(ticket)
    }

    /// Offers to commit on a thread of the caller's, once and for good: `bell` is called when something waits that the
    /// log leaves to the volunteer, who then calls [`commit_in_place`](Self::commit_in_place) soon. The log does so while
    /// its disk is quick. `bell` is called by whoever appends, and must not wait.
    pub fn volunteer(&self, bell: Bell) {
        self.shared.volunteer(bell);
    }

    /// Takes the offer back: the log's thread commits everything from now on.
    pub fn retire_volunteer(&self) {
        self.shared.retire_volunteer();
    }

    /// Commits what waits, as the log's thread would: writes it, syncs it as the mode says, and calls the sink, all on
    /// the caller's thread. Does nothing when the thread is at it already; what it should do is left to it: slow disks,
    /// new segments, the end.
    pub fn commit_in_place(&self) {
        self.seat.commit_in_place();
    }

    /// Waits until everything appended before is on the disk, under every mode, and says how far that is. What
    /// replaces the log (a snapshot) must not become durable before the log itself.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Closed`].
    pub fn wait_for_disk(&self) -> Result<Lsn, Error> {
        self.shared.wait_for_disk()
    }

    /// Ends the current segment and goes on in a new one, behind everything appended before; waits until it is there, and
    /// for a spare to be made if there is none. Says with which record the new segment begins: what is before it is on
    /// the disk, under every mode, and leaves it with [`remove_below`](Self::remove_below).
    ///
    /// # Errors
    /// [`Reason::NoSpace`] when the disk has no room for a segment, [`Reason::Failed`], [`Reason::Closed`].
    pub fn begin_segment(&self) -> Result<Lsn, Reason> {
        self.shared.begin_segment_and_wait()
    }

    /// The newest record whose ticket may be out: durable as the mode says.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.durable_lsn()
    }

    /// The newest record that is known to be on the disk, whatever the mode.
    #[cfg(test)]
    pub(super) fn on_disk_lsn(&self) -> Lsn {
        self.shared.on_disk_lsn()
    }

    /// The newest record that was accepted.
    pub fn appended_lsn(&self) -> Lsn {
        self.shared.appended_lsn()
    }

    /// What the records accepted in this life take in the log, in bytes. Only grows; [`Recovered::bytes`] is what
    /// was there before.
    pub fn appended_bytes(&self) -> u64 {
        self.shared.appended_bytes()
    }

    /// What the log can do now.
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// The segments there are, oldest first; the last is being written.
    pub fn segments(&self) -> Vec<SegmentFile> {
        self.shared.segment_files()
    }

    /// The first record of the oldest segment, and at most `most` segments from the one on that has record `lsn`, or
    /// will; from the oldest on where none has it any more. `None` while there is no segment: on a disk that was full at
    /// the very first start.
    pub fn segments_from(&self, lsn: Lsn, most: usize) -> Option<(Lsn, Vec<SegmentFile>)> {
        self.shared.segments_from(lsn, most)
    }

    /// Removes whole segments that hold only records below `lsn`, never the current one. Says how many.
    ///
    /// # Errors
    /// [`Error::Io`]; the log goes on, and a later call tries again.
    pub fn remove_below(&self, lsn: Lsn) -> Result<usize, Error> {
        remove_below(self.disk.as_ref(), &self.wal_dir, &self.shared, lsn)
    }

    /// Takes no more appends, makes everything durable under every mode, lets the last tickets out and says which record
    /// is the last.
    ///
    /// # Errors
    /// [`Error::Failed`] (the cause went to `on_failure`); [`Error::Closed`] when it was closed before.
    pub fn close(&self) -> Result<Lsn, Error> {
        self.shared.end(End::Close);
        let threads = self.take_threads().ok_or(Error::Closed)?;
        // A panic was caught inside, so a failed join has nothing to say either.
        let last_lsn = threads.committer.join().ok().flatten();
        let _ = threads.stock.join();
        last_lsn.ok_or(Error::Failed)
    }

    fn take_threads(&self) -> Option<Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T: Send + 'static> Drop for Wal<T> {
    fn drop(&mut self) {
        self.shared.end(End::Abandon);
        let Some(threads) = self.take_threads() else {
            return;
        };
        // The last owner may be the sink or `on_failure`, on a thread of the log itself.
        let current = std::thread::current().id();
        if threads.committer.thread().id() != current && threads.stock.thread().id() != current {
            let _ = threads.committer.join();
            let _ = threads.stock.join();
        }
    }
}

impl Threads {
    fn start<T: Send + 'static>(
        shared: &Arc<Shared<T>>,
        seat: &Arc<Seat<T>>,
        stock: Stock<T>,
        on_failure: &Arc<OnFailure>,
    ) -> std::io::Result<Self> {
        let (seat, failure) = (seat.clone(), on_failure.clone());
        let committer = Builder::new().name("wal".into()).spawn(move || commit_until_end(&seat, &failure))?;
        let (failure, log) = (on_failure.clone(), shared.clone());
        let stock =
            Builder::new().name("wal-spare".into()).spawn(move || refill_until_end(stock, &log, &failure));
        match stock {
            Ok(stock) => Ok(Self { committer, stock }),
            Err(error) => {
                shared.end(End::Abandon);
                let _ = committer.join();
                Err(error)
            }
        }
    }
}

fn commit_until_end<T>(seat: &Seat<T>, on_failure: &OnFailure) -> Option<Lsn> {
    seat.run().unwrap_or_else(|error| {
        on_failure.call(error);
        None
    })
}

fn refill_until_end<T>(mut stock: Stock<T>, shared: &Shared<T>, on_failure: &OnFailure) {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        stock.run();
        stock.remove_all();
    }));
    if ran.is_err() {
        shared.fail();
        on_failure.call(Error::Panicked);
    }
}
