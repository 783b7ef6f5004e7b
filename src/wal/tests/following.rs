//! Following a log that goes on being written: every record once, in order, from wherever one left off.

use proptest::prelude::*;

use super::*;
use crate::wal::{Followed, Mark, SegmentFile, follow};

/// Reads at most `count` records from `from` up to `through`.
fn page(
    disk: &Simulated,
    segments: &[SegmentFile],
    mark: Option<Mark>,
    (from, through): (u64, u64),
    count: usize,
) -> Result<(Followed, Read), Error> {
    let mut read = Read::new();
    let followed = follow(disk, segments, STORE, mark, Lsn(from)..=Lsn(through), &mut |record| {
        let is_taken = read.len() < count;
        if is_taken {
            read.push((record.lsn.0, record.kind, record.payload.to_vec()));
        }
        is_taken
    })?;
    Ok((followed, read))
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Commit,
    NewSegment,
    Seal,
    /// The process ends, cleanly or not, and another begins.
    Restart {
        cleanly: bool,
    },
    RemoveHalf,
    /// Reads on, so many records at most; from the end of the last page or from a record of its own.
    Read {
        count: usize,
        from: Option<u64>,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_000_usize).prop_map(Step::Append),
        4 => Just(Step::Commit),
        1 => Just(Step::NewSegment),
        1 => Just(Step::Seal),
        1 => any::<bool>().prop_map(|cleanly| Step::Restart { cleanly }),
        1 => Just(Step::RemoveHalf),
        6 => (1..20_usize, proptest::option::of(1..60_u64)).prop_map(|(count, from)| Step::Read { count, from }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The log, and what must be in it.
struct Model {
    disk: Simulated,
    log: Option<Stepped<u32>>,
    all: Read,
    oldest: u64,
    marks: Vec<Mark>,
    next: u64,
}

impl Model {
    fn new() -> Self {
        let disk = disk();
        let log = Some(start(&disk, small()).0);
        Self { disk, log, all: Read::new(), oldest: 1, marks: Vec::new(), next: 1 }
    }

    fn log(&mut self) -> &mut Stepped<u32> {
        self.log.as_mut().unwrap()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(bytes) => self.append(bytes),
            Step::Commit => self.log().commit().unwrap(),
            Step::NewSegment => {
                self.log().refill().unwrap();
                self.log().begin_segment().unwrap();
            }
            Step::Seal => self.log().seal().unwrap(),
            Step::Restart { cleanly } => self.restart(cleanly),
            Step::RemoveHalf => {
                let below = (self.oldest + self.log().durable_lsn().0) / 2;
                self.log().remove_below(Lsn(below)).unwrap();
                self.oldest = self.log().segments()[0].first_lsn.0;
            }
            Step::Read { count, from } => self.read(count, from),
        }
    }

    fn append(&mut self, bytes: usize) {
        self.log().refill().unwrap();
        let lsn = self.all.len() as u64 + 1;
        let payload = vec![lsn as u8; bytes];
        // What is not durable must not be read, so it is no matter whether it was accepted.
        if self.log().append((lsn % 200) as u8 + 1, payload.clone(), 0).is_ok() {
            self.all.push((lsn, (lsn % 200) as u8 + 1, payload));
        }
    }

    fn restart(&mut self, cleanly: bool) {
        let log = self.log.take().unwrap();
        match cleanly {
            true => drop(log.close().unwrap()),
            false => self.all.truncate(log.durable_lsn().0 as usize),
        }
        self.disk = self.disk.crash();
        let (recovered, _) = read_after(&self.disk, self.oldest - 1).unwrap();
        let sink: Sink<u32> = Box::new(|_| ());
        let disk = Arc::new(self.disk.clone());
        let log = Stepped::start(disk, wal_dir(), tmp_dir(), STORE, &recovered, small(), sink);
        self.log = Some(log.unwrap());
        self.oldest = self.log().segments()[0].first_lsn.0;
    }

    fn read(&mut self, count: usize, from: Option<u64>) {
        let durable = self.log().durable_lsn().0;
        let from = from.unwrap_or(self.next).max(self.oldest);
        if from > durable {
            return;
        }
        let segments = self.log().segments();
        let nearest =
            self.marks.iter().filter(|mark| mark.next() <= Lsn(from)).max_by_key(|mark| mark.next());
        let nearest = nearest.copied();
        let (followed, read) = page(&self.disk, &segments, nearest, (from, durable), count).unwrap();
        let expected = &self.all[from as usize - 1..durable as usize];
        assert_eq!(read, expected[..count.min(expected.len())], "from {from} up to {durable}");
        self.next = followed.end.next().0;
        assert_eq!(self.next, from + read.len() as u64);
        self.marks.push(followed.end);
        self.marks.extend(followed.passed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn whoever_reads_on_gets_every_durable_record_once_and_in_order(steps in steps()) {
        let mut model = Model::new();
        steps.into_iter().for_each(|step| model.step(step));
        model.step(Step::Commit);
        let mut read = 0;
        while model.next <= model.log().durable_lsn().0 {
            model.step(Step::Read { count: 7, from: None });
            read += 1;
            prop_assert!(read <= 1_000, "it does not come to an end");
        }
    }
}

/// One segment of `records` records of 100 bytes, each durable.
fn log_of(records: u64, options: Options) -> (Simulated, Stepped<u32>) {
    let disk = disk();
    let (mut log, _) = start(&disk, options);
    for lsn in 1..=records {
        log.append(1, vec![lsn as u8; 100], 0).unwrap();
        if lsn % 1_000 == 0 || lsn == records {
            log.commit().unwrap();
        }
    }
    (disk, log)
}

#[test]
fn what_is_damaged_is_told_with_its_place_and_what_is_before_and_behind_is_read() {
    let (disk, mut log) = log_of(20, small());
    log.refill().unwrap();
    log.begin_segment().unwrap();
    log.append(1, b"behind".to_vec(), 0).unwrap();
    log.commit().unwrap();
    let frame = frame::frame_bytes(100);
    let tenth = 4096 + 9 * frame;
    disk.flip(&segment_path(1), tenth as usize + 40, 1);
    let segments = log.segments();
    for count in [9, 50] {
        let (before, read) = page(&disk, &segments, None, (1, 21), count).unwrap();
        assert_eq!(
            (read.len(), before.end.next()),
            (9, Lsn(10)),
            "what is before it is no reason to see nothing"
        );
    }
    let (before, _) = page(&disk, &segments, None, (1, 21), 50).unwrap();
    for (mark, from) in [(None, 10), (Some(before.end), 10), (Some(before.end), 15)] {
        let Err(Error::Corrupt { segment, offset, lsn, .. }) = page(&disk, &segments, mark, (from, 21), 50)
        else {
            panic!("the damage was passed over")
        };
        assert_eq!((segment, offset, lsn), (segment_path(1), tenth, Lsn(10)));
    }
    let (_, behind) = page(&disk, &segments, None, (21, 21), 50).unwrap();
    assert_eq!(behind, [(21, 1, b"behind".to_vec())]);
}

#[test]
fn a_segment_that_is_missing_is_told() {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    for _ in 0..3 {
        log.append(1, b"one".to_vec(), 0).unwrap();
        log.commit().unwrap();
        log.refill().unwrap();
        log.begin_segment().unwrap();
    }
    log.commit().unwrap();
    disk.remove(&segment_path(2)).unwrap();
    let (before, read) = page(&disk, &log.segments(), None, (1, 3), 50).unwrap();
    assert_eq!((read.len(), before.end.next()), (1, Lsn(2)));
    let Err(Error::Io { path, source, .. }) = page(&disk, &log.segments(), Some(before.end), (2, 3), 50)
    else {
        panic!("the hole was passed over")
    };
    assert_eq!((path, source.kind()), (segment_path(2), std::io::ErrorKind::NotFound));
    let gone = page(&disk, &log.segments()[2..], None, (1, 3), 50);
    assert!(matches!(gone, Err(Error::Missing { from: Lsn(1), to: Lsn(2) })), "{gone:?}");
}

#[test]
fn marks_are_left_on_the_way_and_reading_from_one_reads_little() {
    let sizes = Options { segment_bytes: 8 << 20, first_segment_bytes: 8 << 20, ..small() };
    let (disk, log) = log_of(40_000, sizes);
    let (followed, _) = page(&disk, &log.segments(), None, (39_999, 40_000), 50).unwrap();
    assert_eq!(followed.passed.len(), 5, "five whole megabytes");
    let last = *followed.passed.last().unwrap();
    let before = disk.count(crate::disk::Operation::Read);
    let (_, read) = page(&disk, &log.segments(), Some(last), (39_999, 40_000), 50).unwrap();
    let reads = disk.count(crate::disk::Operation::Read) - before;
    assert_eq!(read.iter().map(|(lsn, ..)| *lsn).collect::<Vec<_>>(), [39_999, 40_000]);
    assert!(reads <= 18, "{reads} reads of 64 KiB for less than a megabyte");
    let before = disk.count(crate::disk::Operation::Read);
    page(&disk, &log.segments(), Some(followed.end), (40_000, 40_000), 50).unwrap();
    let from_its_own = disk.count(crate::disk::Operation::Read) - before;
    assert!(from_its_own > reads, "a mark behind what is wanted is of no use");
}
