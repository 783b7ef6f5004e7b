//! Recovery: what is on disk becomes an archive to load conversations from.
//!
//! Only the indexes of the packs and the log behind them are read, and of a log record only its
//! key: no message is decoded before the node serves. What is torn and what is corrupt in the files
//! is decided by [`crate::snapshot`] and [`crate::wal`].

use std::collections::HashSet;
use std::path::Path;

use super::archive::{Archive, TailRecord};
use super::codec;
use super::publisher::Place;
use super::record::{decode_key, key_bytes_of};
use crate::message::ConversationKey;
use crate::snapshot::{self, Rejected};
use crate::wal::{self, Lsn};

/// Why the node cannot come back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] wal::Error),
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
    pub(crate) archive: Archive,
    /// Conversations with records that no pack covers.
    pub(crate) dirty: Vec<ConversationKey>,
    /// Up to where the snapshot covers the log.
    pub(crate) replay_after: Lsn,
    /// Where the log ended and how.
    pub log: wal::Recovered,
    /// Newer manifests that could not be used: damage, though nothing is lost.
    pub rejected: Vec<Rejected>,
    /// How many conversations there are.
    pub conversations: usize,
    /// How many messages there are, recalled ones included.
    pub messages: u64,
}

/// Reads the snapshot's indexes and the log in `wal_dir`. A torn tail is cut.
pub fn recover(place: &Place, wal_dir: &Path) -> Result<Recovered, Error> {
    let Place { disk, snap_dir, quarantine_dir, store, .. } = place;
    let loaded = snapshot::load_newest(&**disk, snap_dir, store)?;
    let (packs, rejected, after) = match loaded {
        Some(loaded) => (loaded.packs, loaded.rejected, loaded.manifest.replay_after_lsn),
        None => (Vec::new(), Vec::new(), 0),
    };
    let newest_in_packs = packs.iter().flat_map(|pack| pack.entries()).map(|entry| entry.applied_lsn).max();
    let archive = Archive::new(*store, packs);
    let mut dirty = HashSet::new();
    let hash = |record: &wal::Record<'_>| Ok(archive.hash_of_bytes(key_bytes_of(record.payload)?));
    let mut hold = |record: wal::Record<'_>, hash: Result<u128, codec::Error>| {
        hash.and_then(|hash| hold(&archive, &mut dirty, hash, &record)).map_err(|why| Box::new(why) as _)
    };
    let log = wal::replay_prepared(&**disk, wal_dir, quarantine_dir, *store, Lsn(after), &hash, &mut hold)?;
    let covered = newest_in_packs.unwrap_or(0).max(after);
    if log.last_lsn.0 < covered {
        return Err(Error::LogEndsEarly { snapshot: covered, log: log.last_lsn.0 });
    }
    let (conversations, messages) = archive.count();
    let dirty = dirty.into_iter().collect();
    Ok(Recovered { archive, dirty, replay_after: Lsn(after), log, rejected, conversations, messages })
}

/// Keeps a record for when its conversation is loaded.
fn hold(
    archive: &Archive,
    dirty: &mut HashSet<ConversationKey>,
    hash: u128,
    record: &wal::Record<'_>,
) -> Result<(), codec::Error> {
    if archive.hold(hash, TailRecord::of(record)) {
        dirty.insert(decode_key(key_bytes_of(record.payload)?)?);
    }
    Ok(())
}
