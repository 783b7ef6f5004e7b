//! Writes a pack front to back, never holding more of it than one buffer and its index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::format::{self, Footer};
use super::super::{
    Error, FileKind, KEY_BYTES_MAX, PACK_CHUNKS_MAX, PAYLOAD_BYTES_MAX, StoreId, create_tmp, io_error,
    rename_new,
};
use super::{ChunkMeta, IndexEntry, PackInfo};
use crate::disk::{Disk, File};

/// What is collected before it is written and synced, in bytes. A commit of the log waits for no more than this, and
/// finishing for no more than the last of it; large enough that the calls cost little beside the disk.
const BUFFER_BYTES: usize = 64 * 1024;

/// A pack in the making. It is a file in the temporary directory until [`finish`](Self::finish) has published it;
/// dropping it before gives up, and the file goes.
pub struct PackWriter {
    disk: Arc<dyn Disk>,
    file: Box<dyn File>,
    tmp: PathBuf,
    snap_dir: PathBuf,
    store: StoreId,
    number: u64,
    header_crc: u32,
    /// Where `buffer` goes in the file.
    written: u64,
    buffer: Vec<u8>,
    /// Header and key of the chunk being added.
    head: Vec<u8>,
    entries: Vec<IndexEntry>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// A write failed: nobody knows what the file holds.
    Failed,
    Renamed,
}

impl PackWriter {
    /// Begins the pack of this number. A number is used once, see [`next_number`](super::super::next_number).
    pub fn create(
        disk: Arc<dyn Disk>,
        tmp_dir: &Path,
        snap_dir: &Path,
        store: StoreId,
        number: u64,
    ) -> Result<Self, Error> {
        let tmp = tmp_dir.join(FileKind::Pack.file_name(number));
        let file = create_tmp(&*disk, &tmp)?;
        let (page, header_crc) = format::encode_header(&store, number);
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        buffer.extend_from_slice(&page);
        Ok(Self {
            disk,
            file,
            tmp,
            snap_dir: snap_dir.to_path_buf(),
            store,
            number,
            header_crc,
            written: 0,
            buffer,
            head: Vec::new(),
            entries: Vec::new(),
            state: State::Open,
        })
    }

    /// Appends a chunk. Chunks of one key are read back in the order in which they were added.
    ///
    /// Over a limit, nothing was added and the pack goes on; after a failed write it cannot be finished any more.
    pub fn add(&mut self, meta: &ChunkMeta, payload: &[u8]) -> Result<(), Error> {
        self.check_open()?;
        self.check("the key's length", meta.key.len(), KEY_BYTES_MAX)?;
        self.check("the payload's length", payload.len(), PAYLOAD_BYTES_MAX)?;
        self.check("the number of chunks", self.entries.len() + 1, PACK_CHUNKS_MAX)?;
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let entry = format::encode_chunk_head(&mut head, &self.store, self.bytes(), meta, payload);
        let put = self.put(&head).and_then(|()| self.put(payload));
        put.and_then(|()| self.put(format::padding(head.len() + payload.len())))?;
        self.head = head;
        self.entries.push(entry);
        Ok(())
    }

    /// How long the pack is so far.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// How many chunks were added.
    pub fn chunks(&self) -> usize {
        self.entries.len()
    }

    /// Writes index and footer and makes the pack durable under its name. Nothing reads it before a manifest names it.
    ///
    /// After an error a file of this number may be there or not; it is never current, and [`prune`](super::super::prune)
    /// removes it. Try again with the next number.
    pub fn finish(mut self) -> Result<PackInfo, Error> {
        let index_offset = self.bytes();
        let index_crc = self.put_index()?;
        let (chunks, file_bytes) = (self.entries.len() as u64, self.bytes() + format::FOOTER_BYTES as u64);
        let (number, header_crc) = (self.number, self.header_crc);
        let footer = Footer { number, index_offset, chunks, file_bytes, index_crc, header_crc };
        let (footer, footer_crc) = format::encode_footer(&footer);
        self.put(&footer)?;
        self.flush()?;
        self.publish()?;
        Ok(PackInfo { number, bytes: file_bytes, footer_crc, chunks })
    }

    /// Makes what was added so far durable, so that [`finish`](Self::finish) has little to wait for. It promises nothing
    /// by itself: a pack that is not finished is never read.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.check_open()?;
        self.flush()?;
        self.file.sync_data().map_err(|source| {
            self.state = State::Failed;
            io_error("sync", &self.tmp)(source)
        })
    }

    fn check_open(&self) -> Result<(), Error> {
        match self.state {
            State::Open => Ok(()),
            State::Failed | State::Renamed => Err(Error::Abandoned(self.tmp.clone())),
        }
    }

    fn check(&self, what: &'static str, asked: usize, max: usize) -> Result<(), Error> {
        match asked <= max {
            true => Ok(()),
            false => Err(Error::Limit { path: self.tmp.clone(), what, asked, max }),
        }
    }

    fn put_index(&mut self) -> Result<u32, Error> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable_by_key(|entry| (entry.key_hash, entry.offset));
        let mut crc = 0;
        let mut bytes = Vec::with_capacity(format::ENTRY_BYTES);
        for entry in &entries {
            bytes.clear();
            format::encode_entry(&mut bytes, entry);
            crc = crc32c::crc32c_append(crc, &bytes);
            self.put(&bytes)?;
        }
        self.entries = entries;
        Ok(crc)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.sync()?;
        }
        if bytes.len() > BUFFER_BYTES {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer)?;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.check_open()?;
        let written = self.file.write_at(bytes, self.written);
        written.map_err(io_error("write", &self.tmp)).inspect_err(|_| self.state = State::Failed)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Content before name, name before anybody may depend on it.
    fn publish(&mut self) -> Result<(), Error> {
        self.file.sync_all().map_err(io_error("sync", &self.tmp))?;
        rename_new(&*self.disk, &self.tmp, &self.snap_dir, FileKind::Pack, self.number)?;
        self.state = State::Renamed;
        self.disk.sync_dir(&self.snap_dir).map_err(io_error("sync", &self.snap_dir))
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        if self.state != State::Renamed {
            // A file that stays costs space until the next start empties the directory.
            let _ = self.disk.remove(&self.tmp);
        }
    }
}
