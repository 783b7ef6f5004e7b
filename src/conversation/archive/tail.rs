//! The log's tail in memory: of each conversation the records that no pack covers, until it is loaded.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::sync::Arc;

use crate::wal;

/// The records of each conversation, by the hash of its key. Shared with whoever loads one, so that nobody waits while a
/// long tail is copied.
pub(super) type Tail = HashMap<u128, Arc<Held>, BuildHasherDefault<AsItIs>>;

/// Records that are brought near together: more than the processor asks for at a time, and no more than a core's cache holds.
const TOUCHED: usize = 64;
/// What is brought near with one byte, and how many of them at most: the processor goes on by itself in a longer payload.
const LINE_BYTES: usize = 64;
const LINES: usize = 8;

/// A record of the log's tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailRecord<'a> {
    pub(crate) lsn: u64,
    pub(crate) kind: u8,
    pub(crate) payload: &'a [u8],
}

impl<'a> TailRecord<'a> {
    /// As it stands in the log.
    pub(crate) fn of(record: &wal::Record<'a>) -> Self {
        Self { lsn: record.lsn.0, kind: record.kind, payload: record.payload }
    }
}

/// What is held of one conversation, or of the few that share a hash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held(Vec<OwnedRecord>);

#[derive(Debug, Clone)]
struct OwnedRecord {
    lsn: u64,
    kind: u8,
    payload: Box<[u8]>,
}

impl OwnedRecord {
    fn view(&self) -> TailRecord<'_> {
        TailRecord { lsn: self.lsn, kind: self.kind, payload: &self.payload }
    }
}

impl Held {
    /// Adds a record behind the others.
    pub(crate) fn push(&mut self, record: TailRecord<'_>) {
        let TailRecord { lsn, kind, payload } = record;
        self.0.push(OwnedRecord { lsn, kind, payload: payload.into() });
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The record with this number; the first is 0.
    pub(crate) fn get(&self, number: usize) -> Option<TailRecord<'_>> {
        self.0.get(number).map(OwnedRecord::view)
    }

    /// All of them, in their order, for whoever looks at few of their payloads.
    pub(crate) fn rows(&self) -> impl Iterator<Item = TailRecord<'_>> {
        self.0.iter().map(OwnedRecord::view)
    }

    /// All of them, in their order, for whoever decodes them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = TailRecord<'_>> {
        self.0.chunks(TOUCHED).flat_map(|records| {
            touch(records);
            records.iter().map(OwnedRecord::view)
        })
    }
}

/// The payloads of a conversation lie between those of all others. Decoding them one by one waits for memory at each,
/// as nothing of the next is known before; here the processor asks for many at a time.
fn touch(records: &[OwnedRecord]) {
    let lines = records.iter().flat_map(|record| record.payload.iter().step_by(LINE_BYTES).take(LINES));
    black_box(lines.fold(0, |all, byte| all ^ byte));
}

impl<'a> FromIterator<TailRecord<'a>> for Held {
    fn from_iter<T: IntoIterator<Item = TailRecord<'a>>>(records: T) -> Self {
        let mut held = Self::default();
        records.into_iter().for_each(|record| held.push(record));
        held
    }
}

/// A key's hash needs no second one: it is seeded with the store's id, so nobody chooses where it falls.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }

    /// Nobody hashes anything else.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
}
