//! Whose conversations these are, without touching one.
//!
//! Packs answer through their people blocks, the log's tail through the keys and group records in it. The tail's
//! answer names too many rather than too few: what it names has to be asked itself. So does a conversation whose actor
//! runs, of which nothing here knows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::error;

use super::survey::entries_under;
use super::{Archive, TailRecord};
use crate::conversation::chunk::Summary;
use crate::conversation::people::{Found, People, PeopleError as Error, user_hash};
use crate::conversation::record::{Record, decode_key, encode_key, key_bytes_of};
use crate::message::{ConversationKey, UserId};
use crate::snapshot::{IndexEntry, PackReader};

/// A conversation that a user is in, as the packs have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: ConversationKey,
    /// Newest message the user has read; 0 for none.
    pub(crate) read_cursor: u32,
    /// The first message the user may read. 0: the row says that they block the other one of the pair, and nothing of
    /// reading.
    pub(crate) readable_from: u32,
    /// Index of the newest message; 0 for none.
    pub(crate) messages: u32,
    /// Index of the newest recall; 0 for none.
    pub(crate) recalls: u32,
    /// When the newest message was sent, Unix nanoseconds. 0 although there are messages: not known, an older version
    /// wrote the pack.
    pub(crate) newest_message_ns: u64,
    /// The greatest message index that a recall took back. 0 although there are recalls: not known.
    pub(crate) greatest_recalled: u32,
    /// The newest record of the conversation that the packs have.
    pub(crate) applied_lsn: u64,
}

/// Where the newest of a conversation is, when it is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// The log's tail has records of it, so a [`Row`] of it may be old.
    InTail,
    /// The packs have all of it, up to this record.
    InPacks {
        /// As in [`Row::applied_lsn`].
        applied_lsn: u64,
    },
    /// Nothing of it is here.
    Absent,
}

/// What the archive notes about people.
#[derive(Default)]
pub(super) struct Index {
    packs: People,
    /// Made when it is first asked for, gone when the tail is empty.
    tail: Mutex<Option<Arc<TailPeople>>>,
}

/// Who is concerned by the conversations of the tail, sorted by the hash of the user; 32 bytes each.
type TailPeople = Vec<Concern>;

/// A record of the tail that names a user, or begins a conversation of theirs.
#[derive(Clone, Copy)]
struct Concern {
    user: u64,
    /// Which of the conversation's records.
    record: u32,
    conversation: u128,
}

impl Archive {
    /// The conversations that `user` is in, as the packs have them, in no order. Blocks on the disk: one block of about
    /// 8 KiB for each pack, more in a pack of more than half a million people.
    ///
    /// # Errors
    /// When a pack cannot tell: it may hold conversations of this user that nobody else knows of.
    pub(crate) fn people_of(&self, user: &UserId) -> Result<Vec<Row>, Error> {
        let hash = |user: &str| user_hash(&self.store, user);
        let packs = self.packs();
        let mut rows = Vec::new();
        for (number, pack) in packs.iter().enumerate() {
            for found in self.people.packs.in_pack(pack, user, &hash)? {
                let key_hash = self.hash_of_bytes(&encode_key(&found.key));
                let heads = Heads::of(&packs, key_hash);
                // Each pack has the participants whole: only the newest tells who is in.
                if heads.newest.is_some_and(|newest| newest.pack == number) {
                    rows.extend(heads.row(found));
                }
            }
        }
        Ok(rows)
    }

    /// Conversations with records in the log's tail that may concern `user`: pairs with them in, and groups whose
    /// records in the tail name them as coming or going. Ask each of them whether they are in. Blocks when it is asked
    /// for the first time after a start, for as long as it takes to go through the tail.
    pub(crate) fn tail_conversations_of(&self, user: &UserId) -> Vec<ConversationKey> {
        let people = self.tail_people();
        let hash = user_hash(&self.store, user.as_str());
        let start = people.partition_point(|concern| concern.user < hash);
        let tail = self.tail();
        let mut keys = BTreeSet::new();
        for concern in people[start..].iter().take_while(|concern| concern.user == hash) {
            // Gone from the tail once the conversation was loaded.
            let records = tail.get(&concern.conversation);
            let record = records.and_then(|records| records.get(concern.record as usize));
            keys.extend(record.and_then(|record| key_of(&record)).filter(|key| may_concern(key, user)));
        }
        keys.into_iter().collect()
    }

    /// Where the newest of a conversation is.
    pub(crate) fn place_of(&self, key: &ConversationKey) -> Whereabouts {
        let hash = self.hash_of_bytes(&encode_key(key));
        // The tail first: from there it goes into memory and then into a pack.
        if self.tail().contains_key(&hash) {
            return Whereabouts::InTail;
        }
        match Heads::of(&self.packs(), hash).newest {
            Some(Newest { applied_lsn, .. }) => Whereabouts::InPacks { applied_lsn },
            None => Whereabouts::Absent,
        }
    }

    fn tail_people(&self) -> Arc<TailPeople> {
        let mut noted = self.people.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if self.tail().is_empty() {
            *noted = None;
            return Arc::default();
        }
        noted.get_or_insert_with(|| Arc::new(self.note_tail_people())).clone()
    }

    fn note_tail_people(&self) -> TailPeople {
        // Copied, so that nobody who loads a conversation waits.
        let tail: Vec<_> = self.tail().iter().map(|(hash, records)| (*hash, records.clone())).collect();
        let mut people = TailPeople::new();
        for (conversation, records) in tail {
            let mut before: &[u8] = &[];
            for (record, number) in records.iter().zip(0u32..) {
                let mut note = |user: &str| {
                    people.push(Concern { user: user_hash(&self.store, user), record: number, conversation });
                };
                // What has no key was refused by the start. Two keys may share a hash.
                let key = key_bytes_of(record.payload).unwrap_or_default();
                if key != before {
                    before = key;
                    note_pair(key, &mut note);
                }
                note_group(&record, &mut note);
            }
        }
        people.sort_unstable_by_key(|concern| concern.user);
        people
    }
}

fn note_pair(key: &[u8], note: &mut dyn FnMut(&str)) {
    if let Ok(ConversationKey::Direct(one, other)) = decode_key(key) {
        note(one.as_str());
        note(other.as_str());
    }
}

fn note_group(record: &TailRecord<'_>, note: &mut dyn FnMut(&str)) {
    if !Record::is_group(record.kind) {
        return;
    }
    match Record::decode(record.kind, record.payload) {
        Ok(Record::Group(change)) => change.users.into_iter().for_each(note),
        Ok(_) => {}
        // Its group is refused when it is touched; whom it names nobody knows.
        Err(why) => error!(lsn = record.lsn, %why, "a change of a group cannot be read"),
    }
}

/// What the index entries of one conversation say, over all packs.
#[derive(Default)]
struct Heads {
    newest: Option<Newest>,
    newest_message_ns: u64,
    greatest_recalled: u32,
    /// A version that did not say how far recalls reach wrote some of them.
    recalls_unknown: bool,
}

/// The newest chunk with a head.
#[derive(Clone, Copy)]
struct Newest {
    pack: usize,
    summary: Summary,
    applied_lsn: u64,
}

impl Heads {
    fn of(packs: &[Arc<PackReader>], key_hash: u128) -> Self {
        let mut heads = Self::default();
        for (pack, reader) in packs.iter().enumerate() {
            entries_under(reader.entries(), key_hash).iter().for_each(|entry| heads.note(pack, entry));
        }
        heads
    }

    fn note(&mut self, pack: usize, entry: &IndexEntry) {
        let summary = Summary::from_numbers(entry.summary);
        if summary.messages.1 > summary.messages.0 {
            self.newest_message_ns = summary.newest_message_ns;
        }
        self.recalls_unknown |= summary.recalls.1 > summary.recalls.0 && summary.greatest_recalled == 0;
        self.greatest_recalled = self.greatest_recalled.max(summary.greatest_recalled);
        if summary.complete {
            self.newest = Some(Newest { pack, summary, applied_lsn: entry.applied_lsn });
        }
    }

    fn row(&self, found: Found) -> Option<Row> {
        let Newest { summary, applied_lsn, .. } = self.newest?;
        let Found { key, read_cursor, readable_from } = found;
        Some(Row {
            key,
            read_cursor,
            readable_from,
            messages: summary.after().messages,
            recalls: summary.after().recalls,
            newest_message_ns: self.newest_message_ns,
            greatest_recalled: if self.recalls_unknown { 0 } else { self.greatest_recalled },
            applied_lsn,
        })
    }
}

fn key_of(record: &TailRecord<'_>) -> Option<ConversationKey> {
    decode_key(key_bytes_of(record.payload).ok()?).ok()
}

/// Nobody else is ever in a pair; who is in a group, only the group knows.
fn may_concern(key: &ConversationKey, user: &UserId) -> bool {
    match key {
        ConversationKey::Direct(one, other) => user == one || user == other,
        ConversationKey::Group(_) => true,
    }
}
