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
    /// The newest series that was collected, unless it was seen to be published: its newest record,
    /// and how many messages packs have with it.
    collected: Option<(u64, u32)>,
}

impl Resident {
    /// A conversation of which no snapshot knows.
    pub(crate) fn new(state: State) -> Self {
        Self { state, dirty: false, saved_lsn: 0, collected: None }
    }

    /// A conversation that was read from the disk; packs cover it up to `saved_lsn`.
    pub(crate) fn loaded(state: State, saved_lsn: u64) -> Self {
        Self { dirty: state.applied_lsn > saved_lsn, saved_lsn, ..Self::new(state) }
    }

    /// The next chunks behind what the snapshot has. After a complete one, the conversation is
    /// clean until its next record.
    pub(crate) fn collect(&mut self, saved: Saved) -> Vec<Chunk> {
        let chunks = chunk::encode_next(&self.state, saved);
        if let Some(last) = chunks.last().filter(|last| last.complete) {
            self.dirty = false;
            self.collected = Some((last.applied_lsn, last.summary.after().messages));
        }
        chunks
    }

    /// Lets go of old messages that packs have; published packs cover the conversation up to
    /// `saved_lsn`. Whether any went. Looks closer once after each publish.
    pub(crate) fn trim(&mut self, saved_lsn: u64) -> bool {
        match self.collected {
            Some((lsn, messages)) if lsn <= saved_lsn => {
                self.collected = None;
                self.state.history.trim(messages)
            }
            _ => false,
        }
    }
}
