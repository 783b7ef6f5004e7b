//! `/im.relation`: block, unblock, blocks. Requests to calls; what a block forbids is the conversations'.

use super::check;
use super::proto;
use super::reply::Reply;
use super::request::request;
use super::sync::PageRequest;
use crate::config::limits::{MEMBERS_PAGE_DEFAULT, MEMBERS_PAGE_MAX};
use crate::conversation::Conversations;
use crate::message::{Rejection, UserId};

request! {
    /// A user and nothing else: what block and unblock ask for.
    /// The message of unblock has the same field under the same number.
    pub(super) UserRequest = proto::RelationBlockReq { user_id | "userId" }
}

impl UserRequest<'_> {
    fn check(self, caller: &UserId) -> Result<UserId, Rejection> {
        let user = check::user_id(self.user_id, "user_id")?;
        if user == *caller {
            return Err(check::invalid("user_id", "must be somebody else: nobody blocks themselves"));
        }
        Ok(user)
    }
}

pub(super) async fn block(
    conversations: &Conversations,
    caller: &UserId,
    request: UserRequest<'_>,
) -> Result<Reply, Rejection> {
    let user = request.check(caller)?;
    conversations.block(caller, &user).await?;
    Ok(Reply::Done)
}

pub(super) async fn unblock(
    conversations: &Conversations,
    caller: &UserId,
    request: UserRequest<'_>,
) -> Result<Reply, Rejection> {
    let user = request.check(caller)?;
    conversations.unblock(caller, &user).await?;
    Ok(Reply::Done)
}

pub(super) async fn blocks(
    conversations: &Conversations,
    caller: &UserId,
    request: PageRequest<'_>,
) -> Result<Reply, Rejection> {
    let (cursor, count) = request.check(MEMBERS_PAGE_DEFAULT, MEMBERS_PAGE_MAX)?;
    conversations.blocks(caller, &cursor, count).await.map(Reply::Blocks)
}
