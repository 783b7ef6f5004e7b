//! Entries: one record of the log as a service outside reads it.
//!
//! Promises that the text of a message is here only if it may still be read. How an entry is written down is the
//! edge's business.

use super::fate::Fate;
use crate::conversation::codec;
use crate::conversation::record::{
    AckV1, GroupChange, GroupV1, KeyV1, RecallV1, Record, RelationChange, RelationV1, SendV1,
};
use crate::live::GroupAction;
use crate::message::Duty;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its position in the log.
    pub offset: u64,
    /// Where it happened.
    pub conversation: Conversation<'a>,
    /// What happened.
    pub change: Change<'a>,
}

/// Which conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversation<'a> {
    /// Of these two, the smaller id first.
    Pair(&'a str, &'a str),
    /// Of this group.
    Group(&'a str),
}

/// What a record says happened. Times are Unix nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a> {
    /// A message was sent; its sender has read up to it.
    Send {
        /// Its index.
        msg_index: u32,
        /// By whom.
        sender: &'a str,
        /// When.
        timestamp_ns: u64,
        /// Names it for retries; empty for none.
        client_msg_id: &'a str,
        /// The text; empty unless `fate` is [`Fate::Readable`].
        msg: &'a str,
        /// What the app attached; empty unless `fate` is [`Fate::Readable`].
        extra: &'a str,
        /// What has become of it since.
        fate: Fate,
    },
    /// A message was taken back.
    Recall {
        /// The recall's own index.
        recall_index: u32,
        /// Which message.
        msg_index: u32,
        /// By whom.
        by: &'a str,
        /// When.
        timestamp_ns: u64,
    },
    /// A user has read up to a message. The log does not say when.
    Ack {
        /// Who.
        user: &'a str,
        /// Up to where.
        msg_index: u32,
    },
    /// A group changed.
    Group {
        /// How.
        action: GroupAction,
        /// By whom.
        by: &'a str,
        /// When.
        timestamp_ns: u64,
        /// Whom it is about; of a creation the owner first.
        users: Vec<&'a str>,
        /// The name that a creation gives; a renaming has it in its action.
        name: &'a str,
    },
    /// One of a pair blocks the other one, or not any more.
    Block {
        /// Whether they do.
        blocks: bool,
        /// Who.
        by: &'a str,
        /// Whom.
        user: &'a str,
        /// When.
        timestamp_ns: u64,
    },
}

impl<'a> Entry<'a> {
    pub(super) fn of(offset: u64, record: Record<'a>, fate: Fate) -> Result<Self, codec::Error> {
        let key = record.key();
        let change = match record {
            Record::Send(send) => sent(&send, fate),
            Record::Recall(RecallV1 { recall_index, msg_index, by, timestamp_ns, .. }) => {
                Change::Recall { recall_index, msg_index, by, timestamp_ns }
            }
            Record::Ack(AckV1 { user, msg_index, .. }) => Change::Ack { user, msg_index },
            Record::Group(group) => regrouped(group)?,
            Record::Relation(relation) => related(&relation)?,
        };
        Ok(Self { offset, conversation: conversation_of(&key), change })
    }
}

fn conversation_of<'a>(key: &KeyV1<'a>) -> Conversation<'a> {
    match key.pair() {
        Some((smaller, greater)) => Conversation::Pair(smaller, greater),
        None => Conversation::Group(key.first()),
    }
}

fn sent<'a>(send: &SendV1<'a>, fate: Fate) -> Change<'a> {
    let SendV1 { msg_index, sender, timestamp_ns, client_msg_id, msg, extra, .. } = *send;
    let (msg, extra) = if fate == Fate::Readable { (msg, extra) } else { ("", "") };
    Change::Send { msg_index, sender, timestamp_ns, client_msg_id, msg, extra, fate }
}

fn regrouped(group: GroupV1<'_>) -> Result<Change<'_>, codec::Error> {
    let action = match group.change()? {
        GroupChange::Create => GroupAction::Create,
        GroupChange::Add => GroupAction::Add,
        GroupChange::Kick => GroupAction::Kick,
        GroupChange::Leave => GroupAction::Leave,
        GroupChange::Duty => {
            GroupAction::Duty(Duty::from_number(group.duty).ok_or(codec::Error::Impossible("duty"))?)
        }
        GroupChange::Rename => GroupAction::Rename(group.name.into()),
        GroupChange::Mute => GroupAction::Mute { until_s: group.until_s },
        GroupChange::Dismiss => GroupAction::Dismiss,
    };
    let GroupV1 { by, timestamp_ns, users, name, .. } = group;
    Ok(Change::Group { action, by, timestamp_ns, users, name })
}

fn related<'a>(relation: &RelationV1<'a>) -> Result<Change<'a>, codec::Error> {
    let blocks = relation.change()? == RelationChange::Block;
    let RelationV1 { key, by, timestamp_ns, .. } = *relation;
    let (smaller, greater) = key.pair().ok_or(codec::Error::Impossible("key"))?;
    let user = if by == smaller { greater } else { smaller };
    Ok(Change::Block { blocks, by, user, timestamp_ns })
}
