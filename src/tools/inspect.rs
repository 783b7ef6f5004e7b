//! `chinwag inspect`: what takes the space in a data directory.
//!
//! Reads the log and the packs' indexes, not the packs' chunks: whether those are whole is what `verify` says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::Error;
use super::reader::Reader;
use crate::conversation::people::is_block;
use crate::disk::Real;
use crate::snapshot::{self, PackReader};
use crate::wal::Checked;

/// How many of the largest conversations are named.
const LARGEST: usize = 10;

/// What stands in a data directory, in bytes and in numbers.
#[derive(Debug, Serialize)]
struct Inspection {
    store: String,
    epoch: u32,
    log: Log,
    snapshot: Snapshot,
    conversations: usize,
    messages: u64,
    /// Whether a start would find fault with what was read.
    sound: bool,
    largest: Vec<Large>,
}

#[derive(Debug, Serialize)]
struct Log {
    bytes: u64,
    records: u64,
    last_lsn: u64,
    closed_cleanly: bool,
    segments: Vec<Segment>,
}

#[derive(Debug, Serialize)]
struct Segment {
    file: PathBuf,
    first_lsn: u64,
    last_lsn: u64,
    bytes: u64,
    used_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    bytes: u64,
    manifests: Vec<Manifest>,
    packs: Vec<Pack>,
}

#[derive(Debug, Serialize)]
struct Manifest {
    file: PathBuf,
    packs: usize,
    covers_lsn: u64,
}

#[derive(Debug, Serialize)]
struct Pack {
    file: PathBuf,
    chunks: u64,
    bytes: u64,
    /// Of these, what the blocks take that say who is in which conversation.
    people_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Large {
    conversation: String,
    /// In the packs and in the log behind them.
    bytes: u64,
}

/// Describes the data directory `dir`, for people or as JSON.
///
/// # Errors
/// When the directory cannot be looked at, or `out` fails.
pub fn inspect(dir: &Path, json: bool, out: &mut dyn Write) -> Result<(), Error> {
    let reader = Reader::open(Arc::new(Real), dir)?;
    let log = reader.read_log(&mut |_, _, _| {})?;
    let (conversations, messages) = reader.archive().count();
    let format = reader.data.format();
    let inspection = Inspection {
        store: format!("{:032x}", u128::from_be_bytes(format.store)),
        epoch: format.epoch,
        snapshot: snapshot_of(&reader),
        largest: largest(&reader),
        conversations,
        messages,
        log: log_of(&reader, &log),
        sound: reader.rejected.is_empty() && reader.refuse_damage(log).is_ok(),
    };
    let written = match json {
        true => {
            serde_json::to_writer(&mut *out, &inspection).map_err(Into::into).and_then(|()| writeln!(out))
        }
        false => inspection.describe(out),
    };
    written.map_err(Error::Output)
}

fn log_of(reader: &Reader, log: &Checked) -> Log {
    let segments = log.segments.iter().map(|segment| Segment {
        file: segment.file.path.clone(),
        first_lsn: segment.file.first_lsn.0,
        last_lsn: segment.last_lsn.0,
        bytes: segment.bytes,
        used_bytes: segment.end,
    });
    Log {
        bytes: reader.log_bytes(),
        records: log.records,
        last_lsn: log.last_lsn.0,
        closed_cleanly: log.closed_cleanly,
        segments: segments.collect(),
    }
}

fn snapshot_of(reader: &Reader) -> Snapshot {
    let packs: Vec<_> = reader.packs();
    let packs = packs.iter().map(|pack| Pack {
        file: pack.path().to_path_buf(),
        chunks: pack.info().chunks,
        bytes: pack.info().bytes,
        people_bytes: people_bytes(pack),
    });
    let packs: Vec<_> = packs.collect();
    let manifests = reader.images.iter().map(|image| Manifest {
        file: snapshot::manifest_path(&reader.data.snap_dir(), image.manifest.number),
        packs: image.manifest.packs.len(),
        covers_lsn: image.manifest.replay_after_lsn,
    });
    Snapshot { bytes: packs.iter().map(|pack| pack.bytes).sum(), manifests: manifests.collect(), packs }
}

fn people_bytes(pack: &PackReader) -> u64 {
    pack.entries().iter().filter(|entry| is_block(entry)).map(|entry| u64::from(entry.bytes)).sum()
}

/// The conversations that take the most, largest first.
fn largest(reader: &Reader) -> Vec<Large> {
    let archive = reader.archive();
    let mut heap = BinaryHeap::new();
    for hash in archive.hashes() {
        heap.push(Reverse((archive.bytes_under(hash), hash)));
        if heap.len() > LARGEST {
            heap.pop();
        }
    }
    let rows = heap.into_sorted_vec().into_iter().map(|Reverse((bytes, hash))| {
        let keys: Vec<_> = archive.under(hash).keys.iter().map(ToString::to_string).collect();
        Large { conversation: keys.join(", "), bytes }
    });
    rows.collect()
}

impl Inspection {
    fn describe(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "store {} epoch {}", self.store, self.epoch)?;
        let Log { bytes, records, last_lsn, .. } = &self.log;
        writeln!(out, "log bytes={bytes} records={records} last={last_lsn}")?;
        for Segment { file, first_lsn, last_lsn, bytes, used_bytes } in &self.log.segments {
            let file = file.display();
            writeln!(out, "  {file} first={first_lsn} last={last_lsn} bytes={bytes} used={used_bytes}")?;
        }
        writeln!(out, "snapshot bytes={}", self.snapshot.bytes)?;
        for Manifest { file, packs, covers_lsn } in &self.snapshot.manifests {
            writeln!(out, "  {} packs={packs} covers={covers_lsn}", file.display())?;
        }
        for Pack { file, chunks, bytes, people_bytes } in &self.snapshot.packs {
            writeln!(out, "  {} chunks={chunks} bytes={bytes} people={people_bytes}", file.display())?;
        }
        writeln!(out, "chat conversations={} messages={}", self.conversations, self.messages)?;
        for Large { conversation, bytes } in &self.largest {
            writeln!(out, "  {bytes:>12} {conversation}")?;
        }
        writeln!(out, "{}", if self.sound { "sound" } else { "damaged: run chinwag verify" })
    }
}
