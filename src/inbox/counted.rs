//! What a long inbox costs in instructions: see [`crate::counted`].

use std::sync::Arc;

use super::rows::Rows;
use crate::counted::{measured, rounds};
use crate::live::{Content, Event};
use crate::message::{ConversationKey, OwnedMessage, UserId};

const CHATS: u64 = 10_000;
const EVENTS: usize = 1_000;
const PAGES: usize = 100;
const PAGE: usize = 50;
const TEXT_BYTES: usize = 200;

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid id")
}

/// What a message of this conversation at this time makes everybody hear.
fn message(chat: u64, msg_index: u32, timestamp_ns: u64) -> Arc<Event> {
    let sender = user(&format!("peer-{chat:05}"));
    let key = Arc::new(ConversationKey::direct(user("alice"), sender.clone()));
    let (msg, extra) = ("m".repeat(TEXT_BYTES).into(), "".into());
    let content = Content::Message(Arc::new(OwnedMessage { msg_index, sender, timestamp_ns, msg, extra }));
    Arc::new(Event::new(key, msg_index, 0, content))
}

/// An inbox in which every conversation has one message, the first one the oldest.
fn inbox() -> Rows {
    let mut rows = Rows::new(user("alice"));
    for chat in 1..=CHATS {
        rows.apply(chat, &[message(chat, 1, chat)]);
    }
    rows
}

#[test]
fn page() {
    let (mut rows, by) = (inbox(), user("alice"));
    let mut cursor = None;
    let unread: u32 = measured(|| {
        (0..rounds(PAGES))
            .flat_map(|_| {
                let (page, next) = rows.page(cursor, PAGE);
                cursor = next;
                page
            })
            .map(|(key, standing, _)| standing.to_chat(&key, &by).unread)
            .sum()
    });
    assert_eq!(unread as usize, rounds(PAGES) * PAGE, "one in each conversation");
}

/// Everything that moved is in its place again when the first page is read.
#[test]
fn events() {
    let mut rows = inbox();
    let events: Vec<_> = (1..=rounds(EVENTS) as u64).map(|chat| message(chat, 2, CHATS + chat)).collect();
    let (page, _) = measured(|| {
        for (lsn, event) in (CHATS + 1..).zip(&events) {
            rows.apply(lsn, std::slice::from_ref(event));
        }
        rows.page(None, PAGE)
    });
    assert_eq!(page[0].0, events[events.len() - 1].key);
    assert_eq!(rows.total_unread() as usize, CHATS as usize + rounds(EVENTS));
}
