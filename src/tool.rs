//! The tools of the binary: what they are called with, and where their output goes.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use chinwag::config::Tool;
use chinwag::tools::{self, Copied, Error, Imported, Order, Plan, Selection};

/// Runs a tool to its end.
pub(crate) fn run(tool: &Tool) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match tool {
        Tool::Verify { dir } => tools::verify(dir, &mut out)?.into_result(dir).map(|_| ()),
        Tool::Inspect { dir, json } => tools::inspect(dir, *json, &mut out),
        Tool::Export { dir, only, out: file } => {
            let selection = only.clone().map_or(Selection::All, Selection::One);
            export(dir, &selection, file.as_deref(), &mut out)
        }
        Tool::Import { dir, input } => import(dir, input.as_deref(), &mut out),
        Tool::Backup { to, data, ops, only_ask, token } => {
            let order = Order { to, data, ops: *ops, only_ask: *only_ask, token: token.as_deref() };
            tell("backed up", tools::backup(&order)?, to, &mut out)
        }
        Tool::Restore { from, log, data, at } => {
            let plan = Plan { from, log: log.as_deref(), data, at: *at };
            let (copied, _) = tools::restore(&plan, &mut out)?;
            tell("restored", copied, data, &mut out)
        }
        Tool::Bench(settings) => tools::bench(settings, &mut out),
    }
}

fn tell(what: &str, copied: Copied, to: &Path, out: &mut dyn Write) -> Result<(), Error> {
    let (Copied { files, linked, bytes, last_lsn }, to) = (copied, to.display());
    let told = writeln!(out, "{what} to={to} last={last_lsn} files={files} linked={linked} bytes={bytes}");
    told.map_err(Error::Output)
}

fn export(dir: &Path, selection: &Selection, file: Option<&Path>, out: &mut dyn Write) -> Result<(), Error> {
    let mut complaints = io::stderr();
    match file {
        Some(file) => tools::export_to_file(dir, selection, file, &mut complaints),
        None => tools::export(dir, selection, &mut BufWriter::new(out), &mut complaints),
    }
}

fn import(dir: &Path, input: Option<&Path>, out: &mut dyn Write) -> Result<(), Error> {
    let imported = match input {
        Some(file) => tools::import_file(dir, file)?,
        None => tools::import(dir, &mut io::stdin().lock(), Path::new("standard input"))?,
    };
    let Imported { conversations, messages, recalls, state_hash } = imported;
    writeln!(
        out,
        "imported conversations={conversations} messages={messages} recalls={recalls}\nstate hash {state_hash}"
    )
    .map_err(Error::Output)
}
