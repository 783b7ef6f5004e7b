//! What comes back, as it is on the wire and as the caller gets it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::message::{
    Address, BlocksPage, Chat, Direction, Duty, GroupId, GroupInfo, GroupsPage, Member, MembersPage,
    Position, Receipt, UserId,
};

/// A message; `msg` and `extra` are empty once it is recalled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// Dense per conversation, from 1.
    pub msg_index: u32,
    /// The recall that took it back; 0 for none.
    pub recall_index: u32,
    /// The text.
    pub msg: String,
    /// What the app attached.
    pub extra: String,
    /// Unix time in seconds.
    pub timestamp: u32,
    /// Who sent it.
    pub sender: String,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Page {
    /// In the order of the pull.
    pub msgs: Vec<Message>,
    /// Recall index to message index.
    #[serde(default)]
    pub recalls: BTreeMap<u32, u32>,
    /// Newest message; 0 when there is none.
    pub max_msg_index: u32,
    /// Newest recall; 0 when there is none.
    pub max_recall_index: u32,
    /// Oldest message that the caller may read.
    pub min_msg_index: u32,
    /// Changes only when a restore took history back.
    pub epoch: u32,
}

/// A page of the caller's conversations, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatList {
    /// Each with its newest message, if there is one to read.
    pub chats: Vec<(Chat, Option<Message>)>,
    /// Unread messages of all conversations together.
    pub total_unread: u64,
    /// Give it back for the next page; empty when there is none.
    pub cursor: String,
}

/// A conversation that moved past what the caller has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatDelta {
    /// How the caller addresses it.
    pub at: Address,
    /// What the caller does not have; of a conversation that was not named, the newest message.
    pub page: Page,
    /// The caller's read cursor.
    pub ack_index: u32,
    /// Unread messages.
    pub unread: u32,
    /// Whether there is more of it: pull.
    pub more: bool,
}

/// What a sync answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The conversations that moved.
    pub chats: Vec<ChatDelta>,
    /// Whether further ones did: sync again.
    pub more: bool,
}

/// `target` and `target_type`, as they are written and read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Target {
    target: String,
    target_type: TargetType,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TargetType {
    User,
    Group,
}

impl From<&Address> for Target {
    fn from(at: &Address) -> Self {
        match at {
            Address::User(user) => Self { target: user.as_str().to_owned(), target_type: TargetType::User },
            Address::Group(group) => {
                Self { target: group.as_str().to_owned(), target_type: TargetType::Group }
            }
        }
    }
}

impl Target {
    pub(super) fn address(&self) -> Result<Address, Error> {
        let address = match self.target_type {
            TargetType::User => UserId::parse(&self.target).map(Address::User),
            TargetType::Group => GroupId::parse(&self.target).map(Address::Group),
        };
        address.map_err(|why| Error::Unreadable(format!("target {why}")))
    }
}

/// Where a conversation stands, in `hello`, `behind` and `list`.
#[derive(Debug, Deserialize)]
pub(super) struct Standing {
    #[serde(flatten)]
    target: Target,
    msg_index: u32,
    recall_index: u32,
    #[serde(default)]
    ack_index: u32,
    #[serde(default)]
    unread: u32,
    #[serde(default)]
    last: Option<Message>,
    #[serde(default)]
    timestamp_ns: String,
}

impl Standing {
    pub(super) fn position(&self) -> Result<Position, Error> {
        let at = self.target.address()?;
        Ok(Position { at, msg_index: self.msg_index, recall_index: self.recall_index })
    }

    fn listed(self) -> Result<(Chat, Option<Message>), Error> {
        let chat = Chat {
            at: self.target.address()?,
            msg_index: self.msg_index,
            recall_index: self.recall_index,
            ack_index: self.ack_index,
            unread: self.unread,
            timestamp_ns: nanoseconds(&self.timestamp_ns)?,
        };
        Ok((chat, self.last))
    }
}

fn nanoseconds(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| Error::Unreadable(format!("timestamp_ns {text:?}")))
}

#[derive(Deserialize)]
pub(super) struct ReceiptReply {
    msg_index: u32,
    timestamp_ns: String,
    duplicate: bool,
}

impl ReceiptReply {
    pub(super) fn receipt(self) -> Result<Receipt, Error> {
        let timestamp_ns = nanoseconds(&self.timestamp_ns)?;
        Ok(Receipt { msg_index: self.msg_index, timestamp_ns, duplicate: self.duplicate })
    }
}

#[derive(Deserialize)]
pub(super) struct ListReply {
    chats: Vec<Standing>,
    total_unread: u64,
    cursor: String,
}

impl ListReply {
    pub(super) fn list(self) -> Result<ChatList, Error> {
        let chats = self.chats.into_iter().map(Standing::listed).collect::<Result<_, _>>()?;
        Ok(ChatList { chats, total_unread: self.total_unread, cursor: self.cursor })
    }
}

#[derive(Deserialize)]
pub(super) struct SyncReply {
    chats: Vec<DeltaReply>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
struct DeltaReply {
    target: String,
    target_type: TargetType,
    msgs: Vec<Message>,
    recalls: BTreeMap<u32, u32>,
    max_msg_index: u32,
    max_recall_index: u32,
    #[serde(default)]
    min_msg_index: u32,
    ack_index: u32,
    unread: u32,
    epoch: u32,
    more: bool,
}

impl SyncReply {
    pub(super) fn synced(self) -> Result<Synced, Error> {
        let chats = self.chats.into_iter().map(DeltaReply::delta).collect::<Result<_, _>>()?;
        Ok(Synced { chats, more: self.more })
    }
}

impl DeltaReply {
    fn delta(self) -> Result<ChatDelta, Error> {
        let at = Target { target: self.target, target_type: self.target_type }.address()?;
        let page = Page {
            msgs: self.msgs,
            recalls: self.recalls,
            max_msg_index: self.max_msg_index,
            max_recall_index: self.max_recall_index,
            min_msg_index: self.min_msg_index,
            epoch: self.epoch,
        };
        Ok(ChatDelta { at, page, ack_index: self.ack_index, unread: self.unread, more: self.more })
    }
}

#[derive(Deserialize)]
pub(super) struct GroupInfoReply {
    group_id: String,
    name: String,
    created: u64,
    members_count: u32,
    duty: u8,
}

/// The wire says seconds.
const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl GroupInfoReply {
    pub(super) fn info(self) -> Result<GroupInfo, Error> {
        Ok(GroupInfo {
            group: group_id(&self.group_id)?,
            name: self.name,
            created_ns: self.created.saturating_mul(NANOS_PER_SECOND),
            members_count: self.members_count,
            duty: duty(self.duty)?,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct BlocksReply {
    user_ids: Vec<String>,
    cursor: String,
}

impl BlocksReply {
    pub(super) fn page(self) -> Result<BlocksPage, Error> {
        let users = self.user_ids.iter().map(|id| user_id(id)).collect::<Result<_, _>>()?;
        Ok(BlocksPage { users, cursor: self.cursor })
    }
}

#[derive(Deserialize)]
pub(super) struct GroupsReply {
    groups: Vec<GroupInfoReply>,
    cursor: String,
}

impl GroupsReply {
    pub(super) fn page(self) -> Result<GroupsPage, Error> {
        let groups = self.groups.into_iter().map(GroupInfoReply::info).collect::<Result<_, _>>()?;
        Ok(GroupsPage { groups, cursor: self.cursor })
    }
}

#[derive(Deserialize)]
pub(super) struct MembersReply {
    members: Vec<MemberReply>,
    cursor: String,
}

#[derive(Deserialize)]
struct MemberReply {
    user_id: String,
    duty: u8,
    joined: u64,
    #[serde(default)]
    muted_until: u64,
}

impl MembersReply {
    pub(super) fn page(self) -> Result<MembersPage, Error> {
        let member = |member: MemberReply| {
            Ok(Member {
                user: user_id(&member.user_id)?,
                duty: duty(member.duty)?,
                joined_ns: member.joined.saturating_mul(NANOS_PER_SECOND),
                muted_until_s: member.muted_until,
            })
        };
        let members = self.members.into_iter().map(member).collect::<Result<_, Error>>()?;
        Ok(MembersPage { members, cursor: self.cursor })
    }
}

pub(super) fn group_id(id: &str) -> Result<GroupId, Error> {
    GroupId::parse(id).map_err(|why| Error::Unreadable(format!("group_id {why}")))
}

pub(super) fn user_id(id: &str) -> Result<UserId, Error> {
    UserId::parse(id).map_err(|why| Error::Unreadable(format!("user_id {why}")))
}

fn duty(number: u8) -> Result<Duty, Error> {
    Duty::from_number(number).ok_or_else(|| Error::Unreadable(format!("duty {number}")))
}

/// A conversation, with the fields of one call beside it.
#[derive(Serialize)]
pub(super) struct At<T> {
    #[serde(flatten)]
    target: Target,
    #[serde(flatten)]
    fields: T,
}

impl<T> At<T> {
    pub(super) fn new(at: &Address, fields: T) -> Self {
        Self { target: at.into(), fields }
    }
}

#[derive(Serialize)]
pub(super) struct Named {
    pub(super) msg_index: u32,
}

/// A position as a cursor of a sync or a resume.
pub(super) fn cursor(position: &Position) -> At<Cursor> {
    At::new(&position.at, Cursor { msg_index: position.msg_index, recall_index: position.recall_index })
}

#[derive(Serialize)]
pub(super) struct Cursor {
    msg_index: u32,
    recall_index: u32,
}

/// The word for a direction.
pub(super) fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Before => "before",
        Direction::After => "after",
    }
}
