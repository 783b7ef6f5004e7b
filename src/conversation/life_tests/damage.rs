//! Damage: one conversation, or one pack, that cannot be read any more costs itself and nothing else.

use super::*;

/// What a conversation that is refused answers, whatever it is asked.
async fn assert_refused(life: &Life, by: &str, at: &Address) {
    let (conversations, by) = (life.conversations(), user(by));
    let answers = [
        life.pull(by.as_str(), at).await.map(drop),
        conversations.send(&by, at, draft("more", "")).await.map(drop),
        conversations.ack(&by, at, 1).await,
        conversations.recall(&by, at, 1).await.map(drop),
    ];
    assert!(answers.iter().all(|answer| *answer == Err(Rejection::Quarantined)), "{answers:?}");
}

/// Sends to others, with a checkpoint after each part, until the log would have been cut several
/// times; says how many packs were published.
async fn others_go_on(life: &Life) -> usize {
    let before = life.manifest().number;
    let mut published = std::collections::BTreeSet::new();
    for part in 0..4 {
        for number in 0..20 {
            life.send("alice", &to("healthy"), &format!("{part} {number} {}", "x".repeat(1000))).await;
        }
        life.checkpoint().unwrap();
        published.insert(life.manifest().number);
    }
    assert!(published.first() > Some(&before));
    published.len()
}

/// What happens to the conversation before others go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// Nothing: the control.
    None,
    /// Its chunk rots while the node is down.
    Damage,
    /// Its actor dies.
    Death,
}

/// A store of whose conversations one is struck, with a saved and an unsaved record each.
struct Struck {
    life: Life,
    pair: Address,
    /// Its image before.
    image: Vec<Chunk>,
    /// The damaged byte.
    byte: Option<(PathBuf, usize)>,
}

/// Replay begins behind the second record, and the third is the first that no pack has.
const SAVED: u64 = 2;

impl Struck {
    async fn by(blow: Blow) -> Self {
        let (life, pair) = (Life::begin(&Simulated::new(1)), to("struck"));
        life.send("alice", &pair, "the needle").await;
        life.send("alice", &to("healthy"), "hay").await;
        life.checkpoint().unwrap();
        assert_eq!(life.manifest().replay_after_lsn, SAVED);
        life.send("alice", &pair, "not in a pack").await;
        let image = life.image(&key("alice", &pair)).await;
        let mut struck = Self { life, pair, image, byte: None };
        match blow {
            Blow::None => {}
            Blow::Damage => struck.damage().await,
            Blow::Death => struck.kill_actor().await,
        }
        struck
    }

    async fn damage(&mut self) {
        let disk = self.life.disk.kill();
        let mut found = files_with(&disk, &["snap"], "the needle");
        let (file, at) = found.pop().expect("in a pack");
        disk.flip(&file, at, 1);
        let life = std::mem::replace(&mut self.life, Life::begin(&disk));
        life.bury().await;
        self.byte = Some((file, at));
    }

    async fn kill_actor(&self) {
        kill_actor(self.life.directory(), &key("alice", &self.pair));
        // Whether the call was in the mailbox already decides what it hears.
        let first = self.life.pull("alice", &self.pair).await;
        assert!(matches!(first, Err(Rejection::Broken(_) | Rejection::Quarantined)), "{first:?}");
    }

    fn mend(&self, disk: &Simulated) {
        self.byte.iter().for_each(|(file, at)| disk.flip(file, *at, 1));
    }
}

async fn a_struck_conversation_holds_up_nothing_else(blow: Blow) {
    let struck = Struck::by(blow).await;
    let life = &struck.life;
    assert_refused(life, "alice", &struck.pair).await;
    assert_eq!(others_go_on(life).await, 4);
    assert_refused(life, "struck", &to("alice")).await;
    assert_eq!(life.manifest().replay_after_lsn, SAVED, "replay begins with what only the log has");
    assert_eq!(segments(&life.disk)[0], 1, "the segment with it is kept");
    assert_eq!(life.texts("alice", &to("healthy")).await.len(), 50);
    let count = life.conversations().count();

    let disk = life.disk.kill();
    struck.mend(&disk);
    let life = Life::begin(&disk);
    assert_eq!(life.conversations().count(), count);
    assert_eq!(life.image(&key("alice", &struck.pair)).await, struck.image);
    assert_eq!(life.texts("struck", &to("alice")).await, ["the needle", "not in a pack"]);
    assert_eq!(life.send("struck", &to("alice"), "again").await.msg_index, 3);
    assert_eq!(others_go_on(&life).await, 4);
    assert!(life.manifest().replay_after_lsn > SAVED + 80);
    assert!(segments(&life.disk)[0] > SAVED + 1, "now the log is cut");
    life.stop().await;
    struck.life.bury().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_chunk_refuses_its_conversation_and_holds_up_nothing_else() {
    a_struck_conversation_holds_up_nothing_else(Blow::Damage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_actor_refuses_its_conversation_and_holds_up_nothing_else() {
    a_struck_conversation_holds_up_nothing_else(Blow::Death).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_what_nothing_strikes_is_saved_and_the_log_behind_it_is_cut() {
    let struck = Struck::by(Blow::None).await;
    assert_eq!(others_go_on(&struck.life).await, 4);
    assert!(struck.life.manifest().replay_after_lsn > SAVED + 80);
    assert!(segments(&struck.life.disk)[0] > SAVED + 1);
    assert_eq!(struck.life.image(&key("alice", &struck.pair)).await, struck.image);
    struck.life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_group_is_refused_and_not_free_to_be_created() {
    let life = Life::begin(&Simulated::new(1));
    let (alice, id) = (caller("alice"), group_id("g"));
    life.conversations().create_group(&alice, Some(id.clone()), "the needle".into(), vec![]).await.unwrap();
    let disk = life.stop().await;
    let (file, at) = files_with(&disk, &["snap"], "the needle").pop().expect("in a pack");
    disk.flip(&file, at, 1);
    let life = Life::begin(&disk);
    let again = life.conversations().create_group(&alice, Some(id.clone()), "mine".into(), vec![]).await;
    assert_eq!(again, Err(Rejection::Quarantined));
    assert_eq!(life.conversations().group_info(&alice, &id).await, Err(Rejection::Quarantined));
    assert_eq!(life.conversations().leave_group(&alice, &id).await, Err(Rejection::Quarantined));
    assert_refused(&life, "alice", &group("g")).await;
    let listed = life.conversations().groups(&user("alice"), "", 10).await;
    assert_eq!(listed.err(), Some(Rejection::Quarantined), "a list without it would say that she is out");
    life.stop().await;
}

/// A store whose only pack has a damaged chunk.
async fn with_a_damaged_pack() -> Simulated {
    let life = Life::begin(&Simulated::new(1));
    life.send("alice", &to("struck"), "the needle").await;
    life.send("alice", &to("healthy"), "hay").await;
    let disk = life.stop().await;
    let (file, at) = files_with(&disk, &["snap"], "the needle").pop().expect("in a pack");
    disk.flip(&file, at, 1);
    disk
}

fn names_the_first_pack(outcome: &Result<(), start::CheckpointError>, manifest: &Manifest) -> bool {
    use compaction::Error::Unreadable;
    let first = manifest.packs[0].number;
    matches!(outcome, Err(start::CheckpointError::Compaction(Unreadable { pack, .. })) if *pack == first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_pack_is_reported_and_those_behind_it_are_merged() {
    let life = Life::begin(&with_a_damaged_pack().await);
    for round in 0..3 {
        for _ in 0..3 {
            life.send("alice", &to("healthy"), "more hay").await;
            life.checkpoint().unwrap();
        }
        let outcome = life.compact();
        assert!(names_the_first_pack(&outcome, &life.manifest()), "round {round}: {outcome:?}");
        assert_eq!(life.manifest().packs.len(), 2, "round {round}: the damaged one, and all others in one");
    }
    assert_eq!(life.texts("alice", &to("healthy")).await.len(), 10);
    assert_refused(&life, "alice", &to("struck")).await;
    let disk = life.stop().await;
    let life = Life::begin(&disk);
    assert_eq!(life.texts("alice", &to("healthy")).await.len(), 10);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_do_not_pile_up_behind_a_damaged_one() {
    let life = Life::begin(&with_a_damaged_pack().await);
    for _ in 0..40 {
        life.send("alice", &to("healthy"), "more hay").await;
        life.checkpoint().unwrap();
    }
    let packs_max = options().compaction.packs_max + 1;
    eventually("few packs", || life.manifest().packs.len() <= packs_max).await;
    life.stop().await;
}

fn recover(disk: &Simulated) -> Result<recovery::Recovered, recovery::Error> {
    let data = DataDir::inspect(Arc::new(disk.clone()), Path::new(ROOT)).unwrap();
    recovery::recover(&Place::of(&data, Arc::new(disk.clone())), &data.wal_dir())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_what_the_packs_have_is_refused() {
    let life = Life::begin(&Simulated::new(1));
    let segment = Path::new(ROOT).join("wal/00000000000000000001.wal");
    life.send("alice", &to("bob"), "one").await;
    let older = life.disk.bytes(&segment).unwrap();
    life.send("alice", &to("bob"), "two").await;
    let disk = life.stop().await;
    assert_eq!(recover(&disk).unwrap().messages, 2);
    disk.put(&segment, &older);
    assert!(matches!(recover(&disk), Err(recovery::Error::Log(wal::Error::EndsEarly { .. }))));
    // Chunks may hold more than their manifest covers.
    let manifest = manifest_on(&disk);
    let data = DataDir::inspect(Arc::new(disk.clone()), Path::new(ROOT)).unwrap();
    let covers_less = Manifest { number: manifest.number + 1, replay_after_lsn: 1, ..manifest };
    snapshot::publish(&disk, &data.tmp_dir(), &data.snap_dir(), &covers_less).unwrap();
    let ends_early = recover(&disk).map(|_| ());
    assert!(
        matches!(ends_early, Err(recovery::Error::LogEndsEarly { snapshot: 2, log: 1 })),
        "{ends_early:?}"
    );
}
