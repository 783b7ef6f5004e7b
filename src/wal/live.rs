//! Reads a part of a log that goes on being written.
//!
//! Promises every record of the range, in order, or an error that says where the log is damaged. Nothing behind the
//! range is looked at, so the committer is not disturbed. That nobody removes a segment meanwhile is the caller's
//! business, and so is that the range is on the disk.

use super::replay::first_needed;
use super::scan;
use super::segment::{Page, SegmentFile};
use super::{Error, Lsn, Record, StoreId, VisitError};
use crate::disk::Disk;

/// Visits the records behind `after` up to `through` in these segments of a log, oldest first, of which the last may be
/// the one that is being written.
///
/// # Errors
/// As of [`replay`](super::replay()); nothing is changed.
pub fn read_live(
    disk: &dyn Disk,
    segments: &[SegmentFile],
    store: StoreId,
    after: Lsn,
    through: Lsn,
    visit: &mut dyn FnMut(Record<'_>) -> Result<(), VisitError>,
) -> Result<(), Error> {
    if through <= after {
        return Ok(());
    }
    let first = first_needed(segments, after)?;
    let mut read = segments[first].first_lsn.previous();
    for segment in &segments[first..] {
        if read >= through {
            break;
        }
        if segment.first_lsn != read.next() {
            return Err(Error::Missing { from: read.next(), to: segment.first_lsn.previous() });
        }
        read = read_one(disk, segment, store, after, through, visit)?;
    }
    if read < through { Err(Error::Missing { from: read.next(), to: through }) } else { Ok(()) }
}

fn read_one(
    disk: &dyn Disk,
    segment: &SegmentFile,
    store: StoreId,
    after: Lsn,
    through: Lsn,
    visit: &mut dyn FnMut(Record<'_>) -> Result<(), VisitError>,
) -> Result<Lsn, Error> {
    let file = disk.open(&segment.path).map_err(Error::io("open", &segment.path))?;
    let page = Page::read(file.as_ref(), segment, store)?;
    scan::records_through(file.as_ref(), segment, &page, through, &mut |record, offset| {
        if record.lsn <= after {
            return Ok(());
        }
        let (lsn, segment) = (record.lsn, segment.path.clone());
        visit(record).map_err(|source| Error::Visit { lsn, segment, offset, source })
    })
}
