//! The rules for the fields of requests, in the words that a client gets to read.

use std::borrow::Cow;

use super::value::Value;
use crate::config::limits::{GROUP_MEMBERS_MAX, GROUP_NAME_BYTES_MAX};
use crate::message::{Address, GroupId, InvalidId, Rejection, UserId};

/// A refusal that says which field breaks which rule.
pub(super) fn invalid(field: &str, rule: impl std::fmt::Display) -> Rejection {
    Rejection::Invalid(format!("{field} {rule}"))
}

fn bad_id(field: &str) -> impl Fn(InvalidId) -> Rejection {
    move |why| invalid(field, why)
}

/// `target` and `target_type`.
pub(super) fn address(target: Value<'_>, target_type: Value<'_>) -> Result<Address, Rejection> {
    let target = target.text("target")?;
    match &*target_type.text("target_type")? {
        "user" => UserId::parse(&target).map(Address::User).map_err(bad_id("target")),
        "group" => GroupId::parse(&target).map(Address::Group).map_err(bad_id("target")),
        _ => Err(invalid("target_type", "must be \"user\" or \"group\"")),
    }
}

/// A text that must not be empty.
pub(super) fn text<'a>(value: Value<'a>, field: &str) -> Result<Cow<'a, str>, Rejection> {
    let text = value.text(field)?;
    if text.is_empty() { Err(invalid(field, "must not be empty")) } else { Ok(text) }
}

/// A text of at most so many bytes, which may be empty.
pub(super) fn short<'a>(value: Value<'a>, field: &str, bytes_max: usize) -> Result<Cow<'a, str>, Rejection> {
    let text = value.text(field)?;
    if text.len() > bytes_max {
        return Err(invalid(field, format_args!("must be at most {bytes_max} bytes")));
    }
    Ok(text)
}

/// A number in a range.
pub(super) fn number(value: &Value<'_>, field: &str, least: u32, most: u32) -> Result<u32, Rejection> {
    let number = value.number(field)?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(invalid(field, format_args!("must be from {least} to {most}")))
}

/// `count` of a page; 0 means as many as `default`.
pub(super) fn count(value: &Value<'_>, default: u32, most: u32) -> Result<u32, Rejection> {
    match number(value, "count", 0, most)? {
        0 => Ok(default),
        count => Ok(count),
    }
}

/// `group_id`.
pub(super) fn group_id(value: Value<'_>) -> Result<GroupId, Rejection> {
    GroupId::parse(&value.text("group_id")?).map_err(bad_id("group_id"))
}

/// `group_id`, where the server may make one.
pub(super) fn optional_group_id(value: Value<'_>) -> Result<Option<GroupId>, Rejection> {
    let id = value.text("group_id")?;
    if id.is_empty() { Ok(None) } else { GroupId::parse(&id).map(Some).map_err(bad_id("group_id")) }
}

/// A group's `name`.
pub(super) fn group_name(value: Value<'_>) -> Result<String, Rejection> {
    let name = short(value, "name", GROUP_NAME_BYTES_MAX)?;
    if name.is_empty() { Err(invalid("name", "must not be empty")) } else { Ok(name.into_owned()) }
}

/// The id of a user.
pub(super) fn user_id(value: Value<'_>, field: &str) -> Result<UserId, Rejection> {
    UserId::parse(&value.text(field)?).map_err(bad_id(field))
}

/// A list of user ids, at most as many as a group has members.
pub(super) fn user_ids(value: Value<'_>, field: &str) -> Result<Vec<UserId>, Rejection> {
    let ids = value.list(field)?;
    if ids.len() > GROUP_MEMBERS_MAX {
        return Err(invalid(field, format_args!("must have at most {GROUP_MEMBERS_MAX} ids")));
    }
    let parse = |(place, id): (usize, &Cow<'_, str>)| {
        UserId::parse(id).map_err(|why| invalid(&format!("{field}[{place}]"), why))
    };
    ids.iter().enumerate().map(parse).collect()
}
