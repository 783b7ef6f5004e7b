//! Loading: what only the log's tail has is there for whoever touches it first, and for everybody else.

use super::*;

const CONVERSATIONS: usize = 100;

async fn killed_without_a_checkpoint() -> Simulated {
    let life = Life::begin(&Simulated::new(1));
    for number in 0..CONVERSATIONS {
        life.send("alice", &peer(number), "hello").await;
    }
    life.kill().await
}

fn peer(number: usize) -> Address {
    to(&format!("peer {number}"))
}

/// After the next look, somebody else has loaded the conversation with the first peer.
fn plan_a_load(life: &Life) {
    let (directory, runtime) = (life.directory().clone(), tokio::runtime::Handle::current());
    life.directory().meanwhile.plan(move || {
        runtime.block_on(image_of(&directory, &key("alice", &peer(0))));
    });
}

fn is_found(life: &Life) -> bool {
    tokio::task::block_in_place(|| life.directory().enter(&key("alice", &peer(0)), 0).is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_log_has_is_never_absent_while_it_is_loaded() {
    let life = Life::begin(&killed_without_a_checkpoint().await);
    plan_a_load(&life);
    assert!(is_found(&life));
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_loaded_saved_and_passivated_between_two_looks_is_not_absent() {
    let life = Arc::new(Life::begin(&killed_without_a_checkpoint().await));
    plan_a_load(&life);
    let other = life.clone();
    life.directory().meanwhile.plan(move || {
        other.started.operator().checkpoint(false).unwrap();
        // A permit is given back a moment after the answer.
        tokio::runtime::Handle::current()
            .block_on(eventually("answers are over", || other.conversations().in_flight() == 0));
        other.directory().passivate(|_| true);
        assert!(!other.directory().is_resident(&key("alice", &peer(0))));
    });
    assert!(is_found(&life));
    Arc::into_inner(life).expect("nobody else has it").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_who_comes_at_once_gets_the_same_answers() {
    let disk = killed_without_a_checkpoint().await;
    let life = Life::begin(&disk);
    assert_eq!((life.conversations().count(), life.conversations().resident()), (CONVERSATIONS, 0));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..CONVERSATIONS {
        for _ in 0..3 {
            let (conversations, at) = (life.conversations().clone(), peer(number));
            calls.spawn(async move { conversations.pull(&user("alice"), &at, from_the_beginning()).await });
        }
        let (conversations, at) = (life.conversations().clone(), peer(number));
        calls.spawn(
            async move { conversations.ack(&user("alice"), &at, 1).await.map(|()| Page::new(1, 0, 1)) },
        );
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().unwrap().max_msg_index, 1);
    }
    assert_eq!(life.send("alice", &peer(7), "again").await.msg_index, 2);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist_is_absent_and_looking_does_not_make_it() {
    let life = Life::begin(&killed_without_a_checkpoint().await);
    let nobody = to("nobody");
    assert_eq!(life.pull("alice", &nobody).await.unwrap().max_msg_index, 0);
    let absent = Rejection::NoSuchMessage { asked: 1, newest: 0 };
    assert_eq!(life.conversations().ack(&user("alice"), &nobody, 1).await, Err(absent.clone()));
    assert_eq!(life.conversations().recall(&user("alice"), &nobody, 1).await, Err(absent));
    assert_eq!((life.conversations().count(), life.conversations().resident()), (CONVERSATIONS, 0));
    life.stop().await;
}
