use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::disk::{Operation, Simulated};
use crate::snapshot::fragile::{Forgets, Fragile};

const STORE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn root() -> &'static Path {
    Path::new("/data")
}

fn disk() -> Simulated {
    let disk = Simulated::new(1);
    disk.create_dir_all(root()).unwrap();
    disk
}

fn open(disk: &Simulated) -> Result<DataDir, Error> {
    DataDir::open_or_make(Arc::new(disk.clone()), root(), STORE)
}

fn format(started: bool) -> Format {
    Format { store: STORE, epoch: 1, started }
}

/// A store in which the log was begun.
fn started() -> Simulated {
    let disk = disk();
    let mut dir = open(&disk).unwrap();
    disk.put(&dir.wal_dir().join("00000000000000000001.wal"), b"a segment");
    dir.mark_started().unwrap();
    disk
}

fn why_damaged(disk: &Simulated) -> String {
    let before = disk.list(root()).unwrap();
    let Err(Error::Damaged { path, why }) = open(disk).map(drop) else { panic!("not damaged") };
    assert!(path.starts_with(root()));
    assert_eq!(disk.list(root()).unwrap(), before, "damage is left as it is");
    assert!(DataDir::inspect(Arc::new(disk.clone()), root()).is_err());
    why
}

#[test]
fn an_empty_directory_becomes_a_store_once() {
    let disk = disk();
    let dir = open(&disk).unwrap();
    assert_eq!(*dir.format(), format(false));
    assert_eq!(disk.list(root()).unwrap(), ["FORMAT", "quarantine", "snap", "tmp", "wal"]);
    let again = DataDir::open(Arc::new(disk.clone()), root()).unwrap();
    assert_eq!(*again.format(), format(false), "the store keeps the id it was given first");
}

#[test]
fn two_new_stores_have_different_ids() {
    let store = || DataDir::open(Arc::new(disk()), root()).unwrap().format().store;
    assert_ne!(store(), store());
}

#[test]
fn foreign_files_are_left_alone() {
    let disk = disk();
    disk.create_dir_all(&root().join("lost+found")).unwrap();
    for name in ["README.md", ".gitignore", "token.key", "LOCK"] {
        disk.put(&root().join(name), b"mine");
    }
    open(&disk).unwrap();
    assert_eq!(disk.list(root()).unwrap().len(), 5 + 5);
    assert_eq!(disk.bytes(&root().join("token.key")).unwrap(), b"mine");
}

#[test]
fn every_start_empties_tmp() {
    let disk = started();
    let tmp = root().join("tmp");
    disk.put(&tmp.join("00000000000000000009.pack"), b"half");
    disk.create_dir_all(&tmp.join("a directory of somebody")).unwrap();
    open(&disk).unwrap();
    assert_eq!(disk.list(&tmp).unwrap(), ["a directory of somebody"]);
}

#[test]
fn data_without_format_is_damage() {
    for (file, why) in
        [("wal/1.wal", "segments"), ("snap/1.pack", "snap/"), ("quarantine/1.wal", "quarantine/")]
    {
        let disk = started();
        disk.remove(&root().join("FORMAT")).unwrap();
        disk.remove(&root().join("wal/00000000000000000001.wal")).unwrap();
        disk.put(&root().join(file), b"data");
        let found = why_damaged(&disk);
        assert!(found.contains("FORMAT is missing") && found.contains(why), "{found}");
    }
}

#[test]
fn an_interrupted_first_start_is_no_damage() {
    let disk = disk();
    for dir in ["wal", "snap", "tmp", "quarantine"] {
        disk.create_dir_all(&root().join(dir)).unwrap();
    }
    disk.put(&root().join("tmp/FORMAT"), b"half of i");
    assert_eq!(*open(&disk).unwrap().format(), format(false));
}

#[test]
fn a_log_that_was_begun_and_is_gone_is_damage() {
    let disk = started();
    disk.remove(&root().join("wal/00000000000000000001.wal")).unwrap();
    disk.put(&root().join("snap/00000000000000000001.manifest"), b"does not help");
    disk.put(&root().join("wal/README"), b"neither does this");
    assert!(why_damaged(&disk).contains("no segment"));
}

#[test]
fn a_log_that_was_begun_without_a_mark_is_taken_as_it_is() {
    let disk = disk();
    open(&disk).unwrap();
    disk.put(&root().join("wal/00000000000000000001.wal"), b"a segment");
    let mut dir = open(&disk).unwrap();
    assert!(!dir.format().started);
    dir.mark_started().unwrap();
    let syncs = disk.count(Operation::Sync);
    dir.mark_started().unwrap();
    assert_eq!(disk.count(Operation::Sync), syncs, "the second mark costs nothing");
    assert!(open(&disk).unwrap().format().started);
}

#[test]
fn a_snapshot_before_the_first_record_is_damage() {
    let disk = disk();
    open(&disk).unwrap();
    disk.put(&root().join("snap/00000000000000000001.pack"), b"from nowhere");
    assert!(why_damaged(&disk).contains("never begun"));
}

#[test]
fn a_later_version_is_refused_with_its_number() {
    let disk = started();
    let body = "chinwag data directory\nversion 7\nwho knows what\n";
    let text = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
    disk.put(&root().join("FORMAT"), text.as_bytes());
    assert!(matches!(open(&disk), Err(Error::TooNew { found: 7, .. })));
}

#[test]
fn every_cut_and_every_flipped_bit_of_format_is_damage() {
    let disk = started();
    let path = root().join("FORMAT");
    let whole = disk.bytes(&path).unwrap();
    for len in 0..whole.len() {
        disk.put(&path, &whole[..len]);
        why_damaged(&disk);
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.put(&path, &bytes);
        why_damaged(&disk);
    }
    disk.put(&path, &whole);
    open(&disk).unwrap();
}

#[test]
fn a_format_that_nobody_would_write_is_damage() {
    let bodies = [
        "version 1\nstore 1\nepoch 1\nstarted no\n",
        "version 1\nstore 000102030405060708090A0B0C0D0E0F\nepoch 1\nstarted no\n",
        "version 1\nstore 000102030405060708090a0b0c0d0e0f\nepoch +1\nstarted no\n",
        "version 1\nstore 000102030405060708090a0b0c0d0e0f\nepoch 1\nstarted perhaps\n",
        "version 1\nstore 000102030405060708090a0b0c0d0e0f\nepoch 1\nstarted no\nmore\n",
        "version 0\nstore 000102030405060708090a0b0c0d0e0f\nepoch 1\nstarted no\n",
        "",
    ];
    for body in bodies {
        let text = format!("chinwag data directory\n{body}");
        let text = format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes()));
        assert_eq!(Format::decode(text.as_bytes()), Err(Malformed::Impossible), "{text}");
    }
    assert_eq!(Format::decode(b"GIF89a"), Err(Malformed::Foreign));
    assert_eq!(Format::decode(&[0xff; 140]), Err(Malformed::Foreign));
    let disk = disk();
    disk.put(&root().join("FORMAT"), &[b' '; 5000]);
    assert!(why_damaged(&disk).contains("5000 bytes"));
}

#[test]
fn the_bytes_of_format_stay_as_they_are() {
    let golden = "chinwag data directory\nversion 1\nstore 000102030405060708090a0b0c0d0e0f\nepoch 3\nstarted yes\n\
                  crc32c 5a087bfc\n";
    let format = Format { store: STORE, epoch: 3, started: true };
    assert_eq!(format.encode(), golden);
    assert_eq!(Format::decode(golden.as_bytes()), Ok(format));
}

#[test]
fn looking_changes_nothing() {
    let disk = disk();
    let look = |disk: &Simulated| DataDir::inspect(Arc::new(disk.clone()), root());
    assert!(matches!(look(&disk), Err(Error::Absent { .. })));
    assert!(disk.list(root()).unwrap().is_empty());
    let disk = started();
    disk.put(&root().join("tmp/left over"), b"");
    let changes =
        |disk: &Simulated| [Operation::Name, Operation::Write, Operation::Sync].map(|of| disk.count(of));
    let before = changes(&disk);
    assert_eq!(*look(&disk).unwrap().format(), format(true));
    assert_eq!(changes(&disk), before);
}

#[test]
fn a_directory_without_permission_or_room_is_not_writable_and_a_failing_disk_is_something_else() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem, ErrorKind::StorageFull] {
        let disk = disk();
        disk.fail(Operation::Name, 1, kind);
        let error = open(&disk).err().unwrap();
        assert!(matches!(error, Error::NotWritable { .. }), "{error}");
        assert!(error.to_string().starts_with("cannot create /data/wal: "), "{error}");
    }
    let disk = started();
    disk.fail(Operation::Read, 1, ErrorKind::Other);
    assert!(matches!(open(&disk), Err(Error::Io { action: "read", .. })), "unreadable is not damaged");
}

#[test]
fn a_failed_mark_is_an_error_and_can_be_made_later() {
    for operation in [Operation::Name, Operation::Write, Operation::Sync] {
        let disk = disk();
        let mut dir = open(&disk).unwrap();
        disk.fail(operation, 1, ErrorKind::Other);
        assert!(dir.mark_started().is_err() && !dir.format().started);
        dir.mark_started().unwrap();
        disk.put(&dir.wal_dir().join("1.wal"), b"");
        assert!(open(&disk).unwrap().format().started);
    }
}

/// What a server does up to its first acknowledgement.
fn start(disk: &Arc<dyn Disk>, store: [u8; 16]) -> Result<[u8; 16], Error> {
    let mut dir = DataDir::open_or_make(disk.clone(), root(), store)?;
    let (tmp, segment) = (dir.tmp_dir().join("1.wal"), dir.wal_dir().join("1.wal"));
    let begin = || {
        if !disk.exists(&segment)? {
            let file = disk.create(&tmp)?;
            file.write_at(b"header", 0)?;
            file.sync_all()?;
            disk.rename_new(&tmp, &segment)?;
        }
        disk.sync_dir(&dir.wal_dir())
    };
    begin().map_err(io_error("begin", &segment))?;
    dir.mark_started()?;
    Ok(dir.format().store)
}

/// First starts with crashes in them: never damage, and a store that once ran stays that store.
fn history(seed: u64, forgets: Forgets) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = Simulated::new(seed);
    disk.create_dir_all(root()).unwrap();
    let mut ran = None;
    for life in 0..6 {
        let fragile = Fragile::disk(disk.clone(), random.random_range(0..22), forgets);
        match start(&fragile, [life; 16]) {
            Ok(store) if ran.is_none_or(|ran| ran == store) => ran = Some(store),
            Ok(_) => return Err("another store".into()),
            Err(Error::Io { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        if random.random_bool(0.7) {
            disk = disk.crash();
        }
        let found = Found::look(&disk, root()).and_then(|found| found.judge(root()).map(|()| found));
        let found = found.map_err(|error| error.to_string())?.format;
        if ran.is_some() && found.is_none_or(|format| Some(format.store) != ran || !format.started) {
            return Err("a store that ran is gone".into());
        }
    }
    Ok(())
}

#[test]
fn no_crash_of_a_first_start_leaves_damage_or_loses_a_store_that_ran() {
    for seed in 0..10_000 {
        if let Err(why) = history(seed, Forgets::Nothing) {
            panic!("{why} in history({seed}, ..)");
        }
    }
}

#[test]
fn without_syncs_first_starts_are_caught_losing_stores() {
    for forgets in [Forgets::FileSyncs, Forgets::DirectorySyncs] {
        let caught = (0..300).filter(|&seed| history(seed, forgets).is_err()).count();
        assert!(caught > 30, "{forgets:?} was caught in {caught} of 300 histories only");
    }
}

#[test]
fn a_directory_is_locked_for_one_process_until_it_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/down");
    let lock = Lock::acquire(&root).unwrap();
    let error = Lock::acquire(&root).unwrap_err();
    assert!(matches!(error, Error::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(matches!(Lock::acquire_shared(&root), Err(Error::InUse { .. })));
    drop(lock);
    let lock = Lock::acquire(&root).unwrap();
    let mode = |name: &str| std::fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("LOCK"), mode(".")), (0o600, 0o700));
    drop(lock);
}

#[test]
fn readers_share_a_lock_and_make_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Lock::acquire_shared(dir.path()).unwrap().is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(Lock::acquire(dir.path()).unwrap());
    let readers = [Lock::acquire_shared(dir.path()).unwrap(), Lock::acquire_shared(dir.path()).unwrap()];
    assert!(readers.iter().all(Option::is_some));
    assert!(matches!(Lock::acquire(dir.path()), Err(Error::InUse { .. })));
}

#[test]
fn a_file_in_the_place_of_the_directory_is_told_with_its_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for root in [file.path().to_path_buf(), file.path().join("below")] {
        let error = Lock::acquire(&root).unwrap_err();
        assert!(matches!(error, Error::NotWritable { .. }), "{error}");
        assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_store_on_the_real_disk_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(crate::disk::Real);
    let _lock = Lock::acquire(dir.path()).unwrap();
    let store = DataDir::open_or_make(disk.clone(), dir.path(), STORE).unwrap().format().store;
    let again = DataDir::open(disk, dir.path());
    assert_eq!((store, again.unwrap().format().store), (STORE, STORE));
}
