//! One thread that serves and commits, as on a machine with two cores.

use std::io;

use super::reserve::Reserve;
use super::*;
use crate::disk::Operation;

fn begin(disk: &Simulated) -> Life {
    Life::begin_with(disk, Arc::new(disk.clone()), Options { commits_in_place: true, ..options() })
}

/// So many that nearly all of them are committed in place.
const SENDS: u32 = 100;
const SENDERS: u32 = 16;

fn sender(number: u32) -> String {
    format!("sender {number}")
}

/// Each sender has a conversation of its own; all send at once.
async fn send_all(life: &Life) {
    let sends = (0..SENDERS).map(|number| async move {
        for index in 1..=SENDS {
            let receipt = life.send(&sender(number), &to("bob"), &index.to_string()).await;
            assert_eq!(receipt.msg_index, index);
        }
    });
    futures_util::future::join_all(sends).await;
}

async fn assert_has_all(life: &Life) {
    for number in 0..SENDERS {
        let page = life.pull(&sender(number), &to("bob")).await.unwrap();
        assert_eq!(page.max_msg_index, SENDS, "of {number}");
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut_and_many_share_a_sync() {
    let life = begin(&Simulated::new(1));
    let before = life.disk.count(Operation::Sync);
    send_all(&life).await;
    let syncs = life.disk.count(Operation::Sync) - before;
    assert!(syncs < u64::from(SENDS * SENDERS), "{syncs} syncs");
    assert_has_all(&life).await;
    let life = begin(&life.cut_power().await);
    assert_has_all(&life).await;
    life.stop().await;
}

#[tokio::test]
async fn a_failed_sync_answers_nobody_and_takes_nothing_back() {
    let life = begin(&Simulated::new(1));
    send_all(&life).await;
    life.disk.fail_always(Operation::Sync, io::ErrorKind::Other);
    let lost = life.conversations().send(&user("alice"), &to("bob"), draft("lost", "")).await;
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(life.started.log_probe()(), wal::State::Failed);
    let disk = life.disk.crash();
    life.bury().await;
    let life = begin(&disk);
    assert_has_all(&life).await;
    life.stop().await;
}

#[tokio::test]
async fn a_stop_answers_what_was_accepted() {
    let life = begin(&Simulated::new(1));
    send_all(&life).await;
    let conversations = life.conversations().clone();
    let late = tokio::spawn(async move {
        conversations.send(&user("alice"), &to("bob"), draft("late", "")).await.map(|sent| sent.msg_index)
    });
    while life.started.conversations.count() == SENDERS as usize {
        tokio::task::yield_now().await;
    }
    let disk = life.stop().await;
    assert_eq!(late.await.unwrap(), Ok(1));
    let life = begin(&disk);
    assert_eq!(life.texts("alice", &to("bob")).await, ["late"]);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_sync_in_place_hangs_pulls_are_answered_and_sends_wait() {
    let options = Options { commits_in_place: true, reserve: Reserve::keep_one(), ..options() };
    let disk = Simulated::new(1);
    let life = Life::begin_with(&disk, Arc::new(disk.clone()), options);
    send_all(&life).await;
    life.disk.pause_syncs();
    let conversations = life.conversations().clone();
    let waiting = tokio::spawn(async move {
        conversations.send(&user("alice"), &to("bob"), draft("late", "")).await.map(|sent| sent.msg_index)
    });
    while life.started.conversations.count() == SENDERS as usize {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(60), assert_has_all(&life)).await.expect("pulls are answered");
    assert!(!waiting.is_finished(), "answered before it was synced");
    life.disk.resume_syncs();
    assert_eq!(waiting.await.unwrap(), Ok(1));
    life.stop().await;
}
