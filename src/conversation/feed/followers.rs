//! Followers: who waits for the next record of the log, whichever it is.
//!
//! While nobody does, a batch pays one load of a counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use tokio::sync::Notify;

/// Everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    waiting: AtomicUsize,
    arrival: Notify,
}

/// A place among those who wait; dropped when it is no longer wanted.
#[derive(Debug)]
pub(super) struct Following(Arc<Followers>);

impl Followers {
    /// Begins to wait. Look at the log only after [`Following::armed`]: whatever becomes durable behind that look wakes.
    pub(super) fn wait(self: &Arc<Self>) -> Following {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Following(self.clone())
    }

    /// Wakes everybody; called after records became durable.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `wait`: either the waiter sees what is durable, or we see the waiter.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.arrival.notify_waiters();
        }
    }
}

impl Following {
    /// Resolves with the next record after this call, not after the first poll.
    pub(super) fn armed(&self) -> impl Future<Output = ()> + '_ {
        // `notify_waiters` reaches every `Notified` that exists, polled or not.
        self.0.arrival.notified()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken_and_places_are_given_back() {
        let followers = Arc::new(Followers::default());
        followers.wake();
        let (one, other) = (followers.wait(), followers.wait());
        let (first, second) = (one.armed(), other.armed());
        followers.wake();
        first.await;
        second.await;
        drop((one, other));
        assert_eq!(followers.waiting.load(Ordering::SeqCst), 0);
    }
}
