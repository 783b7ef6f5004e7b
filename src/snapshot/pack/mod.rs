//! A pack: one immutable file of chunks, with an index at its end.
//!
//! The vocabulary that writing ([`PackWriter`]) and reading ([`PackReader`]) share.

mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{ChunksInOrder, PackReader};
pub(super) use reader::{check, check_with_index};
pub use writer::PackWriter;

/// What is known about a chunk without its payload. Everything but the key also stands in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Whose chunk it is; at most [`KEY_BYTES_MAX`](super::KEY_BYTES_MAX) bytes.
    pub key: Vec<u8>,
    /// What sort of chunk it is; means something to the caller only.
    pub kind: u8,
    /// How its payload is encoded; means something to the caller only.
    pub version: u8,
    /// Log records up to this position are in the chunk or in an earlier one of its key.
    pub applied_lsn: u64,
    /// Counts and ranges that the caller wants to know without reading the payload.
    pub summary: [u32; 8],
}

/// One chunk, whole and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What the index knows, and the key.
    pub meta: ChunkMeta,
    /// What the caller gave.
    pub payload: Vec<u8>,
}

/// Where a chunk stands in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// [`key_hash`](super::key_hash) of the chunk's key. Two keys may share it: compare the key in the chunk.
    pub key_hash: u128,
    /// Where the chunk begins in the file, in bytes.
    pub offset: u64,
    /// How long it is with header and padding, in bytes.
    pub bytes: u32,
    /// As in [`ChunkMeta`].
    pub kind: u8,
    /// As in [`ChunkMeta`].
    pub version: u8,
    /// As in [`ChunkMeta`].
    pub applied_lsn: u64,
    /// As in [`ChunkMeta`].
    pub summary: [u32; 8],
    pub(super) key_bytes: u16,
    pub(super) head_crc: u32,
}

// The figure behind the bound on chunks in a pack.
const _: () = assert!(size_of::<IndexEntry>() == 80);

/// Which pack, and how to know that it is that one. This is what a manifest says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackInfo {
    /// Its number, which is its name.
    pub number: u64,
    /// How long the file is.
    pub bytes: u64,
    /// The checksum of its footer, which vouches for header page and index, and through the index for every chunk.
    pub footer_crc: u32,
    /// How many chunks are in it.
    pub chunks: u64,
}
