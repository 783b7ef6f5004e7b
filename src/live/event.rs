//! What happened in a conversation, as everybody in it gets to know it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::message::{Address, ConversationKey, Duty, Last, OwnedMessage, UserId};

/// One thing that happened in a conversation. It is durable under the server's sync mode (a signal
/// is never stored). Shared by all who get it.
#[derive(Debug)]
pub struct Event {
    /// The conversation.
    pub key: Arc<ConversationKey>,
    /// Its newest message with this event.
    pub messages: u32,
    /// Its newest recall with this event.
    pub recalls: u32,
    /// What happened.
    pub content: Content,
    /// Its bytes on the wire for each side of a direct conversation; a group has only the first.
    encoded: [OnceLock<Bytes>; 2],
}

/// What happened.
#[derive(Debug)]
pub enum Content {
    /// A message was sent.
    Message(Arc<OwnedMessage>),
    /// A message that was taken back while it waited for one connection: without its texts.
    Recalled(Last),
    /// A message was taken back.
    Recall {
        /// Which message.
        msg_index: u32,
        /// The recall's own index.
        recall_index: u32,
        /// Who took it back.
        by: UserId,
    },
    /// The user has just come back; what was meanwhile is to be pulled, as far as they may read it. For their own
    /// sessions, so that what comes next follows something.
    Behind,
    /// Somebody has read up to a message.
    Ack {
        /// Who.
        user: UserId,
        /// Up to where.
        msg_index: u32,
        /// What is unread for them now.
        unread: u32,
    },
    /// The group changed.
    Group {
        /// How.
        action: GroupAction,
        /// Whom it is about.
        user: UserId,
        /// Who did it.
        by: UserId,
        /// When the newest message of the group was sent; when there is none, the time of the change.
        newest_message_ns: u64,
    },
    /// Many came into the group, or were put out, with one change: for everybody who looks but those who are out. Those
    /// of them who look each have an event of their own.
    Crowd {
        /// How.
        action: GroupAction,
        /// How many.
        count: usize,
        /// Who did it.
        by: UserId,
    },
    /// A user blocks the other one of a pair, or not any more. For their own inbox: no stream tells it.
    Block {
        /// Who blocks.
        user: UserId,
        /// Whether they do.
        blocks: bool,
    },
    /// Somebody is typing, or the like.
    Signal {
        /// Who.
        user: UserId,
        /// The app's own word for it.
        kind: Box<str>,
        /// JSON of the app's own.
        data: Box<str>,
    },
}

/// How a group changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupAction {
    /// The group began; the user owns it.
    Create,
    /// The user came in.
    Add,
    /// The user was put out.
    Kick,
    /// The user went.
    Leave,
    /// The user has another duty.
    Duty(Duty),
    /// The user gave the group this name.
    Rename(Box<str>),
    /// The user may not send.
    Mute {
        /// Until when, Unix seconds; 0: they may again.
        until_s: u64,
    },
    /// The user ended the group: everybody is out.
    Dismiss,
}

impl Event {
    /// An event that nobody has encoded yet.
    pub fn new(key: Arc<ConversationKey>, messages: u32, recalls: u32, content: Content) -> Self {
        Self { key, messages, recalls, content, encoded: [const { OnceLock::new() }; 2] }
    }

    /// The event's bytes for `viewer`, made with `encode` by the first who asks. `encode` gets how
    /// the viewer addresses the conversation.
    pub fn encoded(&self, viewer: &UserId, encode: impl FnOnce(&Self, &Address) -> Bytes) -> Bytes {
        self.encoded[self.side_of(viewer)].get_or_init(|| encode(self, &self.key.address_for(viewer))).clone()
    }

    /// The event of this message once it is taken back; `None` when it is another one, or none.
    pub(super) fn recalled(&self, msg_index: u32, recall_index: u32) -> Option<Self> {
        let Content::Message(message) = &self.content else { return None };
        if message.msg_index != msg_index {
            return None;
        }
        let mut last = Last { message: message.clone(), recall_index: 0 };
        last.recall(recall_index);
        Some(Self::new(self.key.clone(), self.messages, self.recalls, Content::Recalled(last)))
    }

    /// Whether streams tell it.
    pub fn is_told(&self) -> bool {
        !matches!(self.content, Content::Block { .. })
    }

    fn side_of(&self, viewer: &UserId) -> usize {
        match &*self.key {
            ConversationKey::Direct(first, _) => usize::from(first != viewer),
            ConversationKey::Group(_) => 0,
        }
    }

    /// Roughly what it takes in memory until its last reader has it.
    pub fn bytes(&self) -> usize {
        /// The event itself, and its encoded form beside the texts.
        const OVERHEAD_BYTES: usize = 512;
        let texts = match &self.content {
            Content::Message(message) => message.msg.len() + message.extra.len(),
            Content::Signal { kind, data, .. } => kind.len() + data.len(),
            Content::Group { action: GroupAction::Rename(name), .. } => name.len(),
            Content::Recalled(_)
            | Content::Behind
            | Content::Recall { .. }
            | Content::Ack { .. }
            | Content::Group { .. }
            | Content::Crowd { .. }
            | Content::Block { .. } => 0,
        };
        OVERHEAD_BYTES + 2 * texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("a valid id")
    }

    fn ack_in(key: ConversationKey) -> Event {
        let content = Content::Ack { user: user("alice"), msg_index: 1, unread: 0 };
        Event::new(Arc::new(key), 1, 0, content)
    }

    #[test]
    fn each_side_of_a_pair_has_its_own_bytes_and_they_are_made_once() {
        let event = ack_in(ConversationKey::direct(user("alice"), user("bob")));
        let bytes_for = |viewer: &str, made: &'static str| {
            event.encoded(&user(viewer), |_, at| Bytes::from(format!("{at:?} {made}")))
        };
        assert_eq!(bytes_for("alice", "once"), "User(\"bob\") once");
        assert_eq!(bytes_for("bob", "once"), "User(\"alice\") once");
        assert_eq!(bytes_for("alice", "twice"), "User(\"bob\") once");
    }

    #[test]
    fn who_talks_to_themselves_addresses_themselves() {
        let event = ack_in(ConversationKey::direct(user("alice"), user("alice")));
        let bytes = event.encoded(&user("alice"), |_, at| Bytes::from(format!("{at:?}")));
        assert_eq!(bytes, "User(\"alice\")");
    }
}
