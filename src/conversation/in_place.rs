//! Committing in place: where one thread serves everything, it also writes the log.
//!
//! Between two threads a commit costs two wake-ups, which take as long as half of a quick disk's sync; and what is
//! appended while one thread syncs is too little to be worth the next sync. So the thread that serves commits at the end of
//! a turn of the runtime, when everybody who was ready has appended, as single-threaded servers do. Promises that a
//! turn that waits for company ends soon. Whether the disk is quick enough for it is the log's business.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::completion::Ticket;
use crate::wal::Wal;

/// How long the turn goes on after the last append while fewer have come than last time: whoever was answered then is
/// likely to be back, and who comes too late waits for a whole sync. A fifth of a quick disk's.
const LINGER: Duration = Duration::from_micros(20);

/// The log, once it is there, and the bell that it rings.
#[derive(Clone, Default)]
pub(super) struct Offer {
    bell: Arc<Notify>,
    log: Arc<OnceLock<Weak<Wal<Ticket>>>>,
}

impl Offer {
    /// Makes it, to a log that has begun.
    pub(super) fn make(&self, log: &Arc<Wal<Ticket>>) {
        let bell = self.bell.clone();
        let _ = self.log.set(Arc::downgrade(log));
        log.volunteer(Box::new(move || bell.notify_one()));
    }
}

/// Whoever commits in place.
pub(super) struct Volunteer {
    offer: Offer,
    /// How many records the last batch had.
    expected: u64,
}

impl Volunteer {
    pub(super) fn new(offer: Offer) -> Self {
        Self { offer, expected: 0 }
    }

    /// Until something waits that is to be committed in place.
    pub(super) async fn called(&self) {
        self.offer.bell.notified().await;
    }

    /// Lets a turn of the runtime pass, and commits what was appended by then.
    pub(super) async fn commit(&mut self) {
        let Some(log) = self.offer.log.get().and_then(Weak::upgrade) else {
            return;
        };
        self.expected = gather(&log, self.expected).await;
        log.commit_in_place();
    }
}

/// Lets a turn of the runtime pass in which whoever is ready appends; and further ones until so many records wait as
/// are expected, or nobody comes. Says how many wait then.
async fn gather(log: &Wal<Ticket>, expected: u64) -> u64 {
    let durable = log.durable_lsn();
    let (mut gathered, mut since) = (0, Instant::now());
    loop {
        tokio::task::yield_now().await;
        let now = log.appended_lsn().0.saturating_sub(durable.0);
        if now != gathered {
            (gathered, since) = (now, Instant::now());
        }
        if gathered >= expected || since.elapsed() >= LINGER {
            return gathered;
        }
    }
}
