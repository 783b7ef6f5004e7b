//! Taking over a change of a group, one just appended as one replayed.
//!
//! Nothing here looks at a clock or at who may: whether a change was lawful was decided when it was appended, and the
//! same records make the same group for ever.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use super::Mutes;
use crate::conversation::participants::{Membership, Participant};
use crate::conversation::record::{GroupChange, GroupV1};
use crate::conversation::state::{GroupFacts, Inconsistent, State};
use crate::message::{Duty, UserId};

/// Takes over a group record. Nothing is changed when it does not continue the state.
pub(in crate::conversation) fn apply(state: &mut State, record: &GroupV1<'_>) -> Result<(), Inconsistent> {
    let change = record.change().map_err(|why| state.inconsistent(why.to_string()))?;
    let users: Vec<UserId> = record.users.iter().map(|id| state.user(id)).collect::<Result<_, _>>()?;
    refuse_out_of_turn(state, change)?;
    match change {
        GroupChange::Create => {
            begin(state, record);
            come_in(state, &users, record.timestamp_ns);
            if let Some(owner) = users.first() {
                set_duty(state, owner, Duty::Owner);
            }
        }
        GroupChange::Add => come_in(state, &users, record.timestamp_ns),
        GroupChange::Kick | GroupChange::Leave => go_out(state, &users),
        GroupChange::Duty => give_duty(state, only_member(state, &users)?, record.duty)?,
        GroupChange::Rename => facts_mut(state, |group| record.name.clone_into(&mut group.name)),
        GroupChange::Mute => mute(state, only_member(state, &users)?, record),
        GroupChange::Dismiss => end(state),
    }
    state.note_silenced();
    state.advance_time(record.timestamp_ns);
    Ok(())
}

fn refuse_out_of_turn(state: &State, change: GroupChange) -> Result<(), Inconsistent> {
    let why = match (&state.group, change) {
        (Some(_), GroupChange::Create) => "group created twice",
        (Some(group), _) if group.dismissed => "change of a group that was dismissed",
        (None, GroupChange::Create) | (Some(_), _) => return Ok(()),
        (None, _) => "change of a group that was never created",
    };
    Err(state.inconsistent(why.into()))
}

/// The member whom a change is about that is about one.
fn only_member(state: &State, users: &[UserId]) -> Result<u32, Inconsistent> {
    let [user] = users else {
        return Err(state.inconsistent(format!("a change of one member names {}", users.len())));
    };
    let number = state.participants.number_of(user.as_str());
    let is_in = |number: &u32| state.participants.get(*number).membership.is_some();
    number.filter(is_in).ok_or_else(|| state.inconsistent(format!("change of {user}, who is not in")))
}

fn begin(state: &mut State, record: &GroupV1<'_>) {
    state.group = Some(GroupFacts {
        name: record.name.to_owned(),
        created_ns: record.timestamp_ns,
        members_count: 0,
        mutes: Mutes::default(),
        dismissed: false,
    });
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
        Heirs::of(state).succeed_owner(state);
    }
}

/// One behind the other, as if each went with a record of their own: whoever owns the group until they go too is not muted
/// from before.
fn go_out(state: &mut State, users: &[UserId]) {
    let mut heirs = None;
    for user in users {
        let number = state.participants.number_or_insert(user);
        if let Some(membership) = state.participants.get_mut(number).membership.take() {
            count_members(state, -1);
            if membership.duty == Duty::Owner {
                heirs.get_or_insert_with(|| Heirs::of(state)).succeed_owner(state);
            }
        }
    }
}

/// Those who may own the group, whoever comes first in front. Made once for a change: to look among all members for the
/// heir of each who inherits and goes would take their square.
struct Heirs(BinaryHeap<Reverse<Rank>>);

impl Heirs {
    fn of(state: &State) -> Self {
        Self(state.participants.members().map(|member| Reverse(rank(&member))).collect())
    }

    /// Somebody becomes the owner of a group that has none. An empty group has no owner.
    fn succeed_owner(&mut self, state: &mut State) {
        while let Some(Reverse((.., number))) = self.0.pop() {
            let row = state.participants.get(number);
            if row.membership.is_some() {
                let heir = row.user.clone();
                return set_duty(state, &heir, Duty::Owner);
            }
        }
    }
}

/// Smaller for who comes sooner; with the number of the participant.
type Rank = (bool, u64, u32);

/// Who comes first when a group needs an owner: the longest-standing admin, else member; rows are in order of
/// appearance, so the lowest number decides between equals.
fn rank((number, _, membership): &(u32, &Participant, &Membership)) -> Rank {
    (membership.duty != Duty::Admin, membership.joined_ns, *number)
}

/// Who owns the group once a change is taken over, if that is somebody else than before without being the change itself:
/// the owner goes, or somebody comes into a group that everybody had left.
pub(in crate::conversation) fn heir_of(state: &State, change: &GroupV1<'_>) -> Option<UserId> {
    match change.change() {
        Ok(GroupChange::Kick | GroupChange::Leave) => heir_behind(state, &change.users),
        Ok(GroupChange::Add) => heir_among(state, &change.users),
        _ => None,
    }
}

/// Who owns the group once these are out, if its owner is one of them.
fn heir_behind(state: &State, out: &[&str]) -> Option<UserId> {
    let out: HashSet<&str> = out.iter().copied().collect();
    owner_of(state).filter(|owner| out.contains(owner.as_str()))?;
    let stays = state.participants.members().filter(|(_, row, _)| !out.contains(row.user.as_str()));
    stays.min_by_key(rank).map(|(_, row, _)| row.user.clone())
}

/// Who owns an empty group once these are in: they come at the same time, so who appeared first in it.
fn heir_among(state: &State, come: &[&str]) -> Option<UserId> {
    let is_empty = state.group.as_ref().is_some_and(|group| group.members_count == 0);
    let number = |id: &&str| state.participants.number_of(id).unwrap_or(u32::MAX);
    let first = come.iter().copied().filter(|_| is_empty).min_by_key(number)?;
    state.user(first).ok()
}

/// Gives a member a duty by its number; an owner before becomes an admin.
fn give_duty(state: &mut State, member: u32, duty: u8) -> Result<(), Inconsistent> {
    let duty =
        Duty::from_number(duty).ok_or_else(|| state.inconsistent(format!("there is no duty {duty}")))?;
    let (user, is_owner) = {
        let row = state.participants.get(member);
        (row.user.clone(), row.membership.is_some_and(|membership| membership.duty == Duty::Owner))
    };
    if is_owner && duty != Duty::Owner {
        return Err(state.inconsistent(format!("{user} owns the group and nobody takes it")));
    }
    if duty == Duty::Owner
        && let Some(before) = owner_of(state)
    {
        set_duty(state, &before, Duty::Admin);
    }
    set_duty(state, &user, duty);
    Ok(())
}

/// Who owns the group.
pub(in crate::conversation) fn owner_of(state: &State) -> Option<UserId> {
    let owner = state.participants.members().find(|(_, _, membership)| membership.duty == Duty::Owner);
    owner.map(|(_, row, _)| row.user.clone())
}

/// Nobody stands above an owner who could let them speak again, so an owner is not muted from before.
pub(super) fn set_duty(state: &mut State, user: &UserId, duty: Duty) {
    let number = state.participants.number_or_insert(user);
    if let Some(membership) = &mut state.participants.get_mut(number).membership {
        membership.duty = duty;
        if duty == Duty::Owner {
            facts_mut(state, |group| group.mutes.set(number, 0));
        }
    }
}

fn mute(state: &mut State, member: u32, record: &GroupV1<'_>) {
    facts_mut(state, |group| {
        group.mutes.forget_past(record.timestamp_ns);
        group.mutes.set(member, record.until_s);
    });
}

fn end(state: &mut State) {
    for number in 0..state.participants.rows().len() as u32 {
        state.participants.get_mut(number).membership = None;
    }
    facts_mut(state, |group| {
        (group.members_count, group.mutes, group.dismissed) = (0, Mutes::default(), true);
    });
    state.history.keep_nothing();
}

fn count_members(state: &mut State, change: i32) {
    facts_mut(state, |group| group.members_count = group.members_count.saturating_add_signed(change));
}

fn facts_mut(state: &mut State, change: impl FnOnce(&mut GroupFacts)) {
    if let Some(group) = &mut state.group {
        change(group);
    }
}
