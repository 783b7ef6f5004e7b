//! Rules of the calls that store something: a send, a recall, an ack.
//!
//! Each says what would happen, and changes nothing. Changes of a group are the business of
//! [`group`](crate::conversation::group).

use std::time::Duration;

use super::retry::Retry;
use super::{Decision, Durable, Found, State};
use crate::config::limits::CLIENT_MSG_ID_BYTES_MAX;
use crate::conversation::old::Old;
use crate::conversation::record::{AckV1, KeyV1, RecallV1, Record, SendV1};
use crate::message::{ConversationKey, Draft, Duty, Receipt, Rejection, UserId};

impl State {
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
        // Behind the retry: what was stored before is answered as it was then.
        self.refuse_silenced(sender, timestamp_ns)?;
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
