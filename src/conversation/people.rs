//! People: who is in which of the conversations that a pack holds.
//!
//! Beside its conversations a pack has *people blocks*: rows of (user, conversation, read cursor, first readable
//! message), sorted by a hash of the user, so that one read of a few KiB tells whose conversations a user's are. The
//! rows are derived from the participants in the pack's chunks and say nothing else: a block that is lost costs an
//! answer and never a message, and merging packs writes it anew.
//!
//! A pack has one series of each conversation in it, and the table of participants is whole in each series. So the
//! rows of one pack are never to be mixed with those of another: which pack's count for a conversation, and what the
//! log has behind them, is the business of [`super::archive`].

use bincode::{BorrowDecode, Encode};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::chunk::{ChunkPeople, people_in};
use super::codec::{self, Error};
use super::record::KeyV1;
use crate::snapshot::{ChunkMeta, IndexEntry, StoreId};

mod pack_people;
mod packing;
#[cfg(test)]
mod tests;

pub(crate) use pack_people::{Error as PeopleError, Found, People, has_blocks};
pub(crate) use packing::ConversationPack;

/// The kind of a people block, as it stands in the pack beside the payload.
pub(crate) const KIND: u8 = 2;
/// Which struct the payload is.
const VERSION: u8 = 1;
/// What the key of a block begins with; the keys of conversations begin with 0 or 1.
const KEY_KIND: u8 = 2;
/// Rows per block end with the row that reaches so many bytes. About 150 rows: a read of a few pages, and an index
/// entry of 80 bytes in memory for each.
const BLOCK_BYTES: usize = 8 << 10;
/// Rows that are held back until they are sorted and written, in bytes with their order. What a pack has more makes
/// further runs, and one more block is read of each: of two million short rows, four. While it grows, a vector may
/// take twice as much.
const RUN_BYTES_MAX: usize = 32 << 20;

/// Messages count from 1. Where a row says 0 it is not about reading: its user blocks the other one of the pair.
const BLOCKS: u32 = 0;

/// Someone in a conversation, or someone who blocks the other one of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub(crate) struct RowV1<'a> {
    pub(crate) user: &'a str,
    pub(crate) key: KeyV1<'a>,
    /// Newest message this user has read; 0 for none.
    pub(crate) read_cursor: u32,
    /// The first message this user may read; or [`BLOCKS`].
    pub(crate) readable_from: u32,
}

impl RowV1<'_> {
    /// Tells it from every other row.
    pub(crate) fn fingerprint(&self) -> u128 {
        let mut bytes = Vec::with_capacity(96);
        codec::encode_into(self, &mut bytes);
        xxh3_128(&bytes)
    }
}

/// What a block holds. Encoded row by row, see [`Rows::blocks`].
#[derive(BorrowDecode)]
struct BlockV1<'a> {
    rows: Vec<RowV1<'a>>,
}

/// How the users of a store are hashed. A function and not a number, so that a test can make two of them collide.
pub(crate) type UserHash<'a> = &'a dyn Fn(&str) -> u64;

/// The hash that sorts the rows of a store: XXH3-64 of the user id, seeded like [`crate::snapshot::key_hash`], so that
/// nobody outside can choose ids that collide.
pub(crate) fn user_hash(store: &StoreId, user: &str) -> u64 {
    let [s0, s1, s2, s3, s4, s5, s6, s7, ..] = *store;
    xxh3_64_with_seed(user.as_bytes(), u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]))
}

/// The rows of a conversation's chunk: of a pair both users, whoever wrote, and one more of each who blocks the other; of
/// a group its members.
pub(crate) fn rows_in<'a>(key: &'a [u8], payload: &'a [u8]) -> Result<Vec<RowV1<'a>>, Error> {
    let ChunkPeople { persons, blocks } = people_in(payload)?;
    if persons.is_empty() && !blocks.is_any() {
        return Ok(Vec::new());
    }
    let key: KeyV1<'a> = codec::decode(key)?;
    let row = |user, read_cursor, readable_from| RowV1 { user, key, read_cursor, readable_from };
    let Some((one, other)) = key.pair() else {
        let members = persons.iter().filter_map(|person| Some((person, person.readable_from?)));
        return Ok(members.map(|(person, from)| row(person.user, person.read_cursor, from)).collect());
    };
    let cursor_of = |user| persons.iter().find(|person| person.user == user).map_or(0, |it| it.read_cursor);
    let has_begun = !persons.is_empty();
    let both = [one, other].into_iter().take(if one == other { 1 } else { 2 }).filter(|_| has_begun);
    let (by_one, by_other) = blocks.by_first_and_second();
    let who_block = [(one, by_one), (other, by_other)].into_iter().filter(|(_, blocks)| *blocks);
    let blocking = who_block.map(|(user, _)| row(user, 0, BLOCKS));
    Ok(both.map(|user| row(user, cursor_of(user), 1)).chain(blocking).collect())
}

/// What the index of a pack tells of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
    rows: u32,
}

impl Span {
    /// As the eight opaque numbers of a pack's index.
    fn to_numbers(self) -> [u32; 8] {
        let Self { first, last, rows } = self;
        [(first >> 32) as u32, first as u32, (last >> 32) as u32, last as u32, rows, 0, 0, 0]
    }

    fn from_numbers(numbers: [u32; 8]) -> Self {
        let [first_high, first_low, last_high, last_low, rows, ..] = numbers;
        let joined = |high, low| u64::from(high) << 32 | u64::from(low);
        Self { first: joined(first_high, first_low), last: joined(last_high, last_low), rows }
    }
}

/// A block to be added to a pack.
struct Block {
    span: Span,
    payload: Vec<u8>,
}

impl Block {
    /// Its place among the blocks of its pack makes its key.
    fn meta(&self, number: u32) -> ChunkMeta {
        let mut key = vec![KEY_KIND];
        key.extend_from_slice(&number.to_be_bytes());
        // Nothing of the log stands in it that is not in the chunks.
        ChunkMeta { key, kind: KIND, version: VERSION, applied_lsn: 0, summary: self.span.to_numbers() }
    }
}

/// The rows of a block. That the index tells the truth about it, and that it is sorted, is checked.
pub(crate) fn rows_of_block<'a>(
    entry: &IndexEntry,
    payload: &'a [u8],
    hash: UserHash<'_>,
) -> Result<Vec<RowV1<'a>>, Error> {
    if (entry.kind, entry.version) != (KIND, VERSION) {
        return Err(Error::Impossible("kind or version"));
    }
    let BlockV1 { rows } = codec::decode(payload)?;
    let hashes: Vec<u64> = rows.iter().map(|row| hash(row.user)).collect();
    let (first, last) = (hashes.first().copied(), hashes.last().copied());
    let span = Span { first: first.unwrap_or(0), last: last.unwrap_or(0), rows: hashes.len() as u32 };
    match span == Span::from_numbers(entry.summary) && hashes.is_sorted() {
        true => Ok(rows),
        false => Err(Error::Impossible("order of people")),
    }
}

/// A block of these rows, as a pack would get it.
#[cfg(test)]
pub(crate) fn block_of(store: &StoreId, rows: &[RowV1<'_>], number: u32) -> (ChunkMeta, Vec<u8>) {
    let mut sorted = Rows::default();
    rows.iter().for_each(|row| sorted.push(user_hash(store, row.user), row));
    sorted.sort();
    let block = sorted.blocks().next().expect("some rows");
    (block.meta(number), block.payload)
}

/// Whether an entry is a people block and not a part of a conversation.
pub(crate) fn is_block(entry: &IndexEntry) -> bool {
    entry.kind == KIND
}

/// Rows as bytes, and their order: 16 bytes and the row itself, which has no allocation of its own.
#[derive(Debug, Default)]
struct Rows {
    bytes: Vec<u8>,
    order: Vec<At>,
}

/// Where a row stands, by the hash of its user.
#[derive(Debug, Clone, Copy)]
struct At {
    hash: u64,
    offset: u32,
    bytes: u32,
}

impl Rows {
    fn push(&mut self, hash: u64, row: &RowV1<'_>) {
        let offset = self.bytes.len();
        codec::encode_into(row, &mut self.bytes);
        let (bytes, offset) = ((self.bytes.len() - offset) as u32, offset as u32);
        self.order.push(At { hash, offset, bytes });
    }

    fn is_full(&self) -> bool {
        self.bytes.len() + self.order.len() * size_of::<At>() >= RUN_BYTES_MAX
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.order.clear();
    }

    fn encoded(&self, at: &At) -> &[u8] {
        &self.bytes[at.offset as usize..(at.offset + at.bytes) as usize]
    }

    /// By hash, and within one hash by user and conversation.
    fn sort(&mut self) {
        let Self { bytes, order } = self;
        let encoded = |at: &At| &bytes[at.offset as usize..(at.offset + at.bytes) as usize];
        order.sort_unstable_by(|a, b| (a.hash, encoded(a)).cmp(&(b.hash, encoded(b))));
    }

    /// The rows under a hash, once they are sorted.
    fn under(&self, hash: u64) -> impl Iterator<Item = RowV1<'_>> {
        let start = self.order.partition_point(|at| at.hash < hash);
        let same = self.order[start..].iter().take_while(move |at| at.hash == hash);
        same.map(|at| codec::decode(self.encoded(at)).expect("it was encoded here"))
    }

    /// The sorted rows as blocks.
    fn blocks(&self) -> impl Iterator<Item = Block> {
        let mut left = self.order.as_slice();
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = left.iter().take_while(|at| {
                let goes_on = bytes < BLOCK_BYTES;
                bytes += at.bytes as usize;
                goes_on
            });
            let (block, rest) = left.split_at(fits.count());
            left = rest;
            (!block.is_empty()).then(|| self.block(block))
        })
    }

    fn block(&self, rows: &[At]) -> Block {
        let hash_of = |at: Option<&At>| at.map_or(0, |at| at.hash);
        let (first, last) = (hash_of(rows.first()), hash_of(rows.last()));
        let span = Span { first, last, rows: rows.len() as u32 };
        // As a list is encoded: how many there are, then one after the other.
        let mut payload = Vec::new();
        codec::encode_into(&(rows.len() as u64), &mut payload);
        rows.iter().for_each(|at| payload.extend_from_slice(self.encoded(at)));
        Block { span, payload }
    }
}
