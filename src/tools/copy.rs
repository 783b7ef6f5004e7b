//! Copies of a store: what belongs to one, and how it gets to another directory.
//!
//! Promises that a directory has `FORMAT`, and so is a store, only when everything in it is durable. Packs, manifests
//! and ended segments never change, so they may be the same file under two names; the last segment is always a copy.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;
use crate::data_dir::{Format, write_format};
use crate::disk::Disk;

/// How much is copied at once.
const PART_BYTES: usize = 1 << 20;
/// The server's own key, without which a copy would refuse every token.
const KEY_FILE: &str = "token.key";
/// The directories of a store.
const DIRS: [&str; 4] = ["wal", "snap", "tmp", "quarantine"];

/// One file of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) from: PathBuf,
    /// In which directory of the store.
    pub(super) dir: &'static str,
    /// Only the first so many bytes; `None`: all of it, and it never changes.
    pub(super) bytes: Option<u64>,
}

/// What came of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// How many files.
    pub files: u64,
    /// How many of them are a second name of the same file.
    pub linked: u64,
    /// How much was written, in bytes.
    pub bytes: u64,
    /// The newest record in the copy.
    pub last_lsn: u64,
}

/// A store in the making.
pub(super) struct Target<'a> {
    disk: &'a dyn Disk,
    root: PathBuf,
    copied: Copied,
    /// What is to go again if it does not become a store.
    made: Vec<PathBuf>,
}

/// A file that could not be linked, and under which name it waits.
pub(super) struct Waiting {
    from: PathBuf,
    to: PathBuf,
    /// A second name that keeps it from being removed; to be taken away again.
    pin: Option<PathBuf>,
}

impl<'a> Target<'a> {
    /// Begins in `root`, which is empty or not there.
    pub(super) fn begin(disk: &'a dyn Disk, root: &Path) -> Result<Self, Error> {
        refuse_unless_empty(disk, root)?;
        for dir in DIRS.map(|dir| root.join(dir)) {
            disk.create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        }
        Ok(Self { disk, root: root.to_path_buf(), copied: Copied::default(), made: Vec::new() })
    }

    fn path_of(&self, part: &Part) -> PathBuf {
        self.root.join(part.dir).join(part.from.file_name().unwrap_or_default())
    }

    /// Makes sure of files that may be removed at any time after this returns. What can be linked is done; the rest
    /// gets a second name in `pins`, and is copied later. A file that has to be cut is copied here.
    pub(super) fn secure(&mut self, parts: &[Part], pins: &Path) -> Result<Vec<Waiting>, Error> {
        /// Pins of one process have different names.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut waiting = Vec::new();
        for part in parts {
            let (from, to) = (part.from.clone(), self.path_of(part));
            if part.bytes.is_some() {
                self.copy(&from, &to, part.bytes)?;
                continue;
            }
            if self.disk.hard_link(&from, &to).is_ok() {
                self.made.push(to);
                self.copied.files += 1;
                self.copied.linked += 1;
                continue;
            }
            let pin = pins.join(format!("backup-pin-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
            match self.disk.hard_link(&from, &pin) {
                Ok(()) => waiting.push(Waiting { from: pin.clone(), to, pin: Some(pin) }),
                // A file system without links: then everything else waits for the copy.
                Err(_) => self.copy(&from, &to, None)?,
            }
        }
        Ok(waiting)
    }

    /// Copies what waits.
    pub(super) fn settle(&mut self, waiting: Vec<Waiting>) -> Result<(), Error> {
        let mut settled = Ok(());
        for Waiting { from, to, pin } in waiting {
            if settled.is_ok() {
                settled = self.copy(&from, &to, None);
            }
            if let Some(pin) = pin {
                // A pin that stays costs space until the next start empties the directory.
                let _ = self.disk.remove(&pin);
            }
        }
        settled
    }

    /// Copies files that nobody removes meanwhile.
    pub(super) fn copy_all(&mut self, parts: &[Part]) -> Result<(), Error> {
        parts.iter().try_for_each(|part| self.copy(&part.from, &self.path_of(part), part.bytes))
    }

    /// Copies the key that signs tokens, if the store at `from` has one.
    pub(super) fn copy_key(&mut self, from: &Path) -> Result<(), Error> {
        let key = from.join(KEY_FILE);
        match self.disk.exists(&key).map_err(Error::io("look for", &key))? {
            true => self.copy(&key, &self.root.join(KEY_FILE), None),
            false => Ok(()),
        }
    }

    fn copy(&mut self, from: &Path, to: &Path, bytes: Option<u64>) -> Result<(), Error> {
        let source = self.disk.open(from).map_err(Error::io("open", from))?;
        let whole = source.len().map_err(Error::io("measure", from))?;
        let bytes = bytes.unwrap_or(whole);
        let target = self.disk.create(to).map_err(Error::io("create", to))?;
        self.made.push(to.to_path_buf());
        let mut buffer = vec![0; PART_BYTES.min(bytes as usize)];
        for at in (0..bytes).step_by(PART_BYTES) {
            let part = &mut buffer[..PART_BYTES.min((bytes - at) as usize)];
            source.read_at(part, at).map_err(Error::io("read", from))?;
            target.write_at(part, at).map_err(Error::io("write", to))?;
        }
        target.sync_all().map_err(Error::io("sync", to))?;
        self.copied.files += 1;
        self.copied.bytes += bytes;
        Ok(())
    }

    /// Makes all of it durable, and then a store.
    pub(super) fn finish(mut self, format: &Format, last_lsn: u64) -> Result<Copied, Error> {
        for dir in DIRS.map(|dir| self.root.join(dir)).iter().chain([&self.root]) {
            self.disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        // Should this fail, its name may be there all the same, and goes before what it vouches for.
        self.made.insert(0, self.root.join("FORMAT"));
        write_format(self.disk, &self.root, format)?;
        self.made.clear();
        Ok(Copied { last_lsn, ..self.copied })
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        // What stays makes the next attempt ask for another directory, and nothing else.
        for path in &self.made {
            let _ = self.disk.remove(path);
            if path.parent() == Some(&self.root) {
                let _ = self.disk.sync_dir(&self.root);
            }
        }
    }
}

/// Nothing that is there may be mixed up with a copy, least of all another store.
fn refuse_unless_empty(disk: &dyn Disk, root: &Path) -> Result<(), Error> {
    for name in list(disk, root)? {
        // A lock is what whoever is about to write here holds; empty directories are left by a failed attempt.
        let is_ours = DIRS.iter().any(|dir| name == *dir) && list(disk, &root.join(&name))?.is_empty();
        if !is_ours && name != "LOCK" && name != "lost+found" {
            let why = format!("is not empty ({}); name a new directory", name.to_string_lossy());
            return Err(Error::CannotUse { path: root.to_path_buf(), why });
        }
    }
    Ok(())
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<OsString>, Error> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(Error::io("list", dir)),
    }
}
