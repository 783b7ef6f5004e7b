//! Pages that are kept as they were encoded: nobody can tell them from pages that were not.

use bytes::Bytes;
use ractor::ActorStatus;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::conversation::encoded::EncodedPage;

/// Of the readers of the tests: in a direct conversation, in one with oneself, in a group.
const READERS: [(&str, &str); 6] =
    [("ann", "ben"), ("ben", "ann"), ("ann", "ann"), ("ann", "#g"), ("ben", "#g"), ("late", "#g")];

fn at(target: &str) -> Address {
    target.strip_prefix('#').map_or_else(|| to(target), group)
}

/// Says all that a reader sees.
fn rows(page: &Page, at: &Address) -> Vec<u8> {
    let messages: Vec<_> = page.messages().collect();
    format!("{at:?} {messages:?} {:?}", page.recalls).into_bytes()
}

async fn encoded(life: &Life, (by, target): (&str, &str), pull: &Pull) -> Result<EncodedPage, Rejection> {
    life.conversations().pull_encoded(&user(by), &at(target), pull.clone(), rows).await
}

/// The same, written now.
async fn fresh(life: &Life, (by, target): (&str, &str), pull: &Pull) -> Result<EncodedPage, Rejection> {
    let at = at(target);
    let page = life.conversations().pull(&user(by), &at, pull.clone()).await?;
    Ok(EncodedPage::of(rows(&page, &at).into(), &page))
}

/// Pulls until the page is kept, if it will be; whether it is.
async fn warm(life: &Life, reader: (&str, &str), pull: &Pull) -> bool {
    let mut seen: Vec<Bytes> = Vec::new();
    for _ in 0..3 {
        seen.push(encoded(life, reader, pull).await.unwrap().rows);
    }
    seen[1].as_ptr() == seen[2].as_ptr()
}

fn text(number: u32) -> String {
    format!("text {number};").repeat(100)
}

/// What the readers read.
async fn write(life: &Life, messages: u32) {
    let members = vec![user("ben")];
    life.conversations()
        .create_group(&caller("ann"), Some(group_id("g")), "n".into(), members)
        .await
        .unwrap();
    for number in 1..=messages {
        for target in ["ben", "ann", "#g"] {
            life.send("ann", &at(target), &text(number)).await;
        }
    }
    let late = vec![user("late")];
    life.conversations().add_members(&caller("ann"), &group_id("g"), late).await.unwrap();
    life.send("ben", &group("g"), &text(messages + 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_pulled_twice_is_there_for_the_third() {
    let life = Life::begin(&Simulated::new(1));
    write(&life, 3).await;
    for reader in READERS {
        assert!(warm(&life, reader, &from_the_beginning()).await, "{reader:?}");
        let kept = encoded(&life, reader, &from_the_beginning()).await;
        assert_eq!(kept, fresh(&life, reader, &from_the_beginning()).await, "{reader:?}");
    }
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_retention_no_page_is_kept() {
    let disk = Simulated::new(1);
    let retention = retention::Options { count: Some(1000), age: None };
    let life = Life::begin_with(&disk, Arc::new(disk.clone()), Options { retention, ..options() });
    write(&life, 3).await;
    assert!(!warm(&life, ("ann", "ben"), &from_the_beginning()).await);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_whose_actor_died_is_refused_also_where_its_page_is_kept() {
    let life = Life::begin(&Simulated::new(1));
    write(&life, 3).await;
    for reader in [("ann", "ben"), ("ann", "#g")] {
        assert!(warm(&life, reader, &from_the_beginning()).await);
        let key = key(reader.0, &at(reader.1));
        let (running, _permit) = life.directory().escort(&key).unwrap();
        kill_actor(life.directory(), &key);
        eventually("it dies", || running.actor.get_status() > ActorStatus::Running).await;
        let missed = encoded(&life, reader, &from_the_beginning()).await;
        assert_eq!(missed, Err(Rejection::Quarantined), "{reader:?}");
        assert_eq!(encoded(&life, reader, &from_the_beginning()).await, Err(Rejection::Quarantined));
    }
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_pulls_what_is_kept_lets_old_messages_leave_memory_all_the_same() {
    let disk = Simulated::new(1);
    let history = history::Options { recent_messages: 10, ..history::Options::default() };
    let life = Life::begin_with(&disk, Arc::new(disk.clone()), Options { history, ..options() });
    write(&life, 60).await;
    let newest = Pull { direction: Direction::Before, start_msg_index: 60, count: 5, ..from_the_beginning() };
    assert!(warm(&life, ("ben", "ann"), &newest).await);
    let (running, _permit) = life.directory().escort(&key("ben", &to("ann"))).unwrap();
    let before = running.head.bytes();
    life.checkpoint().unwrap();
    let page = encoded(&life, ("ben", "ann"), &newest).await.unwrap();
    eventually("old messages go", || running.head.bytes() < before / 2).await;
    assert_eq!(page, encoded(&life, ("ben", "ann"), &newest).await.unwrap());
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_page_names_the_oldest_message_also_where_that_is_found_out_later() {
    let disk = Simulated::new(1);
    let history = history::Options { recent_messages: 10, ..history::Options::default() };
    let retention = retention::Options { count: Some(30), age: None };
    let with = |retention| Options { history, retention, ..options() };
    let life = Life::begin_with(&disk, Arc::new(disk.clone()), with(retention));
    write(&life, 60).await;
    life.compact().unwrap();
    let disk = life.stop().await;

    let life = Life::begin_with(&disk, Arc::new(disk.clone()), with(retention::Options::default()));
    let newest = Pull { direction: Direction::Before, start_msg_index: 60, count: 5, ..from_the_beginning() };
    assert!(warm(&life, ("ben", "ann"), &newest).await);
    // Only who asks for what is gone finds out that it is.
    let oldest = fresh(&life, ("ben", "ann"), &from_the_beginning()).await.unwrap();
    assert_eq!(oldest.min_msg_index, 31);
    let kept = encoded(&life, ("ben", "ann"), &newest).await;
    assert_eq!(kept, fresh(&life, ("ben", "ann"), &newest).await);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_is_never_read_after_its_recall_was_answered_however_many_pull_meanwhile() {
    const MESSAGES: u32 = 40;
    let life = Life::begin(&Simulated::new(1));
    write(&life, MESSAGES).await;
    let pulling: Vec<_> = [("ann", "ben"), ("ben", "ann"), ("ben", "#g")]
        .map(|(by, target)| {
            let (conversations, by, at) = (life.conversations().clone(), user(by), at(target));
            tokio::spawn(async move {
                loop {
                    let page = conversations.pull_encoded(&by, &at, from_the_beginning(), rows).await;
                    if page.unwrap().max_recall_index == MESSAGES {
                        break;
                    }
                    // What is kept is answered without waiting for anybody.
                    tokio::task::yield_now().await;
                }
            })
        })
        .into();
    for number in 1..=MESSAGES {
        for (reader, target) in [("ben", "ben"), ("#g", "#g")] {
            life.conversations().recall(&user("ann"), &at(target), number).await.unwrap();
            let from = if reader == "ben" { ("ben", "ann") } else { ("ben", "#g") };
            let page = encoded(&life, from, &from_the_beginning()).await.unwrap();
            let rows = String::from_utf8(page.rows.to_vec()).unwrap();
            assert!(!rows.contains(&format!("text {number};")), "{from:?} reads {number}");
            assert_eq!(page.max_recall_index, number);
        }
    }
    for pulling in pulling {
        pulling.await.unwrap();
    }
    life.stop().await;
}

/// Something that a member does, or a pull.
async fn act(life: &Life, random: &mut StdRng, known: &mut Vec<Pull>) {
    let (by, target) = READERS[random.random_range(0..READERS.len())];
    let (conversations, number) = (life.conversations(), random.random_range(1..40));
    match random.random_range(0..20) {
        0 => drop(conversations.send(&user(by), &at(target), draft(&text(number), "")).await),
        1 => drop(conversations.recall(&user(by), &at(target), number).await),
        2 => drop(conversations.kick_members(&caller("ann"), &group_id("g"), vec![user("late")]).await),
        3 => drop(conversations.add_members(&caller("ann"), &group_id("g"), vec![user("late")]).await),
        4 => {
            let start_recall_index = random.random_range(0..4);
            let direction = [Direction::After, Direction::Before][random.random_range(0..2)];
            let (start_msg_index, count) = (number, random.random_range(1..50));
            known.push(Pull { direction, start_msg_index, start_recall_index, count, wait: Duration::ZERO });
        }
        _ => {
            let pull = &known[random.random_range(known.len().saturating_sub(3)..known.len())];
            let kept = encoded(life, (by, target), pull).await;
            assert_eq!(kept, fresh(life, (by, target), pull).await, "{by} in {target}: {pull:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_a_pull_shows_what_it_shows_without_kept_pages() {
    for seed in 0..4 {
        let life = Life::begin(&Simulated::new(seed));
        let (mut random, mut known) = (StdRng::seed_from_u64(seed), vec![from_the_beginning()]);
        write(&life, 10).await;
        for _ in 0..600 {
            act(&life, &mut random, &mut known).await;
        }
        life.stop().await;
    }
}
