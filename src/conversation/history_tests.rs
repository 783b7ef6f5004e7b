//! History: what stays, what goes, and what is known of what went.

use super::*;

fn message<'a>(client_msg_id: &'a str, msg: &'a str, extra: &'a str) -> Stored<'a> {
    Stored { sender: 1, timestamp_ns: 9, recall_index: 0, client_msg_id, msg, extra, erased: false }
}

#[test]
fn messages_of_any_length_come_back() {
    let mut history = History::default();
    let texts: Vec<String> = (0..200).map(|i| "ä".repeat(i * i % 50_000)).collect();
    for text in &texts {
        history.push(message("", text, "e"));
    }
    for (text, index) in texts.iter().zip(1..) {
        assert_eq!(history.message(index), Some(message("", text, "e")));
    }
    assert_eq!(history.message(0), None);
    assert_eq!(history.message(201), None);
}

#[test]
fn a_retry_is_found_by_sender_and_id_also_after_erasure() {
    let mut history = History::default();
    for i in 0..1_000 {
        history.push(message(&format!("id-{i}"), "text", "extra"));
    }
    history.push_recall(500);
    history.erase_through(1);
    for i in 0..1_000 {
        assert_eq!(history.find_retry(1, &format!("id-{i}")), Some(i + 1));
    }
    assert_eq!(history.find_retry(2, "id-1"), None);
    assert_eq!(history.find_retry(1, "id-1000"), None);
}

#[test]
fn erased_texts_are_gone_from_memory() {
    let mut history = History::default();
    history.push(message("c", "secret", "attached"));
    history.push(message("", "kept", ""));
    history.push_recall(1);
    assert_eq!(history.message(1).map(|m| (m.msg, m.recall_index)), Some(("secret", 1)));
    history.erase_through(1);
    assert_eq!(history.message(1).map(|m| (m.msg, m.extra)), Some(("", "")));
    let blocks: Vec<u8> = history.blocks.iter().flatten().copied().collect();
    assert!(!blocks.windows(6).any(|window| window == b"secret" || window == b"attach"));
    assert_eq!(history.message(2), Some(message("", "kept", "")));
}

#[test]
fn recalled_messages_behind_any_one_are_counted_whatever_their_order() {
    let mut history = History::default();
    (0..10).for_each(|_| history.push(message("", "text", "")));
    for (recalled, index) in [7, 2, 9, 8, 1].into_iter().zip(1..) {
        history.push_recall(recalled);
        assert_eq!(history.recalled_behind(0), index);
    }
    let behind: Vec<_> = (0..=10).map(|index| history.recalled_behind(index)).collect();
    assert_eq!(behind, [5, 4, 3, 3, 3, 3, 3, 2, 1, 0, 0]);
}
