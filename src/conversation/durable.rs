//! What an actor shares with the rest of the node: how far its conversation is durable, and how
//! many calls are on their way to it.
//!
//! The actor runs ahead of the disk; this is the line that readers may not cross. It moves before
//! the reply is sent, so what is acknowledged is readable, and what is readable is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::state::Durable;
use crate::message::ConversationKey;

/// The durable head of one conversation.
#[derive(Debug)]
pub(crate) struct DurableHead {
    pub(crate) key: Arc<ConversationKey>,
    messages: AtomicU32,
    recalls: AtomicU32,
    lsn: AtomicU64,
    /// Calls that hold a permit of this conversation.
    pub(super) in_flight: AtomicU32,
}

impl DurableHead {
    /// The head of a conversation whose whole state is durable, as after recovery.
    pub(crate) fn new(key: Arc<ConversationKey>, durable: Durable, lsn: u64) -> Self {
        Self {
            key,
            messages: AtomicU32::new(durable.messages),
            recalls: AtomicU32::new(durable.recalls),
            lsn: AtomicU64::new(lsn),
            in_flight: AtomicU32::new(0),
        }
    }

    /// Newest durable message and recall.
    pub(crate) fn durable(&self) -> Durable {
        Durable {
            messages: self.messages.load(Ordering::Acquire),
            recalls: self.recalls.load(Ordering::Acquire),
        }
    }

    /// Newest durable record of the conversation.
    pub(crate) fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Acquire)
    }

    /// Moves the head. Called in the order of the log, by one task only.
    pub(super) fn advance(&self, durable: Durable, lsn: u64) {
        self.messages.store(durable.messages, Ordering::Release);
        self.recalls.store(durable.recalls, Ordering::Release);
        self.lsn.store(lsn, Ordering::Release);
    }
}
