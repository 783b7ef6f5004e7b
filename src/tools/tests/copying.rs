//! Backups of running and stopped stores, and back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use super::*;
use crate::config::Moment;

fn restored(from: &Path, log: Option<&Path>, at: Option<Moment>) -> Result<(TempDir, Report), Error> {
    let data = tempfile::tempdir().unwrap();
    let plan = Plan { from, log, data: data.path(), at };
    let (_, report) = restore(&plan, &mut Vec::new())?;
    Ok((data, report))
}

fn format_of(dir: &Path) -> crate::data_dir::Format {
    DataDir::inspect(Arc::new(Real), dir).unwrap().format().clone()
}

fn lines_of(dir: &Path) -> String {
    let mut out = Vec::new();
    export(dir, &Selection::All, &mut out, &mut Vec::new()).unwrap();
    String::from_utf8(out).unwrap()
}

async fn back_up(life: &Life, dir: &Path, to: &Path) -> Result<Copied, Error> {
    let (operator, format) = (life.started.operator(), format_of(dir));
    let (dir, to) = (dir.to_path_buf(), to.to_path_buf());
    tokio::task::spawn_blocking(move || backup_running(&dir, &format, &operator, &to)).await.unwrap()
}

#[test]
fn a_backup_under_load_is_one_moment_and_has_everything_acknowledged_before_it() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    runtime().block_on(async {
        let life = Arc::new(Life::with(dir.path(), 16 << 20, Duration::ZERO));
        life.chat("monday").await;
        life.checkpoint(false);
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = ["x", "y", "z"]
            .map(|name| {
                let (life, stop) = (life.clone(), stop.clone());
                tokio::spawn(async move {
                    let (mut sent, mut slowest) = (0, Duration::ZERO);
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        let text = format!("{name} {sent} {}", "-".repeat(200));
                        sent = life.send(name, &Address::User(user("sink")), &text).await;
                        slowest = slowest.max(began.elapsed());
                    }
                    (sent, slowest)
                })
            })
            .into_iter()
            .collect();
        for number in 0..5 {
            let before = life.send("probe", &Address::User(user("sink")), &format!("before {number}")).await;
            let backup = to.path().join(number.to_string());
            let copied = back_up(&life, dir.path(), &backup).await.unwrap();
            assert!(copied.linked > 0 && copied.files > copied.linked, "{copied:?}");
            let (report, told) = verified(&backup);
            assert_eq!((report.verdict, report.last_lsn), (Verdict::Clean, copied.last_lsn), "{told}");
            assert!(lines_of(&backup).contains(&format!("before {number}")), "message {before}");
        }
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            let (sent, slowest) = sender.await.unwrap();
            assert!(
                sent > 0 && slowest < Duration::from_secs(30),
                "{sent} sent, the slowest took {slowest:?}"
            );
        }
        Arc::into_inner(life).unwrap().stop().await;
    });
    assert_eq!(verified(dir.path()).0.verdict, Verdict::Clean);
}

#[test]
fn a_backup_is_a_store_that_serves_and_does_not_change_with_the_one_it_came_from() {
    let runtime = runtime();
    let (dir, to) = (runtime.block_on(store()), tempfile::tempdir().unwrap());
    let backup = to.path().join("new/backup");
    let copied = backup_stopped(dir.path(), &backup).unwrap();
    let lines = lines_of(dir.path());
    assert_eq!((lines_of(&backup), copied.last_lsn), (lines.clone(), verified(dir.path()).0.last_lsn));
    let before = files(&backup);
    runtime.block_on(async {
        let life = Life::begin(dir.path());
        life.chat("friday").await;
        life.checkpoint(true);
        life.stop().await;
    });
    assert_eq!(files(&backup), before);
    let of_origin = files(dir.path());
    runtime.block_on(async {
        let life = Life::begin(&backup);
        life.chat("saturday").await;
        life.checkpoint(true);
        life.stop().await;
    });
    assert_eq!(files(dir.path()), of_origin);
    assert_eq!(verified(&backup).0.verdict, Verdict::Clean);
    assert!(lines_of(&backup) != lines);
}

#[test]
fn a_torn_tail_is_left_out_of_a_backup() {
    let (dir, to) = (runtime().block_on(store()), tempfile::tempdir().unwrap());
    let segment = newest(dir.path(), "wal", "wal");
    let bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(&segment, &bytes[..end - 3]).unwrap();
    backup_stopped(dir.path(), to.path()).unwrap();
    assert_eq!(verified(dir.path()).0.verdict, Verdict::TornTail);
    assert_eq!(verified(to.path()).0.verdict, Verdict::Clean);
    assert_eq!(lines_of(to.path()), lines_of(dir.path()));
}

#[test]
fn a_backup_goes_to_an_empty_directory_outside_the_store_or_nowhere() {
    let (dir, to) = (runtime().block_on(store()), tempfile::tempdir().unwrap());
    std::fs::write(to.path().join("mine"), b"x").unwrap();
    for to in [to.path(), dir.path(), &dir.path().join("wal/../snap/b")] {
        let refused = backup_stopped(dir.path(), to).unwrap_err();
        assert_eq!(refused.exit_code(), 73, "{}: {refused}", to.display());
    }
    assert_eq!(std::fs::read(to.path().join("mine")).unwrap(), b"x");
    let pack = newest(dir.path(), "snap", "pack");
    std::fs::remove_file(&pack).unwrap();
    std::fs::remove_file(newest(dir.path(), "snap", "pack")).unwrap();
    let new = to.path().join("new");
    let refused = backup_stopped(dir.path(), &new).unwrap_err();
    assert_eq!(refused.exit_code(), 65, "{refused}");
    assert!(!new.join("FORMAT").exists());
}

#[test]
fn a_restore_has_all_of_the_backup_and_a_new_epoch() {
    let (dir, to) = (runtime().block_on(store()), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("token.key"), b"secret").unwrap();
    backup_stopped(dir.path(), to.path()).unwrap();
    let (data, report) = restored(to.path(), None, None).unwrap();
    assert_eq!(report.state_hash, verified(dir.path()).0.state_hash);
    assert_eq!(lines_of(data.path()), lines_of(dir.path()));
    assert!(format_of(data.path()).epoch > format_of(dir.path()).epoch);
    assert_eq!(std::fs::read(data.path().join("token.key")).unwrap(), b"secret");
    let plan = Plan { from: to.path(), log: None, data: data.path(), at: None };
    assert_eq!(restore(&plan, &mut Vec::new()).unwrap_err().exit_code(), 73, "it is not empty any more");
    let (again, _) = restored(data.path(), None, None).unwrap();
    assert!(format_of(again.path()).epoch > format_of(data.path()).epoch, "also of a restore");
}

/// A store whose whole log is there, because it is kept. With the export after each record.
async fn recorded() -> (TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let mut steps = Vec::new();
    for day in ["monday", "tuesday", "wednesday"] {
        let life = Life::with(dir.path(), 64 << 10, Duration::from_secs(3600));
        for number in 0..4 {
            life.send("alice", &Address::User(user("bob")), &format!("{day} {number}")).await;
            let copy = tempfile::tempdir().unwrap();
            copy_all(dir.path(), copy.path());
            steps.push(lines_of(copy.path()));
        }
        life.stop().await;
    }
    (dir, steps)
}

#[test]
fn a_restore_goes_back_to_any_record_that_is_kept() {
    let (dir, steps) = runtime().block_on(recorded());
    for (number, lines) in steps.iter().enumerate() {
        let at = Some(Moment::Lsn(number as u64 + 1));
        let (data, report) = restored(dir.path(), None, at).unwrap();
        assert_eq!((&lines_of(data.path()), report.last_lsn), (lines, number as u64 + 1));
    }
    let beyond = restored(dir.path(), None, Some(Moment::Lsn(steps.len() as u64 + 1))).unwrap_err();
    assert!(beyond.to_string().contains("the log ends at record"), "{beyond}");
}

#[test]
fn a_restore_to_a_time_stops_before_the_first_later_message() {
    let now_ns = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let (dir, between) = (tempfile::tempdir().unwrap(), runtime().block_on(async { now_ns() }));
    let time = runtime().block_on(async {
        let life = Life::begin(dir.path());
        life.send("alice", &Address::User(user("bob")), "early").await;
        let time = now_ns();
        life.send("alice", &Address::User(user("bob")), "late").await;
        life.stop().await;
        time
    });
    let (data, _) = restored(dir.path(), None, Some(Moment::Time(time))).unwrap();
    assert!(lines_of(data.path()).contains("early") && !lines_of(data.path()).contains("late"));
    let (data, _) = restored(dir.path(), None, Some(Moment::Time(u64::MAX))).unwrap();
    assert!(lines_of(data.path()).contains("late"), "the control: it is there to be left out");
    let too_early = restored(dir.path(), None, Some(Moment::Time(between - 1))).unwrap_err();
    assert!(too_early.to_string().contains("after that moment"), "{too_early}");
}

#[test]
fn an_older_backup_and_a_later_log_reach_every_moment_between() {
    let runtime = runtime();
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (to.path().join("old"), to.path().join("new"));
    let bob = Address::User(user("bob"));
    let (first, second) = runtime.block_on(async {
        let life = Life::begin(dir.path());
        life.chat("monday").await;
        let first = back_up(&life, dir.path(), &old).await.unwrap();
        life.send("alice", &bob, "after the first backup").await;
        life.send("alice", &bob, "a mistake").await;
        let second = back_up(&life, dir.path(), &new).await.unwrap();
        life.stop().await;
        (first, second)
    });
    assert_eq!(second.last_lsn, first.last_lsn + 2);
    let at = Some(Moment::Lsn(first.last_lsn + 1));
    let (data, _) = restored(&old, Some(&new), at).unwrap();
    let lines = lines_of(data.path());
    assert!(lines.contains("after the first backup") && !lines.contains("a mistake"));
    let (data, _) = restored(&old, Some(&new), None).unwrap();
    assert_eq!(lines_of(data.path()), lines_of(&new));
    let stranger = restored(data.path(), Some(&new), None).unwrap_err();
    assert!(stranger.to_string().contains("epoch"), "{stranger}");
    let alone = restored(&old, None, at).unwrap_err();
    assert!(alone.to_string().contains("the log ends"), "{alone}");
}

#[test]
fn a_copy_that_fails_anywhere_is_no_store_and_can_be_made_again() {
    use crate::disk::{Disk, Operation, Simulated};
    let root = Path::new("root");
    let parts: Vec<_> = ["a.pack", "b.manifest"]
        .map(|name| super::super::copy::Part { from: Path::new("from").join(name), dir: "snap", bytes: None })
        .into();
    let attempt = |disk: &Simulated| {
        let mut target = super::super::copy::Target::begin(disk, root)?;
        target.copy_all(&parts)?;
        target.finish(&crate::data_dir::Format { store: [7; 16], epoch: 3, started: true }, 9)
    };
    for operation in [Operation::Read, Operation::Write, Operation::Sync, Operation::Name] {
        for nth in 1.. {
            let disk = Simulated::new(nth);
            disk.create_dir_all(Path::new("from")).unwrap();
            parts.iter().for_each(|part| disk.put(&part.from, b"content"));
            disk.fail(operation, nth, std::io::ErrorKind::Other);
            if attempt(&disk).is_ok() {
                assert!(nth > 1, "the control: {operation:?} fails at least once");
                break;
            }
            disk.heal();
            let whole = |disk: &Simulated| {
                let is_store = disk.exists(&root.join("FORMAT")).unwrap();
                let copy = disk.bytes(&root.join("snap/a.pack")).unwrap_or_default();
                !is_store || copy == b"content"
            };
            assert!(whole(&disk) && whole(&disk.crash()), "{operation:?} {nth}");
        }
    }
}
