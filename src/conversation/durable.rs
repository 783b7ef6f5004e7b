//! What an actor shares with the rest of the node: how far its conversation is durable and kept, how far
//! a snapshot has it, and how many calls are on their way to it.
//!
//! The actor runs ahead of the disk; the durable head is the line that readers may not cross. It
//! moves before the reply is sent, so what is acknowledged is readable, and what is readable is
//! durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::admission::Admission;
use super::state::Durable;
use crate::message::ConversationKey;

/// The shared part of one conversation in memory.
#[derive(Debug)]
pub(crate) struct DurableHead {
    pub(crate) key: Arc<ConversationKey>,
    /// The node's, for permits to be given back to.
    pub(super) admission: Arc<Admission>,
    messages: AtomicU32,
    recalls: AtomicU32,
    /// Oldest message that is kept.
    kept_from: AtomicU32,
    lsn: AtomicU64,
    /// Newest record that a published pack covers.
    saved_lsn: AtomicU64,
    /// Whether packs were published at which the actor has not looked yet.
    unseen: AtomicBool,
    /// Whether the actor has its state; before that, nothing was done for any call.
    loaded: AtomicBool,
    /// Whether its data on the disk is bad: it cannot be loaded, however often it is tried.
    damaged: AtomicBool,
    /// Whether its actor died so often that it is refused until a restart.
    given_up: AtomicBool,
    /// Calls that hold a permit of this conversation.
    pub(super) in_flight: AtomicU32,
    /// When the last permit was taken, in seconds of the node's life.
    pub(super) used_s: AtomicU32,
    /// Roughly what the conversation takes in memory.
    bytes: AtomicU64,
}

impl DurableHead {
    /// The head of a conversation that is not loaded yet.
    pub(crate) fn new(key: Arc<ConversationKey>, admission: Arc<Admission>) -> Self {
        Self {
            key,
            admission,
            messages: AtomicU32::new(0),
            recalls: AtomicU32::new(0),
            kept_from: AtomicU32::new(1),
            lsn: AtomicU64::new(0),
            saved_lsn: AtomicU64::new(0),
            unseen: AtomicBool::new(false),
            loaded: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            used_s: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// What was read from the disk, or is new, is durable, all of it.
    pub(super) fn load(&self, durable: Durable, lsn: u64, saved_lsn: u64) {
        self.advance(durable, lsn);
        self.saved_lsn.store(saved_lsn, Ordering::Release);
        self.loaded.store(true, Ordering::Release);
    }

    /// Whether the actor has its state.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Takes note that its data on the disk is bad.
    pub(super) fn mark_damaged(&self) {
        self.damaged.store(true, Ordering::Release);
    }

    /// Takes note that nobody brings it back any more.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Whether it stays refused for the rest of the process's life, if it is refused.
    pub(super) fn is_lost(&self) -> bool {
        self.is_damaged() || self.given_up.load(Ordering::Acquire)
    }

    /// Whether its data on the disk is bad.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Newest durable message and recall.
    pub(crate) fn durable(&self) -> Durable {
        Durable {
            messages: self.messages.load(Ordering::Acquire),
            recalls: self.recalls.load(Ordering::Acquire),
        }
    }

    /// Oldest message that is kept, as far as anybody has looked.
    pub(super) fn kept_from(&self) -> u32 {
        self.kept_from.load(Ordering::Acquire)
    }

    /// Takes note of the oldest message that is kept.
    pub(super) fn keep_from(&self, msg_index: u32) {
        self.kept_from.store(msg_index, Ordering::Release);
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

    /// A published pack covers the conversation up to `lsn`.
    pub(super) fn mark_saved(&self, lsn: u64) {
        self.saved_lsn.fetch_max(lsn, Ordering::AcqRel);
        self.unseen.store(true, Ordering::Release);
    }

    /// The actor looks at what packs have.
    pub(super) fn note_look(&self) {
        if self.unseen.load(Ordering::Relaxed) {
            // Before it looks: what is published meanwhile is seen, or marked again.
            self.unseen.swap(false, Ordering::AcqRel);
        }
    }

    /// Whether packs were published at which the actor has not looked yet.
    pub(super) fn has_unseen_packs(&self) -> bool {
        self.unseen.load(Ordering::Acquire)
    }

    /// Newest record that a published pack covers.
    pub(super) fn saved_lsn(&self) -> u64 {
        self.saved_lsn.load(Ordering::Acquire)
    }

    /// Whether memory holds nothing that a published pack does not. Only meaningful while no call
    /// is in flight: then everything appended is durable and `lsn` is the newest record.
    pub(super) fn is_saved(&self) -> bool {
        self.is_loaded() && self.saved_lsn() >= self.lsn()
    }

    /// Calls in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Takes note of what the conversation takes in memory.
    pub(super) fn weigh(&self, bytes: usize) {
        self.bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// Roughly what the conversation takes in memory, the actor included.
    pub(super) fn bytes(&self) -> u64 {
        /// An actor without state (measured, ractor 0.16.5), its directory entry and this head.
        const ACTOR_BYTES: u64 = 7_500;
        ACTOR_BYTES + self.bytes.load(Ordering::Relaxed)
    }
}
