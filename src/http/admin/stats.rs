//! `stats`: the node at a glance, as one JSON object.
//!
//! Promises that the fields stay: later versions add some and take none away. A unit stands last in a name, `_s`, `_ms` and `_us`
//! for seconds to microseconds, `_lsn` for a position in the log; what has none is a number of things. "Since the start"
//! is since the start of the process. Where the figures come from is the node's business.
//!
//! Whoever asks waits for no order: it is while a long one runs that somebody looks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::{Orders, broken, json};
use crate::conversation::census;
use crate::http::failure::Failure;
use crate::http::response::Answer;
use crate::telemetry::Spread;
use crate::wal;

/// The reply.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// The version of the program.
    pub version: &'static str,
    /// What the server's clock says, in Unix seconds.
    pub time_s: u64,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// `--sync`: when a send is acknowledged.
    pub sync_mode: &'static str,
    /// Which store this is: 32 hexadecimal digits, drawn when the data directory was made.
    pub store_id: String,
    /// Grows when a restore takes history back; every pull says it.
    pub epoch: u32,
    /// What `/readyz` says, as one word: `ready`, `draining`, `read_only` (the disk is full) or `log_failed`.
    pub readiness: &'static str,
    /// Conversations.
    pub conversations: Conversations,
    /// Messages.
    pub messages: Messages,
    /// Requests to the public address.
    pub requests: Requests,
    /// Connections to the public address.
    pub connections: Connections,
    /// Streams.
    pub streams: Streams,
    /// The log.
    pub log: Log,
    /// Packs and checkpoints.
    pub snapshot: Snapshot,
    /// Memory.
    pub memory: Memory,
    /// The disk.
    pub disk: Disk,
}

/// Conversations.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Conversations {
    /// In which something has happened.
    pub known: usize,
    /// How many of them are in memory.
    pub in_memory: usize,
    /// How many are refused: damaged, or their actor died.
    pub quarantined: usize,
    /// Actors that died since the start.
    pub actors_died: u64,
    /// Conversations that came back after that, since the start.
    pub reloaded: u64,
}

/// Messages.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Messages {
    /// Made durable since the start.
    pub accepted: u64,
    /// There at the start, in packs and in the log.
    pub at_start: u64,
}

/// Requests to the public address.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Requests {
    /// Being answered, those included that wait for something to happen.
    pub in_flight: i64,
    /// Calls that hold a permit: the node's bound on work. More get 503.
    pub permits_taken: usize,
    /// Most permits.
    pub permits_max: usize,
    /// Bytes of the bodies of these calls.
    pub permits_bytes: usize,
    /// Most such bytes. More get 503.
    pub permits_max_bytes: usize,
    /// Answered since the start, with and without an error.
    pub answered: u64,
    /// With an error, of these.
    pub errors: u64,
    /// Errors since the start by their code; every code is there. `other`: of none that has a counter of its own.
    pub errors_by_code: BTreeMap<String, u64>,
    /// The verbs that were called since the start, by their names in the metrics.
    pub verbs: BTreeMap<&'static str, Verb>,
}

/// What was answered to one verb since the start. A time is from the head of a request to its reply, and includes what a
/// pull was asked to wait. Quantiles are made of the histogram in `/metrics`, and as exact as its bounds are close; the largest is 30 s.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verb {
    /// With and without an error.
    pub answered: u64,
    /// With an error.
    pub errors: u64,
    /// Half took no longer.
    pub p50_us: Option<u64>,
    /// 90 % took no longer.
    pub p90_us: Option<u64>,
    /// 99 % took no longer.
    pub p99_us: Option<u64>,
    /// 99.9 % took no longer.
    pub p999_us: Option<u64>,
}

/// Connections to the public address.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Connections {
    /// Open now.
    pub open: i64,
    /// `--connections`: further ones wait in the system's queue.
    pub max: usize,
}

/// Streams.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Streams {
    /// Open WebSockets.
    pub websocket: i64,
    /// Open streams of server-sent events.
    pub sse: i64,
    /// Events given to streams since the start.
    pub events: u64,
    /// How often a slow stream was told to pull instead, since the start.
    pub behind: u64,
    /// WebSockets closed since the start because the client took nothing any more, or said nothing.
    pub stalled: u64,
}

/// The log.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Log {
    /// `writable`, `read_only` (the disk is full), `failed` or `closed`.
    pub state: &'static str,
    /// The newest record that was accepted.
    pub appended_lsn: u64,
    /// The newest record that is as durable as `sync_mode` says.
    pub durable_lsn: u64,
    /// Accepted and not yet as durable.
    pub waiting_records: u64,
    /// The oldest record that is kept; null while the log has no file.
    pub oldest_lsn: Option<u64>,
    /// Bytes of records written since the start, without zeros and markers.
    pub appended_bytes: u64,
    /// Files of the log.
    pub segments: usize,
    /// How long these are together, room that was made ahead included.
    pub kept_bytes: u64,
    /// Commits since the start: writes of everything that was waiting.
    pub commits: u64,
    /// Half of the commits had no more records.
    pub commit_p50_records: Option<u64>,
    /// 99 % of the commits had no more records.
    pub commit_p99_records: Option<u64>,
    /// Half of the syncs since the start took no longer; null where there was none.
    pub sync_p50_us: Option<u64>,
    /// 99 % of the syncs took no longer.
    pub sync_p99_us: Option<u64>,
    /// Torn tails that the start cut.
    pub torn_tails: u64,
}

/// Packs and checkpoints.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Packs that the current manifest names.
    pub packs: usize,
    /// How long these are together.
    pub packs_bytes: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Checkpoints written since the start.
    pub checkpoints: u64,
    /// Attempts at one that failed since the start.
    pub checkpoints_failed: u64,
    /// Whether the newest attempt failed. The log is kept then, and grows until one succeeds.
    pub is_failing: bool,
    /// When one was last written, in Unix seconds; null for not since the start. None is written while nothing changes.
    pub last_checkpoint_s: Option<i64>,
    /// How long it took.
    pub last_checkpoint_ms: Option<i64>,
    /// Damages that the scrub found since the start.
    pub scrub_damaged: u64,
    /// When the scrub had last read everything, in Unix seconds; null for not since the start.
    pub scrub_finished_s: Option<i64>,
}

/// Memory.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Memory {
    /// What the process has of the machine's memory; null where the system does not say.
    pub resident_bytes: Option<u64>,
    /// What the conversations in memory take of it, as counted a second ago or less.
    pub conversations_bytes: i64,
    /// `--memory-limit`: above it the least recently used conversations leave memory.
    pub conversations_max_bytes: u64,
}

/// The disk.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Disk {
    /// How much can still be written where the data directory is; null where nobody knows.
    pub free_bytes: Option<u64>,
}

/// Asks for the figures. They may need the disk, so nobody who serves waits for them.
pub(super) async fn answer(orders: Arc<Orders>) -> Result<Answer, Failure> {
    let taking = tokio::task::spawn_blocking(move || (orders.stats)());
    json(&taking.await.map_err(|why| broken(&why))?)
}

/// Microseconds of nanoseconds.
fn us(ns: Option<u64>) -> Option<u64> {
    ns.map(|ns| ns / 1_000)
}

impl Verb {
    /// Of the times that its requests took, and how many got an error.
    pub fn of(took_ns: Spread, errors: u64) -> Self {
        let Spread { count, p50, p90, p99, p999 } = took_ns;
        let [p50_us, p90_us, p99_us, p999_us] = [p50, p90, p99, p999].map(us);
        Self { answered: count, errors, p50_us, p90_us, p99_us, p999_us }
    }
}

impl Log {
    /// Of the log as it stands, of the bytes written to it and of the spreads of commits and syncs.
    pub fn of(
        log: census::Log,
        appended_bytes: u64,
        commits: Spread,
        syncs_ns: Spread,
        torn_tails: u64,
    ) -> Self {
        let census::Log { state, appended, durable, oldest, segments, kept_bytes } = log;
        Self {
            state: match state {
                wal::State::Writable => "writable",
                wal::State::ReadOnly => "read_only",
                wal::State::Failed => "failed",
                wal::State::Closed => "closed",
            },
            appended_lsn: appended.0,
            durable_lsn: durable.0,
            waiting_records: appended.0.saturating_sub(durable.0),
            oldest_lsn: oldest.map(|oldest| oldest.0),
            appended_bytes,
            segments,
            kept_bytes,
            commits: commits.count,
            commit_p50_records: commits.p50,
            commit_p99_records: commits.p99,
            sync_p50_us: us(syncs_ns.p50),
            sync_p99_us: us(syncs_ns.p99),
            torn_tails,
        }
    }
}
