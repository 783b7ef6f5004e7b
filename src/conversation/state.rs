//! The state of one conversation and its rules: pure, synchronous, without a clock or a disk.
//!
//! A rule takes a call and says what would happen: a record to append, an answer that is already
//! true, or a lawful no. [`State::apply`] is the only thing that changes a state, for a record
//! just appended as for one replayed. Who may see what is durable is decided by the reader's
//! [`Durable`] view, which the caller brings.

use std::sync::Arc;
use std::time::Duration;

use super::group;
use super::history::{self, History, Stored};
use super::old::{Missing, Old};
use super::participants::{Membership, Participant, Participants};
use super::record::{AckV1, KeyV1, RecallV1, Record, SendV1};
use super::shown::View;
use crate::config::limits::CLIENT_MSG_ID_BYTES_MAX;
use crate::inbox::rows::Standing;
use crate::message::{
    ConversationKey, Direction, Draft, Duty, MessageView, Page, Placed, Pull, Receipt, Rejection, UserId,
};

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

/// What a pull would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pulled {
    Page(Page),
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

/// What a send with a `client_msg_id` is.
enum Retry {
    New,
    Of(Receipt),
    Needs(Missing),
}

/// What makes a conversation a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupFacts {
    pub(crate) name: String,
    pub(crate) created_ns: u64,
    pub(crate) members_count: u32,
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
            last_timestamp_ns: 0,
            applied_lsn: 0,
            hash: 0,
        }
    }

    /// Whether anything has happened in it: every record names somebody. Its newest record says less, as an imported
    /// conversation has none.
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
            (ConversationKey::Group(_), None) => Err(Rejection::NoSuchGroup),
            (ConversationKey::Group(_), Some(_)) => match self.participants.membership_of(user) {
                Some(membership) => Ok(Some(membership)),
                None => Err(Rejection::Forbidden(NOT_A_MEMBER)),
            },
        }
    }

    /// Rules of a send. `key` is this state's own key, borrowed by the caller for the record.
    pub(crate) fn send<'a>(
        &self,
        key: &'a ConversationKey,
        sender: &'a UserId,
        draft: &'a Draft,
        old: &Old,
        now_ns: u64,
    ) -> Result<Decision<'a, Receipt>, Rejection> {
        self.admit(sender)?;
        refuse_long_client_msg_id(draft)?;
        let timestamp_ns = self.next_timestamp_ns(now_ns);
        match self.retry_of(sender, draft, old, timestamp_ns)? {
            Retry::New => {}
            Retry::Of(receipt) => return Ok(Decision::Already(receipt)),
            Retry::Needs(missing) => return Ok(Decision::Needs(missing)),
        }
        let msg_index = self.history.newest_message().checked_add(1).ok_or_else(conversation_full)?;
        let record = Record::Send(SendV1 {
            key: KeyV1::of(key),
            msg_index,
            sender: sender.as_str(),
            timestamp_ns,
            client_msg_id: &draft.client_msg_id,
            msg: &draft.msg,
            extra: &draft.extra,
        });
        Ok(Decision::Append(record, Receipt { msg_index, timestamp_ns, duplicate: false }))
    }

    /// Whether this draft was sent before. What was sent too long ago is not looked for, wherever it
    /// is by now: the answers do not depend on what is in memory.
    fn retry_of(&self, sender: &UserId, draft: &Draft, old: &Old, now_ns: u64) -> Result<Retry, Rejection> {
        let id = draft.client_msg_id.as_str();
        if id.is_empty() {
            return Ok(Retry::New);
        }
        let Some(number) = self.participants.number_of(sender.as_str()) else { return Ok(Retry::New) };
        let mut first = self.history.find_retry(number, id);
        let mut below = u32::MAX;
        while first.is_none() {
            let Some(candidate) = self.history.find_old_retry(number, id, below) else { break };
            if candidate <= old.gone_through() {
                // Only what is forgotten is ever gone.
                break;
            }
            let Some(message) = old.message(candidate) else {
                return Ok(Retry::Needs(Missing(candidate..=candidate)));
            };
            first = Some(candidate).filter(|_| message.sender == number && message.client_msg_id == id);
            below = candidate;
        }
        match first.map(|msg_index| (msg_index, self.find(msg_index, old))) {
            Some((msg_index, Found::Message(first))) => self.compare(msg_index, &first, draft, now_ns),
            _ => Ok(Retry::New),
        }
    }

    /// Of a message that was recalled, or is not kept, nothing may be left to compare with: its id alone
    /// makes the retry.
    fn compare(
        &self,
        msg_index: u32,
        first: &Stored<'_>,
        draft: &Draft,
        now_ns: u64,
    ) -> Result<Retry, Rejection> {
        let timestamp_ns = first.timestamp_ns;
        if !self.history.remembers(msg_index, timestamp_ns, now_ns) {
            return Ok(Retry::New);
        }
        let is_gone = first.erased || first.recall_index != 0 || msg_index < self.history.kept_from();
        if !is_gone && (first.msg != draft.msg || first.extra != draft.extra) {
            return Err(Rejection::ClientIdReused);
        }
        Ok(Retry::Of(Receipt { msg_index, timestamp_ns, duplicate: true }))
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

    /// Rules of a recall.
    pub(crate) fn recall<'a>(
        &self,
        key: &'a ConversationKey,
        by: &'a UserId,
        msg_index: u32,
        old: &Old,
        window: Option<Duration>,
        now_ns: u64,
    ) -> Result<Decision<'a, u32>, Rejection> {
        let membership = self.admit(by)?;
        let found = match msg_index < self.history.kept_from() {
            true => Found::Absent,
            false => self.find(msg_index, old),
        };
        let message = match found {
            Found::Message(message) => message,
            Found::Missing(missing) => return Ok(Decision::Needs(missing)),
            Found::Absent => return Err(self.no_such_message(msg_index, self.history.newest_message())),
        };
        let sender = self.participant(message.sender)?;
        let may_recall_any = membership.is_some_and(|m| m.duty != Duty::Member);
        if sender != by && !may_recall_any {
            return Err(Rejection::NotYourMessage);
        }
        if message.recall_index != 0 {
            return Ok(Decision::Already(message.recall_index));
        }
        let timestamp_ns = self.next_timestamp_ns(now_ns);
        refuse_late_recall(window, timestamp_ns.saturating_sub(message.timestamp_ns))?;
        let recall_index = self.history.newest_recall() + 1;
        let record = Record::Recall(RecallV1 {
            key: KeyV1::of(key),
            recall_index,
            msg_index,
            by: by.as_str(),
            timestamp_ns,
        });
        Ok(Decision::Append(record, recall_index))
    }

    /// Rules of an ack. Only what is durable can have been read.
    pub(crate) fn ack<'a>(
        &self,
        key: &'a ConversationKey,
        user: &'a UserId,
        msg_index: u32,
        durable: Durable,
    ) -> Result<Decision<'a, ()>, Rejection> {
        self.admit(user)?;
        if msg_index > durable.messages {
            return Err(self.no_such_message(msg_index, durable.messages));
        }
        if msg_index <= self.participants.of(user).map_or(0, |row| row.read_cursor) {
            return Ok(Decision::Already(()));
        }
        let record = Record::Ack(AckV1 { key: KeyV1::of(key), user: user.as_str(), msg_index });
        Ok(Decision::Append(record, ()))
    }

    fn no_such_message(&self, asked: u32, newest: u32) -> Rejection {
        Rejection::NoSuchMessage { asked, newest }
    }

    /// What a pull sees of what is durable, as far as the user may read.
    pub(crate) fn view(&self, user: &UserId, pull: &Pull, durable: Durable) -> Result<View, Rejection> {
        let readable_from = self.admit(user)?.map_or(1, |membership| membership.readable_from);
        Ok(View::of(pull, readable_from.max(self.history.kept_from()), durable))
    }

    /// The page of it. `epoch` is left to the caller.
    pub(crate) fn page(&self, view: &View, old: &Old) -> Result<Pulled, Rejection> {
        let View { shown, oldest, durable } = *view;
        let (first, last) = shown.messages;
        if let Some(missing) = self.missing(first..=last, old) {
            return Ok(Pulled::Needs(missing));
        }
        let mut page = Page::new(durable.messages, durable.recalls, oldest);
        if first > self.history.newest_old() {
            self.copy_messages(&mut page, first, last, durable)?;
        } else {
            (first..=last).try_for_each(|index| self.push_message(&mut page, index, old, durable))?;
        }
        if shown.direction == Direction::Before {
            page.reverse();
        }
        for index in view.recall_indices() {
            let msg_index = self.history.recalled_by(index).expect("a durable recall is in the history");
            page.recalls.push((index, msg_index));
        }
        Ok(Pulled::Page(page))
    }

    /// Both at once.
    #[cfg(test)]
    pub(crate) fn pull(
        &self,
        user: &UserId,
        pull: &Pull,
        old: &Old,
        durable: Durable,
    ) -> Result<Pulled, Rejection> {
        self.page(&self.view(user, pull, durable)?, old)
    }

    /// Those of the messages that are neither in memory nor in what was read.
    fn missing(&self, indices: impl Iterator<Item = u32>, old: &Old) -> Option<Missing> {
        let newest_old = self.history.newest_old();
        let missing = indices.filter(|index| *index <= newest_old && old.message(*index).is_none());
        missing.fold(None, |span, index| match span {
            None => Some(Missing(index..=index)),
            Some(Missing(span)) => Some(Missing(index.min(*span.start())..=index.max(*span.end()))),
        })
    }

    /// Puts messages that are in memory into a page, their texts in as few pieces as they stand in.
    fn copy_messages(
        &self,
        page: &mut Page,
        first: u32,
        last: u32,
        durable: Durable,
    ) -> Result<(), Rejection> {
        if first > last {
            return Ok(());
        }
        let text_bytes = self.history.parts(first, last).map(|part| part.text.len()).sum();
        page.reserve((last + 1 - first) as usize, text_bytes);
        // Mostly few people talk, and often one of them for a while.
        let mut known = None;
        for part in self.history.parts(first, last) {
            let base = page.add_text(part.text);
            for (message, erased) in part.messages() {
                let sender = match known {
                    Some((participant, number)) if participant == message.sender => number,
                    _ => page.sender_number(self.participant(message.sender)?),
                };
                known = Some((message.sender, sender));
                page.place(shown(message, erased, base, sender, durable));
            }
        }
        Ok(())
    }

    fn push_message(
        &self,
        page: &mut Page,
        msg_index: u32,
        old: &Old,
        durable: Durable,
    ) -> Result<(), Rejection> {
        let Found::Message(message) = self.find(msg_index, old) else {
            return Err(Rejection::Broken(format!("{} lacks message {msg_index}", self.key)));
        };
        let sender = self.participant(message.sender)?;
        let recalled = is_recalled(message.recall_index, message.erased, durable);
        let (msg, extra) = if recalled { ("", "") } else { (message.msg, message.extra) };
        let view = MessageView {
            msg_index,
            recall_index: if recalled { message.recall_index } else { 0 },
            msg,
            extra,
            timestamp_ns: message.timestamp_ns,
            sender: sender.as_str(),
        };
        page.push(sender, view);
        Ok(())
    }

    /// Who sent a message. One that was read just now names a row that damage may have changed.
    fn participant(&self, number: u32) -> Result<&UserId, Rejection> {
        let row = self.participants.rows().get(number as usize);
        let absent = || Rejection::Broken(format!("{} lacks participant {number}", self.key));
        row.map(|row| &row.user).ok_or_else(absent)
    }

    /// Whether `user` is in the conversation.
    fn has(&self, user: &UserId) -> bool {
        match &*self.key {
            ConversationKey::Direct(first, second) => user == first || user == second,
            ConversationKey::Group(_) => self.participants.membership_of(user).is_some(),
        }
    }

    /// Where the conversation stands for `user`, with everything that was appended; `None` when they
    /// are not in it or nothing has happened.
    pub(crate) fn standing_of(&self, user: &UserId) -> Option<Standing> {
        if !self.has_begun() || !self.has(user) {
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
        })
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

    /// Takes over one record. Nothing is changed when it does not continue this state.
    ///
    /// `hash` is the rolling hash with this record.
    pub(crate) fn apply(&mut self, record: &Record<'_>, lsn: u64, hash: u128) -> Result<(), Inconsistent> {
        match record {
            Record::Send(send) => self.apply_send(send)?,
            Record::Recall(recall) => self.apply_recall(recall)?,
            Record::Ack(ack) => self.apply_ack(ack)?,
            Record::Group(change) => group::apply(self, change)?,
        }
        self.applied_lsn = lsn;
        self.hash = hash;
        Ok(())
    }

    fn apply_send(&mut self, send: &SendV1<'_>) -> Result<(), Inconsistent> {
        let expected = u64::from(self.history.newest_message()) + 1;
        if u64::from(send.msg_index) != expected {
            return Err(self.inconsistent(format!("message {} where {expected} comes next", send.msg_index)));
        }
        let sender = self.user(send.sender)?;
        let number = self.participants.number_or_insert(&sender);
        self.history.push(Stored {
            sender: number,
            timestamp_ns: send.timestamp_ns,
            recall_index: 0,
            client_msg_id: send.client_msg_id,
            msg: send.msg,
            extra: send.extra,
            erased: false,
        });
        self.participants.get_mut(number).read_cursor = send.msg_index;
        self.advance_time(send.timestamp_ns);
        Ok(())
    }

    fn apply_recall(&mut self, recall: &RecallV1<'_>) -> Result<(), Inconsistent> {
        let expected = self.history.newest_recall() + 1;
        if recall.recall_index != expected {
            return Err(
                self.inconsistent(format!("recall {} where {expected} comes next", recall.recall_index))
            );
        }
        let RecallV1 { msg_index, .. } = *recall;
        if msg_index == 0 || msg_index > self.history.newest_message() {
            return Err(self.inconsistent(format!("recall of absent message {msg_index}")));
        }
        if self.history.recall_of(msg_index) != 0 {
            return Err(self.inconsistent(format!("message {msg_index} recalled twice")));
        }
        self.history.push_recall(msg_index);
        self.advance_time(recall.timestamp_ns);
        Ok(())
    }

    fn apply_ack(&mut self, ack: &AckV1<'_>) -> Result<(), Inconsistent> {
        if ack.msg_index > self.history.newest_message() {
            return Err(self.inconsistent(format!("ack of absent message {}", ack.msg_index)));
        }
        let user = self.user(ack.user)?;
        let number = self.participants.number_or_insert(&user);
        let row: &mut Participant = self.participants.get_mut(number);
        row.read_cursor = row.read_cursor.max(ack.msg_index);
        Ok(())
    }

    /// Moves the conversation's clock; it never runs backwards.
    pub(crate) fn advance_time(&mut self, timestamp_ns: u64) {
        self.last_timestamp_ns = self.last_timestamp_ns.max(timestamp_ns);
    }

    /// The id of a participant named by a record; known ones are shared.
    pub(crate) fn user(&self, id: &str) -> Result<UserId, Inconsistent> {
        match self.participants.number_of(id) {
            Some(number) => Ok(self.participants.get(number).user.clone()),
            None => UserId::parse(id).map_err(|why| self.inconsistent(format!("user id {why}"))),
        }
    }

    pub(crate) fn inconsistent(&self, why: String) -> Inconsistent {
        Inconsistent { key: (*self.key).clone(), why }
    }
}

fn conversation_full() -> Rejection {
    Rejection::Invalid(format!("msg: the conversation is full ({} messages)", u32::MAX))
}

/// The edge refuses it in its own words; here it keeps what is stored readable whoever calls.
fn refuse_long_client_msg_id(draft: &Draft) -> Result<(), Rejection> {
    if draft.client_msg_id.len() > CLIENT_MSG_ID_BYTES_MAX {
        let why = format!("client_msg_id must be at most {CLIENT_MSG_ID_BYTES_MAX} bytes");
        return Err(Rejection::Invalid(why));
    }
    Ok(())
}

fn refuse_late_recall(window: Option<Duration>, age_ns: u64) -> Result<(), Rejection> {
    match window {
        Some(window) if Duration::from_nanos(age_ns) > window => {
            Err(Rejection::RecallWindowPassed { window })
        }
        _ => Ok(()),
    }
}

/// Whether a message is shown as recalled. A recall that a crash could still take back must not be
/// shown: until it is durable, the message is as it was. But a text that is gone already was taken by
/// one that is durable.
fn is_recalled(recall_index: u32, erased: bool, durable: Durable) -> bool {
    recall_index != 0 && (recall_index <= durable.recalls || erased)
}

/// A message as a page shows it whose texts begin at `base`.
fn shown(message: Placed, erased: bool, base: u32, sender: u32, durable: Durable) -> Placed {
    let Placed { msg_from, extra_from, to, .. } = message;
    match is_recalled(message.recall_index, erased, durable) {
        true => Placed { sender, msg_from: base, extra_from: base, to: base, ..message },
        false => Placed {
            sender,
            recall_index: 0,
            msg_from: base + msg_from,
            extra_from: base + extra_from,
            to: base + to,
            ..message
        },
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(crate) mod tests;
