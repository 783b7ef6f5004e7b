//! Erasing: what a recall takes back leaves the packs with a compaction, and the log when it moves on.

use super::*;

const SECRET: &str = "the secret";
/// The directories that hold what somebody wrote.
const EVERYWHERE: [&str; 4] = ["wal", "snap", "tmp", "quarantine"];

/// Secrets in a pair and in a group, saved, then recalled; and what stays.
async fn with_recalled_secrets(options: Options) -> Life {
    let disk = Simulated::new(1);
    let life = Life::begin_with(&disk, Arc::new(disk.clone()), options);
    let (conversations, id) = (life.conversations().clone(), group_id("g"));
    conversations.create_group(&caller("alice"), Some(id), "name".into(), vec![user("bob")]).await.unwrap();
    for (by, at) in [("alice", to("bob")), ("bob", group("g"))] {
        for text in ["kept", SECRET, "kept too"] {
            life.send(by, &at, text).await;
            life.checkpoint().unwrap();
        }
    }
    // One's own, and as the owner of the group another's.
    for at in [to("bob"), group("g")] {
        assert_eq!(conversations.recall(&user("alice"), &at, 2).await, Ok(1));
    }
    life
}

/// Compaction never gets anywhere by itself.
fn crawling() -> Options {
    Options { compaction: compaction::Options { bytes_per_second: 1, ..options().compaction }, ..options() }
}

async fn assert_the_rest_is_there(life: &Life) {
    for at in [to("bob"), group("g")] {
        assert_eq!(life.texts("alice", &at).await, ["kept", "", "kept too"]);
        assert_eq!(life.pull("alice", &at).await.unwrap().recalls, [(1, 2)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recalled_text_is_in_no_pack_after_a_compaction() {
    let life = with_recalled_secrets(options()).await;
    life.compact().unwrap();
    assert_eq!(files_with(&life.disk, &["snap", "tmp"], SECRET), []);
    assert_eq!(files_with(&life.disk, &["snap"], "kept too").len(), 1);
    assert_the_rest_is_there(&life).await;
    let disk = life.stop().await;
    assert_eq!(files_with(&disk, &["snap", "tmp"], SECRET), []);
    let life = Life::begin(&disk);
    assert_the_rest_is_there(&life).await;
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_before_a_compaction_recalled_text_is_in_packs() {
    let life = with_recalled_secrets(crawling()).await;
    life.checkpoint().unwrap();
    assert!(!files_with(&life.disk, &["snap"], SECRET).is_empty());
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_recalled_before_it_was_saved_is_in_no_pack() {
    let life = Life::begin(&Simulated::new(1));
    life.send("alice", &to("bob"), SECRET).await;
    life.conversations().recall(&user("alice"), &to("bob"), 1).await.unwrap();
    life.checkpoint().unwrap();
    assert_eq!(files_with(&life.disk, &["snap", "tmp"], SECRET), []);
    life.stop().await;
}

/// So much that the log goes on in a new segment.
async fn rotate_the_log(life: &Life) {
    for _ in 0..20 {
        life.send("alice", &to("others"), &"x".repeat(1000)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recalled_text_is_in_no_file_after_a_compaction() {
    let life = with_recalled_secrets(options()).await;
    assert!(!files_with(&life.disk, &["wal"], SECRET).is_empty());
    for _ in 0..2 {
        life.compact().unwrap();
        assert_eq!(files_with(&life.disk, &EVERYWHERE, SECRET), []);
        assert_eq!(segments(&life.disk).len(), 1);
    }
    assert_the_rest_is_there(&life).await;
    let disk = life.cut_power().await;
    let life = Life::begin(&disk);
    assert_the_rest_is_there(&life).await;
    // The log goes on where it was, though its segments are gone.
    assert_eq!(life.send("alice", &to("bob"), "more").await.msg_index, 4);
    let disk = life.stop().await;
    assert_eq!(files_with(&disk, &EVERYWHERE, SECRET), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_to_be_kept_keeps_recalled_text_through_a_compaction() {
    let life = with_recalled_secrets(Options { keep_log: NEVER, ..options() }).await;
    life.compact().unwrap();
    assert_eq!(files_with(&life.disk, &["snap", "tmp"], SECRET), []);
    assert!(!files_with(&life.disk, &["wal"], SECRET).is_empty());
    life.stop().await;
}

/// A checkpoint may have records that it does not cover; then nothing is left to save, and the log is not free yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_frees_the_log_also_when_nothing_is_left_to_save() {
    let life = Life::begin(&Simulated::new(1));
    let (conversations, alice, bob) = (life.conversations().clone(), user("alice"), to("bob"));
    life.send("alice", &bob, SECRET).await;
    life.disk.pause_syncs();
    let recall = cast(conversations.recall(&alice, &bob, 1)).await;
    life.pull("alice", &bob).await.unwrap();
    let operator = life.started.operator();
    let checkpoint = std::thread::spawn(move || operator.checkpoint(false));
    let is_begun = || {
        let names = life.disk.list(&Path::new(ROOT).join("tmp")).unwrap();
        names.iter().any(|name| name.to_string_lossy().ends_with(".pack"))
    };
    eventually("a checkpoint has begun", is_begun).await;
    life.disk.resume_syncs();
    assert_eq!(recall.await, Ok(1));
    tokio::task::block_in_place(|| checkpoint.join()).unwrap().unwrap();
    assert_eq!(life.manifest().replay_after_lsn, 1);
    assert!(!files_with(&life.disk, &["wal"], SECRET).is_empty());
    life.compact().unwrap();
    assert_eq!(life.manifest().replay_after_lsn, 2);
    assert_eq!(files_with(&life.disk, &EVERYWHERE, SECRET), []);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recalled_text_leaves_the_log_once_it_has_moved_on() {
    let life = with_recalled_secrets(crawling()).await;
    life.checkpoint().unwrap();
    rotate_the_log(&life).await;
    assert!(!files_with(&life.disk, &["wal"], SECRET).is_empty(), "no manifest covers its segment");
    life.checkpoint().unwrap();
    life.send("alice", &to("others"), "more").await;
    life.checkpoint().unwrap();
    assert_eq!(files_with(&life.disk, &["wal"], SECRET), []);
    assert_the_rest_is_there(&life).await;
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_goes_when_two_manifests_cover_it() {
    let life = with_recalled_secrets(crawling()).await;
    rotate_the_log(&life).await;
    life.checkpoint().unwrap();
    assert!(!files_with(&life.disk, &["wal"], SECRET).is_empty(), "one manifest covers it");
    life.send("alice", &to("others"), "more").await;
    life.checkpoint().unwrap();
    assert_eq!(files_with(&life.disk, &["wal"], SECRET), []);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crawling_merge_hurries_when_a_compaction_is_asked_for() {
    let life = with_recalled_secrets(crawling()).await;
    // The thread is in the middle of a merge by now, or will be; either has to end soon.
    let (operator, (done, outcome)) = (life.started.operator(), std::sync::mpsc::channel());
    std::thread::spawn(move || done.send(operator.checkpoint(true)));
    let outcome = tokio::task::block_in_place(|| outcome.recv_timeout(Duration::from_secs(60)));
    outcome.expect("in time").unwrap();
    assert_eq!(life.manifest().packs.len(), 1);
    assert_eq!(files_with(&life.disk, &["snap"], SECRET), []);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_who_asks_for_a_compaction_hears_how_it_went() {
    let life = with_recalled_secrets(options()).await;
    let outcomes = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let ask = || life.started.operator().checkpoint(true);
            let askers: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            askers.into_iter().map(|asker| asker.join().unwrap()).collect::<Vec<_>>()
        })
    });
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    life.stop().await;
}
