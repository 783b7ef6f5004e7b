//! Passivation: conversations that nobody uses leave memory.
//!
//! What leaves is in a published pack, so nothing is written for it. Over the memory limit the
//! least recently used go first; what is not in a pack yet has to wait for the next checkpoint.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::admission::Admission;
use super::checkpoint::Growth;
use super::directory::Directory;
use crate::inbox::Inboxes;
use crate::telemetry::Metrics;

/// When conversations leave memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// After so long without a call.
    pub idle_after: Duration,
    /// Or when those in memory take more than this together.
    pub memory_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { idle_after: Duration::from_secs(300), memory_bytes_max: 1 << 30 }
    }
}

/// How often is looked. A look costs about 50 ns per conversation in memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Inboxes may take one part in so many of the memory limit beside the conversations.
const INBOXES_SHARE: u64 = 4;
/// Over the limit, so much more is made free at once, so that not every sweep sorts.
const SLACK: f64 = 0.1;

/// Sweeps until the task is aborted.
pub(crate) async fn run(
    options: Options,
    directory: Arc<Directory>,
    inboxes: Arc<Inboxes>,
    admission: Arc<Admission>,
    mut checkpoints: Growth,
    metrics: Arc<Metrics>,
) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let bytes = sweep(&options, &directory, admission.now_s(), &mut checkpoints);
        close_inboxes(&options, &directory, &inboxes, admission.now_s());
        metrics.conversations.count.set(directory.count() as i64);
        metrics.conversations.in_memory.set(directory.resident() as i64);
        metrics.conversations.bytes.set(bytes as i64);
        metrics.conversations.quarantined.set(directory.refused() as i64);
    }
}

/// One look at everything in memory; `now_s` is the second of the node's life. Says what those that are not idle take, in bytes.
pub(super) fn sweep(options: &Options, directory: &Directory, now_s: u32, checkpoints: &mut Growth) -> u64 {
    let idle_s = u32::try_from(options.idle_after.as_secs()).unwrap_or(u32::MAX);
    let oldest_s = now_s.checked_sub(idle_s);
    if let Some(oldest_s) = oldest_s {
        directory.passivate(|head| head.used_s.load(Ordering::Relaxed) < oldest_s);
    }
    let usage = directory.usage();
    let bytes = usage.iter().map(|(_, bytes)| bytes).sum();
    let Some(newest_s) = newest_to_go(usage, options.memory_bytes_max) else { return bytes };
    let gone = directory.passivate(|head| head.used_s.load(Ordering::Relaxed) <= newest_s);
    if gone == 0 {
        // Everything that should go has records that no pack covers yet.
        checkpoints.ask();
    }
    bytes
}

/// Inboxes that nobody looks into leave memory as conversations do, and have a part of it.
fn close_inboxes(options: &Options, directory: &Directory, inboxes: &Inboxes, now_s: u32) {
    let idle_s = u32::try_from(options.idle_after.as_secs()).unwrap_or(u32::MAX);
    let bytes_max = options.memory_bytes_max / INBOXES_SHARE;
    for (inbox, keys) in inboxes.close_idle(now_s.saturating_sub(idle_s), bytes_max) {
        keys.iter().for_each(|key| directory.part(key, &inbox));
    }
}

/// Conversations last used up to this second have to go to get under the limit, with some slack;
/// `None` when memory is under it.
fn newest_to_go(mut usage: Vec<(u32, u64)>, bytes_max: u64) -> Option<u32> {
    let total: u64 = usage.iter().map(|(_, bytes)| bytes).sum();
    let mut excess = total.checked_sub(bytes_max).filter(|excess| *excess > 0)?;
    excess += (bytes_max as f64 * SLACK) as u64;
    usage.sort_unstable();
    for (used_s, bytes) in usage {
        match excess.checked_sub(bytes) {
            Some(rest) if rest > 0 => excess = rest,
            _ => return Some(used_s),
        }
    }
    Some(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_until_memory_is_under_the_limit() {
        let usage = vec![(9, 100), (1, 100), (5, 100), (3, 100)];
        assert_eq!(newest_to_go(usage.clone(), 400), None);
        assert_eq!(newest_to_go(usage.clone(), 390), Some(1));
        assert_eq!(newest_to_go(usage.clone(), 250), Some(3));
        assert_eq!(newest_to_go(usage, 1), Some(9));
    }
}
