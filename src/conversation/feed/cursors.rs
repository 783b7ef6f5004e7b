//! Cursors: places in the log from which reading can begin, so that nobody reads a segment from its beginning again and
//! again.
//!
//! Promises a bounded size. Where no place is known, reading begins with the segment: correct, and slower once.

use std::collections::{BTreeMap, VecDeque};

use crate::config::limits::FEEDS_MAX;
use crate::wal::{Followed, Lsn, Mark};

/// Ends of the last pages: twice as many as feeds are read at a time, so that a page asked for again is at hand too.
const RECENT_MAX: usize = 2 * FEEDS_MAX;
/// Places on the way: a megabyte apart, so those of a gigabyte of log, about 64 KiB.
const PASSED_MAX: usize = 1024;

/// What is known of where records are.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// Oldest first.
    recent: VecDeque<Mark>,
    /// By the record behind it.
    passed: BTreeMap<Lsn, Mark>,
}

impl Cursors {
    /// The nearest place before this record, or at it.
    pub(super) fn nearest(&self, from: Lsn) -> Option<Mark> {
        let recent = self.recent.iter().filter(|mark| mark.next() <= from).max_by_key(|mark| mark.next());
        let passed = self.passed.range(..=from).next_back().map(|(_, mark)| mark);
        recent.into_iter().chain(passed).max_by_key(|mark| mark.next()).copied()
    }

    /// Takes note of what was read in a log that is kept from `oldest` on.
    pub(super) fn note(&mut self, followed: Followed, oldest: Lsn) {
        let Followed { end, passed } = followed;
        self.recent.retain(|mark| mark.next() >= oldest && *mark != end);
        self.recent.push_back(end);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        self.passed.extend(passed.into_iter().map(|mark| (mark.next(), mark)));
        self.passed = self.passed.split_off(&oldest);
        while self.passed.len() > PASSED_MAX {
            self.passed.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, Simulated};
    use crate::wal::{Options, Stepped, follow, replay};

    const STORE: [u8; 16] = *b"the only store..";

    /// A log of so many records of a few bytes.
    fn log_of(records: u64) -> (Simulated, Stepped<()>) {
        let disk = Simulated::new(1);
        for dir in ["wal", "tmp", "quarantine"] {
            disk.create_dir_all(Path::new(dir)).unwrap();
        }
        let options = Options { free_bytes_min: 0, first_segment_bytes: 1 << 20, ..Options::default() };
        let (shared, sink) = (Arc::new(disk.clone()), Box::new(|_| ()));
        let (wal, tmp, quarantine) = (Path::new("wal"), Path::new("tmp"), Path::new("quarantine"));
        let recovered = replay(&disk, wal, quarantine, STORE, Lsn(0), &mut |_| Ok(())).unwrap();
        let mut log = Stepped::start(shared, wal, tmp, STORE, &recovered, options, sink).unwrap();
        for lsn in 1..=records {
            log.append(1, lsn.to_le_bytes().to_vec(), ()).unwrap();
            log.commit().unwrap();
        }
        (disk, log)
    }

    /// Reads one record, and notes where that ended.
    fn read(disk: &Simulated, log: &Stepped<()>, cursors: &mut Cursors, lsn: u64) {
        let (mark, range) = (cursors.nearest(Lsn(lsn)), Lsn(lsn)..=Lsn(lsn));
        let followed = follow(disk, &log.segments(), STORE, mark, range, &mut |_| true).unwrap();
        assert_eq!(followed.end.next(), Lsn(lsn + 1));
        cursors.note(followed, Lsn(1));
    }

    #[test]
    fn the_nearest_place_before_a_record_is_found_and_the_oldest_are_forgotten() {
        let (disk, log) = log_of(100);
        let mut cursors = Cursors::default();
        assert_eq!(cursors.nearest(Lsn(1)), None);
        for lsn in 1..=100 {
            read(&disk, &log, &mut cursors, lsn);
            read(&disk, &log, &mut cursors, lsn);
        }
        assert_eq!(cursors.recent.len(), RECENT_MAX, "each place once, and no more than that");
        let oldest = 101 - RECENT_MAX as u64 + 1;
        for (asked, expected) in
            [(oldest, Some(oldest)), (80, Some(80)), (101, Some(101)), (500, Some(101)), (2, None)]
        {
            assert_eq!(cursors.nearest(Lsn(asked)).map(|mark| mark.next().0), expected, "{asked}");
        }
        // What is not kept any more is of no use.
        let followed =
            follow(&disk, &log.segments(), STORE, None, Lsn(100)..=Lsn(100), &mut |_| true).unwrap();
        cursors.note(followed, Lsn(90));
        assert_eq!(cursors.recent.iter().map(|mark| mark.next().0).min(), Some(90));
    }
}
