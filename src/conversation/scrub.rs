//! Scrub: everything on the disk is read from time to time, so that rot is known before somebody
//! needs what it struck.
//!
//! A thread of its own reads, at a limited rate, header, index and every chunk of the current packs,
//! and the log's closed segments, all with their checksums. It reads from the disk and not from the
//! memory of the system, and changes nothing. Each damage is reported once, with its place and, in a
//! pack, with its conversation; one that is not in memory is refused from then on. One in memory is
//! served on: what it holds is whole.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{error, info};

use super::background::step_back;
use super::completion::Ticket;
use super::directory::Directory;
use super::publisher::{Place, Publisher};
use crate::snapshot::{self, IndexEntry, PackReader};
use crate::telemetry::Metrics;
use crate::wal::{self, SegmentFile, Wal, check_closed};

/// How often and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// From the beginning of one round to that of the next; zero for never.
    pub interval: Duration,
    /// Bytes read per second, so that nobody's reads and syncs wait behind it.
    pub bytes_per_second: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { interval: Duration::from_hours(24), bytes_per_second: 8 << 20 }
    }
}

/// The first round begins after so small a part of the interval: a node that restarts every day is
/// scrubbed too, and one that has just started has other things to do.
const FIRST_PART: u32 = 24;
/// Damages that are remembered as reported. A disk with more of them is being replaced.
const REPORTED_MAX: usize = 10_000;
/// Shorter pauses would cost more than they are worth.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The running thread.
pub(crate) struct Scrub {
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

/// Tells the thread to end.
#[derive(Default)]
struct Bell {
    stopped: Mutex<bool>,
    rang: Condvar,
}

/// The node stops.
struct Stopped;

impl Bell {
    fn pause(&self, time: Duration) -> Result<(), Stopped> {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.rang.wait_timeout_while(stopped, time, |stopped| !*stopped);
        let (stopped, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *stopped { Err(Stopped) } else { Ok(()) }
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rang.notify_all();
    }
}

/// What is scrubbed, and who hears of it.
pub(crate) struct Scrubber {
    pub(crate) options: Options,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) log: Arc<Wal<Ticket>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Scrubber {
    /// Starts the thread; `None` when it is off.
    pub(crate) fn start(self) -> std::io::Result<Option<Scrub>> {
        if self.options.interval.is_zero() {
            return Ok(None);
        }
        let bell = Arc::new(Bell::default());
        let life = Life { scrubber: self, bell: bell.clone(), reported: HashSet::new() };
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(move || {
            step_back();
            life.run();
        })?;
        Ok(Some(Scrub { bell, thread }))
    }
}

impl Scrub {
    /// Ends the thread, wherever it is. Blocks.
    pub(crate) fn stop(self) {
        self.bell.stop();
        if self.thread.join().is_err() {
            error!("the scrub thread panicked");
        }
    }
}

/// The life of the thread.
struct Life {
    scrubber: Scrubber,
    bell: Arc<Bell>,
    /// What was told already.
    reported: HashSet<Finding>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Finding {
    file: PathBuf,
    offset: u64,
    /// Bad, as opposed to: cannot be read this time. What turns out to be bad later is another finding.
    is_damage: bool,
}

impl Life {
    fn run(mut self) {
        let interval = self.scrubber.options.interval;
        let mut pause = interval / FIRST_PART;
        while self.bell.pause(pause).is_ok() {
            let began = Instant::now();
            // A bug in here must cost nobody anything.
            match catch_unwind(AssertUnwindSafe(|| self.round())) {
                Ok(Ok(())) => {}
                Ok(Err(Stopped)) => return,
                Err(_) => error!("the scrub panicked; it tries again when it is due"),
            }
            pause = interval.saturating_sub(began.elapsed());
        }
    }

    /// Reads everything once.
    fn round(&mut self) -> Result<(), Stopped> {
        let mut pace = Pace::begin(&self.scrubber, self.bell.clone());
        let before = self.reported.len();
        for pack in self.scrubber.publisher.archive().packs().iter() {
            self.pack(pack, &mut pace)?;
        }
        let segments = self.scrubber.log.segments();
        // The last one is being written; recovery judges it.
        for segment in segments.iter().rev().skip(1).rev() {
            self.segment(segment, &mut pace)?;
        }
        self.forget_what_is_gone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.scrubber.metrics.scrub.finished.set(now.as_secs() as i64);
        let (bytes, seconds) = (pace.bytes, pace.began.elapsed().as_secs());
        info!(bytes, seconds, found = self.reported.len().saturating_sub(before), "scrubbed");
        Ok(())
    }

    fn pack(&mut self, pack: &Arc<PackReader>, pace: &mut Pace) -> Result<(), Stopped> {
        let Place { disk, snap_dir, .. } = &self.scrubber.publisher.place;
        let mut is_stopped = false;
        let checked = pack.check_again(&**disk, snap_dir, &mut |bytes| {
            is_stopped |= pace.read(bytes as u64).is_err();
        });
        if is_stopped {
            return Err(Stopped);
        }
        match checked {
            Err(_) if !self.is_current(pack) => return Ok(()),
            Err(why) => self.report_file(pack, &why),
            Ok(()) => {}
        }
        for (entry, chunk) in pack.chunks_in_order() {
            if let Err(why) = chunk {
                self.report_chunk(pack, &entry, &why);
            }
            pace.read(u64::from(entry.bytes))?;
            // Merged meanwhile: nobody needs it, and its space is free once nobody reads it.
            if !self.is_current(pack) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn segment(&mut self, segment: &SegmentFile, pace: &mut Pace) -> Result<(), Stopped> {
        let Place { disk, store, .. } = &self.scrubber.publisher.place;
        let (mut stopped, mut read) = (Ok(()), 0);
        let checked = check_closed(&**disk, segment, *store, &mut |offset| {
            stopped = pace.read(offset - std::mem::replace(&mut read, offset));
            stopped.is_ok()
        });
        stopped?;
        match checked {
            // Cut meanwhile.
            Err(_) if !self.scrubber.log.segments().contains(segment) => {}
            Err(why) => {
                let place = if let wal::Error::Corrupt { offset, .. } = &why { Some(*offset) } else { None };
                self.report(Finding::new(segment.path.clone(), place.unwrap_or(0), place.is_some()), || {
                    error!(%why, "the scrub found a damaged segment of the log; a checkpoint makes it unneeded");
                });
            }
            Ok(()) => {}
        }
        Ok(())
    }

    fn is_current(&self, pack: &Arc<PackReader>) -> bool {
        self.scrubber.publisher.archive().packs().iter().any(|current| Arc::ptr_eq(current, pack))
    }

    fn report_file(&mut self, pack: &PackReader, why: &snapshot::Error) {
        let (file, offset) = why.place().unwrap_or((pack.path(), 0));
        self.report(Finding::new(file.to_owned(), offset, why.place().is_some()), || {
            error!(%why, "the scrub found a damaged pack: the next start will pass it over; compact, and it is written anew");
        });
    }

    /// A chunk that is bad, or cannot be read this time.
    fn report_chunk(&mut self, pack: &PackReader, entry: &IndexEntry, why: &snapshot::Error) {
        let finding = Finding::new(pack.path().to_owned(), entry.offset, why.place().is_some());
        let (publisher, directory) = (self.scrubber.publisher.clone(), self.scrubber.directory.clone());
        self.report(finding.clone(), || tell_chunk(&finding, entry, why, &publisher, &directory));
    }

    /// Tells what was not told before, and counts it then: whoever sees it counted finds it told, and what it costs done.
    fn report(&mut self, finding: Finding, tell: impl FnOnce()) {
        if self.reported.len() < REPORTED_MAX && self.reported.insert(finding) {
            tell();
            self.scrubber.metrics.scrub.damaged.inc();
        }
    }

    fn forget_what_is_gone(&mut self) {
        let packs = self.scrubber.publisher.archive().packs();
        let segments = self.scrubber.log.segments();
        self.reported.retain(|Finding { file, .. }| {
            packs.iter().any(|pack| pack.path() == file)
                || segments.iter().any(|segment| segment.path == *file)
        });
    }
}

impl Finding {
    fn new(file: PathBuf, offset: u64, is_damage: bool) -> Self {
        Self { file, offset, is_damage }
    }
}

/// Names the conversations of a chunk, and refuses them if it is bad.
fn tell_chunk(
    finding: &Finding,
    entry: &IndexEntry,
    why: &snapshot::Error,
    publisher: &Publisher,
    directory: &Directory,
) {
    let (file, offset) = (finding.file.display(), finding.offset);
    let names = publisher.archive().under(entry.key_hash).keys;
    for conversation in &names {
        // What cannot be read this time may be readable when it is needed.
        let refused = finding.is_damage && directory.refuse_cold(conversation);
        error!(%file, offset, %conversation, refused, %why, "the scrub found a damaged chunk");
    }
    if names.is_empty() {
        error!(%file, offset, %why, "the scrub found a damaged chunk that names no conversation");
    }
}

/// How fast it goes.
struct Pace {
    bell: Arc<Bell>,
    metrics: Arc<Metrics>,
    began: Instant,
    bytes: u64,
    bytes_per_second: u64,
}

impl Pace {
    fn begin(scrubber: &Scrubber, bell: Arc<Bell>) -> Self {
        let (metrics, bytes_per_second) = (scrubber.metrics.clone(), scrubber.options.bytes_per_second);
        Self { bell, metrics, began: Instant::now(), bytes: 0, bytes_per_second }
    }

    /// Counts what was read, and waits until it is time for more.
    fn read(&mut self, bytes: u64) -> Result<(), Stopped> {
        self.bytes += bytes;
        self.metrics.scrub.bytes.inc_by(bytes);
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second as f64);
        let early = due.saturating_sub(self.began.elapsed());
        self.bell.pause(if early > PAUSE_MIN { early } else { Duration::ZERO })
    }
}
