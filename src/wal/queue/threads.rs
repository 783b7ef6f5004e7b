//! The side of the queue that the log's own threads see: work, spares, and the list of segments.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{End, Entry, Queue, Shared, State, Turn, Wake};
use crate::wal::Lsn;
use crate::wal::frame::MARKER_BYTES;
use crate::wal::segment::{SegmentFile, room_bytes};
use crate::wal::spare::Spare;

impl<T> Queue<T> {
    fn calls_thread(&self) -> bool {
        let has_work = !self.waiting.is_empty() && self.turn == Turn::Thread;
        has_work || self.ending.is_some() || self.sync_wanted || self.clock_changed
    }
}

// === for the committer ===
impl<T> Shared<T> {
    /// Sleeps until there is something to do, or until `deadline`.
    pub(in crate::wal) fn wait_for_work(&self, deadline: Option<Instant>) -> Wake {
        let mut queue = self.queue();
        while !queue.calls_thread() {
            queue.committer_sleeps = true;
            let Some(deadline) = deadline else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.committer_sleeps = false;
        queue.clock_changed = false;
        let (end, sync_wanted) = (queue.ending, std::mem::take(&mut queue.sync_wanted));
        let commits = queue.turn == Turn::Thread || sync_wanted || end.is_some();
        Wake { end, sync_wanted, commits }
    }

    /// Everything that waits, against an empty vector.
    pub(in crate::wal) fn take(&self, into: &mut Vec<Entry<T>>) {
        std::mem::swap(&mut self.queue().waiting, into);
    }

    /// A batch is as durable as the mode says; its room in the queue is free.
    pub(in crate::wal) fn batch_done(
        &self,
        entries: usize,
        payload_bytes: usize,
        durable_lsn: Lsn,
        on_disk: Option<Lsn>,
    ) {
        let mut queue = self.queue();
        queue.records -= entries;
        queue.payload_bytes -= payload_bytes;
        if let Some(on_disk) = on_disk {
            queue.on_disk = on_disk;
        }
        // Under the lock: whoever learns there that a record is on the disk finds it durable.
        self.durable_lsn.store(durable_lsn.0, Ordering::Release);
        drop(queue);
        if on_disk.is_some() {
            self.synced.notify_all();
        }
    }

    /// Everything up to here is on the disk.
    pub(in crate::wal) fn disk_done(&self, on_disk: Lsn) {
        self.queue().on_disk = on_disk;
        self.synced.notify_all();
    }

    /// Takes room for a seal in the current segment, if nothing waits and there is some.
    pub(in crate::wal) fn claim_seal(&self) -> bool {
        let mut queue = self.queue();
        let can = queue.waiting.is_empty() && queue.room >= MARKER_BYTES;
        if can {
            queue.room -= MARKER_BYTES;
        }
        can
    }

    /// The spare that the queue promised to a record.
    pub(in crate::wal) fn take_spare(&self) -> Spare {
        self.queue().ready.pop_front().expect("only spares that are ready are promised")
    }

    pub(in crate::wal) fn segment_begun(&self, segment: SegmentFile) {
        let mut segments = self.segments();
        if segments.back().is_some_and(|last| last.first_lsn == segment.first_lsn) {
            segments.pop_back();
        }
        segments.push_back(segment);
        drop(segments);
        // Whoever waits for it has looked, or will look, under this lock.
        drop(self.queue());
        self.synced.notify_all();
    }

    /// Nothing comes out any more; what waits is dropped, outside of the lock.
    pub(in crate::wal) fn fail(&self) {
        let mut queue = self.queue();
        self.set_state(&mut queue, State::Failed);
        queue.ending.get_or_insert(End::Abandon);
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.stop.store(true, Ordering::Relaxed);
        self.work.notify_all();
        self.shortage.notify_all();
        self.synced.notify_all();
        drop(waiting);
    }

    /// Drops what waits: the log was left without being closed.
    pub(in crate::wal) fn abandon(&self) {
        let waiting = std::mem::take(&mut self.queue().waiting);
        drop(waiting);
    }
}

// === for the spare thread ===
impl<T> Shared<T> {
    /// Sleeps until a spare is wanted; false when there is none to be made any more.
    pub(in crate::wal) fn wait_for_shortage(&self) -> bool {
        let mut queue = self.queue();
        loop {
            if queue.ending.is_some() || queue.state == State::Failed {
                return false;
            }
            if queue.unclaimed < self.options.spare_segments {
                return true;
            }
            queue = self.shortage.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sleeps until it is time to try again, something was removed, or the end.
    pub(in crate::wal) fn wait_for_space(&self) {
        let queue = self.queue();
        if queue.ending.is_none() && queue.state != State::Failed {
            drop(self.shortage.wait_timeout(queue, self.options.spare_retry_after));
        }
    }

    /// Leaves the disk to the log for a moment, unless a spare is needed soon: somebody waits for one, or the second
    /// half of the segment is being filled.
    pub(in crate::wal) fn rest_unless_hurried(&self, time: Duration) {
        let queue = self.queue();
        let is_hurried = queue.spare_awaited || queue.room < self.options.segment_bytes / 2;
        if !is_hurried && queue.ending.is_none() && queue.state != State::Failed {
            drop(self.shortage.wait_timeout(queue, time));
        }
    }

    pub(in crate::wal) fn wants_spare(&self) -> bool {
        self.queue().unclaimed < self.options.spare_segments
    }

    pub(in crate::wal) fn spare_made(&self, spare: Spare) {
        let mut queue = self.queue();
        queue.ready.push_back(spare);
        queue.unclaimed += 1;
        queue.spare_awaited = false;
        queue.spare_failed = false;
        if queue.state == State::ReadOnly {
            self.set_state(&mut queue, State::Writable);
        }
        drop(queue);
        self.synced.notify_all();
    }

    /// Whether this is the first failure after a success.
    pub(in crate::wal) fn spare_failed(&self) -> bool {
        let is_first = !std::mem::replace(&mut self.queue().spare_failed, true);
        self.synced.notify_all();
        is_first
    }

    /// The start has published the first segment itself.
    pub(in crate::wal) fn set_room(&self, segment_bytes: u64) {
        self.queue().room = room_bytes(segment_bytes);
    }

    /// There was no space for the first segment.
    pub(in crate::wal) fn start_read_only(&self) {
        let mut queue = self.queue();
        queue.spare_failed = true;
        self.set_state(&mut queue, State::ReadOnly);
    }

    /// The spares that no accepted record is promised to: the committer may still need the others.
    pub(in crate::wal) fn take_spares(&self) -> VecDeque<Spare> {
        let mut queue = self.queue();
        let promised = queue.ready.len() - std::mem::take(&mut queue.unclaimed);
        queue.ready.split_off(promised)
    }
}

// === for the removal of old segments ===
impl<T> Shared<T> {
    fn segments(&self) -> MutexGuard<'_, VecDeque<SegmentFile>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::wal) fn segment_files(&self) -> Vec<SegmentFile> {
        self.segments().iter().cloned().collect()
    }

    /// The first record of the oldest segment, and at most `most` segments from the one on that has `lsn`, or would.
    pub(in crate::wal) fn segments_from(&self, lsn: Lsn, most: usize) -> Option<(Lsn, Vec<SegmentFile>)> {
        let segments = self.segments();
        let oldest = segments.front()?.first_lsn;
        let from = segments.partition_point(|segment| segment.first_lsn <= lsn).saturating_sub(1);
        Some((oldest, segments.iter().skip(from).take(most).cloned().collect()))
    }

    /// The oldest segment, if all its records are below `lsn` and another follows.
    pub(in crate::wal) fn oldest_below(&self, lsn: Lsn) -> Option<SegmentFile> {
        let segments = self.segments();
        segments.get(1).filter(|next| next.first_lsn <= lsn).and_then(|_| segments.front().cloned())
    }

    pub(in crate::wal) fn segment_removed(&self, segment: &SegmentFile) {
        let mut segments = self.segments();
        if segments.front() == Some(segment) {
            segments.pop_front();
        }
        drop(segments);
        self.shortage.notify_all();
    }
}
