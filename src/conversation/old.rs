//! Messages of a long conversation that were read back from packs, for one call.
//!
//! What a message said, who sent it and when never changes; whether it was recalled since is the
//! conversation's to say, not these bytes'.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::history::{History, Stored};

/// Some messages, each as its chunk had it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Old {
    parts: Vec<Arc<History>>,
    /// Packs have nothing of the messages up to this one.
    gone_through: u32,
    /// Packs have no texts of the messages up to this one.
    hollow_through: u32,
}

/// What a call needs first: these messages, which are only in packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) RangeInclusive<u32>);

impl Old {
    /// No messages: what a call comes with at first.
    #[cfg(test)]
    pub(crate) const NONE: &Self = &Self { parts: Vec::new(), gone_through: 0, hollow_through: 0 };

    /// Whether nothing was read, nor found to be gone.
    #[cfg(test)]
    pub(crate) fn is_nothing(&self) -> bool {
        self.parts.is_empty() && self.gone_through == 0
    }

    /// Whether nothing was read.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds the messages of one chunk.
    pub(crate) fn add(&mut self, part: Arc<History>) {
        self.parts.push(part);
    }

    /// Notes what packs do not have any more.
    pub(crate) fn note_gone(&mut self, gone_through: u32, hollow_through: u32) {
        self.gone_through = self.gone_through.max(gone_through);
        self.hollow_through = self.hollow_through.max(hollow_through).max(gone_through);
    }

    /// Packs have nothing of the messages up to this one.
    pub(crate) fn gone_through(&self) -> u32 {
        self.gone_through
    }

    /// Packs have no texts of the messages up to this one.
    pub(crate) fn hollow_through(&self) -> u32 {
        self.hollow_through
    }

    /// Adds what was read for the same call later.
    pub(crate) fn extend(&mut self, more: Self) {
        self.note_gone(more.gone_through, more.hollow_through);
        self.parts.extend(more.parts);
    }

    /// The message with this index, if it was read. It does not know of recalls.
    pub(crate) fn message(&self, msg_index: u32) -> Option<Stored<'_>> {
        self.parts.iter().find_map(|part| part.message(msg_index))
    }
}
