use std::io::ErrorKind;

use super::super::scene::{
    STORE, Scene, chunk, hex, manifest, manifest_path, pack_path, quarantine, read_all, snap, some_chunks,
    tmp,
};
use super::*;
use crate::disk::Operation;

type Damaging = fn(&Scene);
type Forging = fn(&mut Vec<u8>);

/// A scene with packs 1..=`packs`, and after each the manifest of all packs so far, numbered from 101, replaying after ten
/// times its count.
fn with_manifests(packs: u64) -> (Scene, Vec<Manifest>) {
    let scene = Scene::new();
    let mut infos = Vec::new();
    let published = |number| {
        infos.push(scene.pack(number, &[chunk("a", number as u32, 30), chunk("b", number as u32, 7)]));
        let manifest = manifest(100 + number, number * 10, infos.clone());
        scene.publish(&manifest).unwrap();
        manifest
    };
    let manifests = (1..=packs).map(published).collect();
    (scene, manifests)
}

fn load(scene: &Scene) -> Result<Option<Loaded>, Error> {
    load_newest(&scene.disk, &snap(), &STORE)
}

/// The manifest that is loaded, and the files that were rejected.
fn loaded(scene: &Scene) -> (Manifest, Vec<PathBuf>) {
    let loaded = load(scene).unwrap().unwrap();
    (loaded.manifest, loaded.rejected.into_iter().map(|one| one.file).collect())
}

#[test]
fn without_a_manifest_there_is_nothing_to_load() {
    let scene = Scene::new();
    assert!(load(&scene).unwrap().is_none());
    scene.pack(1, &some_chunks());
    assert!(load(&scene).unwrap().is_none(), "a pack that nobody names is not current");
}

#[test]
fn the_newest_manifest_is_loaded_with_its_packs() {
    let (scene, manifests) = with_manifests(3);
    let found = load(&scene).unwrap().unwrap();
    assert_eq!(found.manifest, manifests[2]);
    assert!(found.rejected.is_empty());
    let infos: Vec<_> = found.packs.iter().map(|pack| *pack.info()).collect();
    assert_eq!(infos, found.manifest.packs);
    assert_eq!(read_all(&found.packs[1]).unwrap()[0], chunk("a", 2, 30));
}

#[test]
fn a_manifest_without_packs_is_a_manifest() {
    let scene = Scene::new();
    let empty = manifest(1, 0, Vec::new());
    scene.publish(&empty).unwrap();
    assert_eq!(loaded(&scene), (empty, Vec::new()));
}

#[test]
fn foreign_files_are_left_alone() {
    let (scene, manifests) = with_manifests(2);
    for name in
        ["README.md", "9.manifest", "99999999999999999999.manifest", "00000000000000000009.manifest.bak"]
    {
        scene.disk.put(&snap().join(name), b"foreign");
    }
    assert_eq!(loaded(&scene), (manifests[1].clone(), Vec::new()));
    scene.prune().unwrap();
    assert_eq!(scene.names(&snap()).len(), 4 + 4);
}

#[test]
fn a_manifest_cut_anywhere_is_passed_over_for_the_one_before() {
    let (scene, manifests) = with_manifests(2);
    let whole = scene.bytes(&manifest_path(102));
    for len in 0..whole.len() {
        scene.disk.put(&manifest_path(102), &whole[..len]);
        assert_eq!(loaded(&scene), (manifests[0].clone(), vec![manifest_path(102)]), "cut at {len}");
    }
    scene.disk.put(&manifest_path(102), &[&whole[..], &[0]].concat());
    assert_eq!(loaded(&scene).0, manifests[0], "a byte too many");
}

#[test]
fn every_flipped_bit_of_a_manifest_is_noticed() {
    let (scene, manifests) = with_manifests(2);
    for bit in 0..scene.bytes(&manifest_path(102)).len() * 8 {
        scene.disk.flip(&manifest_path(102), bit / 8, 1 << (bit % 8));
        assert_eq!(loaded(&scene), (manifests[0].clone(), vec![manifest_path(102)]), "bit {bit}");
        scene.disk.flip(&manifest_path(102), bit / 8, 1 << (bit % 8));
    }
    assert_eq!(loaded(&scene).0, manifests[1]);
}

#[test]
fn a_manifest_whose_pack_is_gone_or_damaged_is_passed_over() {
    let damages: [(&str, Damaging); 5] = [
        ("open", |scene| scene.disk.remove(&pack_path(2)).unwrap()),
        ("length", |scene| {
            let bytes = scene.bytes(&pack_path(2));
            scene.disk.put(&pack_path(2), &bytes[8..]);
        }),
        ("header page", |scene| scene.disk.flip(&pack_path(2), 100, 1)),
        ("index", |scene| {
            let end = scene.bytes(&pack_path(2)).len();
            scene.disk.flip(&pack_path(2), end - 100, 1);
        }),
        ("another footer", |scene| {
            // Whole, and of the same length, but not the one that was published.
            let changed = scene.pack(9, &[chunk("a", 2, 30), chunk("b", 3, 7)]);
            let bytes = scene.bytes(&pack_path(9));
            scene.disk.put(&pack_path(2), &bytes);
            assert_eq!(changed.bytes, bytes.len() as u64);
        }),
    ];
    for (why, damage) in damages {
        let (scene, manifests) = with_manifests(2);
        damage(&scene);
        let found = load(&scene).unwrap().unwrap();
        assert_eq!(found.manifest, manifests[0]);
        let text = found.rejected[0].why.to_string();
        assert!(text.contains(why) && text.contains("00000000000000000002.pack"), "{text}");
    }
}

#[test]
fn a_damaged_chunk_rejects_no_manifest() {
    let (scene, manifests) = with_manifests(2);
    scene.disk.flip(&pack_path(2), 4096 + 90, 1);
    assert_eq!(loaded(&scene), (manifests[1].clone(), Vec::new()));
}

#[test]
fn when_no_manifest_can_be_used_every_reason_is_told() {
    let (scene, _) = with_manifests(2);
    scene.disk.flip(&manifest_path(102), 50, 1);
    scene.disk.remove(&pack_path(1)).unwrap();
    let error = load(&scene).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, Error::NoneUsable(ref rejected) if rejected.len() == 2), "{text}");
    assert!(text.contains("102.manifest is damaged") && text.contains("0001.pack: "), "{text}");
}

#[test]
fn a_manifest_of_another_store_or_under_a_wrong_name_is_damage() {
    let (scene, manifests) = with_manifests(2);
    let stranger = Manifest { store: [9; 16], ..manifests[1].clone() };
    scene.disk.put(&manifest_path(102), &format::encode_manifest(&stranger));
    let text = load(&scene).unwrap().unwrap().rejected[0].why.to_string();
    assert!(text.contains("another store"), "{text}");
    scene.disk.put(&manifest_path(102), &format::encode_manifest(&manifests[0]));
    let text = load(&scene).unwrap().unwrap().rejected[0].why.to_string();
    assert!(text.contains("its number is 101"), "{text}");
}

/// Changes bytes of the newest manifest and makes its checksum hold again.
fn forge(scene: &Scene, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = scene.bytes(&manifest_path(102));
    bytes.truncate(bytes.len() - 4);
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    scene.disk.put(&manifest_path(102), &bytes);
}

#[test]
fn a_manifest_of_a_later_version_is_not_passed_over() {
    let (scene, _) = with_manifests(2);
    forge(&scene, |bytes| bytes[8] = 2);
    assert!(matches!(load(&scene), Err(Error::TooNew { found: 2, .. })));
    assert!(matches!(scene.prune(), Err(Error::TooNew { found: 2, .. })));
    assert_eq!(scene.names(&snap()).len(), 4);
}

#[test]
fn impossible_manifests_with_good_checksums_are_damage() {
    let forgeries: [(&str, Forging); 5] = [
        ("length", |bytes| bytes[88..92].fill(0xff)),
        ("length", |bytes| bytes.truncate(100)),
        ("twice", |bytes| bytes.copy_within(96..104, 128)),
        ("spare", |bytes| bytes[92] = 1),
        ("version is 0", |bytes| bytes[8] = 0),
    ];
    for (why, forgery) in forgeries {
        let (scene, _) = with_manifests(2);
        forge(&scene, forgery);
        let text = load(&scene).unwrap().unwrap().rejected[0].why.to_string();
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn a_huge_file_is_not_read_as_a_manifest() {
    let (scene, manifests) = with_manifests(2);
    scene.disk.put(&manifest_path(102), &vec![0; MANIFEST_BYTES_MAX + 1]);
    let before = scene.disk.count(Operation::Read);
    assert_eq!(loaded(&scene).0, manifests[0]);
    let (list, older, its_pack) = (1, 1, 3);
    assert_eq!(scene.disk.count(Operation::Read) - before, list + older + its_pack);
}

#[test]
fn publishing_refuses_what_could_not_be_loaded() {
    let (scene, manifests) = with_manifests(2);
    let mut bad = Manifest { number: 102, ..manifests[1].clone() };
    assert!(matches!(scene.publish(&bad), Err(Error::NumberTaken(_))));
    bad.number = 100;
    assert!(matches!(scene.publish(&bad), Err(Error::NumberTaken(_))), "it would hide behind newer ones");
    bad.number = 103;
    bad.packs.push(bad.packs[0]);
    assert!(matches!(scene.publish(&bad), Err(Error::Damaged { .. })));
    bad.packs[2].number = 3;
    assert!(matches!(scene.publish(&bad), Err(Error::Io { action: "open", .. })), "a missing pack");
    bad.packs = vec![bad.packs[0]; MANIFEST_PACKS_MAX + 1];
    assert!(matches!(scene.publish(&bad), Err(Error::Limit { max: MANIFEST_PACKS_MAX, .. })));
    assert_eq!(loaded(&scene).0, manifests[1]);
}

#[test]
fn the_largest_manifest_fits_its_bound() {
    let packs =
        (0..MANIFEST_PACKS_MAX as u64).map(|number| PackInfo { number, bytes: 1, footer_crc: 2, chunks: 3 });
    let largest = manifest(1, 0, packs.collect());
    let bytes = format::encode_manifest(&largest);
    assert_eq!(bytes.len(), MANIFEST_BYTES_MAX);
    assert_eq!(format::decode_manifest(&bytes, &STORE, 1).unwrap(), largest);
}

#[test]
fn a_publish_that_failed_can_be_tried_again_with_the_next_number() {
    for operation in [Operation::Name, Operation::Write, Operation::Sync] {
        for nth in 1..=2 {
            let (scene, manifests) = with_manifests(1);
            scene.disk.fail(operation, nth, ErrorKind::StorageFull);
            let attempt = |number| scene.publish(&Manifest { number, ..manifests[0].clone() });
            let number = next_number(&scene.disk, &snap()).unwrap();
            let failed = attempt(number);
            scene.disk.heal();
            let next = next_number(&scene.disk, &snap()).unwrap();
            assert!(failed.is_err() || next > number);
            attempt(next).unwrap();
            assert_eq!(loaded(&scene).0.number, next);
        }
    }
}

#[test]
fn the_next_number_is_above_every_file() {
    let scene = Scene::new();
    assert_eq!(next_number(&scene.disk, &snap()).unwrap(), 1);
    scene.pack(4, &[]);
    scene.disk.put(&manifest_path(3), b"damaged");
    assert_eq!(next_number(&scene.disk, &snap()).unwrap(), 5);
    scene.disk.put(&manifest_path(u64::MAX), b"damaged");
    assert!(matches!(next_number(&scene.disk, &snap()), Err(Error::NumberTaken(_))));
}

#[test]
fn with_one_manifest_the_log_is_kept_whole() {
    let (scene, _) = with_manifests(1);
    assert_eq!(scene.prune().unwrap(), Pruned::default());
}

#[test]
fn pruning_keeps_two_manifests_and_what_they_name() {
    let (scene, manifests) = with_manifests(4);
    // What a failed attempt leaves, and what compaction makes of packs 1 to 4.
    scene.pack(5, &[]);
    let compacted = manifest(105, 50, vec![scene.pack(6, &some_chunks())]);
    scene.publish(&compacted).unwrap();
    let pruned = scene.prune().unwrap();
    let expected = Pruned { log_needed_after: Some(40), manifests: 3, packs: 1, quarantined: vec![] };
    assert_eq!(pruned, expected);
    assert_eq!(loaded(&scene), (compacted, vec![]));
    scene.disk.flip(&manifest_path(105), 40, 1);
    assert_eq!(loaded(&scene).0, manifests[3]);
}

#[test]
fn pruning_removes_packs_once_their_last_manifest_is_gone() {
    let (scene, manifests) = with_manifests(2);
    let newest = manifests[1].packs[1];
    for number in 3..=4 {
        scene.publish(&manifest(100 + number, 90, vec![newest])).unwrap();
    }
    let pruned = scene.prune().unwrap();
    assert_eq!(pruned, Pruned { log_needed_after: Some(90), manifests: 2, packs: 1, quarantined: vec![] });
    assert!(!scene.disk.exists(&pack_path(1)).unwrap() && scene.disk.exists(&pack_path(2)).unwrap());
}

#[test]
fn a_damaged_manifest_is_quarantined_and_does_not_count() {
    let (scene, manifests) = with_manifests(3);
    scene.disk.flip(&manifest_path(103), 60, 1);
    let pruned = scene.prune().unwrap();
    assert_eq!(pruned.quarantined, [manifest_path(103)]);
    assert_eq!((pruned.manifests, pruned.packs, pruned.log_needed_after), (0, 1, Some(10)));
    assert_eq!(scene.names(&quarantine()), ["00000000000000000103.manifest"]);
    assert_eq!(loaded(&scene), (manifests[1].clone(), vec![]));
}

#[test]
fn a_damaged_pack_is_quarantined_with_its_manifests() {
    let (scene, manifests) = with_manifests(3);
    scene.disk.flip(&pack_path(2), 60, 1);
    let pruned = scene.prune().unwrap();
    assert_eq!(pruned.quarantined, [manifest_path(103), pack_path(2), manifest_path(102)]);
    assert_eq!(
        pruned.log_needed_after, None,
        "one manifest is left: without its log there is no second chance"
    );
    assert_eq!(loaded(&scene), (manifests[0].clone(), vec![]));
    assert_eq!(scene.names(&quarantine()).len(), 3);
}

/// Whatever a start would pass over, so that what is kept to fall back to can be fallen back to.
#[test]
fn a_pack_whose_index_is_damaged_is_quarantined_as_a_start_passes_it_over() {
    let (scene, manifests) = with_manifests(3);
    let end = scene.bytes(&pack_path(3)).len();
    scene.disk.flip(&pack_path(3), end - 100, 1);
    assert_eq!(loaded(&scene).0, manifests[1]);
    let pruned = scene.prune().unwrap();
    assert_eq!(pruned.quarantined, [manifest_path(103), pack_path(3)]);
    assert_eq!((pruned.manifests, pruned.log_needed_after), (0, Some(10)));
    assert_eq!(loaded(&scene), (manifests[1].clone(), vec![]));
}

#[test]
fn a_manifest_that_lies_about_a_pack_does_not_take_it_away_from_the_others() {
    let (scene, manifests) = with_manifests(2);
    forge(&scene, |bytes| bytes[120] ^= 1);
    let pruned = scene.prune().unwrap();
    assert_eq!(pruned.quarantined, [manifest_path(102)]);
    assert_eq!(loaded(&scene), (manifests[0].clone(), vec![]));
}

#[test]
fn quarantine_survives_a_crash_in_its_middle() {
    let (scene, _) = with_manifests(2);
    scene.disk.flip(&manifest_path(102), 60, 1);
    let broken = scene.bytes(&manifest_path(102));
    let both_names = quarantine().join(manifest_path(102).file_name().unwrap());
    scene.disk.put(&both_names, &broken);
    scene.prune().unwrap();
    assert!(!scene.disk.exists(&manifest_path(102)).unwrap());
    assert_eq!(scene.bytes(&both_names), broken);
}

#[test]
fn with_nothing_usable_nothing_is_removed() {
    let (scene, _) = with_manifests(1);
    scene.disk.flip(&manifest_path(101), 60, 1);
    let before = scene.names(&snap());
    assert_eq!(scene.prune().unwrap(), Pruned::default());
    assert_eq!(scene.names(&snap()), before);
}

#[test]
fn what_cannot_be_read_this_time_is_not_judged() {
    for nth in 1.. {
        let (scene, _) = with_manifests(4);
        scene.disk.fail(Operation::Read, nth, ErrorKind::Other);
        let pruned = scene.prune();
        scene.disk.heal();
        if let Ok(pruned) = pruned {
            assert!(nth > 10 && pruned.manifests == 2, "every read was made to fail once");
            return;
        }
        assert_eq!((scene.names(&snap()).len(), scene.names(&quarantine()).len()), (8, 0), "read {nth}");
    }
}

#[test]
fn a_failed_publish_leaves_at_most_a_temporary_file() {
    let (scene, manifests) = with_manifests(1);
    scene.disk.fail(Operation::Sync, 1, ErrorKind::Other);
    let again = Manifest { number: 102, ..manifests[0].clone() };
    assert!(matches!(scene.publish(&again), Err(Error::Io { action: "sync", .. })));
    assert_eq!(scene.names(&tmp()), ["00000000000000000102.manifest"]);
    scene.publish(&again).unwrap();
    assert!(scene.names(&tmp()).is_empty());
    assert_eq!(loaded(&scene), (again, vec![]));
}

#[test]
fn the_bytes_of_a_manifest_stay_as_they_are() {
    let packs =
        (1..=2).map(|number| PackInfo { number, bytes: 5000 + number, footer_crc: 0xf007_e12c, chunks: 9 });
    let manifest = manifest(42, 0x0102_0304_0506_0708, packs.collect());
    assert_eq!(hex(&format::encode_manifest(&manifest)), include_str!("golden_manifest.txt"));
}
