//! When a request is due.
//!
//! A latency counts from this moment and not from when the request was really sent: what a server's stall kept from
//! being sent would otherwise be left out of its own measurement.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The moments at which the requests of all connections are due.
#[derive(Debug, Clone)]
pub(super) enum Schedule {
    /// Fixed moments, a rate apart. Whichever connection is free takes the next one; while none is, they pass, and
    /// are answered late.
    Open { begin: Instant, per_second: NonZeroU64, taken: Arc<AtomicU64> },
    /// As soon as the connection was answered.
    Closed,
}

impl Schedule {
    /// A schedule from `begin` on.
    pub(super) fn new(begin: Instant, rate: Option<NonZeroU64>) -> Self {
        match rate {
            Some(per_second) => Self::Open { begin, per_second, taken: Arc::default() },
            None => Self::Closed,
        }
    }

    /// Takes the next moment, for a connection that is free since `free`.
    pub(super) fn next(&self, free: Instant) -> Instant {
        match self {
            Self::Open { begin, per_second, taken } => {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                let nanos = u128::from(number) * NANOS_PER_SECOND / u128::from(per_second.get());
                *begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
            Self::Closed => free,
        }
    }

    /// Whether requests are due whatever the server does.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// How many moments before `end` no connection was free to take.
    pub(super) fn never_taken(&self, end: Instant) -> u64 {
        match self {
            Self::Open { begin, per_second, taken } => {
                let nanos = end.saturating_duration_since(*begin).as_nanos();
                let due = (nanos * u128::from(per_second.get())).div_ceil(NANOS_PER_SECOND);
                u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(taken.load(Ordering::Relaxed))
            }
            Self::Closed => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    const SERVICE: Duration = Duration::from_millis(1);
    const STALL: Duration = Duration::from_secs(2);

    /// One connection to a server that takes a millisecond for each request, but two seconds for the thousandth.
    /// Gives latencies from when each request was due, and, as a naive client would, from when it was sent.
    fn latencies_ms(schedule: &Schedule, begin: Instant) -> (Histogram<u64>, Histogram<u64>) {
        let (mut honest, mut naive) = (Histogram::new(3).unwrap(), Histogram::new(3).unwrap());
        let mut free = begin;
        for number in 0..10_000 {
            let due = schedule.next(free);
            let sent = due.max(free);
            let answered = sent + if number == 1_000 { STALL } else { SERVICE };
            honest.record((answered - due).as_millis() as u64).unwrap();
            naive.record((answered - sent).as_millis() as u64).unwrap();
            free = answered;
        }
        (honest, naive)
    }

    #[test]
    fn a_rate_is_met_exactly_however_long_it_lasts() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, NonZeroU64::new(3));
        let due: Vec<_> = (0..3_000_001).map(|_| schedule.next(begin)).collect();
        assert_eq!(due[1] - begin, Duration::from_nanos(333_333_333));
        assert_eq!(due[3_000_000] - begin, Duration::from_secs(1_000_000), "no rounding adds up");
    }

    #[test]
    fn what_nobody_was_free_to_take_is_known() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, NonZeroU64::new(10));
        assert_eq!(schedule.never_taken(begin + Duration::from_millis(1_001)), 11);
        for _ in 0..4 {
            schedule.next(begin);
        }
        assert_eq!(schedule.never_taken(begin + Duration::from_secs(1)), 6);
        assert_eq!(schedule.never_taken(begin), 0);
    }

    #[test]
    fn connections_share_one_schedule() {
        let begin = Instant::now();
        let (one, later) = (Schedule::new(begin, NonZeroU64::new(1_000)), begin + STALL);
        let other = one.clone();
        assert_eq!(one.next(begin) - begin, Duration::ZERO);
        assert_eq!(other.next(later) - begin, Duration::from_millis(1), "being busy moves no moment");
        assert_eq!(one.next(begin) - begin, Duration::from_millis(2));
    }

    #[test]
    fn a_stall_shows_in_the_percentiles_of_an_open_loop_and_would_not_in_a_naive_client() {
        let begin = Instant::now();
        let (honest, naive) = latencies_ms(&Schedule::new(begin, NonZeroU64::new(500)), begin);
        // At 500/s, 2 s of stall put off 1,000 requests, and half of the time was free to catch up: 2,000 are late.
        assert!((1_800..=2_200).contains(&honest.count_between(3, u64::MAX)), "{honest:?}");
        assert!(honest.value_at_quantile(0.90) > 900, "p90 {}", honest.value_at_quantile(0.90));
        // The control: the same requests, and 99.9 % of them look untouched.
        assert_eq!(naive.count_between(3, u64::MAX), 1);
        assert_eq!(naive.value_at_quantile(0.999), 1);
    }

    #[test]
    fn without_a_rate_the_next_request_is_due_when_the_connection_is_free() {
        let free = Instant::now();
        assert_eq!(Schedule::new(free, None).next(free + STALL), free + STALL);
    }
}
