//! What a pull shows of a conversation: which rows, and the numbers around them.
//!
//! Promises that the same [`Shown`] of a conversation means the same rows at any time, because a message changes by a
//! recall only. Plain numbers: who may read from where on is told to it, and what stands in the rows is not known here.

use super::state::Durable;
use crate::message::{Direction, Pull};

/// Which rows a pull shows. With the conversation, and the way its reader addresses it, all that they depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(super) direction: Direction,
    /// The first and the last of the messages; none when they are the wrong way round.
    pub(super) messages: (u32, u32),
    /// The same of the recalls.
    pub(super) recall_indices: (u32, u32),
    /// Recalls that were durable: which messages are shown as recalled.
    pub(super) recalls: u32,
}

/// What a pull sees of a conversation at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(super) shown: Shown,
    /// Oldest message that the reader may see.
    pub(super) oldest: u32,
    pub(super) durable: Durable,
}

impl View {
    /// What a pull sees for a reader who may see messages from `oldest` on.
    pub(crate) fn of(pull: &Pull, oldest: u32, durable: Durable) -> Self {
        let Pull { direction, start_msg_index, start_recall_index, count, .. } = *pull;
        let messages = span(direction, start_msg_index, count, oldest, durable.messages);
        let recall_indices = span(direction, start_recall_index, count, 1, durable.recalls);
        let shown = Shown { direction, messages, recall_indices, recalls: durable.recalls };
        Self { shown, oldest, durable }
    }

    /// The recalls, in the order of the pull.
    pub(super) fn recall_indices(&self) -> impl Iterator<Item = u32> + use<> {
        let Shown { direction, recall_indices: (first, last), .. } = self.shown;
        let mut indices = first..=last;
        std::iter::from_fn(move || match direction {
            Direction::After => indices.next(),
            Direction::Before => indices.next_back(),
        })
    }
}

/// The first and the last index that a pull walks over; the first is behind the last where there are none.
fn span(direction: Direction, start: u32, count: u32, oldest: u32, newest: u32) -> (u32, u32) {
    match direction {
        _ if start == 0 || count == 0 => (1, 0),
        Direction::After => (start.max(oldest), newest.min(start.max(oldest).saturating_add(count - 1))),
        Direction::Before => {
            let last = start.min(newest);
            (oldest.max(last.saturating_sub(count - 1)), last)
        }
    }
}
