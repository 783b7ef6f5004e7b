//! Whether the node drains: seen by every request, waited for by few.

use tokio::sync::watch;

/// The edge's view of the node's drain, which begins once and never ends.
#[derive(Clone)]
pub(super) struct Drain(watch::Receiver<bool>);

impl Drain {
    pub(super) fn new(mut draining: watch::Receiver<bool>) -> Self {
        // From here on "changed" and "draining" are one, so that asking is one atomic load: reading
        // the value itself would take a lock that all connections share.
        if *draining.borrow_and_update() {
            draining.mark_changed();
        }
        Self(draining)
    }

    /// Whether the drain has begun. A node that is gone drains too.
    pub(super) fn has_begun(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
    }

    /// Waits until the drain begins.
    pub(super) async fn begins(&self) {
        let mut draining = self.0.clone();
        // An error says that the node is gone.
        let _ = draining.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_is_seen_and_waited_for() {
        let (node, draining) = watch::channel(false);
        let drain = Drain::new(draining);
        assert!(!drain.has_begun());
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.begins().await }
        });
        node.send(true).expect("a receiver");
        waiting.await.expect("no panic");
        assert!(drain.has_begun());
        drain.begins().await;
    }

    #[tokio::test]
    async fn a_drain_that_began_before_and_a_node_that_is_gone_count() {
        let (node, draining) = watch::channel(true);
        let late = Drain::new(draining);
        assert!(late.has_begun());
        late.begins().await;
        let orphan = Drain::new({
            let (_, draining) = watch::channel(false);
            draining
        });
        assert!(orphan.has_begun());
        orphan.begins().await;
        drop(node);
    }
}
