//! The whole engine on a disk that crashes: log, conversations, checkpoints, compaction, passivation and recovery,
//! step by step from a seed, against a model in plain vectors.
//!
//! Everything is the real code but for who takes the steps: no thread, no actor, no clock. Steps of different parts mix
//! as threads would mix them. `CHINWAG_CRASH_ROUNDS=n` sets how many seeds run, `CHINWAG_CRASH_SEED=n` replays one,
//! which a failure prints. Controls that break one rule each prove that the model notices.

#![allow(clippy::print_stderr)] // It says what it reached.

mod life;
mod model;
mod plain;
mod request;
mod round;
mod seen;

use std::panic::{AssertUnwindSafe, catch_unwind};

use round::Sabotage;
use seen::Seen;

/// About eight seconds, unoptimised.
const ROUNDS_DEFAULT: u64 = 250;
const CONTROL_ROUNDS: u64 = 120;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn round(seed: u64, sabotage: Sabotage) -> Result<Seen, String> {
    let caught = catch_unwind(AssertUnwindSafe(|| round::round(seed, sabotage)));
    caught.unwrap_or_else(|_| Err("it panicked".into()))
}

#[test]
fn the_engine_keeps_what_it_promised_over_crashes() {
    let seeds = match number("CHINWAG_CRASH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CHINWAG_CRASH_ROUNDS").unwrap_or(ROUNDS_DEFAULT),
    };
    let is_single = seeds.end - seeds.start == 1;
    let mut seen = Seen::default();
    for seed in seeds {
        match round(seed, Sabotage::None) {
            Ok(mut found) => seen.add(&mut found),
            Err(why) => panic!("{why}\nreplay: CHINWAG_CRASH_SEED={seed} cargo test --lib engine_sim"),
        }
    }
    eprintln!("{seen:?}");
    assert!(is_single || seen.is_everything(), "the seeds did not reach every case: {seen:?}");
}

/// How many of the control's rounds notice.
fn failures(sabotage: Sabotage) -> usize {
    (0..CONTROL_ROUNDS).filter(|seed| round(*seed, sabotage).is_err()).count()
}

#[test]
fn control_a_snapshot_that_does_not_wait_for_the_log_is_found() {
    assert!(failures(Sabotage::SnapshotAheadOfLog) > 0, "no round noticed");
}

#[test]
fn control_a_conversation_that_is_listed_only_after_its_append_is_found() {
    assert!(failures(Sabotage::ListedTooLate) > 0, "no round noticed");
}

#[test]
fn control_a_dead_actor_that_comes_back_without_the_log_is_found() {
    assert!(failures(Sabotage::ReloadedWithoutLog) > 0, "no round noticed");
}

#[test]
fn control_syncs_that_do_nothing_are_found() {
    assert!(failures(Sabotage::NoSyncs) > CONTROL_ROUNDS as usize / 10, "too few rounds noticed");
}

#[test]
fn control_messages_that_leave_memory_before_a_pack_has_them_are_missed() {
    assert!(failures(Sabotage::UnsavedLetGo) > CONTROL_ROUNDS as usize / 2, "too few rounds noticed");
}
