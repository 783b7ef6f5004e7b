//! The whole log without its threads.
//!
//! Promises the same as [`Wal`](super::Wal), which is this plus two threads; but whoever holds it decides when the
//! committer and the spare thread take a step. For simulations that must be repeatable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::committer::{Committer, Sink};
use super::queue::{End, Reason, Refused, Shared, State};
use super::segment::SegmentFile;
use super::spare::Stock;
use super::writer::Writer;
use super::{Error, Lsn, Options, Recovered, StoreId};
use crate::disk::Disk;

/// A log that moves only when it is told to.
pub struct Stepped<T> {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) wal_dir: PathBuf,
    pub(super) shared: Arc<Shared<T>>,
    pub(super) committer: Committer<T>,
    pub(super) stock: Stock<T>,
}

impl<T> Stepped<T> {
    /// Begins a new life of the log, in a new segment. A full disk makes it begin read-only.
    pub fn start(
        disk: Arc<dyn Disk>,
        wal_dir: &Path,
        tmp_dir: &Path,
        store: StoreId,
        recovered: &Recovered,
        options: Options,
        sink: Sink<T>,
    ) -> Result<Self, Error> {
        options.check()?;
        let shared = Arc::new(Shared::new(options, recovered));
        let mut stock = Stock::new(disk.clone(), tmp_dir.to_path_buf(), shared.clone());
        let mut writer = Writer::new(disk.clone(), wal_dir.to_path_buf(), store, recovered);
        begin_first_segment(&mut stock, &mut writer, &shared)?;
        let committer = Committer::new(shared.clone(), writer, sink);
        Ok(Self { disk, wal_dir: wal_dir.to_path_buf(), shared, committer, stock })
    }

    /// As [`Wal::append`](super::Wal::append).
    pub fn append(&self, kind: u8, payload: Vec<u8>, ticket: T) -> Result<Lsn, Refused<T>> {
        self.shared.append(kind, payload, ticket)
    }

    /// As [`Wal::barrier`](super::Wal::barrier).
    pub fn barrier(&self, ticket: T) -> Result<(), Refused<T>> {
        self.shared.barrier(ticket)
    }

    /// Puts the end of the current segment into the queue, see [`Wal::begin_segment`](super::Wal::begin_segment).
    pub fn begin_segment(&self) -> Result<(), Reason> {
        self.shared.begin_segment()
    }

    /// As [`Wal::segments`](super::Wal::segments).
    pub fn segments(&self) -> Vec<SegmentFile> {
        self.shared.segment_files()
    }

    /// Writes, syncs as the mode says and lets out what waits.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.committer.commit()
    }

    /// What happens when the interval of [`SyncMode::Interval`](super::SyncMode::Interval) is over.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.committer.sync()
    }

    /// What happens after some idleness.
    pub fn seal(&mut self) -> Result<(), Error> {
        self.committer.seal()
    }

    /// What the spare thread does.
    pub fn refill(&mut self) -> Result<(), Error> {
        self.stock.refill(&|_| {})
    }

    /// As [`Wal::remove_below`](super::Wal::remove_below).
    pub fn remove_below(&self, lsn: Lsn) -> Result<usize, Error> {
        remove_below(self.disk.as_ref(), &self.wal_dir, &self.shared, lsn)
    }

    /// As [`Wal::durable_lsn`](super::Wal::durable_lsn).
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.durable_lsn()
    }

    /// As [`Wal::state`](super::Wal::state).
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// As [`Wal::close`](super::Wal::close).
    pub fn close(mut self) -> Result<Lsn, Error> {
        self.shared.end(End::Close);
        self.committer.commit()?;
        let last_lsn = self.committer.close()?;
        self.stock.remove_all();
        Ok(last_lsn)
    }
}

/// The start waits for a small segment, so that the log can take records at once.
fn begin_first_segment<T>(
    stock: &mut Stock<T>,
    writer: &mut Writer,
    shared: &Shared<T>,
) -> Result<(), Error> {
    let bytes = shared.options.first_segment_bytes;
    match stock.make(bytes) {
        Ok(Some(spare)) => {
            let segment = writer.rotate(spare)?;
            shared.segment_begun(segment);
            shared.set_room(bytes);
        }
        Ok(None) => {}
        Err(error) if error.is_no_space() => {
            tracing::warn!(%error, "the disk is full: the log starts read-only");
            shared.start_read_only();
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Removes one segment after the other, each durably before the next, so that a crash leaves no hole in the log.
pub(super) fn remove_below<T>(
    disk: &dyn Disk,
    wal_dir: &Path,
    shared: &Shared<T>,
    lsn: Lsn,
) -> Result<usize, Error> {
    let mut removed = 0;
    while let Some(segment) = shared.oldest_below(lsn) {
        super::spare::discard(disk, &segment.path)?;
        disk.sync_dir(wal_dir).map_err(Error::io("sync", wal_dir))?;
        shared.segment_removed(&segment);
        removed += 1;
    }
    Ok(removed)
}
