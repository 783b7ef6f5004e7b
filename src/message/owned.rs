//! A message that stands on its own, apart from the conversation it is of.

use std::sync::Arc;

use super::{MessageView, UserId};

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedMessage {
    /// Dense per conversation, from 1.
    pub msg_index: u32,
    /// Who sent it.
    pub sender: UserId,
    /// Unix time in nanoseconds.
    pub timestamp_ns: u64,
    /// The text; empty once recalled.
    pub msg: Box<str>,
    /// What the app attached; empty once recalled.
    pub extra: Box<str>,
}

/// The newest message of a conversation, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// The message; without its texts once it is recalled.
    pub message: Arc<OwnedMessage>,
    /// The recall that took it back; 0 for none.
    pub recall_index: u32,
}

impl OwnedMessage {
    /// The message as its readers see it, with the recall that took it back.
    pub fn view(&self, recall_index: u32) -> MessageView<'_> {
        MessageView {
            msg_index: self.msg_index,
            recall_index,
            msg: &self.msg,
            extra: &self.extra,
            timestamp_ns: self.timestamp_ns,
            sender: self.sender.as_str(),
        }
    }
}

impl Last {
    /// As its readers see it.
    pub fn view(&self) -> MessageView<'_> {
        self.message.view(self.recall_index)
    }

    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        self.message.msg.len() + self.message.extra.len()
    }

    /// It was taken back; nothing of the text is kept.
    pub fn recall(&mut self, recall_index: u32) {
        let OwnedMessage { msg_index, timestamp_ns, .. } = *self.message;
        let sender = self.message.sender.clone();
        let (msg, extra) = (Box::default(), Box::default());
        self.message = Arc::new(OwnedMessage { msg_index, sender, timestamp_ns, msg, extra });
        self.recall_index = recall_index;
    }
}
