//! The archive: what of the conversations is on disk but not in memory.
//!
//! It holds the open packs of the current snapshot, and the log's tail as recovery found it: the
//! records that no pack covers yet. A conversation that nobody touches costs its entries in the
//! packs' indexes and nothing else. [`Archive::load`] brings one into memory.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::chunk::{self, Loader, Saved, Summary};
use super::codec;
use super::history;
use super::people::is_block;
use super::record::{Record, encode_key, extend_hash, key_bytes_of};
use super::resident::Resident;
use super::state::{Inconsistent, State};
use crate::disk::tells_of_loss;
use crate::message::ConversationKey;
use crate::snapshot::{self, Chunk, ChunkMeta, IndexEntry, PackReader, StoreId, key_hash};

mod pages;
pub(crate) mod people;
mod recent;
pub(crate) mod survey;
mod tail;

use self::tail::Tail;
pub(crate) use self::tail::{Held, TailRecord};

/// Why a conversation cannot be brought into memory. It is damaged, not absent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pack cannot be read, or a chunk in it is damaged.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A chunk is whole, but not what this version wrote, or does not continue the ones before.
    #[error("{}, chunk at byte {offset}: {why}", pack.display())]
    Chunk {
        /// The file.
        pack: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        why: chunk::Error,
    },
    /// Its last chunk is missing.
    #[error(transparent)]
    Incomplete(#[from] Inconsistent),
    /// A log record does not continue it.
    #[error("log record {lsn}: {why}")]
    Record {
        /// Which record.
        lsn: u64,
        /// What does not fit.
        why: RecordError,
    },
}

impl Error {
    /// Whether the data is bad, as opposed to: could not be read this time.
    pub(crate) fn is_damage(&self) -> bool {
        !matches!(self, Self::Snapshot(snapshot::Error::Io { .. }))
    }

    /// Whether it says nothing of the data, so that the next try may do.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Snapshot(snapshot::Error::Io { source, .. }) if !tells_of_loss(source))
    }
}

/// Why a record cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] codec::Error),
    /// It does not continue its conversation.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
}

/// What is on disk.
pub(crate) struct Archive {
    store: StoreId,
    packs: RwLock<Arc<[Arc<PackReader>]>>,
    /// Bounded by the log between two checkpoints; empties as conversations are loaded.
    tail: Mutex<Tail>,
    people: people::Index,
    /// How much of a conversation is loaded.
    pub(crate) history: history::Options,
    cache: pages::Cache,
}

impl Archive {
    /// The archive of these packs, oldest first, without a tail.
    pub(crate) fn new(store: StoreId, packs: Vec<PackReader>) -> Self {
        let packs: Arc<[_]> = packs.into_iter().map(Arc::new).collect();
        let (tail, people, history, cache) = Default::default();
        Self { store, packs: RwLock::new(packs), tail, people, history, cache }
    }

    /// The name under which a conversation stands in here, by the bytes of its key.
    pub(crate) fn hash_of_bytes(&self, key: &[u8]) -> u128 {
        key_hash(&self.store, key)
    }

    /// Adds a record behind those of its conversation. Whether it continues is found on loading.
    /// True when it is the conversation's first in the tail.
    pub(crate) fn hold(&self, hash: u128, record: TailRecord<'_>) -> bool {
        let mut tail = self.tail();
        let records = Arc::make_mut(tail.entry(hash).or_default());
        records.push(record);
        records.len() == 1
    }

    /// Makes these records, in the order of the log, what the tail has of a conversation.
    pub(crate) fn hold_again(&self, key: &[u8], records: &Held) {
        let hash = self.hash_of_bytes(key);
        let mut tail = self.tail();
        let held = tail.remove(&hash).unwrap_or_default();
        // Two keys may share a hash.
        let of_others = held.iter().filter(|record| key_bytes_of(record.payload).is_ok_and(|of| of != key));
        let mut all: Vec<TailRecord<'_>> = of_others.chain(records.iter()).collect();
        all.sort_unstable_by_key(|record| record.lsn);
        if !all.is_empty() {
            tail.insert(hash, Arc::new(all.into_iter().collect()));
        }
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current packs, oldest first.
    pub(crate) fn packs(&self) -> Arc<[Arc<PackReader>]> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes these the current packs. Loads under way go on with the ones before.
    pub(crate) fn replace_packs(&self, packs: Vec<Arc<PackReader>>) {
        *self.packs.write().unwrap_or_else(PoisonError::into_inner) = packs.into();
    }

    /// Whether anything of the conversation is here.
    pub(crate) fn has(&self, key: &ConversationKey) -> bool {
        let bytes = encode_key(key);
        let in_packs = self.packs().iter().any(|pack| !pack.entries_of(&bytes).is_empty());
        in_packs || self.tail().contains_key(&key_hash(&self.store, &bytes))
    }

    /// The first record of the conversation in the tail.
    pub(crate) fn tail_begins_at(&self, key: &ConversationKey) -> Option<u64> {
        let hash = self.hash_of_bytes(&encode_key(key));
        self.tail().get(&hash)?.get(0).map(|record| record.lsn)
    }

    /// How much of the conversation the packs have.
    pub(crate) fn saved(&self, key: &ConversationKey) -> Saved {
        let bytes = encode_key(key);
        let newest = self.packs().iter().rev().find_map(|pack| pack.entries_of(&bytes).last().copied());
        newest.map_or_else(Saved::default, |entry| Summary::from_numbers(entry.summary).after())
    }

    /// Whether the packs have all messages of a conversation from the first on, and no recall. Two keys may share a hash:
    /// then the answer may be no.
    pub(crate) fn is_as_sent(&self, key: &ConversationKey) -> bool {
        let (bytes, packs) = (encode_key(key), self.packs());
        let entries = packs.iter().flat_map(|pack| pack.entries_of(&bytes));
        let summaries: Vec<_> = entries.map(|entry| Summary::from_numbers(entry.summary)).collect();
        summaries.first().is_some_and(|first| first.messages.0 == 0)
            && summaries.iter().all(|summary| summary.recalls.1 == 0 && !summary.hollow)
    }

    /// Brings a conversation into memory, of a long one the recent part; `None` when nothing of it is
    /// here.
    ///
    /// Whoever looks for the conversation in the tail finds it there until `tell` has returned.
    pub(crate) fn load(
        &self,
        key: &ConversationKey,
        now_ns: u64,
        tell: impl FnOnce(&State),
    ) -> Result<Option<Resident>, Error> {
        let mut loaded = self.load_recent_chunks(key, now_ns)?;
        if let Some(state) = &mut loaded {
            state.history.set_options(self.history);
            state.history.trim(state.history.newest_message());
        }
        self.load_tail(key, loaded, tell)
    }

    /// The same with everything of it, however long it is.
    pub(crate) fn load_whole(&self, key: &ConversationKey) -> Result<Option<Resident>, Error> {
        self.load_tail(key, self.load_chunks(key)?, |_| ())
    }

    /// Takes over what the tail has of a conversation, behind what the packs have.
    fn load_tail(
        &self,
        key: &ConversationKey,
        loaded: Option<State>,
        tell: impl FnOnce(&State),
    ) -> Result<Option<Resident>, Error> {
        let key_bytes = encode_key(key);
        let hash = self.hash_of_bytes(&key_bytes);
        // Taken out only after it was applied: a failed load must not lose it.
        let tail = self.tail().get(&hash).cloned().unwrap_or_default();
        if loaded.is_none() && tail.is_empty() {
            return Ok(None);
        }
        let mut state = loaded.unwrap_or_else(|| State::with(key.clone(), self.history));
        let before = state.applied_lsn;
        for record in tail.iter() {
            replay(&mut state, &key_bytes, &record).map_err(|why| Error::Record { lsn: record.lsn, why })?;
        }
        if !tail.is_empty() {
            tell(&state);
        }
        self.drop_tail_of(hash);
        Ok(Some(Resident::loaded(state, before)))
    }

    fn drop_tail_of(&self, hash: u128) {
        let mut tail = self.tail();
        let was_last = tail.remove(&hash).is_some() && tail.is_empty();
        if was_last {
            // With its empty slots: as many as the conversations that a start found in the log.
            *tail = Tail::default();
        }
    }

    /// What the packs have of a conversation, without the tail.
    pub(crate) fn load_chunks(&self, key: &ConversationKey) -> Result<Option<State>, Error> {
        let bytes = encode_key(key);
        let mut loader = None;
        for pack in self.packs().iter() {
            for entry in pack.entries_of(&bytes) {
                let chunk = pack.chunk(entry)?;
                // Two keys may share a hash; the key inside decides.
                if chunk.meta.key == bytes {
                    let loader = loader.get_or_insert_with(|| Loader::new(key.clone()));
                    load_chunk(loader, pack, entry, &chunk)?;
                }
            }
        }
        Ok(loader.map(Loader::finish).transpose()?)
    }

    /// How many conversations and messages there are, from the indexes and the tail alone. Pairs in which only blocks
    /// were set are none.
    pub(crate) fn count(&self) -> (usize, u64) {
        let mut found = HashMap::<u128, Counted>::new();
        for pack in self.packs().iter() {
            for entry in pack.entries().iter().filter(|entry| !is_block(entry)) {
                let summary = Summary::from_numbers(entry.summary);
                let row = found.entry(entry.key_hash).or_default();
                (row.messages, row.lsn) = (summary.after().messages, entry.applied_lsn);
                row.has_begun |= !summary.unbegun;
            }
        }
        for (hash, records) in self.tail().iter() {
            let row = found.entry(*hash).or_default();
            let lsn = row.lsn;
            for record in records.rows().filter(|record| record.lsn > lsn) {
                row.messages += u32::from(Record::is_send(record.kind));
                row.has_begun |= !Record::is_relation(record.kind);
            }
        }
        let begun = found.values().filter(|row| row.has_begun);
        (begun.count(), found.values().map(|row| u64::from(row.messages)).sum())
    }
}

/// What indexes and tail tell of a conversation.
#[derive(Default)]
struct Counted {
    messages: u32,
    lsn: u64,
    has_begun: bool,
}

fn load_chunk(
    loader: &mut Loader,
    pack: &PackReader,
    entry: &IndexEntry,
    chunk: &Chunk,
) -> Result<(), Error> {
    let ChunkMeta { kind, version, .. } = chunk.meta;
    let known = kind == chunk::KIND && (chunk::VERSION..=chunk::VERSION_WITH_MARKS).contains(&version);
    let result = match known {
        true => loader.load(chunk.meta.applied_lsn, &chunk.payload).map(|()| {
            let summary = Summary::from_numbers(entry.summary);
            if summary.hollow {
                loader.keep_behind(summary.messages.1);
            }
        }),
        false => Err(codec::Error::Impossible("kind or version").into()),
    };
    result.map_err(|why| chunk_error(pack, entry, why))
}

fn chunk_error(pack: &PackReader, entry: &IndexEntry, why: chunk::Error) -> Error {
    Error::Chunk { pack: pack.path().to_path_buf(), offset: entry.offset, why }
}

/// Applies a record, unless the state has it already or it is another conversation's: two keys may
/// share a hash.
pub(crate) fn replay(state: &mut State, key: &[u8], record: &TailRecord<'_>) -> Result<(), RecordError> {
    if record.lsn <= state.applied_lsn || key_bytes_of(record.payload)? != key {
        return Ok(());
    }
    let content = Record::decode(record.kind, record.payload)?;
    let hash = extend_hash(state.hash, record.kind, record.payload);
    state.apply(&content, record.lsn, hash)?;
    state.history.erase_through(state.history.newest_recall());
    Ok(())
}
