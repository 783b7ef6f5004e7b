//! What was appended, in plain vectors, and what must be there after a crash.

use std::collections::{BTreeMap, BTreeSet};

use super::super::archive::Archive;
use super::super::archive::people::{Row, Whereabouts};
use super::super::history::{self, is_remembered};
use super::super::old::Old;
use super::super::people::PeopleError;
use super::super::record::{GroupChange, GroupV1, Record, RelationChange, extend_hash};
use super::super::retention;
use super::super::state::{Durable, GroupFacts, State};
use super::request::{USERS, user as named};
use crate::message::{ConversationKey, Direction, Draft, Duty, Page, Pull, Receipt, UserId};
use crate::snapshot;

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    PowerCut,
    Killed,
}

/// A record that the log accepted; its position is its place in the list, from 1.
struct Appended {
    key: ConversationKey,
    kind: u8,
    payload: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Model {
    appended: Vec<Appended>,
    /// Safe from a power cut up to here.
    pub(super) on_disk: u64,
    /// Acknowledged up to here, as the mode says.
    pub(super) out: u64,
    /// The same in all lives.
    pub(super) retention: retention::Options,
}

#[derive(Debug, PartialEq, Eq)]
struct PlainMessage {
    sender: String,
    text: String,
    client_msg_id: String,
    timestamp_ns: u64,
}

/// What the model expects of a send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    New,
    Retry(Receipt),
    Reused,
}

/// A conversation as its records make it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plain {
    messages: Vec<PlainMessage>,
    recalls: Vec<u32>,
    cursors: BTreeMap<String, u32>,
    /// With the first message that each may read.
    members: BTreeMap<String, u32>,
    admins: BTreeSet<String>,
    owner: Option<String>,
    name: String,
    /// Until when, Unix seconds.
    muted: BTreeMap<String, u64>,
    dismissed: bool,
    /// Who of a pair blocks the other.
    blocking: BTreeSet<String>,
    /// Since when each was in last, and everybody in order of appearance: what decides who succeeds an owner.
    joined: BTreeMap<String, u64>,
    seen: Vec<String>,
    hash: u128,
    last_lsn: u64,
    newest_message_ns: u64,
}

impl Model {
    pub(super) fn append(&mut self, key: &ConversationKey, kind: u8, payload: Vec<u8>) {
        self.appended.push(Appended { key: key.clone(), kind, payload });
    }

    pub(super) fn len(&self) -> u64 {
        self.appended.len() as u64
    }

    /// How many conversations there are: a block makes none.
    pub(super) fn conversations(&self) -> usize {
        let begins = |appended: &&Appended| !Record::is_relation(appended.kind);
        let keys: BTreeSet<_> = self.appended.iter().filter(begins).map(|appended| &appended.key).collect();
        keys.len()
    }

    /// Checks how much came back, and takes it over: history is what is on the disk.
    pub(super) fn recovered(&mut self, last: u64, end: End, sync_failed: bool) -> Result<(), String> {
        let killed_only = end == End::Killed && !sync_failed;
        let must = if killed_only { self.out.max(self.on_disk) } else { self.on_disk };
        if last < must || last > self.len() {
            return Err(format!("{must} of {} records were safe, {last} came back", self.len()));
        }
        self.appended.truncate(last as usize);
        (self.on_disk, self.out) = (last, last);
        Ok(())
    }

    /// Compares a conversation that was read from the disk with its records.
    pub(super) fn check(
        &self,
        key: &ConversationKey,
        state: Option<&State>,
        old: &Old,
        now_ns: u64,
    ) -> Result<(), String> {
        let mut expected = self.plain(key, self.len());
        expected.erase_recalled();
        let found = state.map_or_else(Plain::default, |state| plain_of(state, old));
        let kept_from = state.map_or(1, |state| state.history.kept_from());
        if kept_from > expected.kept_from(&self.retention, expected.messages.len() as u32, now_ns) {
            return Err(format!("{key} begins with {kept_from}: too much is gone"));
        }
        expected.messages.drain(..kept_from as usize - 1);
        if expected == found {
            Ok(())
        } else {
            Err(format!("{key} is {found:?}\nand should be {expected:?}"))
        }
    }

    /// Compares whose conversations an archive says these are with what the records say, for each of `users`. Whatever
    /// is not in its packs is in its tail or, when `some_are_in_memory`, there.
    pub(super) fn check_people(
        &self,
        archive: &Archive,
        keys: &[ConversationKey],
        users: &[UserId],
        some_are_in_memory: bool,
    ) -> Result<(), String> {
        let last: Vec<Plain> = keys.iter().map(|key| self.plain(key, self.len())).collect();
        for user in users {
            let mut found = match archive.people_of(user) {
                Ok(found) => found,
                Err(PeopleError::Snapshot(why)) if matches!(*why, snapshot::Error::Io { .. }) => continue,
                Err(why) => return Err(format!("{user}: {why}")),
            };
            let tail = archive.tail_conversations_of(user);
            let mut expected = Vec::new();
            for (key, last) in keys.iter().zip(&last) {
                let row = found.iter().find(|row| row.key == *key).map(|row| row.applied_lsn);
                let place = archive.place_of(key);
                let saved = match place {
                    // What is behind a row, the conversation itself has to be asked for.
                    Whereabouts::InTail => row,
                    Whereabouts::InPacks { applied_lsn } => Some(applied_lsn),
                    Whereabouts::Absent => None,
                };
                if !some_are_in_memory && place != Whereabouts::InTail && saved.unwrap_or(0) != last.last_lsn
                {
                    return Err(format!("{key} ends with {} and is {place:?}", last.last_lsn));
                }
                expected.extend(saved.map(|lsn| self.rows_of(key, user, lsn, last)).into_iter().flatten());
                let is_in = last.first_readable(key, user).is_some() || last.blocking.contains(user.as_str());
                if is_in && !some_are_in_memory && row.is_none() && !tail.contains(key) {
                    return Err(format!("nobody says that {user} is in {key}"));
                }
            }
            found.sort_by(|a, b| (&a.key, a.readable_from).cmp(&(&b.key, b.readable_from)));
            expected.sort_by(|a, b| (&a.key, a.readable_from).cmp(&(&b.key, b.readable_from)));
            if found != expected {
                return Err(format!("{user} is said to be in {found:?}\nand should be in {expected:?}"));
            }
        }
        Ok(())
    }

    /// What packs that have a conversation up to this record are to say of a user.
    fn rows_of(&self, key: &ConversationKey, user: &UserId, saved: u64, last: &Plain) -> Vec<Row> {
        let rows = |plain: &Plain| {
            let row = plain.row_of(key, user, saved);
            row.into_iter().chain(plain.block_of(key, user, saved)).collect()
        };
        if saved == last.last_lsn { rows(last) } else { rows(&self.plain(key, saved)) }
    }

    /// A conversation as its records up to `last` make it.
    fn plain(&self, key: &ConversationKey, last: u64) -> Plain {
        let mut plain = Plain::default();
        let records = self.appended.iter().zip(1..=last);
        for (appended, lsn) in records.filter(|(appended, _)| appended.key == *key) {
            let record = Record::decode(appended.kind, &appended.payload).expect("it was encoded here");
            plain.take_over(&record);
            plain.hash = extend_hash(plain.hash, appended.kind, &appended.payload);
            plain.last_lsn = lsn;
        }
        plain.cursors.retain(|_, cursor| *cursor > 0);
        // Helps to find who succeeds whom; no state has it in this form.
        (plain.joined, plain.seen) = Default::default();
        plain
    }

    /// What a send is to get.
    pub(super) fn expected_of_send(
        &self,
        key: &ConversationKey,
        sender: &str,
        draft: &Draft,
        options: &history::Options,
        durable: Durable,
        now_ns: u64,
    ) -> Expected {
        let plain = self.plain(key, self.len());
        let kept_from = plain.kept_from(&self.retention, durable.messages, now_ns);
        let newest = plain.messages.len() as u32;
        let same = plain.messages.iter().zip(1..).filter(|(message, index)| {
            let is_same = message.sender == sender && message.client_msg_id == draft.client_msg_id;
            is_same && is_remembered(options, newest, now_ns, *index, message.timestamp_ns)
        });
        match same.last() {
            None => Expected::New,
            Some((first, index))
                if first.text != short(&draft.msg)
                    && !plain.recalls.contains(&index)
                    && index >= kept_from =>
            {
                Expected::Reused
            }
            Some((first, msg_index)) => {
                Expected::Retry(Receipt { msg_index, timestamp_ns: first.timestamp_ns, duplicate: true })
            }
        }
    }

    /// Whether the sender of a new message is muted at that time.
    pub(super) fn is_muted(&self, key: &ConversationKey, sender: &str, now_ns: u64) -> bool {
        let until_s = self.plain(key, self.len()).muted.get(sender).copied().unwrap_or(0);
        now_ns < until_s * 1_000_000_000
    }

    /// Whether the other one of a pair blocks the sender.
    pub(super) fn is_blocked(&self, key: &ConversationKey, sender: &str) -> bool {
        self.plain(key, self.len()).blocking.iter().any(|who| who != sender)
    }

    /// Who sent a message and which recall took it back, 0 for none; `None` when it is absent.
    pub(super) fn message(
        &self,
        key: &ConversationKey,
        msg_index: u32,
        durable: Durable,
        now_ns: u64,
    ) -> Option<(String, u32)> {
        let plain = self.plain(key, self.len());
        if msg_index < plain.kept_from(&self.retention, durable.messages, now_ns) {
            return None;
        }
        let message = plain.messages.get((msg_index as usize).checked_sub(1)?)?;
        let recall = plain.recalls.iter().position(|recalled| *recalled == msg_index);
        Some((message.sender.clone(), recall.map_or(0, |at| at as u32 + 1)))
    }

    /// Compares a page with the records.
    pub(super) fn check_page(
        &self,
        key: &ConversationKey,
        pull: &Pull,
        durable: Durable,
        page: &Page,
        now_ns: u64,
    ) -> Result<(), String> {
        let plain = self.plain(key, self.len());
        let kept_from = plain.kept_from(&self.retention, durable.messages, now_ns);
        let is_pair = matches!(key, ConversationKey::Direct(..));
        if page.min_msg_index < kept_from || is_pair && page.min_msg_index != kept_from {
            return Err(format!("{key}: kept from {kept_from}, and a page says {}", page.min_msg_index));
        }
        let of_message = |index: u32| {
            let message = &plain.messages[index as usize - 1];
            let recall = plain.recalls.iter().position(|recalled| *recalled == index);
            let recall = recall.map(|at| at as u32 + 1).filter(|recall| *recall <= durable.recalls);
            let text = if recall.is_some() { String::new() } else { message.text.clone() };
            (index, recall.unwrap_or(0), message.sender.clone(), message.timestamp_ns, text)
        };
        let oldest = page.min_msg_index;
        let indices = walk(pull, pull.start_msg_index, oldest, durable.messages);
        let expected: Vec<_> = indices.into_iter().map(of_message).collect();
        let found: Vec<_> = page
            .messages()
            .map(|it| (it.msg_index, it.recall_index, it.sender.to_owned(), it.timestamp_ns, short(it.msg)))
            .collect();
        let recalls = walk(pull, pull.start_recall_index, 1, durable.recalls);
        let recalls: Vec<_> =
            recalls.into_iter().map(|index| (index, plain.recalls[index as usize - 1])).collect();
        let bounds = (page.max_msg_index, page.max_recall_index);
        if found == expected && page.recalls == recalls && bounds == (durable.messages, durable.recalls) {
            return Ok(());
        }
        let recalled = &page.recalls;
        Err(format!("{key}: {pull:?} got {found:?} {recalled:?}\nand should get {expected:?} {recalls:?}"))
    }
}

fn walk(pull: &Pull, start: u32, oldest: u32, newest: u32) -> Vec<u32> {
    let mut indices: Vec<u32> = match pull.direction {
        Direction::After => (start.max(oldest)..=newest).collect(),
        Direction::Before => (oldest..=start.min(newest)).rev().collect(),
    };
    indices.truncate(if start == 0 { 0 } else { pull.count as usize });
    indices
}

impl Plain {
    fn take_over(&mut self, record: &Record<'_>) {
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
    fn kept_from(&self, rules: &retention::Options, newest: u32, now_ns: u64) -> u32 {
        let cutoff_ns = rules.cutoff_ns(now_ns);
        let is_old = |message: &&PlainMessage| message.timestamp_ns < cutoff_ns;
        if self.dismissed {
            return self.messages.len() as u32 + 1;
        }
        let too_old = self.messages.iter().take(newest as usize).take_while(is_old).count() as u32;
        too_old.max(rules.excess(newest)) + 1
    }

    /// Takes the texts out of what was recalled.
    fn erase_recalled(&mut self) {
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
    fn first_readable(&self, key: &ConversationKey, user: &UserId) -> Option<u32> {
        match key {
            ConversationKey::Direct(one, other) => {
                (!self.messages.is_empty() && (user == one || user == other)).then_some(1)
            }
            ConversationKey::Group(_) => self.members.get(user.as_str()).copied(),
        }
    }

    /// What packs that have this much are to say of a user.
    fn row_of(&self, key: &ConversationKey, user: &UserId, applied_lsn: u64) -> Option<Row> {
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
    fn block_of(&self, key: &ConversationKey, user: &UserId, applied_lsn: u64) -> Option<Row> {
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

fn plain_of(state: &State, old: &Old) -> Plain {
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
fn short(text: &str) -> String {
    text.chars().next().map_or_else(String::new, |letter| format!("{letter} x {}", text.len()))
}
