//! The rules of groups: who may come in, who may put whom out, and what that makes readable.
//!
//! Membership changes are records of the group's own conversation, so they are ordered with its
//! messages. Pure and synchronous, like [`super::state`].

use std::collections::HashSet;

use super::participants::Membership;
use super::record::{GroupChange, GroupV1, KeyV1, Record};
use super::state::{Decision, GroupFacts, Inconsistent, NOT_A_MEMBER, State};
use crate::config::limits::GROUP_MEMBERS_MAX;
use crate::message::{
    Caller, ConversationKey, Duty, GroupId, GroupInfo, Member, MembersPage, Rejection, UserId,
};

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
    Ok(append(state, key, GroupChange::Create, &caller.user, users, name, now_ns))
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
    Ok(append(state, key, GroupChange::Add, &caller.user, new, "", now_ns))
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
    Ok(append(state, key, GroupChange::Kick, &caller.user, out, "", now_ns))
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
    Ok(append(state, key, GroupChange::Leave, &caller.user, vec![&caller.user], "", now_ns))
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

/// The members behind `cursor`, in order of their first appearance in the group, at most `count`.
pub(crate) fn members(
    state: &State,
    caller: &Caller,
    cursor: &str,
    count: u32,
) -> Result<MembersPage, Rejection> {
    facts(state)?;
    see(state, caller)?;
    let from: u32 = match cursor {
        "" => 0,
        text => text.parse().map_err(|_| Rejection::Invalid("cursor: not one this server gave".into()))?,
    };
    let mut behind = state.participants.members().skip_while(|(number, ..)| *number < from);
    let members = behind.by_ref().take(count as usize).map(|(_, row, membership)| Member {
        user: row.user.clone(),
        duty: membership.duty,
        joined_ns: membership.joined_ns,
    });
    let members = members.collect();
    let cursor = behind.next().map_or(String::new(), |(number, ..)| number.to_string());
    Ok(MembersPage { members, cursor })
}

/// Takes over a group record. Nothing is changed when it does not continue the state.
pub(super) fn apply(state: &mut State, record: &GroupV1<'_>) -> Result<(), Inconsistent> {
    let change = record.change().map_err(|why| state.inconsistent(why.to_string()))?;
    let users: Vec<UserId> = record.users.iter().map(|id| state.user(id)).collect::<Result<_, _>>()?;
    match (change, state.group.is_some()) {
        (GroupChange::Create, false) => begin(state, record),
        (GroupChange::Create, true) => return Err(state.inconsistent("group created twice".into())),
        (_, false) => return Err(state.inconsistent("change of a group that was never created".into())),
        (_, true) => {}
    }
    match change {
        GroupChange::Create | GroupChange::Add => come_in(state, &users, record.timestamp_ns),
        GroupChange::Kick | GroupChange::Leave => go_out(state, &users),
    }
    if change == GroupChange::Create
        && let Some(owner) = users.first()
    {
        set_duty(state, owner, Duty::Owner);
    }
    state.advance_time(record.timestamp_ns);
    Ok(())
}

fn begin(state: &mut State, record: &GroupV1<'_>) {
    state.group =
        Some(GroupFacts { name: record.name.to_owned(), created_ns: record.timestamp_ns, members_count: 0 });
}

/// A newcomer reads from the next message on; so nothing is unread on the first day.
fn come_in(state: &mut State, users: &[UserId], joined_ns: u64) {
    let was_empty = state.group.as_ref().is_some_and(|group| group.members_count == 0);
    let newest = state.history.newest_message();
    for user in users {
        let number = state.participants.number_or_insert(user);
        let row = state.participants.get_mut(number);
        if row.membership.is_none() {
            let readable_from = newest.saturating_add(1);
            row.membership = Some(Membership { duty: Duty::Member, joined_ns, readable_from });
            row.read_cursor = newest;
            count_members(state, 1);
        }
    }
    // Everybody had left, and an admin token begins the group again.
    if was_empty {
        succeed_owner(state);
    }
}

fn go_out(state: &mut State, users: &[UserId]) {
    for user in users {
        let number = state.participants.number_or_insert(user);
        if let Some(membership) = state.participants.get_mut(number).membership.take() {
            count_members(state, -1);
            if membership.duty == Duty::Owner {
                succeed_owner(state);
            }
        }
    }
}

/// The longest-standing admin, else member, becomes the owner; rows are in order of appearance,
/// so the lowest number decides between equals. An empty group has no owner.
fn succeed_owner(state: &mut State) {
    let rank = |(number, _, membership): &(u32, &_, &Membership)| {
        (membership.duty != Duty::Admin, membership.joined_ns, *number)
    };
    let heir = state.participants.members().min_by_key(rank).map(|(_, row, _)| row.user.clone());
    if let Some(heir) = heir {
        set_duty(state, &heir, Duty::Owner);
    }
}

fn set_duty(state: &mut State, user: &UserId, duty: Duty) {
    let number = state.participants.number_or_insert(user);
    if let Some(membership) = &mut state.participants.get_mut(number).membership {
        membership.duty = duty;
    }
}

fn count_members(state: &mut State, change: i32) {
    if let Some(group) = &mut state.group {
        group.members_count = group.members_count.saturating_add_signed(change);
    }
}

fn facts(state: &State) -> Result<&GroupFacts, Rejection> {
    state.group.as_ref().ok_or(Rejection::NoSuchGroup)
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

/// The record of a change; a change of nobody is already true.
fn append<'a>(
    state: &State,
    key: &'a ConversationKey,
    change: GroupChange,
    by: &'a UserId,
    users: Vec<&'a UserId>,
    name: &'a str,
    now_ns: u64,
) -> Decision<'a, ()> {
    if users.is_empty() {
        return Decision::Already(());
    }
    let record = Record::Group(GroupV1 {
        key: KeyV1::of(key),
        change: change as u8,
        by: by.as_str(),
        timestamp_ns: state.next_timestamp_ns(now_ns),
        users: users.into_iter().map(UserId::as_str).collect(),
        name,
        duty: 0,
        until_s: 0,
    });
    Decision::Append(record, ())
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
