//! The census: what a node's conversations, their log and their packs come to, for whoever asks.
//!
//! Promises to hold nobody up: it reads counters, and the lengths of the log's files. What changes over time is counted in
//! [`crate::telemetry`].

use super::start::Operator;
use crate::wal::{self, Lsn};

/// Everything at about one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Conversations in which something has happened.
    pub conversations: usize,
    /// How many of them are in memory.
    pub in_memory: usize,
    /// How many are refused: damaged, or their actor died.
    pub quarantined: usize,
    /// Who is on the way.
    pub permits: Permits,
    /// The log.
    pub log: Log,
    /// The current packs.
    pub packs: Packs,
}

/// Calls in flight, with the bytes of their bodies, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permits {
    /// Calls.
    pub taken: usize,
    /// Most calls at a time.
    pub max: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Most bytes at a time.
    pub bytes_max: usize,
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// What it can do now.
    pub state: wal::State,
    /// The newest record that was accepted.
    pub appended: Lsn,
    /// The newest record that is as durable as the mode says.
    pub durable: Lsn,
    /// The oldest record that is kept; `None` while there is no segment.
    pub oldest: Option<Lsn>,
    /// Its files.
    pub segments: usize,
    /// How long these are together, with what is not written yet.
    pub kept_bytes: u64,
}

/// The packs that the current manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packs {
    /// How many.
    pub count: usize,
    /// How long they are together.
    pub bytes: u64,
    /// How many chunks are in them.
    pub chunks: u64,
}

impl Operator {
    /// Counts. Reads the length of every file of the log, which may block.
    pub fn census(&self) -> Census {
        let directory = &self.directory;
        Census {
            conversations: directory.count(),
            in_memory: directory.resident(),
            quarantined: directory.refused(),
            permits: directory.permits(),
            log: self.log_census(),
            packs: self.packs_census(),
        }
    }

    fn log_census(&self) -> Log {
        // The older one first: what is durable was appended.
        let (durable, segments) = (self.log.durable_lsn(), self.log.segments());
        let disk = &self.publisher.place.disk;
        // A segment that is removed meanwhile is not kept.
        let lengths = segments.iter().filter_map(|segment| disk.open(&segment.path).ok()?.len().ok());
        Log {
            state: self.log.state(),
            appended: self.log.appended_lsn(),
            durable,
            oldest: segments.first().map(|segment| segment.first_lsn),
            segments: segments.len(),
            kept_bytes: lengths.sum(),
        }
    }

    fn packs_census(&self) -> Packs {
        let packs = self.publisher.archive().packs();
        let of = |number: fn(&crate::snapshot::PackInfo) -> u64| {
            packs.iter().map(|pack| number(pack.info())).sum()
        };
        Packs { count: packs.len(), bytes: of(|info| info.bytes), chunks: of(|info| info.chunks) }
    }
}
