//! Reads a pack: the index at once, chunks when they are asked for.

use std::path::{Path, PathBuf};

use super::super::format::{
    self, CHUNK_HEAD_BYTES, ChunkHead, Damage, ENTRY_BYTES, FOOTER_BYTES, Footer, HEADER_BYTES,
};
use super::super::{Error, FileKind, PAYLOAD_BYTES_MAX, StoreId, io_error, key_hash};
use super::{Chunk, IndexEntry, PackInfo};
use crate::disk::{Disk, File};

/// What is read ahead, in bytes. Large enough that the calls cost nothing beside the disk.
const WINDOW_BYTES: usize = 1024 * 1024;
/// How much of an index is read at a time.
const INDEX_PART_BYTES: usize = WINDOW_BYTES / ENTRY_BYTES * ENTRY_BYTES;

/// An open pack. Its index is in memory and checked, its chunks are on the disk and checked when they are read. Several
/// threads may read at the same time, also after [`prune`](super::super::prune) took the name away.
pub struct PackReader {
    file: Box<dyn File>,
    path: PathBuf,
    store: StoreId,
    info: PackInfo,
    index_offset: u64,
    entries: Vec<IndexEntry>,
}

impl PackReader {
    /// Opens the pack that a manifest names; reads and checks header page, footer and index, but no chunk.
    pub fn open(disk: &dyn Disk, snap_dir: &Path, store: &StoreId, info: &PackInfo) -> Result<Self, Error> {
        let (file, path, footer) = open_checked(disk, snap_dir, store, info)?;
        let entries = read_index(&*file, &path, &footer)?;
        Ok(Self { file, path, store: *store, info: *info, index_offset: footer.index_offset, entries })
    }

    /// Reads header page, footer and index again, from the disk and not from memory, and checks them; `on_read` hears how
    /// many bytes of the index were read, so that it can take its time. What is read of the chunks behind it comes from the disk too.
    pub fn check_again(
        &self,
        disk: &dyn Disk,
        snap_dir: &Path,
        on_read: &mut dyn FnMut(usize),
    ) -> Result<(), Error> {
        self.file.drop_cache().map_err(io_error("drop the cache of", &self.path))?;
        check_with_index(disk, snap_dir, &self.store, &self.info, on_read)
    }

    /// Which pack it is.
    pub fn info(&self) -> &PackInfo {
        &self.info
    }

    /// Its file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All chunks, sorted by key hash; those of one key in the order in which they were added.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// The chunks of this key, in order - and those of a key with the same hash: compare the key in each chunk.
    pub fn entries_of(&self, key: &[u8]) -> &[IndexEntry] {
        let hash = key_hash(&self.store, key);
        let start = self.entries.partition_point(|entry| entry.key_hash < hash);
        let behind = &self.entries[start..];
        &behind[..behind.partition_point(|entry| entry.key_hash == hash)]
    }

    /// Reads and checks a chunk. `entry` is one of this pack's.
    pub fn chunk(&self, entry: &IndexEntry) -> Result<Chunk, Error> {
        let mut bytes = self.read(entry, entry.bytes as usize)?;
        let head = self.check_chunk(&bytes, entry)?;
        // In place: a second buffer would double what the largest chunk costs.
        bytes.truncate(head.payload().end);
        bytes.drain(..head.payload().start);
        Ok(Chunk { meta: head.meta, payload: bytes })
    }

    /// Reads the key of a chunk, also when its payload is damaged.
    pub fn key(&self, entry: &IndexEntry) -> Result<Vec<u8>, Error> {
        let bytes = self.read(entry, CHUNK_HEAD_BYTES + usize::from(entry.key_bytes))?;
        let head = format::decode_chunk_head(&bytes, &self.store, entry);
        Ok(head.map_err(|why| self.damaged(entry, why))?.meta.key)
    }

    /// Every chunk in the order of the file, read in large steps.
    pub fn chunks_in_order(&self) -> ChunksInOrder<'_> {
        self.chunks(self.entries_in_order())
    }

    /// Which entries there are, by their place among [`entries`](Self::entries), in the order of the file.
    pub fn entries_in_order(&self) -> Vec<u32> {
        let mut order: Vec<_> = (0..self.entries.len() as u32).collect();
        order.sort_unstable_by_key(|&at| self.entries[at as usize].offset);
        order
    }

    /// Some of those, in their order.
    pub fn chunks(&self, order: Vec<u32>) -> ChunksInOrder<'_> {
        ChunksInOrder { pack: self, order: order.into_iter(), window: Vec::new(), window_offset: 0 }
    }

    fn damaged(&self, entry: &IndexEntry, why: Damage) -> Error {
        Error::damaged(&self.path, entry.offset, why)
    }

    /// The first bytes of a chunk. An entry of another pack must not make us allocate what this file does not hold.
    fn read(&self, entry: &IndexEntry, bytes: usize) -> Result<Vec<u8>, Error> {
        check_place(entry, self.index_offset).map_err(|why| self.damaged(entry, why))?;
        read(&*self.file, &self.path, entry.offset, bytes)
    }

    fn check_chunk(&self, bytes: &[u8], entry: &IndexEntry) -> Result<ChunkHead, Error> {
        let checked = format::decode_chunk_head(bytes, &self.store, entry)
            .and_then(|head| head.check_payload(bytes).map(|()| head));
        checked.map_err(|why| self.damaged(entry, why))
    }
}

/// Every chunk of a pack with its index entry. A damaged one is an error in its place; the others still come.
pub struct ChunksInOrder<'a> {
    pack: &'a PackReader,
    order: std::vec::IntoIter<u32>,
    /// What was read ahead, at most [`WINDOW_BYTES`].
    window: Vec<u8>,
    window_offset: u64,
}

impl Iterator for ChunksInOrder<'_> {
    type Item = (IndexEntry, Result<Chunk, Error>);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.pack.entries[self.order.next()? as usize];
        Some((entry, self.chunk(&entry)))
    }
}

impl ChunksInOrder<'_> {
    fn chunk(&mut self, entry: &IndexEntry) -> Result<Chunk, Error> {
        if self.in_window(entry).is_none() {
            let bytes = self.stretch_bytes(entry);
            self.read_ahead(entry.offset, bytes);
        }
        // Too large for the window, or something in the window cannot be read: then let only that something fail.
        let Some(bytes) = self.in_window(entry) else { return self.pack.chunk(entry) };
        let head = self.pack.check_chunk(bytes, entry)?;
        let payload = bytes[head.payload()].to_vec();
        Ok(Chunk { meta: head.meta, payload })
    }

    fn in_window(&self, entry: &IndexEntry) -> Option<&[u8]> {
        let start = usize::try_from(entry.offset.checked_sub(self.window_offset)?).ok()?;
        self.window.get(start..start.checked_add(entry.bytes as usize)?)
    }

    /// How much is read with a chunk: whole ones only, as what is cut off would be read again. Nothing if it alone is
    /// too large.
    fn stretch_bytes(&self, entry: &IndexEntry) -> usize {
        let mut bytes = 0;
        let following = self.order.as_slice().iter().map(|&at| &self.pack.entries[at as usize]);
        for next in std::iter::once(entry).chain(following) {
            let follows = next.offset == entry.offset + bytes as u64;
            if !follows || bytes + next.bytes as usize > WINDOW_BYTES {
                break;
            }
            bytes += next.bytes as usize;
        }
        bytes
    }

    fn read_ahead(&mut self, offset: u64, bytes: usize) {
        // Not cleared before: only what is longer than the window was is filled with zeros.
        self.window.resize(bytes, 0);
        self.window_offset = offset;
        if self.pack.file.read_at(&mut self.window, offset).is_err() {
            self.window.clear();
        }
    }
}

/// Checks header page, footer and length of a pack, but neither index nor chunks.
pub(in super::super) fn check(
    disk: &dyn Disk,
    dir: &Path,
    store: &StoreId,
    info: &PackInfo,
) -> Result<(), Error> {
    open_checked(disk, dir, store, info).map(|_| ())
}

/// Checks everything of a pack but its chunks, as [`PackReader::open`] does; `on_read` hears of each part of the index.
pub(in super::super) fn check_with_index(
    disk: &dyn Disk,
    dir: &Path,
    store: &StoreId,
    info: &PackInfo,
    on_read: &mut dyn FnMut(usize),
) -> Result<(), Error> {
    let (file, path, footer) = open_checked(disk, dir, store, info)?;
    walk_index(&*file, &path, &footer, on_read, &mut |_| ())
}

fn open_checked(
    disk: &dyn Disk,
    snap_dir: &Path,
    store: &StoreId,
    info: &PackInfo,
) -> Result<(Box<dyn File>, PathBuf, Footer), Error> {
    let path = snap_dir.join(FileKind::Pack.file_name(info.number));
    let file = disk.open(&path).map_err(io_error("open", &path))?;
    let found = file.len().map_err(io_error("read the length of", &path))?;
    if found != info.bytes || found < (HEADER_BYTES + FOOTER_BYTES) as u64 {
        return Err(Error::damaged(&path, 0, Damage::Length { found, expected: info.bytes }));
    }
    let footer_offset = info.bytes - FOOTER_BYTES as u64;
    let footer = format::decode_footer(&read(&*file, &path, footer_offset, FOOTER_BYTES)?, info);
    let footer = footer.map_err(|why| Error::damaged(&path, footer_offset, why))?;
    match format::decode_header(&read(&*file, &path, 0, HEADER_BYTES)?, store, info.number) {
        Ok(crc) if crc == footer.header_crc => Ok((file, path, footer)),
        Ok(_) => Err(Error::damaged(&path, 0, Damage::Replaced("header page"))),
        Err(why) => Err(Error::damaged(&path, 0, why)),
    }
}

fn read_index(file: &dyn File, path: &Path, footer: &Footer) -> Result<Vec<IndexEntry>, Error> {
    let mut entries = Vec::with_capacity(footer.chunks as usize);
    walk_index(file, path, footer, &mut |_| (), &mut |entry| entries.push(entry))?;
    Ok(entries)
}

/// Reads and checks the index in parts. The footer was checked, so the file is as long as the index needs.
fn walk_index(
    file: &dyn File,
    path: &Path,
    footer: &Footer,
    on_read: &mut dyn FnMut(usize),
    visit: &mut dyn FnMut(IndexEntry),
) -> Result<(), Error> {
    let mut order = Order { before: None, end: HEADER_BYTES as u64, index_offset: footer.index_offset };
    let mut checked = Ok(());
    let (mut crc, mut offset) = (0, footer.index_offset);
    let mut left = footer.chunks as usize * ENTRY_BYTES;
    while left > 0 {
        let part = read(file, path, offset, left.min(INDEX_PART_BYTES))?;
        on_read(part.len());
        crc = crc32c::crc32c_append(crc, &part);
        checked = checked.and_then(|()| visit_part(&part, &mut order, visit));
        offset += part.len() as u64;
        left -= part.len();
    }
    let checked = if crc == footer.index_crc { checked } else { Err(Damage::Checksum("index")) };
    checked.and_then(|()| order.finish()).map_err(|why| Error::damaged(path, footer.index_offset, why))
}

fn visit_part(part: &[u8], order: &mut Order, visit: &mut dyn FnMut(IndexEntry)) -> Result<(), Damage> {
    let (whole, _) = part.as_chunks::<ENTRY_BYTES>();
    for bytes in whole {
        let entry = format::decode_entry(bytes)?;
        order.next(&entry)?;
        visit(entry);
    }
    Ok(())
}

/// The order that lookups rely on, and that the chunks fill the file: between them no byte would be under a checksum.
struct Order {
    before: Option<(u128, u64)>,
    /// Where the chunks so far would end if they stood one behind the other.
    end: u64,
    index_offset: u64,
}

impl Order {
    fn next(&mut self, entry: &IndexEntry) -> Result<(), Damage> {
        let place = (entry.key_hash, entry.offset);
        if self.before.is_some_and(|before| before >= place) {
            return Err(Damage::Impossible("the index is not sorted"));
        }
        check_place(entry, self.index_offset)?;
        self.before = Some(place);
        self.end += u64::from(entry.bytes);
        Ok(())
    }

    fn finish(self) -> Result<(), Damage> {
        match self.end == self.index_offset {
            true => Ok(()),
            false => Err(Damage::Impossible("the chunks do not fill the pack")),
        }
    }
}

fn check_place(entry: &IndexEntry, index_offset: u64) -> Result<(), Damage> {
    let bytes = entry.bytes as usize;
    let head_bytes = CHUNK_HEAD_BYTES + usize::from(entry.key_bytes);
    let inside = entry.offset >= HEADER_BYTES as u64
        && entry.offset.checked_add(bytes as u64).is_some_and(|end| end <= index_offset)
        && bytes >= head_bytes
        && bytes <= format::padded(head_bytes + PAYLOAD_BYTES_MAX);
    if inside { Ok(()) } else { Err(Damage::Impossible("a chunk lies outside of the pack")) }
}

fn read(file: &dyn File, path: &Path, offset: u64, bytes: usize) -> Result<Vec<u8>, Error> {
    let mut buffer = vec![0; bytes];
    file.read_at(&mut buffer, offset).map_err(io_error("read", path))?;
    Ok(buffer)
}
