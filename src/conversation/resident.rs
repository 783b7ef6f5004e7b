//! A conversation in memory.

use super::chunk::{self, Chunk, Saved};
use super::state::State;

/// A state, and what the snapshot knows of it.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) state: State,
    /// Whether it has records that no collected chunk covers; then it is in the dirty list.
    pub(crate) dirty: bool,
    /// Newest record of it that a published pack covers, as far as was known when it was loaded.
    pub(crate) saved_lsn: u64,
}

impl Resident {
    /// A conversation of which no snapshot knows.
    pub(crate) fn new(state: State) -> Self {
        Self { state, dirty: false, saved_lsn: 0 }
    }

    /// The next chunks behind what the snapshot has. After a complete one, the conversation is
    /// clean until its next record.
    pub(crate) fn collect(&mut self, saved: Saved) -> Vec<Chunk> {
        let chunks = chunk::encode_next(&self.state, saved);
        self.dirty &= !chunks.last().is_some_and(|last| last.complete);
        chunks
    }
}
