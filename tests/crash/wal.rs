//! One seed: several lives of a log, each with its own mode, faults and end.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chinwag::disk::{Disk, Operation, Simulated};
use chinwag::wal::{Error, Lsn, Options, Reason, Recovered, Sink, Stepped, SyncMode, replay};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{End, Model};

const STORE: [u8; 16] = *b"a simulated one.";
const DIRS: [&str; 3] = ["wal", "tmp", "quarantine"];

/// What a control breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    NoSyncs,
    TrustCache,
}

/// How often the cases came up that the test is for.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    torn_tails: u64,
    failed_commits: u64,
    failed_recoveries: u64,
    refused_for_space: u64,
    removals: u64,
    lost_suffixes: u64,
    clean_closes: u64,
    forced_rotations: u64,
}

impl Seen {
    fn counts(&self) -> [u64; 8] {
        [
            self.torn_tails,
            self.failed_commits,
            self.failed_recoveries,
            self.refused_for_space,
            self.removals,
            self.lost_suffixes,
            self.clean_closes,
            self.forced_rotations,
        ]
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.counts().iter().all(|count| *count > 0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.torn_tails += other.torn_tails;
        self.failed_commits += other.failed_commits;
        self.failed_recoveries += other.failed_recoveries;
        self.refused_for_space += other.refused_for_space;
        self.removals += other.removals;
        self.lost_suffixes += other.lost_suffixes;
        self.clean_closes += other.clean_closes;
        self.forced_rotations += other.forced_rotations;
    }
}

struct Round {
    random: StdRng,
    disk: Simulated,
    model: Model,
    seen: Seen,
    sabotage: Sabotage,
    end: End,
    /// Whether a sync failed in the last life: then even a killed process may lose what was out.
    sync_failed: bool,
}

/// What came out of the sink in one life.
type Out = Arc<Mutex<Vec<Lsn>>>;

pub(crate) fn round(seed: u64, sabotage: Sabotage) -> Result<Seen, String> {
    let disk = Simulated::new(seed);
    for dir in DIRS {
        disk.create_dir_all(Path::new(dir)).expect("a new disk");
    }
    let mut round = Round {
        random: StdRng::seed_from_u64(seed),
        disk,
        model: Model::default(),
        seen: Seen::default(),
        sabotage,
        end: End::Killed,
        sync_failed: false,
    };
    let lives = round.random.random_range(1..=5);
    for _ in 0..lives {
        round.life()?;
    }
    round.recover()?;
    Ok(round.seen)
}

impl Round {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn life(&mut self) -> Result<(), String> {
        let recovered = self.recover()?;
        let options = self.options();
        let out = Out::default();
        let Some(mut log) = self.start(&recovered, &options, &out)? else {
            return self.cut();
        };
        self.arm_fault();
        let steps = self.random.random_range(0..60);
        let mut alive = true;
        for _ in 0..steps {
            alive = self.step(&mut log, &options, &out)?;
            if !alive {
                break;
            }
        }
        if alive && self.chance(25) {
            self.close(log)?;
        }
        self.cut()
    }

    /// Ends the life, by a power cut or by killing the process.
    fn cut(&mut self) -> Result<(), String> {
        self.end = if self.chance(60) { End::PowerCut } else { End::Killed };
        self.disk = if self.end == End::PowerCut { self.disk.crash() } else { self.disk.kill() };
        match self.sabotage {
            Sabotage::None => {}
            Sabotage::NoSyncs => self.disk.lie_about_syncs(),
            Sabotage::TrustCache => self.disk.keep_caches(),
        }
        Ok(())
    }

    /// Reads the log, possibly with a failing disk and several tries, and compares it with the model.
    fn recover(&mut self) -> Result<Recovered, String> {
        loop {
            let faulty = self.chance(15);
            if faulty {
                self.arm_any_fault(20);
            }
            let mut read = Vec::new();
            let covered = Lsn(self.model.covered);
            let [wal, _, quarantine] = DIRS.map(Path::new);
            let result = replay(&self.disk, wal, quarantine, STORE, covered, &mut |record| {
                read.push((record.lsn.0, record.kind, record.payload.to_vec()));
                Ok(())
            });
            self.disk.heal();
            let recovered = match result {
                Ok(recovered) => recovered,
                Err(Error::Io { .. }) if faulty => {
                    self.seen.failed_recoveries += 1;
                    self.cut_again()?;
                    continue;
                }
                Err(error) => return Err(format!("the log was refused: {error}")),
            };
            self.seen.torn_tails += u64::from(recovered.torn_tail.is_some());
            self.seen.lost_suffixes += u64::from(recovered.last_lsn.0 < self.model.appended.len() as u64);
            self.model.check(&read, recovered.last_lsn.0, self.end, self.sync_failed)?;
            self.sync_failed = false;
            self.empty_tmp();
            if self.chance(10) {
                self.cut()?;
                continue;
            }
            return Ok(recovered);
        }
    }

    /// A recovery failed: the next one finds the same disk, or one that lost its power meanwhile.
    fn cut_again(&mut self) -> Result<(), String> {
        // What a killed process had written is only as safe as the recovery that then failed made it.
        self.sync_failed = true;
        if self.chance(50) { self.cut() } else { Ok(()) }
    }

    fn empty_tmp(&mut self) {
        let tmp = Path::new("tmp");
        for name in self.disk.list(tmp).expect("tmp is there") {
            self.disk.remove(&tmp.join(name)).expect("it was just listed");
        }
    }

    fn options(&mut self) -> Options {
        let sync = match self.random.random_range(0..4) {
            0 => SyncMode::Interval(Duration::from_millis(50)),
            1 => SyncMode::Never,
            _ => SyncMode::Always,
        };
        Options {
            sync,
            segment_bytes: self.random.random_range(2..=6) << 12,
            first_segment_bytes: self.random.random_range(2..=4) << 12,
            spare_segments: self.random.random_range(1..=2),
            free_bytes_min: self.random.random_range(0..2000),
            batch_records_max: self.random.random_range(1..=20),
            batch_bytes_max: self.random.random_range(64..=8192),
            queue_records_max: 40,
            queue_bytes_max: 20_000,
            ..Options::default()
        }
    }

    fn start(
        &mut self,
        recovered: &Recovered,
        options: &Options,
        out: &Out,
    ) -> Result<Option<Stepped<u64>>, String> {
        let faulty = self.chance(10);
        if faulty {
            self.arm_any_fault(12);
        }
        let into = out.clone();
        let sink: Sink<u64> = Box::new(move |batch| {
            into.lock().expect("no panics").extend(batch.tickets.iter().map(|(lsn, _)| *lsn));
        });
        let disk = Arc::new(self.disk.clone());
        let [wal, tmp, _] = DIRS.map(Path::new);
        let started = Stepped::start(disk, wal, tmp, STORE, recovered, options.clone(), sink);
        self.disk.heal();
        match started {
            Ok(log) => Ok(Some(log)),
            Err(Error::Io { .. }) if faulty => Ok(None),
            Err(error) => Err(format!("no start: {error}")),
        }
    }

    fn arm_fault(&mut self) {
        match self.random.random_range(0..10) {
            0..4 => self.arm_any_fault(8),
            4..6 => {
                let more = self.random.random_range(0..40_000);
                self.disk.set_capacity(self.disk.used_bytes() + more);
            }
            _ => {}
        }
    }

    fn arm_any_fault(&mut self, nth_max: u64) {
        let operations =
            [Operation::Read, Operation::Write, Operation::Sync, Operation::Sync, Operation::Name];
        let operation = operations[self.random.random_range(0..operations.len())];
        self.disk.fail(operation, self.random.random_range(1..=nth_max), ErrorKind::Other);
    }

    /// One thing happens; false when it ended the life.
    fn step(&mut self, log: &mut Stepped<u64>, options: &Options, out: &Out) -> Result<bool, String> {
        let before = log.durable_lsn();
        let done = match self.random.random_range(0..100) {
            0..45 => {
                self.append(log, options)?;
                Ok(())
            }
            45..49 => {
                let _ = log.barrier(0);
                Ok(())
            }
            49..50 => {
                self.seen.forced_rotations += u64::from(log.begin_segment().is_ok());
                Ok(())
            }
            50..75 => log.commit(),
            75..80 => log.sync(),
            80..84 => log.seal(),
            84..96 => {
                // A spare that cannot be made is no failure of the log.
                let _ = log.refill();
                Ok(())
            }
            96..98 => {
                self.disk.set_capacity(usize::MAX);
                Ok(())
            }
            _ => self.remove_old(log),
        };
        self.take_out(log, options, out, before)?;
        match done {
            Ok(()) => Ok(true),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::Other => {
                self.seen.failed_commits += 1;
                self.sync_failed = true;
                let retried = [log.commit(), log.sync(), log.seal()];
                if retried.iter().any(|again| !matches!(again, Err(Error::Failed))) {
                    return Err("a failed log went on".into());
                }
                if !out.lock().expect("no panics").is_empty() {
                    return Err("something came out of a failed log".into());
                }
                Ok(false)
            }
            Err(error) => Err(format!("a commit failed on a disk that works: {error}")),
        }
    }

    fn append(&mut self, log: &Stepped<u64>, options: &Options) -> Result<(), String> {
        for _ in 0..self.random.random_range(1..6) {
            let bytes = match self.random.random_range(0..20) {
                0 => self.random.random_range(0..3500),
                1..4 => 0,
                _ => self.random.random_range(1..200),
            };
            let kind = self.random.random_range(1..=5);
            let salt: [u8; 8] = self.random.random();
            let payload: Vec<u8> = salt.into_iter().cycle().take(bytes).collect();
            let next = self.model.appended.len() as u64 + 1;
            match log.append(kind, payload.clone(), next) {
                Ok(lsn) if lsn.0 == next => self.model.appended.push((kind, payload)),
                Ok(lsn) => return Err(format!("record {next} was numbered {lsn}")),
                Err(refused) => match refused.reason {
                    Reason::NoSpace => self.seen.refused_for_space += 1,
                    Reason::QueueFull => {}
                    Reason::TooLarge if bytes as u64 + 4096 + 64 + 8 > options.segment_bytes => {}
                    reason => return Err(format!("refused: {reason}")),
                },
            }
        }
        Ok(())
    }

    /// What came out must be what was appended, in order; under `Always` it is safe.
    fn take_out(
        &mut self,
        log: &Stepped<u64>,
        options: &Options,
        out: &Out,
        before: Lsn,
    ) -> Result<(), String> {
        let mut out = out.lock().expect("no panics");
        let newest = out.last().copied().unwrap_or(before);
        if !out.is_sorted()
            || newest > log.durable_lsn()
            || log.durable_lsn().0 > self.model.appended.len() as u64
        {
            return Err(format!("out of order: {out:?}, durable {}", log.durable_lsn()));
        }
        self.model.out = self.model.out.max(newest.0);
        if options.sync == SyncMode::Always {
            self.model.on_disk = self.model.on_disk.max(newest.0);
        }
        out.clear();
        Ok(())
    }

    /// What a snapshot does: once the log is on the disk, it covers a part of it, which may go.
    fn remove_old(&mut self, log: &mut Stepped<u64>) -> Result<(), Error> {
        log.sync()?;
        self.model.on_disk = self.model.on_disk.max(log.durable_lsn().0);
        let from = self.model.covered;
        self.model.covered = self.random.random_range(from..=self.model.on_disk.max(from));
        match log.remove_below(Lsn(self.model.covered + 1)) {
            Ok(removed) => {
                self.seen.removals += removed as u64;
                Ok(())
            }
            // The log itself goes on; the next removal tries again.
            Err(Error::Io { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn close(&mut self, log: Stepped<u64>) -> Result<(), String> {
        match log.close() {
            Ok(last) if last.0 == self.model.appended.len() as u64 => {
                (self.model.out, self.model.on_disk) = (last.0, last.0);
                self.seen.clean_closes += 1;
                Ok(())
            }
            Ok(last) => Err(format!("closed at {last} of {}", self.model.appended.len())),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::Other => {
                self.sync_failed = true;
                Ok(())
            }
            Err(error) => Err(format!("no close: {error}")),
        }
    }
}
