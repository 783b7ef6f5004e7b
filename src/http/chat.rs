//! `/im.chat`: send, recall, ack, pull. Requests to calls; what they mean is the conversations'.

use std::time::Duration;

use serde::Deserialize;

use super::check;
use super::proto;
use super::reply::Reply;
use super::request::Request;
use super::value::Value;
use crate::config::limits::{CLIENT_MSG_ID_BYTES_MAX, PULL_COUNT_MAX, PULL_WAIT_MS_MAX};
use crate::conversation::Conversations;
use crate::message::{Address, Direction, Draft, Pull, Rejection, UserId};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SendRequest<'a> {
    #[serde(borrow)]
    target: Value<'a>,
    #[serde(borrow, alias = "targetType")]
    target_type: Value<'a>,
    #[serde(borrow)]
    msg: Value<'a>,
    #[serde(borrow)]
    extra: Value<'a>,
    #[serde(borrow, alias = "clientMsgId")]
    client_msg_id: Value<'a>,
}

impl<'a> Request<'a> for SendRequest<'a> {
    type Message = proto::SendReq;
}

impl From<proto::SendReq> for SendRequest<'_> {
    fn from(message: proto::SendReq) -> Self {
        Self {
            target: message.target.into(),
            target_type: message.target_type.into(),
            msg: message.msg.into(),
            extra: message.extra.into(),
            client_msg_id: message.client_msg_id.into(),
        }
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

pub(super) async fn send(
    conversations: &Conversations,
    caller: &UserId,
    request: SendRequest<'_>,
) -> Result<Reply, Rejection> {
    let (at, draft) = request.check()?;
    conversations.send(caller, &at, draft).await.map(Reply::Sent)
}

/// Which message of which conversation: what recall and ack ask for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct MessageRequest<'a> {
    #[serde(borrow)]
    target: Value<'a>,
    #[serde(borrow, alias = "targetType")]
    target_type: Value<'a>,
    #[serde(borrow, alias = "msgIndex")]
    msg_index: Value<'a>,
}

impl<'a> Request<'a> for MessageRequest<'a> {
    /// The message of ack has the same fields under the same numbers.
    type Message = proto::RecallReq;
}

impl From<proto::RecallReq> for MessageRequest<'_> {
    fn from(message: proto::RecallReq) -> Self {
        Self {
            target: message.target.into(),
            target_type: message.target_type.into(),
            msg_index: message.msg_index.into(),
        }
    }
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

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct PullRequest<'a> {
    #[serde(borrow)]
    target: Value<'a>,
    #[serde(borrow, alias = "targetType")]
    target_type: Value<'a>,
    #[serde(borrow)]
    direction: Value<'a>,
    #[serde(borrow, alias = "startMsgIndex")]
    start_msg_index: Value<'a>,
    #[serde(borrow, alias = "startRecallIndex")]
    start_recall_index: Value<'a>,
    #[serde(borrow)]
    count: Value<'a>,
    #[serde(borrow, alias = "waitMs")]
    wait_ms: Value<'a>,
}

impl<'a> Request<'a> for PullRequest<'a> {
    type Message = proto::PullReq;
}

impl From<proto::PullReq> for PullRequest<'_> {
    fn from(message: proto::PullReq) -> Self {
        Self {
            target: message.target.into(),
            target_type: message.target_type.into(),
            direction: message.direction.into(),
            start_msg_index: message.start_msg_index.into(),
            start_recall_index: message.start_recall_index.into(),
            count: message.count.into(),
            wait_ms: message.wait_ms.into(),
        }
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
) -> Result<Reply, Rejection> {
    let (at, pull) = request.check()?;
    let page = conversations.pull(caller, &at, pull).await?;
    Ok(Reply::Page { page, at })
}

#[cfg(test)]
mod counted;
#[cfg(test)]
mod tests;
