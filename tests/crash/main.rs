//! Seeded lives of the log on a disk that crashes, fills up and fails, against a model in memory.
//!
//! `CHINWAG_CRASH_ROUNDS=n` sets how many seeds run; `CHINWAG_CRASH_SEED=n` replays one, which a failure prints.
//! Two controls prove that the test can fail: with syncs that do nothing, and with a recovery that trusts the cache, it
//! must find lost records.

mod model;
mod wal;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use wal::{Sabotage, Seen};

const ROUNDS_DEFAULT: u64 = 2500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn round(seed: u64, sabotage: Sabotage) -> Result<Seen, String> {
    let caught = catch_unwind(AssertUnwindSafe(|| wal::round(seed, sabotage)));
    caught.unwrap_or_else(|_| Err("it panicked".into()))
}

#[test]
fn the_log_keeps_what_it_promised_over_crashes() {
    let seeds = match number("CHINWAG_CRASH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CHINWAG_CRASH_ROUNDS").unwrap_or(ROUNDS_DEFAULT),
    };
    let single = seeds.end - seeds.start == 1;
    let mut seen = Seen::default();
    for seed in seeds {
        match round(seed, Sabotage::None) {
            Ok(found) => seen.add(&found),
            Err(why) => panic!("{why}\nreplay: CHINWAG_CRASH_SEED={seed} cargo test --test crash"),
        }
    }
    assert!(single || seen.is_everything(), "the seeds did not reach every case: {seen:?}");
}

thread_local! {
    static EXPECTS_PANICS: Cell<bool> = const { Cell::new(false) };
}

fn count_of_failures(sabotage: Sabotage, rounds: u64) -> usize {
    // The panics of a control are what it is for: they need no report. Other tests' do.
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !EXPECTS_PANICS.get() {
                report(panic);
            }
        }));
    });
    EXPECTS_PANICS.set(true);
    let failures = (0..rounds).filter(|seed| round(*seed, sabotage).is_err()).count();
    EXPECTS_PANICS.set(false);
    failures
}

#[test]
fn control_without_syncs_acknowledged_records_are_lost() {
    let failures = count_of_failures(Sabotage::NoSyncs, 400);
    assert!(failures > 50, "only {failures} of 400 rounds lost something");
}

#[test]
fn control_a_recovery_that_trusts_the_cache_serves_what_is_not_there() {
    let failures = count_of_failures(Sabotage::TrustCache, 1000);
    assert!(failures > 0, "no round noticed");
}
