//! The bytes of packs and manifests: the only place that knows them.
//!
//! Promises that what is decoded is what was encoded: every byte of a file is under a checksum (CRC-32C), each part names
//! itself, its store and its place, and nothing is allocated from a length before a checksum vouched for it. All
//! numbers are little-endian. Files and their order on the disk are none of its business.
//!
//! The checksums form a chain: a manifest names the footer's of each pack, a footer those of header page and index, an
//! index entry that of its chunk's header, a chunk's header that of its payload. So no part can be swapped for
//! another that is whole in itself.

use super::manifest::Manifest;
use super::pack::{ChunkMeta, IndexEntry, PackInfo};
use super::{KEY_BYTES_MAX, MANIFEST_PACKS_MAX, PACK_CHUNKS_MAX, PAYLOAD_BYTES_MAX, StoreId, key_hash};

/// The version of packs and manifests that this program writes. It reads no newer one.
pub const FORMAT_VERSION: u32 = 1;

/// The first page of a pack. A whole page, so that chunks never share a sector with it.
pub(super) const HEADER_BYTES: usize = 4096;
pub(super) const FOOTER_BYTES: usize = 64;
pub(super) const ENTRY_BYTES: usize = 80;
/// A chunk's header without the key behind it.
pub(super) const CHUNK_HEAD_BYTES: usize = 88;
/// The longest manifest that [`encode_manifest`] can make.
pub(super) const MANIFEST_BYTES_MAX: usize =
    MANIFEST_HEAD_BYTES + MANIFEST_PACKS_MAX * PACK_INFO_BYTES + CRC_BYTES;

const MANIFEST_HEAD_BYTES: usize = 96;
const PACK_INFO_BYTES: usize = 32;
const CRC_BYTES: usize = 4;
/// Chunks begin at multiples of this.
const ALIGN_BYTES: usize = 8;

const PACK_MAGIC: [u8; 8] = *b"CHATPACK";
const FOOTER_MAGIC: [u8; 8] = *b"CHATPEND";
const MANIFEST_MAGIC: [u8; 8] = *b"CHATMANI";
const CHUNK_MAGIC: [u8; 4] = *b"CHNK";

// A chunk's whole length is kept in 32 bits, its key's in 16.
const _: () = assert!(CHUNK_HEAD_BYTES + KEY_BYTES_MAX + PAYLOAD_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(PACK_CHUNKS_MAX <= u32::MAX as usize);
const _: () = assert!(MANIFEST_PACKS_MAX <= u32::MAX as usize);

/// What is wrong with the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Too short or too long for what it should be.
    #[error("its length is {found} bytes instead of {expected}")]
    Length {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// Something else, or nothing, stands where this part should.
    #[error("there is no {0} here")]
    Magic(&'static str),
    /// The bytes changed after they were written.
    #[error("the checksum of the {0} does not hold")]
    Checksum(&'static str),
    /// The part is whole, but not the one that the part above it names.
    #[error("this is another {0} than the one that was published")]
    Replaced(&'static str),
    /// Whole, but of another store.
    #[error("it belongs to another store")]
    OtherStore,
    /// Whole, but under a wrong name.
    #[error("it says that its number is {0}")]
    Number(u64),
    /// Written by a later version.
    #[error("its format version {0} is newer than {FORMAT_VERSION}")]
    TooNew(u32),
    /// The checksum holds, but no version of this program writes this.
    #[error("{0}")]
    Impossible(&'static str),
}

/// The length with padding: the next chunk begins there.
pub(super) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN_BYTES)
}

/// Reads fixed fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let short = Damage::Length { found: self.0.len() as u64, expected: N as u64 };
        let (head, rest) = self.0.split_first_chunk().ok_or(short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Damage> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Result<u128, Damage> {
        self.take().map(u128::from_le_bytes)
    }

    fn words(&mut self) -> Result<[u32; 8], Damage> {
        let mut words = [0; 8];
        for word in &mut words {
            *word = self.u32()?;
        }
        Ok(words)
    }

    /// Spare bytes are written as zeros; anything else has a meaning that this version cannot know.
    fn spare<const N: usize>(&mut self) -> Result<(), Damage> {
        check_spare(&self.take::<N>()?)
    }
}

fn check_spare(bytes: &[u8]) -> Result<(), Damage> {
    match bytes.iter().all(|&byte| byte == 0) {
        true => Ok(()),
        false => Err(Damage::Impossible("a spare field is used")),
    }
}

fn put_words(out: &mut Vec<u8>, words: &[u32; 8]) {
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

/// Appends the checksum of everything before it and returns it.
fn seal(bytes: &mut Vec<u8>) -> u32 {
    let crc = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    crc
}

/// Checks the checksum at the end; answers what stands before it, and the checksum.
fn unseal<'a>(bytes: &'a [u8], part: &'static str) -> Result<(&'a [u8], u32), Damage> {
    let (body, crc) = bytes.split_last_chunk().ok_or(Damage::Magic(part))?;
    let crc = u32::from_le_bytes(*crc);
    if crc32c::crc32c(body) == crc { Ok((body, crc)) } else { Err(Damage::Checksum(part)) }
}

/// The first 40 bytes of a pack and of a manifest. Magic, version and the place of the checksum stay in every version.
fn prologue(magic: [u8; 8], store: &StoreId, number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(store);
    out.extend_from_slice(&number.to_le_bytes());
    out
}

fn check_prologue(fields: &mut Fields<'_>, store: &StoreId, number: u64) -> Result<(), Damage> {
    fields.take::<8>()?;
    match fields.u32()? {
        FORMAT_VERSION => {}
        0 => return Err(Damage::Impossible("the format version is 0")),
        newer => return Err(Damage::TooNew(newer)),
    }
    fields.spare::<4>()?;
    if fields.take()? != *store {
        return Err(Damage::OtherStore);
    }
    match fields.u64()? {
        found if found == number => Ok(()),
        found => Err(Damage::Number(found)),
    }
}

fn check_magic(bytes: &[u8], magic: &[u8], part: &'static str) -> Result<(), Damage> {
    if bytes.starts_with(magic) { Ok(()) } else { Err(Damage::Magic(part)) }
}

/// The header page of a pack, and its checksum.
pub(super) fn encode_header(store: &StoreId, number: u64) -> (Vec<u8>, u32) {
    let mut page = prologue(PACK_MAGIC, store, number);
    page.resize(HEADER_BYTES - CRC_BYTES, 0);
    let crc = seal(&mut page);
    (page, crc)
}

/// Checks the header page of a pack; answers its checksum.
pub(super) fn decode_header(page: &[u8], store: &StoreId, number: u64) -> Result<u32, Damage> {
    check_magic(page, &PACK_MAGIC, "pack")?;
    let (body, crc) = unseal(page, "header page")?;
    let mut fields = Fields(body);
    check_prologue(&mut fields, store, number)?;
    check_spare(fields.0)?;
    Ok(crc)
}

/// What a footer says about its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) number: u64,
    pub(super) index_offset: u64,
    pub(super) chunks: u64,
    pub(super) file_bytes: u64,
    pub(super) index_crc: u32,
    pub(super) header_crc: u32,
}

/// The footer, and its checksum.
pub(super) fn encode_footer(footer: &Footer) -> (Vec<u8>, u32) {
    let mut out = Vec::with_capacity(FOOTER_BYTES);
    out.extend_from_slice(&FOOTER_MAGIC);
    out.extend_from_slice(&footer.number.to_le_bytes());
    out.extend_from_slice(&footer.index_offset.to_le_bytes());
    out.extend_from_slice(&footer.chunks.to_le_bytes());
    out.extend_from_slice(&footer.file_bytes.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&footer.index_crc.to_le_bytes());
    out.extend_from_slice(&footer.header_crc.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let crc = seal(&mut out);
    (out, crc)
}

/// Checks a footer against what the manifest says about the pack, and against itself.
pub(super) fn decode_footer(bytes: &[u8], pack: &PackInfo) -> Result<Footer, Damage> {
    check_magic(bytes, &FOOTER_MAGIC, "footer")?;
    let (body, crc) = unseal(bytes, "footer")?;
    if crc != pack.footer_crc {
        return Err(Damage::Replaced("footer"));
    }
    let footer = footer_fields(body)?;
    let behind_index = footer.file_bytes.checked_sub(FOOTER_BYTES as u64);
    let index_end = footer
        .chunks
        .checked_mul(ENTRY_BYTES as u64)
        .and_then(|bytes| footer.index_offset.checked_add(bytes));
    let fits = footer.number == pack.number
        && footer.chunks == pack.chunks
        && footer.chunks <= PACK_CHUNKS_MAX as u64
        && footer.index_offset >= HEADER_BYTES as u64
        && footer.file_bytes == pack.bytes
        && index_end.is_some()
        && index_end == behind_index;
    if fits { Ok(footer) } else { Err(Damage::Impossible("the footer contradicts the manifest or itself")) }
}

fn footer_fields(body: &[u8]) -> Result<Footer, Damage> {
    let mut fields = Fields(body);
    fields.take::<8>()?;
    let (number, index_offset) = (fields.u64()?, fields.u64()?);
    let (chunks, file_bytes) = (fields.u64()?, fields.u64()?);
    fields.spare::<8>()?;
    let (index_crc, header_crc) = (fields.u32()?, fields.u32()?);
    fields.spare::<4>()?;
    Ok(Footer { number, index_offset, chunks, file_bytes, index_crc, header_crc })
}

/// Appends one index entry.
pub(super) fn encode_entry(out: &mut Vec<u8>, entry: &IndexEntry) {
    out.extend_from_slice(&entry.key_hash.to_le_bytes());
    out.extend_from_slice(&entry.offset.to_le_bytes());
    out.extend_from_slice(&entry.bytes.to_le_bytes());
    out.extend_from_slice(&[entry.kind, entry.version]);
    out.extend_from_slice(&entry.key_bytes.to_le_bytes());
    out.extend_from_slice(&entry.applied_lsn.to_le_bytes());
    put_words(out, &entry.summary);
    out.extend_from_slice(&entry.head_crc.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
}

/// Reads one index entry; whether its place is inside the pack is for the caller to check.
pub(super) fn decode_entry(bytes: &[u8; ENTRY_BYTES]) -> Result<IndexEntry, Damage> {
    let mut fields = Fields(bytes);
    let (key_hash, offset, bytes) = (fields.u128()?, fields.u64()?, fields.u32()?);
    let ([kind, version], key_bytes) = (fields.take()?, fields.u16()?);
    let (applied_lsn, summary, head_crc) = (fields.u64()?, fields.words()?, fields.u32()?);
    fields.spare::<4>()?;
    Ok(IndexEntry { key_hash, offset, bytes, kind, version, key_bytes, applied_lsn, summary, head_crc })
}

/// Appends a chunk's header and key; the payload and [`padding`] follow. Key and payload are within their limits.
/// Answers the entry for the index.
pub(super) fn encode_chunk_head(
    out: &mut Vec<u8>,
    store: &StoreId,
    offset: u64,
    meta: &ChunkMeta,
    payload: &[u8],
) -> IndexEntry {
    let start = out.len();
    let hash = key_hash(store, &meta.key);
    let bytes = CHUNK_HEAD_BYTES + meta.key.len() + payload.len();
    let payload_crc = crc32c::crc32c_append(crc32c::crc32c(payload), padding(bytes));
    out.extend_from_slice(&CHUNK_MAGIC);
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(meta.key.len() as u16).to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[meta.kind, meta.version, 0, 0]);
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&meta.applied_lsn.to_le_bytes());
    out.extend_from_slice(&hash.to_le_bytes());
    put_words(out, &meta.summary);
    out.extend_from_slice(&payload_crc.to_le_bytes());
    let head_crc = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), &meta.key);
    out.extend_from_slice(&head_crc.to_le_bytes());
    out.extend_from_slice(&meta.key);
    IndexEntry {
        key_hash: hash,
        offset,
        bytes: padded(bytes) as u32,
        kind: meta.kind,
        version: meta.version,
        key_bytes: meta.key.len() as u16,
        applied_lsn: meta.applied_lsn,
        summary: meta.summary,
        head_crc,
    }
}

/// The zeros behind a chunk of this length; they are under the payload's checksum.
pub(super) fn padding(bytes: usize) -> &'static [u8] {
    const ZEROS: &[u8; ALIGN_BYTES] = &[0; ALIGN_BYTES];
    &ZEROS[..padded(bytes) - bytes]
}

/// A chunk's header, checked against its index entry.
pub(super) struct ChunkHead {
    pub(super) meta: ChunkMeta,
    payload_bytes: usize,
    payload_crc: u32,
}

impl ChunkHead {
    /// Where the payload stands in the chunk's bytes.
    pub(super) fn payload(&self) -> std::ops::Range<usize> {
        let start = CHUNK_HEAD_BYTES + self.meta.key.len();
        start..start + self.payload_bytes
    }

    /// Checks payload and padding of a whole chunk.
    pub(super) fn check_payload(&self, chunk: &[u8]) -> Result<(), Damage> {
        match crc32c::crc32c(&chunk[self.payload().start..]) == self.payload_crc {
            true => Ok(()),
            false => Err(Damage::Checksum("chunk's payload")),
        }
    }
}

/// Checks header and key at the front of a chunk, which must be at least as long as `expected` says they are.
pub(super) fn decode_chunk_head(
    chunk: &[u8],
    store: &StoreId,
    expected: &IndexEntry,
) -> Result<ChunkHead, Damage> {
    check_magic(chunk, &CHUNK_MAGIC, "chunk")?;
    let (head, rest) = chunk.split_first_chunk::<CHUNK_HEAD_BYTES>().ok_or(Damage::Magic("chunk"))?;
    let (body, head_crc) = head.split_last_chunk().ok_or(Damage::Magic("chunk"))?;
    let key = rest.get(..expected.key_bytes.into()).ok_or(Damage::Magic("chunk"))?;
    let head_crc = u32::from_le_bytes(*head_crc);
    if crc32c::crc32c_append(crc32c::crc32c(body), key) != head_crc {
        return Err(Damage::Checksum("chunk's header"));
    }
    chunk_head_fields(body, key, head_crc, store, expected)
}

fn chunk_head_fields(
    body: &[u8],
    key: &[u8],
    head_crc: u32,
    store: &StoreId,
    expected: &IndexEntry,
) -> Result<ChunkHead, Damage> {
    let mut fields = Fields(body);
    fields.take::<4>()?;
    fields.spare::<2>()?;
    let (key_bytes, payload_bytes) = (fields.u16()?, fields.u32()? as usize);
    let [kind, version] = fields.take()?;
    fields.spare::<2>()?;
    let (offset, applied_lsn) = (fields.u64()?, fields.u64()?);
    let (key_hash_found, summary, payload_crc) = (fields.u128()?, fields.words()?, fields.u32()?);
    let bytes = padded(CHUNK_HEAD_BYTES + key.len() + payload_bytes.min(PAYLOAD_BYTES_MAX)) as u32;
    let found = IndexEntry {
        key_hash: key_hash_found,
        offset,
        bytes,
        kind,
        version,
        key_bytes,
        applied_lsn,
        summary,
        head_crc,
    };
    if found != *expected || payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(Damage::Replaced("chunk"));
    }
    if key_hash(store, key) != key_hash_found {
        return Err(Damage::Impossible("the key's hash is not the key's"));
    }
    let meta = ChunkMeta { key: key.to_vec(), kind, version, applied_lsn, summary };
    Ok(ChunkHead { meta, payload_bytes, payload_crc })
}

/// The bytes of a manifest. It names at most [`MANIFEST_PACKS_MAX`] packs.
pub(super) fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    let mut out = prologue(MANIFEST_MAGIC, &manifest.store, manifest.number);
    out.extend_from_slice(&manifest.epoch.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&manifest.replay_after_lsn.to_le_bytes());
    put_words(&mut out, &manifest.state);
    out.extend_from_slice(&(manifest.packs.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for pack in &manifest.packs {
        out.extend_from_slice(&pack.number.to_le_bytes());
        out.extend_from_slice(&pack.bytes.to_le_bytes());
        out.extend_from_slice(&pack.chunks.to_le_bytes());
        out.extend_from_slice(&pack.footer_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    seal(&mut out);
    out
}

/// Checks and reads the manifest of this number.
pub(super) fn decode_manifest(bytes: &[u8], store: &StoreId, number: u64) -> Result<Manifest, Damage> {
    check_magic(bytes, &MANIFEST_MAGIC, "manifest")?;
    let (body, _) = unseal(bytes, "manifest")?;
    let mut fields = Fields(body);
    check_prologue(&mut fields, store, number)?;
    let epoch = fields.u32()?;
    fields.spare::<4>()?;
    let (replay_after_lsn, state) = (fields.u64()?, fields.words()?);
    let count = fields.u32()? as usize;
    fields.spare::<4>()?;
    if count > MANIFEST_PACKS_MAX || fields.0.len() != count * PACK_INFO_BYTES {
        return Err(Damage::Impossible("the manifest's length is not that of its packs"));
    }
    let packs = (0..count).map(|_| decode_pack_info(&mut fields)).collect::<Result<Vec<_>, _>>()?;
    if has_duplicate(&packs) {
        return Err(Damage::Impossible("the manifest names a pack twice"));
    }
    Ok(Manifest { number, store: *store, epoch, replay_after_lsn, state, packs })
}

fn decode_pack_info(fields: &mut Fields<'_>) -> Result<PackInfo, Damage> {
    let (number, bytes, chunks) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let footer_crc = fields.u32()?;
    fields.spare::<4>()?;
    Ok(PackInfo { number, bytes, footer_crc, chunks })
}

/// Whether two packs have the same number.
pub(super) fn has_duplicate(packs: &[PackInfo]) -> bool {
    let mut numbers: Vec<_> = packs.iter().map(|pack| pack.number).collect();
    numbers.sort_unstable();
    numbers.windows(2).any(|pair| pair[0] == pair[1])
}
