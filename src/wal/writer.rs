//! Writes frames to the current segment and goes on in the next: the only code that changes the log while it lives.
//!
//! Promises that a frame names the batch it belongs to, that a batch is written only when the one before is durable
//! if the caller syncs in between, and that a segment gets its name only when it is durable. When to write and
//! sync is the committer's business; that there is room is the queue's.
//!
//! After any error the writer must not be used again.

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{self, CLOSE, SEAL, Salt};
use super::segment::{Ending, PAGE_BYTES, Page, SegmentFile};
use super::spare::Spare;
use super::{Error, Lsn, StoreId};
use crate::disk::{Disk, File};

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    wal_dir: PathBuf,
    store: StoreId,
    /// `None` until the first segment of this life.
    current: Option<Current>,
    /// Frames that wait to be written.
    buffer: Vec<u8>,
    last_lsn: Lsn,
    /// How the last segment that has a record ends; what the next page will say.
    previous: Ending,
    /// Whether an empty segment of an earlier life has the name of the next one.
    replaces: bool,
}

struct Current {
    segment: SegmentFile,
    file: Box<dyn File>,
    bytes: u64,
    salt: Salt,
    /// Where the next write goes.
    written: u64,
    /// How much of that is known to be durable: where the batch begins that is being made.
    durable: u64,
    last_kind: Option<u8>,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        wal_dir: PathBuf,
        store: StoreId,
        recovered: &super::Recovered,
    ) -> Self {
        Self {
            disk,
            wal_dir,
            store,
            current: None,
            buffer: Vec::new(),
            last_lsn: recovered.last_lsn,
            previous: recovered.ending,
            replaces: recovered.last_is_empty,
        }
    }

    pub(super) fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    /// Whether something is written and not known to be durable.
    pub(super) fn is_dirty(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.durable < current.written)
    }

    /// Whether the last record is durable, but recovery could still take damage to it for a torn tail.
    pub(super) fn wants_seal(&self) -> bool {
        let ends_in_record = |current: &Current| current.last_kind.is_some_and(|kind| kind != SEAL);
        !self.is_dirty() && self.current.as_ref().is_some_and(ends_in_record)
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds a record to the batch. Nothing is written yet.
    pub(super) fn put(&mut self, lsn: Lsn, kind: u8, payload: &[u8]) {
        assert_eq!(lsn, self.last_lsn.next(), "records come in order");
        self.last_lsn = lsn;
        self.put_frame(kind, payload);
    }

    fn put_frame(&mut self, kind: u8, payload: &[u8]) {
        let current =
            self.current.as_mut().expect("the queue begins the first segment with the first record");
        frame::encode(&mut self.buffer, current.salt, current.durable as u32, self.last_lsn, kind, payload);
        assert!(current.written + self.buffer.len() as u64 <= current.bytes, "the queue keeps room");
        current.last_kind = Some(kind);
    }

    /// Writes the batch. It survives the end of the process, not that of the machine.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        let Some(current) = self.current.as_mut().filter(|_| !self.buffer.is_empty()) else {
            return Ok(());
        };
        let written = current.file.write_at(&self.buffer, current.written);
        written.map_err(Error::io("write", &current.segment.path))?;
        current.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes all that is written durable.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        let Some(current) = self.current.as_mut().filter(|current| current.durable < current.written) else {
            return Ok(());
        };
        current.file.sync_data().map_err(Error::io("sync", &current.segment.path))?;
        current.durable = current.written;
        Ok(())
    }

    /// Ends the current segment, if there is one, and goes on in `spare`. Everything put before is durable then.
    pub(super) fn rotate(&mut self, spare: Spare) -> Result<SegmentFile, Error> {
        self.end_current()?;
        let segment = SegmentFile::new(&self.wal_dir, self.last_lsn.next());
        let salt = draw_salt().map_err(Error::io("draw random bytes for", &segment.path))?;
        self.publish(&spare, &segment, salt)?;
        self.current = Some(Current {
            segment: segment.clone(),
            bytes: spare.bytes,
            file: spare.file,
            salt,
            written: PAGE_BYTES,
            durable: PAGE_BYTES,
            last_kind: None,
        });
        Ok(segment)
    }

    fn end_current(&mut self) -> Result<(), Error> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        if current.segment.first_lsn > self.last_lsn {
            // Its first record was too long for it: the next segment takes its name.
            self.replaces = true;
        } else {
            self.mark(SEAL)?;
            self.previous = Ending::Sealed;
        }
        self.current = None;
        Ok(())
    }

    /// First the page is durable, then the name.
    fn publish(&mut self, spare: &Spare, segment: &SegmentFile, salt: Salt) -> Result<(), Error> {
        let page = Page { store: self.store, first_lsn: segment.first_lsn, previous: self.previous, salt };
        spare.file.write_at(&page.encode(), 0).map_err(Error::io("write", &spare.path))?;
        spare.file.sync_all().map_err(Error::io("sync", &spare.path))?;
        let renamed = if std::mem::take(&mut self.replaces) {
            self.disk.rename(&spare.path, &segment.path)
        } else {
            self.disk.rename_new(&spare.path, &segment.path)
        };
        renamed.map_err(Error::io("rename a new segment to", &segment.path))?;
        self.disk.sync_dir(&self.wal_dir).map_err(Error::io("sync", &self.wal_dir))
    }

    /// Says durably that everything up to here is durable.
    pub(super) fn seal(&mut self) -> Result<(), Error> {
        self.mark(SEAL)
    }

    fn mark(&mut self, kind: u8) -> Result<(), Error> {
        self.put_frame(kind, &[]);
        self.write()?;
        self.sync()
    }

    /// Ends the log's life: everything is durable, and the room that was not needed is given back.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        if self.current.is_none() {
            return Ok(());
        }
        self.mark(CLOSE)?;
        if let Some(Current { segment, file, written, .. }) = self.current.take() {
            file.set_len(written).map_err(Error::io("cut", &segment.path))?;
            file.sync_all().map_err(Error::io("sync", &segment.path))?;
        }
        Ok(())
    }
}

fn draw_salt() -> std::io::Result<Salt> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(std::io::Error::other)?;
    Ok(Salt(u64::from_le_bytes(salt)))
}
