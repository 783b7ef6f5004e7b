//! Scrubbing: what rots on the disk is known before somebody needs it, and costs nobody else anything.

use super::*;
use crate::disk::Operation;

/// All the time, as fast as it goes.
fn always() -> Options {
    let scrub = scrub::Options { interval: Duration::from_millis(24), bytes_per_second: 1 << 30 };
    Options { scrub, ..options() }
}

/// A store with two saved conversations, and what of the first one is in its pack.
async fn with_a_needle() -> (Simulated, PathBuf, usize) {
    let life = Life::begin(&Simulated::new(1));
    life.send("alice", &to("struck"), "the needle").await;
    life.send("alice", &to("healthy"), "hay").await;
    let disk = life.stop().await;
    let (file, at) = files_with(&disk, &["snap"], "the needle").pop().expect("in a pack");
    (disk, file, at)
}

fn begin(disk: &Simulated, options: Options) -> Life {
    Life::begin_with(disk, Arc::new(disk.clone()), options)
}

/// Waits until a round that began after now has ended.
async fn scrubbed(life: &Life) {
    let metrics = life.metrics.clone();
    for _ in 0..2 {
        metrics.scrub.finished.set(0);
        eventually("a round ends", || metrics.scrub.finished.get() > 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_in_a_chunk_is_found_once_and_refuses_its_conversation_alone() {
    let (disk, file, at) = with_a_needle().await;
    let life = begin(&disk, always());
    scrubbed(&life).await;
    assert_eq!((life.metrics.scrub.damaged.get(), life.directory().refused()), (0, 0), "the control");
    assert!(life.metrics.scrub.bytes.get() > 0);
    disk.flip(&file, at, 1);
    scrubbed(&life).await;
    assert_eq!((life.metrics.scrub.damaged.get(), life.directory().refused()), (1, 1));
    scrubbed(&life).await;
    assert_eq!(life.metrics.scrub.damaged.get(), 1, "told once");
    assert_eq!(life.pull("alice", &to("struck")).await.map(drop), Err(Rejection::Quarantined));
    assert_eq!(life.texts("alice", &to("healthy")).await, ["hay"]);
    assert_eq!(life.send("alice", &to("healthy"), "goes on").await.msg_index, 2);
    life.checkpoint().unwrap();
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_under_a_conversation_in_memory_is_told_and_it_is_served_on() {
    let (disk, file, at) = with_a_needle().await;
    let life = begin(&disk, always());
    assert_eq!(life.texts("alice", &to("struck")).await, ["the needle"]);
    disk.flip(&file, at, 1);
    scrubbed(&life).await;
    assert_eq!((life.metrics.scrub.damaged.get(), life.directory().refused()), (1, 0));
    assert_eq!(life.texts("alice", &to("struck")).await, ["the needle"]);
    assert_eq!(life.send("alice", &to("struck"), "goes on").await.msg_index, 2);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_in_an_index_and_in_a_closed_segment_is_told() {
    let (disk, file, _) = with_a_needle().await;
    let life = begin(&disk, always());
    life.send("alice", &to("healthy"), "the second needle").await;
    for _ in 0..40 {
        life.send("alice", &to("healthy"), &"x".repeat(1000)).await;
    }
    scrubbed(&life).await;
    assert_eq!(life.metrics.scrub.damaged.get(), 0, "the control");
    let end = disk.bytes(&file).expect("a pack").len();
    disk.flip(&file, end - 100, 1);
    let (segment, at) = files_with(&disk, &["wal"], "the second needle").pop().expect("in a segment");
    disk.flip(&segment, at, 1);
    scrubbed(&life).await;
    assert_eq!((life.metrics.scrub.damaged.get(), life.directory().refused()), (2, 0));
    assert_eq!(life.texts("alice", &to("struck")).await, ["the needle"]);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_read_once_is_refused_when_it_turns_out_to_be_bad() {
    let (disk, file, at) = with_a_needle().await;
    let life = begin(&disk, always());
    disk.fail_always(Operation::Read, std::io::ErrorKind::Other);
    scrubbed(&life).await;
    assert!(life.metrics.scrub.damaged.get() > 0);
    assert_eq!(life.directory().refused(), 0, "it may be readable when it is needed");
    disk.heal();
    disk.flip(&file, at, 1);
    scrubbed(&life).await;
    assert_eq!(life.directory().refused(), 1);
    assert_eq!(life.pull("alice", &to("struck")).await.map(drop), Err(Rejection::Quarantined));
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_scrub_ends_with_the_node() {
    let (disk, ..) = with_a_needle().await;
    let slow = scrub::Options { interval: Duration::from_millis(24), bytes_per_second: 1 };
    let life = begin(&disk, Options { scrub: slow, ..options() });
    eventually("it has begun", || life.metrics.scrub.bytes.get() > 0).await;
    life.stop().await;
}
