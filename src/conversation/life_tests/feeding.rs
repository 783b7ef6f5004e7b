//! Feeding: whoever follows the log gets everything that was accepted once and in order, and no text that nobody may read.

use super::super::feed::{Change, Conversation, Entry, Error, Fate, Feed, FeedPage, Start, Wanted};
use super::passivation::sweep;
use super::*;
use crate::config::limits::FEEDS_MAX;
use crate::disk::Operation;

/// Nothing of the log goes.
fn keeping() -> Options {
    Options { keep_log: NEVER, ..options() }
}

fn begin(disk: &Simulated, options: Options) -> Life {
    Life::begin_with(disk, Arc::new(disk.clone()), options)
}

fn from(offset: u64) -> Wanted {
    Wanted { start: Start::At(offset), epoch: None, count: 1000, wait: Duration::ZERO }
}

/// An entry in a few words.
fn words(entry: &Entry<'_>) -> String {
    let place = match entry.conversation {
        Conversation::Pair(smaller, greater) => format!("{smaller}+{greater}"),
        Conversation::Group(group) => format!("#{group}"),
    };
    let what = match &entry.change {
        Change::Send { msg_index, sender, msg, fate, .. } => match fate {
            Fate::Readable => format!("{sender} sends {msg_index} {msg}"),
            fate => format!("{sender} sends {msg_index} {fate:?} {msg}"),
        },
        Change::Recall { recall_index, msg_index, by, .. } => {
            format!("{by} recalls {msg_index} {recall_index}")
        }
        Change::Ack { user, msg_index } => format!("{user} acks {msg_index}"),
        Change::Group { action, by, users, .. } => format!("{by} {action:?} {}", users.join(" ")),
        Change::Block { blocks, by, user, .. } => format!("{by} blocks {user} {blocks}"),
    };
    format!("{place} {what}")
}

fn entries_of(page: &FeedPage) -> Vec<String> {
    page.entries().map(|entry| words(&entry.unwrap())).collect()
}

/// Everything from `offset` on, `count` records at a time.
async fn everything(feed: &Feed, offset: u64, count: usize) -> Vec<String> {
    let (mut all, mut next) = (Vec::new(), offset);
    loop {
        let page = feed.read(Wanted { count, ..from(next) }).await.unwrap();
        for (place, entry) in page.entries().enumerate() {
            assert_eq!(entry.unwrap().offset, next + place as u64, "positions are dense");
        }
        all.extend(entries_of(&page));
        assert!(page.next > next || page.next == page.positions.newest + 1, "it stands still");
        if page.next > page.positions.newest {
            return all;
        }
        next = page.next;
    }
}

/// One of every kind of change, in this order.
async fn story(life: &Life) -> Vec<&'static str> {
    let (conversations, alice, bob) = (life.conversations(), user("alice"), user("bob"));
    let (owner, id) = (caller("alice"), group_id("g"));
    life.send("bob", &to("alice"), "hello").await;
    conversations.ack(&alice, &to("bob"), 1).await.unwrap();
    let members = vec![user("bob"), user("carol")];
    conversations.create_group(&owner, Some(id.clone()), "name".into(), members).await.unwrap();
    life.send("carol", &group("g"), "in the group").await;
    conversations.add_members(&owner, &id, vec![user("dave")]).await.unwrap();
    conversations.kick_members(&owner, &id, vec![user("bob")]).await.unwrap();
    conversations.leave_group(&caller("dave"), &id).await.unwrap();
    conversations.set_duty(&owner, &id, user("carol"), crate::message::Duty::Admin).await.unwrap();
    conversations.rename_group(&owner, &id, "other".into()).await.unwrap();
    conversations.mute(&owner, &id, user("carol"), 4_000_000_000).await.unwrap();
    conversations.block(&bob, &alice).await.unwrap();
    conversations.unblock(&bob, &alice).await.unwrap();
    life.send("alice", &to("alice"), "a note").await;
    vec![
        "alice+bob bob sends 1 hello",
        "alice+bob alice acks 1",
        "#g alice Create alice bob carol",
        "#g carol sends 1 in the group",
        "#g alice Add dave",
        "#g alice Kick bob",
        "#g dave Leave dave",
        "#g alice Duty(Admin) carol",
        "#g alice Rename(\"other\") ",
        "#g alice Mute { until_s: 4000000000 } carol",
        "alice+bob bob blocks alice true",
        "alice+bob bob blocks alice false",
        "alice+alice alice sends 1 a note",
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_appears_once_and_in_order_across_segments_checkpoints_and_lives() {
    let mut life = begin(&Simulated::new(1), keeping());
    let mut expected: Vec<String> = story(&life).await.into_iter().map(str::to_owned).collect();
    let mut sent = 0;
    for end in 0..3 {
        for _ in 0..40 {
            sent += 1;
            let text = format!("{sent} {}", "x".repeat(1_000));
            life.send("alice", &to("erin"), &text).await;
            expected.push(format!("alice+erin alice sends {sent} {text}"));
            if sent % 15 == 0 {
                life.checkpoint().unwrap();
            }
        }
        let feed = life.started.feed();
        for count in [1, 7, 1000] {
            assert_eq!(everything(&feed, 1, count).await, expected);
        }
        let last = expected.len() as u64;
        assert_eq!(everything(&feed, last, 1).await, expected[last as usize - 1..]);
        let disk = match end {
            0 => life.stop().await,
            1 => life.kill().await,
            _ => life.cut_power().await,
        };
        life = begin(&disk, keeping());
        assert!(segments(&life.disk).len() > 3 * (end + 1), "the control: many segments");
    }
    assert_eq!(everything(&life.started.feed(), 1, 1000).await, expected);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kept_or_has_not_come_is_refused_and_never_skipped() {
    let life = Life::begin(&Simulated::new(1));
    let feed = life.started.feed();
    let empty = feed.read(Wanted { start: Start::Oldest, ..from(1) }).await.unwrap();
    assert_eq!((empty.next, empty.positions.first, empty.positions.newest), (1, 1, 0));
    assert!(matches!(feed.read(from(2)).await, Err(Error::Beyond { asked: 2, next: 1 })));
    let mut seen = Vec::new();
    for number in 1..=60_u64 {
        life.send("alice", &to("bob"), &format!("{number} {}", "x".repeat(1_000))).await;
        if number.is_multiple_of(20) {
            life.checkpoint().unwrap();
        }
        seen.push(feed.read(from(number)).await.unwrap().next);
    }
    assert_eq!(seen, (2..=61).collect::<Vec<_>>(), "a consumer at the end is not disturbed by checkpoints");
    let oldest = segments(&life.disk)[0];
    assert!(oldest > 1, "the control: something was cut");
    for asked in [1, oldest - 1] {
        let refused = feed.read(from(asked)).await;
        assert!(
            matches!(refused, Err(Error::Gone { asked: told, first }) if told == asked && first == oldest)
        );
    }
    let kept = feed.read(Wanted { start: Start::Oldest, ..from(1) }).await.unwrap();
    assert_eq!(kept.entries().next().unwrap().unwrap().offset, oldest);
    assert_eq!((kept.positions.first, kept.positions.newest), (oldest, 60));
    assert!(matches!(feed.read(from(62)).await, Err(Error::Beyond { asked: 62, next: 61 })));
    let newest = feed.read(Wanted { start: Start::Newest, ..from(1) }).await.unwrap();
    assert_eq!((entries_of(&newest).len(), newest.next), (0, 61));
    let other = feed.read(Wanted { epoch: Some(2), ..from(61) }).await;
    assert!(matches!(other, Err(Error::OtherEpoch { asked: 2, epoch: 1 })));
    assert!(feed.read(Wanted { epoch: Some(1), ..from(61) }).await.is_ok());
    life.stop().await;
}

/// Takes everything out of memory that a pack has.
async fn passivate(life: &Life) {
    life.checkpoint().unwrap();
    eventually("answered calls are over", || life.conversations().in_flight() == 0).await;
    let options = passivation::Options { idle_after: Duration::ZERO, memory_bytes_max: u64::MAX };
    let mut asks_nobody = checkpoint::Desk::new().growth(&super::options().checkpoint);
    sweep(&options, life.directory(), 1_000_000, &mut asks_nobody);
    assert_eq!(life.conversations().resident(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_was_recalled_is_not_given_out_wherever_its_conversation_is() {
    let mut life = begin(&Simulated::new(1), keeping());
    let id = group_id("g");
    life.conversations().create_group(&caller("alice"), Some(id), "n".into(), Vec::new()).await.unwrap();
    for (by, at) in [("alice", to("bob")), ("alice", group("g"))] {
        life.send(by, &at, "regretted").await;
        life.send(by, &at, "kept").await;
    }
    life.send("alice", &to("carol"), "untouched").await;
    let before = everything(&life.started.feed(), 1, 1000).await;
    assert!(before.contains(&"alice+bob alice sends 1 regretted".to_owned()), "{before:?}");
    for at in [to("bob"), group("g")] {
        life.conversations().recall(&user("alice"), &at, 1).await.unwrap();
    }
    let expected = [
        "#g alice Create alice",
        "alice+bob alice sends 1 Recalled(1) ",
        "alice+bob alice sends 2 kept",
        "#g alice sends 1 Recalled(1) ",
        "#g alice sends 2 kept",
        "alice+carol alice sends 1 untouched",
        "alice+bob alice recalls 1 1",
        "#g alice recalls 1 1",
    ];
    assert_eq!(everything(&life.started.feed(), 1, 1000).await, expected, "in memory");
    let disk = life.kill().await;
    life = begin(&disk, keeping());
    assert_eq!(everything(&life.started.feed(), 1, 1000).await, expected, "in the log's tail");
    passivate(&life).await;
    assert_eq!(everything(&life.started.feed(), 1, 1).await, expected, "in a pack");
    assert_eq!(life.conversations().resident(), 2, "what was never recalled need not be loaded");
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_that_is_not_durable_hides_nothing_yet() {
    let life = begin(&Simulated::new(1), keeping());
    life.send("alice", &to("bob"), "regretted").await;
    life.disk.pause_syncs();
    let (conversations, alice, bob) = (life.conversations().clone(), user("alice"), to("bob"));
    let recall = cast(conversations.recall(&alice, &bob, 1)).await;
    let feed = life.started.feed();
    assert_eq!(everything(&feed, 1, 1000).await, ["alice+bob alice sends 1 regretted"]);
    life.disk.resume_syncs();
    recall.await.unwrap();
    let expected = ["alice+bob alice sends 1 Recalled(1) ", "alice+bob alice recalls 1 1"];
    assert_eq!(everything(&feed, 1, 1000).await, expected);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dismissed_group_gives_out_no_text_but_only_once_that_is_durable() {
    let mut life = begin(&Simulated::new(1), keeping());
    let (owner, id) = (caller("alice"), group_id("g"));
    life.conversations().create_group(&owner, Some(id.clone()), "n".into(), Vec::new()).await.unwrap();
    life.send("alice", &group("g"), "a text").await;
    life.disk.pause_syncs();
    let conversations = life.conversations().clone();
    let dismissal = cast(conversations.dismiss_group(&owner, &id)).await;
    let feed = life.started.feed();
    let reading = tokio::spawn({
        let feed = feed.clone();
        async move { feed.read(from(1)).await }
    });
    // Both wait for the disk: the end of the group, and who asks for its text.
    eventually("the feed has asked", || life.conversations().in_flight() == 2).await;
    let disk = life.cut_power().await;
    assert!(dismissal.await.is_err());
    assert!(reading.await.unwrap().is_err(), "nobody knows whether the text may be read");
    drop((conversations, feed));
    life = begin(&disk, keeping());
    if life.pull("alice", &group("g")).await.is_ok() {
        let expected = ["#g alice Create alice", "#g alice sends 1 a text"];
        assert_eq!(everything(&life.started.feed(), 1, 1000).await, expected);
        life.conversations().dismiss_group(&owner, &id).await.unwrap();
    }
    let expected = ["#g alice Create alice", "#g alice sends 1 Dismissed ", "#g alice Dismiss "];
    assert_eq!(everything(&life.started.feed(), 1, 1000).await, expected);
    passivate(&life).await;
    assert_eq!(everything(&life.started.feed(), 1, 1000).await, expected);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_does_not_keep_is_not_given_out() {
    let kept = retention::Options { age: None, count: Some(2) };
    let life = begin(&Simulated::new(1), Options { retention: kept, ..keeping() });
    for number in 1..=4 {
        life.send("alice", &to("bob"), &format!("text {number}")).await;
    }
    let expected = [
        "alice+bob alice sends 1 Expired ",
        "alice+bob alice sends 2 Expired ",
        "alice+bob alice sends 3 text 3",
        "alice+bob alice sends 4 text 4",
    ];
    assert_eq!(everything(&life.started.feed(), 1, 1000).await, expected);
    passivate(&life).await;
    assert_eq!(everything(&life.started.feed(), 1, 1000).await, expected);
    life.compact().unwrap();
    // What a merge took stays hidden when retention is off.
    let disk = life.stop().await;
    let life = begin(&disk, keeping());
    let hidden = life.texts("alice", &to("bob")).await.len();
    let given = everything(&life.started.feed(), 1, 1000).await;
    assert_eq!(given.iter().filter(|entry| entry.contains("text")).count(), hidden, "{given:?}");
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_conversation_keeps_its_texts_and_stops_nobody() {
    let life = begin(&Simulated::new(1), keeping());
    life.send("alice", &to("struck"), "the needle").await;
    life.conversations().recall(&user("alice"), &to("struck"), 1).await.unwrap();
    life.send("alice", &to("struck"), "a text").await;
    life.send("alice", &to("healthy"), "hay").await;
    let disk = life.stop().await;
    let (file, at) = files_with(&disk, &["snap"], "a text").pop().expect("in a pack");
    disk.flip(&file, at, 1);
    let life = begin(&disk, keeping());
    assert_eq!(
        everything(&life.started.feed(), 1, 1000).await,
        [
            "alice+struck alice sends 1 Unknown ",
            "alice+struck alice recalls 1 1",
            "alice+struck alice sends 2 Unknown ",
            "alice+healthy alice sends 1 hay",
        ]
    );
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_whose_actor_died_is_waited_for() {
    let reload = reload::Options {
        first_delay: Duration::from_millis(1),
        attempts_max: 1,
        forgiven_after: Duration::ZERO,
    };
    let life = begin(&Simulated::new(1), Options { reload, ..keeping() });
    life.send("alice", &to("bob"), "regretted").await;
    life.conversations().recall(&user("alice"), &to("bob"), 1).await.unwrap();
    kill_actor(life.directory(), &key("alice", &to("bob")));
    let feed = life.started.feed();
    let deadline = Instant::now() + Duration::from_secs(60);
    let page = loop {
        match feed.read(from(1)).await {
            Ok(page) => break page,
            Err(why) => assert!(Instant::now() < deadline, "it does not come back: {why}"),
        }
    };
    assert_eq!(entries_of(&page)[0], "alice+bob alice sends 1 Recalled(1) ");
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_is_given_up_holds_up_no_feed_and_shows_no_text() {
    let first_delay = Duration::from_millis(1);
    let reload = reload::Options { first_delay, attempts_max: 0, forgiven_after: Duration::ZERO };
    let life = begin(&Simulated::new(1), Options { reload, ..keeping() });
    life.send("alice", &to("bob"), "regretted").await;
    life.conversations().recall(&user("alice"), &to("bob"), 1).await.unwrap();
    life.send("alice", &to("cat"), "to be read").await;
    kill_actor(life.directory(), &key("alice", &to("bob")));
    let feed = life.started.feed();
    let deadline = Instant::now() + Duration::from_secs(10);
    let page = loop {
        match feed.read(from(1)).await {
            Ok(page) => break page,
            Err(why) => assert!(Instant::now() < deadline, "the feed is held up: {why}"),
        }
    };
    let entries = entries_of(&page);
    assert_eq!(
        (&*entries[0], &*entries[2]),
        ("alice+bob alice sends 1 Unknown ", "alice+cat alice sends 1 to be read")
    );
    life.stop().await;
}

/// Each read of a page fails once: those of the log, and the last one, of what only packs have of the conversation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_may_do_the_next_time_holds_a_page_up_and_hides_nothing() {
    let retention = retention::Options { age: Some(Duration::from_hours(24)), count: None };
    let history = history::Options {
        recent_messages: 5,
        retry_messages: 1,
        retry_age: Duration::ZERO,
        ..history::Options::default()
    };
    let compaction = compaction::Options { bytes_per_second: 1, ..options().compaction };
    let life = begin(&Simulated::new(1), Options { retention, history, compaction, ..keeping() });
    let mut expected = Vec::new();
    for number in 1..=40 {
        life.send("alice", &to("bob"), &format!("text {number}.")).await;
        expected.push(format!("alice+bob alice sends {number} text {number}."));
        if number % 10 == 0 {
            life.checkpoint().unwrap();
        }
    }
    let feed = life.started.feed();
    // In memory anew, it has to look from where on it is kept.
    let read_anew = async || {
        life.disk.heal();
        passivate(&life).await;
        life.conversations().acks(&user("alice"), &to("bob")).await.unwrap();
    };
    // A merge may read beside it, which is no read of the page's, and may take the fault that was meant for one.
    let mut reads = u64::MAX;
    for _ in 0..5 {
        read_anew().await;
        let before = life.disk.count(Operation::Read);
        assert_eq!(entries_of(&feed.read(from(1)).await.unwrap()), expected);
        reads = reads.min(life.disk.count(Operation::Read) - before);
    }
    let mut refused = Vec::new();
    for (nth, _attempt) in (1..=reads).flat_map(|nth| (0..20).map(move |attempt| (nth, attempt))) {
        if refused.last() == Some(&nth) {
            continue;
        }
        read_anew().await;
        life.disk.fail(Operation::Read, nth, std::io::ErrorKind::OutOfMemory);
        match feed.read(from(1)).await {
            Err(Error::Rejected(Rejection::CannotRead)) => refused.push(nth),
            page => assert_eq!(entries_of(&page.unwrap()), expected, "read {nth} of {reads}"),
        }
    }
    assert!(refused.len() > 1 && refused.ends_with(&[reads]), "{refused:?} of {reads}");
    let (file, at) = files_with(&life.disk, &["snap"], "text 5.").pop().expect("in a pack");
    life.disk.flip(&file, at, 1);
    read_anew().await;
    let hidden = entries_of(&feed.read(from(1)).await.unwrap());
    assert_eq!(hidden[0], "alice+bob alice sends 1 Unknown ", "the control: what is damaged is hidden");
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_is_told_with_its_place_and_the_next_can_be_read() {
    let life = begin(&Simulated::new(1), keeping());
    life.send("alice", &to("bob"), "the needle").await;
    for number in 2..=40_u64 {
        life.send("alice", &to("bob"), &format!("{number} {}", "x".repeat(1_000))).await;
    }
    let (segment, at) = files_with(&life.disk, &["wal"], "the needle").pop().expect("in a segment");
    life.disk.flip(&segment, at, 1);
    let feed = life.started.feed();
    let next = segments(&life.disk)[1];
    for asked in [1, 2, next - 1] {
        let Err(Error::Unreadable { from: told, resume, why }) = feed.read(from(asked)).await else {
            panic!("the damage was passed over")
        };
        assert_eq!((told, resume), (asked, Some(next)));
        assert!(why.to_string().contains("00000000000000000001.wal is corrupt at byte 4096"), "{why}");
    }
    assert_eq!(everything(&feed, next, 1000).await.len() as u64, 41 - next);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_waits_is_woken_by_the_next_record_and_by_the_drain() {
    let life = begin(&Simulated::new(1), keeping());
    let feed = life.started.feed();
    let waiting = |offset| Wanted { wait: NEVER, ..from(offset) };
    let first = tokio::spawn({
        let feed = feed.clone();
        async move { feed.read(waiting(1)).await }
    });
    let newest = cast(feed.read(Wanted { start: Start::Newest, ..waiting(1) })).await;
    life.disk.pause_syncs();
    let (conversations, alice, bob) = (life.conversations().clone(), user("alice"), to("bob"));
    let sending = cast(conversations.send(&alice, &bob, draft("one", ""))).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished(), "what is not durable is not given out");
    let asked = feed.read(from(1)).await.unwrap();
    assert_eq!((entries_of(&asked).len(), asked.next), (0, 1), "nor to whoever asks meanwhile");
    life.disk.resume_syncs();
    sending.await.unwrap();
    assert_eq!(entries_of(&first.await.unwrap().unwrap()), ["alice+bob alice sends 1 one"]);
    assert_eq!(entries_of(&newest.await.unwrap()), ["alice+bob alice sends 1 one"]);
    let last = cast(feed.read(waiting(2))).await;
    life.draining.send(true).unwrap();
    let page = last.await.unwrap();
    assert_eq!((entries_of(&page).len(), page.next), (0, 2));
    let refused = feed.read(waiting(2)).await;
    assert!(
        matches!(refused, Err(Error::Rejected(Rejection::Draining))),
        "a node that drains lets nobody wait"
    );
    let at_once = Wanted { wait: Duration::ZERO, ..waiting(2) };
    assert_eq!(feed.read(at_once).await.unwrap().next, 2);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_feeds_wait_and_no_more() {
    let life = begin(&Simulated::new(1), keeping());
    let feed = life.started.feed();
    let waiting = || feed.read(Wanted { wait: NEVER, ..from(1) });
    let mut all = Vec::new();
    for _ in 0..FEEDS_MAX {
        all.push(cast(waiting()).await);
    }
    assert!(matches!(waiting().await, Err(Error::TooMany)));
    drop(all.pop());
    all.push(cast(waiting()).await);
    life.send("alice", &to("bob"), "one").await;
    for waiting in all {
        assert_eq!(waiting.await.unwrap().next, 2);
    }
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_ends_before_it_gets_too_long() {
    let life = begin(&Simulated::new(1), with_room(keeping()));
    // The draft attaches as much again.
    let text = "x".repeat(200 << 10);
    for _ in 0..4 {
        life.send("alice", &to("bob"), &text).await;
    }
    let feed = life.started.feed();
    let page = feed.read(from(1)).await.unwrap();
    assert_eq!((entries_of(&page).len(), page.next), (2, 3), "a megabyte and no more");
    assert_eq!(everything(&feed, 1, 1000).await.len(), 4);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_a_consumer_sees_exactly_what_was_acknowledged() {
    let life = begin(&Simulated::new(1), keeping());
    let feed = life.started.feed();
    let senders = (0..4_u32).map(|sender| {
        let conversations = life.conversations().clone();
        tokio::spawn(async move {
            let from = user(&format!("sender{sender}"));
            for number in 1..=100_u32 {
                loop {
                    let text = format!("{number} {}", "x".repeat(300));
                    match conversations.send(&from, &to("all"), draft(&text, "")).await {
                        Err(Rejection::Overloaded) => tokio::task::yield_now().await,
                        answer => break assert_eq!(answer.unwrap().msg_index, number),
                    }
                }
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    let (mut next, mut seen) = (1, [0_u32; 4]);
    while seen != [100; 4] {
        let page = feed.read(Wanted { wait: NEVER, count: 50, ..from(next) }).await.unwrap();
        for entry in page.entries() {
            let entry = entry.unwrap();
            let Change::Send { msg_index, sender, .. } = entry.change else { panic!("{entry:?}") };
            let sender: usize = sender.strip_prefix("sender").unwrap().parse().unwrap();
            seen[sender] += 1;
            assert_eq!((entry.offset, msg_index), (next, seen[sender]));
            next += 1;
        }
        assert_eq!(page.next, next);
        if next % 50 < 10 {
            life.checkpoint().unwrap();
        }
    }
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(next, 401);
    life.stop().await;
}
