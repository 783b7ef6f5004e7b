//! Lives of a log, step by step on a simulated disk.

use std::io::ErrorKind;

use super::*;
use crate::disk::Operation;

fn payloads(read: &Read) -> Vec<&[u8]> {
    read.iter().map(|(_, _, payload)| payload.as_slice()).collect()
}

#[test]
fn what_was_appended_is_read_back_in_order() {
    let disk = disk();
    let (mut log, out) = start(&disk, small());
    assert_eq!(log.append(1, b"one".to_vec(), 10).unwrap(), Lsn(1));
    assert_eq!(log.append(9, vec![], 11).unwrap(), Lsn(2));
    log.commit().unwrap();
    assert_eq!(*out.lock().unwrap(), [(1, 10), (2, 11)]);
    assert_eq!(log.durable_lsn(), Lsn(2));
    let (recovered, read) = read(&disk.crash()).unwrap();
    assert_eq!(read, [(1, 1, b"one".to_vec()), (2, 9, vec![])]);
    assert_eq!((recovered.last_lsn, recovered.records, recovered.bytes), (Lsn(2), 2, 40 + 32));
    assert!(!recovered.closed_cleanly && recovered.torn_tail.is_none());
}

#[test]
fn nothing_comes_out_before_the_commit() {
    let (log, out) = start(&disk(), small());
    log.append(1, b"one".to_vec(), 10).unwrap();
    log.barrier(11).unwrap();
    assert!(out.lock().unwrap().is_empty());
    assert_eq!(log.durable_lsn(), Lsn(0));
}

#[test]
fn a_barrier_comes_out_behind_what_was_appended_before_it() {
    let (mut log, out) = start(&disk(), small());
    log.barrier(1).unwrap();
    log.append(1, b"one".to_vec(), 2).unwrap();
    log.barrier(3).unwrap();
    log.append(1, b"two".to_vec(), 4).unwrap();
    log.commit().unwrap();
    assert_eq!(*out.lock().unwrap(), [(0, 1), (1, 2), (1, 3), (2, 4)]);
}

#[test]
fn a_closed_log_is_clean_and_takes_only_its_own_space() {
    let disk = disk();
    let (mut log, _) = start(&disk, Options { sync: SyncMode::Never, ..small() });
    log.refill().unwrap();
    log.append(1, b"one".to_vec(), 1).unwrap();
    assert_eq!(log.close().unwrap(), Lsn(1));
    let disk = disk.crash();
    let (recovered, read) = read(&disk).unwrap();
    assert!(recovered.closed_cleanly);
    assert_eq!(payloads(&read), [b"one"]);
    assert_eq!(disk.bytes(&segment_path(1)).unwrap().len(), 4096 + 40 + 32);
    assert!(disk.list(tmp_dir()).unwrap().is_empty());
}

#[test]
fn a_life_without_records_leaves_one_segment_that_the_next_replaces() {
    let disk = disk();
    for _ in 0..3 {
        drop(start(&disk, small()));
    }
    let (log, _) = start(&disk, small());
    assert_eq!(log.close().unwrap(), Lsn(0));
    let (recovered, _) = read(&disk.crash()).unwrap();
    assert_eq!(recovered.segments.len(), 1);
}

#[test]
fn every_life_writes_its_own_segments_and_the_chain_is_checked() {
    let mut disk = disk();
    for life in 0..6_u64 {
        let (mut log, _) = start(&disk, small());
        log.append(1, life.to_le_bytes().to_vec(), 0).unwrap();
        log.commit().unwrap();
        match life % 3 {
            0 => disk = disk.kill(),
            1 => log.seal().unwrap(),
            _ => drop(log.close().unwrap()),
        }
        disk = disk.crash();
    }
    let (recovered, read) = read(&disk).unwrap();
    assert_eq!((recovered.segments.len(), read.len()), (6, 6));
    disk.remove(&segment_path(3)).unwrap();
    let Err(Error::Corrupt { segment, lsn, .. }) = super::read(&disk) else {
        panic!("a hole went unnoticed")
    };
    assert_eq!((segment, lsn), (segment_path(2), Lsn(3)));
    assert_eq!(read_after(&disk, 3).unwrap().1.len(), 3);
}

#[test]
fn a_log_rotates_into_spares_and_old_segments_can_go() {
    let disk = disk();
    let (mut log, out) = start(&disk, small());
    for lsn in 1..=20_u64 {
        log.refill().unwrap();
        assert_eq!(log.append(1, vec![lsn as u8; 5000], 0).unwrap(), Lsn(lsn));
        log.commit().unwrap();
    }
    assert_eq!(out.lock().unwrap().len(), 20);
    assert_eq!(log.remove_below(Lsn(8)).unwrap(), 3);
    assert_eq!(log.remove_below(Lsn(8)).unwrap(), 0);
    let disk = disk.crash();
    let (_, read) = read_after(&disk, 7).unwrap();
    assert_eq!(read.iter().map(|(lsn, ..)| *lsn).collect::<Vec<_>>(), (8..=20).collect::<Vec<_>>());
    let missing = super::read(&disk).unwrap_err();
    assert!(matches!(missing, Error::Missing { from: Lsn(1), to: Lsn(6) }), "{missing}");
}

#[test]
fn the_current_segment_is_never_removed() {
    let (mut log, _) = start(&disk(), small());
    log.append(1, vec![1], 0).unwrap();
    log.commit().unwrap();
    assert_eq!(log.remove_below(Lsn(u64::MAX)).unwrap(), 0);
}

#[test]
fn a_record_that_the_first_segment_cannot_hold_begins_the_next() {
    let disk = disk();
    let (mut log, _) = start(&disk, Options { first_segment_bytes: 8 << 10, ..small() });
    log.refill().unwrap();
    log.append(1, vec![1; 10_000], 0).unwrap();
    log.commit().unwrap();
    let (recovered, read) = read(&disk.crash()).unwrap();
    assert_eq!((recovered.segments.len(), read.len()), (1, 1));
}

#[test]
fn a_log_that_lacks_what_the_caller_has_is_refused() {
    let disk = disk();
    assert!(matches!(read_after(&disk, 5), Err(Error::Missing { from: Lsn(5), to: Lsn(5) })));
    let (mut log, _) = start(&disk, small());
    log.append(1, vec![1], 0).unwrap();
    log.commit().unwrap();
    let disk = disk.kill();
    let Err(Error::EndsEarly { segment, offset, last: Lsn(1), needed: Lsn(5) }) = read_after(&disk, 5) else {
        panic!("it was not said where the log ends")
    };
    assert_eq!((segment, offset), (segment_path(1), segment::PAGE_BYTES + frame::frame_bytes(1)));
    assert_eq!(read_after(&disk, 1).unwrap().1, []);
}

#[test]
fn another_stores_log_is_refused() {
    let disk = disk();
    drop(start(&disk, small()));
    let other = replay(&disk, wal_dir(), quarantine_dir(), [0; 16], Lsn(0), &mut |_| Ok(()));
    assert!(matches!(other, Err(Error::ForeignStore(_))));
}

#[test]
fn a_visitor_can_refuse_a_record() {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    log.append(1, vec![1], 0).unwrap();
    log.append(1, vec![2], 0).unwrap();
    log.commit().unwrap();
    let refused = replay(&disk, wal_dir(), quarantine_dir(), STORE, Lsn(0), &mut |record| {
        if record.payload == [2] { Err("no".into()) } else { Ok(()) }
    });
    assert!(matches!(refused, Err(Error::Visit { lsn: Lsn(2), offset: 4136, .. })), "{refused:?}");
}

#[test]
fn too_large_records_are_refused_and_cost_nothing() {
    let (log, _) = start(&disk(), small());
    let refused = log.append(1, vec![0; 13_000], 7).unwrap_err();
    assert_eq!(refused, Refused { reason: Reason::TooLarge, ticket: 7 });
    assert_eq!(log.append(1, vec![0; 10], 8).unwrap(), Lsn(1));
}

#[test]
fn a_full_queue_refuses_by_records_and_by_bytes() {
    let full = Err(Refused { reason: Reason::QueueFull, ticket: 9 });
    let (mut log, _) = start(&disk(), Options { queue_records_max: 2, ..small() });
    log.append(1, vec![], 1).unwrap();
    log.barrier(2).unwrap();
    assert_eq!(log.append(1, vec![], 9), full);
    assert_eq!(log.barrier(9).map(|()| Lsn(0)), full);
    log.commit().unwrap();
    log.append(1, vec![], 3).unwrap();

    let (mut log, _) = start(&disk(), Options { queue_bytes_max: 100, ..small() });
    log.append(1, vec![0; 200], 1).unwrap();
    assert_eq!(log.append(1, vec![0; 1], 9), full);
    log.commit().unwrap();
    log.append(1, vec![0; 60], 2).unwrap();
    assert_eq!(log.append(1, vec![0; 60], 9), full);
}

#[test]
fn batches_keep_to_their_limits() {
    let (recovered, _) = read(&disk()).unwrap();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let into = sizes.clone();
    let sink: Sink<u32> = Box::new(move |batch| {
        assert!(batch.sync.is_some());
        into.lock().unwrap().push((batch.records, batch.bytes));
    });
    let options = Options { batch_records_max: 3, batch_bytes_max: 200, ..small() };
    let disk = Arc::new(disk());
    let mut log = Stepped::start(disk, wal_dir(), tmp_dir(), STORE, &recovered, options, sink).unwrap();
    for payload_bytes in [8, 8, 8, 8, 100, 100, 400, 8] {
        log.append(1, vec![0; payload_bytes], 0).unwrap();
    }
    log.commit().unwrap();
    assert_eq!(*sizes.lock().unwrap(), [(3, 120), (2, 176), (1, 136), (1, 432), (1, 40)]);
}

#[test]
fn without_a_spare_a_full_segment_refuses_for_a_moment() {
    let (mut log, _) = start(&disk(), small());
    log.append(1, vec![0; 8000], 0).unwrap();
    assert_eq!(log.append(1, vec![0; 8000], 0).unwrap_err().reason, Reason::QueueFull);
    assert_eq!(log.state(), State::Writable);
    log.refill().unwrap();
    log.append(1, vec![0; 8000], 0).unwrap();
}

#[test]
fn a_full_disk_refuses_appends_and_never_fails_an_accepted_one() {
    let disk = disk();
    let (mut log, out) = start(&disk, small());
    log.refill().unwrap();
    disk.set_capacity(disk.used_bytes());
    let mut accepted = 0;
    while log.append(1, vec![0; 1000], 0).is_ok() {
        accepted += 1;
        log.refill().unwrap_or_default();
        log.commit().unwrap();
    }
    assert_eq!((log.state(), accepted), (State::ReadOnly, 22));
    assert_eq!(log.append(1, vec![], 0).unwrap_err().reason, Reason::NoSpace);
    log.barrier(5).unwrap();
    log.commit().unwrap();
    assert_eq!(out.lock().unwrap().last(), Some(&(22, 5)));
    disk.set_capacity(usize::MAX);
    log.refill().unwrap();
    assert_eq!(log.state(), State::Writable);
    assert_eq!(log.append(1, vec![0; 1000], 0).unwrap(), Lsn(23));
    log.close().unwrap();
    assert_eq!(read(&disk.crash()).unwrap().1.len(), 23);
}

#[test]
fn a_spare_leaves_room_for_the_snapshot_that_makes_room() {
    let disk = disk();
    let (mut log, _) = start(&disk, Options { free_bytes_min: 10_000, ..small() });
    disk.set_capacity(disk.used_bytes() + (16 << 10) + 9_999);
    let written = disk.count(Operation::Write);
    assert!(log.refill().is_err());
    assert_eq!(disk.count(Operation::Write), written);
    disk.set_capacity(disk.used_bytes() + (16 << 10) + 10_000);
    log.refill().unwrap();
}

#[test]
fn a_promised_spare_is_not_removed() {
    let disk = disk();
    let (mut log, _) = start(&disk, Options { spare_segments: 2, ..small() });
    log.refill().unwrap();
    log.append(1, vec![0; 8000], 0).unwrap();
    log.append(1, vec![0; 8000], 0).unwrap();
    log.stock.remove_all();
    assert_eq!(disk.list(tmp_dir()).unwrap().len(), 1);
    assert_eq!(log.close().unwrap(), Lsn(2));
    assert_eq!(read(&disk.crash()).unwrap().1.len(), 2);
}

#[test]
fn a_start_on_a_full_disk_is_read_only_until_there_is_room() {
    let disk = disk();
    let (log, _) = start(&disk, small());
    log.append(1, b"one".to_vec(), 0).unwrap();
    log.close().unwrap();
    disk.set_capacity(disk.used_bytes());
    let (log, _) = start(&disk, small());
    assert_eq!(log.state(), State::ReadOnly);
    assert_eq!(log.append(1, vec![], 0).unwrap_err().reason, Reason::NoSpace);
    assert_eq!(log.close().unwrap(), Lsn(1));
    let (mut log, out) = start(&disk, small());
    disk.set_capacity(usize::MAX);
    log.refill().unwrap();
    log.append(1, b"two".to_vec(), 2).unwrap();
    log.commit().unwrap();
    assert_eq!(*out.lock().unwrap(), [(2, 2)]);
    assert_eq!(payloads(&read(&disk.crash()).unwrap().1), [b"one", b"two"]);
}

#[test]
fn after_a_failed_sync_nothing_comes_out_and_no_sync_is_tried_again() {
    let disk = disk();
    let (mut log, out) = start(&disk, small());
    log.append(1, b"one".to_vec(), 1).unwrap();
    disk.fail(Operation::Sync, 1, ErrorKind::Other);
    assert!(matches!(log.commit(), Err(Error::Io { action: "sync", .. })));
    assert_eq!(log.state(), State::Failed);
    assert_eq!(log.append(1, vec![], 2).unwrap_err().reason, Reason::Failed);
    assert_eq!(log.barrier(3).unwrap_err().reason, Reason::Failed);
    assert!(out.lock().unwrap().is_empty());
    assert_eq!(log.durable_lsn(), Lsn(0));
}

#[test]
fn what_a_failed_sync_left_in_memory_is_not_read_back() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = Simulated::new(seed);
        for dir in [wal_dir(), tmp_dir(), quarantine_dir()] {
            disk.create_dir_all(dir).unwrap();
        }
        let (mut log, _) = start(&disk, small());
        log.append(1, vec![7; 3000], 1).unwrap();
        disk.fail(Operation::Sync, 1, ErrorKind::Other);
        log.commit().unwrap_err();
        let disk = disk.kill();
        let (recovered, records) = read(&disk).unwrap();
        let again = read(&disk.crash()).unwrap().1;
        assert_eq!(records, again, "seed {seed}: served what was not durable");
        lost += usize::from(recovered.last_lsn == Lsn(0));
    }
    assert!(lost > 0);
}

#[test]
fn a_read_error_is_an_error_and_not_the_end_of_the_log() {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    log.append(1, vec![7; 3000], 1).unwrap();
    log.commit().unwrap();
    let disk = disk.kill();
    disk.fail(Operation::Read, 3, ErrorKind::Other);
    assert!(matches!(read(&disk), Err(Error::Io { action: "read", .. })));
    assert_eq!(read(&disk).unwrap().1.len(), 1);
}

#[test]
fn idle_seals_never_take_the_room_that_records_were_promised() {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    // Fills the segment to the last byte but one marker's, which is the close's.
    for _ in 0..((16 << 10) - 4096 - 32) / 64 {
        log.append(1, vec![0; 32], 0).unwrap();
        log.commit().unwrap();
        log.seal().unwrap();
        if log.append(1, vec![0; 32], 0).is_err() {
            break;
        }
    }
    log.commit().unwrap();
    log.close().unwrap();
    assert!(read(&disk.crash()).unwrap().0.closed_cleanly);
}

/// Notes on its end what the log's state is then.
struct Witness {
    log: Arc<super::super::queue::Shared<Witness>>,
    saw: Arc<Mutex<Vec<State>>>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.saw.lock().unwrap().push(self.log.state());
    }
}

#[test]
fn nobody_who_hears_of_a_dropped_ticket_finds_the_log_writable() {
    // Hit are the write of a full batch, its sync, and the rotation that the fourth record needs.
    for (operation, nth) in [(Operation::Write, 2), (Operation::Sync, 2), (Operation::Name, 1)] {
        let disk = disk();
        let (recovered, _) = read(&disk).unwrap();
        let options = Options { batch_records_max: 1, ..small() };
        let sink: Sink<Witness> = Box::new(|batch| batch.tickets.into_iter().for_each(std::mem::forget));
        let shared = Arc::new(disk.clone());
        let log = Stepped::start(shared, wal_dir(), tmp_dir(), STORE, &recovered, options, sink);
        let mut log = log.unwrap();
        log.refill().unwrap();
        let saw = Arc::new(Mutex::new(Vec::new()));
        for _ in 0..4 {
            let witness = Witness { log: log.shared.clone(), saw: saw.clone() };
            log.append(1, vec![7; 3500], witness).map_err(|refused| refused.reason).unwrap();
        }
        disk.fail(operation, nth, ErrorKind::Other);
        log.commit().unwrap_err();
        let saw = saw.lock().unwrap();
        assert!(!saw.is_empty() && saw.iter().all(|state| *state == State::Failed), "{operation:?}: {saw:?}");
    }
}

#[test]
fn a_segment_ends_on_request_and_the_one_before_can_go() {
    let disk = disk();
    let (mut log, out) = start(&disk, small());
    log.refill().unwrap();
    log.append(1, b"before".to_vec(), 1).unwrap();
    log.begin_segment().unwrap();
    log.append(1, b"behind".to_vec(), 2).unwrap();
    log.commit().unwrap();
    assert_eq!(*out.lock().unwrap(), [(1, 1), (2, 2)]);
    assert_eq!(log.segments().iter().map(|segment| segment.first_lsn.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(log.remove_below(Lsn(2)).unwrap(), 1);
    assert_eq!(payloads(&read_after(&disk.crash(), 1).unwrap().1), [b"behind"]);
}

#[test]
fn a_segment_that_ended_on_request_may_have_nothing_behind_it() {
    let disk = disk();
    let (mut log, _) = start(&disk, Options { sync: SyncMode::Never, ..small() });
    log.append(1, b"one".to_vec(), 1).unwrap();
    for _ in 0..3 {
        log.refill().unwrap();
        log.begin_segment().unwrap();
        log.commit().unwrap();
        assert_eq!(log.segments().len(), 2, "an empty one is replaced");
    }
    assert_eq!(log.remove_below(Lsn(2)).unwrap(), 1);
    // Its rotation has made the record durable, and the next life knows how far the log had come.
    let disk = disk.crash();
    assert_eq!(read_after(&disk, 1).unwrap().0.last_lsn, Lsn(1));
    let (recovered, _) = read_after(&disk, 1).unwrap();
    let sink: Sink<u32> = Box::new(|_| ());
    let (wal, tmp) = (wal_dir(), tmp_dir());
    let mut log = Stepped::start(Arc::new(disk.clone()), wal, tmp, STORE, &recovered, small(), sink).unwrap();
    assert_eq!(log.append(1, b"two".to_vec(), 2).unwrap(), Lsn(2));
    log.commit().unwrap();
    log.close().unwrap();
    assert_eq!(payloads(&read_after(&disk.crash(), 1).unwrap().1), [b"two"]);
}

#[test]
fn without_room_for_a_segment_none_begins_and_the_log_goes_on() {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    assert_eq!(log.begin_segment(), Err(Reason::QueueFull), "no spare was made yet");
    disk.set_capacity(disk.used_bytes());
    log.refill().unwrap_err();
    assert_eq!(log.begin_segment(), Err(Reason::NoSpace));
    log.append(1, b"one".to_vec(), 1).unwrap();
    log.commit().unwrap();
    disk.set_capacity(usize::MAX);
    log.refill().unwrap();
    log.begin_segment().unwrap();
    log.close().unwrap();
    assert_eq!(payloads(&read(&disk.crash()).unwrap().1), [b"one"]);
}
