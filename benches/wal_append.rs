//! Appends per second, from the hand-over to the ticket out of the sink, on the real disk.
//!
//! An id names its parameters. `batch` is how many appends are handed over before any ticket is awaited: the records of
//! one group commit, when the disk is slower than the hand-over. Run with `TMPDIR` on the disk in question.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use chinwag::disk::{Disk, Real};
use chinwag::wal::{Lsn, Options, Reason, Sink, SyncMode, Wal, replay};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};

const STORE: [u8; 16] = *b"a bench's store.";

struct Log {
    wal: Wal<()>,
    out: Receiver<usize>,
}

impl Log {
    fn start(dir: &Path, sync: SyncMode) -> Self {
        let [wal, tmp, quarantine] = ["wal", "tmp", "quarantine"].map(|name| dir.join(name));
        for dir in [&wal, &tmp, &quarantine] {
            Real.create_dir_all(dir).expect("the directory can be made");
        }
        let recovered =
            replay(&Real, &wal, &quarantine, STORE, Lsn(0), &mut |_| Ok(())).expect("an empty log");
        let (into, out) = channel();
        let sink: Sink<()> = Box::new(move |batch| {
            let _ = into.send(batch.tickets.len());
        });
        let options = Options { sync, first_segment_bytes: 64 << 20, ..Options::default() };
        let failed = Box::new(|error| panic!("the log failed: {error}"));
        let wal = Wal::start(Arc::new(Real), &wal, &tmp, STORE, &recovered, options, sink, failed);
        Self { wal: wal.expect("a log"), out }
    }

    fn append(&self, payload: &[u8], batch: usize) {
        for _ in 0..batch {
            // The spare thread may be a moment behind; a server answers 503 then.
            while let Err(refused) = self.wal.append(1, payload.to_vec(), ()) {
                assert_eq!(refused.reason, Reason::QueueFull);
                std::thread::yield_now();
            }
        }
        let mut out = 0;
        while out < batch {
            out += self.out.recv().expect("the log runs");
        }
    }
}

fn cases(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, sync: SyncMode) {
    for (size, batch) in [(256, 1), (256, 64), (256, 1024), (4096, 64)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Log::start(dir.path(), sync);
        let payload = vec![7; size];
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("sync={name}/size={size}/batch={batch}"), |bencher| {
            bencher.iter(|| {
                log.append(&payload, batch);
                log.wal.remove_below(log.wal.durable_lsn()).expect("old segments can go");
            });
        });
    }
}

fn wal_append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal_append");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    cases(&mut group, "always", SyncMode::Always);
    cases(&mut group, "interval", SyncMode::Interval(Duration::from_millis(50)));
    cases(&mut group, "never", SyncMode::Never);
    group.finish();
}

/// Recovery: reads a log of about 48 MiB that is in the cache.
fn wal_replay(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::start(dir.path(), SyncMode::Never);
    for _ in 0..160 {
        log.append(&[7; 256], 1024);
    }
    log.wal.close().expect("the log runs");
    let mut group = criterion.benchmark_group("wal_replay");
    group.throughput(Throughput::Elements(160 * 1024));
    group.sample_size(20).bench_function("size=256/records=163840", |bencher| {
        bencher.iter(|| {
            let [wal, quarantine] = ["wal", "quarantine"].map(|name| dir.path().join(name));
            let mut bytes = 0;
            let recovered = replay(&Real, &wal, &quarantine, STORE, Lsn(0), &mut |record| {
                bytes += record.payload.len();
                Ok(())
            });
            assert_eq!((recovered.expect("a whole log").records, bytes), (163_840, 163_840 * 256));
        });
    });
    group.finish();
}

// The macros make functions without documentation.
#[allow(missing_docs)]
mod groups {
    use super::*;
    criterion_group!(benches, wal_append, wal_replay);
}
criterion_main!(groups::benches);
