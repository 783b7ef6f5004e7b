//! The vocabulary of chat: who, where, what, and what may come back.
//!
//! Plain types that the edge and the conversations share. Nothing here knows how a call arrived
//! or where a message is kept.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::limits::ID_BYTES_MAX;

mod owned;
mod page;

pub use self::owned::{Last, OwnedMessage};
pub(crate) use self::page::Placed;
pub use self::page::{MessageView, Page};

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The empty text names nobody.
    #[error("must not be empty")]
    Empty,
    /// More than [`ID_BYTES_MAX`] bytes of UTF-8.
    #[error("must be at most {ID_BYTES_MAX} bytes")]
    TooLong,
    /// Holds a control character (Unicode `Cc`).
    #[error("must not contain control characters")]
    ControlCharacter,
}

fn check_id(id: &str) -> Result<(), InvalidId> {
    if id.is_empty() {
        return Err(InvalidId::Empty);
    }
    if id.len() > ID_BYTES_MAX {
        return Err(InvalidId::TooLong);
    }
    if id.chars().any(char::is_control) {
        return Err(InvalidId::ControlCharacter);
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rule for ids: 1 to 128 bytes of UTF-8 without control characters.
            pub fn parse(id: &str) -> Result<Self, InvalidId> {
                check_id(id)?;
                Ok(Self(id.into()))
            }

            /// Whether [`parse`](Self::parse) would take it.
            pub fn is_lawful(id: &str) -> bool {
                check_id(id).is_ok()
            }

            /// The id as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// A user, as the `sub` of a token names them.
    UserId
);
id_type!(
    /// A group, as its creator or the server named it.
    GroupId
);

/// Who makes a call, as proved by a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`.
    pub user: UserId,
    /// The token's `admin` claim.
    pub admin: bool,
}

/// What a caller addresses: `target` and `target_type` of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// The other user of a direct conversation (or the caller: saved messages).
    User(UserId),
    /// A group.
    Group(GroupId),
}

/// The identity of a conversation. Typed, never a joined string, so keys cannot collide.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConversationKey {
    /// The unordered pair of two users. Invariant: the first is the smaller one.
    Direct(UserId, UserId),
    /// A group.
    Group(GroupId),
}

impl ConversationKey {
    /// The direct conversation of two users, in either order.
    pub fn direct(a: UserId, b: UserId) -> Self {
        if a <= b { Self::Direct(a, b) } else { Self::Direct(b, a) }
    }

    /// The conversation that `caller` means by `address`.
    pub fn of(caller: &UserId, address: &Address) -> Self {
        match address {
            Address::User(other) => Self::direct(caller.clone(), other.clone()),
            Address::Group(group) => Self::Group(group.clone()),
        }
    }

    /// The other one of a pair.
    pub fn other_than(&self, user: &UserId) -> Option<&UserId> {
        match self {
            Self::Direct(first, second) if first == user => Some(second),
            Self::Direct(first, _) => Some(first),
            Self::Group(_) => None,
        }
    }

    /// How `viewer`, who is in it, addresses the conversation.
    pub fn address_for(&self, viewer: &UserId) -> Address {
        match self {
            Self::Direct(first, second) if first == viewer => Address::User(second.clone()),
            Self::Direct(first, _) => Address::User(first.clone()),
            Self::Group(group) => Address::Group(group.clone()),
        }
    }
}

impl fmt::Display for ConversationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(a, b) => write!(f, "direct {a:?} {b:?}"),
            Self::Group(id) => write!(f, "group {id:?}"),
        }
    }
}

/// What a sender wants stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The text; never empty.
    pub msg: String,
    /// Whatever the app attaches; may be empty.
    pub extra: String,
    /// Names this send for retries; empty for none, at most 64 bytes.
    pub client_msg_id: String,
}

/// Proof of a durable send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Dense per conversation, from 1.
    pub msg_index: u32,
    /// Unix time in nanoseconds; never runs backwards inside a conversation.
    pub timestamp_ns: u64,
    /// Whether this answers a retry of a message that was already stored.
    pub duplicate: bool,
}

/// Which way a pull walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Indices up to the start, descending.
    Before,
    /// Indices from the start, ascending.
    After,
}

/// A request for a page of messages and recalls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Which way to walk.
    pub direction: Direction,
    /// First message index of the page; 0 leaves messages out.
    pub start_msg_index: u32,
    /// First recall index of the page; 0 leaves recalls out.
    pub start_recall_index: u32,
    /// At most so many of each half; 1 to 50.
    pub count: u32,
    /// How long an `After` pull that would be empty may wait for something. Zero: not at all.
    pub wait: Duration,
}

/// What a member may do in a group; the numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Duty {
    /// Sends, pulls, acks, recalls their own.
    Member = 0,
    /// Everything.
    Owner = 2,
    /// Adds, kicks and mutes members, renames, recalls any message.
    Admin = 3,
}

impl Duty {
    /// Whether whoever has this duty stands above whoever has the other one.
    pub fn outranks(self, other: Self) -> bool {
        self.rank() > other.rank()
    }

    fn rank(self) -> u8 {
        match self {
            Self::Member => 0,
            Self::Admin => 1,
            Self::Owner => 2,
        }
    }

    /// The duty with this number on the wire and on disk.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Member),
            2 => Some(Self::Owner),
            3 => Some(Self::Admin),
            _ => None,
        }
    }
}

/// A group as a member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its id.
    pub group: GroupId,
    /// Its display name.
    pub name: String,
    /// When it was created, Unix time in nanoseconds.
    pub created_ns: u64,
    /// How many members it has.
    pub members_count: u32,
    /// The asking caller's own duty (an admin token that is no member counts as `Admin`).
    pub duty: Duty,
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What they may do.
    pub duty: Duty,
    /// Since when, Unix time in nanoseconds.
    pub joined_ns: u64,
    /// Until when they may send nothing, Unix seconds; 0: they may.
    pub muted_until_s: u64,
}

/// A page of members, in order of their first appearance in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersPage {
    /// The members behind the cursor.
    pub members: Vec<Member>,
    /// Give it back for the next page; empty when there is none.
    pub cursor: String,
}

/// A page of a user's groups, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsPage {
    /// The groups behind the cursor, as the user sees them.
    pub groups: Vec<GroupInfo>,
    /// Give it back for the next page; empty when there is none.
    pub cursor: String,
}

/// A page of the users that a user blocks, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlocksPage {
    /// The users behind the cursor.
    pub users: Vec<UserId>,
    /// Give it back for the next page; empty when there is none.
    pub cursor: String,
}

/// One conversation in a user's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    /// How the user addresses it.
    pub at: Address,
    /// Newest durable message; 0 when there is none.
    pub msg_index: u32,
    /// Newest durable recall; 0 when there is none.
    pub recall_index: u32,
    /// The user's read cursor.
    pub ack_index: u32,
    /// Messages behind the read cursor that are not recalled. None of them is the user's own: who
    /// sends has read.
    pub unread: u32,
    /// When the newest message was sent, Unix nanoseconds; of a group without messages, when the
    /// user came in.
    pub timestamp_ns: u64,
}

/// A page of a user's conversations, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatsPage {
    /// The conversations, each with its newest message if the user may read it.
    pub chats: Vec<(Chat, Option<Last>)>,
    /// Unread messages of all conversations of the user together.
    pub total_unread: u64,
    /// Give it back for the next page; empty when there is none.
    pub cursor: String,
}

/// How far a client has a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// How the client addresses it.
    pub at: Address,
    /// Newest message it has; 0 for none.
    pub msg_index: u32,
    /// Newest recall it has; 0 for none.
    pub recall_index: u32,
}

/// What a sync asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// How far the client has the conversations that it knows.
    pub positions: Vec<Position>,
    /// How long a sync that would be empty may wait for something.
    pub wait: Duration,
    /// At most so many messages, and so many recalls, of each conversation; 1 to 50.
    pub count: u32,
}

/// A conversation that moved past what a client has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatDelta {
    /// How the user addresses it, and where it stands.
    pub chat: Chat,
    /// What the client does not have, from its position on; of a conversation it did not name, the
    /// newest message.
    pub page: Page,
    /// Whether there is more behind this page.
    pub more: bool,
}

/// What a sync answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The conversations that moved, newest first.
    pub chats: Vec<ChatDelta>,
    /// Whether the reply was full and further conversations moved: sync again from the new positions.
    pub more: bool,
}

/// A lawful "no", or "not now". Nothing was stored, except where a variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The call breaks a rule of the API; the text names the field and the limit.
    Invalid(String),
    /// The caller may not do this; the text says what is missing.
    Forbidden(&'static str),
    /// The caller is muted in this group.
    Muted {
        /// Until when, Unix seconds.
        until_s: u64,
    },
    /// No such message; carries the newest index there is.
    NoSuchMessage {
        /// What was asked for.
        asked: u32,
        /// The newest durable message.
        newest: u32,
    },
    /// The message is somebody else's.
    NotYourMessage,
    /// The `client_msg_id` names another message of this sender.
    ClientIdReused,
    /// The message is older than the recall window.
    RecallWindowPassed {
        /// The window.
        window: Duration,
    },
    /// No such group.
    NoSuchGroup,
    /// The group id is taken.
    GroupExists,
    /// Too much is in flight; nothing was stored.
    Overloaded,
    /// The server is draining; nothing was stored.
    Draining,
    /// The log cannot take records now (disk full); nothing was stored.
    ReadOnly,
    /// The log has failed; whether the call was stored is unknown until recovery.
    LogFailed,
    /// The conversation's data is damaged, or its actor died and it is not read from the disk again
    /// yet. Nothing was stored.
    Quarantined,
    /// The disk could not be read, for a reason that may pass and says nothing of the data. Nothing was stored.
    CannotRead,
    /// The conversation broke while handling the call; whether it was stored is unknown.
    Broken(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("a valid id")
    }

    #[test]
    fn ids_have_1_to_128_bytes_and_no_control_characters() {
        assert_eq!(UserId::parse(""), Err(InvalidId::Empty));
        assert!(UserId::parse(&"a".repeat(128)).is_ok());
        assert_eq!(UserId::parse(&"a".repeat(129)), Err(InvalidId::TooLong));
        assert_eq!(UserId::parse(&"é".repeat(65)), Err(InvalidId::TooLong));
        assert_eq!(UserId::parse("a\nb"), Err(InvalidId::ControlCharacter));
        assert_eq!(UserId::parse("a\u{85}b"), Err(InvalidId::ControlCharacter));
        assert!(UserId::parse("a-b c/d\u{1F600}").is_ok());
    }

    #[test]
    fn a_pair_has_one_key_and_pairs_never_collide() {
        let pair = |a, b| ConversationKey::direct(user(a), user(b));
        assert_eq!(pair("alice", "bob"), pair("bob", "alice"));
        assert_ne!(pair("a-b", "c"), pair("a", "b-c"));
        let group = ConversationKey::Group(GroupId::parse("a-b").expect("a valid id"));
        assert_ne!(group, pair("a", "b"));
    }
}
