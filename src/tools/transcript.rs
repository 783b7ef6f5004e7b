//! The lines of an export: one JSON object each.
//!
//! A conversation's line comes first, then its messages in their order, then its recalls in theirs. Nothing else ties
//! lines together, so exports can be joined end to end. Times are nanoseconds as decimal texts, as in the API: not
//! every reader of JSON keeps 64 bits. An unknown field is refused: a misspelt one must not be lost in silence.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::conversation::history::Stored;
use crate::conversation::participants::Participant;
use crate::conversation::state::State;
use crate::message::ConversationKey;

/// The version of the lines that this program writes. It reads no newer one.
pub(super) const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Line<'a> {
    #[serde(borrow)]
    Conversation(Box<ConversationLine<'a>>),
    #[serde(borrow)]
    Message(MessageLine<'a>),
    Recall(RecallLine),
}

/// What is true of a conversation as a whole.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConversationLine<'a> {
    pub(super) version: u32,
    /// The two users of a direct conversation, the smaller id first.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) users: Option<(Cow<'a, str>, Cow<'a, str>)>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<GroupLine<'a>>,
    pub(super) messages: u32,
    /// The oldest message that is kept. Lines of older ones may come: their ids tell retries.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(super) min_msg_index: u32,
    pub(super) recalls: u32,
    #[serde(with = "decimal")]
    pub(super) last_timestamp_ns: u64,
    /// The rolling hash over its records, 32 hexadecimal digits. Where there is none (the history comes from elsewhere),
    /// an import begins one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<Cow<'a, str>>,
    /// Of a pair: who blocks the other one, the smaller id first. Where there are no participants, that is all there is.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub(super) blocked_by: Vec<Cow<'a, str>>,
    /// Whoever sent, read or was a member, in order of first appearance.
    #[serde(borrow)]
    pub(super) participants: Vec<ParticipantLine<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupLine<'a> {
    #[serde(borrow)]
    pub(super) group_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(with = "decimal")]
    pub(super) created_ns: u64,
    /// It has ended, and nothing of it is kept but that its id is taken.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) dismissed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParticipantLine<'a> {
    #[serde(borrow)]
    pub(super) user: Cow<'a, str>,
    pub(super) ack_index: u32,
    /// Of a group, while they are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) member: Option<MemberLine>,
    /// Of a group, whether they are in or not: they may not send before this second of Unix time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) muted_until_s: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberLine {
    pub(super) duty: u8,
    #[serde(with = "decimal")]
    pub(super) joined_ns: u64,
    /// The first message that they may read.
    pub(super) readable_from: u32,
}

/// One message. Of a recalled one the texts are gone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageLine<'a> {
    pub(super) msg_index: u32,
    /// 0 for none.
    #[serde(default)]
    pub(super) recall_index: u32,
    #[serde(borrow)]
    pub(super) sender: Cow<'a, str>,
    #[serde(with = "decimal")]
    pub(super) timestamp_ns: u64,
    #[serde(borrow)]
    pub(super) msg: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) extra: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) client_msg_id: Cow<'a, str>,
}

/// One recall.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecallLine {
    pub(super) recall_index: u32,
    pub(super) msg_index: u32,
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Shows every line of a conversation to `write`, in their order.
pub(super) fn lines<E>(
    state: &State,
    hash: Option<u128>,
    write: &mut dyn FnMut(&Line<'_>) -> Result<(), E>,
) -> Result<(), E> {
    write(&Line::Conversation(Box::new(conversation_line(state, hash))))?;
    for msg_index in state.history.newest_old() + 1..=state.history.newest_message() {
        let message = state.history.message(msg_index).expect("indices up to the newest exist");
        write(&Line::Message(message_line(state, msg_index, message)))?;
    }
    for recall_index in 1..=state.history.newest_recall() {
        let msg_index = state.history.recalled_by(recall_index).expect("indices up to the newest exist");
        write(&Line::Recall(RecallLine { recall_index, msg_index }))?;
    }
    Ok(())
}

fn conversation_line(state: &State, hash: Option<u128>) -> ConversationLine<'_> {
    let users = match &*state.key {
        ConversationKey::Direct(a, b) => Some((a.as_str().into(), b.as_str().into())),
        ConversationKey::Group(_) => None,
    };
    ConversationLine {
        version: VERSION,
        users,
        group: group_line(state),
        messages: state.history.newest_message(),
        min_msg_index: state.history.kept_from(),
        recalls: state.history.newest_recall(),
        last_timestamp_ns: state.last_timestamp_ns,
        hash: hash.map(|hash| format!("{hash:032x}").into()),
        blocked_by: who_block(state),
        participants: participant_lines(state),
    }
}

fn who_block(state: &State) -> Vec<Cow<'_, str>> {
    let ConversationKey::Direct(first, second) = &*state.key else { return Vec::new() };
    let both = [first, second].into_iter();
    both.filter(|user| state.blocks.by(&state.key, user)).map(|user| user.as_str().into()).collect()
}

fn group_line(state: &State) -> Option<GroupLine<'_>> {
    let (ConversationKey::Group(id), Some(facts)) = (&*state.key, &state.group) else { return None };
    let (group_id, name) = (id.as_str().into(), facts.name.as_str().into());
    Some(GroupLine { group_id, name, created_ns: facts.created_ns, dismissed: facts.dismissed })
}

fn participant_lines(state: &State) -> Vec<ParticipantLine<'_>> {
    let muted_until_s = |number| state.group.as_ref().map_or(0, |facts| facts.mutes.until_s(number));
    let rows = state.participants.rows().iter().zip(0..);
    rows.map(|(row, number)| participant_line(row, muted_until_s(number))).collect()
}

fn participant_line(row: &Participant, muted_until_s: u64) -> ParticipantLine<'_> {
    let member = row.membership.map(|membership| MemberLine {
        duty: membership.duty as u8,
        joined_ns: membership.joined_ns,
        readable_from: membership.readable_from,
    });
    ParticipantLine { user: row.user.as_str().into(), ack_index: row.read_cursor, member, muted_until_s }
}

fn message_line<'a>(state: &'a State, msg_index: u32, message: Stored<'a>) -> MessageLine<'a> {
    MessageLine {
        msg_index,
        recall_index: message.recall_index,
        sender: state.participants.get(message.sender).user.as_str().into(),
        timestamp_ns: message.timestamp_ns,
        msg: message.msg.into(),
        extra: message.extra.into(),
        client_msg_id: message.client_msg_id.into(),
    }
}

/// A number of 64 bits as a decimal text.
mod decimal {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        text.parse().map_err(|_| de::Error::custom(format!("{text:?} is no number of nanoseconds")))
    }
}
