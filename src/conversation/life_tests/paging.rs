//! Paging: of a long conversation only the recent part is in memory, and nobody can tell.

use super::passivation::sweep;
use super::*;
use crate::conversation::checkpoint::Desk;

/// Of so many messages, few are in memory.
const MESSAGES: u32 = 120;
const RECENT: history::Options = history::Options {
    recent_messages: 10,
    recent_text_bytes: 1 << 20,
    retry_messages: 60,
    retry_age: Duration::from_hours(24),
};

fn in_part() -> Options {
    Options { history: RECENT, ..options() }
}

fn begin(disk: &Simulated, options: Options) -> Life {
    Life::begin_with(disk, Arc::new(disk.clone()), options)
}

fn id_of(index: u32) -> String {
    format!("id-{index}")
}

/// A group whose newcomer may not read its beginning; every seventh message is recalled, half of
/// them while they are in memory.
async fn write(life: &Life) {
    let (conversations, owner) = (life.conversations().clone(), caller("alice"));
    conversations.create_group(&owner, Some(group_id("g")), "name".into(), vec![user("bob")]).await.unwrap();
    for index in 1..=MESSAGES {
        let by = if index % 2 == 0 { "alice" } else { "bob" };
        send(life, by, index).await.unwrap();
        if index == 20 {
            conversations.add_members(&owner, &group_id("g"), vec![user("late")]).await.unwrap();
        }
        if index % 14 == 0 {
            conversations.recall(&user("alice"), &group("g"), index).await.unwrap();
        }
        if index % 25 == 0 {
            life.checkpoint().unwrap();
        }
    }
    life.checkpoint().unwrap();
    for index in (1..=MESSAGES).filter(|index| index % 14 == 7) {
        conversations.recall(&user("alice"), &group("g"), index).await.unwrap();
    }
    life.checkpoint().unwrap();
}

async fn send(life: &Life, by: &str, index: u32) -> Result<Receipt, Rejection> {
    loop {
        let draft = draft(&format!("text {index}"), &id_of(index));
        match life.conversations().send(&user(by), &group("g"), draft).await {
            Err(Rejection::Overloaded) => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

/// Every page of every member, both ways.
async fn pages(life: &Life) -> Vec<Page> {
    let mut pages = Vec::new();
    for by in ["alice", "bob", "late"] {
        for (direction, start) in [Direction::After, Direction::Before]
            .into_iter()
            .flat_map(|direction| (1..=MESSAGES + 1).step_by(7).map(move |start| (direction, start)))
        {
            let (start_msg_index, start_recall_index) = (start, start);
            let wait = Duration::ZERO;
            let pull = Pull { direction, start_msg_index, start_recall_index, count: 50, wait };
            pages.push(life.conversations().pull(&user(by), &group("g"), pull).await.unwrap());
        }
    }
    pages
}

/// What retries of every message get, with the same text and with another.
async fn retries(life: &Life) -> Vec<Result<Receipt, Rejection>> {
    let mut answers = Vec::new();
    for index in 1..=MESSAGES {
        let by = user(if index % 2 == 0 { "alice" } else { "bob" });
        for text in [format!("text {index}"), "another".into()] {
            let again = life.conversations().send(&by, &group("g"), draft(&text, &id_of(index))).await;
            assert!(again.as_ref().is_ok_and(|it| it.duplicate) || again == Err(Rejection::ClientIdReused));
            answers.push(again);
        }
    }
    answers
}

async fn recalls_again(life: &Life) -> Vec<Result<u32, Rejection>> {
    let mut answers = Vec::new();
    for index in (0..=MESSAGES + 1).filter(|index| index % 7 == 0 || *index > MESSAGES) {
        for by in ["alice", "bob"] {
            if by == "bob" && (index % 2 == 1 || index % 7 > 0) {
                // His own would be recalled.
                continue;
            }
            answers.push(life.conversations().recall(&user(by), &group("g"), index).await);
        }
    }
    answers
}

async fn newest_old(life: &Life) -> u32 {
    let (archive, key) = (life.conversations().shared.paging.archive.clone(), key("alice", &group("g")));
    let resident = tokio::task::block_in_place(|| archive.load(&key, 0, |_| ())).unwrap().unwrap();
    resident.state.history.newest_old()
}

async fn passivate(life: &Life) {
    eventually("answered calls are over", || life.conversations().in_flight() == 0).await;
    let idle = passivation::Options { idle_after: Duration::from_secs(1), memory_bytes_max: u64::MAX };
    let mut asks_nobody = Desk::new().growth(&options().checkpoint);
    sweep(&idle, life.directory(), 1_000_000, &mut asks_nobody);
    assert_eq!(life.conversations().resident(), 0);
}

/// The same of everything: as a whole in memory, in part and hot, in part and cold, merged, restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_conversation_answers_the_same_hot_and_cold() {
    let whole = begin(&Simulated::new(1), options());
    write(&whole).await;
    let texts = |pages: Vec<Page>| -> Vec<_> {
        let seen = |page: &Page| {
            let messages = page.messages().map(|it| (it.msg_index, it.recall_index, it.msg.to_owned()));
            (messages.collect::<Vec<_>>(), page.recalls.clone(), page.min_msg_index)
        };
        pages.iter().map(seen).collect()
    };
    let expected = texts(pages(&whole).await);
    let disk = whole.stop().await;
    drop(disk);

    let life = begin(&Simulated::new(1), in_part());
    write(&life).await;
    let (hot, hot_retries, hot_recalls) =
        (pages(&life).await, retries(&life).await, recalls_again(&life).await);
    assert_eq!(texts(hot.clone()), expected);
    assert!(newest_old(&life).await >= MESSAGES - 35);
    for round in ["cold", "merged", "merged and cold", "restarted"] {
        match round {
            "merged" => life.compact().unwrap(),
            _ => passivate(&life).await,
        }
        assert_eq!(pages(&life).await, hot, "{round}");
        assert_eq!(retries(&life).await, hot_retries, "{round}");
        assert_eq!(recalls_again(&life).await, hot_recalls, "{round}");
    }
    let life = begin(&life.stop().await, in_part());
    assert_eq!(retries(&life).await, hot_retries);
    assert_eq!(pages(&life).await, hot);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_an_old_page_does_not() {
    let life = begin(&Simulated::new(1), in_part());
    write(&life).await;
    let conversations = life.conversations();
    let page = life.pull("late", &group("g")).await.unwrap();
    assert_eq!((page.min_msg_index, page.messages().next().unwrap().msg_index), (21, 21));
    conversations.kick_members(&caller("alice"), &group_id("g"), vec![user("late")]).await.unwrap();
    assert!(matches!(life.pull("late", &group("g")).await, Err(Rejection::Forbidden(_))));
    assert!(matches!(life.pull("stranger", &group("g")).await, Err(Rejection::Forbidden(_))));
    let not_hers = conversations.recall(&user("bob"), &group("g"), 2).await;
    assert_eq!(not_hers, Err(Rejection::NotYourMessage));
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_recalled_in_the_old_part_is_not_shown_from_its_pack() {
    let life = begin(&Simulated::new(1), in_part());
    write(&life).await;
    let conversations = life.conversations();
    let shown = life.texts("bob", &group("g")).await;
    assert_eq!((shown[1].as_str(), shown[2].as_str()), ("text 2", "text 3"));
    let recalls = life.pull("bob", &group("g")).await.unwrap().max_recall_index;
    assert_eq!(conversations.recall(&user("bob"), &group("g"), 3).await, Ok(recalls + 1));
    assert_eq!(conversations.recall(&user("alice"), &group("g"), 2).await, Ok(recalls + 2));
    assert!(!files_with(&life.disk, &["snap"], "text 2").is_empty(), "the pack still has it");
    for _ in ["hot", "cold"] {
        let shown = life.texts("bob", &group("g")).await;
        assert_eq!((shown[1].as_str(), shown[2].as_str(), shown[3].as_str()), ("", "", "text 4"));
        life.checkpoint().unwrap();
        passivate(&life).await;
    }
    let old_recall = conversations.recall(&user("alice"), &group("g"), 2).await;
    assert_eq!(old_recall, Ok(recalls + 2));
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_chunk_that_rots_costs_its_messages_and_nothing_else() {
    // Nothing is merged: the damage is to stay in a chunk of its own.
    let compaction = compaction::Options { bytes_per_second: 1, ..options().compaction };
    let (life, pair) = (begin(&Simulated::new(1), Options { compaction, ..in_part() }), to("bob"));
    for index in 1..=60 {
        life.send("alice", &pair, &format!("text {index}.")).await;
        if index % 20 == 0 {
            life.checkpoint().unwrap();
        }
    }
    let disk = life.disk.kill();
    life.bury().await;
    let (file, at) = files_with(&disk, &["snap"], "text 5.").pop().expect("in a pack");
    disk.flip(&file, at, 1);
    // Loading reads no old chunk for its retries.
    let history = history::Options { retry_messages: 1, retry_age: Duration::ZERO, ..RECENT };
    let life = begin(&disk, Options { history, compaction, ..options() });
    let (bob, to_alice) = (user("bob"), to("alice"));
    let pull = |direction, start_msg_index| {
        let pull = Pull { direction, start_msg_index, count: 20, ..from_the_beginning() };
        life.conversations().pull(&bob, &to_alice, pull)
    };
    for _ in 0..2 {
        let after = pull(Direction::After, 1).await;
        assert_eq!(after, Err(Rejection::Quarantined));
        assert_eq!(pull(Direction::Before, 25).await, Err(Rejection::Quarantined));
        assert_eq!(pull(Direction::After, 21).await.unwrap().messages().len(), 20);
        assert_eq!(pull(Direction::Before, 60).await.unwrap().messages().len(), 20);
    }
    let recall = life.conversations().recall(&user("alice"), &pair, 5).await;
    assert_eq!(recall, Err(Rejection::Quarantined), "who sent it is not known");
    assert_eq!(life.send("bob", &to_alice, "goes on").await.msg_index, 61);
    disk.flip(&file, at, 1);
    assert_eq!(pull(Direction::After, 1).await.unwrap().messages().len(), 20);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_old_pages_are_read_at_once_while_packs_are_merged() {
    let life = Arc::new(begin(&Simulated::new(1), in_part()));
    write(&life).await;
    let expected = life.texts("alice", &group("g")).await;
    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let life = life.clone();
        pulls.spawn(async move { life.texts("alice", &group("g")).await });
    }
    life.compact().unwrap();
    while let Some(texts) = pulls.join_next().await {
        assert_eq!(texts.unwrap(), expected);
    }
    Arc::into_inner(life).expect("nobody else has it").stop().await;
}
