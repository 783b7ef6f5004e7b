//! Passivation: what is saved and idle leaves memory and comes back as it was; what is not saved stays.

use super::checkpoint::Desk;
use super::passivation::{Options, sweep};
use super::*;

const IDLE: Duration = Duration::from_secs(60);
/// A second of the node's life at which everything in it has long been idle.
const LONG_AFTER_S: u32 = 1_000_000;

/// Sweeps once all calls but `calls` are over; says how many conversations are in memory then.
async fn sweep_beside(calls: usize, life: &Life, options: &Options, now_s: u32) -> usize {
    // A permit is given back a moment after the answer.
    eventually("answered calls are over", || life.conversations().in_flight() == calls).await;
    let mut asks_nobody = Desk::new().growth(&super::options().checkpoint);
    sweep(options, life.directory(), now_s, &mut asks_nobody);
    life.conversations().resident()
}

const IDLE_ONLY: Options = Options { idle_after: IDLE, memory_bytes_max: u64::MAX };

async fn sweep_idle(life: &Life) -> usize {
    sweep_beside(0, life, &IDLE_ONLY, LONG_AFTER_S).await
}

async fn sweep_over(life: &Life, memory_bytes_max: u64) -> usize {
    sweep_beside(0, life, &Options { idle_after: NEVER, memory_bytes_max }, 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_left_memory_comes_back_with_the_same_answers() {
    let life = Life::begin(&Simulated::new(1));
    let (conversations, alice, bob) = (life.conversations().clone(), user("alice"), user("bob"));
    let first = conversations.send(&alice, &to("bob"), draft("first", "id")).await.unwrap();
    life.send("alice", &to("bob"), "regretted").await;
    let id = group_id("g");
    let members = ["bob", "carol"].map(user).to_vec();
    conversations.create_group(&caller("alice"), Some(id.clone()), "name".into(), members).await.unwrap();
    life.send("bob", &group("g"), "in the group").await;
    conversations.kick_members(&caller("alice"), &id, vec![user("carol")]).await.unwrap();
    assert_eq!(conversations.recall(&alice, &to("bob"), 2).await, Ok(1));
    conversations.ack(&bob, &to("alice"), 1).await.unwrap();
    let keys = [key("alice", &to("bob")), key("alice", &group("g"))];
    let images = life.images(&keys).await;
    life.checkpoint().unwrap();

    assert_eq!(sweep_idle(&life).await, 0);
    let page = life.pull("bob", &to("alice")).await.unwrap();
    assert_eq!(page.messages().map(text_of).collect::<Vec<_>>(), ["first", ""]);
    assert_eq!(page.recalls, [(1, 2)]);
    let retry = conversations.send(&alice, &to("bob"), draft("first", "id")).await;
    assert_eq!(retry, Ok(Receipt { duplicate: true, ..first }));
    let reused = conversations.send(&alice, &to("bob"), draft("other", "id")).await;
    assert_eq!(reused, Err(Rejection::ClientIdReused));
    assert_eq!(conversations.recall(&alice, &to("bob"), 2).await, Ok(1));
    conversations.ack(&bob, &to("alice"), 1).await.unwrap();
    let info = conversations.group_info(&caller("bob"), &id).await.unwrap();
    assert_eq!(
        (info.name.as_str(), info.members_count, info.duty),
        ("name", 2, crate::message::Duty::Member)
    );
    assert!(matches!(life.pull("carol", &group("g")).await, Err(Rejection::Forbidden(_))));
    assert_eq!(life.texts("alice", &group("g")).await, ["in the group"]);
    assert_eq!(life.images(&keys).await, images);
    // Nothing of this was a change.
    assert_eq!(sweep_idle(&life).await, 0);
    assert_eq!(life.send("bob", &to("alice"), "goes on").await.msg_index, 3);
    assert_eq!(conversations.count(), 2);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_pack_covers_stays_in_memory() {
    let life = Life::begin(&Simulated::new(1));
    for peer in ["saved", "changed"] {
        life.send("alice", &to(peer), "first").await;
    }
    assert_eq!(sweep_idle(&life).await, 2, "no pack has anything");
    life.checkpoint().unwrap();
    life.conversations().ack(&user("changed"), &to("alice"), 1).await.unwrap();
    assert_eq!(sweep_idle(&life).await, 1, "an ack is a record too");
    life.checkpoint().unwrap();
    assert_eq!(sweep_idle(&life).await, 0);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_stays_in_memory() {
    let life = Life::begin(&Simulated::new(1));
    life.send("alice", &to("bob"), "first").await;
    life.checkpoint().unwrap();
    let permit = life.directory().enter(&key("alice", &to("bob")), 0).expect("exists").expect("admitted");
    assert_eq!(sweep_beside(1, &life, &IDLE_ONLY, LONG_AFTER_S).await, 1, "a call is on its way");
    drop(permit);
    let now_s = life.conversations().shared.admission.now_s();
    assert_eq!(sweep_beside(0, &life, &IDLE_ONLY, now_s + 1).await, 1, "used a moment ago");
    assert_eq!(sweep_beside(0, &life, &IDLE_ONLY, now_s + 62).await, 0);
    life.stop().await;
}

/// Calls on the conversation of alice and bob, each before its like is durable, and a record of
/// others in between. The repeated ones go through the log as barriers.
async fn repeat_what_is_in_flight(life: &Life) {
    let (conversations, alice, bob) = (life.conversations(), user("alice"), user("bob"));
    let (to_alice, to_bob, to_others) = (to("alice"), to("bob"), to("others"));
    let send = || cast(conversations.send(&alice, &to_bob, draft("second", "id")));
    let recall = || cast(conversations.recall(&alice, &to_bob, 1));
    let ack = || cast(conversations.ack(&bob, &to_alice, 1));
    life.disk.pause_syncs();
    let first = (send().await, recall().await, ack().await);
    // Mailboxes are first in, first out: whoever is answered was behind the calls before.
    life.pull("alice", &to_bob).await.unwrap();
    let of_others = cast(conversations.send(&alice, &to_others, draft("theirs", ""))).await;
    life.pull("alice", &to_others).await.unwrap();
    let again = (send().await, recall().await, ack().await);
    life.pull("alice", &to_bob).await.unwrap();
    life.disk.resume_syncs();
    let receipt = first.0.await.unwrap();
    assert_eq!((first.1.await, first.2.await), (Ok(1), Ok(())));
    of_others.await.unwrap();
    assert_eq!(again.0.await, Ok(Receipt { duplicate: true, ..receipt }));
    assert_eq!((again.1.await, again.2.await), (Ok(1), Ok(())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_does_not_keep_a_conversation_in_memory() {
    let life = Life::begin(&Simulated::new(1));
    life.send("alice", &to("bob"), "first").await;
    repeat_what_is_in_flight(&life).await;
    life.checkpoint().unwrap();
    assert_eq!(sweep_idle(&life).await, 0);
    assert_eq!(life.texts("bob", &to("alice")).await, ["", "second"]);
    life.stop().await;
}

/// Ten conversations, each used once, in the order of their numbers and in different seconds.
async fn use_in_order(life: &Life) {
    for number in 0..10 {
        let peer = to(&format!("peer {number}"));
        let entered = life.directory().enter_or_begin(&key("alice", &peer), 0).expect("admitted");
        life.pull("alice", &peer).await.unwrap();
        entered.0.head.used_s.store(number, std::sync::atomic::Ordering::Relaxed);
    }
}

fn used(life: &Life) -> Vec<u32> {
    let mut used: Vec<_> = life.directory().usage().into_iter().map(|(used_s, _)| used_s).collect();
    used.sort_unstable();
    used
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_memory_limit_the_least_recently_used_go_and_loaded_ones_count() {
    let text = "x".repeat(3000);
    let life = Life::begin(&Simulated::new(1));
    for number in 0..10 {
        for _ in 0..5 {
            life.send("alice", &to(&format!("peer {number}")), &text).await;
        }
    }
    // Loaded from the log's tail, then from packs.
    let mut disk = life.kill().await;
    for _ in 0..2 {
        let life = Life::begin(&disk);
        use_in_order(&life).await;
        life.checkpoint().unwrap();
        let bytes: Vec<u64> = life.directory().usage().into_iter().map(|(_, bytes)| bytes).collect();
        assert!(bytes.iter().all(|bytes| *bytes > 5 * 3000), "their texts count: {bytes:?}");
        let total: u64 = bytes.iter().sum();
        assert_eq!(sweep_over(&life, total).await, 10, "under the limit nobody goes");
        sweep_over(&life, total / 2).await;
        let stay = used(&life);
        assert!(stay.len() <= 5 && stay.len() >= 3, "under half of the bytes, with some slack: {stay:?}");
        assert_eq!(stay, (10 - stay.len() as u32..10).collect::<Vec<_>>(), "the most recently used stay");
        assert_eq!(sweep_over(&life, 1).await, 0);
        assert_eq!(life.texts("alice", &to("peer 0")).await, vec![text.clone(); 5]);
        disk = life.kill().await;
    }
}
