//! `chinwag restore`: a data directory from a backup, as it was at the backup's end or at a moment before.
//!
//! Nothing is replayed or rewritten: a store is its newest manifest and the log behind it, so going back is leaving
//! out what came later. The base is the newest manifest that holds nothing later than the moment, or no manifest if
//! the log reaches back to the first record. The epoch moves, so that clients learn that history was taken back.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::backup::parts_of;
use super::copy::{Part, Target};
use super::reader::{Image, Reader};
use super::verify::{Report, verify};
use super::{Copied, Error};
use crate::config::Moment;
use crate::conversation::record::Record;
use crate::data_dir::{Format, Lock};
use crate::disk::Real;
use crate::wal::{self, Checked, CheckedSegment, Lsn};

/// What to restore.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// A backup, or the directory of a stopped server.
    pub from: &'a Path,
    /// Another backup or directory of the same server, with a later part of the log.
    pub log: Option<&'a Path>,
    /// The new data directory.
    pub data: &'a Path,
    /// Where to stop; `None`: at the log's end.
    pub at: Option<Moment>,
}

/// Restores, verifies what came of it, and tells that on `out`.
///
/// # Errors
/// When the moment is not within reach, the new directory is not empty, or something is damaged, or cannot be read or
/// written. Until all is there, the new directory holds no store.
pub fn restore(plan: &Plan<'_>, out: &mut dyn Write) -> Result<(Copied, Report), Error> {
    let base = Source::open(plan.from, plan.at)?;
    let later = plan.log.map(|log| Source::open(log, plan.at)).transpose()?;
    if let Some(later) = &later {
        base.refuse_stranger(later)?;
    }
    let reach = Reach::of(&base, later.as_ref(), plan.at)?;
    let image = base.image_for(&reach)?;
    let disk = Real;
    let lock = Lock::acquire(plan.data)?;
    let mut target = Target::begin(&disk, plan.data)?;
    if let Some(image) = image {
        target.copy_all(&parts_of(&base.reader.data.snap_dir(), &image.manifest))?;
    }
    target.copy_all(&reach.parts(&base)?)?;
    target.copy_key(plan.from)?;
    let format = Format {
        epoch: next_epoch(&base, later.as_ref()),
        started: true,
        ..base.reader.data.format().clone()
    };
    let copied = target.finish(&format, reach.target.0)?;
    drop(lock);
    Ok((copied, verify(plan.data, out)?.into_result(plan.data)?))
}

/// Above every epoch that a client can have seen: also above that of another restore from the same backup, of which
/// the backup knows nothing. The clock's seconds last until 2106.
fn next_epoch(base: &Source, later: Option<&Source>) -> u32 {
    let known = [Some(base), later].into_iter().flatten().map(|source| source.reader.data.format().epoch);
    let now_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let next = known.max().unwrap_or(0).saturating_add(1);
    next.max(u32::try_from(now_s).unwrap_or(u32::MAX))
}

/// A store to restore from.
struct Source {
    reader: Reader,
    log: Checked,
    /// The first record later than the moment that was asked for.
    too_late: Option<Lsn>,
}

impl Source {
    fn open(dir: &Path, at: Option<Moment>) -> Result<Self, Error> {
        let reader = Reader::open(Arc::new(Real), dir)?;
        let mut too_late = None;
        let mut log = reader.read_log(&mut |record, _, _| {
            if let (None, Some(Moment::Time(end_ns))) = (too_late, at)
                && time_of(record).is_some_and(|ns| ns > end_ns)
            {
                too_late = Some(record.lsn);
            }
        })?;
        if let Some(why) = log.damage.pop() {
            return Err(why.into());
        }
        Ok(Self { reader, log, too_late })
    }

    fn refuse_stranger(&self, other: &Self) -> Result<(), Error> {
        let (ours, theirs) = (self.reader.data.format(), other.reader.data.format());
        let names = [self, other].map(|source| source.reader.data.root().display().to_string());
        let [ours_name, theirs_name] = names;
        if ours.store != theirs.store {
            return Err(Error::Refused(format!("{theirs_name} is another store than {ours_name}")));
        }
        if ours.epoch != theirs.epoch {
            let why = "a restore lies between them, so their logs do not continue each other";
            return Err(Error::Refused(format!("{theirs_name} has another epoch than {ours_name}: {why}")));
        }
        Ok(())
    }

    /// The newest image with nothing later than the target; `None` when the log alone has everything.
    fn image_for(&self, reach: &Reach) -> Result<Option<&Image>, Error> {
        let fits = |image: &&Image| {
            let packs = image.archive.packs();
            let newest = packs.iter().flat_map(|pack| pack.entries()).map(|entry| entry.applied_lsn).max();
            let after = image.manifest.replay_after_lsn;
            newest.unwrap_or(0).max(after) <= reach.target.0 && after + 1 >= reach.first.0
        };
        if let Some(image) = self.reader.images.iter().find(fits) {
            return Ok(Some(image));
        }
        if reach.first <= Lsn(1) {
            return Ok(None);
        }
        let from = self.reader.data.root().display();
        Err(Error::Refused(format!(
            "{from} holds nothing old enough for that moment: take an older backup, and this one as --log"
        )))
    }
}

/// When a record was made, Unix time in nanoseconds. An ack does not say.
fn time_of(record: &wal::Record<'_>) -> Option<u64> {
    match Record::decode(record.kind, record.payload).ok()? {
        Record::Send(send) => Some(send.timestamp_ns),
        Record::Recall(recall) => Some(recall.timestamp_ns),
        Record::Group(change) => Some(change.timestamp_ns),
        Record::Relation(change) => Some(change.timestamp_ns),
        Record::Ack(_) => None,
    }
}

/// The log of both sources together, and where in it to stop.
struct Reach {
    /// The first record that is there.
    first: Lsn,
    target: Lsn,
    segments: Vec<CheckedSegment>,
}

impl Reach {
    fn of(base: &Source, later: Option<&Source>, at: Option<Moment>) -> Result<Self, Error> {
        let mut segments = base.log.segments.clone();
        segments.extend(later.into_iter().flat_map(|later| later.log.segments.clone()));
        // Of two copies of a segment the longer one; a copy may end anywhere.
        segments.sort_by_key(|segment| (segment.file.first_lsn, std::cmp::Reverse(segment.last_lsn)));
        segments.dedup_by_key(|segment| segment.file.first_lsn);
        let first = segments.first().map_or(Lsn(1), |segment| segment.file.first_lsn);
        let last = segments.last().map_or(Lsn(0), |segment| segment.last_lsn);
        let too_late = [Some(base), later].into_iter().flatten().filter_map(|source| source.too_late).min();
        let target = match at {
            None => last,
            Some(Moment::Time(_)) => too_late.map_or(last, Lsn::previous),
            Some(Moment::Lsn(lsn)) => Lsn(lsn),
        };
        if target > last {
            return Err(Error::Refused(format!("the log ends at record {last}, before {target}")));
        }
        if target < first.previous() || (at.is_some() && target == Lsn(0)) {
            return Err(Error::Refused(format!("the log begins at record {first}, after that moment")));
        }
        refuse_gap(&segments)?;
        Ok(Self { first, target, segments })
    }

    /// The segments up to the target.
    fn parts(&self, base: &Source) -> Result<Vec<Part>, Error> {
        let (disk, store) = (&*base.reader.disk, base.reader.store());
        let is_wanted = |segment: &&CheckedSegment| segment.file.first_lsn <= self.target;
        let wanted: Vec<_> = self.segments.iter().filter(is_wanted).collect();
        // A log that was begun always has a segment, if only one without records.
        let wanted = if wanted.is_empty() { self.segments.iter().take(1).collect() } else { wanted };
        let mut parts = Vec::with_capacity(wanted.len());
        for (number, segment) in wanted.iter().enumerate() {
            let is_last = number + 1 == wanted.len();
            let bytes = match is_last && self.target < segment.last_lsn {
                true => wal::end_of(disk, &segment.file, store, self.target)?,
                false => segment.end,
            };
            parts.push(Part { from: segment.file.path.clone(), dir: "wal", bytes: Some(bytes) });
        }
        Ok(parts)
    }
}

/// The sources may not meet.
fn refuse_gap(segments: &[CheckedSegment]) -> Result<(), Error> {
    for pair in segments.windows(2) {
        let (expected, found) = (pair[0].last_lsn.next(), pair[1].file.first_lsn);
        if found > expected {
            let to = found.previous();
            return Err(Error::Refused(format!("the records {expected} to {to} are in neither log")));
        }
    }
    Ok(())
}
