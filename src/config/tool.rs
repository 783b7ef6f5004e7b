//! Settings of the tools that work on a data directory. All but `backup`, which has to find the server, read neither
//! the environment nor the settings file: what a tool is to touch is named on its command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::layers::Environment;
use super::moment::Moment;
use super::{Error, cli, value};
use crate::message::{ConversationKey, GroupId, UserId};

/// A tool and what it is to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tool {
    /// `chinwag verify`.
    Verify {
        /// The data directory.
        dir: PathBuf,
    },
    /// `chinwag inspect`.
    Inspect {
        /// The data directory.
        dir: PathBuf,
        /// JSON instead of text.
        json: bool,
    },
    /// `chinwag export`.
    Export {
        /// The data directory.
        dir: PathBuf,
        /// Only this conversation; `None`: all.
        only: Option<ConversationKey>,
        /// A file that is to be made; `None`: standard output.
        out: Option<PathBuf>,
    },
    /// `chinwag import`.
    Import {
        /// The data directory.
        dir: PathBuf,
        /// `None`: standard input.
        input: Option<PathBuf>,
    },
    /// `chinwag backup`.
    Backup {
        /// The directory to make.
        to: PathBuf,
        /// The data directory.
        data: PathBuf,
        /// The operations address of the server that uses it.
        ops: SocketAddr,
        /// Whether only that server is to be asked: its address was named.
        only_ask: bool,
        /// An admin token; `None`: one of the data directory's key.
        token: Option<String>,
    },
    /// `chinwag restore`.
    Restore {
        /// The backup.
        from: PathBuf,
        /// Where the log goes on.
        log: Option<PathBuf>,
        /// The data directory to make.
        data: PathBuf,
        /// Where to stop; `None`: at the end.
        at: Option<Moment>,
    },
}

pub(super) fn verify(flags: cli::DirFlags) -> Result<Tool, Error> {
    Ok(Tool::Verify { dir: path("DIR", &flags.dir)? })
}

pub(super) fn inspect(flags: cli::InspectFlags) -> Result<Tool, Error> {
    Ok(Tool::Inspect { dir: path("DIR", &flags.dir)?, json: flags.json })
}

pub(super) fn export(flags: cli::ExportFlags) -> Result<Tool, Error> {
    let user = |flag, id: &str| UserId::parse(id).map_err(|why| Error::new(flag, why));
    let only = match (&flags.user, &flags.peer, &flags.group) {
        (Some(a), Some(b), _) => Some(ConversationKey::direct(user("--user", a)?, user("--peer", b)?)),
        (_, _, Some(group)) => {
            let id = GroupId::parse(group).map_err(|why| Error::new("--group", why))?;
            Some(ConversationKey::Group(id))
        }
        _ => None,
    };
    let out = flags.out.map(|file| path("--out", &file)).transpose()?;
    Ok(Tool::Export { dir: path("DIR", &flags.dir)?, only, out })
}

pub(super) fn import(flags: cli::ImportFlags) -> Result<Tool, Error> {
    let input = flags.r#in.map(|file| path("--in", &file)).transpose()?;
    Ok(Tool::Import { dir: path("DIR", &flags.dir)?, input })
}

pub(super) fn backup(flags: cli::BackupFlags, environment: Environment<'_>) -> Result<Tool, Error> {
    let only_ask = flags.ops.is_some();
    let token = flags.token.or_else(|| environment("CHINWAG_TOKEN")?.into_string().ok());
    let layers = super::layers_of_the_server(flags.data, flags.ops, flags.config, environment)?;
    Ok(Tool::Backup {
        to: path("--to", &flags.to)?,
        data: super::data(&layers)?,
        ops: super::ops(&layers)?,
        only_ask,
        token: token.filter(|token| !token.is_empty()),
    })
}

pub(super) fn restore(flags: cli::RestoreFlags) -> Result<Tool, Error> {
    let at = flags.at.map(|at| Moment::parse(&at).map_err(|why| Error::new("--at", why))).transpose()?;
    let log = flags.log.map(|dir| path("--log", &dir)).transpose()?;
    Ok(Tool::Restore { from: path("FROM", &flags.from)?, log, data: path("--data", &flags.data)?, at })
}

fn path(place: &str, text: &str) -> Result<PathBuf, Error> {
    value::path(text).map_err(|why| Error::new(place, why))
}
