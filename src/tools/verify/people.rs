//! Whether the people blocks of a pack say exactly what its conversations say, no more and no less.
//!
//! Needs no memory while they do: sums of hashes are compared. Only where those differ is the pack read again, and
//! each row noted.

use std::collections::HashMap;
use std::sync::Arc;

use super::Findings;
use crate::conversation::codec;
use crate::conversation::people::{RowV1, has_blocks, is_block, rows_in, rows_of_block, user_hash};
use crate::message::ConversationKey;
use crate::snapshot::{Chunk, IndexEntry, PackReader, StoreId};

/// Rows of one pack that are told; of more, only how many there are.
const TOLD_MAX: u64 = 20;

/// What was seen of one pack.
#[derive(Clone)]
pub(super) struct PeopleCheck<'a> {
    pack: &'a Arc<PackReader>,
    store: StoreId,
    /// Over the rows that follow from the conversations, minus those in the blocks.
    difference: u128,
    /// A pack without blocks is older than they are, and in one that cannot be read all rows are doubtful.
    can_be_compared: bool,
}

impl<'a> PeopleCheck<'a> {
    pub(super) fn of(pack: &'a Arc<PackReader>, store: StoreId) -> Self {
        Self { pack, store, difference: 0, can_be_compared: has_blocks(pack) }
    }

    /// Something of the pack cannot be read, which is a finding of its own.
    pub(super) fn give_up(&mut self) {
        self.can_be_compared = false;
    }

    /// Takes over what was seen of other chunks of the pack.
    pub(super) fn add(&mut self, other: &Self) {
        self.difference = self.difference.wrapping_add(other.difference);
        self.can_be_compared &= other.can_be_compared;
    }

    /// Takes the next chunk or block; what is wrong with it by itself is the error.
    pub(super) fn take(&mut self, entry: &IndexEntry, chunk: &Chunk) -> Result<(), String> {
        match rows_of(&self.store, entry, chunk) {
            Ok(rows) if is_block(entry) => {
                self.difference =
                    rows.iter().fold(self.difference, |sum, row| sum.wrapping_sub(row.fingerprint()));
            }
            Ok(rows) => {
                self.difference =
                    rows.iter().fold(self.difference, |sum, row| sum.wrapping_add(row.fingerprint()));
            }
            Err(why) => {
                self.give_up();
                // A chunk that makes no sense is found again, with all that concerns it, when it is loaded.
                if is_block(entry) {
                    return Err(format!("{}: people block: {why}", self.place(entry)));
                }
            }
        }
        Ok(())
    }

    /// After the last one: tells which rows do not agree.
    pub(super) fn finish(self, findings: &mut Findings<'_>) {
        if self.difference == 0 || !self.can_be_compared {
            return;
        }
        let mut counts = HashMap::<u128, i64>::new();
        self.each_row(|entry, row| {
            *counts.entry(row.fingerprint()).or_default() += if is_block(entry) { -1 } else { 1 };
        });
        let mut told = 0;
        self.each_row(|entry, row| match counts.get_mut(&row.fingerprint()) {
            Some(count) if *count < 0 && is_block(entry) => {
                *count += 1;
                told += 1;
                self.tell(entry, row, "a people block says what no conversation says", told, findings);
            }
            Some(count) if *count > 0 && !is_block(entry) => {
                *count -= 1;
                told += 1;
                self.tell(entry, row, "the people blocks do not say", told, findings);
            }
            _ => {}
        });
        if told > TOLD_MAX {
            let (pack, more) = (self.pack.path().display(), told - TOLD_MAX);
            findings.damaged(format!("{pack}: {more} more rows of people are wrong"), &[]);
        }
    }

    fn tell(&self, entry: &IndexEntry, row: &RowV1<'_>, what: &str, nth: u64, findings: &mut Findings<'_>) {
        if nth > TOLD_MAX {
            return;
        }
        let RowV1 { user, read_cursor, readable_from, .. } = row;
        let key: Option<ConversationKey> = row.key.parse().ok();
        let says = format!("{user:?} is in, has read up to {read_cursor} and may read from {readable_from}");
        findings.damaged(format!("{}: {what}: {says}", self.place(entry)), key.as_slice());
    }

    fn each_row(&self, mut visit: impl FnMut(&IndexEntry, &RowV1<'_>)) {
        for (entry, chunk) in self.pack.chunks_in_order() {
            // It could be read a moment ago; if not any more, the rows that are left are told all the same.
            let Ok(chunk) = chunk else { continue };
            let rows = rows_of(&self.store, &entry, &chunk).unwrap_or_default();
            rows.iter().for_each(|row| visit(&entry, row));
        }
    }

    fn place(&self, entry: &IndexEntry) -> String {
        format!("{} at byte {}", self.pack.path().display(), entry.offset)
    }
}

/// The rows in a block, or those that follow from a chunk.
fn rows_of<'a>(
    store: &StoreId,
    entry: &IndexEntry,
    chunk: &'a Chunk,
) -> Result<Vec<RowV1<'a>>, codec::Error> {
    match is_block(entry) {
        true => rows_of_block(entry, &chunk.payload, &|user| user_hash(store, user)),
        false => rows_in(&chunk.meta.key, &chunk.payload),
    }
}
