//! Settings of the tools that work on a data directory. All but `backup`, which has to find the server, read neither
//! the environment nor the settings file: what a tool is to touch is named on its command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::bench::Bench;
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
    /// `chinwag bench`.
    Bench(Box<Bench>),
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{Command, Stop};
    use super::*;

    fn read(arguments: &str, variables: &[(&str, &str)]) -> Result<Tool, Stop> {
        let arguments = format!("chinwag {arguments}");
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        match Command::read(arguments.split(' ').map(OsString::from), variable)? {
            Command::Tool(tool) => Ok(tool),
            other => panic!("not a tool: {other:?}"),
        }
    }

    #[test]
    fn a_selection_is_a_pair_or_a_group_or_everything() {
        let user = |id| UserId::parse(id).unwrap();
        let only = |arguments| match read(arguments, &[]).unwrap() {
            Tool::Export { only, .. } => only,
            other => panic!("{other:?}"),
        };
        assert_eq!(only("export d"), None);
        assert_eq!(only("export d --user b --peer a"), Some(ConversationKey::direct(user("a"), user("b"))));
        let group = ConversationKey::Group(GroupId::parse("g").unwrap());
        assert_eq!(only("export d --group g"), Some(group));
        for bad in
            ["export d --user a", "export d --peer a", "export d --user a --peer b --group g", "export"]
        {
            assert!(matches!(read(bad, &[]), Err(Stop::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn a_backup_finds_the_server_as_serve_would_place_it() {
        let variables = [("CHINWAG_DATA", "here"), ("CHINWAG_OPS", "127.0.0.1:9"), ("CHINWAG_TOKEN", "t")];
        let expected = |data: &str, ops: &str, only_ask, token: Option<&str>| Tool::Backup {
            to: "b".into(),
            data: data.into(),
            ops: ops.parse().unwrap(),
            only_ask,
            token: token.map(str::to_owned),
        };
        let plain = read("backup --to b", &[]).unwrap();
        assert_eq!(plain, expected("snapshots", "127.0.0.1:8001", false, None));
        let from_variables = read("backup --to b", &variables).unwrap();
        assert_eq!(from_variables, expected("here", "127.0.0.1:9", false, Some("t")));
        let from_flags = read("backup --to b --data d --ops 127.0.0.1:7 --token u", &variables).unwrap();
        assert_eq!(from_flags, expected("d", "127.0.0.1:7", true, Some("u")));
    }

    #[test]
    fn bad_values_are_refused_by_the_flag_that_has_them() {
        for (arguments, place) in [
            ("restore f --data d --at 0", "--at"),
            ("restore f --data d --at noon", "--at"),
            ("export d --group ", "--group"),
            ("backup --to b --ops here", "--ops"),
        ] {
            let refused = read(arguments, &[]);
            assert!(matches!(&refused, Err(Stop::Usage(why)) if why.contains(place)), "{refused:?}");
        }
    }
}
