//! What was appended, in plain vectors, and what must be there after a crash.

use std::collections::{BTreeMap, BTreeSet};

use super::super::archive::Archive;
use super::super::archive::people::{Row, Whereabouts};
use super::super::record::{GroupChange, Record, extend_hash};
use super::super::state::State;
use crate::message::{ConversationKey, UserId};

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
}

/// A conversation as its records make it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plain {
    /// Sender and text.
    messages: Vec<(String, String)>,
    recalls: Vec<u32>,
    cursors: BTreeMap<String, u32>,
    /// With the first message that each may read.
    members: BTreeMap<String, u32>,
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

    /// Every conversation that has a record.
    pub(super) fn keys(&self) -> BTreeSet<ConversationKey> {
        self.appended.iter().map(|appended| appended.key.clone()).collect()
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
    pub(super) fn check(&self, key: &ConversationKey, state: Option<&State>) -> Result<(), String> {
        let expected = self.plain(key, self.len());
        let found = state.map_or_else(Plain::default, plain_of);
        if expected == found {
            Ok(())
        } else {
            Err(format!("{key} is {found:?}\nand should be {expected:?}"))
        }
    }

    /// Compares whose conversations an archive says these are with what the records say, for each of `users`.
    pub(super) fn check_people(
        &self,
        archive: &Archive,
        keys: &[ConversationKey],
        users: &[UserId],
    ) -> Result<(), String> {
        for user in users {
            let mut found = archive.people_of(user).map_err(|why| format!("{user}: {why}"))?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            let tail = archive.tail_conversations_of(user);
            let mut expected = Vec::new();
            for key in keys {
                let last_lsn = self.plain(key, self.len()).last_lsn;
                let saved = match archive.place_of(key) {
                    // What is behind a row, the conversation itself has to be asked for.
                    Whereabouts::InTail => found.iter().find(|row| row.key == *key).map(|it| it.applied_lsn),
                    Whereabouts::InPacks { applied_lsn } if applied_lsn == last_lsn => Some(last_lsn),
                    Whereabouts::Absent if last_lsn == 0 => None,
                    other => return Err(format!("{key} ends with {last_lsn} and is {other:?}")),
                };
                expected.extend(saved.and_then(|lsn| self.plain(key, lsn).row_of(key, user, lsn)));
                let is_in = self.plain(key, self.len()).first_readable(key, user).is_some();
                if is_in && !tail.contains(key) && !found.iter().any(|row| row.key == *key) {
                    return Err(format!("nobody says that {user} is in {key}"));
                }
            }
            expected.sort_by(|a, b| a.key.cmp(&b.key));
            if found != expected {
                return Err(format!("{user} is said to be in {found:?}\nand should be in {expected:?}"));
            }
        }
        Ok(())
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
        // Whoever is read back has no text of what was recalled.
        for msg_index in plain.recalls.clone() {
            plain.messages[msg_index as usize - 1].1.clear();
        }
        plain
    }
}

impl Plain {
    fn take_over(&mut self, record: &Record<'_>) {
        match record {
            Record::Send(send) => {
                self.messages.push((send.sender.to_owned(), short(send.msg)));
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
            Record::Group(change) => {
                let comes = matches!(change.change(), Ok(GroupChange::Create | GroupChange::Add));
                change.users.iter().for_each(|user| if comes { self.come(user) } else { self.go(user) });
            }
        }
    }

    /// A newcomer has nothing unread.
    fn come(&mut self, user: &str) {
        let newest = self.messages.len() as u32;
        if !self.members.contains_key(user) {
            self.members.insert(user.to_owned(), newest + 1);
            self.cursors.insert(user.to_owned(), newest);
        }
    }

    /// The first message that a user may read; `None` when they are not in.
    fn first_readable(&self, key: &ConversationKey, user: &UserId) -> Option<u32> {
        match key {
            ConversationKey::Direct(one, other) => {
                (self.last_lsn > 0 && (user == one || user == other)).then_some(1)
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

    fn go(&mut self, user: &str) {
        self.members.remove(user);
    }
}

fn plain_of(state: &State) -> Plain {
    let user = |number| state.participants.get(number).user.as_str().to_owned();
    let indices = 1..=state.history.newest_message();
    let messages = indices.map(|index| state.history.message(index).expect("indices are dense"));
    let rows = state.participants.rows();
    let read = rows.iter().filter(|row| row.read_cursor > 0);
    let members = state.participants.members();
    let recalls = 1..=state.history.newest_recall();
    Plain {
        messages: messages.map(|stored| (user(stored.sender), short(stored.msg))).collect(),
        recalls: recalls.map(|index| state.history.recalled_by(index).expect("recalls are dense")).collect(),
        cursors: read.map(|row| (row.user.as_str().to_owned(), row.read_cursor)).collect(),
        members: members.map(|(_, row, it)| (row.user.as_str().to_owned(), it.readable_from)).collect(),
        hash: state.hash,
        last_lsn: state.applied_lsn,
        newest_message_ns: state
            .history
            .message(state.history.newest_message())
            .map_or(0, |newest| newest.timestamp_ns),
    }
}

/// A text is one letter many times: enough to know it by, and to read.
fn short(text: &str) -> String {
    text.chars().next().map_or_else(String::new, |letter| format!("{letter} x {}", text.len()))
}
