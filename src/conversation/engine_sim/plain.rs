//! A conversation in plain vectors: what its records make of it, by rules written down a second time.
//!
//! Which records there are, and what is compared with it, is [`model`](super::model)'s business.

use std::collections::{BTreeMap, BTreeSet};

use super::super::archive::people::Row;
use super::super::old::Old;
use super::super::record::{GroupChange, GroupV1, Record, RelationChange};
use super::super::retention;
use super::super::state::{GroupFacts, State};
use super::request::{USERS, user as named};
use crate::message::{ConversationKey, Duty, UserId};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlainMessage {
    pub(super) sender: String,
    pub(super) text: String,
    pub(super) client_msg_id: String,
    pub(super) timestamp_ns: u64,
}

/// A conversation as its records make it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) messages: Vec<PlainMessage>,
    pub(super) recalls: Vec<u32>,
    pub(super) cursors: BTreeMap<String, u32>,
    /// With the first message that each may read.
    pub(super) members: BTreeMap<String, u32>,
    pub(super) admins: BTreeSet<String>,
    pub(super) owner: Option<String>,
    pub(super) name: String,
    /// Until when, Unix seconds.
    pub(super) muted: BTreeMap<String, u64>,
    pub(super) dismissed: bool,
    /// Who of a pair blocks the other.
    pub(super) blocking: BTreeSet<String>,
    /// Since when each was in last, and everybody in order of appearance: what decides who succeeds an owner.
    pub(super) joined: BTreeMap<String, u64>,
    pub(super) seen: Vec<String>,
    pub(super) hash: u128,
    pub(super) last_lsn: u64,
    pub(super) newest_message_ns: u64,
}

impl Plain {
    pub(super) fn take_over(&mut self, record: &Record<'_>) {
        match record {
            Record::Send(send) => {
                self.messages.push(PlainMessage {
                    sender: send.sender.to_owned(),
                    text: short(send.msg),
                    client_msg_id: send.client_msg_id.to_owned(),
                    timestamp_ns: send.timestamp_ns,
                });
                assert_eq!(self.messages.len() as u32, send.msg_index, "indices are dense");
                self.cursors.insert(send.sender.to_owned(), send.msg_index);
                self.newest_message_ns = send.timestamp_ns;
            }
            Record::Recall(recall) => {
                self.recalls.push(recall.msg_index);
                assert_eq!(self.recalls.len() as u32, recall.recall_index, "recalls are dense");
            }
            Record::Ack(ack) => {
                let cursor = self.cursors.entry(ack.user.to_owned()).or_default();
                *cursor = (*cursor).max(ack.msg_index);
            }
            Record::Group(change) => self.change(change),
            Record::Relation(change) => match change.change().expect("it was encoded here") {
                RelationChange::Block => {
                    self.blocking.insert(change.by.to_owned());
                }
                RelationChange::Unblock => {
                    self.blocking.remove(change.by);
                }
            },
        }
    }

    fn change(&mut self, change: &GroupV1<'_>) {
        let whom = || change.users[0].to_owned();
        match change.change().expect("it was encoded here") {
            GroupChange::Create => {
                self.name = change.name.to_owned();
                change.users.iter().for_each(|user| self.come(user, change.timestamp_ns));
                self.owner = Some(whom());
            }
            GroupChange::Add => {
                change.users.iter().for_each(|user| self.come(user, change.timestamp_ns));
                self.succeed();
            }
            GroupChange::Kick | GroupChange::Leave => change.users.iter().for_each(|user| self.go(user)),
            GroupChange::Duty => self.give(whom(), Duty::from_number(change.duty).expect("a duty")),
            GroupChange::Rename => self.name = change.name.to_owned(),
            GroupChange::Mute => {
                self.muted.retain(|_, until_s| *until_s > change.timestamp_ns / 1_000_000_000);
                self.muted.insert(whom(), change.until_s);
                self.muted.retain(|_, until_s| *until_s > 0);
            }
            GroupChange::Dismiss => {
                (self.members, self.admins, self.muted) = Default::default();
                (self.owner, self.dismissed) = (None, true);
                self.messages.iter_mut().for_each(|message| message.text.clear());
            }
        }
    }

    fn give(&mut self, user: String, duty: Duty) {
        self.admins.remove(&user);
        match duty {
            Duty::Member => {}
            Duty::Admin => {
                self.admins.insert(user);
            }
            Duty::Owner => {
                self.muted.remove(&user);
                self.admins.extend(self.owner.replace(user));
            }
        }
    }

    /// Somebody owns a group in which anybody is: the longest-standing admin, else member.
    fn succeed(&mut self) {
        if self.owner.is_some() {
            return;
        }
        let rank = |user: &&String| {
            let first_seen = self.seen.iter().position(|seen| seen == *user);
            (!self.admins.contains(*user), self.joined[*user], first_seen)
        };
        if let Some(heir) = self.members.keys().min_by_key(rank).cloned() {
            self.give(heir, Duty::Owner);
        }
    }

    /// The oldest message that is kept.
    pub(super) fn kept_from(&self, rules: &retention::Options, newest: u32, now_ns: u64) -> u32 {
        let cutoff_ns = rules.cutoff_ns(now_ns);
        let is_old = |message: &&PlainMessage| message.timestamp_ns < cutoff_ns;
        if self.dismissed {
            return self.messages.len() as u32 + 1;
        }
        let too_old = self.messages.iter().take(newest as usize).take_while(is_old).count() as u32;
        too_old.max(rules.excess(newest)) + 1
    }

    /// Takes the texts out of what was recalled.
    pub(super) fn erase_recalled(&mut self) {
        for msg_index in &self.recalls {
            self.messages[*msg_index as usize - 1].text.clear();
        }
    }

    /// A newcomer has nothing unread.
    fn come(&mut self, user: &str, timestamp_ns: u64) {
        let newest = self.messages.len() as u32;
        if !self.members.contains_key(user) {
            self.joined.insert(user.to_owned(), timestamp_ns);
            self.see(user);
            self.members.insert(user.to_owned(), newest + 1);
            self.cursors.insert(user.to_owned(), newest);
        }
    }

    /// The first message that a user may read; `None` when they are not in.
    pub(super) fn first_readable(&self, key: &ConversationKey, user: &UserId) -> Option<u32> {
        match key {
            ConversationKey::Direct(one, other) => {
                (!self.messages.is_empty() && (user == one || user == other)).then_some(1)
            }
            ConversationKey::Group(_) => self.members.get(user.as_str()).copied(),
        }
    }

    /// What packs that have this much are to say of a user.
    pub(super) fn row_of(&self, key: &ConversationKey, user: &UserId, applied_lsn: u64) -> Option<Row> {
        Some(Row {
            key: key.clone(),
            read_cursor: self.cursors.get(user.as_str()).copied().unwrap_or(0),
            readable_from: self.first_readable(key, user)?,
            messages: self.messages.len() as u32,
            recalls: self.recalls.len() as u32,
            newest_message_ns: self.newest_message_ns,
            greatest_recalled: self.recalls.iter().copied().max().unwrap_or(0),
            applied_lsn,
        })
    }

    /// The same of their block.
    pub(super) fn block_of(&self, key: &ConversationKey, user: &UserId, applied_lsn: u64) -> Option<Row> {
        let blocks = self.blocking.contains(user.as_str());
        blocks.then(|| Row {
            key: key.clone(),
            read_cursor: 0,
            readable_from: 0,
            messages: self.messages.len() as u32,
            recalls: self.recalls.len() as u32,
            newest_message_ns: self.newest_message_ns,
            greatest_recalled: self.recalls.iter().copied().max().unwrap_or(0),
            applied_lsn,
        })
    }

    fn go(&mut self, user: &str) {
        self.members.remove(user);
        self.admins.remove(user);
        if self.owner.as_deref() == Some(user) {
            self.owner = None;
            self.succeed();
        }
    }

    /// Notes in which order people appear.
    fn see(&mut self, user: &str) {
        if !self.seen.iter().any(|seen| seen == user) {
            self.seen.push(user.to_owned());
        }
    }
}

pub(super) fn plain_of(state: &State, old: &Old) -> Plain {
    let user = |number| state.participants.get(number).user.as_str().to_owned();
    let indices = state.history.kept_from()..=state.history.newest_message();
    let messages = indices.map(|index| {
        let stored = state.history.message(index).or_else(|| old.message(index)).expect("indices are dense");
        // What a pack has of a message does not know of later recalls.
        let text = if state.history.recall_of(index) == 0 { stored.msg } else { "" };
        PlainMessage {
            sender: user(stored.sender),
            text: short(text),
            client_msg_id: stored.client_msg_id.to_owned(),
            timestamp_ns: stored.timestamp_ns,
        }
    });
    let rows = state.participants.rows();
    let read = rows.iter().filter(|row| row.read_cursor > 0);
    let members = state.participants.members();
    let of_duty = |duty| {
        let members = state.participants.members().filter(move |(.., it)| it.duty == duty);
        members.map(|(_, row, _)| row.user.as_str().to_owned())
    };
    let group = state.group.as_ref();
    let muted =
        |group: &GroupFacts| group.mutes.iter().map(|it| (user(it.participant), it.until_s)).collect();
    let recalls = 1..=state.history.newest_recall();
    Plain {
        messages: messages.collect(),
        recalls: recalls.map(|index| state.history.recalled_by(index).expect("recalls are dense")).collect(),
        cursors: read.map(|row| (row.user.as_str().to_owned(), row.read_cursor)).collect(),
        members: members.map(|(_, row, it)| (row.user.as_str().to_owned(), it.readable_from)).collect(),
        admins: of_duty(Duty::Admin).collect(),
        owner: of_duty(Duty::Owner).next(),
        name: group.map_or_else(String::new, |group| group.name.clone()),
        muted: group.map_or_else(BTreeMap::new, muted),
        dismissed: group.is_some_and(|group| group.dismissed),
        blocking: USERS
            .iter()
            .filter(|id| state.blocks.by(&state.key, &named(id)))
            .map(|id| (*id).to_owned())
            .collect(),
        joined: BTreeMap::new(),
        seen: Vec::new(),
        hash: state.hash,
        last_lsn: state.applied_lsn,
        newest_message_ns: state.newest_message_ns().unwrap_or(0),
    }
}

/// A text is one letter many times: enough to know it by, and to read.
pub(super) fn short(text: &str) -> String {
    text.chars().next().map_or_else(String::new, |letter| format!("{letter} x {}", text.len()))
}
