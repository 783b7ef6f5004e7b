//! What can go wrong with the log, in the words the operator reads.

use std::io;
use std::path::{Path, PathBuf};

use super::Lsn;

/// What a visitor of [`replay()`](super::replay()) may stop it with.
pub type VisitError = Box<dyn std::error::Error + Send + Sync>;

/// The log broke, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were durable are damaged. Nothing was changed.
    #[error("{path} is corrupt at byte {offset}, where record {lsn} should be: {why}", path = segment.display())]
    Corrupt {
        /// The file.
        segment: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// The first record that is in doubt.
        lsn: Lsn,
        /// What is wrong there.
        why: &'static str,
    },
    /// Records that must be there are in no segment.
    #[error("the log lacks the records {from} to {to}: a segment is missing")]
    Missing {
        /// The first of them.
        from: Lsn,
        /// The last of them.
        to: Lsn,
    },
    /// The log ends before records that must be there: something behind its end was cut off or lost.
    #[error(
        "{path} ends the log at byte {offset} behind record {last}, but records up to {needed} were there",
        path = segment.display()
    )]
    EndsEarly {
        /// The last file.
        segment: PathBuf,
        /// Where its last whole batch ends, in bytes.
        offset: u64,
        /// The last record there is.
        last: Lsn,
        /// The last that was there.
        needed: Lsn,
    },
    /// The segment was written by another store.
    #[error("{path} belongs to another store", path = .0.display())]
    ForeignStore(PathBuf),
    /// The segment was written by a later version of this program, or holds what only one can read.
    #[error("{path} holds at byte {offset} what only a later version can read", path = segment.display())]
    NewerFormat {
        /// The file.
        segment: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
    },
    /// The caller refused a record.
    #[error("record {lsn} at byte {offset} of {path}: {source}", path = segment.display())]
    Visit {
        /// Which record.
        lsn: Lsn,
        /// The file it is in.
        segment: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// Why.
        source: VisitError,
    },
    /// The options contradict themselves.
    #[error("{0}")]
    Options(&'static str),
    /// The committer panicked; what it was doing is unknown.
    #[error("the thread that writes the log panicked")]
    Panicked,
    /// The log failed before; the first error went to `on_failure`.
    #[error("the log has failed")]
    Failed,
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

impl Error {
    /// Names what was tried when the system refused.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }

    /// Whether it only says that there is no space.
    pub(super) fn is_no_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}
