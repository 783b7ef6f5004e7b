//! Metrics that belong together, by what they are about: each group registers its own.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::KindLabel;
use super::{Histogram, counter, gauge};

const RECORDS_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];
const BYTES_BOUNDS: &[u64] = &[256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24];

/// Live delivery.
#[derive(Debug)]
pub struct Streams {
    /// Open WebSockets.
    pub websockets: Gauge,
    /// Open streams of server-sent events.
    pub event_sources: Gauge,
    /// Events given to streams.
    pub events: Counter,
    /// Queues of slow streams that collapsed into "behind".
    pub behind: Counter,
    /// WebSockets closed because the client took nothing any more, or said nothing.
    pub stalled: Counter,
}

impl Streams {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let open = Family::<KindLabel, Gauge>::default();
        registry.register("streams", "Open streams by kind", open.clone());
        let open = |kind| open.get_or_create(&KindLabel { kind }).clone();
        let mut counter = |name: &str, help: &str| counter(registry, name, help);
        Self {
            websockets: open("websocket"),
            event_sources: open("sse"),
            events: counter("stream_events", "Events given to streams"),
            behind: counter("stream_behind", "Queues of slow streams that were dropped"),
            stalled: counter(
                "stream_stalled",
                "WebSockets closed because the client took nothing any more, or said nothing",
            ),
        }
    }
}

/// Commits of the log.
#[derive(Debug)]
pub(super) struct Commits {
    /// Records in one.
    pub(super) records: Histogram,
    /// Bytes in one.
    pub(super) bytes: Histogram,
    /// One sync.
    pub(super) sync_seconds: Histogram,
    /// Bytes of records written, without zeros and markers.
    pub(super) log_bytes: Counter,
}

impl Commits {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            records: histogram(registry, "commit_records", "Records in a commit", RECORDS_BOUNDS),
            bytes: histogram(registry, "commit_bytes", "Bytes in a commit", BYTES_BOUNDS),
            sync_seconds: seconds(registry, "sync_seconds", "Time one sync of the log takes"),
            log_bytes: counter(registry, "log_bytes", "Bytes of records written to the log"),
        }
    }
}

/// What is in memory, and what is refused.
#[derive(Debug)]
pub struct Conversations {
    /// Conversations that exist.
    pub count: Gauge,
    /// Those that are in memory.
    pub in_memory: Gauge,
    /// What those take together, in bytes.
    pub bytes: Gauge,
    /// Those that are refused: damaged, or their actor died.
    pub quarantined: Gauge,
    /// Actors that died.
    pub actors_died: Counter,
    /// Those that came back after their actor had died.
    pub reloaded: Counter,
}

impl Conversations {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut gauge = |name: &str, help: &str| gauge(registry, name, help);
        let (count, in_memory, bytes, quarantined) = (
            gauge("conversations", "Conversations that exist"),
            gauge("conversations_in_memory", "Conversations that are in memory"),
            gauge(
                "conversations_bytes",
                "What the conversations in memory take together, which --memory-limit bounds",
            ),
            gauge(
                "conversations_quarantined",
                "Conversations that are refused: damaged, or their actor died",
            ),
        );
        let actors_died = counter(registry, "actors_died", "Conversation actors that died");
        let reloaded = counter(
            registry,
            "conversations_reloaded",
            "Conversations that came back after their actor had died",
        );
        Self { count, in_memory, bytes, quarantined, actors_died, reloaded }
    }
}

/// The reading of everything on the disk.
#[derive(Debug)]
pub struct Scrub {
    /// Damages that it found.
    pub damaged: Counter,
    /// Bytes that it read.
    pub bytes: Counter,
    /// When it had last read everything, Unix seconds; 0 for not since the start.
    pub finished: Gauge,
}

impl Scrub {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            damaged: counter(registry, "scrub_damaged", "Damages that the scrub found"),
            bytes: counter(registry, "scrub_bytes", "Bytes that the scrub read"),
            finished: gauge(
                registry,
                "scrub_finished_timestamp_seconds",
                "When the scrub had last read everything; 0 for not since the start",
            ),
        }
    }
}

/// The newest attempt at a checkpoint. One that found nothing new is none.
#[derive(Debug, Default)]
pub struct LastCheckpoint {
    /// When one was last written, in Unix seconds; 0 for not since the start.
    pub written_s: Gauge,
    /// How long that took, in milliseconds.
    pub took_ms: Gauge,
    /// 1 if the newest attempt failed, and 0 if it did not.
    pub is_failing: Gauge,
}

impl LastCheckpoint {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut register = |name: &str, help: &str| gauge(registry, name, help);
        Self {
            written_s: register(
                "checkpoint_written_timestamp_seconds",
                "When a checkpoint was last written; 0 for not since the start",
            ),
            took_ms: register("checkpoint_milliseconds", "How long the last written checkpoint took"),
            is_failing: register("checkpoint_failing", "Whether the newest attempt at a checkpoint failed"),
        }
    }
}

fn histogram(registry: &mut Registry, name: &str, help: &str, bounds: &'static [u64]) -> Histogram {
    let histogram = Histogram::new(bounds, 1.0);
    registry.register(name, help, histogram.clone());
    histogram
}

fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::of_seconds();
    registry.register(name, help, histogram.clone());
    histogram
}
