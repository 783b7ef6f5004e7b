//! Where appends wait for the committer: numbers, order, limits, and room on the disk.
//!
//! Promises that an accepted record has its [`Lsn`], its place in the order and its room in a segment that is already on
//! the disk; so it can fail only with the disk. All of it is decided under one lock that is held for a few
//! instructions. Writing is the committer's business, making room the spare thread's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::frame;
use super::segment::{SegmentFile, room_bytes};
use super::spare::Spare;
use super::{Error, KINDS, Lsn, Options};
use crate::config::limits::RECORD_BYTES_MAX;

mod threads;
mod turn;

pub(super) use turn::Bell;
use turn::Turn;

/// What the log can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Takes records.
    Writable = 0,
    /// The disk is full: refuses records until there is room again, which it finds out itself.
    ReadOnly = 1,
    /// The disk, or the committer, failed. For good.
    Failed = 2,
    /// Closed, or about to be.
    Closed = 3,
}

/// Why an append was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Too much waits already; try again soon.
    #[error("the log's queue is full")]
    QueueFull,
    /// The disk is full.
    #[error("the disk has no room for the log")]
    NoSpace,
    /// The log has failed.
    #[error("the log has failed")]
    Failed,
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
    /// The payload is longer than `RECORD_BYTES_MAX`, or than a segment.
    #[error("the record is too large for the log")]
    TooLarge,
}

/// A refused append gives the ticket back. Nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused<T> {
    /// Why.
    pub reason: Reason,
    /// What was to come out of the sink.
    pub ticket: T,
}

/// What waits for the committer.
pub(super) enum Entry<T> {
    Record {
        lsn: Lsn,
        body: Body,
        ticket: T,
    },
    /// With the record before it.
    Barrier {
        lsn: Lsn,
        ticket: T,
    },
    /// A new segment begins here, record or not. Bounded by the spares: each is promised one.
    NewSegment,
}

pub(super) struct Body {
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
    /// Whether a new segment begins with it.
    pub(super) begins_segment: bool,
}

/// The log as its callers and its threads share it.
pub(super) struct Shared<T> {
    pub(super) options: Options,
    queue: Mutex<Queue<T>>,
    /// Wakes the committer.
    work: Condvar,
    /// Wakes the spare thread.
    shortage: Condvar,
    /// Wakes those who wait for the disk, or for a segment.
    synced: Condvar,
    state: AtomicU8,
    durable_lsn: AtomicU64,
    appended_lsn: AtomicU64,
    appended_bytes: AtomicU64,
    /// Tells the spare thread to leave a half-made spare.
    pub(super) stop: AtomicBool,
    /// The segments there are, oldest first; the last is being written.
    segments: Mutex<VecDeque<SegmentFile>>,
    /// Set where somebody commits in place.
    bell: OnceLock<Bell>,
}

struct Queue<T> {
    waiting: Vec<Entry<T>>,
    /// Accepted and not yet out, here or at the committer.
    records: usize,
    payload_bytes: usize,
    next_lsn: Lsn,
    /// What is left of the segment that the newest accepted record goes to, less the room for its last marker.
    room: u64,
    ready: VecDeque<Spare>,
    /// How many of `ready` no accepted record is promised to.
    unclaimed: usize,
    /// Whether somebody had to be refused, or waits, because no spare was ready.
    spare_awaited: bool,
    /// Whether the last attempt to make a spare failed.
    spare_failed: bool,
    state: State,
    /// No more appends; the committer is to finish (close) or to leave everything (abandon).
    ending: Option<End>,
    turn: Turn,
    has_volunteer: bool,
    committer_sleeps: bool,
    /// Whether the committer's thread may sleep for another time than it knows.
    clock_changed: bool,
    on_disk: Lsn,
    sync_wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Abandon,
}

/// What the committer's thread wakes up to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wake {
    pub(super) end: Option<End>,
    pub(super) sync_wanted: bool,
    /// Whether what waits is for the thread.
    pub(super) commits: bool,
}

impl<T> Queue<T> {
    /// Whether the record can be taken, and whether a new segment begins with it.
    fn admit(&mut self, options: &Options, payload_bytes: usize) -> Result<bool, Reason> {
        let frame_bytes = frame::frame_bytes(payload_bytes);
        let whole_segment = room_bytes(options.segment_bytes);
        match self.state {
            State::Failed => return Err(Reason::Failed),
            State::Closed => return Err(Reason::Closed),
            _ if payload_bytes > RECORD_BYTES_MAX || frame_bytes > whole_segment => {
                return Err(Reason::TooLarge);
            }
            State::ReadOnly => return Err(Reason::NoSpace),
            State::Writable => {}
        }
        let queued = self.payload_bytes + payload_bytes;
        // One record alone is always taken, or a small queue could never take a large one.
        if self.records > 0 && (self.records >= options.queue_records_max || queued > options.queue_bytes_max)
        {
            return Err(Reason::QueueFull);
        }
        let begins_segment = frame_bytes > self.room;
        if begins_segment {
            self.claim_segment(whole_segment)?;
        }
        self.room -= frame_bytes;
        Ok(begins_segment)
    }

    fn claim_segment(&mut self, whole_segment: u64) -> Result<(), Reason> {
        if self.unclaimed > 0 {
            self.unclaimed -= 1;
            self.room = whole_segment;
            return Ok(());
        }
        self.spare_awaited = true;
        // Without a spare because one is just being made is a matter of moments.
        Err(if self.spare_failed { Reason::NoSpace } else { Reason::QueueFull })
    }

    fn can_take_barrier(&self, options: &Options) -> Result<(), Reason> {
        match self.state {
            State::Failed => Err(Reason::Failed),
            State::Closed => Err(Reason::Closed),
            _ if self.records >= options.queue_records_max => Err(Reason::QueueFull),
            _ => Ok(()),
        }
    }
}

impl<T> Shared<T> {
    pub(super) fn new(options: Options, recovered: &super::Recovered) -> Self {
        let last_lsn = recovered.last_lsn;
        let queue = Queue {
            waiting: Vec::new(),
            records: 0,
            payload_bytes: 0,
            next_lsn: last_lsn.next(),
            room: 0,
            ready: VecDeque::new(),
            unclaimed: 0,
            spare_awaited: false,
            spare_failed: false,
            state: State::Writable,
            ending: None,
            turn: Turn::Thread,
            has_volunteer: false,
            committer_sleeps: false,
            clock_changed: false,
            on_disk: last_lsn,
            sync_wanted: false,
        };
        Self {
            options,
            queue: Mutex::new(queue),
            work: Condvar::new(),
            shortage: Condvar::new(),
            synced: Condvar::new(),
            state: AtomicU8::new(State::Writable as u8),
            durable_lsn: AtomicU64::new(last_lsn.0),
            appended_lsn: AtomicU64::new(last_lsn.0),
            appended_bytes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            segments: Mutex::new(recovered.segments.clone().into()),
            bell: OnceLock::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        // No code that holds the lock can panic halfway through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, queue: &mut Queue<T>, state: State) {
        queue.state = state;
        self.state.store(state as u8, Ordering::Release);
    }
}

// What callers do; the threads' part is in `threads`.
impl<T> Shared<T> {
    pub(super) fn append(&self, kind: u8, payload: Vec<u8>, ticket: T) -> Result<Lsn, Refused<T>> {
        assert!(KINDS.contains(&kind), "the log's own kinds are not for callers");
        let mut queue = self.queue();
        let begins_segment = match queue.admit(&self.options, payload.len()) {
            Ok(begins_segment) => begins_segment,
            Err(reason) => {
                if reason == Reason::NoSpace {
                    self.set_state(&mut queue, State::ReadOnly);
                }
                return Err(Refused { reason, ticket });
            }
        };
        let lsn = queue.next_lsn;
        queue.next_lsn = lsn.next();
        queue.payload_bytes += payload.len();
        self.appended_lsn.store(lsn.0, Ordering::Release);
        self.appended_bytes.fetch_add(frame::frame_bytes(payload.len()), Ordering::Relaxed);
        let body = Body { kind, payload, begins_segment };
        queue.records += 1;
        self.push(queue, Entry::Record { lsn, body, ticket });
        if begins_segment {
            self.shortage.notify_one();
        }
        Ok(lsn)
    }

    pub(super) fn barrier(&self, ticket: T) -> Result<(), Refused<T>> {
        let mut queue = self.queue();
        if let Err(reason) = queue.can_take_barrier(&self.options) {
            return Err(Refused { reason, ticket });
        }
        let lsn = queue.next_lsn.previous();
        queue.records += 1;
        self.push(queue, Entry::Barrier { lsn, ticket });
        Ok(())
    }

    /// Puts the end of the current segment into the queue, behind everything appended before.
    pub(super) fn begin_segment(&self) -> Result<(), Reason> {
        self.claim_new_segment(&mut self.queue())
    }

    /// As [`begin_segment`](Self::begin_segment), but waits for a spare where one is being made, and until the new
    /// segment is there; says with which record it begins. All before that is in earlier ones then, and on the disk.
    pub(super) fn begin_segment_and_wait(&self) -> Result<Lsn, Reason> {
        let mut queue = self.queue();
        let wanted = queue.next_lsn;
        let mut asked = false;
        loop {
            // Under the lock under which a new one is told, so that no news is missed.
            let current = self.segments.lock().unwrap_or_else(PoisonError::into_inner).back().cloned();
            if let Some(current) = current.filter(|current| current.first_lsn >= wanted) {
                return Ok(current.first_lsn);
            }
            if !asked {
                asked = match self.claim_new_segment(&mut queue) {
                    Err(Reason::QueueFull) => false,
                    claimed => claimed.map(|()| true)?,
                };
            } else if queue.state == State::Failed || queue.ending.is_some() {
                return Err(if queue.state == State::Failed { Reason::Failed } else { Reason::Closed });
            }
            queue = self.synced.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn claim_new_segment(&self, queue: &mut Queue<T>) -> Result<(), Reason> {
        match queue.state {
            State::Failed => return Err(Reason::Failed),
            State::Closed => return Err(Reason::Closed),
            State::Writable | State::ReadOnly => {
                queue.claim_segment(room_bytes(self.options.segment_bytes))?
            }
        }
        queue.waiting.push(Entry::NewSegment);
        queue.turn = Turn::Thread;
        if std::mem::take(&mut queue.committer_sleeps) {
            self.work.notify_one();
        }
        self.shortage.notify_one();
        Ok(())
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue<T>>, entry: Entry<T>) {
        queue.waiting.push(entry);
        self.announce(queue);
    }

    /// Waits until everything appended before is on the disk, whatever the mode.
    pub(super) fn wait_for_disk(&self) -> Result<Lsn, Error> {
        let mut queue = self.queue();
        let wanted = queue.next_lsn.previous();
        while queue.on_disk < wanted {
            match (queue.state, queue.ending) {
                (State::Failed, _) => return Err(Error::Failed),
                (_, Some(End::Abandon)) => return Err(Error::Closed),
                _ => {}
            }
            queue.sync_wanted = true;
            if std::mem::take(&mut queue.committer_sleeps) {
                self.work.notify_one();
            }
            queue = self.synced.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(wanted)
    }

    pub(super) fn durable_lsn(&self) -> Lsn {
        Lsn(self.durable_lsn.load(Ordering::Acquire))
    }

    #[cfg(test)]
    pub(super) fn on_disk_lsn(&self) -> Lsn {
        self.queue().on_disk
    }

    pub(super) fn appended_lsn(&self) -> Lsn {
        Lsn(self.appended_lsn.load(Ordering::Acquire))
    }

    pub(super) fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Writable,
            1 => State::ReadOnly,
            2 => State::Failed,
            _ => State::Closed,
        }
    }

    /// Takes no more appends and tells the threads to end, unless they had been told before.
    pub(super) fn end(&self, end: End) {
        let mut queue = self.queue();
        queue.ending.get_or_insert(end);
        if queue.state != State::Failed {
            self.set_state(&mut queue, State::Closed);
        }
        drop(queue);
        self.stop.store(true, Ordering::Relaxed);
        self.work.notify_all();
        self.shortage.notify_all();
        self.synced.notify_all();
    }
}
