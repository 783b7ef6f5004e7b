//! What must be true of every conversation, whatever happened to it (contract, 7.6).
//!
//! That indices have no hole, that a recall names one message once and that a read cursor names a message is checked
//! by whoever loads a conversation. Here is the rest: what single records cannot show, and what a later version, a
//! repair by hand or an import could get wrong.

use std::collections::HashMap;

use crate::conversation::history::{self, Stored};
use crate::conversation::state::State;
use crate::message::{ConversationKey, Duty};

/// Every rule that `state` breaks, in words.
pub(super) fn broken(state: &State) -> Vec<String> {
    let mut broken = Vec::new();
    messages(state, &mut broken);
    recalls(state, &mut broken);
    participants(state, &mut broken);
    members(state, &mut broken);
    let is_of_two = matches!(&*state.key, ConversationKey::Direct(a, b) if a != b);
    if state.blocks.is_any() && !is_of_two {
        broken.push("somebody is blocked in what is no pair of two".into());
    }
    broken
}

fn messages(state: &State, broken: &mut Vec<String>) {
    let (mut newest_ns, mut ids) = (0, Ids::new());
    for (index, message) in all_messages(state) {
        if message.timestamp_ns < newest_ns {
            broken.push(format!("message {index} is older than the one before"));
        }
        newest_ns = newest_ns.max(message.timestamp_ns);
        match state.participants.rows().get(message.sender as usize) {
            Some(sender) if sender.read_cursor < index => {
                broken.push(format!("{:?} has not read their own message {index}", sender.user));
            }
            Some(_) => {}
            None => broken.push(format!("message {index} has no sender")),
        }
        // What is not kept may be there for its id only.
        if index >= state.history.kept_from() && message.erased != (message.recall_index != 0) {
            broken.push(format!(
                "the text of message {index} is gone without a recall, or there in spite of one"
            ));
        }
        if shares_its_id(&mut ids, index, &message) {
            broken.push(format!("message {index} shares its client_msg_id with another of its sender"));
        }
    }
    if newest_ns > state.last_timestamp_ns {
        broken.push("the conversation's clock is behind its messages".into());
    }
}

/// Under which ids which messages were sent, the newest of each.
type Ids<'a> = HashMap<(u32, &'a str), u32>;

/// Whether an earlier message of its sender has the same id and is so near that this one should have been taken for a
/// retry. How old the earlier one was does not count: that was for a clock to say.
fn shares_its_id<'a>(ids: &mut Ids<'a>, index: u32, message: &Stored<'a>) -> bool {
    let near = history::Options::default().retry_messages;
    let id = message.client_msg_id;
    let earlier = if id.is_empty() { None } else { ids.insert((message.sender, id), index) };
    earlier.is_some_and(|earlier| index - earlier <= near)
}

fn recalls(state: &State, broken: &mut Vec<String>) {
    for recall_index in 1..=state.history.newest_recall() {
        let msg_index = state.history.recalled_by(recall_index).unwrap_or(0);
        if msg_index <= state.history.newest_old() && msg_index > 0 {
            // Retention took the message.
            continue;
        }
        let names_back = state.history.message(msg_index).is_some_and(|it| it.recall_index == recall_index);
        if !names_back {
            broken.push(format!("recall {recall_index} and message {msg_index} contradict each other"));
        }
    }
}

fn participants(state: &State, broken: &mut Vec<String>) {
    let newest = state.history.newest_message();
    for row in state.participants.rows() {
        let user = &row.user;
        if row.read_cursor > newest {
            broken
                .push(format!("{user:?} has read up to {}, the newest message is {newest}", row.read_cursor));
        }
        match &*state.key {
            ConversationKey::Direct(a, b) if user != a && user != b => {
                broken.push(format!("{user:?} is in a conversation of two others"));
            }
            ConversationKey::Direct(..) if row.membership.is_some() => {
                broken.push(format!("{user:?} is a member of what is no group"));
            }
            _ => {}
        }
    }
}

fn members(state: &State, broken: &mut Vec<String>) {
    let is_group = matches!(&*state.key, ConversationKey::Group(_));
    if is_group != state.group.is_some() {
        broken.push("it is a group without facts, or no group with some".into());
    }
    let Some(facts) = &state.group else { return };
    let (mut count, mut owners) = (0_u32, 0_u32);
    for (_, row, membership) in state.participants.members() {
        count += 1;
        owners += u32::from(membership.duty == Duty::Owner);
        if membership.readable_from == 0 || membership.readable_from - 1 > state.history.newest_message() {
            broken.push(format!("{:?} reads from {} on", row.user, membership.readable_from));
        }
    }
    if facts.members_count != count {
        broken.push(format!("it counts {} members and has {count}", facts.members_count));
    }
    if owners != u32::from(count > 0) {
        broken.push(format!("it has {count} members and {owners} owners"));
    }
    if facts.dismissed {
        dismissed(state, count, broken);
    }
}

/// Nobody is in, nothing may be read, and no text is left in memory.
fn dismissed(state: &State, members: u32, broken: &mut Vec<String>) {
    if members > 0 || !state.group.as_ref().is_some_and(|facts| facts.mutes.is_empty()) {
        broken.push(format!("it was dismissed and has {members} members, or mutes"));
    }
    let newest = state.history.newest_message();
    if state.history.kept_from() <= newest {
        let from = state.history.kept_from();
        broken.push(format!("it was dismissed and keeps messages {from} to {newest}"));
    }
    if let Some((index, _)) = all_messages(state).find(|(_, message)| !message.erased) {
        broken.push(format!("it was dismissed and has the text of message {index}"));
    }
}

/// All messages with their indices, in their order.
pub(super) fn all_messages(state: &State) -> impl Iterator<Item = (u32, Stored<'_>)> {
    (1..=state.history.newest_message()).filter_map(|index| Some((index, state.history.message(index)?)))
}

/// The first thing in which two states of one conversation differ; `None` when they are the same.
pub(super) fn difference(a: &State, b: &State) -> Option<String> {
    let heads = |state: &State| (state.history.newest_message(), state.history.newest_recall());
    if heads(a) != heads(b) {
        return Some(format!("messages and recalls {:?} and {:?}", heads(a), heads(b)));
    }
    if a.participants.rows() != b.participants.rows() || a.group != b.group || a.blocks != b.blocks {
        return Some("participants".into());
    }
    // Retention may have taken more of one than of the other.
    let kept_from = a.history.kept_from().max(b.history.kept_from());
    if let Some(index) =
        (kept_from..=heads(a).0).find(|index| a.history.message(*index) != b.history.message(*index))
    {
        return Some(format!("message {index}"));
    }
    if let Some(index) = (1..=heads(a).1).find(|n| a.history.recalled_by(*n) != b.history.recalled_by(*n)) {
        return Some(format!("recall {index}"));
    }
    let ends = |state: &State| (state.last_timestamp_ns, state.hash);
    (ends(a) != ends(b)).then(|| "clock or state hash".into())
}
