//! The log cut at every byte and with bits flipped everywhere.

use super::*;

/// Payload lengths of the batches of the log that is damaged: around the padding, empty, longer than a sector.
const BATCHES: [&[usize]; 9] =
    [&[0], &[1, 7, 8, 9], &[100], &[600, 3, 0], &[33], &[1200], &[5, 5, 5, 5, 5], &[64], &[17, 530, 2]];

struct Written {
    bytes: Vec<u8>,
    /// Where each record's frame is, which batch it belongs to.
    frames: Vec<(std::ops::Range<usize>, usize)>,
}

/// A segment with all batches, as it lies on disk.
fn written(seal: bool) -> Written {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    let mut frames = Vec::new();
    let mut at = 4096;
    for (number, batch) in BATCHES.iter().enumerate() {
        for payload_bytes in *batch {
            let payload = (0..*payload_bytes).map(|i| i as u8 ^ 0xA5).collect();
            log.append(1, payload, 0).unwrap();
            let end = at + frame::frame_bytes(*payload_bytes) as usize;
            frames.push((at..end, number));
            at = end;
        }
        log.commit().unwrap();
    }
    if seal {
        log.seal().unwrap();
    }
    let mut bytes = disk.bytes(&segment_path(1)).unwrap();
    // Zeros enough to be looked at, few enough to be quick.
    bytes.truncate(at + 600);
    Written { bytes, frames }
}

fn read_bytes(bytes: &[u8]) -> Result<(Recovered, Read), Error> {
    let disk = disk();
    disk.put(&segment_path(1), bytes);
    let first = read(&disk)?;
    if first.0.torn_tail.is_some() {
        let (second, records) = read(&disk).unwrap();
        assert!(second.torn_tail.is_none() && records == first.1, "a cut log must read the same, and clean");
    }
    Ok(first)
}

#[test]
fn a_log_cut_at_any_byte_keeps_every_whole_record_before_the_cut() {
    let Written { bytes, frames } = written(false);
    for cut in 4096..=bytes.len() {
        let whole = frames.iter().filter(|(frame, _)| frame.end <= cut).count();
        let in_frame = frames.iter().any(|(frame, _)| frame.start < cut && cut < frame.end);
        for zero_filled in [false, true] {
            let mut damaged = bytes[..cut].to_vec();
            damaged.resize(if zero_filled { bytes.len() } else { cut }, 0);
            let (recovered, records) = read_bytes(&damaged).unwrap();
            // A frame may lose nothing but zeros, which zeros replace.
            let same = damaged == bytes[..damaged.len()];
            let whole = if same && zero_filled { frames.len() } else { whole };
            let padding_only = zero_filled && records.len() == whole + 1;
            assert!(records.len() == whole || padding_only, "cut at {cut}, zero-filled {zero_filled}");
            assert_eq!(recovered.last_lsn, Lsn(records.len() as u64));
            assert!(in_frame || recovered.torn_tail.is_none(), "cut at {cut}");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_and_kept_in_quarantine() {
    let Written { bytes, frames } = written(false);
    let last = frames.last().unwrap().0.clone();
    let disk = disk();
    disk.put(&segment_path(1), &bytes[..last.end - 10]);
    let (recovered, records) = read(&disk).unwrap();
    let torn = recovered.torn_tail.unwrap();
    assert_eq!((torn.segment, torn.offset), (segment_path(1), last.start as u64));
    assert_eq!(records.len(), frames.len() - 1);
    let kept = disk.crash().bytes(&torn.quarantined).unwrap();
    assert_eq!(kept.len() as u64, torn.bytes);
    assert!(bytes[last].starts_with(&kept));
}

#[test]
fn on_a_full_disk_the_torn_tail_takes_the_room_of_the_zeros_behind_it() {
    let Written { bytes, frames } = written(false);
    let disk = disk();
    let torn_at = frames.last().unwrap().0.end - 10;
    let mut torn = bytes[..torn_at].to_vec();
    torn.resize(16 << 10, 0);
    disk.put(&segment_path(1), &torn);
    disk.set_capacity(disk.used_bytes());
    let (recovered, records) = read(&disk).unwrap();
    assert!(recovered.torn_tail.is_some() && records.len() == frames.len() - 1);
}

#[test]
fn a_second_torn_tail_at_the_same_place_does_not_replace_the_first() {
    let Written { bytes, frames } = written(false);
    let disk = disk();
    for _ in 0..2 {
        disk.put(&segment_path(1), &bytes[..frames[3].0.end - 1]);
        read(&disk).unwrap();
    }
    assert_eq!(disk.list(quarantine_dir()).unwrap().len(), 2);
}

/// Which bit of each byte is flipped: all of a header's, one of a payload's.
fn flips(frame: &std::ops::Range<usize>) -> Vec<(usize, u8)> {
    let header = frame.start..frame.start + 32;
    let in_header = header.clone().flat_map(|at| (0..8).map(move |bit| (at, 1 << bit)));
    in_header.chain((header.end..frame.end).map(|at| (at, 1 << (at % 8)))).collect()
}

#[test]
fn a_flipped_bit_is_corruption_unless_it_is_in_the_last_batch_which_is_torn() {
    let Written { bytes, frames } = written(false);
    for (number, (frame, batch)) in frames.iter().enumerate() {
        for (at, mask) in flips(frame) {
            let mut damaged = bytes.clone();
            damaged[at] ^= mask;
            match read_bytes(&damaged) {
                Err(Error::Corrupt { offset, lsn, .. }) => {
                    assert!(*batch + 1 < BATCHES.len(), "byte {at} of the last batch");
                    assert_eq!((offset as usize, lsn), (frame.start, Lsn(number as u64 + 1)), "byte {at}");
                }
                Ok((recovered, records)) => {
                    assert!(*batch + 1 == BATCHES.len(), "byte {at} of a durable batch went unnoticed");
                    assert!(recovered.torn_tail.is_some() && records.len() == number, "byte {at}");
                }
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn behind_a_seal_every_flipped_bit_of_a_record_is_corruption() {
    let Written { bytes, frames } = written(true);
    for (at, mask) in frames.iter().flat_map(|(frame, _)| flips(frame)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= mask;
        assert!(matches!(read_bytes(&damaged), Err(Error::Corrupt { .. })), "byte {at}");
    }
    let seal = frames.last().unwrap().0.end;
    for (at, mask) in flips(&(seal..seal + 32)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= mask;
        assert_eq!(read_bytes(&damaged).unwrap().1.len(), frames.len(), "byte {at} of the seal");
    }
}

#[test]
fn rot_in_a_segment_that_is_not_the_last_is_corruption_even_in_its_last_batch() {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    log.append(1, vec![1; 100], 0).unwrap();
    log.commit().unwrap();
    drop(start(&disk, small()));
    assert_eq!(read(&disk).unwrap().1.len(), 1);
    disk.flip(&segment_path(1), 4096 + 50, 1);
    assert!(matches!(read(&disk), Err(Error::Corrupt { offset: 4096, lsn: Lsn(1), .. })));
}

#[test]
fn nothing_may_follow_a_close() {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    log.append(1, vec![1; 100], 0).unwrap();
    log.commit().unwrap();
    log.close().unwrap();
    let mut bytes = disk.bytes(&segment_path(1)).unwrap();
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(matches!(read_bytes(&bytes), Err(Error::Corrupt { .. })));
}

#[test]
fn damaged_logs_are_not_changed() {
    let Written { mut bytes, frames } = written(true);
    bytes[frames[2].0.start] ^= 1;
    let disk = disk();
    disk.put(&segment_path(1), &bytes);
    read(&disk).unwrap_err();
    assert_eq!(disk.bytes(&segment_path(1)).unwrap(), bytes);
    assert!(disk.list(quarantine_dir()).unwrap().is_empty());
}

#[test]
fn a_payload_that_looks_like_frames_is_not_taken_for_frames() {
    let disk = disk();
    let (mut log, _) = start(&disk, small());
    let mut forged = Vec::new();
    for batch_start in [4096, 8192] {
        frame::encode(&mut forged, frame::Salt(0), batch_start, Lsn(2), 1, b"forged");
        frame::encode(&mut forged, frame::Salt(0), batch_start, Lsn(1), frame::CLOSE, b"");
    }
    log.append(1, vec![1; 40], 0).unwrap();
    log.append(1, forged, 0).unwrap();
    log.commit().unwrap();
    disk.flip(&segment_path(1), 4096 + 40, 1);
    let (recovered, records) = read(&disk).unwrap();
    assert!(recovered.torn_tail.is_some() && records.is_empty());
}

/// The control: without the batch's start in each frame, a hole inside one batch would look like lost data.
#[test]
fn a_hole_inside_one_batch_is_torn_and_a_hole_before_a_later_batch_is_not() {
    let Written { bytes, frames } = written(false);
    let zeroed = |frame: &std::ops::Range<usize>, upto: usize| {
        let mut damaged = bytes[..upto].to_vec();
        damaged[frame.clone()].fill(0);
        read_bytes(&damaged)
    };
    let (first_of_two, end_of_two) = (&frames[1].0, frames[4].0.end);
    assert_eq!(frames[1].1, frames[4].1);
    assert_eq!(zeroed(first_of_two, end_of_two).unwrap().1.len(), 1);
    assert!(matches!(zeroed(first_of_two, frames[5].0.end), Err(Error::Corrupt { .. })));
}
