//! What was appended, in plain vectors, and what must be there after a crash.

use std::collections::BTreeSet;

use super::super::archive::Archive;
use super::super::archive::people::{Row, Whereabouts};
use super::super::history::{self, is_remembered};
use super::super::old::Old;
use super::super::people::PeopleError;
use super::super::record::{Record, extend_hash};
use super::super::retention;
use super::super::state::{Durable, State};
use super::plain::{Plain, plain_of, short};
use crate::message::{ConversationKey, Direction, Draft, Page, Pull, Receipt, UserId};
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

/// What the model expects of a send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    New,
    Retry(Receipt),
    Reused,
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
