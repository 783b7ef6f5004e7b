//! Reload: a conversation whose actor died comes back without a restart.
//!
//! What a dead actor had in memory is in packs or in the log: it handed every record over before it
//! took it into its state. So once the log is on the disk, the records that no manifest covers are
//! read back from it and put where a start puts them, into the archive's tail; the next call starts
//! an actor that loads them as ever. Until then callers are refused.
//!
//! A conversation that dies again and again comes back later and later, and in the end not at all:
//! a bug that panics on loading must not keep the disk busy. What is damaged on the disk is never
//! tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::{error, info};

use super::archive::{Held, TailRecord};
use super::checkpoint::DirtyList;
use super::directory::{Directory, Running};
use super::publisher::Publisher;
use super::record::{encode_key, key_bytes_of};
use crate::message::ConversationKey;
use crate::telemetry::Metrics;
use crate::wal::{self, VisitError, read_live};

/// When a conversation whose actor died is read from the disk again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// So long after its death; ten times as long after each further one.
    pub first_delay: Duration,
    /// So often; then it is refused until a restart.
    pub attempts_max: u32,
    /// A death so long after the one before counts as the first.
    pub forgiven_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        // 0.1, 1, 10 and 100 seconds.
        Self {
            first_delay: Duration::from_millis(100),
            attempts_max: 4,
            forgiven_after: Duration::from_secs(600),
        }
    }
}

/// Where the directory reports who died. Unbounded, because a conversation is in it once: until it
/// comes back it cannot die again.
pub(crate) type Deaths = mpsc::UnboundedSender<Running>;
/// Where it arrives.
pub(crate) type Dead = mpsc::UnboundedReceiver<Running>;

/// What bringing back takes.
#[derive(Clone)]
pub(crate) struct Reloading {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) deaths: Deaths,
}

/// Why a conversation did not come back this time.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Log(#[from] wal::Error),
    /// It may still append, so nothing may be read yet.
    #[error("its actor does not end")]
    StillAlive,
    #[error("reading it panicked")]
    Panicked,
}

/// How long an actor may take to end. It is in none of its waits: it has none.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Brings back whoever is reported, until the task is aborted.
pub(crate) async fn run(options: Options, mut dead: Dead, reloading: Reloading) {
    let mut failures = Failures { options, of: HashMap::new() };
    let mut under_way = JoinSet::new();
    // Each reads the log since the last checkpoint: one at a time, so that many cost the disk no more.
    let turn = Arc::new(Semaphore::new(1));
    loop {
        tokio::select! {
            Some(running) = dead.recv() => {
                reloading.metrics.conversations.actors_died.inc();
                let key = &running.head.key;
                match failures.delay_after_another(key, Instant::now()) {
                    Some(delay) => {
                        error!(conversation = %key, ?delay, "its actor died; it is refused until it is read from the disk");
                        under_way.spawn(bring_back_after(delay, running, turn.clone(), reloading.clone()));
                    }
                    None => {
                        running.head.give_up();
                        error!(conversation = %key, "its actor died again and again; it is refused until a restart");
                    }
                }
            }
            Some(_) = under_way.join_next() => {}
        }
    }
}

/// How often conversations died lately.
struct Failures {
    options: Options,
    /// Bounded by the deaths within `forgiven_after`.
    of: HashMap<Arc<ConversationKey>, (u32, Instant)>,
}

impl Failures {
    /// How long to wait this time; `None` when it was often enough.
    fn delay_after_another(&mut self, key: &Arc<ConversationKey>, now: Instant) -> Option<Duration> {
        let Options { first_delay, attempts_max, forgiven_after } = self.options;
        let longest = first_delay.saturating_mul(10u32.saturating_pow(attempts_max));
        // The wait itself is no good conduct.
        self.of.retain(|_, (_, last)| now.saturating_duration_since(*last) < forgiven_after + longest);
        let (count, last) = self.of.entry(key.clone()).or_insert((0, now));
        (*count, *last) = (*count + 1, now);
        let earlier = *count - 1;
        (earlier < attempts_max).then(|| first_delay.saturating_mul(10u32.saturating_pow(earlier)))
    }
}

async fn bring_back_after(delay: Duration, dead: Running, turn: Arc<Semaphore>, reloading: Reloading) {
    tokio::time::sleep(delay).await;
    let _turn = turn.acquire().await;
    match reloading.bring_back(&dead).await {
        Ok(()) => {
            reloading.directory.release(&dead.head);
            reloading.metrics.conversations.reloaded.inc();
            info!(conversation = %dead.head.key, "can be read from the disk again");
        }
        Err(why) => {
            error!(conversation = %dead.head.key, %why, "could not be brought back");
            // Another try, if there is one left.
            let _ = reloading.deaths.send(dead);
        }
    }
}

impl Reloading {
    async fn bring_back(&self, dead: &Running) -> Result<(), Error> {
        dead.actor.kill_and_wait(Some(END_TIMEOUT)).await.map_err(|_| Error::StillAlive)?;
        let (publisher, dirty, key) = (self.publisher.clone(), self.dirty.clone(), dead.head.key.clone());
        let read = tokio::task::spawn_blocking(move || hold_again(&publisher, &dirty, &key));
        Ok(read.await.map_err(|_| Error::Panicked)??)
    }
}

/// Puts what the log has of a conversation, and no manifest covers, into the archive's tail. Nobody
/// appends to it meanwhile.
pub(super) fn hold_again(
    publisher: &Publisher,
    dirty: &DirtyList,
    key: &ConversationKey,
) -> Result<(), wal::Error> {
    let key_bytes = encode_key(key);
    publisher.with_log(|covered, segments, last| {
        let mut records = Held::default();
        let mut note = |record: wal::Record<'_>| -> Result<(), VisitError> {
            if key_bytes_of(record.payload)? == key_bytes {
                records.push(TailRecord::of(&record));
            }
            Ok(())
        };
        let place = &publisher.place;
        read_live(&*place.disk, segments, place.store, covered, last, &mut note)?;
        // The actor that loads them takes itself for listed.
        dirty.add(key.clone());
        publisher.archive().hold_again(&key_bytes, &records);
        Ok(())
    })?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::GroupId;

    #[test]
    fn whoever_dies_often_comes_back_later_and_in_the_end_not_at_all() {
        let key = |id| Arc::new(ConversationKey::Group(GroupId::parse(id).expect("a valid id")));
        let mut failures = Failures { options: Options::default(), of: HashMap::new() };
        let (often, once, began) = (key("often"), key("once"), Instant::now());
        let after = |failures: &mut Failures, key, seconds| {
            failures.delay_after_another(key, began + Duration::from_secs(seconds))
        };
        for (seconds, delay_ms) in [(0, Some(100)), (1, Some(1_000)), (2, Some(10_000)), (20, Some(100_000))]
        {
            assert_eq!(after(&mut failures, &often, seconds), delay_ms.map(Duration::from_millis));
        }
        assert_eq!(after(&mut failures, &often, 200), None);
        assert_eq!(after(&mut failures, &once, 200), Some(Duration::from_millis(100)));
        assert_eq!(after(&mut failures, &often, 300), None);
        assert_eq!(after(&mut failures, &often, 10_000), Some(Duration::from_millis(100)));
        assert_eq!(failures.of.len(), 1, "who has lived well is forgotten");
    }
}
