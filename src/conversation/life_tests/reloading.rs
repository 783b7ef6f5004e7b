//! Reloading: a conversation whose actor died comes back with everything that the actor had taken.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;

/// At once, and as often as it takes.
fn at_once() -> Options {
    let reload =
        reload::Options { first_delay: Duration::ZERO, attempts_max: 1, forgiven_after: Duration::ZERO };
    Options { reload, ..options() }
}

fn begin(options: Options) -> Life {
    let disk = Simulated::new(1);
    Life::begin_with(&disk, Arc::new(disk.clone()), options)
}

/// Calls until the conversation is not refused any more.
async fn patiently<T, F: Future<Output = Result<T, Rejection>>>(call: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match call().await {
            Err(Rejection::Quarantined | Rejection::Broken(_) | Rejection::Overloaded) => {
                assert!(Instant::now() < deadline, "it does not come back");
                tokio::task::yield_now().await;
            }
            answer => return answer.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_whose_actor_died_comes_back_with_everything() {
    let life = begin(at_once());
    let (conversations, alice, bob) = (life.conversations().clone(), user("alice"), to("bob"));
    let (its_peer, to_alice) = (user("bob"), to("alice"));
    life.send("alice", &bob, "in a pack").await;
    life.checkpoint().unwrap();
    life.send("alice", &bob, "regretted").await;
    conversations.recall(&alice, &bob, 2).await.unwrap();
    life.disk.pause_syncs();
    let third = cast(conversations.send(&alice, &bob, draft("on its way", "id"))).await;
    let ack = cast(conversations.ack(&its_peer, &to_alice, 1)).await;
    kill_actor(life.directory(), &key("alice", &bob));
    let first = life.pull("alice", &bob).await;
    assert!(matches!(first, Err(Rejection::Broken(_) | Rejection::Quarantined)), "{first:?}");
    // What it had taken is not on the disk, so nobody knows the next index.
    for _ in 0..10 {
        assert_eq!(life.pull("alice", &bob).await.map(drop), Err(Rejection::Quarantined));
    }
    life.disk.resume_syncs();
    let third = third.await.unwrap();
    assert_eq!((third.msg_index, ack.await), (3, Ok(())));
    let page = patiently(|| life.pull("alice", &bob)).await;
    assert_eq!(page.messages().map(text_of).collect::<Vec<_>>(), ["in a pack", "", "on its way"]);
    assert_eq!(page.recalls, [(1, 2)]);
    let again = conversations.send(&alice, &bob, draft("on its way", "id")).await;
    assert_eq!(again, Ok(Receipt { duplicate: true, ..third }));
    assert_eq!(life.send("alice", &bob, "goes on").await.msg_index, 4);
    assert_eq!((conversations.count(), life.directory().refused()), (1, 0));

    let image = life.image(&key("alice", &bob)).await;
    life.checkpoint().unwrap();
    assert_eq!(life.manifest().replay_after_lsn, 6, "it is as others are");
    let disk = life.cut_power().await;
    let life = Life::begin(&disk);
    assert_eq!(life.image(&key("alice", &bob)).await, image);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_dies_again_and_again_is_refused_in_the_end() {
    let life = begin(Options {
        reload: reload::Options { attempts_max: 2, forgiven_after: NEVER, ..at_once().reload },
        ..options()
    });
    let bob = to("bob");
    life.send("alice", &bob, "first").await;
    for death in 1..=3 {
        kill_actor(life.directory(), &key("alice", &to("bob")));
        life.pull("alice", &to("bob")).await.unwrap_err();
        eventually("its death is noticed", || life.metrics.conversations.actors_died.get() == death).await;
        if death < 3 {
            patiently(|| life.pull("alice", &bob)).await;
        }
    }
    // A return is counted a moment after calls get in again.
    eventually("both returns are counted", || life.metrics.conversations.reloaded.get() == 2).await;
    assert_eq!(life.pull("alice", &to("bob")).await.map(drop), Err(Rejection::Quarantined));
    assert_eq!((life.directory().refused(), life.conversations().count()), (1, 1));
    // It costs nobody anything, and is there after a restart.
    life.send("alice", &to("carol"), "others").await;
    life.checkpoint().unwrap();
    let life = Life::begin(&life.kill().await);
    assert_eq!(life.texts("alice", &to("bob")).await, ["first"]);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_on_the_disk_does_not_come_back() {
    let life = begin(options());
    life.send("alice", &to("bob"), "the needle").await;
    let disk = life.stop().await;
    let (file, at) = files_with(&disk, &["snap"], "the needle").pop().expect("in a pack");
    disk.flip(&file, at, 1);
    let life = Life::begin_with(&disk, Arc::new(disk.clone()), at_once());
    for _ in 0..10 {
        assert_eq!(life.pull("alice", &to("bob")).await.map(drop), Err(Rejection::Quarantined));
    }
    assert_eq!((life.metrics.conversations.actors_died.get(), life.directory().refused()), (0, 1));
    life.stop().await;
}

/// What was acknowledged: the text at each index.
type Acknowledged = Mutex<BTreeMap<u32, String>>;

async fn send_many(life: &Life, sender: &str, count: u32, acknowledged: &Acknowledged) {
    let (from, at) = (user(sender), group("g"));
    for number in 0..count {
        let text = format!("{sender} {number}");
        let message = draft(&text, &format!("{number}"));
        let receipt = patiently(|| life.conversations().send(&from, &at, message.clone())).await;
        let before = acknowledged.lock().unwrap().insert(receipt.msg_index, text);
        assert_eq!(before, None, "index {} was handed out twice", receipt.msg_index);
    }
}

/// Kills it after every few messages, with checkpoints and merges in between, until everything is sent.
async fn strike(life: &Life, all: usize, acknowledged: &Acknowledged) -> u32 {
    let (key, mut struck) = (key("a", &group("g")), 0);
    loop {
        let sent = acknowledged.lock().unwrap().len();
        if sent >= all {
            return struck;
        }
        tokio::task::yield_now().await;
        let entered = life.directory().escort(&key).ok().filter(|_| sent >= struck as usize * 6);
        let Some((running, permit)) = entered else { continue };
        if running.actor.cast(Message::Panic).is_ok() {
            drop(permit);
            struck += 1;
            match struck % 5 {
                0 => life.checkpoint().map_or_else(may_be_interrupted, drop),
                1 => life.compact().map_or_else(may_be_interrupted, drop),
                _ => {}
            }
        }
    }
}

/// A checkpoint in which an actor dies between two chunks, or which lacks it, is no failure of the test.
fn may_be_interrupted(why: start::CheckpointError) {
    use start::CheckpointError::{Checkpoint, LogKept};
    assert!(matches!(why, Checkpoint(checkpoint::Error::Interrupted(_)) | LogKept(_)), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_many_deaths_nothing_acknowledged_is_lost_and_no_index_is_handed_out_twice() {
    let life = begin(at_once());
    let (conversations, acknowledged) = (life.conversations(), Acknowledged::default());
    let members = ["b", "c"].map(user).to_vec();
    conversations.create_group(&caller("a"), Some(group_id("g")), "g".into(), members).await.unwrap();
    let (_, _, _, struck) = tokio::join!(
        send_many(&life, "a", 60, &acknowledged),
        send_many(&life, "b", 60, &acknowledged),
        send_many(&life, "c", 60, &acknowledged),
        strike(&life, 180, &acknowledged),
    );
    assert!(struck > 3, "only {struck} deaths");
    let there = |life: &Life| {
        let (life, by, at) = (life.conversations().clone(), user("b"), group("g"));
        async move {
            let mut texts = Vec::new();
            while texts.len() < 180 {
                let start_msg_index = texts.len() as u32 + 1;
                let pull = Pull { start_msg_index, ..from_the_beginning() };
                let page = patiently(|| life.pull(&by, &at, pull.clone())).await;
                texts.extend(page.messages().map(text_of));
            }
            texts
        }
    };
    let expected: Vec<String> = acknowledged.into_inner().unwrap().into_values().collect();
    assert_eq!(there(&life).await, expected);
    let disk = life.cut_power().await;
    let life = Life::begin(&disk);
    assert_eq!(there(&life).await, expected);
    life.stop().await;
}

/// A life with a conversation whose next series has two chunks, and another one behind it.
async fn with_a_long_series(options: Options) -> Life {
    let life = begin(options);
    for _ in 0..2 {
        for _ in 0..20 {
            life.send("alice", &to("bob"), &"x".repeat(60_000)).await;
        }
    }
    life.send("zoe", &to("yves"), "behind it").await;
    life
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_dies_between_two_chunks_gives_the_checkpoint_up_and_is_left_out_of_the_next() {
    let life = with_a_long_series(with_room(options())).await;
    let (directory, of) = (life.directory().clone(), key("alice", &to("bob")));
    let image = life.conversations().pull(&user("bob"), &to("alice"), from_the_beginning()).await.unwrap();
    life.directory().meanwhile.plan(move || kill_actor(&directory, &of));
    let outcome = life.checkpoint();
    assert!(
        matches!(&outcome, Err(start::CheckpointError::Checkpoint(checkpoint::Error::Interrupted(key))) if *key == self::key("alice", &to("bob"))),
        "{outcome:?}"
    );
    assert!(life.disk.list(&Path::new(ROOT).join("snap")).unwrap().is_empty(), "half a series is no pack");
    life.checkpoint().unwrap();
    assert_eq!(life.manifest().replay_after_lsn, 0, "its records stay in the log");
    assert_eq!(files_with(&life.disk, &["snap"], "behind it").len(), 1);
    assert_eq!(files_with(&life.disk, &["snap"], "xxxx"), []);
    let life = Life::begin(&life.kill().await);
    assert_eq!(life.pull("bob", &to("alice")).await.unwrap(), image);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_goes_on_with_the_actor_that_came_back_in_its_middle() {
    let life = with_a_long_series(with_room(at_once())).await;
    let (directory, of) = (life.directory().clone(), key("alice", &to("bob")));
    let (image, metrics) = (life.pull("bob", &to("alice")).await.unwrap(), life.metrics.clone());
    life.directory().meanwhile.plan(move || {
        kill_actor(&directory, &of);
        let deadline = Instant::now() + Duration::from_secs(60);
        while metrics.conversations.reloaded.get() == 0 {
            // Whoever casts to it notices that it is gone.
            let Ok((running, permit)) = directory.escort(&of) else { continue };
            let (to, answer) = oneshot::channel();
            let request = Message::Collect { saved: Saved::default(), to, permit };
            if running.actor.cast(request).is_err() || answer.blocking_recv().is_err() {
                directory.quarantine(&running.head);
            }
            assert!(Instant::now() < deadline, "it does not come back");
        }
    });
    life.checkpoint().unwrap();
    assert_eq!(life.manifest().replay_after_lsn, 41);
    let life = Life::begin(&life.kill().await);
    assert_eq!(life.pull("bob", &to("alice")).await.unwrap(), image);
    life.stop().await;
}
