//! Snapshots: immutable packs of chunks, and numbered manifests that say which packs are the current image.
//!
//! Promises: what [`publish`] answered survives power loss together with every pack it names; a damaged byte is found
//! before anybody gets to see it; a damaged chunk costs one key, a damaged newest manifest costs a longer replay. Two
//! manifests are kept, and [`prune`] says how much of the log they still need.
//!
//! What a key, a payload, a kind or a summary means is none of its business, nor are the log, when to write a pack, and
//! which chunks to put into it. One thread at a time writes packs, publishes and prunes; readers share freely.
//!
//! `docs/storage.md` shows the bytes and lists the crash cases.

use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::disk::{Disk, File};

mod format;
mod manifest;
mod pack;

#[cfg(test)]
mod crash;
#[cfg(test)]
pub(crate) mod fragile;
#[cfg(test)]
mod scene;

pub use format::{Damage, FORMAT_VERSION};
pub use manifest::{
    Loaded, Manifest, Pruned, Rejected, load_newest, manifest_path, manifests, next_number, pack_path, prune,
    publish, read_manifest,
};
pub use pack::{Chunk, ChunkMeta, ChunksInOrder, IndexEntry, PackInfo, PackReader, PackWriter};

/// Names the store that a file belongs to: 16 random bytes.
pub type StoreId = [u8; 16];

/// Longest key of a chunk, in bytes. Two ids of 128 bytes and what tells their kinds apart fit twice over.
pub const KEY_BYTES_MAX: usize = 512;

/// Longest payload of one chunk, in bytes. A reader holds one chunk in memory, and the largest log record (4 MiB) must
/// fit with what stands around it; longer conversations take several chunks.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most chunks in one pack. The index stands in memory while a pack is written and while it is open, 80 bytes a chunk:
/// at most 320 MiB. A larger image takes several packs.
pub const PACK_CHUNKS_MAX: usize = 4 * 1024 * 1024;

/// Most packs in one manifest. Each is an open file of the reader; compaction keeps them near ten.
pub const MANIFEST_PACKS_MAX: usize = 256;

/// What can go wrong. Every variant names the file that it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{} is damaged at byte {offset}: {why}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the part begins that does not check, in bytes.
        offset: u64,
        /// What does not check.
        why: Damage,
    },
    /// A later version of this program wrote the file.
    #[error("{} has format version {found}, this program reads up to {FORMAT_VERSION}", path.display())]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// Its format version.
        found: u32,
    },
    /// There are manifests, and none of them can be used.
    #[error("no manifest can be used: {}", reasons(.0))]
    NoneUsable(Vec<Rejected>),
    /// The caller asked for more than a limit of this module allows.
    #[error("{}: {what} is {asked}, at most {max} are allowed", path.display())]
    Limit {
        /// The file that was being written.
        path: PathBuf,
        /// Which limit.
        what: &'static str,
        /// What was asked for.
        asked: usize,
        /// The limit.
        max: usize,
    },
    /// The number of a pack or manifest is in use, or not above those in use.
    #[error("{}: the number is taken; take the next one", .0.display())]
    NumberTaken(PathBuf),
    /// An earlier write to this pack failed, so it can never be finished.
    #[error("{}: an earlier write to it failed", .0.display())]
    Abandoned(PathBuf),
}

impl Error {
    fn damaged(path: &Path, offset: u64, why: Damage) -> Self {
        let path = path.to_path_buf();
        match why {
            Damage::TooNew(found) => Self::TooNew { path, found },
            why => Self::Damaged { path, offset, why },
        }
    }

    /// Where the damage is, if it is damage: which file, at which byte.
    pub fn place(&self) -> Option<(&Path, u64)> {
        match self {
            Self::Damaged { path, offset, .. } => Some((path, *offset)),
            _ => None,
        }
    }

    /// Whether the file is proven bad or gone, as opposed to: could not be read this time.
    fn is_final(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Names the action and the path of a failed operation; for `map_err`.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_path_buf(), source }
}

/// Makes a file in the temporary directory. An earlier attempt may have left one of this name.
fn create_tmp(disk: &dyn Disk, path: &Path) -> Result<Box<dyn File>, Error> {
    let created = match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path).and_then(|()| disk.create(path))
        }
        created => created,
    };
    created.map_err(io_error("create", path))
}

/// Gives a finished file its name in the snapshot directory. Durable once that directory is synced.
fn rename_new(
    disk: &dyn Disk,
    tmp: &Path,
    snap_dir: &Path,
    kind: FileKind,
    number: u64,
) -> Result<(), Error> {
    let path = snap_dir.join(kind.file_name(number));
    match disk.rename_new(tmp, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::NumberTaken(path)),
        renamed => renamed.map_err(io_error("rename", &path)),
    }
}

fn reasons(rejected: &[Rejected]) -> String {
    let texts: Vec<_> = rejected.iter().map(|one| one.why.to_string()).collect();
    texts.join("; ")
}

/// The 128-bit hash under which a key stands in every index of a store: XXH3-128 of the key, seeded with the first
/// eight bytes of the store's id, so that nobody outside can choose keys that collide.
///
/// Keys may still collide: whoever finds chunks by hash compares the key inside.
pub fn key_hash(store: &StoreId, key: &[u8]) -> u128 {
    let [s0, s1, s2, s3, s4, s5, s6, s7, ..] = *store;
    xxh3_128_with_seed(key, u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]))
}

/// The two kinds of file in the snapshot directory, by the end of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Manifest,
    Pack,
}

impl FileKind {
    const fn extension(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Pack => "pack",
        }
    }

    /// Twenty digits, so that names sort as numbers do.
    fn file_name(self, number: u64) -> String {
        format!("{number:020}.{}", self.extension())
    }

    /// The number in a name that [`file_name`](Self::file_name) could have made.
    fn number(self, name: &str) -> Option<u64> {
        let number = name.strip_suffix(self.extension())?.strip_suffix('.')?.parse().ok()?;
        (self.file_name(number) == name).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_gives_its_number_back_and_foreign_names_none() {
        for number in [0, 7, u64::MAX] {
            assert_eq!(FileKind::Pack.number(&FileKind::Pack.file_name(number)), Some(number));
        }
        for foreign in
            ["7.pack", "00000000000000000007.manifest", "+0000000000000000007.pack", "lost+found", ""]
        {
            assert_eq!(FileKind::Pack.number(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_key_hash_depends_on_the_key_and_on_the_store() {
        assert_eq!(key_hash(&[1; 16], b"a"), key_hash(&[1; 16], b"a"));
        assert_ne!(key_hash(&[1; 16], b"a"), key_hash(&[1; 16], b"b"));
        assert_ne!(key_hash(&[1; 16], b"a"), key_hash(&[2; 16], b"a"));
    }
}
