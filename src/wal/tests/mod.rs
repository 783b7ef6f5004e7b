//! What the log promises, seen from outside.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::disk::{Disk, Simulated};

mod checking;
mod damage;
mod following;
mod in_place;
mod lives;
mod threads;

const STORE: StoreId = *b"the only store..";

fn wal_dir() -> &'static Path {
    Path::new("wal")
}

fn tmp_dir() -> &'static Path {
    Path::new("tmp")
}

fn quarantine_dir() -> &'static Path {
    Path::new("quarantine")
}

fn disk() -> Simulated {
    let disk = Simulated::new(1);
    for dir in [wal_dir(), tmp_dir(), quarantine_dir()] {
        disk.create_dir_all(dir).unwrap();
    }
    disk
}

fn small() -> Options {
    Options {
        segment_bytes: 16 << 10,
        first_segment_bytes: 16 << 10,
        free_bytes_min: 0,
        ..Options::default()
    }
}

type Read = Vec<(u64, u8, Vec<u8>)>;

fn read_after(disk: &Simulated, after: u64) -> Result<(Recovered, Read), Error> {
    let mut read = Vec::new();
    let recovered = replay(disk, wal_dir(), quarantine_dir(), STORE, Lsn(after), &mut |record| {
        read.push((record.lsn.0, record.kind, record.payload.to_vec()));
        Ok(())
    })?;
    Ok((recovered, read))
}

fn read(disk: &Simulated) -> Result<(Recovered, Read), Error> {
    read_after(disk, 0)
}

type Out = Arc<Mutex<Vec<(u64, u32)>>>;

/// A new life of the log, and what comes out of it.
fn start(disk: &Simulated, options: Options) -> (Stepped<u32>, Out) {
    let (recovered, _) = read(disk).unwrap();
    let out = Out::default();
    let into = out.clone();
    let sink: Sink<u32> = Box::new(move |batch| {
        into.lock().unwrap().extend(batch.tickets.into_iter().map(|(lsn, ticket)| (lsn.0, ticket)));
    });
    let disk = Arc::new(disk.clone());
    (Stepped::start(disk, wal_dir(), tmp_dir(), STORE, &recovered, options, sink).unwrap(), out)
}

fn segment_path(first_lsn: u64) -> std::path::PathBuf {
    segment::SegmentFile::new(wal_dir(), Lsn(first_lsn)).path
}
