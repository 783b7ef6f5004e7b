//! Manifests: which packs are the current image, and from where on the log is needed.
//!
//! Promises that a published manifest survives power loss and that a usable one is found if there ever was one: two are
//! kept, and everything they name. When to publish is none of its business.

use std::path::{Path, PathBuf};

use super::format::{self, Damage, MANIFEST_BYTES_MAX};
use super::pack::{self, PackInfo, PackReader};
use super::{Error, FileKind, MANIFEST_PACKS_MAX, StoreId, create_tmp, io_error, rename_new};
use crate::disk::Disk;

mod prune;

#[cfg(test)]
mod tests;

pub use prune::{Pruned, prune};

/// The image of a store: the chunks of the packs it names, and after them the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its number, which is its name. The highest that can be used is current.
    pub number: u64,
    /// The store it belongs to.
    pub store: StoreId,
    /// The epoch of the data directory when it was published.
    pub epoch: u32,
    /// Log records up to this position need not be replayed.
    pub replay_after_lsn: u64,
    /// Means something to the caller only; zeros where nothing is meant.
    pub state: [u32; 8],
    /// The packs, oldest first: the chunks of a key follow one another in this order.
    pub packs: Vec<PackInfo>,
}

/// What [`load_newest`] found.
pub struct Loaded {
    /// The newest manifest that can be used.
    pub manifest: Manifest,
    /// Its packs, in its order.
    pub packs: Vec<PackReader>,
    /// Newer manifests that cannot be used. Not empty means damage: somebody has to be told.
    pub rejected: Vec<Rejected>,
}

/// A manifest that cannot be used.
#[derive(Debug)]
pub struct Rejected {
    /// The manifest.
    pub file: PathBuf,
    /// What is wrong with it or with a pack that it names.
    pub why: Error,
}

/// A number above those of every manifest and pack: what the next [`PackWriter`](super::PackWriter) or manifest may be
/// called. Failed attempts use their numbers up too.
pub fn next_number(disk: &dyn Disk, snap_dir: &Path) -> Result<u64, Error> {
    let (manifests, packs) =
        (numbers(disk, snap_dir, FileKind::Manifest)?, numbers(disk, snap_dir, FileKind::Pack)?);
    let newest = manifests.last().max(packs.last()).copied().unwrap_or(0);
    newest.checked_add(1).ok_or_else(|| Error::NumberTaken(snap_dir.join(FileKind::Pack.file_name(newest))))
}

/// Makes a manifest current, durably. Its packs are finished, its number is above those of every other manifest.
///
/// After an error it may be current or not; nothing that was there before has changed. Try again with the next number.
pub fn publish(disk: &dyn Disk, tmp_dir: &Path, snap_dir: &Path, manifest: &Manifest) -> Result<(), Error> {
    let tmp = tmp_dir.join(FileKind::Manifest.file_name(manifest.number));
    check_publishable(disk, snap_dir, manifest, &tmp)?;
    write_durably(disk, &tmp, &format::encode_manifest(manifest))?;
    rename_new(disk, &tmp, snap_dir, FileKind::Manifest, manifest.number)?;
    disk.sync_dir(snap_dir).map_err(io_error("sync", snap_dir))
}

/// The newest manifest that is whole and whose packs are all there, whole but for their chunks; `None` if there never
/// was a manifest. Falls back to the one before: its log is still there.
///
/// An error if there are manifests and none can be used, or a later version of this program wrote one.
pub fn load_newest(disk: &dyn Disk, snap_dir: &Path, store: &StoreId) -> Result<Option<Loaded>, Error> {
    let mut rejected = Vec::new();
    for number in numbers(disk, snap_dir, FileKind::Manifest)?.into_iter().rev() {
        match load(disk, snap_dir, store, number) {
            Ok((manifest, packs)) => return Ok(Some(Loaded { manifest, packs, rejected })),
            Err(error @ Error::TooNew { .. }) => return Err(error),
            Err(why) => {
                rejected.push(Rejected { file: snap_dir.join(FileKind::Manifest.file_name(number)), why });
            }
        }
    }
    if rejected.is_empty() { Ok(None) } else { Err(Error::NoneUsable(rejected)) }
}

fn load(
    disk: &dyn Disk,
    dir: &Path,
    store: &StoreId,
    number: u64,
) -> Result<(Manifest, Vec<PackReader>), Error> {
    let manifest = read_manifest(disk, dir, store, number)?;
    let packs = manifest
        .packs
        .iter()
        .map(|info| PackReader::open(disk, dir, store, info))
        .collect::<Result<_, _>>()?;
    Ok((manifest, packs))
}

/// The numbers of all manifests, newest first, whole or not: for tools. Starts use [`load_newest`].
pub fn manifests(disk: &dyn Disk, snap_dir: &Path) -> Result<Vec<u64>, Error> {
    let mut numbers = numbers(disk, snap_dir, FileKind::Manifest)?;
    numbers.reverse();
    Ok(numbers)
}

/// The file of the manifest of this number.
pub fn manifest_path(snap_dir: &Path, number: u64) -> PathBuf {
    snap_dir.join(FileKind::Manifest.file_name(number))
}

/// The file of the pack of this number.
pub fn pack_path(snap_dir: &Path, number: u64) -> PathBuf {
    snap_dir.join(FileKind::Pack.file_name(number))
}

/// The numbers of all files of a kind, ascending. Foreign names are skipped.
fn numbers(disk: &dyn Disk, snap_dir: &Path, kind: FileKind) -> Result<Vec<u64>, Error> {
    let names = disk.list(snap_dir).map_err(io_error("list", snap_dir))?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| kind.number(name.to_str()?)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A manifest must never name what a crash could still take away, nor stand below one that would hide it.
fn check_publishable(disk: &dyn Disk, snap_dir: &Path, manifest: &Manifest, tmp: &Path) -> Result<(), Error> {
    let asked = manifest.packs.len();
    if asked > MANIFEST_PACKS_MAX {
        let what = "the number of packs";
        return Err(Error::Limit { path: tmp.to_path_buf(), what, asked, max: MANIFEST_PACKS_MAX });
    }
    let newest = numbers(disk, snap_dir, FileKind::Manifest)?.last().copied();
    if newest.is_some_and(|newest| newest >= manifest.number) {
        return Err(Error::NumberTaken(tmp.to_path_buf()));
    }
    if format::has_duplicate(&manifest.packs) {
        return Err(Error::damaged(tmp, 0, Damage::Impossible("the manifest names a pack twice")));
    }
    manifest.packs.iter().try_for_each(|info| pack::check(disk, snap_dir, &manifest.store, info))
}

fn write_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let file = create_tmp(disk, path)?;
    file.write_at(bytes, 0).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

/// Reads the manifest of this number; its packs are not looked at.
pub fn read_manifest(disk: &dyn Disk, dir: &Path, store: &StoreId, number: u64) -> Result<Manifest, Error> {
    let path = dir.join(FileKind::Manifest.file_name(number));
    let file = disk.open(&path).map_err(io_error("open", &path))?;
    let found = file.len().map_err(io_error("read the length of", &path))?;
    if found > MANIFEST_BYTES_MAX as u64 {
        return Err(Error::damaged(&path, 0, Damage::Length { found, expected: MANIFEST_BYTES_MAX as u64 }));
    }
    let mut bytes = vec![0; found as usize];
    file.read_at(&mut bytes, 0).map_err(io_error("read", &path))?;
    format::decode_manifest(&bytes, store, number).map_err(|why| Error::damaged(&path, 0, why))
}
