//! For crash tests: a disk that goes dark after so many changes, and that can be told to forget syncs.
//!
//! A change that comes too late is not made and fails, as every one after it does, so a test that then cuts
//! the simulated power sees the crash between any two steps.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{Disk, File, Simulated};

/// Which rule of durability is broken. Anything but `Nothing` must lose data, or the test proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgets {
    Nothing,
    FileSyncs,
    DirectorySyncs,
}

/// A simulated disk that works for a limited number of changes.
pub(crate) struct Fragile {
    inner: Simulated,
    changes_left: Arc<AtomicU64>,
    forgets: Forgets,
}

impl Fragile {
    pub(crate) fn disk(inner: Simulated, changes: u64, forgets: Forgets) -> Arc<dyn Disk> {
        if forgets == Forgets::FileSyncs {
            inner.lie_about_syncs();
        }
        Arc::new(Self { inner, changes_left: Arc::new(AtomicU64::new(changes)), forgets })
    }

    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(FragileFile { file, changes_left: self.changes_left.clone() })
    }
}

fn change(changes_left: &AtomicU64) -> io::Result<()> {
    let less = changes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    less.map(drop).map_err(|_| io::Error::other("dark"))
}

impl Disk for Fragile {
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        change(&self.changes_left)?;
        Ok(self.file(self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.inner.open(path)?))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.inner.open_write(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        change(&self.changes_left)?;
        self.inner.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        change(&self.changes_left)?;
        self.inner.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        change(&self.changes_left)?;
        self.inner.rename_new(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        change(&self.changes_left)?;
        self.inner.hard_link(original, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        change(&self.changes_left)?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        change(&self.changes_left)?;
        if self.forgets == Forgets::DirectorySyncs { Ok(()) } else { self.inner.sync_dir(dir) }
    }
}

struct FragileFile {
    file: Box<dyn File>,
    changes_left: Arc<AtomicU64>,
}

impl File for FragileFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        change(&self.changes_left)?;
        self.file.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        change(&self.changes_left)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        change(&self.changes_left)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        change(&self.changes_left)?;
        self.file.sync_all()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
}
