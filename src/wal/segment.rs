//! One file of the log: its name and its first page.
//!
//! Promises that a file without a whole, matching first page is not read. The page is 4,096 bytes, so that no record
//! shares a sector with it; a segment gets its final name only after the page is durable.

use std::path::{Path, PathBuf};

use super::frame::{ALIGN, MARKER_BYTES, Salt};
use super::{Error, Lsn, StoreId};
use crate::disk::{Disk, File};

/// Where the first frame stands.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Room for the page and a few small records: for tests.
pub(super) const BYTES_MIN: u64 = 2 * PAGE_BYTES;
/// Far below what the 32-bit batch starts can name.
pub(super) const BYTES_MAX: u64 = 1 << 30;
const MAGIC: [u8; 8] = *b"CHINWAL1";
const FORMAT: u32 = 1;
const NAME_DIGITS: usize = 20;
const CHECKSUM_AT: usize = PAGE_BYTES as usize - 4;

const _: () = assert!(PAGE_BYTES.is_multiple_of(ALIGN) && BYTES_MAX < u32::MAX as u64);

/// How the records of the segment before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ending {
    /// There was no segment before.
    None = 0,
    /// With a seal: the process went on in this one.
    Sealed = 1,
    /// With a close.
    Closed = 2,
    /// With a record: a recovery found it so, or cut it.
    Recovered = 3,
}

impl Ending {
    fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Sealed, Self::Closed, Self::Recovered].into_iter().find(|is| *is as u8 == number)
    }
}

/// What the first page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) store: StoreId,
    /// Also the file's name. The segment before ends with the one before.
    pub(super) first_lsn: Lsn,
    pub(super) previous: Ending,
    pub(super) salt: Salt,
}

impl Page {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES as usize];
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        page[12] = self.previous as u8;
        page[16..32].copy_from_slice(&self.store);
        page[32..40].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        page[40..48].copy_from_slice(&self.salt.0.to_le_bytes());
        let checksum = crc32c::crc32c(&page[..CHECKSUM_AT]);
        page[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        page
    }

    /// Reads the first page of `segment` and checks that it may stand there.
    pub(super) fn read(file: &dyn File, segment: &SegmentFile, store: StoreId) -> Result<Self, Error> {
        let corrupt = |offset, why| segment.corrupt(offset, segment.first_lsn, why);
        if file.len().map_err(Error::io("measure", &segment.path))? < PAGE_BYTES {
            return Err(corrupt(0, "the first page is cut off"));
        }
        let mut page = vec![0; PAGE_BYTES as usize];
        file.read_at(&mut page, 0).map_err(Error::io("read", &segment.path))?;
        if page[..8] != MAGIC {
            return Err(corrupt(0, "this is no segment"));
        }
        if u32::from_le_bytes(array(&page, CHECKSUM_AT)) != crc32c::crc32c(&page[..CHECKSUM_AT]) {
            return Err(corrupt(0, "the first page has a wrong checksum"));
        }
        let format = u32::from_le_bytes(array(&page, 8));
        let Some(previous) = Ending::from_number(page[12]).filter(|_| format == FORMAT) else {
            return Err(Error::NewerFormat { segment: segment.path.clone(), offset: 8 });
        };
        if array(&page, 16) != store {
            return Err(Error::ForeignStore(segment.path.clone()));
        }
        let first_lsn = Lsn(u64::from_le_bytes(array(&page, 32)));
        if first_lsn != segment.first_lsn {
            return Err(corrupt(32, "the file has the name of another segment"));
        }
        Ok(Self { store, first_lsn, previous, salt: Salt(u64::from_le_bytes(array(&page, 40))) })
    }
}

fn array<const N: usize>(page: &[u8], at: usize) -> [u8; N] {
    page[at..at + N].try_into().expect("the page is longer than its fields")
}

/// A segment in the log's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// The first record it holds or will hold.
    pub first_lsn: Lsn,
    /// Where it is.
    pub path: PathBuf,
}

impl SegmentFile {
    pub(super) fn new(wal_dir: &Path, first_lsn: Lsn) -> Self {
        Self { first_lsn, path: wal_dir.join(format!("{:0NAME_DIGITS$}.wal", first_lsn.0)) }
    }

    pub(super) fn corrupt(&self, offset: u64, lsn: Lsn, why: &'static str) -> Error {
        Error::Corrupt { segment: self.path.clone(), offset, lsn, why }
    }

    /// The log ends here at `offset`, but somebody has records up to `needed`.
    pub(super) fn ends_early(&self, offset: u64, last: Lsn, needed: Lsn) -> Error {
        Error::EndsEarly { segment: self.path.clone(), offset, last, needed }
    }
}

/// The segments of a directory, oldest first. Files that do not end in `.wal` are not ours.
pub(super) fn list(disk: &dyn Disk, wal_dir: &Path) -> Result<Vec<SegmentFile>, Error> {
    let (segments, strangers) = list_all(disk, wal_dir)?;
    strangers.into_iter().next().map_or(Ok(segments), Err)
}

/// The same, and an error for each name that is none of a segment.
pub(super) fn list_all(disk: &dyn Disk, wal_dir: &Path) -> Result<(Vec<SegmentFile>, Vec<Error>), Error> {
    let names = disk.list(wal_dir).map_err(Error::io("list", wal_dir))?;
    let (mut segments, mut strangers) = (Vec::with_capacity(names.len()), Vec::new());
    for name in names {
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".wal")) else {
            continue;
        };
        let is_number = stem.len() == NAME_DIGITS && stem.bytes().all(|byte| byte.is_ascii_digit());
        match stem.parse().ok().filter(|lsn| is_number && *lsn > 0).map(Lsn) {
            Some(first_lsn) => segments.push(SegmentFile::new(wal_dir, first_lsn)),
            None => {
                let stranger = SegmentFile { first_lsn: Lsn(0), path: wal_dir.join(&name) };
                strangers.push(stranger.corrupt(0, Lsn(0), "the name is not that of a segment"));
            }
        }
    }
    Ok((segments, strangers))
}

/// What records can take in a segment of this size: all but the page and the room that is kept for the
/// seal or close at its end.
pub(super) fn room_bytes(segment_bytes: u64) -> u64 {
    (segment_bytes - PAGE_BYTES - MARKER_BYTES) / ALIGN * ALIGN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Simulated;

    const STORE: StoreId = [9; 16];

    fn page() -> Page {
        Page { store: STORE, first_lsn: Lsn(5), previous: Ending::Closed, salt: Salt(77) }
    }

    fn read(bytes: &[u8], store: StoreId) -> Result<Page, Error> {
        let disk = Simulated::new(1);
        let segment = SegmentFile::new(Path::new(""), Lsn(5));
        disk.put(&segment.path, bytes);
        let file = disk.open(&segment.path).unwrap();
        Page::read(file.as_ref(), &segment, store)
    }

    #[test]
    fn a_page_reads_back_as_it_was_written() {
        assert_eq!(read(&page().encode(), STORE).unwrap(), page());
        assert!(matches!(read(&page().encode(), [8; 16]), Err(Error::ForeignStore(_))));
    }

    #[test]
    fn any_changed_bit_or_missing_byte_of_a_page_is_corruption() {
        let bytes = page().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(&bytes, STORE), Err(Error::Corrupt { .. })), "bit {bit}");
        }
        assert!(matches!(read(&bytes[..4095], STORE), Err(Error::Corrupt { .. })));
    }

    /// The format is a promise: these bytes must never change without a new version.
    #[test]
    fn the_bytes_of_format_1_are_these() {
        let page = page().encode();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(&page[..48]),
            "4348494e57414c3101000000020000000909090909090909090909090909090905000000000000004d00000000000000"
        );
        assert_eq!(hex(&page[CHECKSUM_AT..]), "f79be911");
        assert!(page[48..CHECKSUM_AT].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_page_under_another_name_is_corruption() {
        let page = Page { first_lsn: Lsn(6), ..page() };
        assert!(matches!(read(&page.encode(), STORE), Err(Error::Corrupt { offset: 32, .. })));
    }

    #[test]
    fn a_later_format_is_refused_as_such() {
        let mut bytes = page().encode();
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(read(&bytes, STORE), Err(Error::NewerFormat { offset: 8, .. })));
    }

    #[test]
    fn only_names_of_segments_are_listed_and_odd_ones_refused() {
        let disk = Simulated::new(1);
        for name in ["00000000000000000012.wal", "00000000000000000002.wal", "notes.txt"] {
            disk.put(Path::new(name), b"");
        }
        let found = list(&disk, Path::new("")).unwrap();
        assert_eq!(found.iter().map(|segment| segment.first_lsn.0).collect::<Vec<_>>(), [2, 12]);
        disk.put(Path::new("2.wal"), b"");
        assert!(matches!(list(&disk, Path::new("")), Err(Error::Corrupt { .. })));
    }
}
