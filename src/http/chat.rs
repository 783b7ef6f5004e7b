//! `/im.chat`: send, recall, ack, pull. Requests to calls; what they mean is the conversations'.

use std::time::Duration;

use futures_util::TryFutureExt;

use super::check;
use super::encoding::ReplyEncoding;
use super::proto;
use super::reply::{Reply, rows_json, rows_protobuf};
use super::request::request;
use crate::config::limits::{CLIENT_MSG_ID_BYTES_MAX, PULL_COUNT_MAX, PULL_WAIT_MS_MAX};
use crate::conversation::Conversations;
use crate::conversation::encoded::EncodedPage;
use crate::message::{Address, Direction, Draft, Pull, Rejection, UserId};

request! {
    pub(super) SendRequest = proto::SendReq {
        target,
        target_type | "targetType",
        msg,
        extra,
        client_msg_id | "clientMsgId",
    }
}

impl SendRequest<'_> {
    fn check(self) -> Result<(Address, Draft), Rejection> {
        let at = check::address(self.target, self.target_type)?;
        let msg = check::text(self.msg, "msg")?.into_owned();
        let extra = self.extra.text("extra")?.into_owned();
        let client_msg_id = check::short(self.client_msg_id, "client_msg_id", CLIENT_MSG_ID_BYTES_MAX)?;
        Ok((at, Draft { msg, extra, client_msg_id: client_msg_id.into_owned() }))
    }
}

/// Takes its place in the conversation at once.
pub(super) fn send<'a>(
    conversations: &'a Conversations,
    caller: &'a UserId,
    request: SendRequest<'_>,
) -> Result<impl Future<Output = Result<Reply, Rejection>> + Send + use<'a>, Rejection> {
    let (at, draft) = request.check()?;
    Ok(conversations.send(caller, &at, draft).map_ok(Reply::Sent))
}

request! {
    /// Which message of which conversation: what recall and ack ask for.
    /// The message of ack has the same fields under the same numbers.
    pub(super) MessageRequest = proto::RecallReq { target, target_type | "targetType", msg_index | "msgIndex" }
}

impl MessageRequest<'_> {
    /// An index of 0 is allowed here: it is older than any message, which ack takes and recall does not.
    fn check(self) -> Result<(Address, u32), Rejection> {
        let at = check::address(self.target, self.target_type)?;
        Ok((at, self.msg_index.number("msg_index")?))
    }
}

pub(super) async fn recall(
    conversations: &Conversations,
    caller: &UserId,
    request: MessageRequest<'_>,
) -> Result<Reply, Rejection> {
    let (at, msg_index) = request.check()?;
    let recall_index = conversations.recall(caller, &at, msg_index).await?;
    Ok(Reply::Recalled { recall_index })
}

pub(super) async fn ack(
    conversations: &Conversations,
    caller: &UserId,
    request: MessageRequest<'_>,
) -> Result<Reply, Rejection> {
    let (at, msg_index) = request.check()?;
    conversations.ack(caller, &at, msg_index).await?;
    Ok(Reply::Done)
}

request! {
    pub(super) PullRequest = proto::PullReq {
        target,
        target_type | "targetType",
        direction,
        start_msg_index | "startMsgIndex",
        start_recall_index | "startRecallIndex",
        count,
        wait_ms | "waitMs",
    }
}

impl PullRequest<'_> {
    fn check(self) -> Result<(Address, Pull), Rejection> {
        let at = check::address(self.target, self.target_type)?;
        let direction = match &*self.direction.text("direction")? {
            "before" => Direction::Before,
            "after" => Direction::After,
            _ => return Err(check::invalid("direction", "must be \"before\" or \"after\"")),
        };
        let start_msg_index = self.start_msg_index.number("start_msg_index")?;
        let start_recall_index = self.start_recall_index.number("start_recall_index")?;
        let count = check::number(&self.count, "count", 1, PULL_COUNT_MAX)?;
        let wait_ms = check::number(&self.wait_ms, "wait_ms", 0, PULL_WAIT_MS_MAX)?;
        let wait = match direction {
            Direction::After => Duration::from_millis(wait_ms.into()),
            Direction::Before => Duration::ZERO,
        };
        Ok((at, Pull { direction, start_msg_index, start_recall_index, count, wait }))
    }
}

pub(super) async fn pull(
    conversations: &Conversations,
    caller: &UserId,
    request: PullRequest<'_>,
    encoding: ReplyEncoding,
) -> Result<Reply, Rejection> {
    let (at, pull) = request.check()?;
    let page = match encoding {
        ReplyEncoding::Json => conversations.pull_encoded(caller, &at, pull, rows_json).await?,
        ReplyEncoding::Protobuf => {
            let page = conversations.pull(caller, &at, pull).await?;
            EncodedPage::of(rows_protobuf(&page, &at).into(), &page)
        }
    };
    Ok(Reply::Page(page))
}

#[cfg(test)]
mod counted;
#[cfg(test)]
mod tests;
