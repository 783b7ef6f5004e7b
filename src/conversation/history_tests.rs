//! History: what stays, what goes, and what is known of what went.

use super::*;
use crate::conversation::old::Old;
use crate::conversation::retention;

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
fn nothing_begins_where_a_row_cannot_point_to() {
    let mut history = History::default();
    let long = "l".repeat(usize::from(u16::MAX));
    for text in [long.as_str(), "short", &"x".repeat(100_000), "behind", ""] {
        history.push(message("", text, "e"));
    }
    // The first block has room behind what 16 bits reach, were it allocated so.
    history.blocks[0].reserve(1000);
    history.push(message("", "more", ""));
    let texts: Vec<_> = (1..=6).map(|index| history.message(index).unwrap().msg.len()).collect();
    assert_eq!(texts, [65_535, 5, 100_000, 6, 0, 4]);
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
    let blocks: String = history.blocks.iter().map(String::as_str).collect();
    assert!(!blocks.contains("secret") && !blocks.contains("attach"));
    assert_eq!(history.message(2), Some(message("", "kept", "")));
}

const FEW: Options = Options {
    recent_messages: 100,
    recent_text_bytes: 10_000,
    retry_messages: 300,
    retry_age: Duration::from_nanos(500),
};

fn at(timestamp_ns: u64, client_msg_id: &str) -> Stored<'_> {
    Stored { timestamp_ns, ..message(client_msg_id, "text", "") }
}

/// One message a nanosecond; everything is saved at once.
fn trimmed(messages: u32) -> History {
    let mut history = History::new(FEW);
    for index in 1..=messages {
        history.push(at(u64::from(index), &format!("id-{index}")));
        history.trim(index);
    }
    history
}

#[test]
fn the_newest_stay_and_the_others_go_once_they_are_saved() {
    let mut history = trimmed(150);
    assert_eq!(history.newest_old(), 0, "not many yet");
    for index in 151..=300 {
        history.push(at(index, ""));
    }
    assert!(!history.trim(0), "nothing is saved");
    assert!(history.trim(120));
    assert_eq!((history.newest_old(), history.newest_message()), (120, 300));
    assert!(!history.trim(300), "not many any more");
    history.push_recall(7);
    history.push_recall(130);
    (0..30).for_each(|_| history.push(at(301, "")));
    assert!(history.trim(330));
    assert_eq!(history.newest_old(), 230);
    assert_eq!(history.message(230), None);
    assert!((231..=330).all(|index| history.message(index).is_some_and(|it| it.msg == "text")));
    assert_eq!([7, 130, 8].map(|index| history.recall_of(index)), [1, 2, 0]);
    // Of what is not in memory no text can be erased.
    history.erase_through(2);
}

#[test]
fn texts_count_as_much_as_messages() {
    let mut history = History::new(FEW);
    let text = "x".repeat(3_000);
    for index in 1..=50 {
        history.push(message("", &text, ""));
        history.trim(index);
        assert!(history.text_bytes <= 2 * FEW.recent_text_bytes);
    }
    assert!(history.message(50).is_some());
    assert!(history.newest_old() > 40);
}

#[test]
fn a_retry_of_what_went_is_found_for_as_long_as_it_is_remembered() {
    let history = trimmed(2_000);
    let old = history.newest_old();
    assert!(old >= 1_800);
    for index in 1..=2_000 {
        let (id, kept) = (format!("id-{index}"), history.find_retry(1, &format!("id-{index}")));
        let in_packs = history.find_old_retry(1, &id, u32::MAX);
        match history.remembers(index, u64::from(index), 2_000) {
            true if index > old => assert_eq!(kept, Some(index)),
            true => assert_eq!(in_packs, Some(index)),
            false => assert!(index < 1_500, "{index} is young"),
        }
    }
    assert_eq!(history.find_old_retry(2, "id-1700", u32::MAX), None, "of another sender");
    assert_eq!(history.find_old_retry(1, "id-1700", 1_700), None, "only below");
    assert_eq!(history.find_old_retry(1, "id-100", u32::MAX), None, "long forgotten");
}

#[test]
fn of_two_messages_under_one_id_the_newer_is_found() {
    let mut history = trimmed(120);
    history.push(at(10_000, "id-50"));
    assert_eq!(history.find_retry(1, "id-50"), Some(121));
    (0..200).for_each(|_| history.push(at(10_000, "")));
    history.trim(321);
    history.push(at(10_000, "id-121"));
    assert_eq!(history.find_retry(1, "id-121"), Some(322));
}

#[test]
fn recalls_in_any_order_are_found_by_their_message() {
    let mut one_by_one = History::default();
    let mut at_once = History::default();
    for _ in 0..1_000 {
        one_by_one.push(message("", "m", ""));
        at_once.push(message("", "m", ""));
    }
    let messages: Vec<u32> = (1..=1_000).filter(|index| index % 3 > 0).map(|i| i * 7 % 1_000 + 1).collect();
    messages.iter().for_each(|index| one_by_one.push_recall(*index));
    at_once.push_recalls(&messages[..100]).expect("each once");
    at_once.push_recalls(&messages[100..]).expect("each once");
    for history in [&one_by_one, &at_once] {
        for (msg_index, recall_index) in messages.iter().zip(1..) {
            assert_eq!(history.recall_of(*msg_index), recall_index);
            assert_eq!(history.message(*msg_index).map(|it| it.recall_index), Some(recall_index));
        }
        let not_recalled = (1..=1_000).filter(|index| history.recall_of(*index) == 0).count();
        assert_eq!(not_recalled, 1_000 - messages.len());
    }
    assert_eq!(at_once.clone().push_recalls(&[messages[0]]), Err(messages[0]));
    assert_eq!(History::default().push_recalls(&[1]), Err(1));
}

/// What the newest messages take is bounded; what the older ones take is 16 bytes for a mark a trim,
/// and for a day those of their retries.
#[test]
fn a_long_history_takes_no_more_memory_than_its_recent_part() {
    let mut history = History::default();
    let text = "x".repeat(100);
    let day_ns = Options::default().retry_age.as_nanos() as u64;
    let (mut most, mut after_some) = (0, 0);
    for index in 1..=200_000_u32 {
        // A thousand a day.
        let timestamp_ns = u64::from(index) * (day_ns / 1_000);
        let id = index.to_string();
        history.push(Stored { timestamp_ns, ..message(&id, &text, "") });
        if index % 500 == 0 {
            history.trim(index);
        }
        most = most.max(history.bytes());
        if index == 100_000 {
            after_some = most;
        }
    }
    assert!(most < 3 << 20, "{most} bytes");
    // Tables grow by doubling; two bytes a message would be more than that.
    assert!(most <= after_some + after_some / 8, "{after_some} bytes grew to {most}");
    assert_eq!(history.newest_message(), 200_000);
}

const HOUR_NS: u64 = 3_600_000_000_000;

/// A message an hour from the first hour on.
fn hourly(messages: u32, options: Options) -> History {
    let mut history = History::new(options);
    for index in 1..=messages {
        history.push(at(u64::from(index) * HOUR_NS, ""));
    }
    history
}

fn kept_from(history: &mut History, rules: retention::Options, newest: u32, now_ns: u64) -> u32 {
    assert_eq!(history.retain(&rules, newest, now_ns, Old::NONE), None);
    history.kept_from()
}

#[test]
fn the_oldest_that_is_kept_is_counted_from_the_newest_durable_message() {
    let mut history = hourly(100, Options::default());
    let rules = retention::Options { count: Some(30), age: None };
    assert_eq!(kept_from(&mut history, retention::Options::default(), 100, u64::MAX), 1);
    assert_eq!(kept_from(&mut history, rules, 20, 0), 1);
    assert_eq!(kept_from(&mut history, rules, 90, 0), 61);
    assert_eq!(kept_from(&mut history, rules, 100, 0), 71);
    let more = retention::Options { count: Some(60), age: None };
    assert_eq!(kept_from(&mut history, more, 100, 0), 71, "never back");
}

#[test]
fn ages_count_in_whole_hours_and_both_rules_hold() {
    let mut history = hourly(100, Options::default());
    let rules = retention::Options { count: None, age: Some(Duration::from_hours(24)) };
    assert_eq!(kept_from(&mut history, rules, 100, 10 * HOUR_NS), 1);
    assert_eq!(kept_from(&mut history, rules, 100, 74 * HOUR_NS), 50);
    assert_eq!(kept_from(&mut history, rules, 100, 75 * HOUR_NS - 1), 50, "not within the hour");
    assert_eq!(kept_from(&mut history, rules, 100, 75 * HOUR_NS), 51);
    assert_eq!(kept_from(&mut history, rules, 100, 60 * HOUR_NS), 51, "never back, as clocks do");
    let both = retention::Options { count: Some(20), ..rules };
    assert_eq!(kept_from(&mut history, both, 100, 80 * HOUR_NS), 81);
    assert_eq!(kept_from(&mut history, both, 100, 110 * HOUR_NS), 86);
    assert_eq!(kept_from(&mut history, rules, 90, 500 * HOUR_NS), 91, "what is not durable is not counted");
    assert_eq!(kept_from(&mut history, rules, 100, 500 * HOUR_NS), 101, "none is kept");
}

#[test]
fn where_an_age_ends_among_old_messages_is_looked_up_once_an_hour() {
    let mut history = hourly(400, FEW);
    let evidence = history.clone();
    assert!(history.trim(400));
    assert_eq!(history.newest_old(), 300);
    let rules = retention::Options { count: None, age: Some(Duration::from_hours(200)) };
    let missing = history.retain(&rules, 400, 420 * HOUR_NS, Old::NONE).expect("it is not in memory");
    assert!(missing.0.contains(&220), "{missing:?}");
    let mut old = Old::default();
    old.add(std::sync::Arc::new(evidence));
    assert_eq!(history.retain(&rules, 400, 420 * HOUR_NS, &old), None);
    assert_eq!(history.kept_from(), 220);
    assert_eq!(kept_from(&mut history, rules, 400, 421 * HOUR_NS - 1), 220, "nothing to look up");
    assert!(history.retain(&rules, 400, 421 * HOUR_NS, Old::NONE).is_some());
    assert_eq!(kept_from(&mut history, rules, 400, 550 * HOUR_NS), 350, "it ends in memory");
    let mut gone = Old::default();
    gone.note_gone(360, 370);
    assert_eq!(history.retain(&retention::Options::default(), 400, 0, &gone), None);
    assert_eq!(history.kept_from(), 371, "what packs do not have is not kept");
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
