//! How far conversations have been read, and the rule that keeps that without holes.
//!
//! Everything up to two indices was delivered. The next to be delivered is the one behind, and nothing
//! else is. Nothing here waits or calls.

use std::collections::HashMap;

use crate::message::{Address, Position};

/// How far a caller has everything: to be kept, and given to the next stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    /// Of the history that the positions are in; unknown before the first connection.
    pub epoch: Option<u32>,
    /// Whether every conversation that there was is among them: another one is new.
    pub is_whole: bool,
    /// One for each conversation that was seen.
    pub chats: Vec<Position>,
}

/// How far one conversation has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) msg_index: u32,
    pub(super) recall_index: u32,
}

/// What is to be done with what has an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Deliver it.
    Next,
    /// Drop it.
    Known,
    /// Fetch what lies before it.
    Gap,
}

impl Reading {
    /// Judges a message, and counts it as delivered if it is the next one.
    pub(super) fn message(&mut self, msg_index: u32) -> Verdict {
        if msg_index <= self.msg_index {
            return Verdict::Known;
        }
        if msg_index > self.msg_index + 1 {
            return Verdict::Gap;
        }
        self.msg_index = msg_index;
        Verdict::Next
    }

    /// Judges a recall likewise. One of a message that is still to come waits for it.
    pub(super) fn recall(&mut self, recall_index: u32, msg_index: u32) -> Verdict {
        if recall_index <= self.recall_index {
            return Verdict::Known;
        }
        if recall_index > self.recall_index + 1 || msg_index > self.msg_index {
            return Verdict::Gap;
        }
        self.recall_index = recall_index;
        Verdict::Next
    }

    /// What lies before `msg_index` cannot be read by this user: it is no hole.
    pub(super) fn begin_at(&mut self, msg_index: u32) {
        self.msg_index = self.msg_index.max(msg_index.saturating_sub(1));
    }

    pub(super) fn has(self, goal: Self) -> bool {
        self.msg_index >= goal.msg_index && self.recall_index >= goal.recall_index
    }

    pub(super) fn raise(&mut self, to: Self) {
        self.msg_index = self.msg_index.max(to.msg_index);
        self.recall_index = self.recall_index.max(to.recall_index);
    }
}

impl From<&Position> for Reading {
    fn from(position: &Position) -> Self {
        Self { msg_index: position.msg_index, recall_index: position.recall_index }
    }
}

/// All conversations of a reader.
#[derive(Debug, Default)]
pub(super) struct Readings {
    pub(super) epoch: Option<u32>,
    /// Whether every conversation that there was has a reading: another one is new.
    pub(super) is_whole: bool,
    pub(super) chats: HashMap<Address, Reading>,
}

impl Readings {
    pub(super) fn new(positions: &Positions) -> Self {
        let chats = positions.chats.iter().map(|position| (position.at.clone(), position.into()));
        Self { epoch: positions.epoch, is_whole: positions.is_whole, chats: chats.collect() }
    }

    /// What was read of another history is gone; without one before it was of this.
    pub(super) fn begin_epoch(&mut self, epoch: Option<u32>) {
        if self.epoch.is_some() && self.epoch != epoch {
            *self = Self::default();
        }
        self.epoch = epoch;
    }

    pub(super) fn positions(&self) -> Positions {
        let chats = self.chats.iter().map(|(at, reading)| position(at, *reading));
        Positions { epoch: self.epoch, is_whole: self.is_whole, chats: chats.collect() }
    }
}

pub(super) fn position(at: &Address, reading: Reading) -> Position {
    Position { at: at.clone(), msg_index: reading.msg_index, recall_index: reading.recall_index }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_one_is_delivered() {
        let mut reading = Reading { msg_index: 4, recall_index: 1 };
        assert_eq!([4, 6, 5, 5].map(|index| reading.message(index)), {
            use Verdict::{Gap, Known, Next};
            [Known, Gap, Next, Known]
        });
        assert_eq!(reading.recall(1, 1), Verdict::Known);
        assert_eq!(reading.recall(3, 1), Verdict::Gap);
        assert_eq!(reading.recall(2, 6), Verdict::Gap, "its message has not come");
        assert_eq!(reading.recall(2, 5), Verdict::Next);
        assert_eq!(reading, Reading { msg_index: 5, recall_index: 2 });
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_nothing_goes_back() {
        let mut reading = Reading { msg_index: 4, recall_index: 0 };
        reading.begin_at(0);
        reading.begin_at(3);
        assert_eq!(reading.msg_index, 4);
        reading.begin_at(9);
        assert_eq!(reading.msg_index, 8);
    }
}
