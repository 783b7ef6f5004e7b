//! Removes what no kept manifest needs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::super::pack;
use super::super::{Error, FileKind, StoreId, io_error};
use super::{Manifest, numbers, read_manifest};
use crate::disk::Disk;

/// How many usable manifests are kept: the current one, and one to fall back to.
const MANIFESTS_KEPT: usize = 2;

/// What [`prune`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Log records above this position are still needed; the log may be cut up to it. `None`: nothing may be cut,
    /// because only one manifest can be used, and without the log there would be nothing to fall back to.
    pub log_needed_after: Option<u64>,
    /// Manifests that were removed.
    pub manifests: usize,
    /// Packs that were removed.
    pub packs: usize,
    /// Damaged files that were moved to the quarantine directory.
    pub quarantined: Vec<PathBuf>,
}

/// Keeps the two newest usable manifests and the packs they name, and removes all other manifests and packs, among them
/// what failed attempts left. Damaged files are moved to `quarantine_dir`, for somebody to look at.
///
/// Call it after a publish, with no pack of a later publish in the making: such a pack is named by nobody yet. After an
/// error some files that nobody needs are still there; the next call removes them.
pub fn prune(
    disk: &dyn Disk,
    snap_dir: &Path,
    quarantine_dir: &Path,
    store: &StoreId,
) -> Result<Pruned, Error> {
    // The process before this one may have died between a rename and this call.
    sync(disk, snap_dir)?;
    let found = Found::look(disk, snap_dir, store)?;
    if found.kept.is_empty() {
        return Ok(Pruned::default());
    }
    let named = found.named_packs();
    let broken = found.broken_files(snap_dir, &named);
    let mut unnamed = numbers(disk, snap_dir, FileKind::Pack)?;
    unnamed.retain(|number| {
        !named.contains(number) && !broken.contains(&snap_dir.join(FileKind::Pack.file_name(*number)))
    });
    quarantine(disk, &broken, snap_dir, quarantine_dir)?;
    // Manifests go durably before the packs they name: none may come back without its packs.
    let manifests = remove(disk, snap_dir, FileKind::Manifest, &found.old)?;
    let packs = remove(disk, snap_dir, FileKind::Pack, &unnamed)?;
    let oldest = found.kept.iter().map(|manifest| manifest.replay_after_lsn).min();
    let log_needed_after = oldest.filter(|_| found.kept.len() == MANIFESTS_KEPT);
    Ok(Pruned { log_needed_after, manifests, packs, quarantined: broken })
}

/// The manifests of a snapshot directory, sorted out.
#[derive(Default)]
struct Found {
    kept: Vec<Manifest>,
    /// Manifests that cannot be used, and why.
    broken: Vec<(u64, Error)>,
    old: Vec<u64>,
}

impl Found {
    /// What could not be read this time must not decide: then the error goes to the caller, and nothing is removed.
    fn look(disk: &dyn Disk, snap_dir: &Path, store: &StoreId) -> Result<Self, Error> {
        let mut found = Self::default();
        for number in numbers(disk, snap_dir, FileKind::Manifest)?.into_iter().rev() {
            if found.kept.len() == MANIFESTS_KEPT {
                found.old.push(number);
                continue;
            }
            match check(disk, snap_dir, store, number) {
                Ok(manifest) => found.kept.push(manifest),
                Err(error) if error.is_final() => found.broken.push((number, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn named_packs(&self) -> HashSet<u64> {
        self.kept.iter().flat_map(|manifest| &manifest.packs).map(|info| info.number).collect()
    }

    /// The manifests that cannot be used, and the damaged packs because of which. A pack that a kept manifest
    /// names is whole, whatever another one says about it.
    fn broken_files(&self, snap_dir: &Path, named: &HashSet<u64>) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = Vec::new();
        for (number, error) in &self.broken {
            files.push(snap_dir.join(FileKind::Manifest.file_name(*number)));
            if let Error::Damaged { path, .. } = error
                && pack_number(path).is_some_and(|pack| !named.contains(&pack))
                && !files.contains(path)
            {
                files.push(path.clone());
            }
        }
        files
    }
}

fn pack_number(path: &Path) -> Option<u64> {
    FileKind::Pack.number(path.file_name()?.to_str()?)
}

fn check(disk: &dyn Disk, snap_dir: &Path, store: &StoreId, number: u64) -> Result<Manifest, Error> {
    let manifest = read_manifest(disk, snap_dir, store, number)?;
    // As a start does, or what is kept to fall back to might be refused by it.
    let check = |info| pack::check_with_index(disk, snap_dir, store, info, &mut |_| ());
    manifest.packs.iter().try_for_each(check)?;
    Ok(manifest)
}

/// Removes files and makes that durable.
fn remove(disk: &dyn Disk, snap_dir: &Path, kind: FileKind, numbers: &[u64]) -> Result<usize, Error> {
    for &number in numbers {
        let path = snap_dir.join(kind.file_name(number));
        disk.remove(&path).map_err(io_error("remove", &path))?;
    }
    if !numbers.is_empty() {
        sync(disk, snap_dir)?;
    }
    Ok(numbers.len())
}

fn quarantine(disk: &dyn Disk, broken: &[PathBuf], snap_dir: &Path, to_dir: &Path) -> Result<(), Error> {
    for from in broken {
        let Some(name) = from.file_name() else { continue };
        match disk.rename_new(from, &to_dir.join(name)) {
            // A crash can leave both names. Numbers are used once, so it is the same file.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => disk.remove(from),
            moved => moved,
        }
        .map_err(io_error("quarantine", from))?;
    }
    if !broken.is_empty() {
        sync(disk, to_dir)?;
        sync(disk, snap_dir)?;
    }
    Ok(())
}

fn sync(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    disk.sync_dir(dir).map_err(io_error("sync", dir))
}
