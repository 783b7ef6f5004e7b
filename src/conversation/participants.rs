//! Participants: everybody a conversation has ever known, numbered in order of appearance.
//!
//! One table holds who sent, who has read how far, and who is a member with which duty, so that a
//! message names its sender by a small number. Nobody is ever removed from it: numbers stay true.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::message::{Duty, UserId};

/// What being in a group means for one participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) duty: Duty,
    pub(crate) joined_ns: u64,
    /// The first message this member may read: whoever is out when a message is accepted never
    /// reads it.
    pub(crate) readable_from: u32,
}

/// One person in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Participant {
    pub(crate) user: UserId,
    /// Newest message this user has read; 0 for none.
    pub(crate) read_cursor: u32,
    /// Only in groups, and only while in.
    pub(crate) membership: Option<Membership>,
}

/// The table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Participants {
    rows: Vec<Participant>,
    /// Numbers by user id; empty while a scan of the rows is as fast.
    index: HashTable<u32>,
}

/// Up to so many rows are scanned; direct conversations never need an index.
const SCAN_ROWS_MAX: usize = 8;

#[cfg(test)]
thread_local! {
    /// How often members were looked through on this thread: what a change costs that is about many of them.
    pub(crate) static LOOKED_THROUGH: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Participants {
    /// Roughly what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        /// A short id on the heap with its reference counts.
        const ID_BYTES: usize = 32;
        self.rows.capacity() * (size_of::<Participant>() + ID_BYTES) + self.index.capacity() * 5
    }

    /// The number of `user`, if they ever appeared.
    pub(crate) fn number_of(&self, user: &str) -> Option<u32> {
        if self.rows.len() <= SCAN_ROWS_MAX {
            let at = self.rows.iter().position(|row| row.user.as_str() == user)?;
            return u32::try_from(at).ok();
        }
        let is_user = |number: &u32| self.rows[*number as usize].user.as_str() == user;
        self.index.find(xxh3_64(user.as_bytes()), is_user).copied()
    }

    /// The number of `user`, who gets a row if they are new.
    pub(crate) fn number_or_insert(&mut self, user: &UserId) -> u32 {
        if let Some(number) = self.number_of(user.as_str()) {
            return number;
        }
        self.push(Participant { user: user.clone(), read_cursor: 0, membership: None })
    }

    /// Adds a row; its user must be new.
    pub(crate) fn push(&mut self, participant: Participant) -> u32 {
        let number = u32::try_from(self.rows.len()).expect("participants are bounded by records");
        self.rows.push(participant);
        if self.rows.len() > SCAN_ROWS_MAX {
            self.index_rows();
        }
        number
    }

    fn index_rows(&mut self) {
        let hash = |number: &u32| xxh3_64(self.rows[*number as usize].user.as_str().as_bytes());
        for number in self.index.len()..self.rows.len() {
            let number = number as u32;
            self.index.insert_unique(hash(&number), number, hash);
        }
    }

    /// The row with this number.
    pub(crate) fn get(&self, number: u32) -> &Participant {
        &self.rows[number as usize]
    }

    /// The row with this number, to change it.
    pub(crate) fn get_mut(&mut self, number: u32) -> &mut Participant {
        &mut self.rows[number as usize]
    }

    /// The row of `user`.
    pub(crate) fn of(&self, user: &UserId) -> Option<&Participant> {
        self.number_of(user.as_str()).map(|number| self.get(number))
    }

    /// The membership of `user`, if they are in.
    pub(crate) fn membership_of(&self, user: &UserId) -> Option<&Membership> {
        self.of(user)?.membership.as_ref()
    }

    /// All rows, in order of their numbers.
    pub(crate) fn rows(&self) -> &[Participant] {
        &self.rows
    }

    /// Everybody who is in, with their number.
    pub(crate) fn members(&self) -> impl Iterator<Item = (u32, &Participant, &Membership)> {
        #[cfg(test)]
        LOOKED_THROUGH.set(LOOKED_THROUGH.get() + 1);
        self.rows.iter().zip(0u32..).filter_map(|(row, number)| Some((number, row, row.membership.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_below_and_above_the_scan_limit() {
        let mut participants = Participants::default();
        for round in 0..2 {
            for i in 0..100u32 {
                let user = UserId::parse(&format!("user-{i}")).expect("a valid id");
                assert_eq!(participants.number_or_insert(&user), i, "round {round}");
                assert_eq!(participants.number_of(user.as_str()), Some(i));
            }
        }
        assert_eq!(participants.number_of("nobody"), None);
        assert_eq!(participants.rows().len(), 100);
    }
}
