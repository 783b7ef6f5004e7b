//! `/im.group`: create, info, members, add, kick, leave. Requests to calls; who may is the
//! conversations'.

use serde::Deserialize;

use super::check;
use super::proto;
use super::reply::Reply;
use super::request::Request;
use super::value::Value;
use crate::config::limits::{CURSOR_BYTES_MAX, MEMBERS_PAGE_DEFAULT, MEMBERS_PAGE_MAX};
use crate::conversation::Conversations;
use crate::message::{Caller, GroupId, Rejection, UserId};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CreateRequest<'a> {
    #[serde(borrow, alias = "groupId")]
    group_id: Value<'a>,
    #[serde(borrow)]
    name: Value<'a>,
    #[serde(borrow)]
    members: Value<'a>,
}

impl<'a> Request<'a> for CreateRequest<'a> {
    type Message = proto::GroupCreateReq;
}

impl From<proto::GroupCreateReq> for CreateRequest<'_> {
    fn from(message: proto::GroupCreateReq) -> Self {
        Self { group_id: message.group_id.into(), name: message.name.into(), members: message.members.into() }
    }
}

pub(super) async fn create(
    conversations: &Conversations,
    caller: &Caller,
    request: CreateRequest<'_>,
) -> Result<Reply, Rejection> {
    let group = check::optional_group_id(request.group_id)?;
    let name = check::group_name(request.name)?;
    let members = check::user_ids(request.members, "members")?;
    conversations.create_group(caller, group, name, members).await.map(Reply::GroupCreated)
}

/// A group and nothing else: what info and leave ask for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct GroupRequest<'a> {
    #[serde(borrow, alias = "groupId")]
    group_id: Value<'a>,
}

impl<'a> Request<'a> for GroupRequest<'a> {
    /// The message of leave has the same field under the same number.
    type Message = proto::GroupInfoReq;
}

impl From<proto::GroupInfoReq> for GroupRequest<'_> {
    fn from(message: proto::GroupInfoReq) -> Self {
        Self { group_id: message.group_id.into() }
    }
}

pub(super) async fn info(
    conversations: &Conversations,
    caller: &Caller,
    request: GroupRequest<'_>,
) -> Result<Reply, Rejection> {
    let group = check::group_id(request.group_id)?;
    conversations.group_info(caller, &group).await.map(Reply::Group)
}

pub(super) async fn leave(
    conversations: &Conversations,
    caller: &Caller,
    request: GroupRequest<'_>,
) -> Result<Reply, Rejection> {
    let group = check::group_id(request.group_id)?;
    conversations.leave_group(caller, &group).await?;
    Ok(Reply::Done)
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct MembersRequest<'a> {
    #[serde(borrow, alias = "groupId")]
    group_id: Value<'a>,
    #[serde(borrow)]
    cursor: Value<'a>,
    #[serde(borrow)]
    count: Value<'a>,
}

impl<'a> Request<'a> for MembersRequest<'a> {
    type Message = proto::GroupMembersReq;
}

impl From<proto::GroupMembersReq> for MembersRequest<'_> {
    fn from(message: proto::GroupMembersReq) -> Self {
        Self { group_id: message.group_id.into(), cursor: message.cursor.into(), count: message.count.into() }
    }
}

pub(super) async fn members(
    conversations: &Conversations,
    caller: &Caller,
    request: MembersRequest<'_>,
) -> Result<Reply, Rejection> {
    let group = check::group_id(request.group_id)?;
    let cursor = check::short(request.cursor, "cursor", CURSOR_BYTES_MAX)?.into_owned();
    let count = match check::number(&request.count, "count", 0, MEMBERS_PAGE_MAX)? {
        0 => MEMBERS_PAGE_DEFAULT,
        count => count,
    };
    conversations.members(caller, &group, cursor, count).await.map(Reply::Members)
}

/// Some users of a group: what add and kick ask for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct UsersRequest<'a> {
    #[serde(borrow, alias = "groupId")]
    group_id: Value<'a>,
    #[serde(borrow, alias = "userIds")]
    user_ids: Value<'a>,
}

impl<'a> Request<'a> for UsersRequest<'a> {
    /// The message of kick has the same fields under the same numbers.
    type Message = proto::GroupAddReq;
}

impl From<proto::GroupAddReq> for UsersRequest<'_> {
    fn from(message: proto::GroupAddReq) -> Self {
        Self { group_id: message.group_id.into(), user_ids: message.user_ids.into() }
    }
}

impl UsersRequest<'_> {
    fn check(self) -> Result<(GroupId, Vec<UserId>), Rejection> {
        let group = check::group_id(self.group_id)?;
        let users = check::user_ids(self.user_ids, "user_ids")?;
        if users.is_empty() {
            return Err(check::invalid("user_ids", "must not be empty"));
        }
        Ok((group, users))
    }
}

pub(super) async fn add(
    conversations: &Conversations,
    caller: &Caller,
    request: UsersRequest<'_>,
) -> Result<Reply, Rejection> {
    let (group, users) = request.check()?;
    conversations.add_members(caller, &group, users).await?;
    Ok(Reply::Done)
}

pub(super) async fn kick(
    conversations: &Conversations,
    caller: &Caller,
    request: UsersRequest<'_>,
) -> Result<Reply, Rejection> {
    let (group, users) = request.check()?;
    conversations.kick_members(caller, &group, users).await?;
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::GROUP_MEMBERS_MAX;
    use crate::http::encoding::BodyEncoding;
    use crate::http::request::decode;

    fn users(encoding: BodyEncoding, body: &str) -> Result<Vec<String>, String> {
        let request: UsersRequest<'_> = decode(encoding, body.as_bytes()).expect("a request");
        match request.check() {
            Ok((_, users)) => Ok(users.iter().map(|user| user.as_str().to_owned()).collect()),
            Err(Rejection::Invalid(why)) => Err(why),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_are_json_arrays_or_repeated_keys() {
        let both = Ok(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(users(BodyEncoding::Json, r#"{"group_id":"g","user_ids":["a","b"]}"#), both);
        assert_eq!(users(BodyEncoding::Json, r#"{"groupId":"g","userIds":["a","b"]}"#), both);
        assert_eq!(users(BodyEncoding::Form, "group_id=g&user_ids=a&user_ids=b"), both);
        assert_eq!(users(BodyEncoding::Form, "group_id=g&user_ids=a"), Ok(vec!["a".to_owned()]));
    }

    #[test]
    fn a_bad_element_is_named_with_its_place() {
        let refusal = |body| users(BodyEncoding::Json, body).expect_err("a refusal");
        assert_eq!(refusal(r#"{"group_id":"g","user_ids":["a",""]}"#), "user_ids[1] must not be empty");
        assert_eq!(refusal(r#"{"group_id":"g","user_ids":["a",7]}"#), "user_ids must be a list of texts");
        assert_eq!(refusal(r#"{"group_id":"g"}"#), "user_ids must not be empty");
        assert_eq!(refusal(r#"{"user_ids":["a"]}"#), "group_id must not be empty");
    }

    #[test]
    fn a_list_has_at_most_as_many_ids_as_a_group() {
        let body = |count| format!(r#"{{"group_id":"g","user_ids":["a"{}]}}"#, ",\"a\"".repeat(count - 1));
        assert!(users(BodyEncoding::Json, &body(GROUP_MEMBERS_MAX)).is_ok());
        for count in [GROUP_MEMBERS_MAX + 1, GROUP_MEMBERS_MAX * 3] {
            let refusal = users(BodyEncoding::Json, &body(count)).expect_err("a refusal");
            assert_eq!(refusal, "user_ids must have at most 10000 ids");
        }
    }
}
