//! Arrivals: waking the pulls that wait for something to become durable.
//!
//! A conversation that nobody waits on costs its sends one load of a counter per batch. Waiting
//! on a conversation does not create it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::message::ConversationKey;

/// Who waits for which conversation.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Waiting pulls; lets a batch pass without the lock.
    waiting: AtomicUsize,
    /// Bounded by the connections: each waits at most once.
    by_key: Mutex<HashMap<ConversationKey, (Arc<Notify>, usize)>>,
}

/// One pull's place among those who wait. Dropped when it no longer does.
#[derive(Debug)]
pub(crate) struct Waiting {
    arrivals: Arc<Arrivals>,
    key: ConversationKey,
    notify: Arc<Notify>,
}

impl Arrivals {
    /// Begins to wait. Look at the conversation only after [`Waiting::armed`]: whatever becomes
    /// durable behind that look wakes the waiter.
    pub(crate) fn wait(self: &Arc<Self>, key: ConversationKey) -> Waiting {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let (notify, count) = by_key.entry(key.clone()).or_default();
        *count += 1;
        let notify = notify.clone();
        drop(by_key);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Waiting { arrivals: self.clone(), key, notify }
    }

    /// Whether anybody waits; called after the heads of a batch have moved.
    pub(crate) fn anybody(&self) -> bool {
        // Pairs with the fence in `wait`: either the waiter sees the moved head, or we see it.
        fence(Ordering::SeqCst);
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Wakes everybody who waits for `key`.
    pub(crate) fn wake(&self, key: &ConversationKey) {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((notify, _)) = by_key.get(key) {
            notify.notify_waiters();
        }
    }
}

impl Waiting {
    /// Resolves with the next arrival after this call, not after the first poll.
    pub(crate) fn armed(&self) -> impl Future<Output = ()> + '_ {
        // `notify_waiters` reaches every `Notified` that exists, polled or not.
        self.notify.notified()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.arrivals.waiting.fetch_sub(1, Ordering::SeqCst);
        let mut by_key = self.arrivals.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::GroupId;

    #[tokio::test]
    async fn an_arrival_after_arming_wakes_and_places_are_given_back() {
        let arrivals = Arc::new(Arrivals::default());
        let key = ConversationKey::Group(GroupId::parse("g").expect("a valid id"));
        assert!(!arrivals.anybody());
        let waiting = arrivals.wait(key.clone());
        let armed = waiting.armed();
        assert!(arrivals.anybody());
        arrivals.wake(&key);
        armed.await;
        drop(waiting);
        assert!(!arrivals.anybody());
        assert!(arrivals.by_key.lock().expect("not poisoned").is_empty());
    }
}
