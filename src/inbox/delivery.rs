//! Delivery: from what became durable to the inboxes of those who are in the conversation.
//!
//! One task, in the order of the log. It never waits for a reader: sessions are bounded queues. What
//! waits for the task itself is bounded by permits, which calls keep until their events are delivered:
//! when delivery is the bottleneck, senders hear "overloaded" instead of memory growing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, mpsc};

use super::Inbox;
use crate::live::Event;

/// Those in a conversation whose inbox is in memory. Replaced, never changed: an event keeps the list
/// of its moment.
pub type Listeners = Arc<[Arc<Inbox>]>;

/// What one record of the log did, and who is to hear it.
#[derive(Debug)]
pub struct Delivery<P> {
    /// Those to whom it goes.
    pub listeners: Listeners,
    /// The record; `None` for what is never stored.
    pub lsn: Option<u64>,
    /// What happened, in one conversation.
    pub events: Vec<Arc<Event>>,
    /// Kept until it is delivered.
    pub permit: P,
}

/// The way to the task. Cheap to clone.
#[derive(Debug)]
pub struct Deliveries<P> {
    queue: mpsc::UnboundedSender<Vec<Delivery<P>>>,
    progress: Arc<Progress>,
}

impl<P> Clone for Deliveries<P> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), progress: self.progress.clone() }
    }
}

#[derive(Debug, Default)]
struct Progress {
    given: AtomicU64,
    done: AtomicU64,
    moved: Notify,
}

impl<P: Send + 'static> Deliveries<P> {
    /// Starts the task inside the current runtime; it ends when every sender is gone.
    pub fn start() -> Self {
        let (queue, mut incoming) = mpsc::unbounded_channel::<Vec<Delivery<P>>>();
        let progress = Arc::new(Progress::default());
        let seen = progress.clone();
        tokio::spawn(async move {
            while let Some(batch) = incoming.recv().await {
                batch.into_iter().for_each(deliver);
                seen.done.fetch_add(1, Ordering::SeqCst);
                seen.moved.notify_waiters();
                // Connections write what they were given before the next batch takes the core.
                tokio::task::yield_now().await;
            }
        });
        Self { queue, progress }
    }

    /// Hands over what a batch of the log did. Called before anybody hears that it is durable.
    pub fn give(&self, batch: Vec<Delivery<P>>) {
        if batch.is_empty() {
            return;
        }
        self.progress.given.fetch_add(1, Ordering::SeqCst);
        // The task ends after everybody who gives.
        let _ = self.queue.send(batch);
    }

    /// Waits until everything is delivered that was given before: then the inboxes show whatever the
    /// caller may have been told.
    pub async fn caught_up(&self) {
        let given = self.progress.given.load(Ordering::SeqCst);
        loop {
            let moved = self.progress.moved.notified();
            if self.progress.done.load(Ordering::SeqCst) >= given {
                return;
            }
            moved.await;
        }
    }
}

fn deliver<P>(delivery: Delivery<P>) {
    let Delivery { listeners, lsn, events, permit } = delivery;
    for inbox in listeners.iter() {
        match lsn {
            Some(lsn) => inbox.deliver(lsn, &events),
            None => events.iter().for_each(|event| inbox.pass_on(event)),
        }
    }
    drop(permit);
}
