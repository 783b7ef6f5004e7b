//! Reads on in a log that goes on being written, from where it was left the last time.
//!
//! Promises the records of the range one by one and in order, or an error that says where the log is damaged. Nothing
//! behind the range is looked at, so the committer is not disturbed. That the range is durable is the caller's business.
//! A segment that is removed meanwhile is read to its end; one that is gone before it is opened is an [`Error::Io`].

use std::ops::RangeInclusive;

use super::replay::first_needed;
use super::scan::{Mark, Scan};
use super::segment::{Page, SegmentFile};
use super::{Error, Lsn, Record, StoreId};
use crate::disk::Disk;

/// How much is read at once: near the end of the log there is little to read.
const READ_BYTES: usize = 64 << 10;
/// How far two marks are from each other that are left on the way, in bytes: as long as a scan takes a millisecond.
const STRIDE_BYTES: u64 = 1 << 20;

/// How far it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Behind the last record that was taken.
    pub end: Mark,
    /// Places on the way from which a later look at a record behind them can begin.
    pub passed: Vec<Mark>,
}

/// Shows the records of `range` in these segments of a log, oldest first, of which the last may be the one that is being
/// written, until `take` says false: that record is not taken. Reading begins at `mark`, where that is of use, else
/// at the beginning of the segment that has the first of the range. What cannot be read behind a record that was taken
/// ends the look, and is the error of the next.
///
/// # Errors
/// As of [`replay`](super::replay()); nothing is changed.
///
/// # Panics
/// When there is no segment.
pub fn follow(
    disk: &dyn Disk,
    segments: &[SegmentFile],
    store: StoreId,
    mark: Option<Mark>,
    range: RangeInclusive<Lsn>,
    take: &mut dyn FnMut(Record<'_>) -> bool,
) -> Result<Followed, Error> {
    let (from, through) = range.into_inner();
    let segments = &segments[first_needed(segments, from.previous())?..];
    let mark = mark.filter(|mark| mark.is_in(&segments[0]) && mark.next() <= from);
    let end = mark.unwrap_or_else(|| Mark::beginning(&segments[0]));
    let mut following = Following { disk, store, from, end, passed: Vec::new(), has_taken: false };
    for (segment, behind) in segments.iter().zip(segments.iter().skip(1).map(Some).chain([None])) {
        let last = behind.map_or(through, |behind| through.min(behind.first_lsn.previous()));
        match following.read(segment, last, take) {
            Ok(Found::All) if last < through => {}
            Err(why) if !following.has_taken => return Err(why),
            Ok(_) | Err(_) => break,
        }
    }
    Ok(Followed { end: following.end, passed: following.passed })
}

struct Following<'a> {
    disk: &'a dyn Disk,
    store: StoreId,
    from: Lsn,
    /// Behind the last record that was taken, or passed.
    end: Mark,
    passed: Vec<Mark>,
    has_taken: bool,
}

enum Found {
    /// The segment was read as far as it is wanted.
    All,
    /// A record was not taken.
    Enough,
}

impl Following<'_> {
    /// Reads a segment up to `last`, which is in it.
    fn read(
        &mut self,
        segment: &SegmentFile,
        last: Lsn,
        take: &mut dyn FnMut(Record<'_>) -> bool,
    ) -> Result<Found, Error> {
        let file = self.disk.open(&segment.path).map_err(Error::io("open", &segment.path))?;
        let page = Page::read(file.as_ref(), segment, self.store)?;
        if !self.end.is_in(segment) {
            self.end = Mark::beginning(segment);
        }
        let mut scan = Scan::resume(file.as_ref(), segment, &page, &self.end, READ_BYTES)?;
        let mut noted = self.end.offset();
        while self.end.next() <= last {
            if self.end.offset() - noted >= STRIDE_BYTES {
                noted = self.end.offset();
                self.passed.push(self.end);
            }
            let Some(header) = scan.next()? else {
                let why = "a record that was durable is not whole, or not there";
                return Err(segment.corrupt(self.end.offset(), self.end.next(), why));
            };
            if !header.is_marker() && header.lsn >= self.from {
                let mut is_taken = true;
                scan.visit(&header, &mut |record, _| {
                    is_taken = take(record);
                    Ok(())
                })?;
                if !is_taken {
                    return Ok(Found::Enough);
                }
                self.has_taken = true;
            }
            self.end = scan.mark();
        }
        Ok(Found::All)
    }
}
