//! Recovery: the newest snapshot, then the log behind it, become the conversations as they were.
//!
//! Nothing is guessed: a chunk or record that does not continue what is there stops the start.
//! What is torn and what is corrupt in the files is decided by [`crate::snapshot`] and
//! [`crate::wal`].

use std::path::PathBuf;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::checkpoint::Place;
use super::chunk::{self, Loader, Saved};
use super::codec;
use super::record::{KeyV1, Record, decode_key, extend_hash};
use super::resident::Resident;
use super::state::{Inconsistent, State};
use crate::message::ConversationKey;
use crate::snapshot::{self, Manifest, Rejected};
use crate::wal::{self, Lsn};

/// Why the conversations cannot be brought back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] wal::Error),
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
    /// The last chunk of a conversation is missing.
    #[error(transparent)]
    Incomplete(#[from] Inconsistent),
    /// The snapshot has records that the log lost.
    #[error("the snapshot covers record {snapshot}, the log ends at {log}: part of the log is missing")]
    LogEndsEarly {
        /// The newest record in the snapshot.
        snapshot: u64,
        /// The newest record in the log.
        log: u64,
    },
}

/// What recovery found.
pub struct Recovered {
    pub(crate) residents: Vec<Resident>,
    pub(crate) manifest: Option<Manifest>,
    /// Where the log ended and how.
    pub log: wal::Recovered,
    /// Newer manifests that could not be used: damage, though nothing is lost yet.
    pub rejected: Vec<Rejected>,
}

impl Recovered {
    /// How many conversations there are.
    pub fn conversations(&self) -> usize {
        self.residents.len()
    }

    /// How many messages there are, recalled ones included.
    pub fn messages(&self) -> u64 {
        self.residents.iter().map(|resident| u64::from(resident.state.history.newest_message())).sum()
    }
}

/// Reads the snapshot and the log in `wal_dir`. A torn tail is cut.
pub fn recover(place: &Place, wal_dir: &std::path::Path) -> Result<Recovered, Error> {
    let Place { disk, snap_dir, quarantine_dir, store, .. } = place;
    let mut table = Table::default();
    let loaded = snapshot::load_newest(&**disk, snap_dir, store)?;
    let (manifest, rejected) = match loaded {
        Some(loaded) => {
            table.load(&loaded.packs)?;
            (Some(loaded.manifest), loaded.rejected)
        }
        None => (None, Vec::new()),
    };
    let after = manifest.as_ref().map_or(0, |manifest| manifest.replay_after_lsn);
    let mut replay = |record: wal::Record<'_>| table.replay(&record).map_err(|why| Box::new(why) as _);
    let log = wal::replay(&**disk, wal_dir, quarantine_dir, *store, Lsn(after), &mut replay)?;
    let covered = table.newest_lsn().max(after);
    if log.last_lsn.0 < covered {
        return Err(Error::LogEndsEarly { snapshot: covered, log: log.last_lsn.0 });
    }
    Ok(Recovered { residents: table.residents, manifest, log, rejected })
}

/// Why a record cannot be taken over.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    Codec(#[from] codec::Error),
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
}

/// The conversations in the making, found by the key inside a record without owning it.
#[derive(Default)]
struct Table {
    residents: Vec<Resident>,
    index: HashTable<u32>,
}

impl Table {
    fn load(&mut self, packs: &[snapshot::PackReader]) -> Result<(), Error> {
        let mut loaders = std::collections::HashMap::<ConversationKey, Loader>::new();
        for pack in packs {
            for (entry, chunk) in pack.chunks_in_order() {
                let chunk = chunk?;
                load_chunk(&mut loaders, &chunk).map_err(|why| Error::Chunk {
                    pack: pack.path().to_path_buf(),
                    offset: entry.offset,
                    why,
                })?;
            }
        }
        for loader in loaders.into_values() {
            let (state, saved) = loader.finish()?;
            self.add(state, saved);
        }
        Ok(())
    }

    fn add(&mut self, state: State, saved: Saved) -> u32 {
        let number = self.residents.len() as u32;
        let hash = key_hash(&KeyV1::of(&state.key));
        self.residents.push(Resident::recovered(state, saved, false));
        let residents = &self.residents;
        let rehash = |number: &u32| key_hash(&KeyV1::of(&residents[*number as usize].state.key));
        self.index.insert_unique(hash, number, rehash);
        number
    }

    fn replay(&mut self, record: &wal::Record<'_>) -> Result<(), RecordError> {
        let content = Record::decode(record.kind, record.payload)?;
        let number = self.number_of(content.key())?;
        let resident = &mut self.residents[number as usize];
        if record.lsn.0 <= resident.state.applied_lsn {
            return Ok(());
        }
        let hash = extend_hash(resident.state.hash, record.kind, record.payload);
        resident.state.apply(&content, record.lsn.0, hash)?;
        resident.state.history.erase_through(resident.state.history.newest_recall());
        resident.dirty = true;
        Ok(())
    }

    /// The row of a conversation, which begins if it is new.
    fn number_of(&mut self, key: &KeyV1<'_>) -> Result<u32, codec::Error> {
        let residents = &self.residents;
        let is_it = |number: &u32| KeyV1::of(&residents[*number as usize].state.key) == *key;
        let rehash = |number: &u32| key_hash(&KeyV1::of(&residents[*number as usize].state.key));
        match self.index.entry(key_hash(key), is_it, rehash) {
            Entry::Occupied(row) => Ok(*row.get()),
            Entry::Vacant(_) => Ok(self.add(State::new(key.parse()?), Saved::default())),
        }
    }

    fn newest_lsn(&self) -> u64 {
        self.residents.iter().map(|resident| resident.state.applied_lsn).max().unwrap_or(0)
    }
}

fn load_chunk(
    loaders: &mut std::collections::HashMap<ConversationKey, Loader>,
    chunk: &snapshot::Chunk,
) -> Result<(), chunk::Error> {
    if (chunk.meta.kind, chunk.meta.version) != (chunk::KIND, chunk::VERSION) {
        return Err(codec::Error::Impossible("kind or version").into());
    }
    let key = decode_key(&chunk.meta.key)?;
    let loader = loaders.entry(key).or_insert_with_key(|key| Loader::new(key.clone()));
    loader.load(chunk.meta.applied_lsn, &chunk.payload)
}

fn key_hash(key: &KeyV1<'_>) -> u64 {
    let (kind, first, second) = key.parts();
    let seed = xxh3_64_with_seed(second.as_bytes(), u64::from(kind));
    xxh3_64_with_seed(first.as_bytes(), seed)
}
