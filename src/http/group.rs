//! `/im.group`: create, info, members, add, kick, leave, set_duty, rename, mute, dismiss, list. Requests to calls; who
//! may is the conversations'.

use super::check;
use super::proto;
use super::reply::Reply;
use super::request::request;
use super::sync::PageRequest;
use crate::config::limits::{
    CURSOR_BYTES_MAX, LIST_COUNT_DEFAULT, LIST_COUNT_MAX, MEMBERS_PAGE_DEFAULT, MEMBERS_PAGE_MAX,
};
use crate::conversation::Conversations;
use crate::message::{Caller, Duty, GroupId, Rejection, UserId};

request! {
    pub(super) CreateRequest = proto::GroupCreateReq { group_id | "groupId", name, members }
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

request! {
    /// A group and nothing else: what info, leave and dismiss ask for.
    /// Their messages have the same field under the same number.
    pub(super) GroupRequest = proto::GroupInfoReq { group_id | "groupId" }
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

request! {
    pub(super) MembersRequest = proto::GroupMembersReq { group_id | "groupId", cursor, count }
}

pub(super) async fn members(
    conversations: &Conversations,
    caller: &Caller,
    request: MembersRequest<'_>,
) -> Result<Reply, Rejection> {
    let group = check::group_id(request.group_id)?;
    let cursor = check::short(request.cursor, "cursor", CURSOR_BYTES_MAX)?.into_owned();
    let count = check::count(&request.count, MEMBERS_PAGE_DEFAULT, MEMBERS_PAGE_MAX)?;
    conversations.members(caller, &group, cursor, count).await.map(Reply::Members)
}

request! {
    /// Some users of a group: what add and kick ask for.
    /// The message of kick has the same fields under the same numbers.
    pub(super) UsersRequest = proto::GroupAddReq { group_id | "groupId", user_ids | "userIds" }
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

request! {
    pub(super) DutyRequest =
        proto::GroupSetDutyReq { group_id | "groupId", user_id | "userId", duty }
}

impl DutyRequest<'_> {
    fn check(self) -> Result<(GroupId, UserId, Duty), Rejection> {
        let group = check::group_id(self.group_id)?;
        let user = check::user_id(self.user_id, "user_id")?;
        let number = u8::try_from(self.duty.number("duty")?).ok();
        let duty = number.and_then(Duty::from_number);
        let duty =
            duty.ok_or_else(|| check::invalid("duty", "must be 0 (member), 2 (owner) or 3 (admin)"))?;
        Ok((group, user, duty))
    }
}

pub(super) async fn set_duty(
    conversations: &Conversations,
    caller: &Caller,
    request: DutyRequest<'_>,
) -> Result<Reply, Rejection> {
    let (group, user, duty) = request.check()?;
    conversations.set_duty(caller, &group, user, duty).await?;
    Ok(Reply::Done)
}

request! {
    pub(super) RenameRequest = proto::GroupRenameReq { group_id | "groupId", name }
}

pub(super) async fn rename(
    conversations: &Conversations,
    caller: &Caller,
    request: RenameRequest<'_>,
) -> Result<Reply, Rejection> {
    let group = check::group_id(request.group_id)?;
    let name = check::group_name(request.name)?;
    conversations.rename_group(caller, &group, name).await?;
    Ok(Reply::Done)
}

request! {
    pub(super) MuteRequest = proto::GroupMuteReq { group_id | "groupId", user_id | "userId", until }
}

pub(super) async fn mute(
    conversations: &Conversations,
    caller: &Caller,
    request: MuteRequest<'_>,
) -> Result<Reply, Rejection> {
    let group = check::group_id(request.group_id)?;
    let user = check::user_id(request.user_id, "user_id")?;
    let until_s = request.until.number("until")?;
    conversations.mute(caller, &group, user, until_s.into()).await?;
    Ok(Reply::Done)
}

pub(super) async fn dismiss(
    conversations: &Conversations,
    caller: &Caller,
    request: GroupRequest<'_>,
) -> Result<Reply, Rejection> {
    let group = check::group_id(request.group_id)?;
    conversations.dismiss_group(caller, &group).await?;
    Ok(Reply::Done)
}

pub(super) async fn list(
    conversations: &Conversations,
    caller: &UserId,
    request: PageRequest<'_>,
) -> Result<Reply, Rejection> {
    let (cursor, count) = request.check(LIST_COUNT_DEFAULT, LIST_COUNT_MAX)?;
    conversations.groups(caller, &cursor, count).await.map(Reply::Groups)
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
