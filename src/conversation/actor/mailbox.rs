//! What comes into the mailbox of a conversation: calls, and what the node itself wants of it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::conversation::admission::Permit;
use crate::conversation::chunk::{Chunk, Saved};
use crate::conversation::completion::Reply;
use crate::conversation::old::{Missing, Old};
use crate::conversation::record::RelationChange;
use crate::inbox::Inbox;
use crate::message::{Caller, Draft, Duty, Pull, UserId};

/// The mailbox.
#[derive(Debug)]
pub(crate) enum Message {
    /// A client's call.
    Call(Call),
    /// The snapshot wants the next chunks behind what it has.
    Collect { saved: Saved, to: oneshot::Sender<Vec<Chunk>>, permit: Permit },
    /// The inbox is closed.
    Part(Arc<Inbox>),
    /// For tests of what a bug in here may cost.
    #[cfg(test)]
    Panic,
}

// ractor moves a message whole into a box and out again.
const _: () = assert!(size_of::<Message>() <= 192);

/// One call in the mailbox.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) request: Request,
    /// What was read for it of messages that are not in memory.
    pub(crate) old: Old,
    pub(crate) reply: Reply,
}

/// What a caller wants of a conversation.
#[derive(Debug)]
pub(crate) enum Request {
    Send(Draft),
    Recall(u32),
    Ack(u32),
    Pull {
        pull: Pull,
        /// Whether the caller takes a page that is encoded already.
        encoded: bool,
    },
    CreateGroup {
        name: String,
        members: Vec<UserId>,
    },
    AddMembers(Vec<UserId>),
    KickMembers(Vec<UserId>),
    LeaveGroup,
    SetDuty {
        user: UserId,
        duty: Duty,
    },
    RenameGroup(String),
    Mute {
        user: UserId,
        until_s: u64,
    },
    DismissGroup,
    Relate(RelationChange),
    GroupInfo,
    Members {
        cursor: String,
        count: u32,
    },
    /// The inbox hears from here on what happens; the answer is where the conversation stands for
    /// its user.
    Join(Arc<Inbox>),
    Acks,
    /// What has become of these messages, which were sent here.
    Fates(Box<[u32]>),
    Signal {
        kind: Box<str>,
        data: Box<str>,
    },
}

/// What a call waits for that is not in memory, and the call again.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) missing: Missing,
    pub(crate) request: Request,
}
