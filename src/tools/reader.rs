//! A store that is read and not changed.
//!
//! Finds the newest usable manifest and the one before it, and reads the log behind them into the archive, as a start
//! does. What of it is damage, and whether to go on, is the caller's decision.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::progress::Progress;
use crate::conversation::archive::{Archive, TailRecord};
use crate::conversation::record::key_bytes_of;
use crate::data_dir::{DataDir, Lock};
use crate::disk::Disk;
use crate::snapshot::{self, Manifest, PackReader, Rejected, StoreId};
use crate::wal::{self, Checked, Lsn, SegmentFile};

/// Manifests with their packs that are kept, as [`snapshot::prune`] does: the current one and the one to fall back to.
const IMAGES: usize = 2;

/// A manifest, and its packs as an archive.
pub(super) struct Image {
    pub(super) manifest: Manifest,
    pub(super) archive: Archive,
}

/// An open store.
pub(super) struct Reader {
    /// Held so that no server starts meanwhile; `None` for a copy that nobody ever served.
    _lock: Option<Lock>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) data: DataDir,
    /// The usable manifests, newest first.
    pub(super) images: Vec<Image>,
    /// Manifests newer than those that cannot be used.
    pub(super) rejected: Vec<Rejected>,
    /// What holds the conversations when there is no usable manifest: the log alone.
    without_image: Archive,
}

impl Reader {
    /// Opens the store in `dir`.
    ///
    /// # Errors
    /// Of the data directory when a server uses it or there is no store in it; of the snapshots when a
    /// later version wrote them.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, Error> {
        let lock = Lock::acquire_shared(dir)?;
        let data = DataDir::inspect(disk.clone(), dir)?;
        let without_image = Archive::new(data.format().store, Vec::new());
        let (images, rejected) = (Vec::new(), Vec::new());
        let mut reader = Self { _lock: lock, disk, data, images, rejected, without_image };
        reader.open_images()?;
        Ok(reader)
    }

    pub(super) fn store(&self) -> StoreId {
        self.data.format().store
    }

    fn open_images(&mut self) -> Result<(), Error> {
        let snap_dir = self.data.snap_dir();
        let mut packs = Packs::default();
        let numbers = match self.disk.exists(&snap_dir).map_err(Error::io("look for", &snap_dir))? {
            true => snapshot::manifests(&*self.disk, &snap_dir)?,
            false => Vec::new(),
        };
        for number in numbers {
            if self.images.len() == IMAGES {
                break;
            }
            match packs.image(&*self.disk, &snap_dir, &self.store(), number) {
                Ok(image) => self.images.push(image),
                Err(why @ snapshot::Error::TooNew { .. }) => return Err(why.into()),
                Err(why) => {
                    let file = snapshot::manifest_path(&snap_dir, number);
                    self.rejected.push(Rejected { file, why });
                }
            }
        }
        Ok(())
    }

    /// What holds the newest image, and the log's tail.
    pub(super) fn archive(&self) -> &Archive {
        self.images.first().map_or(&self.without_image, |image| &image.archive)
    }

    /// The packs of all images, each once.
    pub(super) fn packs(&self) -> Vec<Arc<PackReader>> {
        let mut packs: Vec<Arc<PackReader>> = Vec::new();
        for pack in self.images.iter().flat_map(|image| image.archive.packs().to_vec()) {
            if !packs.iter().any(|known| Arc::ptr_eq(known, &pack)) {
                packs.push(pack);
            }
        }
        packs
    }

    /// Up to where the newest image covers the log.
    pub(super) fn replay_after(&self) -> Lsn {
        self.images.first().map_or(Lsn(0), |image| Lsn(image.manifest.replay_after_lsn))
    }

    /// Up to where the oldest image covers the log: the tail begins behind it.
    pub(super) fn tail_after(&self) -> Lsn {
        self.images.last().map_or(Lsn(0), |image| Lsn(image.manifest.replay_after_lsn))
    }

    /// Reads the log, shows every record to `visit`, and holds those behind the oldest image in the archive.
    pub(super) fn read_log(
        &self,
        visit: &mut dyn FnMut(&wal::Record<'_>, &SegmentFile, u64),
    ) -> Result<Checked, Error> {
        self.read_log_prepared(&|_| (), &mut |record, (), segment, at| visit(record, segment, at))
    }

    /// The same; `visit` also gets what `prepare` made of the record on another thread.
    pub(super) fn read_log_prepared<P: Send>(
        &self,
        prepare: &(dyn Fn(&wal::Record<'_>) -> P + Sync),
        visit: &mut dyn FnMut(&wal::Record<'_>, P, &SegmentFile, u64),
    ) -> Result<Checked, Error> {
        let (archive, after) = (self.archive(), self.tail_after());
        let mut progress = Progress::bytes("log", self.log_bytes());
        // What has no key cannot be held; a visitor who cares decodes it.
        let held_under = |record: &wal::Record<'_>| {
            let key = key_bytes_of(record.payload).ok().filter(|_| record.lsn > after);
            key.map(|key| archive.hash_of_bytes(key))
        };
        Ok(wal::check(
            &*self.disk,
            &self.data.wal_dir(),
            self.store(),
            &|record| (prepare(record), held_under(record)),
            &mut |record, (prepared, hash), segment, at| {
                visit(&record, prepared, segment, at);
                progress.add(record.payload.len() as u64);
                hash.map(|hash| archive.hold(hash, TailRecord::of(&record)));
            },
        )?)
    }

    /// How long the log's files are together.
    pub(super) fn log_bytes(&self) -> u64 {
        let wal_dir = self.data.wal_dir();
        let names = self.disk.list(&wal_dir).unwrap_or_default();
        let lengths =
            names.iter().map(|name| self.disk.open(&wal_dir.join(name)).and_then(|file| file.len()));
        lengths.map(|length| length.unwrap_or(0)).sum()
    }

    /// The newest record that some chunk of the newest image has.
    pub(super) fn newest_in_packs(&self) -> Lsn {
        let packs = self.archive().packs();
        let newest = packs.iter().flat_map(|pack| pack.entries()).map(|entry| entry.applied_lsn).max();
        Lsn(newest.unwrap_or(0)).max(self.replay_after())
    }

    /// Refuses a store that a server would refuse to start on.
    pub(super) fn refuse_damage(&self, checked: Checked) -> Result<(), Error> {
        if let (true, Some(rejected)) = (self.images.is_empty(), self.rejected.len().checked_sub(1)) {
            let why = format!("no manifest can be used ({} tried): run chinwag verify", rejected + 1);
            return Err(Error::Damaged { path: self.data.snap_dir(), why });
        }
        checked.covers(self.replay_after())?;
        checked.covers(self.newest_in_packs())?;
        checked.damage.into_iter().next().map_or(Ok(()), |why| Err(why.into()))
    }
}

/// Open packs; images share most of theirs.
#[derive(Default)]
struct Packs(HashMap<(u64, u32), Arc<PackReader>>);

impl Packs {
    fn image(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        store: &StoreId,
        number: u64,
    ) -> Result<Image, snapshot::Error> {
        let manifest = snapshot::read_manifest(disk, dir, store, number)?;
        let mut packs = Vec::with_capacity(manifest.packs.len());
        for info in &manifest.packs {
            let name = (info.number, info.footer_crc);
            let pack = match self.0.get(&name) {
                Some(pack) => pack.clone(),
                None => Arc::new(PackReader::open(disk, dir, store, info)?),
            };
            self.0.insert(name, pack.clone());
            packs.push(pack);
        }
        let archive = Archive::new(*store, Vec::new());
        archive.replace_packs(packs);
        Ok(Image { manifest, archive })
    }
}
