//! For tests: a snapshot directory on a simulated disk, and what to put into it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{self, CHUNK_HEAD_BYTES, ENTRY_BYTES, FOOTER_BYTES, HEADER_BYTES};
use super::{
    Chunk, ChunkMeta, Error, FileKind, Manifest, PackInfo, PackReader, PackWriter, Pruned, StoreId, prune,
    publish,
};
use crate::disk::{Disk, Simulated};

pub(super) const STORE: StoreId = *b"a store for test";

/// The directories of a scene, on a disk that can be damaged.
pub(super) struct Scene {
    pub(super) disk: Simulated,
}

pub(super) fn snap() -> PathBuf {
    "/data/snap".into()
}

pub(super) fn tmp() -> PathBuf {
    "/data/tmp".into()
}

pub(super) fn quarantine() -> PathBuf {
    "/data/quarantine".into()
}

pub(super) fn pack_path(number: u64) -> PathBuf {
    snap().join(FileKind::Pack.file_name(number))
}

pub(super) fn manifest_path(number: u64) -> PathBuf {
    snap().join(FileKind::Manifest.file_name(number))
}

/// A chunk of which every part depends on `at`; its payload has that many bytes.
pub(super) fn chunk(key: &str, at: u32, payload_bytes: usize) -> Chunk {
    let summary = std::array::from_fn(|word| at * 10 + word as u32);
    let meta =
        ChunkMeta { key: key.into(), kind: at as u8, version: 1, applied_lsn: u64::from(at) << 33, summary };
    let payload = (0..payload_bytes).map(|byte| (byte as u32 * 7 + at) as u8).collect();
    Chunk { meta, payload }
}

/// Chunks of three keys, one of them with three slices, of lengths that need every padding.
pub(super) fn some_chunks() -> Vec<Chunk> {
    let keys = ["alice", "group of friends", "alice", "", "bob", "alice"];
    keys.iter().zip(0u32..).map(|(key, at)| chunk(key, at + 1, at as usize * 13)).collect()
}

pub(super) fn make_dirs(disk: &dyn Disk) {
    for dir in [snap(), tmp(), quarantine()] {
        disk.create_dir_all(&dir).unwrap();
    }
}

pub(super) fn write_pack(disk: Arc<dyn Disk>, number: u64, chunks: &[Chunk]) -> Result<PackInfo, Error> {
    let mut pack = PackWriter::create(disk, &tmp(), &snap(), STORE, number)?;
    for chunk in chunks {
        pack.add(&chunk.meta, &chunk.payload)?;
    }
    pack.finish()
}

pub(super) fn manifest(number: u64, replay_after_lsn: u64, packs: Vec<PackInfo>) -> Manifest {
    Manifest { number, store: STORE, epoch: 3, replay_after_lsn, state: [7, 6, 5, 4, 3, 2, 1, 0], packs }
}

impl Scene {
    pub(super) fn new() -> Self {
        let disk = Simulated::new(1);
        make_dirs(&disk);
        Self { disk }
    }

    pub(super) fn dynamic(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    pub(super) fn pack(&self, number: u64, chunks: &[Chunk]) -> PackInfo {
        write_pack(self.dynamic(), number, chunks).unwrap()
    }

    pub(super) fn open(&self, info: &PackInfo) -> Result<PackReader, Error> {
        PackReader::open(&self.disk, &snap(), &STORE, info)
    }

    pub(super) fn publish(&self, manifest: &Manifest) -> Result<(), Error> {
        publish(&self.disk, &tmp(), &snap(), manifest)
    }

    pub(super) fn prune(&self) -> Result<Pruned, Error> {
        prune(&self.disk, &snap(), &quarantine(), &STORE)
    }

    pub(super) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.disk.bytes(path).unwrap()
    }

    pub(super) fn names(&self, dir: &Path) -> Vec<String> {
        self.disk.list(dir).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect()
    }
}

/// Reads every chunk of a pack, in both ways; the first error counts.
pub(super) fn read_all(pack: &PackReader) -> Result<Vec<Chunk>, Error> {
    let by_entry: Result<Vec<_>, _> = pack.entries().iter().map(|entry| pack.chunk(entry)).collect();
    let in_order: Result<Vec<_>, _> = pack.chunks_in_order().map(|(_, chunk)| chunk).collect();
    by_entry.and(in_order)
}

/// Makes every checksum of a mangled pack hold again, as far as its parts can be found, and describes it.
pub(super) fn reseal(bytes: &mut [u8]) -> PackInfo {
    let footer_at = bytes.len() - FOOTER_BYTES;
    let index_at = word(bytes, footer_at + 16) as usize;
    let index_at = index_at.clamp(HEADER_BYTES, footer_at);
    for at in (index_at..footer_at.saturating_sub(ENTRY_BYTES - 1)).step_by(ENTRY_BYTES) {
        let chunk_at = word(bytes, at + 16) as usize;
        let chunk_bytes = (word(bytes, at + 24) as u32) as usize;
        if chunk_at >= HEADER_BYTES && chunk_at.saturating_add(chunk_bytes) <= index_at {
            let crc = reseal_chunk(&mut bytes[chunk_at..chunk_at + chunk_bytes]);
            put_crc(bytes, at + 72, crc);
        }
    }
    let (header_crc, index_crc) =
        (crc32c::crc32c(&bytes[..HEADER_BYTES - 4]), crc32c::crc32c(&bytes[index_at..footer_at]));
    put_crc(bytes, HEADER_BYTES - 4, header_crc);
    put_crc(bytes, footer_at + 48, index_crc);
    put_crc(bytes, footer_at + 52, header_crc);
    let footer_crc = crc32c::crc32c(&bytes[footer_at..footer_at + 60]);
    put_crc(bytes, footer_at + 60, footer_crc);
    PackInfo {
        number: word(bytes, footer_at + 8),
        bytes: bytes.len() as u64,
        footer_crc,
        chunks: word(bytes, footer_at + 24),
    }
}

fn reseal_chunk(chunk: &mut [u8]) -> u32 {
    if chunk.len() < CHUNK_HEAD_BYTES {
        return 0;
    }
    let key_bytes = usize::from(u16::from_le_bytes([chunk[6], chunk[7]])).min(chunk.len() - CHUNK_HEAD_BYTES);
    let payload_at = CHUNK_HEAD_BYTES + key_bytes;
    let payload_crc = crc32c::crc32c(&chunk[payload_at..]);
    put_crc(chunk, 80, payload_crc);
    let head_crc = crc32c::crc32c_append(crc32c::crc32c(&chunk[..84]), &chunk[CHUNK_HEAD_BYTES..payload_at]);
    put_crc(chunk, 84, head_crc);
    head_crc
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put_crc(bytes: &mut [u8], at: usize, crc: u32) {
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// As the golden tests show bytes: 32 a line, runs of equal lines of zeros left out.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, at) in bytes.chunks(32).zip((0..).step_by(32)) {
        if line.iter().any(|&byte| byte != 0) {
            let digits: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{at:05} {digits}\n");
        }
    }
    text
}

/// The header page of a pack of another store, whole in itself.
pub(super) fn header_of(store: &StoreId, number: u64) -> Vec<u8> {
    format::encode_header(store, number).0
}
