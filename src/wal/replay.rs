//! Recovery: what a start reads, what it cuts off, and when it refuses.
//!
//! Promises that every record which ever came out of the sink under `Always` is visited once and in order, or that the
//! start fails and says where the log is damaged. Changes nothing on disk unless the whole log holds; what it
//! cuts is copied to the quarantine first.

use std::path::{Path, PathBuf};

use super::ahead::{Prepare, Show, read_ahead};
use super::frame;
use super::scan::{Rest, Scanned, scan};
use super::segment::{Ending, Page, SegmentFile, list};
use super::{Error, Lsn, Record, StoreId, VisitError};
use crate::disk::{Disk, File};

/// How much of a torn tail is copied at once.
const COPY_BYTES: usize = 1 << 20;

/// What a recovery found; a new life of the log begins with it.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The newest record; 0 when there never was one.
    pub last_lsn: Lsn,
    /// How many records were visited.
    pub records: u64,
    /// What they take in the log, in bytes.
    pub bytes: u64,
    /// What was cut off, if anything was.
    pub torn_tail: Option<TornTail>,
    /// Whether the last life ended with [`close`](super::Wal::close), or there was none.
    pub closed_cleanly: bool,
    /// The segments there are, oldest first.
    pub segments: Vec<SegmentFile>,
    /// How the last segment with a record ends.
    pub(super) ending: Ending,
    /// Whether the last segment has no record: its name will be taken by the next.
    pub(super) last_is_empty: bool,
}

/// The end of a batch that a crash kept from becoming whole. It had not been acknowledged under `Always`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub segment: PathBuf,
    /// Where it was cut, in bytes.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// Where they are now.
    pub quarantined: PathBuf,
}

/// Reads the log of a stopped server and makes its end clean.
///
/// Visits the records behind `after`, which is the newest one that the caller has from elsewhere. The caller holds the
/// lock of the data directory.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::Missing`], [`Error::EndsEarly`], [`Error::ForeignStore`] and [`Error::NewerFormat`] say that
/// the log is not what this store wrote; then nothing was changed.
pub fn replay(
    disk: &dyn Disk,
    wal_dir: &Path,
    quarantine_dir: &Path,
    store: StoreId,
    after: Lsn,
    visit: &mut dyn FnMut(Record<'_>) -> Result<(), VisitError>,
) -> Result<Recovered, Error> {
    replay_prepared(disk, wal_dir, quarantine_dir, store, after, &|_| (), &mut |record, ()| visit(record))
}

/// The same; `visit` also gets what `prepare` made of the record, which it did on another thread while records before
/// it were visited.
pub fn replay_prepared<P: Send>(
    disk: &dyn Disk,
    wal_dir: &Path,
    quarantine_dir: &Path,
    store: StoreId,
    after: Lsn,
    prepare: &Prepare<'_, P>,
    visit: &mut dyn FnMut(Record<'_>, P) -> Result<(), VisitError>,
) -> Result<Recovered, Error> {
    // The last life may have died between renaming a segment and syncing its name.
    disk.sync_dir(wal_dir).map_err(Error::io("sync", wal_dir))?;
    let segments = list(disk, wal_dir)?;
    let needed = &segments[first_needed(&segments, after)?..];
    let Some((last, earlier)) = needed.split_last() else {
        return Ok(Recovered::nothing());
    };
    let walk = |show: &mut Show<'_>| {
        let mut walk = Walk { disk, store, after, show, records: 0, bytes: 0, before: None };
        earlier.iter().try_for_each(|segment| walk.earlier_segment(segment))?;
        walk.last_segment(last)
    };
    // Only once the caller has every record is anything cut.
    let Walked { file, page, scanned, records, bytes } =
        read_ahead(disk, needed, walk, prepare, &mut |record, prepared, segment, offset| {
            let (lsn, segment) = (record.lsn, &segment.path);
            visit(record, prepared).map_err(|source| Error::Visit {
                lsn,
                segment: segment.clone(),
                offset,
                source,
            })
        })?;
    let torn_tail = cut(disk, file.as_ref(), last, &scanned, quarantine_dir)?;
    Ok(Recovered {
        last_lsn: scanned.last_lsn,
        records,
        bytes,
        torn_tail,
        closed_cleanly: scanned.ending == Some(Ending::Closed),
        ending: scanned.ending_for_next(&page),
        last_is_empty: scanned.is_empty(&page),
        segments,
    })
}

impl Recovered {
    fn nothing() -> Self {
        Self {
            last_lsn: Lsn(0),
            records: 0,
            bytes: 0,
            torn_tail: None,
            closed_cleanly: true,
            segments: Vec::new(),
            ending: Ending::None,
            last_is_empty: false,
        }
    }
}

impl Scanned {
    pub(super) fn is_empty(&self, page: &Page) -> bool {
        self.last_lsn < page.first_lsn
    }

    /// What the next segment's page says of the one before. An empty one is about to be replaced.
    fn ending_for_next(&self, page: &Page) -> Ending {
        if self.is_empty(page) { page.previous } else { self.ending.unwrap_or(Ending::Recovered) }
    }
}

/// Which segment holds the record behind `after`. What is before it need not even be whole.
pub(super) fn first_needed(segments: &[SegmentFile], after: Lsn) -> Result<usize, Error> {
    let wanted = after.next();
    match segments.iter().rposition(|segment| segment.first_lsn <= wanted) {
        Some(first) => Ok(first),
        None if segments.is_empty() && after == Lsn(0) => Ok(0),
        None => {
            let to = segments.first().map_or(after, |segment| segment.first_lsn.previous());
            Err(Error::Missing { from: wanted.min(to), to })
        }
    }
}

/// A walk over segments, oldest first.
struct Walk<'a> {
    disk: &'a dyn Disk,
    store: StoreId,
    after: Lsn,
    show: &'a mut Show<'a>,
    records: u64,
    bytes: u64,
    /// The segment before and what was found in it.
    before: Option<(SegmentFile, Scanned)>,
}

/// The last segment, and how much was shown until its end.
struct Walked {
    file: Box<dyn File>,
    page: Page,
    scanned: Scanned,
    records: u64,
    bytes: u64,
}

impl Walk<'_> {
    fn earlier_segment(&mut self, segment: &SegmentFile) -> Result<(), Error> {
        let file = self.disk.open(&segment.path).map_err(Error::io("open", &segment.path))?;
        let (page, scanned) = self.read(file.as_ref(), segment)?;
        judge_earlier(segment, &page, &scanned)?;
        self.before = Some((segment.clone(), scanned));
        Ok(())
    }

    /// The last segment is the only one that can hold what is not durable.
    fn last_segment(mut self, segment: &SegmentFile) -> Result<Walked, Error> {
        let file = self.disk.open_write(&segment.path).map_err(Error::io("open", &segment.path))?;
        // What a killed process wrote becomes durable before anybody reads it; what a failed sync left in the memory
        // of the system only is forgotten, so that nobody does.
        file.sync_all().map_err(Error::io("sync", &segment.path))?;
        file.drop_cache().map_err(Error::io("drop the cache of", &segment.path))?;
        let (page, scanned) = self.read(file.as_ref(), segment)?;
        judge_last(segment, &scanned)?;
        if scanned.last_lsn < self.after {
            return Err(segment.ends_early(scanned.end, scanned.last_lsn, self.after));
        }
        Ok(Walked { file, page, scanned, records: self.records, bytes: self.bytes })
    }

    fn read(&mut self, file: &dyn File, segment: &SegmentFile) -> Result<(Page, Scanned), Error> {
        let page = Page::read(file, segment, self.store)?;
        check_chain(self.before.as_ref(), &page)?;
        let scanned = scan(file, segment, &page, &mut |record, offset| self.record(record, segment, offset))?;
        Ok((page, scanned))
    }

    fn record(&mut self, record: Record<'_>, segment: &SegmentFile, offset: u64) -> Result<(), Error> {
        if record.lsn <= self.after {
            return Ok(());
        }
        self.records += 1;
        self.bytes += frame::frame_bytes(record.payload.len());
        (self.show)(record, segment, offset)
    }
}

/// Whether a segment behind which another follows is all that it was.
pub(super) fn judge_earlier(segment: &SegmentFile, page: &Page, scanned: &Scanned) -> Result<(), Error> {
    let why = match scanned.rest {
        Rest::Zeros if scanned.is_empty(page) => "it has no record, but a segment follows",
        Rest::Zeros => return Ok(()),
        Rest::Torn(_) => "it is damaged, and a segment follows",
        Rest::Lost(why) => why,
    };
    Err(segment.corrupt(scanned.end, scanned.last_lsn.next(), why))
}

/// Whether the last segment is all that it was, but for a torn tail.
pub(super) fn judge_last(segment: &SegmentFile, scanned: &Scanned) -> Result<(), Error> {
    match scanned.rest {
        Rest::Lost(why) => Err(segment.corrupt(scanned.end, scanned.last_lsn.next(), why)),
        Rest::Zeros | Rest::Torn(_) => Ok(()),
    }
}

/// The page of a segment says how the one before ended; it must have ended so.
pub(super) fn check_chain(before: Option<&(SegmentFile, Scanned)>, page: &Page) -> Result<(), Error> {
    let Some((segment, scanned)) = before else {
        return Ok(());
    };
    let expected = scanned.last_lsn.next();
    let why = if page.first_lsn < expected {
        "it goes on behind the beginning of the next segment"
    } else if page.first_lsn > expected {
        "it ends before the next segment begins"
    } else if scanned.ending != Some(page.previous) {
        "it does not end as the next segment says"
    } else {
        return Ok(());
    };
    Err(segment.corrupt(scanned.end, expected, why))
}

/// Cuts off what is behind the last frame, so that nothing of it can ever be taken for the log again.
fn cut(
    disk: &dyn Disk,
    file: &dyn File,
    segment: &SegmentFile,
    scanned: &Scanned,
    quarantine_dir: &Path,
) -> Result<Option<TornTail>, Error> {
    let torn_tail = match scanned.rest {
        Rest::Torn(end) => {
            // The zeros behind it go first: on a full disk they are the room for the copy.
            cut_at(file, segment, end)?;
            let range = scanned.end..end;
            let quarantined = quarantine(disk, file, segment, range, quarantine_dir)?;
            let bytes = end - scanned.end;
            Some(TornTail { segment: segment.path.clone(), offset: scanned.end, bytes, quarantined })
        }
        _ => None,
    };
    cut_at(file, segment, scanned.end)?;
    Ok(torn_tail)
}

fn cut_at(file: &dyn File, segment: &SegmentFile, end: u64) -> Result<(), Error> {
    if file.len().map_err(Error::io("measure", &segment.path))? > end {
        file.set_len(end).map_err(Error::io("cut", &segment.path))?;
        file.sync_all().map_err(Error::io("sync", &segment.path))?;
    }
    Ok(())
}

/// Copies a part of a segment, durably.
fn quarantine(
    disk: &dyn Disk,
    file: &dyn File,
    segment: &SegmentFile,
    range: std::ops::Range<u64>,
    dir: &Path,
) -> Result<PathBuf, Error> {
    let (path, copy) = create_copy(disk, segment, range.start, dir)?;
    let mut buffer = vec![0; COPY_BYTES.min((range.end - range.start) as usize)];
    for from in range.clone().step_by(COPY_BYTES) {
        let part = &mut buffer[..COPY_BYTES.min((range.end - from) as usize)];
        file.read_at(part, from).map_err(Error::io("read", &segment.path))?;
        copy.write_at(part, from - range.start).map_err(Error::io("write", &path))?;
    }
    copy.sync_all().map_err(Error::io("sync", &path))?;
    disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
    Ok(path)
}

/// A start that died in the middle may have left a copy behind; it is kept, whole or not.
fn create_copy(
    disk: &dyn Disk,
    segment: &SegmentFile,
    offset: u64,
    dir: &Path,
) -> Result<(PathBuf, Box<dyn File>), Error> {
    let mut attempt = 1_u32;
    loop {
        let path = dir.join(format!("{:020}-{offset}-{attempt}.tail", segment.first_lsn.0));
        match disk.create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => attempt += 1,
            made => return made.map(|copy| (path.clone(), copy)).map_err(Error::io("create", &path)),
        }
    }
}
