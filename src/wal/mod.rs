//! The write-ahead log: bytes in, durable bytes out, in one order.
//!
//! Promises: records get contiguous [`Lsn`]s in the order of [`Wal::append`]; a ticket comes out of the sink only when
//! its record is as durable as the [`SyncMode`] says, and in the same order; [`replay()`] gives back every such record
//! exactly once, cuts off what a crash tore, and refuses a log that is damaged anywhere else. After a failed write
//! or sync nothing further comes out. A full disk refuses appends and never fails an accepted one.
//!
//! None of its business: what a record means, who waits for it, and when old segments may go.
//!
//! ```text
//! append -> queue (numbers, room) -> committer, on its thread or a volunteer's: write, sync -> sink
//!                                        ^ at rotation
//!                  spare thread: zero-filled segments, made ahead
//! ```
//!
//! `docs/storage.md` draws the files byte by byte and counts the crash cases.

use std::time::Duration;

mod ahead;
mod check;
mod committer;
mod error;
mod follow;
mod frame;
mod handle;
mod live;
mod queue;
mod replay;
mod scan;
mod seat;
mod segment;
mod spare;
mod stepped;
#[cfg(test)]
mod tests;
mod writer;

pub use check::{Checked, CheckedSegment, UncutTail, check, check_closed, end_of, place_of};
pub use committer::{Batch, Sink};
pub use error::{Error, VisitError};
pub use follow::{Followed, follow};
pub use handle::{FailureCall, Wal};
pub use live::read_live;
pub use queue::{Reason, Refused, State};
pub use replay::{Recovered, TornTail, replay, replay_prepared};
pub use scan::Mark;
pub use segment::SegmentFile;
pub use stepped::Stepped;

/// Which store a log belongs to: random, drawn when the store is made.
pub type StoreId = [u8; 16];

/// Position of a record in the log: from 1, contiguous over the store's life. 0 is "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The one that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The smallest and the largest `kind` that a caller may give its records; the rest is the log's own.
pub const KINDS: std::ops::RangeInclusive<u8> = 1..=0xEF;

/// A record as it was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its position.
    pub lsn: Lsn,
    /// What the caller gave it.
    pub kind: u8,
    /// What the caller gave it.
    pub payload: &'a [u8],
}

/// When a ticket comes out of the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// After the sync of its batch: survives power loss.
    Always,
    /// After the write; a sync follows within this time. Survives the end of the process.
    Interval(Duration),
    /// After the write; synced at the end of a segment and at close. Survives the end of the process.
    Never,
}

/// How a log works; [`Default`] is right for a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// When a ticket comes out.
    pub sync: SyncMode,
    /// Size of a segment, in bytes. Larger ones rotate less; smaller ones free space sooner.
    pub segment_bytes: u64,
    /// Size of the first segment of a life, in bytes: it is zero-filled while the start waits.
    pub first_segment_bytes: u64,
    /// How many segments are kept zero-filled ahead.
    pub spare_segments: usize,
    /// What a segment made ahead must leave free on the disk, in bytes: room for the snapshot that lets old segments
    /// go. Without it a disk that the log has filled up could not get free by itself.
    pub free_bytes_min: u64,
    /// Most records in one write. Bounds the time until the first of them is answered.
    pub batch_records_max: usize,
    /// Most bytes in one write, unless one record alone is longer.
    pub batch_bytes_max: usize,
    /// Most records (and barriers) accepted and not yet out. Bounds the wait of the last.
    pub queue_records_max: usize,
    /// Most payload bytes accepted and not yet out. Bounds memory.
    pub queue_bytes_max: usize,
    /// How long nothing must come until a seal frame takes the last doubt from the last batch.
    pub seal_after: Duration,
    /// How often to try again to make a spare segment when the disk is full.
    pub spare_retry_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync: SyncMode::Always,
            segment_bytes: 64 << 20,
            first_segment_bytes: 16 << 20,
            spare_segments: 1,
            free_bytes_min: 64 << 20,
            batch_records_max: 4096,
            batch_bytes_max: 4 << 20,
            queue_records_max: 8192,
            queue_bytes_max: 16 << 20,
            seal_after: Duration::from_secs(1),
            spare_retry_after: Duration::from_secs(1),
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), Error> {
        let sizes = segment::BYTES_MIN..=segment::BYTES_MAX;
        let rules = [
            (sizes.contains(&self.segment_bytes), "segment_bytes must be 8 KiB to 1 GiB"),
            (sizes.contains(&self.first_segment_bytes), "first_segment_bytes must be 8 KiB to 1 GiB"),
            (self.spare_segments >= 1, "spare_segments must be at least 1"),
            (self.batch_records_max >= 1, "batch_records_max must be at least 1"),
            (self.queue_records_max >= 1, "queue_records_max must be at least 1"),
        ];
        rules.into_iter().try_for_each(|(holds, rule)| if holds { Ok(()) } else { Err(Error::Options(rule)) })
    }
}
