//! Restarting: a node that ends after any step, in any way, comes back as it was.

use super::super::chunk::Loader;
use super::*;

/// One step of the story.
#[derive(Debug, Clone, Copy)]
enum Step {
    Send(&'static str, Where, &'static str),
    Recall(&'static str, Where, u32),
    Ack(&'static str, Where, u32),
    Create,
    Add(&'static str),
    Kick(&'static str),
    Leave(&'static str),
    Checkpoint,
    Compact,
}

/// Where a step happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    With(&'static str),
    Group,
}

use Step::{Ack, Add, Checkpoint, Compact, Create, Kick, Leave, Recall, Send};
use Where::{Group, With};

/// Every kind of record and of work, before and after checkpoints and compactions, and beside them
/// conversations that are only in a pack, only in the log, and in both.
const STORY: [Step; 28] = [
    Checkpoint,
    Send("alice", With("bob"), "one"),
    Compact,
    Send("bob", With("alice"), "two"),
    Create,
    Send("alice", Group, "welcome"),
    Checkpoint,
    Checkpoint,
    Recall("alice", With("bob"), 1),
    Ack("alice", With("bob"), 2),
    Send("alice", With("alice"), "a note"),
    Compact,
    Add("carol"),
    Send("carol", Group, "hello"),
    Kick("bob"),
    Checkpoint,
    Send("carol", Group, "who was that"),
    Recall("alice", Group, 3),
    Compact,
    Compact,
    Leave("alice"),
    Send("carol", Group, "alone"),
    Send("bob", With("alice"), "three"),
    Recall("bob", With("alice"), 2),
    Checkpoint,
    Ack("alice", With("bob"), 3),
    Compact,
    Send("alice", With("bob"), "four"),
];

impl Where {
    fn address(self) -> Address {
        match self {
            With(user) => to(user),
            Group => group("g"),
        }
    }
}

/// What the story has done so far, as plain texts; recalled ones are empty.
#[derive(Default)]
struct Told {
    texts: std::collections::BTreeMap<ConversationKey, Vec<String>>,
}

impl Told {
    fn of(&mut self, by: &str, at: Where) -> &mut Vec<String> {
        self.texts.entry(key(by, &at.address())).or_default()
    }

    async fn step(&mut self, life: &Life, step: Step) {
        let (conversations, alice, id) = (life.conversations(), caller("alice"), group_id("g"));
        match step {
            Send(by, at, text) => {
                let index = life.send(by, &at.address(), text).await.msg_index;
                let texts = self.of(by, at);
                texts.push(text.into());
                assert_eq!(index as usize, texts.len());
            }
            Recall(by, at, index) => {
                conversations.recall(&user(by), &at.address(), index).await.unwrap();
                self.of(by, at)[index as usize - 1].clear();
            }
            Ack(by, at, index) => conversations.ack(&user(by), &at.address(), index).await.unwrap(),
            Create => {
                self.of("alice", Group);
                let made =
                    conversations.create_group(&alice, Some(id), "name".into(), vec![user("bob")]).await;
                made.map(drop).unwrap();
            }
            Add(who) => conversations.add_members(&alice, &id, vec![user(who)]).await.unwrap(),
            Kick(who) => conversations.kick_members(&alice, &id, vec![user(who)]).await.unwrap(),
            Leave(who) => conversations.leave_group(&caller(who), &id).await.unwrap(),
            Checkpoint => life.checkpoint().unwrap(),
            Compact => life.compact().unwrap(),
        }
    }

    fn keys(&self) -> Vec<ConversationKey> {
        self.texts.keys().cloned().collect()
    }

    async fn assert_known(&self, life: &Life) {
        assert_eq!(life.conversations().count(), self.texts.len());
        for (key, texts) in &self.texts {
            assert_eq!(&texts_in(key, &life.image(key).await), texts, "{key}");
        }
    }
}

fn texts_in(key: &ConversationKey, image: &[Chunk]) -> Vec<String> {
    let mut loader = Loader::new(key.clone());
    image.iter().for_each(|chunk| loader.load(chunk.applied_lsn, &chunk.payload).unwrap());
    let history = loader.finish().unwrap().history;
    (1..=history.newest_message()).map(|index| history.message(index).unwrap().msg.to_owned()).collect()
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    PowerCut,
}

impl Life {
    async fn end(self, end: End) -> Simulated {
        match end {
            End::Stop => self.stop().await,
            End::Kill => self.kill().await,
            End::PowerCut => self.cut_power().await,
        }
    }
}

/// Ends the life and begins the next, which must be as the one before.
async fn restart(life: Life, told: &Told, end: End, after: usize) -> Life {
    let keys = told.keys();
    let before = life.images(&keys).await;
    let life = Life::begin(&life.end(end).await);
    assert_eq!(life.images(&keys).await, before, "{end:?} after step {after}: {:?}", STORY[after]);
    told.assert_known(&life).await;
    life
}

/// Restarts after every single step.
async fn a_story_with_restarts_after_every_step(seed: u64, end: End) {
    let mut life = Life::begin(&Simulated::new(seed));
    let mut told = Told::default();
    for (number, step) in STORY.into_iter().enumerate() {
        told.step(&life, step).await;
        life = restart(life, &told, end, number).await;
    }
    life.stop().await;
}

/// Restarts once, after so many steps of one life.
async fn a_story_with_one_restart(seed: u64, end: End) {
    for last in 0..STORY.len() {
        let life = Life::begin(&Simulated::new(seed));
        let mut told = Told::default();
        for step in &STORY[..=last] {
            told.step(&life, *step).await;
        }
        restart(life, &told, end, last).await.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_after_any_step_changes_nothing() {
    a_story_with_restarts_after_every_step(1, End::Stop).await;
    a_story_with_one_restart(1, End::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_after_any_step_changes_nothing() {
    a_story_with_restarts_after_every_step(1, End::Kill).await;
    a_story_with_one_restart(1, End::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_after_any_step_changes_nothing() {
    for seed in 1..=3 {
        a_story_with_restarts_after_every_step(seed, End::PowerCut).await;
        a_story_with_one_restart(seed, End::PowerCut).await;
    }
}

/// The control: without syncs the power cut must be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_on_a_disk_that_lies_about_syncs_a_power_cut_loses_messages() {
    let mut lost = 0;
    for seed in 1..=8 {
        let disk = Simulated::new(seed);
        Life::begin(&disk).stop().await;
        disk.lie_about_syncs();
        let life = Life::begin(&disk);
        life.send("alice", &to("bob"), "one").await;
        let left = life.cut_power().await;
        lost += usize::from(!comes_back_with_one_message(&left));
    }
    assert!(lost > 0);
}

fn comes_back_with_one_message(disk: &Simulated) -> bool {
    let Ok(data) = DataDir::open(Arc::new(disk.clone()), Path::new(ROOT)) else { return false };
    let place = Place::of(&data, Arc::new(disk.clone()));
    recovery::recover(&place, &data.wal_dir()).is_ok_and(|recovered| recovered.messages == 1)
}
