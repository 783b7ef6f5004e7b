use std::slice::from_ref;
use std::task::{Context, Poll, Waker};

use super::delivery::{Deliveries, Delivery};
use super::*;
use crate::live::{Behind, Content, GroupAction};
use crate::message::{GroupId, OwnedMessage};

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid id")
}

fn group() -> Arc<ConversationKey> {
    Arc::new(ConversationKey::Group(GroupId::parse("g").expect("a valid id")))
}

fn standing(lsn: u64, messages: u32, unread: u32) -> Standing {
    Standing { lsn, messages, recalls: 0, read_cursor: 0, unread, timestamp_ns: 1, blocks: false }
}

fn message(key: &Arc<ConversationKey>, msg_index: u32) -> Vec<Arc<Event>> {
    let (sender, msg, extra) = (user("bob"), "text".into(), "".into());
    let message = OwnedMessage { msg_index, sender, timestamp_ns: 1, msg, extra };
    vec![Arc::new(Event::new(key.clone(), msg_index, 0, Content::Message(Arc::new(message))))]
}

fn kick(key: &Arc<ConversationKey>, messages: u32) -> Vec<Arc<Event>> {
    let (action, by) = (GroupAction::Kick, user("bob"));
    let content = Content::Group { action, user: user("me"), by, newest_message_ns: 1 };
    vec![Arc::new(Event::new(key.clone(), messages, 0, content))]
}

/// An open inbox that could not ask one conversation.
fn inbox_without(key: &Arc<ConversationKey>) -> Inbox {
    let inbox = Inbox::new(user("me"), 0);
    inbox.open(|_| (), [key.clone()]);
    inbox
}

fn attached(inbox: &Inbox) -> Arc<Session> {
    let session = Arc::new(Session::default());
    inbox.attach(&session, |_| ()).expect("it is open");
    session
}

/// What the session has: where it is behind, and the indices of its events.
fn take(session: &Session) -> (Vec<u32>, Vec<u32>) {
    let (mut events, mut behind) = (Vec::new(), Vec::new());
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(taken) = session.poll_take(&mut cx, &mut events, usize::MAX) {
        match taken {
            Some(Behind::Chats(chats)) => behind.extend(chats.values().map(|newest| newest.msg_index)),
            other => assert_eq!(other, None),
        }
    }
    (behind, events.iter().map(|event| event.messages).collect())
}

/// Asks the one conversation, which answers this; `meanwhile` happens in between.
fn ask(inbox: &Inbox, key: &Arc<ConversationKey>, answer: Option<Standing>, meanwhile: impl FnOnce()) {
    assert_eq!(inbox.begin_asking(), from_ref(key));
    meanwhile();
    inbox.settle(key.clone(), Ok(answer));
}

#[test]
fn an_answer_from_before_a_kick_lists_nothing() {
    let key = group();
    let inbox = inbox_without(&key);
    ask(&inbox, &key, Some(standing(10, 5, 0)), || inbox.deliver(11, &kick(&key, 5)));
    assert_eq!((inbox.with_rows(|rows| rows.keys().count()), inbox.has_unknown()), (0, false));
    // Control: a kick from before the answer does not count.
    let inbox = inbox_without(&key);
    ask(&inbox, &key, Some(standing(12, 5, 0)), || inbox.deliver(11, &kick(&key, 5)));
    assert_eq!(inbox.with_rows(|rows| rows.keys().count()), 1);
}

#[test]
fn a_session_is_told_where_an_unknown_conversation_stands_before_its_events() {
    let key = group();
    let inbox = inbox_without(&key);
    let first = attached(&inbox);
    inbox.deliver(11, &message(&key, 6));
    assert_eq!(take(&first), (vec![6], vec![]));
    inbox.deliver(12, &message(&key, 7));
    assert_eq!(take(&first), (vec![], vec![7]));
    let second = attached(&inbox);
    ask(&inbox, &key, Some(standing(13, 8, 8)), || inbox.deliver(13, &message(&key, 8)));
    assert_eq!(take(&second), (vec![8], vec![]), "hello did not name it");
    inbox.deliver(14, &message(&key, 9));
    assert_eq!(take(&second), (vec![], vec![9]));
    assert_eq!(inbox.with_rows(|rows| rows.total_unread()), 9);
    // Control: whoever comes now has it in hello.
    let third = attached(&inbox);
    inbox.deliver(15, &message(&key, 10));
    assert_eq!(take(&third), (vec![], vec![10]));
}

#[test]
fn who_asked_and_never_settled_leaves_the_conversation_to_be_asked_again() {
    let key = group();
    let inbox = inbox_without(&key);
    assert_eq!(inbox.begin_asking(), from_ref(&key));
    ask(&inbox, &key, Some(standing(1, 1, 1)), || ());
    assert_eq!((inbox.with_rows(|rows| rows.total_unread()), inbox.has_unknown()), (1, false));
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "its bug is an overflow, which only builds with checks notice")]
async fn a_bug_in_one_delivery_leaves_its_inbox_behind_and_holds_up_nobody_else() {
    let (key, deliveries) = (group(), Deliveries::start());
    let opened = |who, unread| {
        let inbox = Arc::new(Inbox::new(user(who), 0));
        inbox.open(|rows| rows.put(key.clone(), standing(1, 1, unread)), []);
        inbox
    };
    // One more than there can be.
    let (broken, healthy) = (opened("broken", u32::MAX), opened("healthy", 1));
    let (of_broken, of_healthy) = (attached(&broken), attached(&healthy));
    let listeners = Arc::from([broken.clone(), healthy]);
    let events = message(&key, 2);
    deliveries.announce();
    deliveries.give_announced(vec![Delivery { listeners, lsn: Some(2), events, apart: vec![], permit: () }]);
    deliveries.caught_up().await;
    assert_eq!(take(&of_healthy), (vec![], vec![2]));
    let taken = of_broken.poll_take(&mut Context::from_waker(Waker::noop()), &mut Vec::new(), usize::MAX);
    assert_eq!(taken, Poll::Ready(Some(Behind::Everything)));
    assert_eq!(broken.begin_asking(), [key], "it is asked again");
}
