//! What is asked of a conversation, at random, and what its rules make of that.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::super::blocks;
use super::super::group;
use super::super::old::{Missing, Old};
use super::super::record::RelationChange;
use super::super::state::{Decision, Durable, Pulled, State};
use crate::message::{
    Caller, ConversationKey, Direction, Draft, Duty, Page, Pull, Receipt, Rejection, UserId,
};

/// Who there is.
pub(super) const USERS: [&str; 4] = ["ann", "ben", "cem", "dee"];

pub(super) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid id")
}

/// Whether something happens that does in so many per cent of all cases.
pub(super) fn chance(random: &mut StdRng, percent: u32) -> bool {
    random.random_range(0..100) < percent
}

/// A wish, and whose it is.
pub(super) struct Request {
    pub(super) caller: Caller,
    pub(super) call: Wish,
}

/// What can be asked for.
#[derive(Debug)]
pub(super) enum Wish {
    Send(Draft),
    Recall(u32),
    Ack(u32),
    Look(Pull),
    Create,
    Add(UserId),
    Kick(UserId),
    Leave,
    SetDuty(UserId, Duty),
    Rename(String),
    Mute(UserId, u64),
    Dismiss,
    Relate(RelationChange),
}

/// What the rules make of a request.
#[derive(Debug)]
pub(super) enum Decided {
    /// A record to append, as its kind and payload.
    Append(u8, Vec<u8>),
    Sent(Receipt),
    Recalled(u32),
    Page(Page),
    Nothing,
    Needs(Missing),
}

impl Request {
    /// Somebody's next wish.
    pub(super) fn any(random: &mut StdRng) -> Self {
        let mut caller = Caller { user: user(USERS[random.random_range(0..USERS.len())]), admin: false };
        let other = user(USERS[random.random_range(0..USERS.len())]);
        let index = random.random_range(0..60);
        let call = match random.random_range(0..100) {
            0..57 => {
                let number = random.random_range(0..200u8);
                // The same id mostly means the same text: a retry.
                let (letter, bytes) = match chance(random, 50) {
                    true => (b'a' + number % 26, usize::from(number) + 1),
                    false => (random.random_range(b'a'..=b'z'), random.random_range(1..120)),
                };
                let bytes = if chance(random, 15) { 2500 } else { bytes };
                let msg = char::from(letter).to_string().repeat(bytes);
                Wish::Send(Draft { msg, extra: String::new(), client_msg_id: number.to_string() })
            }
            57 => Wish::Relate(RelationChange::Block),
            58..60 => Wish::Relate(RelationChange::Unblock),
            60..72 => Wish::Recall(index),
            72..82 => Wish::Ack(index),
            82..88 => Wish::Look(any_pull(random)),
            88..91 => Wish::Create,
            91..94 => Wish::Add(other),
            94 => Wish::Kick(other),
            95 => Wish::Leave,
            _ => {
                caller.admin = chance(random, 50);
                any_administration(random, other)
            }
        };
        Self { caller, call }
    }

    /// Asks the rules.
    pub(super) fn decide(
        &self,
        state: &State,
        key: &ConversationKey,
        old: &Old,
        durable: Durable,
        now_ns: u64,
    ) -> Result<Decided, Rejection> {
        let caller = &self.caller;
        let some = std::slice::from_ref;
        let nothing = |()| Decided::Nothing;
        match &self.call {
            Wish::Send(draft) => decided(state.send(key, &caller.user, draft, old, now_ns), Decided::Sent),
            Wish::Recall(index) => {
                let decision = state.recall(key, &caller.user, *index, old, None, now_ns);
                decided(decision, Decided::Recalled)
            }
            Wish::Ack(index) => decided(state.ack(key, &caller.user, *index, durable), nothing),
            Wish::Look(pull) => Ok(match state.pull(&caller.user, pull, old, durable)? {
                Pulled::Page(page) => Decided::Page(page),
                Pulled::Needs(missing) => Decided::Needs(missing),
            }),
            Wish::Relate(_) if matches!(key, ConversationKey::Group(_)) => Ok(Decided::Nothing),
            Wish::Relate(change) => {
                decided(blocks::change(state, key, &caller.user, *change, now_ns), nothing)
            }
            _ if !matches!(key, ConversationKey::Group(_)) => Ok(Decided::Nothing),
            Wish::Create => {
                decided(group::create(state, key, caller, "a group", &[user("ben")], now_ns), nothing)
            }
            Wish::Add(other) => decided(group::add(state, key, caller, some(other), now_ns), nothing),
            Wish::Kick(other) => decided(group::kick(state, key, caller, some(other), now_ns), nothing),
            Wish::Leave => decided(group::leave(state, key, caller, now_ns), nothing),
            Wish::SetDuty(other, duty) => {
                decided(group::set_duty(state, key, caller, other, *duty, now_ns), nothing)
            }
            Wish::Rename(name) => decided(group::rename(state, key, caller, name, now_ns), nothing),
            Wish::Mute(other, for_s) => {
                let until_s = now_ns / 1_000_000_000 + for_s;
                decided(group::mute(state, key, caller, other, until_s, now_ns), nothing)
            }
            Wish::Dismiss => decided(group::dismiss(state, key, caller, now_ns), nothing),
        }
    }
}

/// What only few may do, and what ends a group seldom enough.
fn any_administration(random: &mut StdRng, other: UserId) -> Wish {
    match random.random_range(0..20) {
        0..3 => {
            let duties = [Duty::Member, Duty::Admin, Duty::Owner];
            Wish::SetDuty(other, duties[random.random_range(0..duties.len())])
        }
        3..5 => Wish::Rename(format!("group {}", random.random_range(0..9))),
        // Mostly for some further calls.
        5..19 => Wish::Mute(other, random.random_range(0..60_000)),
        _ => Wish::Dismiss,
    }
}

fn decided<T>(
    decision: Result<Decision<'_, T>, Rejection>,
    already: impl FnOnce(T) -> Decided,
) -> Result<Decided, Rejection> {
    decision.map(|decision| match decision {
        Decision::Append(record, _) => Decided::Append(record.kind(), record.encode()),
        Decision::Already(answer) => already(answer),
        Decision::Needs(missing) => Decided::Needs(missing),
    })
}

/// A page from anywhere.
fn any_pull(random: &mut StdRng) -> Pull {
    let direction = if chance(random, 50) { Direction::After } else { Direction::Before };
    let mut start = || random.random_range(0..60);
    let (start_msg_index, start_recall_index) = (start(), start());
    let count = random.random_range(1..=50);
    Pull { direction, start_msg_index, start_recall_index, count, wait: Duration::ZERO }
}
