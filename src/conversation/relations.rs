//! What users may do about one another outside of what they say: blocks. What a block forbids is in [`super::blocks`].

use super::actor::Request;
use super::groups::first_behind;
use super::reader::foreign_cursor;
use super::record::RelationChange;
use super::{CALL_BYTES, Conversations, as_user};
use crate::config::limits::BLOCKS_MAX;
use crate::message::{BlocksPage, ConversationKey, Rejection, UserId};

impl Conversations {
    /// From here on what `other` sends to `caller` is refused. Needs no conversation between them, and makes none.
    pub async fn block(&self, caller: &UserId, other: &UserId) -> Result<(), Rejection> {
        let key = ConversationKey::direct(caller.clone(), other.clone());
        let inbox = self.inbox(caller).await?;
        let _turn = inbox.turn_to_block().await;
        // What whoever had the turn before has blocked counts.
        self.shared.context.deliveries.caught_up().await;
        let is_full = inbox.with_rows(|rows| {
            let is_new = !rows.get(&key).is_some_and(|standing| standing.blocks);
            is_new && rows.blocked().count() >= BLOCKS_MAX
        });
        if is_full {
            let why = format!("user_id: you block {BLOCKS_MAX} users, which is as many as anybody can");
            return Err(Rejection::Invalid(why));
        }
        let entered = self.enter_or_begin(&key, CALL_BYTES)?;
        self.change(entered, &as_user(caller), Request::Relate(RelationChange::Block)).await
    }

    /// From here on `other` may send to `caller` again.
    pub async fn unblock(&self, caller: &UserId, other: &UserId) -> Result<(), Rejection> {
        let key = ConversationKey::direct(caller.clone(), other.clone());
        match self.enter_existing(&key, CALL_BYTES)? {
            Some(entered) => {
                let request = Request::Relate(RelationChange::Unblock);
                self.change(entered, &as_user(caller), request).await
            }
            None => Ok(()),
        }
    }

    /// Whom `user` blocks: the ids behind `cursor` (empty: from the start), at most `count`.
    pub async fn blocks(&self, user: &UserId, cursor: &str, count: u32) -> Result<BlocksPage, Rejection> {
        let behind = match cursor {
            "" => None,
            id => Some(UserId::parse(id).map_err(|_| foreign_cursor())?),
        };
        let inbox = self.inbox(user).await?;
        let (users, more) = inbox.with_rows(|rows| {
            let others = rows.blocked().filter_map(|key| key.other_than(user));
            first_behind(others, behind.as_ref(), count as usize)
        });
        let cursor = users.last().filter(|_| more).map_or_else(String::new, |id| id.as_str().to_owned());
        Ok(BlocksPage { users, cursor })
    }
}
