//! The one way to the disk, so that a crash can be simulated.
//!
//! Promises plain file operations and says for each what survives a power cut: nothing does until the file is
//! synced, and no name does until its directory is. What is written where, and when it is synced, is the business of
//! the log and of the snapshots.
//!
//! The publishing rule for whoever writes: write under a name in `tmp/`, sync the file, rename it, sync the directory;
//! only then may anything depend on the new name or the old one be removed.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::io::Errno;

mod real;
mod simulated;

pub use real::Real;
pub use simulated::{Operation, Simulated};

/// Whether what could not be read is lost, as far as anybody can tell. Else something was short for a moment, such as memory
/// or descriptors, or not allowed: that says nothing of the data, and the next try may do.
pub fn tells_of_loss(error: &io::Error) -> bool {
    // These have no kind of their own.
    const OF_DATA: &[Errno] = &[
        Errno::IO,
        Errno::BADMSG,
        // The device went, or something else is in the file's place.
        Errno::NXIO,
        Errno::NODEV,
        Errno::STALE,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::LOOP,
        #[cfg(target_os = "linux")]
        Errno::UCLEAN,
    ];
    let is_of_data = |code| OF_DATA.contains(&Errno::from_raw_os_error(code));
    error.raw_os_error().is_some_and(is_of_data)
        || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::InvalidData)
}

/// Names in a file system: the real one, or a simulated one.
pub trait Disk: Send + Sync {
    /// Makes a new file, readable and writable, for its owner only (0600).
    /// An existing name is `AlreadyExists`.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// The names in a directory, sorted, without `.` and `..`.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Whether there is a file or a directory of this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes a directory and the missing ones above it (0700). Their names are durable when this returns.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file, replacing what `to` named. Durable once the directories of both names are synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// As [`rename`](Self::rename), but an existing `to` is `AlreadyExists` and nothing is changed.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name. Durable once the new name's directory is synced.
    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()>;

    /// Removes a file's name. Durable once its directory is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How much can still be written where this directory is, in bytes; `u64::MAX` where nobody knows.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. Offsets and lengths are bytes.
// `len` asks the disk; "is it empty" is no question that anybody asks.
#[allow(clippy::len_without_is_empty)]
pub trait File: Send + Sync {
    /// Fills all of `bytes` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. After an error any part of them may be in the file.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// How long the file is.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeros) the file. Durable after [`sync_all`](Self::sync_all).
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the content durable, and the length where reading the content needs it (`fdatasync`).
    ///
    /// After an error nobody knows what is durable, the kernel may take failed pages for clean, and a second call may
    /// succeed without writing anything: never retry.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the content and everything about the file durable (`fsync`). The same warning holds.
    fn sync_all(&self) -> io::Result<()>;

    /// Makes later reads come from the disk and not from memory. After a failed sync the memory of the
    /// operating system holds what the disk never got, and a new process would read it back.
    fn drop_cache(&self) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_for_a_moment_is_no_loss() {
        let of = |errno: Errno| tells_of_loss(&io::Error::from(errno));
        for errno in [Errno::IO, Errno::BADMSG, Errno::NOENT, Errno::NODEV, Errno::STALE, Errno::ISDIR] {
            assert!(of(errno), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::AGAIN, Errno::ACCESS] {
            assert!(!of(errno), "{errno}");
        }
        assert!(tells_of_loss(&ErrorKind::UnexpectedEof.into()), "a file that was cut");
    }
}
