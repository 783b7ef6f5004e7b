//! What came of the requests: latencies by verb, failures by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in nanoseconds: a quarter of an hour. What takes longer counts as that.
const LATENCY_NS_MAX: u64 = 900 * 1_000_000_000;
/// A latency is right to a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;

/// A call of the API that load is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Send,
    Pull,
    Ack,
}

impl Verb {
    pub(super) const ALL: [Self; 3] = [Self::Send, Self::Pull, Self::Ack];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Pull => "pull",
            Self::Ack => "ack",
        }
    }
}

/// Why a request does not count as answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// The server refused, with an HTTP status and, if it is one of ours, a code.
    Refused { status: u16, code: u32 },
    /// A success with a body that is none.
    WrongBody,
    /// The connection could not be made, or broke.
    Connection,
    /// The server ended the request's stream, and not the connection.
    Reset,
    /// There was no answer when the run had long been over.
    Unanswered,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, code: 0 } => write!(f, "status {status}"),
            Self::Refused { code, .. } => write!(f, "code {code}"),
            Self::WrongBody => f.write_str("unexpected body"),
            Self::Connection => f.write_str("connection lost"),
            Self::Reset => f.write_str("stream reset"),
            Self::Unanswered => f.write_str("no answer"),
        }
    }
}

/// The results of one verb.
pub(super) struct Results {
    /// Of the successes, in nanoseconds from when they were due.
    pub(super) latencies_ns: Histogram<u64>,
    pub(super) failures: BTreeMap<Failure, u64>,
}

impl Default for Results {
    fn default() -> Self {
        Self { latencies_ns: latencies(), failures: BTreeMap::new() }
    }
}

impl Results {
    /// Takes others in.
    pub(super) fn add(&mut self, other: &Self) {
        self.latencies_ns.add(&other.latencies_ns).expect("all have the same bounds");
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
    }
}

/// An empty histogram of latencies.
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS).expect("constants that are lawful")
}

/// The results of a thread, or of all of them.
#[derive(Default)]
pub(super) struct Tally {
    verbs: [Results; 3],
    /// Requests that were due and not even sent when the time was over.
    pub(super) unsent: u64,
}

impl Tally {
    pub(super) fn success(&mut self, verb: Verb, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.verbs[verb as usize].latencies_ns.saturating_record(nanos);
    }

    pub(super) fn failure(&mut self, verb: Verb, failure: Failure) {
        *self.verbs[verb as usize].failures.entry(failure).or_default() += 1;
    }

    /// Takes another thread's results in.
    pub(super) fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.verbs.iter_mut().zip(&other.verbs) {
            ours.add(theirs);
        }
        self.unsent += other.unsent;
    }

    pub(super) fn of(&self, verb: Verb) -> &Results {
        &self.verbs[verb as usize]
    }
}
