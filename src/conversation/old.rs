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
}

/// What a call needs first: these messages, which are only in packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) RangeInclusive<u32>);

impl Old {
    /// No messages: what a call comes with at first.
    #[cfg(test)]
    pub(crate) const NONE: &Self = &Self { parts: Vec::new() };

    /// Whether nothing was read.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds the messages of one chunk.
    pub(crate) fn add(&mut self, part: Arc<History>) {
        self.parts.push(part);
    }

    /// Adds what was read for the same call later.
    pub(crate) fn extend(&mut self, more: Self) {
        self.parts.extend(more.parts);
    }

    /// The message with this index, if it was read. It does not know of recalls.
    pub(crate) fn message(&self, msg_index: u32) -> Option<Stored<'_>> {
        self.parts.iter().find_map(|part| part.message(msg_index))
    }
}
