//! Retries of messages that are not in memory, by the hash of sender and `client_msg_id`.
//!
//! Sixteen bytes each. That two ids share a hash is possible: whoever finds one reads the message
//! and compares.

use hashbrown::HashTable;

#[derive(Debug, Clone, Copy)]
struct OldRetry {
    hash: u64,
    msg_index: u32,
}

/// The table.
#[derive(Debug, Clone, Default)]
pub(super) struct OldRetries {
    entries: HashTable<OldRetry>,
    /// Nothing up to this message is in it any more.
    forgotten_through: u32,
}

impl OldRetries {
    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<OldRetry>() + 1)
    }

    /// Adds a message.
    pub(super) fn add(&mut self, hash: u64, msg_index: u32) {
        self.entries.insert_unique(hash, OldRetry { hash, msg_index }, |retry| retry.hash);
    }

    /// The newest message under this hash below `below`.
    pub(super) fn find(&self, hash: u64, below: u32) -> Option<u32> {
        let found = self.entries.iter_hash(hash).filter(|retry| retry.hash == hash);
        found.map(|retry| retry.msg_index).filter(|msg_index| *msg_index < below).max()
    }

    /// Forgets everything up to a message. Costs a look at every entry, when there is one to go.
    pub(super) fn forget_through(&mut self, msg_index: u32) {
        if msg_index > self.forgotten_through {
            self.forgotten_through = msg_index;
            self.entries.retain(|retry| retry.msg_index > msg_index);
            self.entries.shrink_to(2 * self.entries.len(), |retry| retry.hash);
        }
    }
}
