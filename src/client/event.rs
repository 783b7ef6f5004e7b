//! What a stream tells, as a reader gets it.

use std::time::Duration;

use serde_json::Value;

use super::api::Message;
use crate::message::{Address, Duty};

/// Where conversations begin that are there when a reader without positions first connects. Those that
/// come later begin with their first message: all of it is news.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Begin {
    /// With their newest message, like a sync.
    #[default]
    Newest,
    /// With everything that is kept.
    Oldest,
}

/// What happens.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A stream is there. Everything that was missed comes now.
    Connected {
        /// Whose token it is.
        user: String,
    },
    /// The stream is gone; another is tried after a while.
    Disconnected {
        /// Why.
        why: String,
        /// How long it will be.
        retry_in: Duration,
    },
    /// A message; each once and in order.
    Message {
        /// How the caller addresses the conversation.
        at: Address,
        /// What was sent.
        message: Message,
    },
    /// A message was taken back; each once and in order.
    Recall {
        /// How the caller addresses the conversation.
        at: Address,
        /// Which message.
        msg_index: u32,
        /// Dense per conversation, from 1.
        recall_index: u32,
        /// Who did it; empty when it comes from history, which does not keep that.
        by: String,
    },
    /// Somebody has read up to a message.
    Ack {
        /// How the caller addresses the conversation.
        at: Address,
        /// Who.
        user: String,
        /// Up to where.
        msg_index: u32,
    },
    /// Something that is never stored, like typing.
    Signal {
        /// How the caller addresses the conversation.
        at: Address,
        /// Who.
        user: String,
        /// What.
        kind: String,
        /// With what.
        data: Value,
    },
    /// A group changed: somebody came or went, or it was administered.
    Group {
        /// The group.
        at: Address,
        /// `create`, `add`, `kick`, `leave`, `duty`, `rename`, `mute`, `dismiss`; later servers may have more.
        action: String,
        /// Whom it is about; of `rename` and `dismiss`, who did it. Empty when it is about many at once.
        user: String,
        /// Who did it.
        by: String,
        /// With `duty`: what the user has now. A later server may have more duties, which are none here.
        duty: Option<Duty>,
        /// With `rename`: the new name.
        name: Option<String>,
        /// With `mute`: until when, Unix seconds; 0: they may send again.
        until_s: Option<u64>,
        /// With one `add` or `kick` of many users: how many. Whoever is one of them hears of themselves first.
        count: Option<u32>,
    },
    /// A restore took history back: what the caller keeps of it is not what the server has.
    Reset {
        /// Of this conversation; `None`: of all.
        at: Option<Address>,
    },
    /// A conversation cannot be read up to where it is; others go on, and its next event tries again.
    Problem {
        /// How the caller addresses the conversation.
        at: Address,
        /// What the server says.
        why: String,
    },
}
