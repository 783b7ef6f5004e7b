//! A conversation in memory, and how much of it the snapshot has.

use super::chunk::{self, Chunk, Saved};
use super::state::State;

/// A state with its place in the snapshot.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) state: State,
    saved: Saved,
    /// Whether it has records that no collected chunk covers; then it is in the dirty list.
    pub(crate) dirty: bool,
}

impl Resident {
    /// A conversation of which no snapshot knows.
    pub(crate) fn new(state: State) -> Self {
        Self::recovered(state, Saved::default(), false)
    }

    /// A conversation as recovery found it.
    pub(crate) fn recovered(state: State, saved: Saved, dirty: bool) -> Self {
        Self { state, saved, dirty }
    }

    /// The next chunks of what the snapshot does not have; from the beginning with `restart`. After
    /// a complete one, the conversation is clean until its next record.
    pub(crate) fn collect(&mut self, restart: bool) -> Vec<Chunk> {
        if restart {
            self.saved = Saved::default();
        }
        let chunks = chunk::encode_next(&self.state, self.saved);
        if let Some(last) = chunks.last() {
            self.saved = Saved { messages: last.summary.messages.1, recalls: last.summary.recalls.1 };
            self.dirty &= !last.complete;
        }
        chunks
    }
}
