//! The publisher: the one place where packs become current.
//!
//! Checkpoints and compaction both make packs, each on its own thread. Publishing, pruning and
//! cutting the log happen here, one at a time, in the order that a crash at any point survives.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::archive::Archive;
use super::completion::Ticket;
use super::kept_log::KeptLog;
use super::people::ConversationPack;
use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::snapshot::{self, Manifest, PackInfo, PackReader, PackWriter, StoreId};
use crate::wal::{self, Lsn, SegmentFile, Wal};

/// Where snapshots live.
#[derive(Clone)]
pub struct Place {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// `snap/` of the data directory.
    pub snap_dir: PathBuf,
    /// `tmp/` of the data directory.
    pub tmp_dir: PathBuf,
    /// `quarantine/` of the data directory.
    pub quarantine_dir: PathBuf,
    /// The store they belong to.
    pub store: StoreId,
    /// The epoch of the data directory.
    pub epoch: u32,
}

impl Place {
    /// The place in an open data directory.
    pub fn of(data: &DataDir, disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            snap_dir: data.snap_dir(),
            tmp_dir: data.tmp_dir(),
            quarantine_dir: data.quarantine_dir(),
            store: data.format().store,
            epoch: data.format().epoch,
        }
    }
}

/// Why nothing was published. The log still has everything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pack or manifest could not be written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The log could not be synced or cut.
    #[error(transparent)]
    Log(#[from] wal::Error),
}

/// What was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) pack_bytes: u64,
    pub(crate) segments_removed: usize,
}

/// What publishing does to the log, as two calls: the simulation of crashes has a log without threads.
pub(crate) struct LogEnds {
    /// Waits until everything appended before is on the disk.
    pub(crate) wait_for_disk: Box<dyn Fn() -> Result<Lsn, wal::Error> + Send + Sync>,
    /// The segments there are, oldest first.
    pub(crate) segments: Box<dyn Fn() -> Vec<SegmentFile> + Send + Sync>,
    /// Removes whole segments below a position; says how many.
    pub(crate) remove_below: Box<dyn Fn(Lsn) -> Result<usize, wal::Error> + Send + Sync>,
}

impl LogEnds {
    /// Those of the running log.
    pub(crate) fn of(log: &Arc<Wal<Ticket>>) -> Self {
        let (end, all, beginning) = (log.clone(), log.clone(), log.clone());
        Self {
            wait_for_disk: Box::new(move || end.wait_for_disk()),
            segments: Box::new(move || all.segments()),
            remove_below: Box::new(move |lsn| beginning.remove_below(lsn)),
        }
    }
}

/// Publishes packs.
pub(crate) struct Publisher {
    pub(crate) place: Place,
    archive: Arc<Archive>,
    log: LogEnds,
    /// Numbers of packs and manifests; each is used once.
    next_number: AtomicU64,
    /// Up to where the current manifest covers the log.
    replay_after: Mutex<Lsn>,
    kept: Mutex<KeptLog>,
}

impl Publisher {
    /// The publisher behind the manifest that is current.
    pub(crate) fn new(
        place: Place,
        archive: Arc<Archive>,
        log: LogEnds,
        replay_after: Lsn,
        keep_log: Duration,
    ) -> Result<Self, snapshot::Error> {
        let next_number = snapshot::next_number(&*place.disk, &place.snap_dir)?.into();
        let kept = Mutex::new(KeptLog::new(keep_log));
        Ok(Self { place, archive, log, next_number, replay_after: Mutex::new(replay_after), kept })
    }

    /// Calls `take` while nothing is published, pruned or cut: with the log's segments and the newest record in them
    /// that is on the disk. Checkpoints and compaction wait meanwhile; actors and the log do not.
    pub(crate) fn hold_still<T>(&self, take: impl FnOnce(&[SegmentFile], Lsn) -> T) -> Result<T, wal::Error> {
        self.with_log(|_covered, segments, last| take(segments, last))
    }

    /// The same, with the record up to which the current manifest, or packs it names, have everything.
    pub(crate) fn with_log<T>(
        &self,
        take: impl FnOnce(Lsn, &[SegmentFile], Lsn) -> T,
    ) -> Result<T, wal::Error> {
        let covered = self.replay_after.lock().unwrap_or_else(PoisonError::into_inner);
        let last = (self.log.wait_for_disk)()?;
        Ok(take(*covered, &(self.log.segments)(), last))
    }

    pub(crate) fn archive(&self) -> &Archive {
        &self.archive
    }

    fn take_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins a pack.
    pub(crate) fn create_pack(&self) -> Result<ConversationPack, snapshot::Error> {
        let Place { disk, tmp_dir, snap_dir, store, .. } = &self.place;
        let pack = PackWriter::create(disk.clone(), tmp_dir, snap_dir, *store, self.take_number())?;
        Ok(ConversationPack::new(pack, *store))
    }

    /// Publishes a pack behind the current ones. The log is not needed any more up to `covered`.
    ///
    /// Everything in the pack must be in the log; it is synced here, so that the snapshot is never
    /// ahead of the log under any sync mode.
    pub(crate) fn append(&self, pack: ConversationPack, covered: Lsn) -> Result<Published, Error> {
        let mut replay_after = self.replay_after.lock().unwrap_or_else(PoisonError::into_inner);
        (self.log.wait_for_disk)()?;
        let added = self.finish(pack)?;
        let mut packs = self.archive.packs().to_vec();
        packs.push(added.clone());
        // Never back: the log may have been cut up to there already.
        let covered = covered.max(*replay_after);
        self.publish(packs, covered)?;
        *replay_after = covered;
        Ok(Published { pack_bytes: added.info().bytes, segments_removed: self.clean_up() })
    }

    /// Takes note that published packs have everything up to `covered`; the next manifest says so.
    pub(crate) fn cover(&self, covered: Lsn) {
        let mut replay_after = self.replay_after.lock().unwrap_or_else(PoisonError::into_inner);
        *replay_after = covered.max(*replay_after);
    }

    /// Publishes a pack in the place of the packs it was merged from, which stand side by side.
    ///
    /// With `for_good` the packs it was merged from leave the disk at once, and with them the texts
    /// that were recalled, or it is an error; otherwise one more publish later, because the manifest
    /// before names them.
    pub(crate) fn replace(
        &self,
        run: &[Arc<PackReader>],
        mut pack: ConversationPack,
        for_good: bool,
    ) -> Result<Published, Error> {
        // Most of the work of finishing is this sync: nobody waits for the lock meanwhile.
        pack.settle()?;
        let replay_after = self.replay_after.lock().unwrap_or_else(PoisonError::into_inner);
        let merged = self.finish(pack)?;
        let is_merged = |pack: &Arc<PackReader>| run.iter().any(|old| old.info() == pack.info());
        let mut packs = Vec::new();
        for pack in self.archive.packs().iter() {
            match is_merged(pack) {
                false => packs.push(pack.clone()),
                true if packs.last().is_some_and(|last| Arc::ptr_eq(last, &merged)) => {}
                true => packs.push(merged.clone()),
            }
        }
        self.publish(packs.clone(), *replay_after)?;
        let segments_removed = match for_good {
            true => {
                self.publish(packs, *replay_after)?;
                self.try_clean_up()?
            }
            false => self.clean_up(),
        };
        Ok(Published { pack_bytes: merged.info().bytes, segments_removed })
    }

    fn finish(&self, pack: ConversationPack) -> Result<Arc<PackReader>, snapshot::Error> {
        let info = pack.finish()?;
        let Place { disk, snap_dir, store, .. } = &self.place;
        PackReader::open(&**disk, snap_dir, store, &info).map(Arc::new)
    }

    fn publish(&self, packs: Vec<Arc<PackReader>>, covered: Lsn) -> Result<(), Error> {
        let Place { disk, tmp_dir, snap_dir, store, epoch, .. } = &self.place;
        let manifest = Manifest {
            number: self.take_number(),
            store: *store,
            epoch: *epoch,
            replay_after_lsn: covered.0,
            state: [0; 8],
            packs: packs.iter().map(|pack| *pack.info()).collect::<Vec<PackInfo>>(),
        };
        snapshot::publish(&**disk, tmp_dir, snap_dir, &manifest)?;
        self.archive.replace_packs(packs);
        Ok(())
    }

    /// Removes what two manifests no longer need. What is current is published already, so a
    /// failure here leaves files behind and nothing else; the next call tries again.
    fn clean_up(&self) -> usize {
        self.try_clean_up().unwrap_or_else(|why| {
            warn!(%why, "old snapshot files or log segments could not be removed");
            0
        })
    }

    fn try_clean_up(&self) -> Result<usize, Error> {
        let Place { disk, snap_dir, quarantine_dir, store, .. } = &self.place;
        let pruned = snapshot::prune(&**disk, snap_dir, quarantine_dir, store)?;
        for file in &pruned.quarantined {
            warn!(file = %file.display(), "a damaged snapshot file was moved to quarantine");
        }
        match pruned.log_needed_after {
            Some(lsn) => {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                Ok((self.log.remove_below)(kept.release(Lsn(lsn + 1), Instant::now()))?)
            }
            None => Ok(0),
        }
    }
}
