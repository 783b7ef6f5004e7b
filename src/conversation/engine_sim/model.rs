//! What was appended, in plain vectors, and what must be there after a crash.

use std::collections::{BTreeMap, BTreeSet};

use super::super::record::{GroupChange, Record, extend_hash};
use super::super::state::State;
use crate::message::ConversationKey;

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
    members: BTreeSet<String>,
    hash: u128,
    last_lsn: u64,
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
        let expected = self.plain(key);
        let found = state.map_or_else(Plain::default, plain_of);
        if expected == found {
            Ok(())
        } else {
            Err(format!("{key} is {found:?}\nand should be {expected:?}"))
        }
    }

    fn plain(&self, key: &ConversationKey) -> Plain {
        let mut plain = Plain::default();
        for (appended, lsn) in self.appended.iter().zip(1..).filter(|(appended, _)| appended.key == *key) {
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
        if self.members.insert(user.to_owned()) {
            self.cursors.insert(user.to_owned(), self.messages.len() as u32);
        }
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
    let members = rows.iter().filter(|row| row.membership.is_some());
    let recalls = 1..=state.history.newest_recall();
    Plain {
        messages: messages.map(|stored| (user(stored.sender), short(stored.msg))).collect(),
        recalls: recalls.map(|index| state.history.recalled_by(index).expect("recalls are dense")).collect(),
        cursors: read.map(|row| (row.user.as_str().to_owned(), row.read_cursor)).collect(),
        members: members.map(|row| row.user.as_str().to_owned()).collect(),
        hash: state.hash,
        last_lsn: state.applied_lsn,
    }
}

/// A text is one letter many times: enough to know it by, and to read.
fn short(text: &str) -> String {
    text.chars().next().map_or_else(String::new, |letter| format!("{letter} x {}", text.len()))
}
