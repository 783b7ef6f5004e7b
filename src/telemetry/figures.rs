//! What the metrics say, as numbers for a person to look at: counts, and quantiles out of the histograms.
//!
//! Everything here is read when somebody looks. What is counted, and when, is [`super`]'s business.

use super::labels::{CODE_OTHER, CODES, SUCCESS, VERBS};
use super::{Histogram, Metrics};

/// How the values of a histogram are spread since the start, in the unit in which it counts.
///
/// A quantile lies in its bucket as if the values were spread evenly over it, so it is as exact as the bounds are close;
/// it is rounded up. Above the last bound there is only that bound. `None`: there are no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// How many values.
    pub count: u64,
    /// Half of the values are not above it.
    pub p50: Option<u64>,
    /// 90 % of them.
    pub p90: Option<u64>,
    /// 99 % of them.
    pub p99: Option<u64>,
    /// 99.9 % of them.
    pub p999: Option<u64>,
}

/// What was answered to one verb since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Its name in the metrics.
    pub verb: &'static str,
    /// How many requests got an error.
    pub errors: u64,
    /// How long they took, with and without an error, in nanoseconds.
    pub took_ns: Spread,
}

impl Histogram {
    /// How its values are spread.
    pub fn spread(&self) -> Spread {
        let counts = self.counts();
        let quantile = |share| quantile(self.0.bounds, &counts, share);
        Spread {
            count: counts.iter().sum(),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
        }
    }
}

/// The value below which a share of the counted ones lies.
fn quantile(bounds: &[u64], counts: &[u64], share: f64) -> Option<u64> {
    let rank = share * counts.iter().sum::<u64>() as f64;
    let (mut before, mut lower) = (0.0, 0);
    for (count, upper) in counts.iter().zip(bounds) {
        let count = *count as f64;
        if count > 0.0 && before + count >= rank {
            let width = (upper - lower) as f64;
            return Some(lower + (width * (rank - before) / count).ceil() as u64);
        }
        (before, lower) = (before + count, *upper);
    }
    let above = *counts.get(bounds.len())?;
    (above > 0).then_some(lower)
}

impl Metrics {
    /// What was answered, by verb; of every verb that was called.
    pub fn answered(&self) -> Vec<Answered> {
        let of_verb = |(place, (_, verb)): (usize, &(_, &'static str))| {
            let codes = self.requests[place].iter().zip(CODES.iter().map(Some).chain([None]));
            let failed = codes.filter(|(_, code)| *code != Some(&SUCCESS));
            let errors = failed.map(|(count, _)| count.get()).sum();
            Answered { verb, errors, took_ns: self.request_seconds[place].spread() }
        };
        let all = VERBS.iter().enumerate().map(of_verb);
        all.filter(|answered| answered.took_ns.count > 0).collect()
    }

    /// How many requests ended with each code of an error, whatever the verb; also those that none ended with.
    pub fn errors(&self) -> Vec<(String, u64)> {
        let codes = CODES.iter().map(u32::to_string).chain([CODE_OTHER.to_owned()]);
        let of_code = |place: usize| self.requests.iter().map(|of_verb| of_verb[place].get()).sum();
        let all = codes.enumerate().map(|(place, code)| (code, of_code(place)));
        all.filter(|(code, _)| *code != SUCCESS.to_string()).collect()
    }

    /// How long the syncs of the log took, in nanoseconds.
    pub fn syncs_ns(&self) -> Spread {
        self.commits.sync_seconds.spread()
    }

    /// How many records the commits of the log had.
    pub fn commits(&self) -> Spread {
        self.commits.records.spread()
    }

    /// Bytes of records written to the log.
    pub fn log_bytes(&self) -> u64 {
        self.commits.log_bytes.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::SyncMode;
    use crate::telemetry::Verb;

    #[test]
    fn a_quantile_lies_in_its_bucket_as_if_values_were_spread_evenly() {
        let bounds = [10, 20, 40];
        assert_eq!(quantile(&bounds, &[0, 0, 0, 0], 0.5), None);
        assert_eq!(quantile(&bounds, &[10, 0, 0, 0], 0.5), Some(5));
        assert_eq!(quantile(&bounds, &[10, 10, 0, 0], 0.5), Some(10));
        assert_eq!(quantile(&bounds, &[10, 10, 0, 0], 0.75), Some(15));
        assert_eq!(quantile(&bounds, &[1, 0, 99, 0], 0.999), Some(40));
        assert_eq!(quantile(&bounds, &[0, 1, 0, 0], 0.001), Some(11));
    }

    #[test]
    fn above_the_last_bound_nothing_more_is_known() {
        assert_eq!(quantile(&[10, 20], &[1, 0, 1], 0.99), Some(20));
        assert_eq!(quantile(&[10, 20], &[0, 0, 1], 0.5), Some(20));
    }

    #[test]
    fn what_was_answered_is_told_by_verb_and_by_code() {
        let metrics = Metrics::new(SyncMode::Always);
        assert_eq!(metrics.answered(), []);
        metrics.request(Verb::Send, SUCCESS, Duration::from_micros(75));
        metrics.request(Verb::Send, 10001, Duration::from_micros(75));
        metrics.request(Verb::Pull, 77, Duration::from_mins(2));
        let answered = metrics.answered();
        let told: Vec<_> = answered.iter().map(|one| (one.verb, one.took_ns.count, one.errors)).collect();
        assert_eq!(told, [("send", 2, 1), ("pull", 1, 1)]);
        assert_eq!(answered[0].took_ns.p50, Some(75_000));
        assert_eq!(answered[1].took_ns.p999, Some(30_000_000_000));
        let errors = metrics.errors();
        assert_eq!(errors.iter().map(|(_, count)| count).sum::<u64>(), 2);
        for code in ["10001", "other"] {
            assert!(errors.contains(&(code.to_owned(), 1)), "{errors:?}");
        }
        assert!(!errors.iter().any(|(code, _)| code == "0"), "a success is no error");
    }
}
