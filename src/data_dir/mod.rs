//! The data directory: who may use it, what it is, where things are.
//!
//! Promises that one process at a time uses a directory, that an empty one becomes a store exactly once, and that a store
//! from which something is missing is never taken for an empty one. What the files in `wal/` and `snap/` say is
//! none of its business, nor is `token.key`. Foreign files beside its own are left alone.
//!
//! ```text
//! LOCK          locked for as long as the process lives; holds its id, for people
//! FORMAT        which store this is; see [`Format`]
//! wal/ snap/    the log, the snapshots
//! tmp/          files in the making; emptied by every start
//! quarantine/   damaged files, for people; nothing here is ever read or removed
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;

mod format;
mod lock;

#[cfg(test)]
mod tests;

pub use format::{Format, Malformed, VERSION};
pub use lock::Lock;

const FORMAT_FILE: &str = "FORMAT";

/// Longest `FORMAT` that is read, in bytes. Ours has about 140; the bound keeps a foreign file out of memory.
const FORMAT_BYTES_MAX: u64 = 4096;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses it.
    #[error("{} is in use by {}; stop it first, or name another data directory", root.display(), owner(*pid))]
    InUse {
        /// The data directory.
        root: PathBuf,
        /// Who, if that could be read.
        pid: Option<u32>,
    },
    /// The operating system does not let us work there: no permission, no room, or something else in the place.
    #[error("cannot {action} {}: {source}; the data directory must be ours to write, with room in it", path.display())]
    NotWritable {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// Something is missing or is not what was written.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A later version of this program made it.
    #[error("{} has format version {found}, this program reads up to {VERSION}", path.display())]
    TooNew {
        /// Its `FORMAT`.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// There is no store here.
    #[error("{} {why}: name a data directory", root.display())]
    Absent {
        /// What was taken for a data directory.
        root: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
    /// The disk failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// The operating system gave no random bytes to name the store with.
    #[error("no random bytes: {0}")]
    NoRandom(getrandom::Error),
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

fn absent(root: &Path, why: &'static str) -> Error {
    Error::Absent { root: root.to_path_buf(), why }
}

/// Names action and path of a failed operation, and tells a lack of permission or room from a failing disk.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    use io::ErrorKind::{
        AlreadyExists, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    move |source| match source.kind() {
        // A file that stands where a directory should be "already exists".
        PermissionDenied | ReadOnlyFilesystem | NotADirectory | AlreadyExists | StorageFull
        | QuotaExceeded => Error::NotWritable { action, path: path.to_path_buf(), source },
        _ => Error::Io { action, path: path.to_path_buf(), source },
    }
}

/// An open data directory.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    format: Format,
}

impl DataDir {
    /// Opens the store in `root`, or makes one if there was none. The caller holds the [`Lock`] of `root`.
    pub fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, Error> {
        let mut store = [0; 16];
        getrandom::fill(&mut store).map_err(Error::NoRandom)?;
        Self::open_or_make(disk, root, store)
    }

    /// As [`open`](Self::open); a new store gets this id.
    pub fn open_or_make(disk: Arc<dyn Disk>, root: &Path, new_store: [u8; 16]) -> Result<Self, Error> {
        // Judged before anything is made: damage is to be seen as it was found.
        let found = Found::look(&*disk, root)?;
        found.judge(root)?;
        let fresh = found.format.is_none();
        let format = found.format.unwrap_or(Format { store: new_store, epoch: 1, started: false });
        let dir = Self { disk, root: root.to_path_buf(), format };
        dir.make_directories()?;
        dir.empty_tmp()?;
        match fresh {
            true => write_format(&*dir.disk, root, &dir.format)?,
            // The process that gave it its name may have died before it made the name durable.
            false => dir.disk.sync_dir(root).map_err(io_error("sync", root))?,
        }
        Ok(dir)
    }

    /// Looks at the store in `root` and changes nothing: for tools that only read. The same damage is refused.
    pub fn inspect(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, Error> {
        let found = Found::look(&*disk, root)?;
        found.judge(root)?;
        if let Some(format) = found.format {
            return Ok(Self { disk, root: root.to_path_buf(), format });
        }
        let is_there = disk.exists(root).map_err(io_error("look for", root))?;
        Err(absent(root, if is_there { "holds no store" } else { "is not there" }))
    }

    /// Records that the log's first segment is durable. From then on a directory without any segment is damaged.
    ///
    /// Call it at every start, once the log runs and before the first record is acknowledged. After an error nothing may be
    /// acknowledged: nobody could tell whether a log that is missing later had anything in it.
    pub fn mark_started(&mut self) -> Result<(), Error> {
        if self.format.started {
            return Ok(());
        }
        let started = Format { started: true, ..self.format.clone() };
        write_format(&*self.disk, &self.root, &started)?;
        self.format = started;
        Ok(())
    }

    /// Which store it is.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The log's segments.
    pub fn wal_dir(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// Packs and manifests.
    pub fn snap_dir(&self) -> PathBuf {
        self.root.join("snap")
    }

    /// Files in the making. On the same file system as the others, so that they can be renamed.
    pub fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Damaged files.
    pub fn quarantine_dir(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    fn make_directories(&self) -> Result<(), Error> {
        for dir in [self.wal_dir(), self.snap_dir(), self.tmp_dir(), self.quarantine_dir()] {
            self.disk.create_dir_all(&dir).map_err(io_error("create", &dir))?;
        }
        Ok(())
    }

    fn empty_tmp(&self) -> Result<(), Error> {
        let tmp = self.tmp_dir();
        for name in self.disk.list(&tmp).map_err(io_error("list", &tmp))? {
            let path = tmp.join(name);
            if let Err(error) = self.disk.remove(&path) {
                // It costs space and nothing else.
                tracing::warn!(path = %path.display(), %error, "a left-over temporary file stays");
            }
        }
        Ok(())
    }
}

/// Makes `format` the `FORMAT` of `root`, durably: the old one or the new one is there after a crash. `root/tmp` exists.
///
/// For a restore it is the last step: a directory with a log or snapshots and without `FORMAT` counts as damaged.
pub fn write_format(disk: &dyn Disk, root: &Path, format: &Format) -> Result<(), Error> {
    let (tmp, path) = (root.join("tmp").join(FORMAT_FILE), root.join(FORMAT_FILE));
    if disk.exists(&tmp).map_err(io_error("look for", &tmp))? {
        disk.remove(&tmp).map_err(io_error("remove", &tmp))?;
    }
    let file = disk.create(&tmp).map_err(io_error("create", &tmp))?;
    file.write_at(format.encode().as_bytes(), 0).map_err(io_error("write", &tmp))?;
    file.sync_all().map_err(io_error("sync", &tmp))?;
    disk.rename(&tmp, &path).map_err(io_error("rename", &path))?;
    disk.sync_dir(root).map_err(io_error("sync", root))
}

/// What stands in a directory, before anything is done about it.
struct Found {
    format: Option<Format>,
    /// A log segment is there.
    segment: bool,
    /// Something is in `snap/`.
    snapshot: bool,
    /// Something is in `quarantine/`.
    quarantined: bool,
}

impl Found {
    fn look(disk: &dyn Disk, root: &Path) -> Result<Self, Error> {
        let format = read_format(disk, root)?;
        let segments = list(disk, &root.join("wal"))?;
        let segment = segments.iter().any(|name| Path::new(name).extension().is_some_and(|end| end == "wal"));
        let snapshot = !list(disk, &root.join("snap"))?.is_empty();
        let quarantined = !list(disk, &root.join("quarantine"))?.is_empty();
        Ok(Self { format, segment, snapshot, quarantined })
    }

    /// Whether this can be what a crash of ours leaves. `FORMAT` comes after the directories and before any file in
    /// them, `started` after the first segment and before the first snapshot, and a log once begun always has a segment.
    fn judge(&self, root: &Path) -> Result<(), Error> {
        let started = self.format.as_ref().map(|format| format.started);
        let why = match (started, self.segment, self.snapshot) {
            (None, true, _) => "FORMAT is missing, but wal/ holds segments",
            (None, _, true) => "FORMAT is missing, but snap/ is not empty",
            (None, ..) if self.quarantined => "FORMAT is missing, but quarantine/ is not empty",
            (Some(true), false, _) => "wal/ holds no segment, but the log was begun",
            (Some(false), _, true) => "FORMAT says that the log was never begun, but snap/ is not empty",
            _ => return Ok(()),
        };
        Err(Error::Damaged { path: root.to_path_buf(), why: why.into() })
    }
}

fn read_format(disk: &dyn Disk, root: &Path) -> Result<Option<Format>, Error> {
    let path = root.join(FORMAT_FILE);
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_error("open", &path))?,
    };
    let bytes = file.len().map_err(io_error("read the length of", &path))?;
    if bytes > FORMAT_BYTES_MAX {
        return Err(Error::Damaged { path, why: format!("it is {bytes} bytes long") });
    }
    let mut text = vec![0; bytes as usize];
    file.read_at(&mut text, 0).map_err(io_error("read", &path))?;
    match Format::decode(&text) {
        Ok(format) => Ok(Some(format)),
        Err(Malformed::TooNew(found)) => Err(Error::TooNew { path, found }),
        Err(why) => Err(Error::Damaged { path, why: why.to_string() }),
    }
}

/// The names in a directory; none where there is no directory.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(io_error("list", dir)),
    }
}
