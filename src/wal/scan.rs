//! Reads one segment from its first frame to its last, and judges what stands behind.
//!
//! Promises to visit exactly the frames that the log wrote there, in order, from a buffer of bounded size; and to say
//! of the rest whether it is nothing, the torn end of the last batch, or damage to something that was durable.
//! What follows from that is the replay's business.
//!
//! The verdict rests on two facts: a batch is written only after the one before is durable, and every frame says where
//! its batch begins. So if some whole frame stands in a batch that begins *behind* the first bad byte, what is
//! missing there had been durable.

use std::ops::Range;

use super::frame::{self, ALIGN, CLOSE, HEADER_BYTES, Header, NoHeader, SEAL};
use super::segment::{Ending, PAGE_BYTES, Page, SegmentFile};
use super::{Error, Lsn, Record};
use crate::disk::File;

/// How much is read at once.
pub(super) const READ_BYTES: usize = 1 << 20;
/// How much is compared with zeros at once.
const STRIDE_BYTES: u64 = 4096;

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The last record; the one before the segment's first if it has none.
    pub(super) last_lsn: Lsn,
    /// What its last frame is; `None` when it has none.
    pub(super) ending: Option<Ending>,
    /// Where its last frame ends, in bytes.
    pub(super) end: u64,
    pub(super) rest: Rest,
}

/// What stands behind the last frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Zeros,
    /// Part of the batch that was being written, or rot in it before it was sealed. The number is where it ends.
    Torn(u64),
    /// Something durable is missing; why we think so.
    Lost(&'static str),
}

/// Visits the records of a segment with their offsets.
pub(super) fn scan(
    file: &dyn File,
    segment: &SegmentFile,
    page: &Page,
    visit: &mut dyn FnMut(Record<'_>, u64) -> Result<(), Error>,
) -> Result<Scanned, Error> {
    let mut scan = Scan::begin(file, segment, page)?;
    while let Some(header) = scan.next()? {
        scan.visit(&header, visit)?;
    }
    scan.finish()
}

/// Visits the records of a segment up to `through`; says which was the last. Nothing behind is looked at, so the
/// segment may be the one that is being written.
pub(super) fn records_through(
    file: &dyn File,
    segment: &SegmentFile,
    page: &Page,
    through: Lsn,
    visit: &mut dyn FnMut(Record<'_>, u64) -> Result<(), Error>,
) -> Result<Lsn, Error> {
    let mut scan = Scan::begin(file, segment, page)?;
    while scan.last_lsn < through
        && let Some(header) = scan.next()?
    {
        scan.visit(&header, visit)?;
    }
    Ok(scan.last_lsn)
}

/// Where the frame of record `lsn` stands, in bytes; `None` if the segment ends before. Nothing behind it is looked
/// at, so the segment may be the one that is being written.
pub(super) fn place_of(
    file: &dyn File,
    segment: &SegmentFile,
    page: &Page,
    lsn: Lsn,
) -> Result<Option<Range<u64>>, Error> {
    let mut scan = Scan::begin(file, segment, page)?;
    while scan.last_lsn < lsn {
        let Some(header) = scan.next()? else { return Ok(None) };
        if !header.is_marker() && header.lsn == lsn {
            return Ok(Some(scan.at - header.frame_bytes()..scan.at));
        }
    }
    Ok(None)
}

/// A place between two frames of a segment, and what the frames before it oblige the next one to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The first record of the segment.
    segment: Lsn,
    at: u64,
    last_lsn: Lsn,
    last_kind: Option<u8>,
    batch_start: u64,
}

impl Mark {
    /// Before the first frame of a segment.
    pub(super) fn beginning(segment: &SegmentFile) -> Self {
        let (segment, last_lsn) = (segment.first_lsn, segment.first_lsn.previous());
        Self { segment, at: PAGE_BYTES, last_lsn, last_kind: None, batch_start: PAGE_BYTES }
    }

    /// Whether it is in this segment.
    pub(super) fn is_in(&self, segment: &SegmentFile) -> bool {
        self.segment == segment.first_lsn
    }

    /// Where it is in the segment, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    /// The next record behind it.
    pub fn next(&self) -> Lsn {
        self.last_lsn.next()
    }
}

/// A walk over the frames of a segment.
pub(super) struct Scan<'a> {
    window: Window<'a>,
    segment: &'a SegmentFile,
    page: &'a Page,
    at: u64,
    last_lsn: Lsn,
    last_kind: Option<u8>,
    batch_start: u64,
}

/// What stands at some place.
enum Found {
    Frame(Header),
    Zeros,
    Damaged,
    Newer,
}

impl<'a> Scan<'a> {
    fn begin(file: &'a dyn File, segment: &'a SegmentFile, page: &'a Page) -> Result<Self, Error> {
        Self::resume(file, segment, page, &Mark::beginning(segment), READ_BYTES)
    }

    /// Goes on at a mark in this segment, reading so much at once.
    pub(super) fn resume(
        file: &'a dyn File,
        segment: &'a SegmentFile,
        page: &'a Page,
        mark: &Mark,
        read_bytes: usize,
    ) -> Result<Self, Error> {
        let len = file.len().map_err(Error::io("measure", &segment.path))?;
        let buffer = vec![0; read_bytes.min(len as usize)];
        let window = Window { file, len, buffer, from: 0, filled: 0 };
        let Mark { at, last_lsn, last_kind, batch_start, .. } = *mark;
        Ok(Self { window, segment, page, at, last_lsn, last_kind, batch_start })
    }

    /// Where it has come to.
    pub(super) fn mark(&self) -> Mark {
        let Self { at, last_lsn, last_kind, batch_start, .. } = *self;
        Mark { segment: self.segment.first_lsn, at, last_lsn, last_kind, batch_start }
    }

    /// Steps over the next frame.
    pub(super) fn next(&mut self) -> Result<Option<Header>, Error> {
        match self.look(self.at)? {
            Found::Frame(header) => {
                self.check_order(&header)?;
                self.at += header.frame_bytes();
                self.last_lsn = header.lsn;
                self.last_kind = Some(header.kind);
                self.batch_start = u64::from(header.batch_start);
                Ok(Some(header))
            }
            Found::Newer => Err(Error::NewerFormat { segment: self.segment.path.clone(), offset: self.at }),
            Found::Zeros | Found::Damaged => Ok(None),
        }
    }

    /// Shows the record that was just stepped over; markers are nobody's.
    pub(super) fn visit(
        &mut self,
        header: &Header,
        visit: &mut dyn FnMut(Record<'_>, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if header.is_marker() {
            return Ok(());
        }
        let offset = self.at - header.frame_bytes();
        let payload = self.window.get(offset + HEADER_BYTES as u64, header.payload_bytes as usize);
        let payload = payload.map_err(Error::io("read", &self.segment.path))?;
        visit(Record { lsn: header.lsn, kind: header.kind, payload }, offset)
    }

    fn look(&mut self, at: u64) -> Result<Found, Error> {
        self.window.look(at, self.page).map_err(Error::io("read", &self.segment.path))
    }

    /// A whole frame that the log cannot have written here is no accident of a crash.
    fn check_order(&self, header: &Header) -> Result<(), Error> {
        let expected = if header.is_marker() { self.last_lsn } else { self.last_lsn.next() };
        let batch_start = u64::from(header.batch_start);
        let why = if self.last_kind == Some(CLOSE) {
            "something follows the close"
        } else if header.lsn != expected {
            "another record stands in its place"
        } else if batch_start != self.at && batch_start != self.batch_start {
            "the frame names an impossible batch"
        } else {
            return Ok(());
        };
        Err(self.segment.corrupt(self.at, expected, why))
    }

    fn finish(mut self) -> Result<Scanned, Error> {
        let rest = self.rest()?;
        let ending = self.last_kind.map(|kind| match kind {
            SEAL => Ending::Sealed,
            CLOSE => Ending::Closed,
            _ => Ending::Recovered,
        });
        Ok(Scanned { last_lsn: self.last_lsn, ending, end: self.at, rest })
    }

    fn rest(&mut self) -> Result<Rest, Error> {
        let mut rest = Rest::Zeros;
        let mut at = self.at;
        while at < self.window.len {
            let stride = STRIDE_BYTES.min(self.window.len - at);
            let bytes =
                self.window.get(at, stride as usize).map_err(Error::io("read", &self.segment.path))?;
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                rest = Rest::Torn(at + last as u64 + 1);
                if self.later_batch(at, at + stride)? {
                    return Ok(Rest::Lost("a later batch is whole, so what stood here had been durable"));
                }
            }
            at += stride;
        }
        match (&rest, self.last_kind) {
            (Rest::Torn(_), Some(CLOSE)) => Ok(Rest::Lost("something follows the close")),
            _ => Ok(rest),
        }
    }

    /// Whether a frame begins in these bytes whose batch begins behind the last good frame.
    fn later_batch(&mut self, from: u64, to: u64) -> Result<bool, Error> {
        for at in (from..to).step_by(ALIGN as usize) {
            match self.look(at)? {
                Found::Frame(header) if u64::from(header.batch_start) > self.at => return Ok(true),
                Found::Newer => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// A moving view of the file.
struct Window<'a> {
    file: &'a dyn File,
    len: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins, and how much of it is filled.
    from: u64,
    filled: usize,
}

impl Window<'_> {
    /// These bytes of the file, which must be in it.
    fn get(&mut self, at: u64, bytes: usize) -> std::io::Result<&[u8]> {
        if at < self.from || at + bytes as u64 > self.from + self.filled as u64 {
            self.fill(at, bytes)?;
        }
        let start = (at - self.from) as usize;
        Ok(&self.buffer[start..start + bytes])
    }

    /// Moves the view to `at`, keeps what is known of it and reads on.
    fn fill(&mut self, at: u64, bytes: usize) -> std::io::Result<()> {
        let known = self.from..self.from + self.filled as u64;
        let kept = if known.contains(&at) { (known.end - at) as usize } else { 0 };
        self.buffer.copy_within(self.filled - kept..self.filled, 0);
        (self.from, self.filled) = (at, kept);
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        let end = (self.buffer.len() as u64).min(self.len - at) as usize;
        self.file.read_at(&mut self.buffer[kept..end], at + kept as u64)?;
        self.filled = end;
        Ok(())
    }

    fn look(&mut self, at: u64, page: &Page) -> std::io::Result<Found> {
        if at + HEADER_BYTES as u64 > self.len {
            return Ok(if at < self.len { Found::Damaged } else { Found::Zeros });
        }
        let bytes = self.get(at, HEADER_BYTES)?;
        let header = bytes.first_chunk().map(|header| frame::parse(header, page.salt));
        let header = match header {
            Some(Ok(header)) => header,
            Some(Err(NoHeader::Zeros)) => return Ok(Found::Zeros),
            Some(Err(NoHeader::Newer)) => return Ok(Found::Newer),
            Some(Err(NoHeader::Damaged)) | None => return Ok(Found::Damaged),
        };
        if at + header.frame_bytes() > self.len {
            return Ok(Found::Damaged);
        }
        let rest = self.get(at + HEADER_BYTES as u64, header.frame_bytes() as usize - HEADER_BYTES)?;
        Ok(if header.fits(page.salt, rest) { Found::Frame(header) } else { Found::Damaged })
    }
}
