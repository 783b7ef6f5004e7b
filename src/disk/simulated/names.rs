//! The names of simulated files: as they are seen, and as a power cut would leave them.
//!
//! A change of a name survives a power cut only by luck until its directory is synced, and changes of different names
//! survive in any order. A rename never loses the file: where the old name is gone, the new one is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::random::Random;

/// Which file a name means.
pub(super) type Inode = u64;

#[derive(Debug, Clone)]
struct Change {
    path: PathBuf,
    to: Option<Inode>,
    /// The name that this change survives together with, when it is half of a rename.
    drags: Option<PathBuf>,
    /// Numbers the operation; the two halves of a rename share it.
    operation: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    live: BTreeMap<PathBuf, Inode>,
    stable: BTreeMap<PathBuf, Inode>,
    dirs: BTreeSet<PathBuf>,
    /// Unsynced changes, oldest first.
    pending: Vec<Change>,
    operations: u64,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> io::Result<Inode> {
        self.live.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.live.contains_key(path) || self.dirs.contains(path)
    }

    pub(super) fn inodes(&self) -> BTreeSet<Inode> {
        self.live.values().copied().collect()
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.check_dir(dir)?;
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let paths: BTreeSet<_> = self.live.keys().chain(&self.dirs).filter(inside).collect();
        Ok(paths.into_iter().filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    /// Directories are durable at once: their making is not what the crash tests are about.
    pub(super) fn make_dirs(&mut self, dir: &Path) {
        self.dirs.extend(dir.ancestors().map(Path::to_path_buf));
    }

    pub(super) fn check_dir(&self, dir: &Path) -> io::Result<()> {
        if self.dirs.contains(dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Gives a new name to a file.
    pub(super) fn add(&mut self, path: &Path, inode: Inode) -> io::Result<()> {
        self.check_free(path)?;
        self.operations += 1;
        self.change(path, Some(inode), None);
        Ok(())
    }

    pub(super) fn check_free(&self, path: &Path) -> io::Result<()> {
        self.check_dir(path.parent().unwrap_or(path))?;
        if self.exists(path) { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(()) }
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.get(path)?;
        self.operations += 1;
        self.change(path, None, None);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.get(from)?;
        self.check_dir(to.parent().unwrap_or(to))?;
        if from == to {
            return Ok(());
        }
        self.operations += 1;
        let one_directory = from.parent() == to.parent();
        self.change(to, Some(inode), one_directory.then(|| from.to_path_buf()));
        self.change(from, None, Some(to.to_path_buf()));
        Ok(())
    }

    fn change(&mut self, path: &Path, to: Option<Inode>, drags: Option<PathBuf>) {
        match to {
            Some(inode) => self.live.insert(path.to_path_buf(), inode),
            None => self.live.remove(path),
        };
        self.pending.push(Change { path: path.to_path_buf(), to, drags, operation: self.operations });
    }

    /// Makes a name durable on the spot, for setting a scene.
    pub(super) fn put(&mut self, path: &Path, inode: Inode) {
        self.live.insert(path.to_path_buf(), inode);
        self.stable.insert(path.to_path_buf(), inode);
    }

    pub(super) fn sync(&mut self, dir: &Path) -> io::Result<()> {
        self.check_dir(dir)?;
        let chosen = self.pending.iter().map(|change| change.path.parent() == Some(dir)).collect();
        self.settle(chosen);
        Ok(())
    }

    pub(super) fn after_power_cut(&self, random: &mut Random, percent: usize) -> Self {
        let mut left = self.clone();
        let chosen = self.pending.iter().map(|_| random.chance(percent)).collect();
        left.settle(chosen);
        left.pending.clear();
        left.live = left.stable.clone();
        left
    }

    /// Makes the chosen changes durable, and those that they cannot be without.
    fn settle(&mut self, mut chosen: Vec<bool>) {
        while self.spread(&mut chosen) {}
        let mut chosen = chosen.into_iter();
        let stable = &mut self.stable;
        self.pending.retain(|change| {
            let durable = chosen.next().unwrap_or(false);
            match (durable, change.to) {
                (true, Some(inode)) => drop(stable.insert(change.path.clone(), inode)),
                (true, None) => drop(stable.remove(&change.path)),
                (false, _) => {}
            }
            !durable
        });
    }

    /// One round of "what else must be durable then"; false when nothing was added.
    fn spread(&self, chosen: &mut [bool]) -> bool {
        let before = chosen.iter().filter(|is| **is).count();
        for later in 0..self.pending.len() {
            if !chosen[later] {
                continue;
            }
            let change = &self.pending[later];
            for (other, is_chosen) in self.pending.iter().zip(chosen.iter_mut()) {
                let same_name_before = other.path == change.path && other.operation < change.operation;
                let other_half =
                    other.operation == change.operation && change.drags.as_ref() == Some(&other.path);
                *is_chosen |= same_name_before || other_half;
            }
        }
        chosen.iter().filter(|is| **is).count() > before
    }
}
