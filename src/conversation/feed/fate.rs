//! Fates: what has become of messages since they were sent, as far as it decides who may read them.
//!
//! Promises that whatever was recalled, dismissed or given up by retention before the question is known to the answer,
//! and that nothing which a crash could still take back counts. Most conversations need not be asked: their durable
//! head, or the indexes of the packs, say that nothing was ever recalled.

use crate::conversation::actor::Request;
use crate::conversation::archive::people::Whereabouts;
use crate::conversation::completion::Outcome;
use crate::conversation::{CALL_BYTES, Conversations, as_user, unexpected};
use crate::message::{ConversationKey, Rejection, UserId};

/// What has become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its text can be read.
    Readable,
    /// This recall took it back.
    Recalled(u32),
    /// Its group was dismissed.
    Dismissed,
    /// Retention does not keep it.
    Expired,
    /// Its conversation is damaged, so that nobody knows.
    Unknown,
}

impl Conversations {
    /// What has become of these messages, each of which was sent there. `reader` is who is said to ask.
    ///
    /// # Errors
    /// When the conversation cannot say so now, and will later.
    pub(super) async fn fates(
        &self,
        key: &ConversationKey,
        reader: &UserId,
        messages: Box<[u32]>,
    ) -> Result<Vec<Fate>, Rejection> {
        let newest = messages.len();
        if self.is_as_sent(key) {
            return Ok(vec![Fate::Readable; newest]);
        }
        // One that comes back between the refusal and the look at it is asked again.
        for _attempt in 0..2 {
            match self.ask_fates(key, reader, messages.clone()).await {
                Err(Rejection::Quarantined) if self.shared.directory.is_coming_back(key) => {
                    return Err(Rejection::Quarantined);
                }
                Err(Rejection::Quarantined) => {}
                answer => return answer,
            }
        }
        Ok(vec![Fate::Unknown; newest])
    }

    async fn ask_fates(
        &self,
        key: &ConversationKey,
        reader: &UserId,
        messages: Box<[u32]>,
    ) -> Result<Vec<Fate>, Rejection> {
        let absent = || Rejection::Broken(format!("{key} has records and is absent"));
        let entered = self.enter_existing(key, CALL_BYTES)?.ok_or_else(absent)?;
        match self.call(entered, &as_user(reader), Request::Fates(messages)).await? {
            Outcome::Fates(fates) => Ok(fates),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether every message of a pair can be read as it was sent, told without asking its actor. A group has to be
    /// asked, whether it was dismissed, and everybody has to where messages get too old.
    fn is_as_sent(&self, key: &ConversationKey) -> bool {
        if !matches!(key, ConversationKey::Direct(..)) || !self.shared.context.retention.is_off() {
            return false;
        }
        let directory = &self.shared.directory;
        if let Some(head) = directory.head_of(key) {
            return head.is_loaded() && head.durable().recalls == 0 && head.kept_from() == 1;
        }
        let archive = &self.shared.context.archive;
        let is_at_rest = matches!(archive.place_of(key), Whereabouts::InPacks { .. });
        // Looked at twice: one that came into memory between took what the tail had of it along.
        is_at_rest && directory.head_of(key).is_none() && archive.is_as_sent(key)
    }
}
