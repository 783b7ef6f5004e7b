//! One connection's queue of events: bounded, never in anybody's way.

use std::sync::Arc;

use super::event::Event;

/// The queue between the delivery and one connection.
#[derive(Debug, Default)]
pub struct Session {}

impl Session {
    /// Gives the connection an event. Never waits: over the session's limits everything that waits in
    /// it, and this event, becomes one "behind". Called in the order of the log, by one task at a time
    /// for each conversation.
    pub fn push(&self, _event: &Arc<Event>) {}
}
