//! The disk of the machine.
//!
//! Promises exactly what the operating system does; adds only permissions, a rename that does not replace, and
//! the syncs that make new directories durable.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Disk, File};

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real;

impl Disk for Real {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file =
            fs::OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(fs::File::open(path)?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if fs::metadata(dir).is_ok_and(|found| found.is_dir()) {
            return sync_name_of_existing(dir);
        }
        let parent = parent_of(dir);
        if parent != dir && !fs::exists(parent)? {
            self.create_dir_all(parent)?;
        }
        match fs::DirBuilder::new().mode(DIR_MODE).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made?,
        }
        self.sync_dir(parent)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system knows the flag. A link never replaces either; if the process dies
            // between the two steps, the first name is left over in `tmp/`, which every start empties.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::hard_link(from, to)?;
                fs::remove_file(from)
            }
            done => Ok(done?),
        }
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        fs::hard_link(original, link)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        // Some network file systems do not know their size.
        Ok(if found.f_blocks == 0 { u64::MAX } else { found.f_bavail.saturating_mul(found.f_frsize) })
    }
}

/// The directory that holds this name.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// An earlier process may have died between making the directory and syncing its name. Where the parent is
/// another user's and unreadable, an operator made the directory.
fn sync_name_of_existing(dir: &Path) -> io::Result<()> {
    match fs::File::open(parent_of(dir)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        parent => parent?.sync_all(),
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    #[cfg(not(target_vendor = "apple"))]
    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?)
    }

    /// There is no such advice there, and no server runs there either.
    #[cfg(target_vendor = "apple")]
    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_and_directories_are_the_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        Real.create_dir_all(&inner).unwrap();
        Real.create_dir_all(&inner).unwrap();
        Real.create(&inner.join("f")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            [mode(&dir.path().join("a")), mode(&inner), mode(&inner.join("f"))],
            [0o700, 0o700, 0o600]
        );
    }

    #[test]
    fn reads_and_writes_are_whole_or_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = Real.create(&dir.path().join("f")).unwrap();
        file.write_at(b"world", 6).unwrap();
        file.write_at(b"hello", 0).unwrap();
        file.sync_data().unwrap();
        file.drop_cache().unwrap();
        let mut bytes = [0; 11];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"hello\0world");
        assert_eq!(file.read_at(&mut bytes, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(5).unwrap();
        assert_eq!(file.len().unwrap(), 5);
    }

    #[test]
    fn a_name_is_made_once_and_renamed_with_or_without_replacing() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        Real.create(&a).unwrap();
        Real.create(&b).unwrap();
        let exists = |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::AlreadyExists;
        assert!(exists(Real.create(&a).map(drop)));
        assert!(exists(Real.rename_new(&a, &b)));
        assert!(exists(Real.hard_link(&a, &b)));
        Real.rename(&a, &b).unwrap();
        Real.rename_new(&b, &a).unwrap();
        Real.hard_link(&a, &b).unwrap();
        assert_eq!(Real.list(dir.path()).unwrap(), ["a", "b"]);
        assert!(Real.free_bytes(dir.path()).unwrap() > 0);
        Real.remove(&b).unwrap();
        Real.sync_dir(dir.path()).unwrap();
        assert!(Real.exists(&a).unwrap() && !Real.exists(&b).unwrap());
    }
}
