//! The figures of the whole node, for an operator who looks.
//!
//! Nothing is counted for them: they are read where they are kept already, when somebody asks. What they mean is
//! [`crate::http::admin::stats`]'s business.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config;
use crate::conversation::Operator;
use crate::conversation::census::Census;
use crate::data_dir;
use crate::disk::{Disk, Real};
use crate::http::ReadinessProbe;
use crate::http::admin::stats::{self, Stats};
use crate::telemetry::Metrics;

/// Where the figures are.
pub(super) struct Source {
    pub(super) operator: Operator,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: ReadinessProbe,
    pub(super) facts: Facts,
}

/// What does not change while the process lives.
pub(super) struct Facts {
    /// When it began.
    pub(super) began: Instant,
    pub(super) sync_mode: config::SyncMode,
    pub(super) format: data_dir::Format,
    /// The data directory.
    pub(super) root: PathBuf,
    /// Messages that recovery found.
    pub(super) messages: u64,
    pub(super) connections_max: usize,
    pub(super) memory_bytes_max: u64,
}

impl Source {
    /// All of them now. Asks the system about files, which may block.
    pub(super) fn take(&self) -> Stats {
        let (census, facts, metrics) = (self.operator.census(), &self.facts, &*self.metrics);
        Stats {
            version: env!("CARGO_PKG_VERSION"),
            time_s: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            uptime_s: facts.began.elapsed().as_secs(),
            sync_mode: facts.sync_mode.as_str(),
            store_id: format!("{:032x}", u128::from_be_bytes(facts.format.store)),
            epoch: facts.format.epoch,
            readiness: (self.readiness)().word(),
            conversations: conversations(&census, metrics),
            messages: stats::Messages { accepted: metrics.messages.get(), at_start: facts.messages },
            requests: requests(&census, metrics),
            connections: stats::Connections { open: metrics.connections.get(), max: facts.connections_max },
            streams: streams(metrics),
            log: stats::Log::of(
                census.log,
                metrics.log_bytes(),
                metrics.commits(),
                metrics.syncs_ns(),
                metrics.torn_tails.get(),
            ),
            snapshot: snapshot(&census, metrics),
            memory: stats::Memory {
                resident_bytes: resident_bytes(),
                conversations_bytes: metrics.conversations.bytes.get(),
                conversations_max_bytes: facts.memory_bytes_max,
            },
            disk: stats::Disk { free_bytes: free_bytes(&facts.root) },
        }
    }
}

fn conversations(census: &Census, metrics: &Metrics) -> stats::Conversations {
    stats::Conversations {
        known: census.conversations,
        in_memory: census.in_memory,
        quarantined: census.quarantined,
        actors_died: metrics.conversations.actors_died.get(),
        reloaded: metrics.conversations.reloaded.get(),
    }
}

fn requests(census: &Census, metrics: &Metrics) -> stats::Requests {
    let (permits, answered) = (census.permits, metrics.answered());
    stats::Requests {
        in_flight: metrics.in_flight.get(),
        permits_taken: permits.taken,
        permits_max: permits.max,
        permits_bytes: permits.bytes,
        permits_max_bytes: permits.bytes_max,
        answered: answered.iter().map(|verb| verb.took_ns.count).sum(),
        errors: answered.iter().map(|verb| verb.errors).sum(),
        errors_by_code: metrics.errors().into_iter().collect(),
        verbs: answered.iter().map(|verb| (verb.verb, stats::Verb::of(verb.took_ns, verb.errors))).collect(),
    }
}

fn streams(metrics: &Metrics) -> stats::Streams {
    stats::Streams {
        websocket: metrics.streams.websockets.get(),
        sse: metrics.streams.event_sources.get(),
        events: metrics.streams.events.get(),
        behind: metrics.streams.behind.get(),
        stalled: metrics.streams.stalled.get(),
    }
}

fn snapshot(census: &Census, metrics: &Metrics) -> stats::Snapshot {
    let (packs, last, (written, failed)) = (census.packs, &metrics.last_checkpoint, metrics.checkpoints());
    let known = |value: i64, is_known: bool| is_known.then_some(value);
    stats::Snapshot {
        packs: packs.count,
        packs_bytes: packs.bytes,
        chunks: packs.chunks,
        checkpoints: written,
        checkpoints_failed: failed,
        is_failing: last.is_failing.get() != 0,
        last_checkpoint_s: known(last.written_s.get(), written > 0),
        last_checkpoint_ms: known(last.took_ms.get(), written > 0),
        scrub_damaged: metrics.scrub.damaged.get(),
        scrub_finished_s: known(metrics.scrub.finished.get(), metrics.scrub.finished.get() != 0),
    }
}

fn free_bytes(root: &Path) -> Option<u64> {
    Real.free_bytes(root).ok().filter(|bytes| *bytes != u64::MAX)
}

/// What the process has of the machine's memory.
fn resident_bytes() -> Option<u64> {
    resident_of(&fs::read_to_string("/proc/self/statm").ok()?, rustix::param::page_size() as u64)
}

/// The second number of `statm`, which counts in pages.
fn resident_of(statm: &str, page_bytes: u64) -> Option<u64> {
    statm.split(' ').nth(1)?.parse::<u64>().ok()?.checked_mul(page_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_the_second_number_in_pages() {
        assert_eq!(resident_of("5000 300 200 10 0 400 0\n", 4096), Some(300 * 4096));
        assert_eq!(resident_of("", 4096), None);
        assert_eq!(resident_of("5000 many", 4096), None);
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
