//! The look that changes nothing says what a start would say.

use std::ops::Range;

use super::*;
use crate::wal::{Checked, check, end_of, place_of};

fn look(disk: &Simulated) -> (Checked, Vec<(u64, Range<u64>)>) {
    let mut places = Vec::new();
    let checked = check(disk, wal_dir(), STORE, &|_| (), &mut |record, (), segment, offset| {
        let frame = frame::frame_bytes(record.payload.len());
        places.push((record.lsn.0, offset..offset + frame));
        assert_eq!(place_of(disk, segment, STORE, record.lsn).unwrap(), Some(offset..offset + frame));
    });
    (checked.unwrap(), places)
}

fn log_of(batches: &[&[&[u8]]]) -> Simulated {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    for batch in batches {
        for payload in *batch {
            log.append(1, payload.to_vec(), 0).unwrap();
        }
        log.commit().unwrap();
    }
    disk.crash()
}

/// Three segments of some records, the last one closed.
fn three_segments() -> Simulated {
    let disk = disk();
    for _ in 0..3 {
        let (mut log, _) = start(&disk, small());
        for _ in 0..3 {
            log.append(1, vec![7; 100], 0).unwrap();
            log.commit().unwrap();
        }
        log.close().unwrap();
    }
    disk
}

#[test]
fn a_whole_log_has_no_finding() {
    let (checked, places) = look(&three_segments());
    assert!(checked.damage.is_empty() && checked.torn_tail.is_none() && checked.closed_cleanly);
    assert_eq!((checked.last_lsn, checked.records, checked.segments.len()), (Lsn(9), 9, 3));
    assert_eq!(places.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    assert!(checked.covers(Lsn(0)).is_ok() && checked.covers(Lsn(9)).is_ok());
    let early = checked.covers(Lsn(12));
    assert!(matches!(early, Err(Error::EndsEarly { last: Lsn(9), needed: Lsn(12), .. })), "{early:?}");
    let (empty, _) = look(&disk());
    assert!(empty.closed_cleanly && empty.covers(Lsn(0)).is_ok() && empty.covers(Lsn(1)).is_err());
}

#[test]
fn every_cut_and_every_flipped_bit_gets_the_verdict_of_a_start_and_stays_as_it_is() {
    let whole = log_of(&[&[b"one"], &[b"two", b"three"], &[b"four"]]);
    let path = segment_path(1);
    let mut bytes = whole.bytes(&path).unwrap();
    bytes.truncate(4096 + 300);
    let cuts = (4000..bytes.len()).map(|cut| bytes[..cut].to_vec());
    let flips = (0..bytes.len() * 8).step_by(3).map(|bit| {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    for damaged in cuts.chain(flips) {
        let disk = disk();
        disk.put(&path, &damaged);
        let (checked, _) = look(&disk);
        assert_eq!(disk.bytes(&path).unwrap(), damaged);
        match read(&disk) {
            Err(why) => assert_eq!(checked.damage[0].to_string(), why.to_string()),
            Ok((recovered, records)) => {
                assert!(checked.damage.is_empty());
                assert_eq!((checked.last_lsn, checked.records), (recovered.last_lsn, records.len() as u64));
                let cut = recovered.torn_tail.map(|torn| (torn.segment, torn.offset, torn.bytes));
                assert_eq!(checked.torn_tail.map(|torn| (torn.segment, torn.offset, torn.bytes)), cut);
            }
        }
    }
}

#[test]
fn the_look_goes_on_behind_damage_and_names_all_of_it() {
    let disk = three_segments();
    disk.flip(&segment_path(1), 4096 + 40, 1);
    disk.flip(&segment_path(4), 20, 1);
    disk.put(&wal_dir().join("odd.wal"), b"");
    let (checked, places) = look(&disk);
    let named: Vec<_> = checked.damage.iter().map(ToString::to_string).collect();
    assert_eq!(named.len(), 3, "{named:?}");
    assert!(named[0].contains("odd.wal") && named[1].contains("0001.wal") && named[2].contains("0004.wal"));
    assert_eq!(places.iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), [7, 8, 9]);
    disk.remove(&segment_path(4)).unwrap();
    disk.flip(&segment_path(1), 4096 + 40, 1);
    let (checked, _) = look(&disk);
    assert!(checked.damage[1].to_string().contains("ends before the next segment begins"));
}

#[test]
fn a_copy_up_to_a_record_is_a_log_that_ends_with_it() {
    let whole = log_of(&[&[b"one"], &[b"two", b"three"], &[b"four"]]);
    let segment = segment::SegmentFile::new(wal_dir(), Lsn(1));
    let bytes = whole.bytes(&segment.path).unwrap();
    for last in 0..=4 {
        let end = end_of(&whole, &segment, STORE, Lsn(last)).unwrap();
        let copy = disk();
        copy.put(&segment.path, &bytes[..end as usize]);
        let (recovered, records) = read(&copy).unwrap();
        assert_eq!((recovered.last_lsn.0, records.len() as u64), (last, last));
        assert!(recovered.torn_tail.is_none());
    }
    assert!(matches!(end_of(&whole, &segment, STORE, Lsn(5)), Err(Error::Corrupt { .. })));
}
