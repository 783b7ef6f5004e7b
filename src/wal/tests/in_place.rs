//! Commits on a volunteer's thread. Whether a batch was quick is up to the machine, so a test appends until the log has
//! left one to the volunteer; from then on nothing but the volunteer and what is named moves it.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, channel};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::Operation;

/// Far more than anything here takes on the busiest machine; a test that gets here hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// The bell rang.
    Called,
    /// A ticket came out, on that thread.
    Out(u64, ThreadId),
}

struct Running {
    log: Arc<Wal<u64>>,
    told: Receiver<Told>,
    failures: Receiver<Error>,
}

fn run(disk: &Simulated, options: Options) -> Running {
    let (recovered, _) = read(disk).unwrap();
    let (tell, told) = channel();
    let call = tell.clone();
    let sink: Sink<u64> = Box::new(move |batch| {
        let thread = std::thread::current().id();
        for (_, ticket) in batch.tickets {
            let _ = tell.send(Told::Out(ticket, thread));
        }
    });
    let (failed, failures) = channel();
    let on_failure = Box::new(move |error| failed.send(error).unwrap());
    let disk = Arc::new(disk.clone());
    let log = Wal::start(disk, wal_dir(), tmp_dir(), STORE, &recovered, options, sink, on_failure).unwrap();
    log.volunteer(Box::new(move || call.send(Told::Called).unwrap()));
    Running { log: Arc::new(log), told, failures }
}

impl Running {
    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// Appends small records one after the other until one is left to the volunteer, and says which that is.
    fn append_until_called(&self) -> u64 {
        for ticket in 1.. {
            // A full segment has to wait for the next.
            while self.log.append(1, vec![1], ticket).is_err() {
                std::thread::yield_now();
            }
            if self.next() == Told::Called {
                return ticket;
            }
        }
        unreachable!("tickets do not run out")
    }

    /// The tickets that came out until now.
    fn out(&self) -> Vec<u64> {
        let ticket = |told| if let Told::Out(ticket, _) = told { Some(ticket) } else { None };
        self.told.try_iter().filter_map(ticket).collect()
    }
}

#[test]
fn behind_a_quick_disk_a_volunteer_commits_on_its_own_thread() {
    let disk = disk();
    let running = run(&disk, small());
    let left = running.append_until_called();
    assert!(left > 16, "the first batches are the thread's, but {left} was not");
    running.log.append(1, vec![1], left + 1).unwrap();
    assert_eq!(running.told.try_recv().ok(), None, "it came out by itself, or the bell rang twice");
    assert_eq!(running.log.durable_lsn(), Lsn(left - 1));
    running.log.commit_in_place();
    let here = std::thread::current().id();
    assert_eq!([running.next(), running.next()], [Told::Out(left, here), Told::Out(left + 1, here)]);
    assert_eq!(running.log.durable_lsn(), Lsn(left + 1));
    assert_eq!(
        read(&disk.crash()).unwrap().1.len() as u64,
        left + 1,
        "it came out before it was on the disk"
    );
}

#[test]
fn where_nobody_volunteers_the_thread_commits_everything() {
    let running = super::threads::run(&disk(), small());
    for ticket in 0..100 {
        running.append(vec![1], ticket);
        assert_eq!(running.next().len(), 1);
    }
}

/// Where the last frame of the first segment begins.
fn last_frame(disk: &Simulated) -> usize {
    let bytes = disk.bytes(&segment_path(1)).unwrap();
    let (words, _) = bytes.as_chunks::<8>();
    8 * words.iter().rposition(|word| word[..4] == frame::MAGIC).unwrap()
}

/// What its header says it is.
fn last_kind(disk: &Simulated) -> u8 {
    disk.bytes(&segment_path(1)).unwrap()[last_frame(disk) + 20]
}

fn wait_until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it does not come");
        std::thread::yield_now();
    }
}

/// Commits in place, and makes it last so long that nobody calls it quick.
fn commit_slowly(disk: &Simulated, log: &Wal<u64>) {
    let before = last_frame(disk);
    disk.pause_syncs();
    std::thread::scope(|scope| {
        scope.spawn(|| log.commit_in_place());
        wait_until(|| last_frame(disk) > before);
        let began = Instant::now();
        wait_until(|| began.elapsed() > Duration::from_millis(5));
        disk.resume_syncs();
    });
}

#[test]
fn a_slow_batch_gives_the_turn_back_to_the_thread() {
    let disk = disk();
    let running = run(&disk, small());
    running.append_until_called();
    commit_slowly(&disk, &running.log);
    running.log.append(1, vec![1], 1000).unwrap();
    while !matches!(running.next(), Told::Out(1000, thread) if thread != std::thread::current().id()) {}
}

#[test]
fn a_volunteer_that_leaves_leaves_nothing_behind() {
    let running = run(&disk(), small());
    let left = running.append_until_called();
    running.log.retire_volunteer();
    assert!(matches!(running.next(), Told::Out(ticket, _) if ticket == left));
    for ticket in left + 1..left + 50 {
        running.log.append(1, vec![1], ticket).unwrap();
        assert!(matches!(running.next(), Told::Out(out, _) if out == ticket));
    }
}

#[test]
fn a_new_segment_is_left_to_the_thread() {
    let disk = disk();
    let running = run(&disk, small());
    let left = running.append_until_called();
    let begun = running.log.begin_segment().unwrap();
    assert_eq!(begun, Lsn(left + 1), "what waited is in the segment before");
    assert_eq!(running.log.durable_lsn(), Lsn(left));
    assert!(running.out().contains(&left));
}

#[test]
fn a_record_that_begins_a_segment_is_left_to_the_thread() {
    let disk = disk();
    let running = run(&disk, small());
    let left = running.append_until_called();
    let large = vec![1; (small().segment_bytes - 5000) as usize];
    for ticket in left + 1..=left + 3 {
        while running.log.append(1, large.clone(), ticket).is_err() {
            std::thread::yield_now();
        }
        running.log.commit_in_place();
        while !matches!(running.next(), Told::Out(out, _) if out == ticket) {
            running.log.commit_in_place();
        }
    }
    assert!(running.log.segments().len() >= 3);
}

#[test]
fn a_failed_sync_in_place_is_told_once_and_on_the_logs_own_thread() {
    let disk = disk();
    let running = run(&disk, small());
    let left = running.append_until_called();
    disk.fail_always(Operation::Sync, ErrorKind::Other);
    running.log.commit_in_place();
    // Before the thread has looked, perhaps: it tells the first cause all the same.
    running.log.commit_in_place();
    assert_eq!(running.log.state(), State::Failed, "whoever committed must know at once");
    let error = running.failures.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(error, Error::Io { action: "sync", .. }), "{error}");
    running.log.commit_in_place();
    assert_eq!(running.log.append(1, vec![1], 0).unwrap_err().reason, Reason::Failed);
    assert!(matches!(running.log.close(), Err(Error::Failed)));
    assert!(running.failures.recv().is_err(), "the failure was told twice");
    assert_eq!(running.log.durable_lsn(), Lsn(left - 1));
    assert!(running.out().is_empty(), "a ticket came out of a failed log");
}

#[test]
fn a_sink_that_panics_in_place_fails_the_log() {
    let (recovered, _) = read(&disk()).unwrap();
    let (failed, failures) = channel();
    let (call, called) = channel();
    let main = std::thread::current().id();
    let sink: Sink<u64> =
        Box::new(move |_| assert_ne!(std::thread::current().id(), main, "a bug of the caller"));
    let on_failure = Box::new(move |error| failed.send(error).unwrap());
    let disk = Arc::new(disk());
    let log = Wal::start(disk, wal_dir(), tmp_dir(), STORE, &recovered, small(), sink, on_failure).unwrap();
    log.volunteer(Box::new(move || call.send(()).unwrap()));
    while log.state() != State::Failed {
        let _ = log.append(1, vec![1], 1);
        // Until it is out, or left to the volunteer.
        while log.durable_lsn() < log.appended_lsn() && called.try_recv().is_err() {
            std::thread::yield_now();
        }
        log.commit_in_place();
    }
    assert!(matches!(failures.recv_timeout(PATIENCE).unwrap(), Error::Panicked));
}

#[test]
fn what_waits_for_a_volunteer_does_not_wait_beyond_the_close() {
    let disk = disk();
    let running = run(&disk, small());
    let left = running.append_until_called();
    assert_eq!(running.log.close().unwrap(), Lsn(left));
    assert_eq!(running.out(), [left]);
    running.log.commit_in_place();
    let (recovered, records) = read(&disk.crash()).unwrap();
    assert!(recovered.closed_cleanly && records.len() as u64 == left);
}

#[test]
fn whoever_waits_for_the_disk_does_not_wait_for_the_volunteer() {
    for sync in [SyncMode::Always, SyncMode::Interval(PATIENCE), SyncMode::Never] {
        let disk = disk();
        let running = run(&disk, Options { sync, ..small() });
        let left = running.append_until_called();
        assert_eq!(running.log.wait_for_disk().unwrap(), Lsn(left), "{sync:?}");
        assert_eq!(read(&disk.crash()).unwrap().1.len() as u64, left, "{sync:?}");
    }
}

#[test]
fn what_was_written_in_place_is_synced_within_the_interval_each_time() {
    let sync = SyncMode::Interval(Duration::from_millis(1));
    let disk = disk();
    let running = run(&disk, Options { sync, seal_after: 2 * PATIENCE, ..small() });
    for round in 0..5 {
        let left = running.append_until_called();
        running.log.commit_in_place();
        wait_until(|| running.log.on_disk_lsn() == running.log.appended_lsn());
        assert!(running.out().contains(&left), "{round}");
    }
}

#[test]
fn what_was_committed_in_place_is_sealed_in_time_however_long_it_took() {
    for is_slow in [false, true] {
        let disk = disk();
        let running = run(&disk, Options { seal_after: Duration::from_millis(1), ..small() });
        running.append_until_called();
        match is_slow {
            true => commit_slowly(&disk, &running.log),
            false => running.log.commit_in_place(),
        }
        wait_until(|| last_kind(&disk) == frame::SEAL);
    }
}

#[test]
fn many_who_append_and_one_who_volunteers_lose_nothing_and_keep_the_order() {
    let disk = disk();
    let running = run(&disk, small());
    let log = &running.log;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for ticket in 0..1000 {
                    while log.append(1, vec![1], thread * 1000 + ticket).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut out = Vec::new();
        // Whoever's turn it is, everything comes out without a close.
        while out.len() < 4000 {
            match running.next() {
                Told::Called => log.commit_in_place(),
                Told::Out(ticket, _) => out.push(ticket),
            }
        }
        for thread in 0..4 {
            let of_thread = out.iter().filter(|ticket| **ticket / 1000 == thread);
            assert!(of_thread.is_sorted());
        }
    });
    running.log.close().unwrap();
    assert_eq!(read(&disk.crash()).unwrap().1.len(), 4000);
}
