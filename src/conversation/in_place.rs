//! Committing in place: where few threads serve everything, they also write the log.
//!
//! Between two threads a commit costs two wake-ups, which take as long as half of a quick disk's sync; and what is
//! appended while one thread syncs is too little to be worth the next sync. So a thread that serves commits at the end of
//! a turn of the runtime, when everybody who was ready has appended, as single-threaded servers do. Promises that a
//! turn that waits for company ends soon. Whether the disk is quick enough for it is the log's business, and who serves
//! while it hangs the reserve's.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::completion::Ticket;
use super::reserve::Reserve;
use crate::wal::Wal;

/// How long a batch may wait for company in all, with nobody appending, while fewer have come than last time: whoever was
/// answered then is likely to be back, and who comes too late waits for a whole sync. A fifth of a quick disk's.
const LINGER: Duration = Duration::from_micros(20);
/// How long a batch may gather, however many come: then its sync is a twentieth of its time, and more would only delay
/// the first of it.
const GATHER_MAX: Duration = Duration::from_millis(2);

/// How long the thread looks for the next request instead of going to sleep where one caller at a time is served: about
/// as long as a request takes to come back, while being woken takes a third of that again.
const LOOK_OUT: Duration = Duration::from_micros(60);

/// The log, once it is there, and the bell that it rings.
#[derive(Clone, Default)]
pub(super) struct Offer {
    bell: Arc<Notify>,
    made: Arc<OnceLock<Made>>,
}

struct Made {
    log: Weak<Wal<Ticket>>,
    /// Who serves while the disk hangs.
    reserve: Option<Reserve>,
}

impl Offer {
    /// Makes it, to a log that has begun.
    pub(super) fn make(&self, log: &Arc<Wal<Ticket>>, reserve: Option<Reserve>) {
        let bell = self.bell.clone();
        let _ = self.made.set(Made { log: Arc::downgrade(log), reserve });
        log.volunteer(Box::new(move || bell.notify_one()));
    }
}

/// Whoever commits in place.
pub(super) struct Volunteer {
    offer: Offer,
    /// How many records the last batch had that was committed in place.
    expected: u64,
    /// Whether the batch that was just committed had one record.
    was_alone: bool,
}

/// However the task ends, what is appended then is not left to it.
impl Drop for Volunteer {
    fn drop(&mut self) {
        if let Some(log) = self.log() {
            log.retire_volunteer();
        }
    }
}

impl Volunteer {
    pub(super) fn new(offer: Offer) -> Self {
        Self { offer, expected: 0, was_alone: false }
    }

    /// Until something waits that is to be committed in place.
    pub(super) async fn called(&self) {
        self.offer.bell.notified().await;
    }

    /// After an answer to the only caller: stays awake for a moment, because the next request is likely to come at once.
    /// Where more are served somebody is always ready, and where nobody is the thread sleeps.
    pub(super) async fn look_out(&mut self) {
        let was_alone = std::mem::take(&mut self.was_alone);
        let Some(log) = self.log().filter(|_| was_alone) else {
            return;
        };
        let (began, appended) = (Instant::now(), log.appended_lsn());
        while log.appended_lsn() == appended && began.elapsed() < LOOK_OUT {
            tokio::task::yield_now().await;
        }
    }

    fn log(&self) -> Option<Arc<Wal<Ticket>>> {
        self.offer.made.get().and_then(|made| made.log.upgrade())
    }

    /// Lets a turn of the runtime pass, and commits what was appended by then.
    pub(super) async fn commit(&mut self) {
        let Some(log) = self.log() else {
            return;
        };
        self.expected = gather(&log, self.expected).await;
        self.was_alone = self.expected == 1;
        match self.offer.made.get().and_then(|made| made.reserve.as_ref()) {
            Some(reserve) => reserve.cover(|| log.commit_in_place()),
            None => log.commit_in_place(),
        }
    }
}

/// Lets a turn of the runtime pass in which whoever is ready appends; and further ones until so many records wait as
/// are expected, or nobody comes, or it takes too long. Says how many wait then.
async fn gather(log: &Wal<Ticket>, expected: u64) -> u64 {
    let durable = log.durable_lsn();
    let began = Instant::now();
    let (mut turn_began, mut idle, mut gathered) = (began, Duration::ZERO, 0);
    loop {
        tokio::task::yield_now().await;
        let (now, waiting) = (Instant::now(), log.appended_lsn().0.saturating_sub(durable.0));
        if waiting == gathered {
            idle += now - turn_began;
        }
        (turn_began, gathered) = (now, waiting);
        if gathered >= expected || idle >= LINGER || now - began >= GATHER_MAX {
            return gathered;
        }
    }
}
