//! Inboxes and streams when something goes wrong beside them: refused sends, damage, actors that die, callers
//! that go away.

use super::delivering::{indices_of, session, taken};
use super::*;
use crate::conversation::durable::DurableHead;
use crate::live::{Behind, Newest};
use crate::message::Sync;

fn once() -> Sync {
    Sync { positions: vec![], wait: Duration::ZERO, count: 50 }
}

async fn listed(life: &Life, who: &str) -> Vec<(Address, u32, u32)> {
    let page = life.conversations().list(&user(who), "", 50).await.unwrap();
    page.chats.into_iter().map(|(chat, _)| (chat.at, chat.msg_index, chat.unread)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looked_while_the_first_message_was_refused_hears_the_one_that_is_not() {
    let life = Life::begin(&Simulated::new(1));
    let conversations = life.conversations().clone();
    life.send("ann", &to("dan"), "the log has begun").await;
    life.disk.set_capacity(life.disk.used_bytes());
    let draft = draft(&"x".repeat(3000), "");
    while conversations.send(&user("ann"), &to("dan"), draft.clone()).await != Err(Rejection::ReadOnly) {
        tokio::task::yield_now().await;
    }
    assert_eq!(conversations.send(&user("ann"), &to("ben"), draft).await, Err(Rejection::ReadOnly));
    let ben = session();
    let (_attached, chats) = conversations.attach(&user("ben"), ben.clone(), 10).await.unwrap();
    assert_eq!(chats, []);
    life.disk.set_capacity(usize::MAX);
    loop {
        match conversations.send(&user("ann"), &to("ben"), super::draft("now", "")).await {
            Err(Rejection::ReadOnly | Rejection::Overloaded) => tokio::task::yield_now().await,
            sent => break assert_eq!(sent.unwrap().msg_index, 1),
        }
    }
    assert_eq!(listed(&life, "ben").await, [(to("ann"), 1, 1)]);
    assert_eq!(indices_of(&taken(&ben).await), [1]);
    life.stop().await;
}

/// One of two conversations of ben is damaged in its pack, and nobody has noticed yet.
async fn with_damage() -> Life {
    let life = Life::begin(&Simulated::new(1));
    life.send("ann", &to("ben"), "the needle").await;
    life.send("cat", &to("ben"), "hay").await;
    let disk = life.stop().await;
    let (file, at) = files_with(&disk, &["snap"], "the needle").pop().expect("in a pack");
    disk.flip(&file, at, 1);
    Life::begin(&disk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_conversation_is_left_out_of_a_sync_that_has_the_others() {
    let life = with_damage().await;
    for _ in 0..2 {
        let synced = life.conversations().sync(&user("ben"), once()).await.unwrap();
        let of: Vec<_> = synced.chats.iter().map(|delta| delta.chat.at.clone()).collect();
        assert_eq!(of, [to("cat")]);
    }
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_has_nothing_but_damage_to_tell_waits_for_more() {
    let life = with_damage().await;
    let known = crate::message::Position { at: to("cat"), msg_index: 1, recall_index: 0 };
    let sync = Sync { positions: vec![known], wait: Duration::from_secs(60), count: 50 };
    let (conversations, ben) = (life.conversations().clone(), user("ben"));
    let waiting = tokio::spawn(async move { conversations.sync(&ben, sync).await });
    eventually("the damage is noticed", || life.directory().refused() == 1).await;
    life.send("cat", &to("ben"), "more").await;
    let synced = waiting.await.unwrap().unwrap();
    let of: Vec<_> = synced.chats.iter().map(|delta| (delta.chat.at.clone(), delta.chat.msg_index)).collect();
    assert_eq!(of, [(to("cat"), 2)]);
    life.stop().await;
}

/// A conversation of ann and ben with two messages, refused because its actor has died.
async fn with_a_dead_actor() -> (Life, Arc<DurableHead>) {
    let life = Life::begin(&Simulated::new(1));
    life.send("ann", &to("ben"), "one").await;
    life.send("ann", &to("ben"), "two").await;
    let head = life.directory().escort(&key("ann", &to("ben"))).unwrap().0.head;
    kill_actor(life.directory(), &key("ann", &to("ben")));
    life.pull("ann", &to("ben")).await.unwrap_err();
    assert_eq!(life.directory().refused(), 1);
    (life, head)
}

fn bring_back(life: &Life, dead: &DurableHead) {
    let shared = &life.conversations().shared;
    let (publisher, dirty) = (&life.started.publisher, &shared.context.dirty);
    tokio::task::block_in_place(|| reload::hold_again(publisher, dirty, &dead.key)).unwrap();
    life.directory().release(dead);
}

/// Keeps the runtime's only worker busy until the sender is dropped: no actor gets on meanwhile.
async fn occupy_the_worker() -> std::sync::mpsc::Sender<()> {
    let (release, released) = std::sync::mpsc::channel();
    let (began, begun) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        began.send(()).expect("the test waits for it");
        released.recv().expect_err("only dropped");
    });
    begun.await.expect("it runs");
    release
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_caller_who_goes_away_takes_no_conversation_out_of_the_list() {
    let (life, dead) = with_a_dead_actor().await;
    assert_eq!(listed(&life, "ben").await, [], "it is refused");
    bring_back(&life, &dead);
    // It has to be read from the disk before it can say where it stands.
    let ben = user("ben");
    let release = occupy_the_worker().await;
    drop(cast(life.conversations().list(&ben, "", 50)).await);
    drop(release);
    assert_eq!(listed(&life, "ben").await, [(to("ann"), 2, 2)]);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_told_where_a_conversation_stands_that_hello_could_not_ask() {
    let (life, dead) = with_a_dead_actor().await;
    let ben = session();
    let (_attached, chats) = life.conversations().attach(&user("ben"), ben.clone(), 10).await.unwrap();
    assert_eq!(chats, []);
    bring_back(&life, &dead);
    life.send("ann", &to("ben"), "three").await;
    life.conversations().shared.context.deliveries.caught_up().await;
    let mut events = Vec::new();
    let behind = std::future::poll_fn(|cx| ben.poll_take(cx, &mut events, usize::MAX)).await;
    let Some(Behind::Chats(chats)) = behind else { panic!("{behind:?}, {events:?}") };
    assert_eq!(chats[&dead.key], Newest { msg_index: 3, recall_index: 0 });
    // Asked for now, it stands where the stream was told or further on, and goes on from there.
    assert_eq!(listed(&life, "ben").await, [(to("ann"), 3, 3)]);
    taken(&ben).await;
    life.send("ann", &to("ben"), "four").await;
    life.conversations().shared.context.deliveries.caught_up().await;
    assert_eq!(indices_of(&taken(&ben).await), [4]);
    life.stop().await;
}

/// Nobody reads, so everything is unread: an answer with fewer unread than messages was put together from two moments,
/// and the client, which has the newest message, would not ask again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_counts_what_it_brings() {
    let life = Arc::new(Life::begin(&Simulated::new(1)));
    life.send("ann", &to("ben"), "first").await;
    let writer = tokio::spawn({
        let life = life.clone();
        async move {
            for _ in 0..1500 {
                life.send("ann", &to("ben"), "text").await;
            }
        }
    });
    while !writer.is_finished() {
        let synced = life.conversations().sync(&user("ben"), once()).await.unwrap();
        let chat = &synced.chats[0].chat;
        assert!(chat.unread >= chat.msg_index, "{chat:?}");
        // And what was pulled is in a list behind it.
        let pulled = life.pull("ben", &to("ann")).await.unwrap().max_msg_index;
        assert!(listed(&life, "ben").await[0].1 >= pulled);
    }
    writer.await.unwrap();
}
