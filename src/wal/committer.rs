//! Group commit: takes what waits, writes it at once, syncs once, lets the tickets out in order.
//!
//! Promises that a ticket comes out only after its record is as durable as the mode says, that under `Always` no batch
//! is written before the one before it is synced, and that after an error nothing comes out any more: a sync is
//! never tried twice. Each step is a plain call, so that a simulation can take them one by one; when they are
//! taken is the thread's business.
//!
//! While one batch is synced the next one gathers by itself, so there is no timer that waits for company.
//!
//! Where somebody volunteers to commit on a thread of its own, and the disk is quick, it does: that saves waking the log's
//! thread and being woken by it, which takes as long as half of a sync. The thread keeps the rest: the first batches,
//! slow disks, new segments, timed syncs, seals, and the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::{Body, End, Entry, Shared, State, Wake};
use super::writer::Writer;
use super::{Error, Lsn, SyncMode, frame};

/// How long a batch may take on the thread of a volunteer, which has other things to do: as long as ten syncs of a quick
/// disk. Behind a slower disk a wake-up is nothing, and what the volunteer leaves undone is something.
const QUICK: Duration = Duration::from_millis(1);
/// How many batches in a row have to be as quick before the volunteer gets its turn: more than a slow disk's luck.
const QUICK_BATCHES_MIN: u32 = 16;

/// What the log's thread does next.
#[derive(Debug)]
pub(super) enum Step {
    /// Sleeps until it is called, or until then; a volunteer may commit meanwhile if the disk is quick.
    Sleeps { until: Option<Instant>, is_quick: bool },
    /// Ends. What is durable, when the end was a close.
    Ended(Option<Lsn>),
}

/// Records that became durable together.
#[derive(Debug)]
pub struct Batch<T> {
    /// In the order of their appends. A barrier carries the position before it.
    pub tickets: Vec<(Lsn, T)>,
    /// How many of them are records.
    pub records: usize,
    /// What the records took in the log, in bytes.
    pub bytes: usize,
    /// How long the sync took, if this batch waited for one.
    pub sync: Option<Duration>,
}

/// Where batches come out, on the thread that commits: the next batch waits until it returns.
pub type Sink<T> = Box<dyn FnMut(Batch<T>) + Send>;

pub(super) struct Committer<T> {
    shared: Arc<Shared<T>>,
    writer: Writer,
    sink: Sink<T>,
    /// Swapped with the queue, to keep its memory.
    taken: Vec<Entry<T>>,
    /// The batch that is being made.
    tickets: Vec<(Lsn, T)>,
    records: usize,
    payload_bytes: usize,
    /// How many batches with records in a row took no longer than [`QUICK`].
    quick_batches: u32,
    /// When the oldest write that is not yet durable was made.
    dirty_since: Option<Instant>,
    /// When to seal, unless something comes before.
    seal_at: Option<Instant>,
}

impl<T> Committer<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, writer: Writer, sink: Sink<T>) -> Self {
        Self {
            shared,
            writer,
            sink,
            taken: Vec::new(),
            tickets: Vec::new(),
            records: 0,
            payload_bytes: 0,
            quick_batches: 0,
            dirty_since: None,
            seal_at: None,
        }
    }

    /// What the log's thread does each time it wakes.
    pub(super) fn step(&mut self, wake: Wake) -> Result<Step, Error> {
        if wake.end == Some(End::Abandon) {
            self.shared.abandon();
            return Ok(Step::Ended(None));
        }
        if wake.commits {
            self.commit()?;
        }
        if wake.end == Some(End::Close) {
            return self.close().map(|last_lsn| Step::Ended(Some(last_lsn)));
        }
        self.keep_time(wake.sync_wanted)?;
        Ok(Step::Sleeps { until: self.deadline(), is_quick: self.is_quick() })
    }

    /// Commits what waits on the thread of a volunteer, unless it is for the log's own.
    pub(super) fn commit_in_place(&mut self) -> Result<(), Error> {
        self.check_state()?;
        let mut taken = std::mem::take(&mut self.taken);
        if !self.shared.take_as_volunteer(&mut taken) {
            self.taken = taken;
            self.shared.give_turn_to_thread();
            return Ok(());
        }
        let before = self.deadline();
        self.commit_taken(taken)?;
        // The thread sleeps until what was due before.
        if self.deadline().is_some_and(|due| before.is_none_or(|before| due < before)) {
            self.shared.reset_clock();
        }
        if !self.is_quick() {
            self.shared.give_turn_to_thread();
        }
        Ok(())
    }

    fn is_quick(&self) -> bool {
        self.quick_batches >= QUICK_BATCHES_MIN
    }

    /// When something is due even if nothing comes.
    fn deadline(&self) -> Option<Instant> {
        match (self.dirty_since, self.shared.options.sync) {
            (Some(since), SyncMode::Interval(interval)) => Some(since + interval),
            (Some(_), _) => None,
            (None, _) => self.seal_at,
        }
    }

    fn keep_time(&mut self, sync_wanted: bool) -> Result<(), Error> {
        let due = self.deadline().is_some_and(|deadline| deadline <= Instant::now());
        if sync_wanted || (due && self.dirty_since.is_some()) {
            self.sync()
        } else if due {
            self.seal()
        } else {
            Ok(())
        }
    }

    /// Writes everything that waits, as the mode says, and lets it out.
    pub(super) fn commit(&mut self) -> Result<(), Error> {
        self.check_state()?;
        let mut taken = std::mem::take(&mut self.taken);
        self.shared.take(&mut taken);
        self.commit_taken(taken)
    }

    fn commit_taken(&mut self, mut taken: Vec<Entry<T>>) -> Result<(), Error> {
        let mut entries = taken.drain(..);
        let committed = self.commit_entries(&mut entries);
        if committed.is_err() {
            self.fail();
        }
        drop(entries);
        self.taken = taken;
        committed
    }

    /// After an error nobody knows what the disk holds: no step is taken any more.
    fn check_state(&self) -> Result<(), Error> {
        if self.shared.state() == State::Failed { Err(Error::Failed) } else { Ok(()) }
    }

    /// The state goes first, so that nobody who hears of a dropped ticket finds the log writable.
    fn fail(&mut self) {
        self.shared.fail();
        self.tickets.clear();
    }

    fn commit_entries(&mut self, entries: &mut dyn Iterator<Item = Entry<T>>) -> Result<(), Error> {
        for entry in entries {
            let (lsn, body, ticket) = match entry {
                Entry::Record { lsn, body, ticket } => (lsn, Some(body), ticket),
                Entry::Barrier { lsn, ticket } => (lsn, None, ticket),
                Entry::NewSegment => {
                    self.commit_batch()?;
                    self.begin_segment()?;
                    continue;
                }
            };
            // Before `ticket` is dropped, too.
            self.take_in(lsn, body.as_ref()).inspect_err(|_| self.fail())?;
            self.tickets.push((lsn, ticket));
        }
        self.commit_batch()
    }

    fn take_in(&mut self, lsn: Lsn, record: Option<&Body>) -> Result<(), Error> {
        if self.is_full_for(record) {
            self.commit_batch()?;
        }
        record.map_or(Ok(()), |body| self.put(lsn, body))
    }

    fn is_full_for(&self, record: Option<&Body>) -> bool {
        let options = &self.shared.options;
        let bytes = record.map_or(0, |body| frame::frame_bytes(body.payload.len()) as usize);
        self.tickets.len() >= options.batch_records_max
            || record.is_some_and(|body| body.begins_segment)
            || (self.records > 0 && self.writer.buffered_bytes() + bytes > options.batch_bytes_max)
    }

    fn put(&mut self, lsn: Lsn, body: &Body) -> Result<(), Error> {
        if body.begins_segment {
            self.begin_segment()?;
        }
        self.writer.put(lsn, body.kind, &body.payload);
        self.records += 1;
        self.payload_bytes += body.payload.len();
        Ok(())
    }

    /// Goes on in the spare that was promised. Nothing of the batch before waits any more.
    fn begin_segment(&mut self) -> Result<(), Error> {
        let segment = self.writer.rotate(self.shared.take_spare())?;
        self.synced();
        self.shared.segment_begun(segment);
        Ok(())
    }

    fn commit_batch(&mut self) -> Result<(), Error> {
        if self.tickets.is_empty() {
            return Ok(());
        }
        let bytes = self.writer.buffered_bytes();
        let began = Instant::now();
        self.writer.write()?;
        let sync = self.sync_batch()?;
        if self.records > 0 {
            self.quick_batches =
                if began.elapsed() <= QUICK { self.quick_batches.saturating_add(1) } else { 0 };
        }
        let last_lsn = self.writer.last_lsn();
        let on_disk = (!self.writer.is_dirty()).then_some(last_lsn);
        let records = std::mem::take(&mut self.records);
        let payload_bytes = std::mem::take(&mut self.payload_bytes);
        self.shared.batch_done(self.tickets.len(), payload_bytes, last_lsn, on_disk);
        let room = Vec::with_capacity(self.tickets.len());
        let tickets = std::mem::replace(&mut self.tickets, room);
        (self.sink)(Batch { tickets, records, bytes, sync });
        Ok(())
    }

    fn sync_batch(&mut self) -> Result<Option<Duration>, Error> {
        if self.records == 0 {
            // While it waited nothing could be sealed.
            if self.seal_at.is_none() && self.writer.wants_seal() {
                self.seal_at = Some(Instant::now() + self.shared.options.seal_after);
            }
            return Ok(None);
        }
        let before = Instant::now();
        if self.shared.options.sync != SyncMode::Always {
            self.dirty_since.get_or_insert(before);
            return Ok(None);
        }
        self.writer.sync()?;
        let took = before.elapsed();
        self.seal_at = Some(before + took + self.shared.options.seal_after);
        Ok(Some(took))
    }

    /// Makes everything written durable, whatever the mode.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        self.check_state()?;
        let synced = self.writer.sync();
        match synced {
            Ok(()) => self.synced(),
            Err(_) => self.fail(),
        }
        synced
    }

    fn synced(&mut self) {
        if self.dirty_since.take().is_some() && self.shared.options.sync != SyncMode::Never {
            self.seal_at = Some(Instant::now() + self.shared.options.seal_after);
        }
        self.shared.disk_done(self.writer.last_lsn());
    }

    /// Takes the last doubt from the last batch, if there is any and room to do it.
    pub(super) fn seal(&mut self) -> Result<(), Error> {
        self.check_state()?;
        self.seal_at = None;
        if self.writer.wants_seal() && self.shared.claim_seal() {
            return self.writer.seal().inspect_err(|_| self.fail());
        }
        Ok(())
    }

    /// Ends the log's life. Nothing waits any more.
    pub(super) fn close(&mut self) -> Result<Lsn, Error> {
        self.check_state()?;
        self.writer.close().inspect_err(|_| self.shared.fail())?;
        self.shared.disk_done(self.writer.last_lsn());
        Ok(self.writer.last_lsn())
    }
}
