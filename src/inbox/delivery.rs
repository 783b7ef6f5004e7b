//! Delivery: from what became durable to the inboxes of those who are in the conversation.
//!
//! One task, in the order of the log. It never waits for a reader: sessions are bounded queues. What
//! waits for the task itself is bounded by permits, which calls keep until their events are delivered:
//! when delivery is the bottleneck, senders hear "overloaded" instead of memory growing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, mpsc};
use tracing::error;

use super::Inbox;
use crate::live::Event;

/// Those in a conversation whose inbox is in memory. Replaced, never changed: an event keeps the list
/// of its moment.
pub type Listeners = Arc<[Arc<Inbox>]>;

/// Each with what goes to them alone.
pub type Apart = Vec<(Arc<Inbox>, Vec<Arc<Event>>)>;

/// What one record of the log did, and who is to hear it.
#[derive(Debug)]
pub struct Delivery<P> {
    /// Those to whom it goes as it is.
    pub listeners: Listeners,
    /// The record; `None` for what is never stored.
    pub lsn: Option<u64>,
    /// What happened, in one conversation.
    pub events: Vec<Arc<Event>>,
    /// Those to whom something else of it goes.
    pub apart: Apart,
    /// Kept until it is delivered.
    pub permit: P,
}

/// Batches of the log that may wait for delivery before answers wait for it too: some milliseconds.
const BATCHES_BEHIND_MAX: u64 = 16;

/// The way to the task. Cheap to clone.
#[derive(Debug)]
pub struct Deliveries<P> {
    queue: mpsc::UnboundedSender<Batch<P>>,
    progress: Arc<Progress>,
}

impl<P> Clone for Deliveries<P> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), progress: self.progress.clone() }
    }
}

/// What is delivered together.
#[derive(Debug)]
struct Batch<P> {
    deliveries: Vec<Delivery<P>>,
    /// Whether somebody may wait for it.
    announced: bool,
}

#[derive(Debug, Default)]
struct Progress {
    announced: AtomicU64,
    done: AtomicU64,
    moved: Notify,
}

impl<P: Send + 'static> Deliveries<P> {
    /// Starts the task inside the current runtime; it ends when every sender is gone.
    pub fn start() -> Self {
        let (queue, mut incoming) = mpsc::unbounded_channel::<Batch<P>>();
        let progress = Arc::new(Progress::default());
        let seen = progress.clone();
        tokio::spawn(async move {
            while let Some(batch) = incoming.recv().await {
                batch.deliveries.into_iter().for_each(deliver);
                if batch.announced {
                    seen.finish_one();
                }
            }
        });
        Self { queue, progress }
    }

    /// Something is about to be seen that will be delivered. By one task only, which then
    /// [gives](Self::give_announced) it: so what is announced is delivered in that order.
    pub fn announce(&self) {
        self.progress.announced.fetch_add(1, Ordering::SeqCst);
    }

    /// Hands over what was announced: what a batch of the log did.
    pub fn give_announced(&self, deliveries: Vec<Delivery<P>>) {
        if self.queue.send(Batch { deliveries, announced: true }).is_err() {
            // The node stops, and nobody is to wait for it.
            self.progress.finish_one();
        }
    }

    /// Hands over what nobody waits for.
    pub fn give_unannounced(&self, deliveries: Vec<Delivery<P>>) {
        // When the node stops nobody hears it.
        let _ = self.queue.send(Batch { deliveries, announced: false });
    }

    /// Waits while delivery is far behind. Whoever answers calls paces them by it, so that permits, which
    /// wait for delivery too, do not run out first.
    pub async fn keep_pace(&self) {
        let announced = self.progress.announced.load(Ordering::SeqCst);
        self.done_up_to(announced.saturating_sub(BATCHES_BEHIND_MAX)).await;
    }

    /// Waits until everything is delivered that anybody can have seen: then the inboxes show it too.
    pub async fn caught_up(&self) {
        self.done_up_to(self.progress.announced.load(Ordering::SeqCst)).await;
    }

    async fn done_up_to(&self, batches: u64) {
        loop {
            let moved = self.progress.moved.notified();
            if self.progress.done.load(Ordering::SeqCst) >= batches {
                return;
            }
            moved.await;
        }
    }
}

impl Progress {
    fn finish_one(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
        self.moved.notify_waiters();
    }
}

fn deliver<P>(delivery: Delivery<P>) {
    let Delivery { listeners, lsn, events, apart, permit } = delivery;
    listeners.iter().for_each(|inbox| deliver_to(inbox, lsn, &events));
    apart.iter().for_each(|(inbox, events)| deliver_to(inbox, lsn, events));
    drop(permit);
}

fn deliver_to(inbox: &Inbox, lsn: Option<u64>, events: &[Arc<Event>]) {
    let delivering = AssertUnwindSafe(|| match lsn {
        Some(lsn) => inbox.deliver(lsn, events),
        None => events.iter().for_each(|event| inbox.pass_on(event)),
    });
    // A bug in here must not end the task: nobody would hear anything any more, and lists would
    // wait for ever.
    if catch_unwind(delivering).is_err()
        && let Some(event) = events.first()
    {
        error!(user = %inbox.user, conversation = %event.key, "an event could not be delivered");
        // What is broken in these rows may break again: then only this inbox stays wrong.
        let _ = catch_unwind(AssertUnwindSafe(|| inbox.mistrust(&event.key)));
    }
}
