//! `members`: who is in a group, as `/im.group/members` says it, for whoever owns the membership of all groups.

use crate::conversation::Conversations;
use crate::http::encoding::ReplyEncoding;
use crate::http::failure::Failure;
use crate::http::response::Answer;
use crate::http::{group, request};
use crate::message::Caller;

/// A page of members, by the fields and limits of the public call.
pub(super) async fn page(
    conversations: &Conversations,
    caller: &Caller,
    body: &[u8],
) -> Result<Answer, Failure> {
    let request = request::from_json(body).map_err(Failure::Rejected)?;
    let page = group::members(conversations, caller, request).await.map_err(Failure::Rejected)?;
    Ok(Answer::reply(page, ReplyEncoding::Json))
}
