//! Lists, sync and unread counts: what a user sees of all conversations is what plain lists say, hot and
//! cold, after restarts and power cuts, while people come and go.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::passivation::{Options as Passivation, sweep};
use super::*;
use crate::conversation::checkpoint::Desk;
use crate::message::{Chat, Position, Sync};

const USERS: [&str; 6] = ["ann", "ben", "cat", "dan", "eva", "fay"];
const GROUPS: [&str; 3] = ["g-1", "g-2", "g-3"];

/// One conversation as plain lists.
#[derive(Debug, Clone, Default)]
struct Talk {
    /// Sender, text, and the recall that took it back.
    messages: Vec<(&'static str, String, u32)>,
    recalls: u32,
    cursors: BTreeMap<&'static str, u32>,
    newest_ns: u64,
    /// Who is in.
    people: BTreeSet<&'static str>,
    /// First message that each may read.
    readable_from: BTreeMap<&'static str, u32>,
    /// A group of which only the id is left.
    has_ended: bool,
}

/// What a list has to show of a conversation: indices, read cursor, unread, newest text.
type Shown = (u32, u32, u32, u32, Option<String>);

impl Talk {
    fn shown_to(&self, who: &str) -> Shown {
        let cursor = self.cursors.get(who).copied().unwrap_or(0);
        let behind = &self.messages[cursor as usize..];
        let unread = behind.iter().filter(|(sender, _, recall)| *sender != who && *recall == 0).count();
        let newest = self.messages.len() as u32;
        let may_read = newest >= self.readable_from.get(who).copied().unwrap_or(1);
        let last = self.messages.last().filter(|_| may_read);
        let last = last.map(|(_, text, recall)| if *recall == 0 { text.clone() } else { String::new() });
        (newest, self.recalls, cursor, unread as u32, last)
    }
}

#[derive(Default)]
struct World {
    talks: BTreeMap<ConversationKey, Talk>,
    /// Who blocks whom.
    blocks: BTreeSet<(&'static str, &'static str)>,
    sent: u32,
}

impl World {
    fn of(&self, who: &str) -> BTreeMap<ConversationKey, Shown> {
        let talks = self.talks.iter().filter(|(_, talk)| talk.people.contains(who));
        talks.map(|(key, talk)| (key.clone(), talk.shown_to(who))).collect()
    }

    async fn step(&mut self, life: &Life, random: &mut StdRng) {
        match random.random_range(0..20) {
            0..9 => self.send(life, random).await,
            9 => self.relate(life, random).await,
            _ => self.step_of_one(life, random).await,
        }
    }

    async fn step_of_one(&mut self, life: &Life, random: &mut StdRng) {
        match random.random_range(5..10) {
            5 => self.recall(life, random).await,
            6..8 => self.ack(life, random).await,
            _ => self.change_group(life, random).await,
        }
    }

    async fn send(&mut self, life: &Life, random: &mut StdRng) {
        let from = *USERS.choose(random).unwrap();
        let at = match random.random_range(0..3) {
            0 => group(GROUPS.choose(random).unwrap()),
            _ => to(USERS.choose(random).unwrap()),
        };
        let key = key(from, &at);
        if matches!(at, Address::Group(_))
            && !self.talks.get(&key).is_some_and(|talk| talk.people.contains(from))
        {
            return;
        }
        if let Address::User(other) = &at
            && self.blocks.iter().any(|(who, whom)| *who == other.as_str() && *whom == from)
        {
            let refused = life.conversations().send(&user(from), &at, draft("blocked", "")).await;
            assert!(matches!(refused, Err(Rejection::Forbidden(_))), "{from} to {other}: {refused:?}");
            return;
        }
        self.sent += 1;
        let text = format!("text {}", self.sent);
        let receipt = life.send(from, &at, &text).await;
        let talk = self.talks.entry(key.clone()).or_default();
        if let ConversationKey::Direct(first, second) = &key {
            let both =
                [first, second].map(|user| *USERS.iter().find(|name| **name == user.as_str()).unwrap());
            talk.people.extend(both);
        }
        talk.messages.push((from, text, 0));
        talk.cursors.insert(from, receipt.msg_index);
        talk.newest_ns = receipt.timestamp_ns;
        assert_eq!(receipt.msg_index as usize, talk.messages.len());
    }

    async fn relate(&mut self, life: &Life, random: &mut StdRng) {
        let (who, whom) = (*USERS.choose(random).unwrap(), *USERS.choose(random).unwrap());
        if who == whom {
            return;
        }
        let conversations = life.conversations();
        if random.random_bool(0.6) {
            conversations.block(&user(who), &user(whom)).await.unwrap();
            self.blocks.insert((who, whom));
        } else {
            conversations.unblock(&user(who), &user(whom)).await.unwrap();
            self.blocks.remove(&(who, whom));
        }
    }

    fn any(&self, random: &mut StdRng) -> Option<ConversationKey> {
        self.talks.keys().collect::<Vec<_>>().choose(random).map(|key| (*key).clone())
    }

    async fn recall(&mut self, life: &Life, random: &mut StdRng) {
        let Some(key) = self.any(random) else { return };
        let talk = self.talks.get_mut(&key).unwrap();
        if talk.messages.is_empty() {
            return;
        }
        let which = random.random_range(0..talk.messages.len());
        let sender = talk.messages[which].0;
        if talk.messages[which].2 != 0 || !talk.people.contains(sender) {
            return;
        }
        let at = key.address_for(&user(sender));
        let recalled = life.conversations().recall(&user(sender), &at, which as u32 + 1).await;
        talk.recalls += 1;
        assert_eq!(recalled, Ok(talk.recalls));
        talk.messages[which].2 = talk.recalls;
    }

    async fn ack(&mut self, life: &Life, random: &mut StdRng) {
        let Some(key) = self.any(random) else { return };
        let talk = self.talks.get_mut(&key).unwrap();
        let people: Vec<_> = talk.people.iter().copied().collect();
        let Some(who) = people.choose(random) else { return };
        let up_to = random.random_range(0..=talk.messages.len()) as u32;
        let at = key.address_for(&user(who));
        life.conversations().ack(&user(who), &at, up_to).await.unwrap();
        let cursor = talk.cursors.entry(who).or_default();
        *cursor = up_to.max(*cursor);
    }

    async fn change_group(&mut self, life: &Life, random: &mut StdRng) {
        let name = *GROUPS.choose(random).unwrap();
        let key = ConversationKey::Group(group_id(name));
        let admin = Caller { user: user("boss"), admin: true };
        let who = *USERS.choose(random).unwrap();
        let Some(talk) = self.talks.get_mut(&key) else {
            let owner = caller(who);
            let created =
                life.conversations().create_group(&owner, Some(group_id(name)), "n".into(), vec![]).await;
            assert_eq!(created, Ok(group_id(name)));
            let mut talk = Talk::default();
            talk.people.insert(who);
            self.talks.insert(key, talk);
            return;
        };
        let conversations = life.conversations();
        if talk.has_ended || random.random_range(0..20) == 0 {
            let ended = conversations.dismiss_group(&admin, &group_id(name)).await;
            assert_eq!(ended, if talk.has_ended { Err(Rejection::NoSuchGroup) } else { Ok(()) });
            (talk.people, talk.has_ended) = (BTreeSet::new(), true);
            return;
        }
        if talk.people.remove(who) {
            match random.random_bool(0.5) {
                true => conversations.kick_members(&admin, &group_id(name), vec![user(who)]).await.unwrap(),
                false => conversations.leave_group(&caller(who), &group_id(name)).await.unwrap(),
            }
        } else {
            conversations.add_members(&admin, &group_id(name), vec![user(who)]).await.unwrap();
            talk.people.insert(who);
            let newest = talk.messages.len() as u32;
            talk.cursors.insert(who, newest);
            talk.readable_from.insert(who, newest + 1);
        }
    }
}

/// The whole list of a user, in pages of `count`.
async fn list(life: &Life, who: &str, count: u32) -> (BTreeMap<ConversationKey, Shown>, u64) {
    let (mut listed, mut cursor, mut total, mut ages) = (BTreeMap::new(), String::new(), 0, Vec::new());
    loop {
        let page = life.conversations().list(&user(who), &cursor, count).await.unwrap();
        for (chat, last) in page.chats {
            let last = last.as_ref().map(|last| text_of(last.view()));
            let Chat { msg_index, recall_index, ack_index, unread, timestamp_ns, .. } = chat;
            let shown = (msg_index, recall_index, ack_index, unread, last);
            assert_eq!(listed.insert(key(who, &chat.at), shown), None, "listed twice");
            ages.push(timestamp_ns);
            total += u64::from(unread);
        }
        if page.cursor.is_empty() {
            assert!(ages.is_sorted_by(|a, b| a >= b), "{ages:?}");
            assert_eq!(page.total_unread, total);
            return (listed, total);
        }
        cursor = page.cursor;
    }
}

/// Everything idle leaves memory: inboxes, and conversations that a pack has.
async fn forget(life: &Life) {
    eventually("answered calls are over", || life.conversations().in_flight() == 0).await;
    let shared = &life.conversations().shared;
    for (inbox, keys) in shared.context.inboxes.close_idle(u32::MAX, u64::MAX) {
        keys.iter().for_each(|key| life.directory().part(key, &inbox));
    }
    let idle_only = Passivation { idle_after: Duration::from_secs(1), memory_bytes_max: u64::MAX };
    let mut asks_nobody = Desk::new().growth(&super::options().checkpoint);
    sweep(&idle_only, life.directory(), 1_000_000, &mut asks_nobody);
}

async fn check(life: &Life, world: &World, random: &mut StdRng, seed: u64) {
    for who in USERS {
        let (listed, _) = list(life, who, random.random_range(1..9)).await;
        assert_eq!(listed, world.of(who), "{who}, seed {seed}");
        let page = life.conversations().groups(&user(who), "", 10).await.unwrap();
        let groups: Vec<_> = page.groups.into_iter().map(|info| ConversationKey::Group(info.group)).collect();
        let is_group = |key: &&ConversationKey| matches!(key, ConversationKey::Group(_));
        let expected: Vec<_> = listed.keys().filter(is_group).cloned().collect();
        assert_eq!(groups, expected, "{who}, seed {seed}");
        let blocked = life.conversations().blocks(&user(who), "", 10).await.unwrap().users;
        let expected = world.blocks.iter().filter(|(by, _)| *by == who).map(|(_, whom)| user(whom));
        assert_eq!(blocked, expected.collect::<Vec<_>>(), "{who} blocks, seed {seed}");
    }
    assert_eq!(life.conversations().count(), world.talks.len(), "a block makes no conversation, seed {seed}");
}

/// Seeds; `CHINWAG_LIST_SEED` replays one, `CHINWAG_LIST_SEEDS` takes more.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match (number("CHINWAG_LIST_SEED"), number("CHINWAG_LIST_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(12),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_is_exact_whatever_left_memory_or_crashed_in_between() {
    for seed in seeds() {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::default();
        let mut life = Life::begin(&Simulated::new(seed));
        for _ in 0..120 {
            world.step(&life, &mut random).await;
            match random.random_range(0..60) {
                0 => life.checkpoint().unwrap(),
                1 => life.compact().unwrap(),
                2..5 => forget(&life).await,
                5 => life = Life::begin(&life.stop().await),
                6 => life = Life::begin(&life.kill().await),
                7 => life = Life::begin(&life.cut_power().await),
                8..14 => check(&life, &world, &mut random, seed).await,
                14..20 => {
                    let who = *USERS.choose(&mut random).unwrap();
                    assert_eq!(list(&life, who, 3).await.0, world.of(who), "{who}, seed {seed}");
                }
                _ => {}
            }
        }
        check(&life, &world, &mut random, seed).await;
        let life = Life::begin(&life.cut_power().await);
        check(&life, &world, &mut random, seed).await;
        life.stop().await;
    }
}

/// What so many steps of always the same choices leave.
async fn after_steps(count: usize) -> (Life, World) {
    let (mut random, mut world) = (StdRng::seed_from_u64(1), World::default());
    let life = Life::begin(&Simulated::new(1));
    for _ in 0..count {
        world.step(&life, &mut random).await;
    }
    (Life::begin(&life.stop().await), world)
}

/// The control: a store that had lost its newest life would be found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_life_that_is_forgotten_shows_in_the_lists() {
    let (whole, world) = after_steps(120).await;
    check(&whole, &world, &mut StdRng::seed_from_u64(1), 1).await;
    let (before, _) = after_steps(60).await;
    let mut wrong = 0;
    for who in USERS {
        wrong += usize::from(list(&before, who, 3).await.0 != world.of(who));
    }
    assert!(wrong > 0, "the lists see nothing");
    whole.stop().await;
    before.stop().await;
}

fn sync_from(positions: Vec<Position>) -> Sync {
    Sync { positions, wait: Duration::ZERO, count: 2 }
}

fn position(at: Address, msg_index: u32, recall_index: u32) -> Position {
    Position { at, msg_index, recall_index }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_brings_what_moved_and_what_was_not_named() {
    let life = Life::begin(&Simulated::new(1));
    for text in ["one", "two", "three", "four"] {
        life.send("ann", &to("ben"), text).await;
    }
    life.send("cat", &to("ben"), "hello").await;
    life.send("dan", &to("ben"), "known").await;
    let ben = user("ben");
    assert_eq!(life.conversations().recall(&user("ann"), &to("ben"), 2).await, Ok(1));
    let positions = vec![position(to("ann"), 1, 0), position(to("dan"), 1, 0), position(to("eva"), 0, 0)];
    let synced = life.conversations().sync(&ben, sync_from(positions)).await.unwrap();
    let deltas: Vec<_> = synced
        .chats
        .iter()
        .map(|delta| {
            let texts: Vec<_> = delta.page.messages().map(text_of).collect();
            (delta.chat.at.clone(), texts, delta.page.recalls.clone(), delta.chat.unread, delta.more)
        })
        .collect();
    assert_eq!(
        deltas,
        [
            (to("cat"), vec!["hello".to_owned()], vec![], 1, false),
            (to("ann"), vec![String::new(), "three".to_owned()], vec![(1, 2)], 3, true),
        ]
    );
    assert!(!synced.more);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_sync_hears_the_next_message_also_of_a_new_conversation() {
    let life = Life::begin(&Simulated::new(1));
    let (conversations, ben) = (life.conversations().clone(), user("ben"));
    let waiting = tokio::spawn(async move {
        let sync = Sync { positions: vec![], wait: Duration::from_secs(60), count: 50 };
        conversations.sync(&ben, sync).await
    });
    eventually("its inbox is open", || life.conversations().shared.context.inboxes.len() == 1).await;
    life.send("ann", &to("ben"), "hello").await;
    let synced = waiting.await.unwrap().unwrap();
    let texts: Vec<_> = synced.chats[0].page.messages().map(text_of).collect();
    assert_eq!(texts, ["hello"]);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_shares_a_conversation_sees_who_is_connected() {
    let life = Life::begin(&Simulated::new(1));
    life.send("ann", &to("ben"), "hello").await;
    let conversations = life.conversations();
    let members = vec![user("ben"), user("cat")];
    conversations.create_group(&caller("dan"), Some(group_id("g")), "n".into(), members).await.unwrap();
    let (attached, chats) = conversations.attach(&user("ben"), Arc::default(), 10).await.unwrap();
    assert_eq!(chats.len(), 2);
    for (who, sees) in [("ann", true), ("cat", true), ("dan", true), ("ben", true), ("eva", false)] {
        let online = conversations.online(&user(who), &[user("ben"), user("ann")]).await;
        assert_eq!(online, Ok(vec![sees, false]), "{who}");
    }
    drop(attached);
    assert_eq!(conversations.online(&user("ann"), &[user("ben")]).await, Ok(vec![false]));
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_cursors_are_for_those_who_are_in() {
    let life = Life::begin(&Simulated::new(1));
    life.send("ann", &to("ben"), "hello").await;
    let acks = life.conversations().acks(&user("ben"), &to("ann")).await;
    assert_eq!(acks, Ok(vec![(user("ann"), 1), (user("ben"), 0)]));
    assert_eq!(life.conversations().acks(&user("ben"), &to("eva")).await, Ok(vec![]));
    let stranger = life.conversations().acks(&user("ben"), &group("nowhere")).await;
    assert_eq!(stranger, Err(Rejection::NoSuchGroup));
    life.stop().await;
}
