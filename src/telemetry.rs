//! Logs to standard error, and the numbers of `/metrics`.
//!
//! Knows no rule of chat and no transport, and of the rest only what a setting is: whoever does the
//! work says what to count. Every handle is
//! resolved when [`Metrics`] is made, so that counting is an atomic addition or three and never a
//! look-up, a lock or an allocation.

mod exposition;
mod figures;
mod groups;
mod labels;

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use tracing::level_filters::LevelFilter;

pub use figures::{Answered, Spread};
use groups::Commits;
pub use groups::{Conversations, LastCheckpoint, Scrub, Streams};
use labels::{CODE_OTHER, CODES, ModeLabel, PackLabel, RequestLabels, ResultLabel, VERBS, VerbLabel};
pub use labels::{PackMaker, SUCCESS, Verb};

use crate::config::SyncMode;

/// Sends log lines of at least `level` to standard error. Called once; a second call changes nothing.
pub fn log_to_standard_error(level: LevelFilter) {
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(level)
        // What cannot be written is lost. To say so on the same standard error would be a panic of whoever logs.
        .log_internal_errors(false);
    // Only a second subscriber in the same process can fail here, and then the first one stays.
    let _ = lines.try_init();
}

/// Upper bounds in nanoseconds: from a tenth of a durable send to the longest waiting pull.
const SECONDS_BOUNDS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// A histogram without a lock: what prometheus-client's own does under a mutex costs every core the
/// same cache line *and* the wait for whoever holds it.
///
/// Cheap to clone; clones count together. One observation is a search in at most 18 bounds and two
/// atomic additions. Two threads may be between the two when it is read: the sum can lag the buckets
/// by what is in flight, never the other way round for long.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [u64],
    /// One per bound, and one for what is above the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// How many counted units make one of the metric.
    units: f64,
}

impl Histogram {
    fn new(bounds: &'static [u64], units: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds, counts, sum: AtomicU64::new(0), units }))
    }

    fn of_seconds() -> Self {
        Self::new(SECONDS_BOUNDS, 1e9)
    }

    /// Counts one value; nanoseconds where the metric is in seconds.
    pub fn observe(&self, value: u64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts one duration, of at most 584 years.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many values lie in each bucket, the last of which has no upper bound.
    fn counts(&self) -> Vec<u64> {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Buckets { bounds, sum, units, .. } = &*self.0;
        let uppers = bounds.iter().map(|bound| *bound as f64 / units).chain([f64::INFINITY]);
        let buckets: Vec<_> = uppers.zip(self.counts()).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = sum.load(Ordering::Relaxed) as f64 / units;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Everything that is counted. Made once per process, shared by reference.
///
/// A send costs 70 ns here (gauge up and down, one counter, one histogram; 2 shared vCPUs, one
/// thread, release build: `telemetry::tests::print_what_a_send_costs`), under 1 % of the 8 us of CPU
/// that the kernel's TCP takes for it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// By verb, then by code, in the order of the lists above.
    requests: Vec<Vec<Counter>>,
    /// By verb.
    request_seconds: Vec<Histogram>,
    /// Requests whose reply is not yet made.
    pub in_flight: Gauge,
    /// Open connections to the public API.
    pub connections: Gauge,
    /// Live delivery.
    pub streams: Streams,
    commits: Commits,
    /// What is in memory, and what is refused.
    pub conversations: Conversations,
    /// The reading of everything on the disk.
    pub scrub: Scrub,
    /// Bytes of the packs that checkpoints and merges published.
    packs: [Counter; 2],
    /// Messages made durable since the start.
    pub messages: Counter,
    /// Torn tails cut by recovery.
    pub torn_tails: Counter,
    /// Checkpoints that were written.
    checkpoints_ok: Counter,
    /// Checkpoints that failed and will be tried again.
    checkpoints_failed: Counter,
    /// The newest attempt at a checkpoint.
    pub last_checkpoint: LastCheckpoint,
}

/// Everything that a request can have asked for.
#[cfg(test)]
pub(crate) fn verbs() -> impl Iterator<Item = Verb> {
    VERBS.iter().map(|(verb, _)| *verb)
}

impl Metrics {
    /// Every metric at zero.
    pub fn new(sync: SyncMode) -> Self {
        let mut registry = Registry::with_prefix("chinwag");
        let (requests, request_seconds) = register_requests(&mut registry);
        let [checkpoints_ok, checkpoints_failed] = register_checkpoints(&mut registry);
        register_sync_mode(&mut registry, sync);
        Self {
            requests,
            request_seconds,
            in_flight: gauge(&mut registry, "in_flight", "Requests being answered"),
            connections: gauge(&mut registry, "connections", "Open connections to the public API"),
            streams: Streams::register(&mut registry),
            commits: Commits::register(&mut registry),
            conversations: Conversations::register(&mut registry),
            scrub: Scrub::register(&mut registry),
            packs: register_pack_bytes(&mut registry),
            messages: counter(&mut registry, "messages", "Messages made durable since the start"),
            torn_tails: counter(&mut registry, "torn_tails", "Torn tails cut by recovery"),
            checkpoints_ok,
            checkpoints_failed,
            last_checkpoint: LastCheckpoint::register(&mut registry),
            registry,
        }
    }

    /// Counts a request that ended with `code` ([`SUCCESS`] or the code of its error).
    pub fn request(&self, verb: Verb, code: u32, took: Duration) {
        let code = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len());
        self.requests[verb as usize][code].inc();
        self.request_seconds[verb as usize].observe_duration(took);
    }

    /// Counts a commit of the log. `sync` is the time its sync took, where there was one.
    pub fn observe_commit(&self, records: usize, bytes: usize, sync: Option<Duration>) {
        self.commits.records.observe(records as u64);
        self.commits.bytes.observe(bytes as u64);
        self.commits.log_bytes.inc_by(bytes as u64);
        if let Some(sync) = sync {
            self.commits.sync_seconds.observe_duration(sync);
        }
    }

    /// Counts a checkpoint that took so long: written, or failed and to be tried again.
    pub fn observe_checkpoint(&self, ok: bool, took: Duration) {
        let last = &self.last_checkpoint;
        last.is_failing.set((!ok).into());
        if !ok {
            self.checkpoints_failed.inc();
            return;
        }
        self.checkpoints_ok.inc();
        last.written_s.set(SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() as i64));
        last.took_ms.set(took.as_millis() as i64);
    }

    /// How many checkpoints were written, and how many attempts failed, since the start.
    pub fn checkpoints(&self) -> (u64, u64) {
        (self.checkpoints_ok.get(), self.checkpoints_failed.get())
    }

    /// Counts a published pack.
    pub fn observe_pack(&self, by: PackMaker, bytes: u64) {
        self.packs[by as usize].inc_by(bytes);
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    pub fn to_prometheus(&self) -> String {
        exposition::prometheus(&self.to_text())
    }

    /// Everything in the OpenMetrics text format.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        text::encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

fn register_requests(registry: &mut Registry) -> (Vec<Vec<Counter>>, Vec<Histogram>) {
    let requests = Family::<RequestLabels, Counter>::default();
    let seconds =
        Family::<VerbLabel, Histogram, fn() -> Histogram>::new_with_constructor(Histogram::of_seconds);
    registry.register("requests", "Requests by verb and code; 0 is success", requests.clone());
    registry.register("request_seconds", "Time from the head of a request to its reply", seconds.clone());
    let by_code = |verb| {
        let codes = CODES.iter().map(u32::to_string).chain([CODE_OTHER.to_owned()]);
        codes.map(|code| requests.get_or_create(&RequestLabels { verb, code }).clone()).collect()
    };
    let counters = VERBS.iter().map(|(_, verb)| by_code(*verb)).collect();
    let histograms =
        VERBS.iter().map(|(_, verb)| seconds.get_or_create(&VerbLabel { verb }).clone()).collect();
    (counters, histograms)
}

/// Checkpoints that were written, and that failed and will be tried again.
fn register_checkpoints(registry: &mut Registry) -> [Counter; 2] {
    let checkpoints = Family::<ResultLabel, Counter>::default();
    registry.register("checkpoints", "Checkpoints by result", checkpoints.clone());
    ["ok", "failed"].map(|result| checkpoints.get_or_create(&ResultLabel { result }).clone())
}

fn register_pack_bytes(registry: &mut Registry) -> [Counter; 2] {
    let packs = Family::<PackLabel, Counter>::default();
    registry.register("pack_bytes", "Bytes of published packs, by who made them", packs.clone());
    ["checkpoint", "merge"].map(|by| packs.get_or_create(&PackLabel { by }).clone())
}

/// A gauge that is 1, with the mode as its label: the plain text format has no type for such facts.
fn register_sync_mode(registry: &mut Registry, sync: SyncMode) {
    let modes = Family::<ModeLabel, Gauge>::default();
    modes.get_or_create(&ModeLabel { mode: sync.as_str() }).set(1);
    registry.register("sync_mode", "When a send is acknowledged", modes);
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

#[cfg(test)]
mod tests;
