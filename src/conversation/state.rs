//! The state of one conversation and its rules: pure, synchronous, without a clock or a disk.
//!
//! A rule takes a call and says what would happen: a record to append, an answer that is already
//! true, or a lawful no ([`calls`], [`page`]). What was said changes by [`State::apply`] alone, for a
//! record just appended as for one replayed; how much of it is in memory changes by loading,
//! trimming and erasing. Who may see what is durable is decided by the reader's [`Durable`] view,
//! which the caller brings.

use std::sync::Arc;

pub(crate) use self::page::Pulled;
use super::blocks::Blocks;
use super::group::Mutes;
use super::history::{self, History, Stored};
use super::old::{Missing, Old};
use super::participants::{Membership, Participants};
use super::record::Record;
use crate::message::{ConversationKey, Rejection, UserId};

mod apply;
mod calls;
mod fate;
mod page;
mod retry;
mod standing;

pub(super) const NOT_A_MEMBER: &str = "you are not a member of this group";

/// What a call would do. `T` is its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision<'a, T> {
    /// Append this record; the answer holds once it is durable.
    Append(Record<'a>, T),
    /// Nothing to store: the answer holds once everything appended so far is durable.
    Already(T),
    /// Ask again with these messages, which are not in memory.
    Needs(Missing),
}

/// A message that a call names.
enum Found<'a> {
    Message(Stored<'a>),
    Absent,
    Missing(Missing),
}

/// How far a conversation is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Durable {
    pub(crate) messages: u32,
    pub(crate) recalls: u32,
}

/// What makes a conversation a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupFacts {
    pub(crate) name: String,
    pub(crate) created_ns: u64,
    pub(crate) members_count: u32,
    /// Who may not send for a while.
    pub(crate) mutes: Mutes,
    /// Whether it has ended: its id stays taken, and for all else there is no such group.
    pub(crate) dismissed: bool,
}

/// A record that does not continue this state: a bug, or damage that every checksum missed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record does not continue {key}: {why}")]
pub struct Inconsistent {
    /// The conversation.
    pub key: ConversationKey,
    /// What does not fit.
    pub why: String,
}

/// One conversation.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) key: Arc<ConversationKey>,
    pub(crate) history: History,
    pub(crate) participants: Participants,
    /// `None` for a direct conversation, and for a group id that nobody has created.
    pub(crate) group: Option<GroupFacts>,
    /// Of a pair.
    pub(crate) blocks: Blocks,
    /// Whether there are blocks, or mutes: so a send looks at one byte.
    is_anybody_silenced: bool,
    pub(crate) last_timestamp_ns: u64,
    /// The newest log record in it; 0 for none.
    pub(crate) applied_lsn: u64,
    /// Rolling hash over its records, see [`super::record::extend_hash`].
    pub(crate) hash: u128,
}

impl State {
    /// A conversation in which nothing has happened.
    pub(crate) fn new(key: ConversationKey) -> Self {
        Self::with(key, history::Options::default())
    }

    /// The same; its history is kept as `options` say.
    pub(crate) fn with(key: ConversationKey, options: history::Options) -> Self {
        Self {
            key: Arc::new(key),
            history: History::new(options),
            participants: Participants::default(),
            group: None,
            blocks: Blocks::default(),
            is_anybody_silenced: false,
            last_timestamp_ns: 0,
            applied_lsn: 0,
            hash: 0,
        }
    }

    /// Whether anything has happened in it: every record names somebody, but for a block, which is none of its
    /// conversation. Its newest record says less, as an imported conversation has none.
    pub(crate) fn has_begun(&self) -> bool {
        !self.participants.rows().is_empty()
    }

    /// Roughly what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.history.bytes() + self.participants.bytes() + size_of::<Self>()
    }

    /// The time of the next record: now, but never before the last one.
    pub(crate) fn next_timestamp_ns(&self, now_ns: u64) -> u64 {
        now_ns.max(self.last_timestamp_ns)
    }

    /// Whether `user` may use the conversation. A direct key contains its callers by construction.
    pub(crate) fn admit(&self, user: &UserId) -> Result<Option<&Membership>, Rejection> {
        match (&*self.key, &self.group) {
            (ConversationKey::Direct(..), _) => Ok(None),
            (ConversationKey::Group(_), Some(group)) if !group.dismissed => {
                match self.participants.membership_of(user) {
                    Some(membership) => Ok(Some(membership)),
                    None => Err(Rejection::Forbidden(NOT_A_MEMBER)),
                }
            }
            (ConversationKey::Group(_), _) => Err(Rejection::NoSuchGroup),
        }
    }

    /// Refuses whoever is in the conversation and may say nothing at this time of its clock. Nearly always nobody is
    /// silenced, which is all that most sends find out.
    #[inline]
    pub(crate) fn refuse_silenced(&self, user: &UserId, timestamp_ns: u64) -> Result<(), Rejection> {
        if self.is_anybody_silenced { self.look_up_silence(user, timestamp_ns) } else { Ok(()) }
    }

    /// To be called where blocks or mutes have changed.
    pub(crate) fn note_silenced(&mut self) {
        let has_mutes = self.group.as_ref().is_some_and(|group| !group.mutes.is_empty());
        self.is_anybody_silenced = has_mutes || self.blocks.is_any();
    }

    #[cold]
    fn look_up_silence(&self, user: &UserId, timestamp_ns: u64) -> Result<(), Rejection> {
        let Some(group) = &self.group else { return self.blocks.refuse(&self.key, user) };
        let number = self.participants.number_of(user.as_str());
        number.map_or(Ok(()), |number| group.mutes.refuse(number, timestamp_ns))
    }

    /// The message with this index, in memory or in what was read for this call.
    fn find<'s>(&'s self, msg_index: u32, old: &'s Old) -> Found<'s> {
        if let Some(message) = self.history.message(msg_index) {
            return Found::Message(message);
        }
        if msg_index == 0 || msg_index > self.history.newest_message() {
            return Found::Absent;
        }
        let Some(mut message) = old.message(msg_index) else {
            return Found::Missing(Missing(msg_index..=msg_index));
        };
        message.recall_index = self.history.recall_of(msg_index);
        Found::Message(message)
    }

    /// Who sent a message. One that was read just now names a row that damage may have changed.
    fn participant(&self, number: u32) -> Result<&UserId, Rejection> {
        let row = self.participants.rows().get(number as usize);
        let absent = || Rejection::Broken(format!("{} lacks participant {number}", self.key));
        row.map(|row| &row.user).ok_or_else(absent)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(crate) mod tests;
