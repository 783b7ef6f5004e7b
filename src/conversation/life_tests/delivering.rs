//! Live delivery: whoever looks gets every event once, in order, without a hole, from wherever they
//! joined; who is put out hears that and nothing further.

use std::future::poll_fn;
use std::task::Poll;

use super::*;
use crate::live::{Behind, Content, Event, Limits, Session};
use crate::message::Chat;

pub(super) fn session() -> Arc<Session> {
    let no_limits = Limits { events_max: usize::MAX, bytes_max: usize::MAX, behind_max: usize::MAX };
    Arc::new(Session::new(no_limits))
}

/// The next events; waits for one.
async fn take(session: &Session) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    let behind: Option<Behind> = poll_fn(|cx| session.poll_take(cx, &mut events, usize::MAX)).await;
    assert_eq!(behind, None);
    events
}

/// Those that wait now, or none.
pub(super) async fn taken(session: &Session) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    poll_fn(|cx| {
        let _ = session.poll_take(cx, &mut events, usize::MAX);
        Poll::Ready(())
    })
    .await;
    events
}

pub(super) fn indices_of(events: &[Arc<Event>]) -> Vec<u32> {
    let index = |event: &Arc<Event>| match &event.content {
        Content::Message(message) => Some(message.msg_index),
        _ => None,
    };
    events.iter().filter_map(index).collect()
}

fn begun(chats: &[Chat], at: &Address) -> u32 {
    chats.iter().find(|chat| chat.at == *at).map_or(0, |chat| chat.msg_index)
}

/// Writers write, readers come and go, conversations leave memory: each reader gets exactly what is
/// behind the place where it joined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_while_others_write_misses_nothing_and_gets_nothing_twice() {
    const MESSAGES: u32 = 400;
    let life = Arc::new(Life::begin(&Simulated::new(1)));
    let members = ["ann", "ben", "cat"].map(user).to_vec();
    life.conversations()
        .create_group(&caller("ann"), Some(group_id("g")), "n".into(), members)
        .await
        .unwrap();
    let writers: Vec<_> = ["ann", "cat"]
        .into_iter()
        .map(|writer| {
            let life = life.clone();
            tokio::spawn(async move {
                for number in 0..MESSAGES {
                    let at = if number % 2 == 0 { to("ben") } else { group("g") };
                    life.send(writer, &at, "text").await;
                }
            })
        })
        .collect();
    let all = [(to("ann"), MESSAGES / 2), (to("cat"), MESSAGES / 2), (group("g"), MESSAGES)];
    let mut joined = 0;
    while !writers.iter().all(|writer| writer.is_finished()) || joined < 3 {
        joined += 1;
        let session = session();
        let (attached, chats) = life.conversations().attach(&user("ben"), session.clone(), 10).await.unwrap();
        let mut expected: Vec<_> = all.iter().map(|(at, _)| begun(&chats, at) + 1).collect();
        let mut left = if joined % 2 == 0 { 30 } else { 1_000_000 };
        while left > 0 && expected.iter().zip(&all).any(|(next, (_, end))| next <= end) {
            for event in take(&session).await {
                let at = event.key.address_for(&user("ben"));
                let place = all.iter().position(|(known, _)| *known == at).unwrap();
                for index in indices_of(&[event]) {
                    assert_eq!(index, expected[place], "{at:?} in session {joined}");
                    expected[place] += 1;
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        drop(attached);
        if joined % 4 == 0 {
            life.conversations().shared.context.inboxes.close_idle(u32::MAX, u64::MAX);
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newcomer_hears_of_coming_in_and_the_one_put_out_of_that_and_nothing_further() {
    let life = Life::begin(&Simulated::new(1));
    let conversations = life.conversations();
    let ben = session();
    let (_attached, chats) = conversations.attach(&user("ben"), ben.clone(), 10).await.unwrap();
    assert_eq!(chats, []);
    conversations.create_group(&caller("ann"), Some(group_id("g")), "n".into(), vec![]).await.unwrap();
    life.send("ann", &group("g"), "before").await;
    conversations.add_members(&caller("ann"), &group_id("g"), vec![user("ben")]).await.unwrap();
    life.send("ann", &group("g"), "while").await;
    conversations.kick_members(&caller("ann"), &group_id("g"), vec![user("ben")]).await.unwrap();
    life.send("ann", &group("g"), "behind").await;
    conversations.shared.context.deliveries.caught_up().await;
    let events = taken(&ben).await;
    let told: Vec<_> = events
        .iter()
        .map(|event| match &event.content {
            Content::Group { action, user, by, .. } => format!("{action:?} {user} by {by}"),
            Content::Message(message) => message.msg.to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["Add ben by ann", "Behind", "while", "Kick ben by ann"]);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reaches_who_is_in_and_leaves_nothing_behind() {
    let life = Life::begin(&Simulated::new(1));
    let conversations = life.conversations();
    life.send("ann", &to("ben"), "hello").await;
    let (ben, cat) = (session(), session());
    let _ben = conversations.attach(&user("ben"), ben.clone(), 10).await.unwrap();
    let _cat = conversations.attach(&user("cat"), cat.clone(), 10).await.unwrap();
    conversations.signal(&user("ann"), &to("ben"), "typing", "{}").await.unwrap();
    // To a stranger it goes nowhere, and begins nothing.
    conversations.signal(&user("ann"), &to("cat"), "typing", "{}").await.unwrap();
    assert!(matches!(&take(&ben).await[..], [event] if matches!(event.content, Content::Signal { .. })));
    assert_eq!(taken(&cat).await.len(), 0);
    assert_eq!(conversations.count(), 1);
    life.stop().await;
}

/// A conversation that comes into memory finds those who look already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_conversation_wakes_up_with_its_listeners() {
    let life = Life::begin(&Simulated::new(1));
    life.send("ann", &to("ben"), "one").await;
    let life = Life::begin(&life.stop().await);
    let ben = session();
    let (_attached, chats) = life.conversations().attach(&user("ben"), ben.clone(), 10).await.unwrap();
    assert_eq!(begun(&chats, &to("ann")), 1);
    assert_eq!(life.conversations().resident(), 0, "to look at it does not touch it");
    life.send("ann", &to("ben"), "two").await;
    assert_eq!(indices_of(&take(&ben).await), [2]);
    assert_eq!(life.conversations().recall(&user("ann"), &to("ben"), 1).await, Ok(1));
    let recalled = take(&ben).await;
    assert!(matches!(recalled[0].content, Content::Recall { msg_index: 1, recall_index: 1, .. }));
    life.stop().await;
}

/// The actor is there before anybody looks, and the conversation begins after somebody does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_reaches_who_began_to_look_after_the_actor_started() {
    let life = Life::begin(&Simulated::new(1));
    let entered = life.directory().escort(&key("ann", &to("ben"))).expect("it is not refused");
    let ben = session();
    let (_attached, chats) = life.conversations().attach(&user("ben"), ben.clone(), 10).await.unwrap();
    assert_eq!(chats, []);
    drop(entered);
    life.send("ann", &to("ben"), "hello").await;
    assert_eq!(indices_of(&take(&ben).await), [1]);
    let list = life.conversations().list(&user("ben"), "", 10).await.unwrap();
    assert_eq!((list.chats.len(), list.total_unread), (1, 1));
    life.stop().await;
}
