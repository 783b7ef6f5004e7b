//! `drain`: what SIGTERM does, for operators who reach the operations address and not the process.

use tokio::sync::watch;

use super::DrainOrder;
use crate::http::drain::Drain;
use crate::http::failure::Failure;
use crate::message::{Caller, Rejection};

/// Begins the drain, and knows whether it has begun.
pub(super) struct Draining {
    order: DrainOrder,
    drain: Drain,
}

impl Draining {
    pub(super) fn new(order: DrainOrder, draining: watch::Receiver<bool>) -> Self {
        Self { order, drain: Drain::new(draining) }
    }

    /// Gives the order, and waits until the drain has begun: whoever is answered finds the server not ready. One that
    /// has begun already, by a signal or an order, stays as it is.
    pub(super) async fn begin(&self, by: &Caller) {
        tracing::info!(by = %by.user, "ordered to drain");
        (self.order)();
        self.drain.begins().await;
    }

    /// Refuses what is not to begin any more.
    pub(super) fn refuse(&self) -> Result<(), Failure> {
        if self.drain.has_begun() { Err(Failure::Rejected(Rejection::Draining)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::message::UserId;

    #[tokio::test]
    async fn whoever_is_answered_finds_the_drain_begun() {
        let (node, draining) = watch::channel(false);
        let orders = Arc::new(AtomicU32::new(0));
        let counted = orders.clone();
        let order = Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let draining = Draining::new(order, draining);
        let by = Caller { user: UserId::parse("root").expect("an id"), admin: true };
        let mut answer = pin!(draining.begin(&by));
        assert!(answer.as_mut().now_or_never().is_none(), "the node has not heard it yet");
        assert_eq!((orders.load(Ordering::Relaxed), draining.refuse().is_ok()), (1, true));
        node.send_replace(true);
        answer.await;
        assert!(draining.refuse().is_err());
        draining.begin(&by).await;
    }
}
