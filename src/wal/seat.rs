//! The committer, as those share it who may commit: the log's thread, and a volunteer.
//!
//! Promises that one commits at a time, that a panic counts as a failure of the log, and that a failure, wherever it
//! happens, ends the log's thread with its cause. Whose turn it is to commit is the queue's business.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::committer::{Committer, Step};
use super::queue::Shared;
use super::{Error, Lsn};

pub(super) struct Seat<T> {
    shared: Arc<Shared<T>>,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    /// `None` once the log has ended.
    committer: Option<Committer<T>>,
    /// What the volunteer met. The thread ends with it.
    failure: Option<Error>,
}

impl<T> Seat<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, committer: Committer<T>) -> Self {
        Self { shared, inner: Mutex::new(Inner { committer: Some(committer), failure: None }) }
    }

    /// The life of the thread: commits until the end. Says what is durable when the end is a close.
    pub(super) fn run(&self) -> Result<Option<Lsn>, Error> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.step_until_end()));
        let outcome = outcome.unwrap_or(Err(Error::Panicked));
        // What is left is dropped here, its tickets and the sink; whatever their drop does, the end must be told.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if outcome.is_err() {
                self.shared.fail();
            }
            let committer = self.lock().committer.take();
            drop(committer);
        }));
        outcome
    }

    fn step_until_end(&self) -> Result<Option<Lsn>, Error> {
        let mut deadline = None;
        loop {
            let wake = self.shared.wait_for_work(deadline);
            let mut inner = self.lock();
            if let Some(failure) = inner.failure.take() {
                return Err(failure);
            }
            let Some(committer) = &mut inner.committer else {
                return Err(Error::Closed);
            };
            let is_quick = match committer.step(wake)? {
                Step::Sleeps { until, is_quick } => {
                    deadline = until;
                    is_quick
                }
                Step::Ended(last_lsn) => return Ok(last_lsn),
            };
            // Whoever is called finds the seat free.
            drop(inner);
            if wake.commits && is_quick {
                self.shared.give_turn_to_volunteer();
            }
        }
    }

    /// Commits what waits, on the caller's thread, unless the log's thread is at it or should be.
    pub(super) fn commit_in_place(&self) {
        // Whoever has it commits for as long as a sync takes: no time to wait.
        let Ok(mut inner) = self.inner.try_lock() else {
            return self.shared.give_turn_to_thread();
        };
        let Some(committer) = &mut inner.committer else {
            return;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| committer.commit_in_place()));
        if let Err(failure) = outcome.unwrap_or(Err(Error::Panicked)) {
            // The first is the cause; a call that comes before the thread has ended only hears that it failed.
            inner.failure.get_or_insert(failure);
            self.shared.fail();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // No panic passes through while it is locked, but in a step of the thread, which ends with it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
