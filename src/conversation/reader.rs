//! What a user may ask across conversations: the list, sync, live delivery, presence.

use std::sync::Arc;

use super::Conversations;
use crate::live::Session;
use crate::message::{Address, Chat, ChatsPage, Rejection, Sync, Synced, UserId};

/// A session's place in its user's inbox; it gets no more events once this is dropped.
#[derive(Debug)]
pub struct Attached {}

impl Conversations {
    /// A page of the caller's conversations, newest first, behind `cursor` (empty: from the newest).
    pub async fn list(&self, _caller: &UserId, _cursor: &str, _count: u32) -> Result<ChatsPage, Rejection> {
        Err(Rejection::Overloaded)
    }

    /// What moved past the caller's positions; with `sync.wait`, waits while that is nothing.
    pub async fn sync(&self, _caller: &UserId, _sync: Sync) -> Result<Synced, Rejection> {
        Err(Rejection::Overloaded)
    }

    /// The read cursors of everybody in a conversation.
    pub async fn acks(&self, _caller: &UserId, _at: &Address) -> Result<Vec<(UserId, u32)>, Rejection> {
        Err(Rejection::Overloaded)
    }

    /// Tells everybody who is connected and in the conversation; nothing is stored. `data` is JSON.
    pub async fn signal(
        &self,
        _caller: &UserId,
        _at: &Address,
        _kind: &str,
        _data: &str,
    ) -> Result<(), Rejection> {
        Err(Rejection::Overloaded)
    }

    /// Who of `users` is connected, as far as the caller shares a conversation with them.
    pub async fn online(&self, _caller: &UserId, _users: &[UserId]) -> Result<Vec<bool>, Rejection> {
        Err(Rejection::Overloaded)
    }

    /// Gives `session` every event of the user's conversations from here on. Also answers where each
    /// conversation stands, newest first, at most `count`: the session's first event of a
    /// conversation is the next one behind that, or behind nothing if it is not among them because
    /// it has none yet.
    pub async fn attach(
        &self,
        _user: &UserId,
        _session: Arc<Session>,
        _count: usize,
    ) -> Result<(Attached, Vec<Chat>), Rejection> {
        Err(Rejection::Overloaded)
    }
}
