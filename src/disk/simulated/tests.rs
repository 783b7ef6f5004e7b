use super::*;

const ROUNDS: u64 = 300;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn disk(seed: u64) -> Simulated {
    let disk = Simulated::new(seed);
    disk.create_dir_all(path("d")).unwrap();
    disk.create_dir_all(path("t")).unwrap();
    disk
}

#[test]
fn synced_bytes_under_a_synced_name_always_survive() {
    for seed in 0..ROUNDS {
        let disk = disk(seed);
        let file = disk.create(path("d/f")).unwrap();
        file.write_at(&[7; 3000], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(path("d")).unwrap();
        file.write_at(&[8; 3000], 3000).unwrap();
        let left = disk.crash().bytes(path("d/f")).unwrap();
        assert_eq!(left[..3000], [7; 3000], "seed {seed}");
    }
}

#[test]
fn unsynced_bytes_and_names_survive_only_sometimes_and_in_parts() {
    let (mut gone, mut whole, mut partly) = (0, 0, 0);
    for seed in 0..ROUNDS {
        let disk = disk(seed);
        let file = disk.create(path("d/f")).unwrap();
        file.write_at(&[7; 4096], 0).unwrap();
        match disk.crash().bytes(path("d/f")) {
            Err(_) => gone += 1,
            Ok(bytes) if bytes == [7; 4096] => whole += 1,
            Ok(_) => partly += 1,
        }
    }
    assert!(gone > 0 && whole > 0 && partly > 0, "{gone} {whole} {partly}");
}

#[test]
fn a_rename_never_loses_the_file() {
    let (mut old, mut new, mut both) = (0, 0, 0);
    for seed in 0..ROUNDS {
        let disk = disk(seed);
        let file = disk.create(path("t/f")).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(path("t")).unwrap();
        disk.rename_new(path("t/f"), path("d/f")).unwrap();
        let disk = disk.crash();
        match (disk.exists(path("t/f")).unwrap(), disk.exists(path("d/f")).unwrap()) {
            (true, false) => old += 1,
            (false, true) => new += 1,
            (true, true) => both += 1,
            (false, false) => panic!("seed {seed}: lost"),
        }
    }
    assert!(old > 0 && new > 0 && both > 0, "{old} {new} {both}");
}

#[test]
fn a_synced_directory_keeps_renames_and_removals() {
    for seed in 0..ROUNDS {
        let disk = disk(seed);
        for name in ["t/a", "d/b"] {
            disk.create(path(name)).unwrap().sync_data().unwrap();
        }
        disk.sync_dir(path("d")).unwrap();
        disk.rename(path("t/a"), path("d/a")).unwrap();
        disk.remove(path("d/b")).unwrap();
        disk.sync_dir(path("d")).unwrap();
        let disk = disk.crash();
        assert!(disk.exists(path("d/a")).unwrap() && !disk.exists(path("d/b")).unwrap(), "seed {seed}");
    }
}

#[test]
fn removals_of_different_names_survive_in_any_order() {
    let mut second_without_first = 0;
    for seed in 0..ROUNDS {
        let disk = disk(seed);
        for name in ["d/a", "d/b"] {
            disk.put(path(name), b"x");
        }
        disk.remove(path("d/a")).unwrap();
        disk.remove(path("d/b")).unwrap();
        let disk = disk.crash();
        second_without_first +=
            usize::from(disk.exists(path("d/a")).unwrap() && !disk.exists(path("d/b")).unwrap());
    }
    assert!(second_without_first > 0);
}

#[test]
fn a_failed_sync_is_readable_until_the_cache_is_dropped_and_never_mended() {
    let mut lost = 0;
    for seed in 0..ROUNDS {
        let disk = disk(seed);
        disk.put(path("d/f"), &[0; 2048]);
        let file = disk.open_write(path("d/f")).unwrap();
        file.write_at(&[7; 2048], 0).unwrap();
        disk.fail(Operation::Sync, 1, io::ErrorKind::Other);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        let disk = disk.kill();
        assert_eq!(disk.bytes(path("d/f")).unwrap(), [7; 2048]);
        disk.open(path("d/f")).unwrap().drop_cache().unwrap();
        lost += usize::from(disk.bytes(path("d/f")).unwrap() != [7; 2048]);
    }
    assert!(lost > ROUNDS as usize / 2, "{lost}");
}

#[test]
fn a_killed_process_loses_nothing() {
    let disk = disk(1);
    disk.create(path("d/f")).unwrap().write_at(b"hello", 0).unwrap();
    let old = disk.clone();
    let disk = disk.kill();
    disk.open(path("d/f")).unwrap().drop_cache().unwrap();
    assert_eq!(disk.bytes(path("d/f")).unwrap(), b"hello");
    assert!(old.open(path("d/f")).is_err());
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = disk(1);
    disk.set_capacity(1000);
    let file = disk.create(path("d/f")).unwrap();
    file.write_at(&[1; 600], 0).unwrap();
    let error = file.write_at(&[2; 600], 600).unwrap_err();
    assert_eq!((error.kind(), disk.used_bytes()), (io::ErrorKind::StorageFull, 1000));
    file.write_at(&[3; 600], 0).unwrap();
    disk.remove(path("d/f")).unwrap();
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn the_nth_operation_fails_once_or_for_good() {
    let disk = disk(1);
    let file = disk.create(path("d/f")).unwrap();
    disk.fail(Operation::Write, 2, io::ErrorKind::Other);
    file.write_at(b"a", 0).unwrap();
    file.write_at(b"b", 0).unwrap_err();
    file.write_at(b"c", 0).unwrap();
    disk.fail_always(Operation::Sync, io::ErrorKind::Other);
    file.sync_all().unwrap_err();
    disk.sync_dir(path("d")).unwrap_err();
    disk.heal();
    file.sync_all().unwrap();
    assert_eq!((disk.count(Operation::Write), disk.count(Operation::Sync)), (3, 3));
}

#[test]
fn one_seed_is_one_story() {
    let story = |seed| {
        let disk = disk(seed);
        let file = disk.create(path("d/f")).unwrap();
        file.write_at(&[7; 9000], 0).unwrap();
        disk.crash().bytes(path("d/f")).ok()
    };
    assert!((0..50).all(|seed| story(seed) == story(seed)));
}
