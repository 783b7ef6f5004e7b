//! Settings of the tools that work on a data directory. They read neither the environment nor the settings file: what
//! a tool is to touch is named on its command line.

use std::path::PathBuf;

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

fn path(place: &str, text: &str) -> Result<PathBuf, Error> {
    value::path(text).map_err(|why| Error::new(place, why))
}
