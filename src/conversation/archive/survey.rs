//! Everything that an archive holds, for tools: a server asks only for what somebody asks it for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Archive, Held};
use crate::conversation::people::is_block;
use crate::conversation::record::{decode_key, encode_key, key_bytes_of};
use crate::message::ConversationKey;
use crate::snapshot::{IndexEntry, PackReader};

/// What stands in an archive under one hash.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The conversations: one, unless two keys share a hash.
    pub(crate) keys: BTreeSet<ConversationKey>,
    /// How many chunks and tail records name no conversation, because they are damaged.
    pub(crate) nameless: usize,
}

impl Archive {
    /// The hashes of all conversations, ascending, each once.
    pub(crate) fn hashes(&self) -> Vec<u128> {
        let mut hashes: Vec<u128> = self.tail().keys().copied().collect();
        for pack in self.packs().iter() {
            let conversations = pack.entries().iter().filter(|entry| !is_block(entry));
            hashes.extend(conversations.map(|entry| entry.key_hash));
        }
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// What stands under a hash. Reads the names of chunks, not the chunks.
    pub(crate) fn under(&self, hash: u128) -> Found {
        let mut found = Found::default();
        for pack in self.packs().iter() {
            for entry in entries_under(pack.entries(), hash) {
                let key = pack.key(entry).ok().and_then(|bytes| decode_key(&bytes).ok());
                found.note(key);
            }
        }
        if let Some(records) = self.tail().get(&hash) {
            found.note_records(records);
        }
        found
    }

    /// How many bytes stand under a hash, from the indexes alone.
    pub(crate) fn bytes_under(&self, hash: u128) -> u64 {
        let packs = self.packs();
        let entries = packs.iter().flat_map(|pack| entries_under(pack.entries(), hash));
        let in_packs: u64 = entries.map(|entry| u64::from(entry.bytes)).sum();
        let tail = self.tail();
        let records = tail.get(&hash).into_iter().flat_map(|records| records.rows());
        in_packs + records.map(|record| record.payload.len() as u64).sum::<u64>()
    }

    /// Whether the packs have exactly the chunks of a conversation that `other`'s have: the same places of the same files.
    pub(crate) fn has_the_chunks_of(&self, other: &Self, key: &ConversationKey) -> bool {
        let hash = self.hash_of_bytes(&encode_key(key));
        places(&self.packs(), hash).eq(places(&other.packs(), hash))
    }

    /// Takes out what the tail has of a conversation.
    pub(crate) fn take_tail(&self, hash: u128) -> Arc<Held> {
        self.tail().remove(&hash).unwrap_or_default()
    }
}

impl Found {
    fn note(&mut self, key: Option<ConversationKey>) {
        match key {
            Some(key) => drop(self.keys.insert(key)),
            None => self.nameless += 1,
        }
    }

    /// Decodes a key only where it is another than the one before: nearly always they are all the same.
    fn note_records(&mut self, records: &Held) {
        let mut before: &[u8] = &[];
        for record in records.iter() {
            match key_bytes_of(record.payload) {
                Ok(key) if key == before => {}
                Ok(key) => {
                    let decoded = decode_key(key).ok();
                    before = if decoded.is_some() { key } else { &[] };
                    self.note(decoded);
                }
                Err(_) => self.nameless += 1,
            }
        }
    }
}

/// Where the chunks under a hash are, in their order.
fn places(packs: &[Arc<PackReader>], hash: u128) -> impl Iterator<Item = (*const PackReader, u64)> {
    packs.iter().flat_map(move |pack| {
        entries_under(pack.entries(), hash).iter().map(move |entry| (Arc::as_ptr(pack), entry.offset))
    })
}

/// The entries of one conversation, or of the few that share a hash, in their order.
pub(super) fn entries_under(entries: &[IndexEntry], hash: u128) -> &[IndexEntry] {
    let start = entries.partition_point(|entry| entry.key_hash < hash);
    let behind = &entries[start..];
    &behind[..behind.partition_point(|entry| entry.key_hash == hash)]
}
