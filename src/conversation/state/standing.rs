//! Where a conversation stands for one of those who are in it: what is unread, and how far everybody has read.
//!
//! All of it counts what was appended, durable or not: whoever tells it to a user waits.

use super::State;
use crate::inbox::rows::Standing;
use crate::message::{ConversationKey, Rejection, UserId};

impl State {
    /// Where the conversation stands for `user`, with everything that was appended; `None` when they
    /// are not in it or nothing has happened but that others block them.
    pub(crate) fn standing_of(&self, user: &UserId) -> Option<Standing> {
        let blocks = self.blocks.by(&self.key, user);
        if !self.has(user) || !self.has_begun() && !blocks {
            return None;
        }
        let read_cursor = self.participants.of(user).map_or(0, |row| row.read_cursor);
        let joined_ns = self.participants.membership_of(user).map_or(0, |membership| membership.joined_ns);
        Some(Standing {
            lsn: self.applied_lsn,
            messages: self.history.newest_message(),
            recalls: self.history.newest_recall(),
            read_cursor,
            unread: self.unread_behind(read_cursor),
            timestamp_ns: self.newest_message_ns().unwrap_or(joined_ns),
            blocks,
        })
    }

    /// Whether `user` is in the conversation.
    fn has(&self, user: &UserId) -> bool {
        match &*self.key {
            ConversationKey::Direct(first, second) => user == first || user == second,
            ConversationKey::Group(_) => self.participants.membership_of(user).is_some(),
        }
    }

    /// Messages behind a read cursor that are not recalled. None is the reader's own: who sends has
    /// read.
    pub(crate) fn unread_behind(&self, read_cursor: u32) -> u32 {
        self.history.newest_message() - read_cursor - self.history.recalled_behind(read_cursor)
    }

    /// When the newest message was sent.
    pub(crate) fn newest_message_ns(&self) -> Option<u64> {
        self.history.newest_message_ns()
    }

    /// The read cursors of everybody who is in.
    pub(crate) fn read_cursors(&self, user: &UserId) -> Result<Vec<(UserId, u32)>, Rejection> {
        self.admit(user)?;
        let cursor_of = |user: &UserId| self.participants.of(user).map_or(0, |row| row.read_cursor);
        Ok(match &*self.key {
            // As of one that is not there: who is blocked does not learn it here.
            ConversationKey::Direct(..) if !self.has_begun() => Vec::new(),
            ConversationKey::Direct(first, second) if first == second => {
                vec![(first.clone(), cursor_of(first))]
            }
            ConversationKey::Direct(first, second) => {
                vec![(first.clone(), cursor_of(first)), (second.clone(), cursor_of(second))]
            }
            ConversationKey::Group(_) => {
                self.participants.members().map(|(_, row, _)| (row.user.clone(), row.read_cursor)).collect()
            }
        })
    }
}
