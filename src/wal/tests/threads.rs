//! The log with its threads. Nothing here sleeps: the simulated disk holds syncs back where order matters.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::disk::Operation;

pub(super) struct Running {
    log: Arc<Wal<u64>>,
    batches: Receiver<Vec<(u64, u64)>>,
    failures: Receiver<Error>,
}

/// Far more than anything here takes on the busiest machine; a test that gets here hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(disk: &Simulated, options: Options) -> Running {
    let (recovered, _) = read(disk).unwrap();
    let (into, batches) = channel();
    let sink: Sink<u64> = Box::new(move |batch| {
        let _ = into.send(batch.tickets.into_iter().map(|(lsn, ticket)| (lsn.0, ticket)).collect());
    });
    let (failed, failures) = channel();
    let on_failure = Box::new(move |error| failed.send(error).unwrap());
    let disk = Arc::new(disk.clone());
    let log = Wal::start(disk, wal_dir(), tmp_dir(), STORE, &recovered, options, sink, on_failure).unwrap();
    Running { log: Arc::new(log), batches, failures }
}

impl Running {
    pub(super) fn next(&self) -> Vec<(u64, u64)> {
        self.batches.recv_timeout(PATIENCE).unwrap()
    }

    /// Appends, waiting for room as a patient caller would.
    pub(super) fn append(&self, payload: Vec<u8>, ticket: u64) -> Lsn {
        loop {
            match self.log.append(1, payload.clone(), ticket) {
                Ok(lsn) => return lsn,
                Err(refused) => assert_eq!(refused.reason, Reason::QueueFull),
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn tickets_come_out_in_the_order_of_their_positions() {
    let disk = disk();
    let running = run(&disk, small());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let running = &running.log;
            scope.spawn(move || {
                let mut sent = 0_u64;
                while sent < 500 {
                    let ticket = thread * 1000 + sent;
                    match running.append(1, ticket.to_le_bytes().to_vec(), ticket) {
                        Ok(_) => sent += 1,
                        Err(refused) => assert_eq!(refused.reason, Reason::QueueFull),
                    }
                }
            });
        }
    });
    assert_eq!(running.log.close().unwrap(), Lsn(2000));
    let out: Vec<_> = running.batches.iter().take_while(|batch| !batch.is_empty()).flatten().collect();
    assert_eq!(out.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), (1..=2000).collect::<Vec<_>>());
    let (recovered, records) = read(&disk.crash()).unwrap();
    assert!(recovered.closed_cleanly && recovered.segments.len() > 1);
    for ((lsn, ticket), record) in out.iter().zip(records) {
        assert_eq!(record, (*lsn, 1, ticket.to_le_bytes().to_vec()));
    }
}

#[test]
fn one_callers_tickets_keep_their_order() {
    let running = run(&disk(), small());
    for ticket in 0..300 {
        running.append(vec![0; 100], ticket);
    }
    running.log.close().unwrap();
    let tickets: Vec<_> = running.batches.iter().flatten().map(|(_, ticket)| ticket).collect();
    assert_eq!(tickets, (0..300).collect::<Vec<_>>());
}

#[test]
fn what_gathers_during_a_sync_is_the_next_batch() {
    let disk = disk();
    let running = run(&disk, Options { sync: SyncMode::Always, ..small() });
    disk.pause_syncs();
    running.append(vec![1], 1);
    // The first batch holds at its sync, wherever the committer is by now; the others may join it or not.
    for ticket in 2..=50 {
        running.append(vec![1], ticket);
    }
    assert_eq!(running.log.durable_lsn(), Lsn(0));
    assert!(running.batches.try_recv().is_err());
    disk.resume_syncs();
    let mut out = 0;
    let mut batches = 0;
    while out < 50 {
        out += running.next().len();
        batches += 1;
    }
    assert!(batches <= 3, "{batches}");
    assert_eq!(running.log.durable_lsn(), Lsn(50));
}

#[test]
fn a_slow_disk_fills_the_queue_and_refuses() {
    let disk = disk();
    let running = run(&disk, Options { queue_records_max: 10, ..small() });
    disk.pause_syncs();
    for ticket in 0..10 {
        running.log.append(1, vec![1], ticket).unwrap();
    }
    assert_eq!(
        running.log.append(1, vec![1], 77).unwrap_err(),
        Refused { reason: Reason::QueueFull, ticket: 77 }
    );
    assert_eq!(running.log.barrier(78).unwrap_err(), Refused { reason: Reason::QueueFull, ticket: 78 });
    disk.resume_syncs();
    running.append(vec![1], 10);
}

#[test]
fn a_barrier_waits_for_what_is_before_it() {
    let disk = disk();
    let running = run(&disk, small());
    running.append(vec![1], 1);
    running.log.barrier(2).unwrap();
    let mut out = Vec::new();
    while out.len() < 2 {
        out.extend(running.next());
    }
    assert_eq!(out, [(1, 1), (1, 2)]);
}

#[test]
fn a_failed_sync_drops_the_tickets_and_is_told_once() {
    let disk = disk();
    let running = run(&disk, small());
    disk.pause_syncs();
    running.append(vec![1], 1);
    running.append(vec![1], 2);
    disk.fail_always(Operation::Sync, ErrorKind::Other);
    disk.resume_syncs();
    let error = running.failures.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(error, Error::Io { action: "sync", .. }), "{error}");
    assert_eq!(running.log.state(), State::Failed);
    assert_eq!(running.log.append(1, vec![1], 3).unwrap_err().reason, Reason::Failed);
    assert_eq!(running.log.durable_lsn(), Lsn(0));
    assert!(matches!(running.log.wait_for_disk(), Err(Error::Failed)));
    assert!(matches!(running.log.close(), Err(Error::Failed)));
    assert!(running.batches.recv().is_err(), "a ticket came out of a failed log");
    assert!(running.failures.recv().is_err(), "the failure was told twice");
}

#[test]
fn a_panicking_sink_fails_the_log() {
    let disk = disk();
    let (recovered, _) = read(&disk).unwrap();
    let (failed, failures) = channel();
    let sink: Sink<u64> = Box::new(|_| panic!("a bug of the caller"));
    let on_failure = Box::new(move |error| failed.send(error).unwrap());
    let disk = Arc::new(disk);
    let log = Wal::start(disk, wal_dir(), tmp_dir(), STORE, &recovered, small(), sink, on_failure).unwrap();
    log.append(1, vec![], 1).unwrap();
    assert!(matches!(failures.recv_timeout(PATIENCE).unwrap(), Error::Panicked));
    assert_eq!(log.state(), State::Failed);
}

#[test]
fn a_full_disk_makes_it_read_only_until_there_is_room_again() {
    let disk = disk();
    let options = Options { spare_retry_after: Duration::from_millis(1), ..small() };
    let running = run(&disk, options);
    disk.set_capacity(0);
    let refused = loop {
        if let Err(refused) = running.log.append(1, vec![0; 1000], 1)
            && refused.reason != Reason::QueueFull
        {
            break refused.reason;
        }
    };
    assert_eq!((refused, running.log.state()), (Reason::NoSpace, State::ReadOnly));
    disk.set_capacity(usize::MAX);
    while running.log.state() != State::Writable {
        std::thread::yield_now();
    }
    running.append(vec![0; 1000], 2);
    let accepted = running.log.close().unwrap();
    assert_eq!(read(&disk.crash()).unwrap().0.last_lsn, accepted);
}

#[test]
fn close_makes_everything_durable_under_every_mode() {
    for sync in [SyncMode::Always, SyncMode::Interval(PATIENCE), SyncMode::Never] {
        let disk = disk();
        let running = run(&disk, Options { sync, ..small() });
        for ticket in 0..20 {
            running.append(vec![0; 50], ticket);
        }
        assert_eq!(running.log.close().unwrap(), Lsn(20), "{sync:?}");
        assert_eq!(running.log.append(1, vec![], 0).unwrap_err().reason, Reason::Closed);
        assert!(matches!(running.log.close(), Err(Error::Closed)));
        let (recovered, records) = read(&disk.crash()).unwrap();
        assert!(recovered.closed_cleanly && records.len() == 20, "{sync:?}");
    }
}

#[test]
fn one_can_wait_for_the_disk_under_every_mode() {
    for sync in [SyncMode::Always, SyncMode::Interval(PATIENCE), SyncMode::Never] {
        let disk = disk();
        let running = run(&disk, Options { sync, ..small() });
        assert_eq!(running.log.wait_for_disk().unwrap(), Lsn(0));
        for ticket in 0..20 {
            running.append(vec![0; 50], ticket);
        }
        assert_eq!(running.log.wait_for_disk().unwrap(), Lsn(20), "{sync:?}");
        assert_eq!(read(&disk.crash()).unwrap().1.len(), 20, "{sync:?}");
    }
}

#[test]
fn under_interval_a_sync_follows_by_itself() {
    let disk = disk();
    let running = run(&disk, Options { sync: SyncMode::Interval(Duration::from_millis(1)), ..small() });
    let before = disk.count(Operation::Sync);
    running.append(vec![0; 50], 1);
    assert_eq!(running.next(), [(1, 1)]);
    while disk.count(Operation::Sync) == before {
        std::thread::yield_now();
    }
}

#[test]
fn an_idle_log_seals_once_and_then_rests() {
    let disk = disk();
    let running = run(&disk, Options { seal_after: Duration::from_millis(1), ..small() });
    running.append(vec![0; 8], 1);
    running.next();
    let sealed = |bytes: Vec<u8>| bytes[4096 + 40..4096 + 44] == frame::MAGIC;
    while !sealed(disk.bytes(&segment_path(1)).unwrap()) {
        std::thread::yield_now();
    }
    running.log.close().unwrap();
    let bytes = disk.bytes(&segment_path(1)).unwrap();
    assert_eq!(bytes.len(), 4096 + 40 + 32 + 32, "one seal, one close");
}

#[test]
fn a_log_that_is_dropped_ends_like_a_crash() {
    let disk = disk();
    let running = run(&disk, small());
    running.append(vec![0; 50], 1);
    running.next();
    drop(running);
    let (recovered, records) = read(&disk).unwrap();
    assert!(!recovered.closed_cleanly && records.len() == 1);
}

#[test]
fn removing_old_segments_goes_on_beside_the_writing() {
    let disk = disk();
    let running = run(&disk, small());
    for ticket in 0..100 {
        running.append(vec![0; 1000], ticket);
        if ticket % 10 == 9 {
            running.log.wait_for_disk().unwrap();
            running.log.remove_below(running.log.durable_lsn()).unwrap();
        }
    }
    assert!(running.log.segments().len() <= 2);
    let appended = running.log.appended_bytes();
    assert_eq!((appended, running.log.appended_lsn()), (100 * 1032, Lsn(100)));
    running.log.close().unwrap();
    assert_eq!(read_after(&disk.crash(), 99).unwrap().1.len(), 1);
}

#[test]
fn whoever_wants_a_new_segment_gets_it_behind_what_was_appended_before() {
    let disk = disk();
    let running = run(&disk, small());
    for ticket in 1..=5 {
        running.append(vec![1], ticket);
        let begins = running.log.begin_segment().unwrap();
        assert_eq!(begins, Lsn(ticket + 1));
        assert_eq!(running.log.durable_lsn(), Lsn(ticket));
        assert_eq!(running.log.begin_segment(), Ok(begins), "it is empty still");
        assert_eq!(running.log.remove_below(begins).unwrap(), 1);
        assert_eq!(running.log.segments().len(), 1);
    }
    running.append(vec![1], 6);
    running.log.close().unwrap();
    assert_eq!(running.log.begin_segment(), Err(Reason::Closed));
}

#[test]
fn whoever_waits_for_a_segment_hears_that_the_disk_is_full_and_that_the_log_failed() {
    let disk = disk();
    let running = run(&disk, Options { spare_retry_after: Duration::from_millis(1), ..small() });
    disk.set_capacity(disk.used_bytes());
    running.append(vec![1], 1);
    // At most the spare that was made before the disk was full.
    let refused = (0..3).find_map(|ticket| {
        running.append(vec![1], ticket);
        running.log.begin_segment().err()
    });
    assert_eq!(refused, Some(Reason::NoSpace));
    disk.set_capacity(usize::MAX);
    disk.fail(Operation::Sync, 1, ErrorKind::Other);
    let outcome = loop {
        match running.log.append(1, vec![1], 9).map_err(|refused| refused.reason) {
            Ok(_) | Err(Reason::NoSpace | Reason::QueueFull) => {}
            Err(reason) => assert_eq!(reason, Reason::Failed),
        }
        match running.log.begin_segment() {
            Err(Reason::NoSpace) | Ok(_) => disk.fail(Operation::Sync, 1, ErrorKind::Other),
            outcome => break outcome,
        }
    };
    assert_eq!(outcome, Err(Reason::Failed));
}
