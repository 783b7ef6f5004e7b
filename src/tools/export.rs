//! `chinwag export`: conversations as JSON Lines, in the order of their keys.
//!
//! Two exports of the same history are the same bytes, wherever it lies. A conversation that cannot be read is named
//! and passed over, and makes the export fail in the end: what can be saved of a damaged store is saved.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::reader::Reader;
use super::transcript::lines;
use crate::conversation::state::State;
use crate::disk::{Disk, Real};
use crate::message::ConversationKey;

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Everything.
    All,
    /// One conversation.
    One(ConversationKey),
}

/// Writes what `selection` names in the data directory `dir` to `out`, and what cannot be read to `complaints`.
///
/// # Errors
/// When the store would not start, the one conversation is not there, some could not be read, or `out` fails.
pub fn export(
    dir: &Path,
    selection: &Selection,
    out: &mut dyn Write,
    complaints: &mut dyn Write,
) -> Result<(), Error> {
    let reader = Reader::open(Arc::new(Real), dir)?;
    let log = reader.read_log(&mut |_, _, _| {})?;
    reader.refuse_damage(log)?;
    match selection {
        Selection::One(key) => export_one(&reader, key, out),
        Selection::All => export_all(&reader, out, complaints),
    }
}

/// The same into a new file: whole under its name, or not there.
///
/// # Errors
/// As [`export`], and when there is such a file.
pub fn export_to_file(
    dir: &Path,
    selection: &Selection,
    file: &Path,
    complaints: &mut dyn Write,
) -> Result<(), Error> {
    refuse_existing(file)?;
    let unfinished = unfinished(file);
    let made = std::fs::File::create(&unfinished).map_err(Error::io("create", &unfinished))?;
    let mut out = BufWriter::new(made);
    let exported = export(dir, selection, &mut out, complaints);
    let made = out.into_inner().map_err(|why| Error::io("write", &unfinished)(why.into_error()));
    let kept = exported.and_then(|()| {
        made?.sync_all().map_err(Error::io("sync", &unfinished))?;
        publish(&unfinished, file)
    });
    if kept.is_err() {
        // What it holds is not all, and nobody will look for it under this name.
        let _ = std::fs::remove_file(&unfinished);
    }
    kept
}

fn refuse_existing(file: &Path) -> Result<(), Error> {
    match Real.exists(file).map_err(Error::io("look for", file))? {
        true => Err(Error::CannotUse {
            path: file.to_path_buf(),
            why: "is there already; name another file".into(),
        }),
        false => Ok(()),
    }
}

fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

fn publish(unfinished: &Path, file: &Path) -> Result<(), Error> {
    Real.rename_new(unfinished, file).map_err(Error::io("rename the export to", file))?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    Real.sync_dir(parent).map_err(Error::io("sync", parent))
}

fn export_one(reader: &Reader, key: &ConversationKey, out: &mut dyn Write) -> Result<(), Error> {
    match reader.archive().load_whole(key)? {
        Some(resident) => write(&resident.state, out).and_then(|()| out.flush()).map_err(Error::Output),
        None => Err(Error::Refused(format!("{} has no {key}", reader.data.root().display()))),
    }
}

fn export_all(reader: &Reader, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<(), Error> {
    let archive = reader.archive();
    let (mut keys, mut damaged) = (BTreeSet::new(), 0_u64);
    for hash in archive.hashes() {
        let found = archive.under(hash);
        if found.keys.is_empty() {
            damaged += 1;
        }
        keys.extend(found.keys);
    }
    for key in keys {
        match archive.load_whole(&key) {
            Ok(Some(resident)) => write(&resident.state, out).map_err(Error::Output)?,
            Ok(None) => {}
            Err(why) => {
                damaged += 1;
                writeln!(complaints, "chinwag: left out {key}: {why}").map_err(Error::Output)?;
            }
        }
    }
    out.flush().map_err(Error::Output)?;
    if damaged > 0 {
        let why = format!("{damaged} conversations are damaged and left out: run chinwag verify");
        return Err(Error::Damaged { path: reader.data.root().to_path_buf(), why });
    }
    Ok(())
}

fn write(state: &State, out: &mut dyn Write) -> io::Result<()> {
    lines(state, Some(state.hash), &mut |line| {
        serde_json::to_writer(&mut *out, line)?;
        out.write_all(b"\n")
    })
}
