//! The rules of groups: who may come in, who may put whom out, and what that makes readable.
//!
//! Changes of a group are records of its own conversation, so they are ordered with its messages. Here is membership;
//! duties, name, mutes and the end are in [`administer`], and what a record does in [`apply`](mod@apply). Pure and
//! synchronous, like [`super::state`].

use std::collections::HashSet;

pub(crate) use self::administer::{dismiss, mute, rename, set_duty};
pub(super) use self::apply::{apply, heir_of, owner_of};
pub(crate) use self::mutes::{Mute, Mutes};
use super::record::{GroupChange, GroupV1, KeyV1, Record};
use super::state::{Decision, GroupFacts, NOT_A_MEMBER, State};
use crate::config::limits::GROUP_MEMBERS_MAX;
use crate::message::{
    Caller, ConversationKey, Duty, GroupId, GroupInfo, Member, MembersPage, Rejection, UserId,
};

mod administer;
mod apply;
mod mutes;

const NEEDS_OWNER: &str = "only the owner of the group or an admin token may do this";
const NEEDS_ADMIN: &str = "only the owner, an admin of the group or an admin token may do this";

/// Rules of creating a group that `caller` will own, with `members` beside them.
pub(crate) fn create<'a>(
    state: &State,
    key: &'a ConversationKey,
    caller: &'a Caller,
    name: &'a str,
    members: &'a [UserId],
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    if state.group.is_some() {
        return Err(Rejection::GroupExists);
    }
    let users = distinct(std::iter::once(&caller.user).chain(members));
    refuse_crowd(users.len())?;
    let change = Change { users, name, ..Change::of(GroupChange::Create) };
    Ok(append(state, key, &caller.user, change, now_ns))
}

/// Rules of adding members; those who are in already are passed over.
pub(crate) fn add<'a>(
    state: &State,
    key: &'a ConversationKey,
    caller: &'a Caller,
    users: &'a [UserId],
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    let group = facts(state)?;
    administrate(state, caller)?;
    let mut new = distinct(users.iter());
    new.retain(|user| state.participants.membership_of(user).is_none());
    refuse_crowd(group.members_count as usize + new.len())?;
    Ok(append_of_some(state, key, &caller.user, GroupChange::Add, new, now_ns))
}

/// Rules of putting members out; those who are not in are passed over. An admin of the group may
/// put out members, the owner and an admin token anybody. Nobody kicks themselves.
pub(crate) fn kick<'a>(
    state: &State,
    key: &'a ConversationKey,
    caller: &'a Caller,
    users: &'a [UserId],
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    facts(state)?;
    let caller_duty = administrate(state, caller)?;
    let mut out = distinct(users.iter());
    out.retain(|user| state.participants.membership_of(user).is_some());
    for user in &out {
        refuse_kick(state, caller, caller_duty, user)?;
    }
    Ok(append_of_some(state, key, &caller.user, GroupChange::Kick, out, now_ns))
}

fn refuse_kick(
    state: &State,
    caller: &Caller,
    caller_duty: Option<Duty>,
    user: &UserId,
) -> Result<(), Rejection> {
    if caller.admin {
        return Ok(());
    }
    if *user == caller.user {
        return Err(Rejection::Invalid("user_ids: to go yourself, call leave".into()));
    }
    let duty = state.participants.membership_of(user).map(|membership| membership.duty);
    if caller_duty != Some(Duty::Owner) && duty != Some(Duty::Member) {
        return Err(Rejection::Forbidden("only the owner may put out an admin or the owner"));
    }
    Ok(())
}

/// Rules of leaving. When the owner goes, the longest-standing admin, else member, owns the group.
pub(crate) fn leave<'a>(
    state: &State,
    key: &'a ConversationKey,
    caller: &'a Caller,
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    facts(state)?;
    if state.participants.membership_of(&caller.user).is_none() {
        return Err(Rejection::Forbidden(NOT_A_MEMBER));
    }
    Ok(append_of_some(state, key, &caller.user, GroupChange::Leave, vec![&caller.user], now_ns))
}

/// The group as `caller` sees it.
pub(crate) fn info(state: &State, group: &GroupId, caller: &Caller) -> Result<GroupInfo, Rejection> {
    let facts = facts(state)?;
    let duty = see(state, caller)?;
    Ok(GroupInfo {
        group: group.clone(),
        name: facts.name.clone(),
        created_ns: facts.created_ns,
        members_count: facts.members_count,
        duty,
    })
}

/// The members behind `cursor`, in order of their first appearance in the group, at most `count`; who is muted, as of now.
pub(crate) fn members(
    state: &State,
    caller: &Caller,
    cursor: &str,
    count: u32,
    now_ns: u64,
) -> Result<MembersPage, Rejection> {
    let mutes = &facts(state)?.mutes;
    see(state, caller)?;
    let timestamp_ns = state.next_timestamp_ns(now_ns);
    let from: u32 = match cursor {
        "" => 0,
        text => text.parse().map_err(|_| Rejection::Invalid("cursor: not one this server gave".into()))?,
    };
    let mut behind = state.participants.members().skip_while(|(number, ..)| *number < from);
    let members = behind.by_ref().take(count as usize).map(|(number, row, membership)| Member {
        user: row.user.clone(),
        duty: membership.duty,
        joined_ns: membership.joined_ns,
        muted_until_s: mutes.until_s_after(number, timestamp_ns),
    });
    let members = members.collect();
    let cursor = behind.next().map_or(String::new(), |(number, ..)| number.to_string());
    Ok(MembersPage { members, cursor })
}

fn facts(state: &State) -> Result<&GroupFacts, Rejection> {
    state.group.as_ref().filter(|group| !group.dismissed).ok_or(Rejection::NoSuchGroup)
}

/// Refuses everybody but the owner and an admin token.
fn own(state: &State, caller: &Caller) -> Result<(), Rejection> {
    match state.participants.membership_of(&caller.user).map(|membership| membership.duty) {
        Some(Duty::Owner) => Ok(()),
        _ if caller.admin => Ok(()),
        Some(_) => Err(Rejection::Forbidden(NEEDS_OWNER)),
        None => Err(Rejection::Forbidden(NOT_A_MEMBER)),
    }
}

/// The duty with which `caller` may administrate; `None` stands for an admin token.
fn administrate(state: &State, caller: &Caller) -> Result<Option<Duty>, Rejection> {
    match state.participants.membership_of(&caller.user).map(|membership| membership.duty) {
        Some(duty @ (Duty::Owner | Duty::Admin)) => Ok(Some(duty)),
        _ if caller.admin => Ok(None),
        Some(Duty::Member) => Err(Rejection::Forbidden(NEEDS_ADMIN)),
        None => Err(Rejection::Forbidden(NOT_A_MEMBER)),
    }
}

/// The duty with which `caller` sees the group; an admin token sees every group.
fn see(state: &State, caller: &Caller) -> Result<Duty, Rejection> {
    match state.participants.membership_of(&caller.user) {
        Some(membership) => Ok(membership.duty),
        None if caller.admin => Ok(Duty::Admin),
        None => Err(Rejection::Forbidden(NOT_A_MEMBER)),
    }
}

fn refuse_crowd(members: usize) -> Result<(), Rejection> {
    if members > GROUP_MEMBERS_MAX {
        return Err(Rejection::Invalid(format!("a group has at most {GROUP_MEMBERS_MAX} members")));
    }
    Ok(())
}

fn distinct<'a>(users: impl Iterator<Item = &'a UserId>) -> Vec<&'a UserId> {
    let mut seen = HashSet::new();
    users.filter(|user| seen.insert(*user)).collect()
}

/// What a record says beside who did it and when.
struct Change<'a> {
    kind: GroupChange,
    users: Vec<&'a UserId>,
    name: &'a str,
    duty: Duty,
    until_s: u64,
}

impl Change<'_> {
    fn of(kind: GroupChange) -> Self {
        Self { kind, users: Vec::new(), name: "", duty: Duty::Member, until_s: 0 }
    }
}

/// The record of somebody's coming or going; a change of nobody is already true.
fn append_of_some<'a>(
    state: &State,
    key: &'a ConversationKey,
    by: &'a UserId,
    kind: GroupChange,
    users: Vec<&'a UserId>,
    now_ns: u64,
) -> Decision<'a, ()> {
    if users.is_empty() {
        return Decision::Already(());
    }
    append(state, key, by, Change { users, ..Change::of(kind) }, now_ns)
}

/// The record of a change.
fn append<'a>(
    state: &State,
    key: &'a ConversationKey,
    by: &'a UserId,
    change: Change<'a>,
    now_ns: u64,
) -> Decision<'a, ()> {
    let Change { kind, users, name, duty, until_s } = change;
    let record = Record::Group(GroupV1 {
        key: KeyV1::of(key),
        change: kind as u8,
        by: by.as_str(),
        timestamp_ns: state.next_timestamp_ns(now_ns),
        users: users.into_iter().map(UserId::as_str).collect(),
        name,
        duty: duty as u8,
        until_s,
    });
    Decision::Append(record, ())
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
