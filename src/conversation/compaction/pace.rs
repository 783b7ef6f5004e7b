//! How fast packs are merged: a merge leaves the disk to the calls that come meanwhile.
//!
//! A merge that nobody waits for keeps a low rate whatever happens. One that was asked for is as fast as the disk where
//! no messages come, and keeps a higher rate where they do.

use std::time::{Duration, Instant};

use super::{Bell, Error};
use crate::telemetry::Metrics;

/// What a merge that somebody waits for writes while messages come, in bytes per second. In slices of
/// [`PackWriter`](crate::snapshot::PackWriter) it is a tenth or so of a disk's time.
const HURRIED_BYTES_PER_SECOND: u64 = 32 << 20;
/// Shorter pauses would cost more than they are worth.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// A node that has stored nothing for so long has nobody to make way for.
const QUIET_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Pace<'a> {
    bytes_per_second: u64,
    bell: &'a Bell,
    metrics: &'a Metrics,
    /// Until when, and with how many bytes, the pace was kept.
    since: Instant,
    bytes: u64,
    /// How many messages had come when they were last counted anew, and when that was.
    messages: u64,
    messages_at: Instant,
}

impl<'a> Pace<'a> {
    /// Of a merge that begins now.
    pub(super) fn begin(bytes_per_second: u64, bell: &'a Bell, metrics: &'a Metrics) -> Self {
        let (since, messages) = (Instant::now(), metrics.messages.get());
        Self { bytes_per_second, bell, metrics, since, bytes: 0, messages, messages_at: since }
    }

    /// Pauses when the merge has written so much (bytes in all) too early. An error when the node stops.
    pub(super) fn keep(&mut self, written: u64) -> Result<(), Error> {
        let is_hurried = self.bell.is_hurried();
        let rate = match is_hurried {
            true => self.bytes_per_second.max(HURRIED_BYTES_PER_SECOND),
            false => self.bytes_per_second,
        };
        let due = Duration::from_secs_f64((written - self.bytes) as f64 / rate as f64);
        let early = due.saturating_sub(self.since.elapsed());
        if !early.is_zero() && early < PAUSE_MIN {
            return self.bell.check();
        }
        let makes_way = !is_hurried || !self.is_quiet();
        if makes_way && !early.is_zero() {
            self.bell.pause(early, is_hurried)?;
        }
        (self.since, self.bytes) = (Instant::now(), written);
        self.bell.check()
    }

    fn is_quiet(&mut self) -> bool {
        let messages = self.metrics.messages.get();
        if messages != self.messages {
            (self.messages, self.messages_at) = (messages, Instant::now());
        }
        self.messages_at.elapsed() > QUIET_AFTER
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::SyncMode;

    fn bell(all: bool) -> Bell {
        let bell = Bell::default();
        bell.lock().all = all;
        bell
    }

    #[test]
    fn a_merge_that_nobody_waits_for_keeps_its_rate_also_where_no_messages_come() {
        let (bell, metrics) = (bell(false), Metrics::new(SyncMode::Always));
        let began = Instant::now();
        let mut pace = Pace::begin(1 << 20, &bell, &metrics);
        pace.keep(50 << 10).unwrap();
        // Due after 48 ms; whoever comes late by itself is spared a pause that is too short.
        assert!(began.elapsed() >= Duration::from_millis(48) - PAUSE_MIN);
    }

    #[test]
    fn a_merge_that_somebody_waits_for_makes_way_for_messages_and_for_nothing_else() {
        let (bell, metrics) = (bell(true), Metrics::new(SyncMode::Always));
        // Twelve days at the low rate, 31 ms at the other.
        let began = Instant::now();
        let mut pace = Pace::begin(1, &bell, &metrics);
        pace.keep(1 << 20).unwrap();
        let early = Duration::from_millis(31) - PAUSE_MIN;
        assert!(began.elapsed() >= early, "nobody knows yet that it is quiet");
        pace.messages_at -= 2 * QUIET_AFTER;
        assert!(pace.is_quiet());
        metrics.messages.inc();
        assert!(!pace.is_quiet());
    }

    #[test]
    fn a_pause_ends_when_somebody_begins_to_wait_and_when_the_node_stops() {
        let (quiet, metrics) = (bell(false), Metrics::new(SyncMode::Always));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                // Twelve days at its own rate.
                Pace::begin(1, &quiet, &metrics).keep(1 << 20).unwrap();
            });
            quiet.lock().all = true;
            quiet.rang.notify_all();
        });
        quiet.stopped.store(true, Ordering::Release);
        assert!(matches!(Pace::begin(1, &quiet, &metrics).keep(1 << 30), Err(Error::Stopped)));
    }
}
