//! Reading ahead: while whoever wants the records works on some, the next are read and checked on another thread.
//!
//! Promises the records in their order, and of several things that are wrong the first one in that order. What a
//! record is, and what stands where, is the scan's business.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::frame::HEADER_BYTES;
use super::scan::READ_BYTES;
use super::segment::SegmentFile;
use super::{Error, Lsn, Record};
use crate::disk::Disk;

/// Records that change hands together, in bytes: so many that waking the other thread costs nothing beside them, and few enough to
/// be in a core's cache when they are looked at.
const BATCH_BYTES: usize = 256 << 10;
/// Batches on their way: the one thread may be late by as much before the other waits.
const BATCHES_MAX: usize = 4;

/// Gets each record with its file and where its frame begins in it, in bytes.
pub(super) type Show<'a> = dyn FnMut(Record<'_>, &SegmentFile, u64) -> Result<(), Error> + 'a;

/// What is made of a record while others are visited.
pub(super) type Prepare<'a, P> = dyn Fn(&Record<'_>) -> P + Sync + 'a;

/// A [`Show`] that also gets what was prepared.
type Visit<'a, P> = dyn FnMut(Record<'_>, P, &SegmentFile, u64) -> Result<(), Error> + 'a;

/// Calls `read`, which shows the records of `segments`, and passes them on to `visit`, which stays on this thread.
///
/// # Errors
/// What `visit` says, before what `read` says: it has come as far as the record, and `read` was ahead.
pub(super) fn read_ahead<T: Send, P: Send>(
    disk: &dyn Disk,
    segments: &[SegmentFile],
    read: impl FnOnce(&mut Show<'_>) -> Result<T, Error> + Send,
    prepare: &Prepare<'_, P>,
    visit: &mut Visit<'_, P>,
) -> Result<T, Error> {
    if is_read_at_once(disk, segments) {
        return read(&mut |record, segment, offset| visit(record, prepare(&record), segment, offset));
    }
    thread::scope(|scope| {
        let (filled, batches) = sync_channel(BATCHES_MAX);
        let reading = thread::Builder::new().name("wal-ahead".into());
        let reading = reading.spawn_scoped(scope, || read_batches(filled, read, prepare));
        // There is one: nothing at all is read at once.
        let reading = reading.map_err(Error::io("start a thread that reads", &segments[0].path))?;
        let visited = visit_batches(batches, visit);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        visited.and(read)
    })
}

/// Whether there is nothing that could be read ahead. What cannot be measured is not, and found when it is read.
fn is_read_at_once(disk: &dyn Disk, segments: &[SegmentFile]) -> bool {
    let length = |segment: &SegmentFile| disk.open(&segment.path).and_then(|file| file.len()).unwrap_or(0);
    segments.len() <= 1 && segments.iter().map(length).sum::<u64>() <= READ_BYTES as u64
}

fn read_batches<T, P>(
    filled: SyncSender<Batch<P>>,
    read: impl FnOnce(&mut Show<'_>) -> Result<T, Error>,
    prepare: &Prepare<'_, P>,
) -> Result<T, Error> {
    let mut batch = None::<Batch<P>>;
    let done = read(&mut |record, segment, offset| {
        if let Some(full) = batch.take_if(|batch| !batch.takes(&record, segment)) {
            // Whoever visits has seen enough, and says why.
            filled.send(full).map_err(|_| Error::Closed)?;
        }
        batch.get_or_insert_with(|| Batch::of(segment)).add(&record, prepare(&record), offset);
        Ok(())
    });
    // What was read before an error is visited all the same.
    let _ = batch.map_or(Ok(()), |last| filled.send(last));
    done
}

fn visit_batches<P>(batches: Receiver<Batch<P>>, visit: &mut Visit<'_, P>) -> Result<(), Error> {
    batches.into_iter().try_for_each(|batch| batch.visit(visit))
}

/// Records of one segment.
struct Batch<P> {
    segment: SegmentFile,
    rows: Vec<Row<P>>,
    payloads: Vec<u8>,
}

struct Row<P> {
    lsn: Lsn,
    kind: u8,
    /// Where its frame begins in the segment.
    offset: u64,
    payload_bytes: usize,
    prepared: P,
}

impl<P> Batch<P> {
    fn of(segment: &SegmentFile) -> Self {
        let (segment, rows) = (segment.clone(), Vec::new());
        Self { segment, rows, payloads: Vec::with_capacity(BATCH_BYTES) }
    }

    /// Counted as frames, so that empty ones are bounded too. The first record is taken however long it is.
    fn takes(&self, record: &Record<'_>, segment: &SegmentFile) -> bool {
        let frames = (self.rows.len() + 1) * HEADER_BYTES + self.payloads.len() + record.payload.len();
        self.segment.first_lsn == segment.first_lsn && frames <= BATCH_BYTES
    }

    fn add(&mut self, record: &Record<'_>, prepared: P, offset: u64) {
        let Record { lsn, kind, payload } = *record;
        self.rows.push(Row { lsn, kind, offset, payload_bytes: payload.len(), prepared });
        self.payloads.extend_from_slice(payload);
    }

    fn visit(self, visit: &mut Visit<'_, P>) -> Result<(), Error> {
        let mut payloads = &self.payloads[..];
        self.rows.into_iter().try_for_each(|Row { lsn, kind, offset, payload_bytes, prepared }| {
            let (payload, behind) = payloads.split_at(payload_bytes);
            payloads = behind;
            visit(Record { lsn, kind, payload }, prepared, &self.segment, offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::path::Path;

    use super::*;
    use crate::disk::Simulated;

    /// Two, so that they are read ahead.
    fn segments() -> [SegmentFile; 2] {
        [1, 1_001].map(|first_lsn| SegmentFile::new(Path::new("wal"), Lsn(first_lsn)))
    }

    fn payload(lsn: u64) -> Vec<u8> {
        // Some alone are longer than a batch.
        let bytes = if lsn.is_multiple_of(400) { BATCH_BYTES + 1 } else { lsn as usize % 700 };
        vec![lsn as u8; bytes]
    }

    /// Shows two thousand records, a thousand of each segment.
    fn show_all(show: &mut Show<'_>) -> Result<(), Error> {
        for lsn in 1..=2_000 {
            let segment = &segments()[usize::from(lsn > 1_000)];
            show(
                Record { lsn: Lsn(lsn), kind: (lsn % 200) as u8, payload: &payload(lsn) },
                segment,
                lsn * 8,
            )?;
        }
        Ok(())
    }

    fn read(
        read: impl FnOnce(&mut Show<'_>) -> Result<(), Error> + Send,
        visit: &mut Visit<'_, u64>,
    ) -> Result<(), Error> {
        read_ahead(&Simulated::new(1), &segments(), read, &|record| record.lsn.0 + 7, visit)
    }

    #[test]
    fn every_record_comes_as_it_was_read_and_in_order() {
        let mut expected = 1;
        let visited = read(show_all, &mut |record, prepared, segment, offset| {
            let Record { lsn, kind, payload: found } = record;
            assert_eq!((lsn.0, u64::from(kind), prepared), (expected, expected % 200, expected + 7));
            assert_eq!((segment, offset), (&segments()[usize::from(expected > 1_000)], expected * 8));
            assert!(found == payload(expected));
            expected += 1;
            Ok(())
        });
        assert!(visited.is_ok() && expected == 2_001);
    }

    #[test]
    fn what_is_wrong_first_is_told_and_everything_before_it_was_visited() {
        let torn = |show: &mut Show<'_>| show_all(show).and(Err(Error::Panicked));
        let mut visited = 0;
        let told = read(torn, &mut |record, _, _, _| {
            visited = record.lsn.0;
            Ok(())
        });
        assert!(matches!(told, Err(Error::Panicked)) && visited == 2_000);
        for refused in [1, 700, 2_000] {
            let told = read(torn, &mut |record, _, _, _| match record.lsn.0 {
                lsn if lsn < refused => Ok(()),
                lsn => Err(segments()[0].corrupt(lsn, record.lsn, "refused")),
            });
            assert!(matches!(told, Err(Error::Corrupt { lsn, .. }) if lsn == Lsn(refused)), "{refused}");
        }
    }

    #[test]
    fn a_panic_on_either_side_is_a_panic() {
        assert!(
            catch_unwind(|| read(show_all, &mut |record, _, _, _| match record.lsn.0 {
                900 => panic!("while it visits"),
                _ => Ok(()),
            }))
            .is_err()
        );
        let panicking = |show: &mut Show<'_>| show_all(show).map(|()| panic!("while it reads"));
        assert!(catch_unwind(|| read(panicking, &mut |_, _, _, _| Ok(()))).is_err());
    }
}
