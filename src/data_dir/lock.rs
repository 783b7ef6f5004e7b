//! The lock of a data directory. It is a matter of processes, so it goes to the operating system directly and not through
//! [`crate::disk::Disk`]: a simulated disk has one process only.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::{Error, absent, io_error};
use crate::disk::{self, Disk};

const LOCK_FILE: &str = "LOCK";

/// How often, and after how long, a taken lock is tried again: a supervisor that restarts a server may be faster than
/// the kernel that buries the old one. The figures are TigerBeetle's.
const RETRIES: usize = 5;
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A process id has at most ten digits.
const PID_BYTES_MAX: u64 = 16;

/// The right to use a data directory, until it is dropped or the process ends, however it ends.
#[must_use = "the directory is locked only as long as this lives"]
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a directory for this process alone, and makes it if it is missing. Waits up to 250 ms for another to end.
    ///
    /// Take it before anything in the directory is read or removed.
    pub fn acquire(root: &Path) -> Result<Self, Error> {
        disk::Real.create_dir_all(root).map_err(io_error("create", root))?;
        let path = root.join(LOCK_FILE);
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let mut file = opened.map_err(io_error("open", &path))?;
        wait_for(root, &mut file, File::try_lock)?;
        // For people only: a disk too full for ten digits can still serve reads.
        let _ = write_pid(&mut file);
        Ok(Self { _file: file })
    }

    /// Locks a directory against being changed, for tools that only read; several may at a time. `None` if nobody ever
    /// locked it, as with a copy.
    pub fn acquire_shared(root: &Path) -> Result<Option<Self>, Error> {
        let path = root.join(LOCK_FILE);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(absent(root, "is not a directory"));
            }
            file => file.map_err(io_error("open", &path))?,
        };
        wait_for(root, &mut file, File::try_lock_shared)?;
        Ok(Some(Self { _file: file }))
    }
}

fn wait_for(
    root: &Path,
    file: &mut File,
    try_lock: fn(&File) -> Result<(), TryLockError>,
) -> Result<(), Error> {
    for tries_left in (0..=RETRIES).rev() {
        match try_lock(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if tries_left > 0 => thread::sleep(RETRY_AFTER),
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &root.join(LOCK_FILE))(source)),
        }
    }
    Err(Error::InUse { root: root.to_path_buf(), pid: read_pid(file) })
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}
