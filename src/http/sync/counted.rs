//! What the bytes of a list cost in instructions: see [`crate::counted`].

use std::sync::Arc;

use super::*;
use crate::counted::{measured, rounds};
use crate::http::encoding::ReplyEncoding;
use crate::message::{Chat, ChatsPage, Last, OwnedMessage};

const CHATS: u32 = 50;
const TEXT_BYTES: usize = 200;
const TIMESTAMP_NS: u64 = 1_700_000_000_000_000_000;

/// A conversation of the list and its newest message.
fn chat(number: u32, text: &str) -> (Chat, Option<Last>) {
    let sender = UserId::parse(&format!("peer-{number:05}")).expect("a valid id");
    let at = Address::User(sender.clone());
    let (msg, extra) = (text.into(), "".into());
    let message = OwnedMessage { msg_index: 1, sender, timestamp_ns: TIMESTAMP_NS, msg, extra };
    let last = Last { message: Arc::new(message), recall_index: 0 };
    let chat =
        Chat { at, msg_index: 1, recall_index: 0, ack_index: 0, unread: 1, timestamp_ns: TIMESTAMP_NS };
    (chat, Some(last))
}

#[test]
fn list() {
    let text = "m".repeat(TEXT_BYTES);
    let page = ChatsPage {
        chats: (0..CHATS).map(|number| chat(number, &text)).collect(),
        total_unread: CHATS.into(),
        cursor: "1700000000000000000.0123456789abcdef".to_owned(),
    };
    let pages: Vec<_> = (0..rounds(100)).map(|_| Reply::Chats(page.clone())).collect();
    let bytes: usize =
        measured(|| pages.into_iter().map(|page| page.encode(ReplyEncoding::Json).len()).sum());
    assert!(bytes > rounds(100) * CHATS as usize * TEXT_BYTES);
}
