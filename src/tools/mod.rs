//! What an operator does with a data directory while no server uses it, and how a running one is backed up.
//!
//! Every tool reads with the server's own code: the log's scanner, the packs' reader, the conversations' loader. What
//! a tool refuses, a start would refuse too. A tool that only reads changes nothing, not even a torn tail. Memory
//! holds what a start holds (the packs' indexes, the log behind the snapshot) and one conversation at a time, `verify` one
//! for each core, at most eight.
//!
//! ```text
//! verify inspect export   -> reader -> conversation::archive, wal::check, snapshot, data_dir
//! import                  -> the same code that a server starts and checkpoints with
//! bench                   -> a server as a process, over its public address
//! ```
//!
//! Arguments, and what stands on the last line of standard error, are the business of `main` and [`crate::config`].

use std::io;
use std::path::{Path, PathBuf};

use crate::conversation::{archive, recovery};
use crate::{data_dir, exit, snapshot, wal};

mod ask;
mod backup;
mod bench;
mod copy;
mod export;
mod import;
mod inspect;
mod invariants;
mod progress;
mod reader;
mod restore;
mod side_by_side;
mod state_hash;
#[cfg(test)]
mod tests;
mod transcript;
mod verify;

pub use backup::{Order, backup, backup_running, backup_stopped};
pub use bench::bench;
pub use copy::Copied;
pub use export::{Selection, export, export_to_file};
pub use import::{Imported, import, import_file};
pub use inspect::inspect;
pub use restore::{Plan, restore};
pub use state_hash::StateHash;
pub use verify::{Report, Verdict, verify};

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// The snapshot cannot be used.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] wal::Error),
    /// A conversation cannot be read.
    #[error(transparent)]
    Conversation(#[from] archive::Error),
    /// The data is damaged; what exactly was said before, or by `chinwag verify`.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The last batch of the log is torn, and nothing else is wrong.
    #[error("{}: nothing but a torn tail, which the next start cuts off", .0.display())]
    TornTail(PathBuf),
    /// A directory or file that is to be written is not as it has to be.
    #[error("{}: {why}", path.display())]
    CannotUse {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// What a flag names cannot be used.
    #[error("{0}")]
    Setting(String),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Refused(String),
    /// Whoever reads what is written has gone, or cannot take it.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// What recovery says of the store that is written to.
    #[error(transparent)]
    Recovery(#[from] recovery::Error),
    /// A file beside the data directory cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The answer of the operating system.
        source: io::Error,
    },
}

impl Error {
    /// The exit code of the contract, section 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::DataDir(why) => exit::of_data_dir(why),
            Self::Snapshot(why) | Self::Conversation(archive::Error::Snapshot(why)) => exit::of_snapshot(why),
            Self::Log(why) => exit::of_log(why),
            Self::Conversation(_) | Self::Damaged { .. } => exit::DAMAGED,
            Self::Io { source, .. } => exit::of_io(source),
            Self::Recovery(why) => exit::of_recovery(why),
            Self::CannotUse { .. } => exit::CANNOT_USE,
            Self::Setting(_) => exit::USAGE,
            Self::Refused(_) | Self::TornTail(_) | Self::Output(_) => exit::OTHER,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
