use std::io::ErrorKind;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::format::{CHUNK_HEAD_BYTES, Damage, ENTRY_BYTES, FOOTER_BYTES, HEADER_BYTES};
use super::super::scene::{
    STORE, Scene, chunk, header_of, hex, pack_path, read_all, reseal, snap, some_chunks, tmp, write_pack,
};
use super::super::{Error, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use super::*;
use crate::disk::Operation;

type Lying = fn(&mut [u8]);

fn in_order(pack: &PackReader) -> Vec<Chunk> {
    pack.chunks_in_order().map(|(_, chunk)| chunk.unwrap()).collect()
}

#[test]
fn chunks_come_back_as_they_were_given() {
    let scene = Scene::new();
    let chunks = some_chunks();
    let info = scene.pack(4, &chunks);
    let pack = scene.open(&info).unwrap();
    assert_eq!(in_order(&pack), chunks);
    for wanted in &chunks {
        let found: Vec<_> =
            pack.entries_of(&wanted.meta.key).iter().map(|entry| pack.chunk(entry).unwrap()).collect();
        let of_key: Vec<_> =
            chunks.iter().filter(|other| other.meta.key == wanted.meta.key).cloned().collect();
        assert_eq!(found, of_key, "slices of a key keep their order");
    }
    assert!(pack.entries_of(b"nobody").is_empty());
}

#[test]
fn the_index_says_all_but_key_and_payload() {
    let scene = Scene::new();
    let chunks = some_chunks();
    let pack = scene.open(&scene.pack(4, &chunks)).unwrap();
    assert!(pack.entries().is_sorted_by_key(|entry| (entry.key_hash, entry.offset)));
    for (entry, found) in pack.chunks_in_order() {
        let meta = found.unwrap().meta;
        assert_eq!(pack.key(&entry).unwrap(), meta.key);
        let entry = (entry.kind, entry.version, entry.applied_lsn, entry.summary);
        assert_eq!(entry, (meta.kind, meta.version, meta.applied_lsn, meta.summary));
    }
}

#[test]
fn opening_reads_no_chunk() {
    let scene = Scene::new();
    let info = scene.pack(1, &some_chunks());
    let before = scene.disk.count(Operation::Read);
    let pack = scene.open(&info).unwrap();
    let (header, footer, index) = (1, 1, 1);
    assert_eq!(scene.disk.count(Operation::Read) - before, header + footer + index);
    assert_eq!(pack.entries().len(), some_chunks().len());
}

#[test]
fn a_pack_without_chunks_is_a_pack() {
    let scene = Scene::new();
    let info = scene.pack(1, &[]);
    assert_eq!(info.bytes, (HEADER_BYTES + FOOTER_BYTES) as u64);
    assert!(in_order(&scene.open(&info).unwrap()).is_empty());
}

#[test]
fn packs_and_chunks_larger_than_every_buffer_come_back() {
    let scene = Scene::new();
    let mut random = StdRng::seed_from_u64(5);
    let sizes = [0, 1_048_576, 5_000_000, 1_048_577, 3, PAYLOAD_BYTES_MAX];
    let sizes = sizes.into_iter().chain((0..200).map(|_| random.random_range(0..60_000)));
    let chunks: Vec<_> =
        sizes.zip(0u32..).map(|(bytes, at)| chunk(&format!("k{}", at % 9), at, bytes)).collect();
    let info = scene.pack(1, &chunks);
    assert_eq!(info.bytes, scene.bytes(&pack_path(1)).len() as u64);
    let pack = scene.open(&info).unwrap();
    assert!(in_order(&pack) == chunks);
    assert!(read_all(&pack).is_ok());
}

#[test]
fn what_is_over_a_limit_is_refused_and_the_pack_goes_on() {
    let scene = Scene::new();
    let mut pack = PackWriter::create(scene.dynamic(), &tmp(), &snap(), STORE, 1).unwrap();
    let longest_key = chunk(&"k".repeat(KEY_BYTES_MAX), 1, 10);
    pack.add(&longest_key.meta, &longest_key.payload).unwrap();
    let longer_key = chunk(&"k".repeat(KEY_BYTES_MAX + 1), 1, 10);
    assert!(matches!(pack.add(&longer_key.meta, b""), Err(Error::Limit { max: KEY_BYTES_MAX, .. })));
    let longer_payload = vec![0; PAYLOAD_BYTES_MAX + 1];
    let refused = pack.add(&longest_key.meta, &longer_payload);
    assert!(matches!(refused, Err(Error::Limit { max: PAYLOAD_BYTES_MAX, .. })));
    assert_eq!((pack.chunks(), pack.bytes() % 8), (1, 0));
    let info = pack.finish().unwrap();
    assert_eq!(in_order(&scene.open(&info).unwrap()), [longest_key]);
}

#[test]
fn a_pack_that_is_not_finished_leaves_nothing() {
    let scene = Scene::new();
    let mut pack = PackWriter::create(scene.dynamic(), &tmp(), &snap(), STORE, 1).unwrap();
    pack.add(&chunk("a", 1, 1).meta, b"x").unwrap();
    assert_eq!(scene.names(&tmp()).len(), 1);
    drop(pack);
    assert!(scene.names(&tmp()).is_empty() && scene.names(&snap()).is_empty());
}

#[test]
fn after_a_failed_write_a_pack_is_never_finished() {
    let scene = Scene::new();
    let mut pack = PackWriter::create(scene.dynamic(), &tmp(), &snap(), STORE, 1).unwrap();
    scene.disk.fail(Operation::Write, 1, ErrorKind::StorageFull);
    let large = chunk("a", 1, 2_000_000);
    assert!(matches!(pack.add(&large.meta, &large.payload), Err(Error::Io { action: "write", .. })));
    assert!(matches!(pack.add(&large.meta, b""), Err(Error::Abandoned(_))));
    assert!(matches!(pack.finish(), Err(Error::Abandoned(_))));
    assert!(scene.names(&tmp()).is_empty() && scene.names(&snap()).is_empty());
}

#[test]
fn a_pack_whose_sync_failed_gets_no_name() {
    let scene = Scene::new();
    scene.disk.fail(Operation::Sync, 1, ErrorKind::Other);
    assert!(matches!(write_pack(scene.dynamic(), 1, &some_chunks()), Err(Error::Io { action: "sync", .. })));
    assert!(scene.names(&snap()).is_empty());
    scene.pack(1, &some_chunks());
}

#[test]
fn a_number_is_used_once() {
    let scene = Scene::new();
    let info = scene.pack(1, &some_chunks());
    assert!(matches!(write_pack(scene.dynamic(), 1, &[]), Err(Error::NumberTaken(_))));
    assert_eq!(in_order(&scene.open(&info).unwrap()), some_chunks());
}

#[test]
fn a_left_over_temporary_file_is_in_nobodys_way() {
    let scene = Scene::new();
    let name = pack_path(1);
    scene.disk.put(&tmp().join(name.file_name().unwrap()), b"half a pack of an earlier attempt");
    let info = scene.pack(1, &some_chunks());
    assert_eq!(in_order(&scene.open(&info).unwrap()), some_chunks());
}

#[test]
fn an_open_pack_outlives_its_name() {
    let scene = Scene::new();
    let pack = scene.open(&scene.pack(1, &some_chunks())).unwrap();
    crate::disk::Disk::remove(&scene.disk, &pack_path(1)).unwrap();
    assert_eq!(in_order(&pack), some_chunks());
}

#[test]
fn a_pack_cut_anywhere_is_refused() {
    let scene = Scene::new();
    let info = scene.pack(1, &some_chunks());
    let whole = scene.bytes(&pack_path(1));
    for len in 0..whole.len() {
        scene.disk.put(&pack_path(1), &whole[..len]);
        let refused = scene.open(&info).err();
        assert!(matches!(refused, Some(Error::Damaged { why: Damage::Length { .. }, .. })), "cut at {len}");
        // Not even a manifest that was taken in by the new length helps it.
        let taken_in = PackInfo { bytes: len as u64, ..info };
        assert!(scene.open(&taken_in).is_err(), "cut at {len}");
    }
}

/// The chunk at an offset, if there is one: outside of chunks a pack is refused as a whole.
fn chunk_at(entries: &[IndexEntry], offset: usize) -> Option<&IndexEntry> {
    entries
        .iter()
        .find(|entry| (entry.offset..entry.offset + u64::from(entry.bytes)).contains(&(offset as u64)))
}

#[test]
fn every_flipped_bit_is_noticed_and_costs_no_more_than_its_chunk() {
    let scene = Scene::new();
    let info = scene.pack(1, &some_chunks());
    let entries = scene.open(&info).unwrap().entries().to_vec();
    for bit in 0..info.bytes as usize * 8 {
        let (offset, mask) = (bit / 8, 1 << (bit % 8));
        scene.disk.flip(&pack_path(1), offset, mask);
        match (scene.open(&info), chunk_at(&entries, offset)) {
            (Ok(pack), Some(hit)) => only_this_chunk_is_refused(&pack, hit),
            (Err(error), None) => assert!(matches!(error, Error::Damaged { .. }), "bit {bit}: {error}"),
            (Ok(_), None) => panic!("bit {bit} went unnoticed"),
            (Err(error), Some(_)) => panic!("bit {bit} of a chunk cost the whole pack: {error}"),
        }
        scene.disk.flip(&pack_path(1), offset, mask);
    }
    assert!(read_all(&scene.open(&info).unwrap()).is_ok());
}

fn only_this_chunk_is_refused(pack: &PackReader, hit: &IndexEntry) {
    for (entry, streamed) in pack.chunks_in_order() {
        for chunk in [streamed, pack.chunk(&entry)] {
            match chunk {
                Ok(_) => assert_ne!(entry, *hit, "unnoticed"),
                Err(Error::Damaged { path, offset, .. }) => {
                    assert_eq!((path.as_path(), offset, entry), (pack.path(), hit.offset, *hit));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_chunk_with_a_damaged_payload_still_tells_its_key() {
    let scene = Scene::new();
    let chunks = [chunk("alice", 1, 100), chunk("bob", 2, 100)];
    let pack = scene.open(&scene.pack(1, &chunks)).unwrap();
    let hit = pack.entries_of(b"bob")[0];
    scene.disk.flip(&pack_path(1), hit.offset as usize + CHUNK_HEAD_BYTES + 3 + 50, 1);
    let error = pack.chunk(&hit).unwrap_err();
    assert!(matches!(error, Error::Damaged { why: Damage::Checksum("chunk's payload"), .. }));
    assert_eq!(error.to_string().matches(&format!("byte {}", hit.offset)).count(), 1, "{error}");
    assert_eq!(pack.key(&hit).unwrap(), b"bob");
}

#[test]
fn a_failed_read_costs_no_more_than_its_chunk() {
    let scene = Scene::new();
    let pack = scene.open(&scene.pack(1, &some_chunks())).unwrap();
    scene.disk.fail(Operation::Read, 1, ErrorKind::Other);
    assert_eq!(in_order(&pack), some_chunks(), "a failed read-ahead is repeated chunk by chunk");
    scene.disk.fail_always(Operation::Read, ErrorKind::Other);
    assert!(pack.chunks_in_order().all(|(_, chunk)| matches!(chunk, Err(Error::Io { action: "read", .. }))));
}

#[test]
fn parts_that_are_whole_but_of_another_pack_are_refused() {
    let scene = Scene::new();
    let info = scene.pack(1, &some_chunks());
    let pack = scene.open(&info).unwrap();
    let mut other = some_chunks();
    other.iter_mut().for_each(|chunk| chunk.meta.summary[0] += 1);
    let other_info = scene.pack(2, &other);
    let (whole, other) = (scene.bytes(&pack_path(1)), scene.bytes(&pack_path(2)));
    assert_eq!(whole.len(), other.len());
    let with = |from: usize, to: usize, part: &[u8]| {
        let mut bytes = whole.clone();
        bytes[from..to].copy_from_slice(part);
        scene.disk.put(&pack_path(1), &bytes);
        scene.open(&info).and_then(|pack| read_all(&pack)).unwrap_err().to_string()
    };
    let entry = pack.entries()[0];
    let (from, to) = (entry.offset as usize, entry.offset as usize + entry.bytes as usize);
    let footer_at = whole.len() - FOOTER_BYTES;
    assert!(with(from, to, &other[from..to]).contains("another chunk"));
    assert!(with(footer_at, whole.len(), &other[footer_at..]).contains("another footer"));
    assert!(with(0, HEADER_BYTES, &other[..HEADER_BYTES]).contains("its number is 2"));
    assert!(with(0, HEADER_BYTES, &header_of(&[9; 16], 1)).contains("another store"));
    scene.disk.put(&pack_path(1), &other);
    assert!(scene.open(&info).is_err() && scene.open(&PackInfo { number: 1, ..other_info }).is_err());
}

#[test]
fn a_pack_of_a_later_version_is_refused_as_such() {
    let scene = Scene::new();
    scene.pack(1, &some_chunks());
    let mut bytes = scene.bytes(&pack_path(1));
    bytes[8] = 2;
    let info = reseal(&mut bytes);
    scene.disk.put(&pack_path(1), &bytes);
    assert!(matches!(scene.open(&info), Err(Error::TooNew { found: 2, .. })));
}

/// Damage with checksums that hold: what a mad or malicious writer could make.
#[test]
fn hostile_packs_with_good_checksums_neither_panic_nor_read_beyond_the_file() {
    let scene = Scene::new();
    let info = scene.pack(1, &some_chunks());
    let whole = scene.bytes(&pack_path(1));
    let interesting = HEADER_BYTES..whole.len();
    let (mut random, mut accepted, rounds) = (StdRng::seed_from_u64(11), 0, 20_000);
    for round in 0..rounds {
        let mut bytes = whole.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(interesting.clone());
            bytes[at] = [0, 1, 0x7f, 0xff, random.random()][random.random_range(0..5)];
        }
        let hostile = reseal(&mut bytes);
        scene.disk.put(&pack_path(1), &bytes);
        let read = scene.open(&PackInfo { number: 1, ..hostile }).and_then(|pack| read_all(&pack));
        let read = read.map(|chunks| chunks.iter().map(|chunk| chunk.payload.len()).sum::<usize>());
        assert!(read.as_ref().is_ok_and(|bytes| *bytes <= whole.len()) || read.is_err(), "round {round}");
        accepted += usize::from(read.is_ok());
    }
    assert!(accepted > 0 && accepted < rounds, "{accepted} of {rounds}: the mangling must hit both ways");
    scene.disk.put(&pack_path(1), &whole);
    assert!(scene.open(&info).is_ok());
}

fn mangled_index(change: impl Fn(&mut [u8])) -> Error {
    let scene = Scene::new();
    scene.pack(1, &some_chunks());
    let mut bytes = scene.bytes(&pack_path(1));
    let index_at = bytes.len() - FOOTER_BYTES - some_chunks().len() * ENTRY_BYTES;
    change(&mut bytes[index_at..]);
    let info = reseal(&mut bytes);
    scene.disk.put(&pack_path(1), &bytes);
    scene.open(&info).err().expect("an impossible index is refused")
}

#[test]
fn an_index_that_lies_is_refused_before_a_chunk_is_read() {
    let lies: [(&str, Lying); 5] = [
        ("outside", |index| index[16..24].fill(0xff)),
        ("outside", |index| index[16..24].fill(0)),
        ("outside", |index| index[24..28].fill(0xff)),
        ("not sorted", |index| index[..2 * ENTRY_BYTES].rotate_left(ENTRY_BYTES)),
        ("do not fill", |index| index[24] += 8),
    ];
    for (why, lie) in lies {
        let error = mangled_index(lie).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_footer_that_claims_more_than_the_file_holds_is_refused() {
    for (field, name) in [(16, "index offset"), (24, "chunks"), (32, "length")] {
        let error = mangled_index(|index| {
            let footer_at = index.len() - FOOTER_BYTES;
            index[footer_at + field..footer_at + field + 8].fill(0xff);
        });
        assert!(error.to_string().contains("contradicts"), "{name}: {error}");
    }
}

#[test]
fn an_entry_of_another_pack_reads_nothing() {
    let scene = Scene::new();
    let small = scene.open(&scene.pack(1, &[chunk("a", 1, 1)])).unwrap();
    let large = scene.open(&scene.pack(2, &[chunk("a", 1, 5_000)])).unwrap();
    let error = small.chunk(&large.entries()[0]).unwrap_err();
    assert!(error.to_string().contains("outside"), "{error}");
}

#[test]
fn packs_can_be_read_by_several_threads() {
    let scene = Scene::new();
    let pack = Arc::new(scene.open(&scene.pack(1, &some_chunks())).unwrap());
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| assert_eq!(in_order(&pack), some_chunks()));
        }
    });
}

#[test]
fn the_bytes_of_a_pack_stay_as_they_are() {
    let scene = Scene::new();
    scene.pack(7, &[chunk("alice", 2, 9), chunk("", 1, 0)]);
    assert_eq!(hex(&scene.bytes(&pack_path(7))), include_str!("golden_pack.txt"));
}
