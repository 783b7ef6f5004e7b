//! How long the log outlives its need (`--keep-log`), so that a restore can stop at a moment in it.
//!
//! Time begins when no manifest needs a record any more, and begins anew with each life of the process: the log is
//! kept longer than asked for, never shorter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wal::Lsn;

/// A position is noted so many times within the time that the log is kept; it is kept so much longer at most.
const NOTES: u32 = 64;

/// What of the log is not needed any more, and since when.
#[derive(Debug)]
pub(crate) struct KeptLog {
    keep: Duration,
    /// Everything below the position was not needed at that time; oldest first, both growing.
    unneeded: VecDeque<(Instant, Lsn)>,
    /// Everything below may go.
    released: Lsn,
}

impl KeptLog {
    pub(crate) fn new(keep: Duration) -> Self {
        Self { keep, unneeded: VecDeque::new(), released: Lsn(0) }
    }

    /// No manifest needs what is below `unneeded`: says below which position the log may be cut.
    pub(crate) fn release(&mut self, unneeded: Lsn, now: Instant) -> Lsn {
        if self.keep.is_zero() {
            return unneeded;
        }
        let is_due = |at: &Instant| now.saturating_duration_since(*at) >= self.keep / NOTES;
        if self.unneeded.back().is_none_or(|(at, lsn)| *lsn < unneeded && is_due(at)) {
            self.unneeded.push_back((now, unneeded));
        }
        while let Some((at, lsn)) = self.unneeded.front()
            && now.saturating_duration_since(*at) >= self.keep
        {
            self.released = *lsn;
            self.unneeded.pop_front();
        }
        self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_time_the_log_goes_at_once() {
        assert_eq!(KeptLog::new(Duration::ZERO).release(Lsn(7), Instant::now()), Lsn(7));
    }

    #[test]
    fn a_record_stays_at_least_for_the_time_and_not_much_longer() {
        let (keep, began) = (Duration::from_secs(6_400), Instant::now());
        let mut kept = KeptLog::new(keep);
        for second in 0..20_000_u64 {
            // One record a second is no longer needed.
            let below = kept.release(Lsn(second + 1), began + Duration::from_secs(second)).0;
            assert!(below <= (second + 1).saturating_sub(6_400), "second {second}: {below}");
            assert!(below + 6_400 + 101 >= second, "second {second}: {below}");
            assert!(kept.unneeded.len() <= NOTES as usize + 1);
        }
    }

    #[test]
    fn an_idle_log_keeps_one_note() {
        let (mut kept, began) = (KeptLog::new(Duration::from_secs(64)), Instant::now());
        for second in 0..1_000 {
            kept.release(Lsn(5), began + Duration::from_secs(second));
            assert!(kept.unneeded.len() <= 1);
        }
        assert_eq!(kept.release(Lsn(5), began + Duration::from_secs(1_000)), Lsn(5));
    }
}
