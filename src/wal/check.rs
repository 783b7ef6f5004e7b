//! A look at a log that changes nothing, for tools.
//!
//! Promises the verdicts of [`replay`](super::replay()) by the same scanner, but goes on behind damage and reads also
//! the segments that no snapshot needs. What a finding means for the caller's data is none of its business.

use std::ops::Range;
use std::path::PathBuf;

use super::ahead::{Prepare, Show, read_ahead};
use super::replay::{check_chain, first_needed, judge_earlier, judge_last};
use super::scan::{self, Rest, Scanned, scan};
use super::segment::{Ending, PAGE_BYTES, Page, SegmentFile, list_all};
use super::{Error, Lsn, Record, StoreId};
use crate::disk::Disk;

/// What stands in a log.
#[derive(Debug, Default)]
pub struct Checked {
    /// The segments whose first page is whole, oldest first.
    pub segments: Vec<CheckedSegment>,
    /// The newest record that was visited; 0 for none.
    pub last_lsn: Lsn,
    /// How many records were visited.
    pub records: u64,
    /// What the next start will cut off, if anything.
    pub torn_tail: Option<UncutTail>,
    /// Whether the last life ended with [`close`](super::Wal::close), or there was none.
    pub closed_cleanly: bool,
    /// What is not as it was written. Never empty when [`replay`](super::replay()) would refuse.
    pub damage: Vec<Error>,
    /// All segments there are, by their names.
    named: Vec<SegmentFile>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedSegment {
    /// Which.
    pub file: SegmentFile,
    /// Its last record; the one before its first if it has none.
    pub last_lsn: Lsn,
    /// Where its last frame ends, in bytes.
    pub end: u64,
    /// How long the file is, in bytes.
    pub bytes: u64,
}

/// The end of a batch that a crash kept from becoming whole, still in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncutTail {
    /// The file.
    pub segment: PathBuf,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// Gets each record with what was prepared, its file and where its frame begins in it, in bytes.
type Visit<'a, P> = dyn FnMut(Record<'_>, P, &SegmentFile, u64) + 'a;

/// Reads every segment in `wal_dir`, which nobody writes to, and visits every record in order, with what `prepare` made of
/// it on another thread while records before it were visited.
///
/// # Errors
/// [`Error::Io`] when the directory cannot be listed; everything else is in [`Checked::damage`].
pub fn check<P: Send>(
    disk: &dyn Disk,
    wal_dir: &std::path::Path,
    store: StoreId,
    prepare: &Prepare<'_, P>,
    visit: &mut Visit<'_, P>,
) -> Result<Checked, Error> {
    let (named, strangers) = list_all(disk, wal_dir)?;
    let look = |show: &mut Show<'_>| {
        let mut look = Look { disk, store, before: None, checked: Checked::default() };
        look.checked.damage = strangers;
        look.checked.closed_cleanly = named.is_empty();
        for (number, segment) in named.iter().enumerate() {
            let is_last = number + 1 == named.len();
            if let Err(why) = look.segment(segment, is_last, show) {
                look.checked.damage.push(why);
            }
        }
        Ok(look.checked)
    };
    let checked = read_ahead(disk, &named, look, prepare, &mut |record, prepared, segment, offset| {
        visit(record, prepared, segment, offset);
        Ok(())
    })?;
    Ok(Checked { named, ..checked })
}

impl Checked {
    /// Whether the log reaches back to the record behind `after`, and at least up to `after`.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::EndsEarly`].
    pub fn covers(&self, after: Lsn) -> Result<(), Error> {
        first_needed(&self.named, after)?;
        if self.last_lsn >= after || !self.damage.is_empty() {
            return Ok(());
        }
        Err(match self.segments.last() {
            Some(last) => last.file.ends_early(last.end, self.last_lsn, after),
            None => Error::Missing { from: self.last_lsn.next(), to: after },
        })
    }
}

/// Reads and checks a segment of a log that goes on being written, but not its last one, from the disk and not from
/// memory. `go_on` hears at each record how many bytes of it were read, and may stop the look.
///
/// # Errors
/// As of [`replay`](super::replay()); nothing is changed.
pub fn check_closed(
    disk: &dyn Disk,
    segment: &SegmentFile,
    store: StoreId,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<(), Error> {
    let file = disk.open(&segment.path).map_err(Error::io("open", &segment.path))?;
    file.drop_cache().map_err(Error::io("drop the cache of", &segment.path))?;
    let page = Page::read(file.as_ref(), segment, store)?;
    let scanned = scan(file.as_ref(), segment, &page, &mut |_, offset| {
        if go_on(offset) { Ok(()) } else { Err(Error::Closed) }
    })?;
    judge_earlier(segment, &page, &scanned)
}

struct Look<'a> {
    disk: &'a dyn Disk,
    store: StoreId,
    /// The segment before, if it could be read to its end.
    before: Option<(SegmentFile, Scanned)>,
    checked: Checked,
}

impl Look<'_> {
    fn segment(&mut self, segment: &SegmentFile, is_last: bool, show: &mut Show<'_>) -> Result<(), Error> {
        let before = self.before.take();
        let file = self.disk.open(&segment.path).map_err(Error::io("open", &segment.path))?;
        // Asked is what the disk has, not what the memory of the system still knows.
        file.drop_cache().map_err(Error::io("drop the cache of", &segment.path))?;
        let bytes = file.len().map_err(Error::io("measure", &segment.path))?;
        let page = Page::read(file.as_ref(), segment, self.store)?;
        if let Err(why) = check_chain(before.as_ref(), &page) {
            self.checked.damage.push(why);
        }
        let checked = &mut self.checked;
        let scanned = scan(file.as_ref(), segment, &page, &mut |record, offset| {
            (checked.last_lsn, checked.records) = (record.lsn, checked.records + 1);
            show(record, segment, offset)
        })?;
        self.conclude(segment, &page, scanned, bytes, is_last)
    }

    fn conclude(
        &mut self,
        segment: &SegmentFile,
        page: &Page,
        scanned: Scanned,
        bytes: u64,
        is_last: bool,
    ) -> Result<(), Error> {
        let Scanned { last_lsn, end, .. } = scanned;
        self.checked.segments.push(CheckedSegment { file: segment.clone(), last_lsn, end, bytes });
        // A segment without a record still says how far the log had come.
        self.checked.last_lsn = self.checked.last_lsn.max(last_lsn);
        if !is_last {
            judge_earlier(segment, page, &scanned)?;
            self.before = Some((segment.clone(), scanned));
            return Ok(());
        }
        judge_last(segment, &scanned)?;
        self.checked.closed_cleanly = scanned.ending == Some(Ending::Closed);
        if let Rest::Torn(torn_end) = scanned.rest {
            let segment = segment.path.clone();
            self.checked.torn_tail = Some(UncutTail { segment, offset: end, bytes: torn_end - end });
        }
        Ok(())
    }
}

/// Where the frame of record `lsn` stands in `segment`, in bytes; `None` if it is not in it.
///
/// The segment may be the one that is being written, as long as `lsn` is durable.
pub fn place_of(
    disk: &dyn Disk,
    segment: &SegmentFile,
    store: StoreId,
    lsn: Lsn,
) -> Result<Option<Range<u64>>, Error> {
    let file = disk.open(&segment.path).map_err(Error::io("open", &segment.path))?;
    let page = Page::read(file.as_ref(), segment, store)?;
    scan::place_of(file.as_ref(), segment, &page, lsn)
}

/// How much of `segment` is the log up to record `lsn`, in bytes: a copy of that much ends with it.
///
/// The segment may be the one that is being written, as long as `lsn` is durable. `lsn` is in it, or the one before
/// its first.
pub fn end_of(disk: &dyn Disk, segment: &SegmentFile, store: StoreId, lsn: Lsn) -> Result<u64, Error> {
    if lsn < segment.first_lsn {
        return Ok(PAGE_BYTES);
    }
    match place_of(disk, segment, store, lsn)? {
        Some(place) => Ok(place.end),
        None => Err(segment.corrupt(PAGE_BYTES, lsn, "the segment ends before it")),
    }
}
