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
