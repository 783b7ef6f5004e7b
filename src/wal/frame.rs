//! The envelope of one record: 32 bytes of header, the payload, zeros up to a multiple of 8.
//!
//! Promises that a frame of another file, of an earlier file with the same bytes, or with any bit changed is not
//! taken for a frame. Where frames stand and which may follow which is the scan's business.
//!
//! The header has a checksum of its own, so that a damaged length cannot steer the reader; checksums are not
//! chained, so that what stands behind a damaged frame can still be judged.

use super::{KINDS, Lsn};
use crate::config::limits::RECORD_BYTES_MAX;

pub(super) const HEADER_BYTES: usize = 32;
/// What a frame without a payload takes.
pub(super) const MARKER_BYTES: u64 = HEADER_BYTES as u64;
pub(super) const ALIGN: u64 = 8;
/// Never 0, so that zeros are "nothing here".
pub(super) const MAGIC: [u8; 4] = *b"CWfr";
const VERSION: u8 = 1;

/// Everything up to the LSN it carries is durable once it is; it takes no LSN itself.
pub(super) const SEAL: u8 = 0xF0;
/// A [`SEAL`] behind which nothing is ever written.
pub(super) const CLOSE: u8 = 0xF1;

const _: () = assert!(*KINDS.end() < SEAL && *KINDS.start() > 0);
const _: () = assert!(RECORD_BYTES_MAX < u32::MAX as usize - HEADER_BYTES - ALIGN as usize);

/// Random per segment; makes the frames of every other file invalid here. Secret, so that no payload can
/// contain what would pass for a frame: the halves seed the two checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) u64);

impl Salt {
    fn header_seed(self) -> u32 {
        self.0 as u32
    }

    fn payload_seed(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The record's own, or for a marker that of the last record before it.
    pub(super) lsn: Lsn,
    pub(super) kind: u8,
    pub(super) payload_bytes: u32,
    /// Where in the segment the batch of this frame begins: the first byte that was not known to be durable
    /// when the frame was written.
    pub(super) batch_start: u32,
    payload_checksum: u32,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// All zero: nothing was written here.
    Zeros,
    /// Not what the log wrote.
    Damaged,
    /// Written by a later version.
    Newer,
}

impl Header {
    pub(super) fn is_marker(&self) -> bool {
        !KINDS.contains(&self.kind)
    }

    pub(super) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_bytes as usize)
    }

    /// Whether these are the payload and the padding of this frame.
    pub(super) fn fits(&self, salt: Salt, payload_and_padding: &[u8]) -> bool {
        let (payload, padding) = payload_and_padding.split_at(self.payload_bytes as usize);
        crc32c::crc32c_append(salt.payload_seed(), payload) == self.payload_checksum
            && padding.iter().all(|byte| *byte == 0)
    }
}

/// What a record of this payload takes in a segment, in bytes.
pub(super) fn frame_bytes(payload_bytes: usize) -> u64 {
    (HEADER_BYTES as u64 + payload_bytes as u64).next_multiple_of(ALIGN)
}

/// Adds a frame to a buffer. The payload is at most [`RECORD_BYTES_MAX`] long.
pub(super) fn encode(into: &mut Vec<u8>, salt: Salt, batch_start: u32, lsn: Lsn, kind: u8, payload: &[u8]) {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&lsn.0.to_le_bytes());
    header[16..20].copy_from_slice(&batch_start.to_le_bytes());
    header[20] = kind;
    header[21] = VERSION;
    let payload_checksum = crc32c::crc32c_append(salt.payload_seed(), payload);
    header[24..28].copy_from_slice(&payload_checksum.to_le_bytes());
    let checksum = crc32c::crc32c_append(salt.header_seed(), &header[..28]);
    header[28..].copy_from_slice(&checksum.to_le_bytes());
    let end = into.len() + frame_bytes(payload.len()) as usize;
    into.extend_from_slice(&header);
    into.extend_from_slice(payload);
    into.resize(end, 0);
}

/// Reads a header.
pub(super) fn parse(bytes: &[u8; HEADER_BYTES], salt: Salt) -> Result<Header, NoHeader> {
    if bytes[..4] != MAGIC {
        let zeros = bytes.iter().all(|byte| *byte == 0);
        return Err(if zeros { NoHeader::Zeros } else { NoHeader::Damaged });
    }
    if crc32c::crc32c_append(salt.header_seed(), &bytes[..28]) != u32_at(bytes, 28) {
        return Err(NoHeader::Damaged);
    }
    let kind = bytes[20];
    let known = KINDS.contains(&kind) || kind == SEAL || kind == CLOSE;
    if bytes[21] != VERSION || bytes[22..24] != [0, 0] || !known {
        return Err(NoHeader::Newer);
    }
    let payload_bytes = u32_at(bytes, 4);
    if payload_bytes as usize > RECORD_BYTES_MAX || (kind > *KINDS.end() && payload_bytes != 0) {
        return Err(NoHeader::Newer);
    }
    let lsn = Lsn(u64::from(u32_at(bytes, 8)) | u64::from(u32_at(bytes, 12)) << 32);
    Ok(Header {
        lsn,
        kind,
        payload_bytes,
        batch_start: u32_at(bytes, 16),
        payload_checksum: u32_at(bytes, 24),
    })
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt(0x0123_4567_89ab_cdef);

    fn encoded(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, SALT, 4096, Lsn(7), 3, payload);
        bytes
    }

    fn read(bytes: &[u8], salt: Salt) -> Option<(Header, Vec<u8>)> {
        let header = parse(bytes.first_chunk().unwrap(), salt).ok()?;
        let rest = &bytes[HEADER_BYTES..];
        header.fits(salt, rest).then(|| (header, rest[..header.payload_bytes as usize].to_vec()))
    }

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        for payload in [&b""[..], b"a", b"12345678", &[0; 1000]] {
            let bytes = encoded(payload);
            assert_eq!(bytes.len() as u64, frame_bytes(payload.len()));
            let (header, read) = read(&bytes, SALT).unwrap();
            assert_eq!((header.lsn, header.kind, header.batch_start), (Lsn(7), 3, 4096));
            assert_eq!((read, header.frame_bytes()), (payload.to_vec(), bytes.len() as u64));
        }
    }

    #[test]
    fn any_changed_bit_makes_it_no_frame() {
        let bytes = encoded(b"hello");
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes, SALT), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_segment_is_no_frame() {
        assert_eq!(read(&encoded(b"hello"), Salt(SALT.0 ^ 1)), None);
        assert_eq!(read(&encoded(b"hello"), Salt(SALT.0 ^ 1 << 32)), None);
    }

    #[test]
    fn unknown_kinds_are_from_the_future() {
        let mut bytes = Vec::new();
        encode(&mut bytes, SALT, 4096, Lsn(7), 0xF2, b"");
        assert_eq!(parse(bytes.first_chunk().unwrap(), SALT), Err(NoHeader::Newer));
        assert_eq!(parse(&[0; HEADER_BYTES], SALT), Err(NoHeader::Zeros));
    }

    /// The format is a promise: these bytes must never change without a new version.
    #[test]
    fn the_bytes_of_version_1_are_these() {
        let hex: String = encoded(b"hello").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4357667205000000070000000000000000100000030100004d0df70bb4b9b8fb68656c6c6f000000");
    }
}
