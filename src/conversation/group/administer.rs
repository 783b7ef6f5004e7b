//! Rules of administering a group: duties, its name, mutes, its end.
//!
//! The owner may do all of it, an admin of the group may rename it and mute members, an admin token may do everything
//! to everybody. Each rule says what would happen, and changes nothing.

use super::mutes::is_before;
use super::{Change, administrate, append, facts, own};
use crate::conversation::participants::Membership;
use crate::conversation::record::GroupChange;
use crate::conversation::state::{Decision, State};
use crate::message::{Caller, ConversationKey, Duty, Rejection, UserId};

const NEEDS_RANK: &str = "only somebody of a higher duty may mute: the owner an admin, both a member";

/// Rules of giving a member a duty. There is one owner: who gives somebody else the group becomes an admin of it, and
/// nobody takes it from the owner but in this way.
pub(crate) fn set_duty<'a>(
    state: &State,
    key: &'a ConversationKey,
    caller: &'a Caller,
    user: &'a UserId,
    duty: Duty,
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    facts(state)?;
    own(state, caller)?;
    let current = member(state, user)?.duty;
    if current == duty {
        return Ok(Decision::Already(()));
    }
    if current == Duty::Owner {
        let why = "duty: a group has an owner: give duty 2 to whoever is to own it instead";
        return Err(Rejection::Invalid(why.into()));
    }
    let change = Change { users: vec![user], duty, ..Change::of(GroupChange::Duty) };
    Ok(append(state, key, &caller.user, change, now_ns))
}

/// Rules of giving the group another name.
pub(crate) fn rename<'a>(
    state: &State,
    key: &'a ConversationKey,
    caller: &'a Caller,
    name: &'a str,
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    let group = facts(state)?;
    administrate(state, caller)?;
    if group.name == name {
        return Ok(Decision::Already(()));
    }
    Ok(append(state, key, &caller.user, Change { name, ..Change::of(GroupChange::Rename) }, now_ns))
}

/// Rules of muting a member until a second of Unix time; one that is past lets them send again.
pub(crate) fn mute<'a>(
    state: &State,
    key: &'a ConversationKey,
    caller: &'a Caller,
    user: &'a UserId,
    until_s: u64,
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    let group = facts(state)?;
    let caller_duty = administrate(state, caller)?;
    let duty = member(state, user)?.duty;
    if !caller.admin && !caller_duty.is_some_and(|own| own.outranks(duty)) {
        return Err(Rejection::Forbidden(NEEDS_RANK));
    }
    let timestamp_ns = state.next_timestamp_ns(now_ns);
    let ahead = |until_s| if is_before(timestamp_ns, until_s) { until_s } else { 0 };
    let muted_until_s = state.participants.number_of(user.as_str()).map_or(0, |it| group.mutes.until_s(it));
    if ahead(muted_until_s) == ahead(until_s) {
        return Ok(Decision::Already(()));
    }
    let change = Change { users: vec![user], until_s: ahead(until_s), ..Change::of(GroupChange::Mute) };
    Ok(append(state, key, &caller.user, change, now_ns))
}

/// Rules of ending the group.
pub(crate) fn dismiss<'a>(
    state: &State,
    key: &'a ConversationKey,
    caller: &'a Caller,
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    facts(state)?;
    own(state, caller)?;
    Ok(append(state, key, &caller.user, Change::of(GroupChange::Dismiss), now_ns))
}

fn member<'s>(state: &'s State, user: &UserId) -> Result<&'s Membership, Rejection> {
    let membership = state.participants.membership_of(user);
    membership.ok_or_else(|| Rejection::Invalid("user_id must be a member of the group".into()))
}
