//! Which error ends the process with which code (contract, section 1): the one list of them.

use std::io;

use crate::conversation::recovery;
use crate::{data_dir, snapshot, wal};

/// Anything else; of `verify`: nothing but a torn tail.
pub const OTHER: u8 = 1;
/// Bad usage or configuration.
pub const USAGE: u8 = 2;
/// Damaged data.
pub const DAMAGED: u8 = 65;
/// The data directory is in use or not writable.
pub const CANNOT_USE: u8 = 73;
/// The disk failed.
pub const DISK: u8 = 74;

pub(crate) fn of_data_dir(why: &data_dir::Error) -> u8 {
    match why {
        data_dir::Error::InUse { .. } | data_dir::Error::NotWritable { .. } => CANNOT_USE,
        data_dir::Error::Absent { .. } => USAGE,
        data_dir::Error::Damaged { .. } | data_dir::Error::TooNew { .. } => DAMAGED,
        data_dir::Error::Io { .. } => DISK,
        data_dir::Error::NoRandom(_) => OTHER,
    }
}

pub(crate) fn of_recovery(why: &recovery::Error) -> u8 {
    match why {
        recovery::Error::Snapshot(why) => of_snapshot(why),
        recovery::Error::Log(why) => of_log(why),
        recovery::Error::LogEndsEarly { .. } => DAMAGED,
    }
}

pub(crate) fn of_snapshot(why: &snapshot::Error) -> u8 {
    match why {
        snapshot::Error::Io { source, .. } => of_io(source),
        _ => DAMAGED,
    }
}

pub(crate) fn of_io(source: &io::Error) -> u8 {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => CANNOT_USE,
        _ => DISK,
    }
}

pub(crate) fn of_log(why: &wal::Error) -> u8 {
    use wal::Error::{Closed, Failed, Io, Options, Panicked};
    match why {
        Io { source, .. } => of_io(source),
        Failed | Closed => DISK,
        Options(_) | Panicked => OTHER,
        _ => DAMAGED,
    }
}
