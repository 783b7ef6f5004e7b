use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::message::{Address, Duty, GroupId};

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid id")
}

fn pair(other: &str) -> Arc<ConversationKey> {
    Arc::new(ConversationKey::direct(user("me"), user(other)))
}

fn event(key: &Arc<ConversationKey>, messages: u32, recalls: u32, content: Content) -> Arc<Event> {
    Arc::new(Event::new(key.clone(), messages, recalls, content))
}

fn message(key: &Arc<ConversationKey>, msg_index: u32, sender: &str, timestamp_ns: u64) -> Arc<Event> {
    let (msg, extra) = ("text".into(), "".into());
    let message = OwnedMessage { msg_index, sender: user(sender), timestamp_ns, msg, extra };
    event(key, msg_index, 0, Content::Message(Arc::new(message)))
}

fn group_change(key: &Arc<ConversationKey>, messages: u32, action: GroupAction, who: &str) -> Arc<Event> {
    let content = Content::Group { action, user: user(who), by: user("boss"), newest_message_ns: 5 };
    event(key, messages, 0, content)
}

fn addresses(rows: &mut Rows, count: usize) -> Vec<Address> {
    let mut cursor = None;
    let mut found = Vec::new();
    loop {
        let (page, next) = rows.page(cursor, count);
        assert!(page.len() <= count);
        found.extend(page.iter().map(|(key, ..)| key.address_for(&user("me"))));
        cursor = next;
        if cursor.is_none() {
            return found;
        }
    }
}

#[test]
fn pages_of_any_size_list_everything_once_newest_first() {
    let mut rows = Rows::new(user("me"));
    let expected: Vec<_> = (0..50).rev().map(|i| Address::User(user(&format!("user-{i}")))).collect();
    for i in 0..50 {
        // Two at a time of the same age.
        rows.apply(i + 1, &[message(&pair(&format!("user-{i}")), 1, "me", i / 2)]);
    }
    for count in [1, 2, 3, 7, 49, 50, 51] {
        let found = addresses(&mut rows, count);
        let ages = |addresses: &[Address]| {
            let number = |address: &Address| match address {
                Address::User(user) => user.as_str()[5..].parse::<u64>().expect("a number") / 2,
                Address::Group(_) => unreachable!("only pairs"),
            };
            addresses.iter().map(number).collect::<Vec<_>>()
        };
        assert_eq!(ages(&found), ages(&expected), "pages of {count}");
        assert_eq!(found.iter().map(|at| format!("{at:?}")).collect::<HashSet<_>>().len(), 50);
    }
}

#[test]
fn a_cursor_survives_its_text_and_nonsense_is_refused() {
    let cursor = Cursor { timestamp_ns: u64::MAX, hash: 7 };
    assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
    for foreign in ["", ".", "1", "1.x", "-1.0", "1.0.0", "99999999999999999999.0"] {
        assert_eq!(Cursor::parse(foreign), None, "{foreign}");
    }
}

#[test]
fn who_comes_into_a_group_has_nothing_unread_and_who_goes_does_not_list_it() {
    let key = Arc::new(ConversationKey::Group(GroupId::parse("g").expect("a valid id")));
    let mut rows = Rows::new(user("me"));
    // The record that brings me in brings in somebody else first.
    let added =
        [group_change(&key, 9, GroupAction::Add, "other"), group_change(&key, 9, GroupAction::Add, "me")];
    assert_eq!(rows.apply(10, &added), Effect::News);
    assert_eq!(rows.get(&key).map(|row| (row.messages, row.read_cursor, row.unread)), Some((9, 9, 0)));
    assert_eq!(rows.apply(11, &[message(&key, 10, "other", 6)]), Effect::News);
    assert_eq!(rows.total_unread(), 1);
    assert_eq!(rows.apply(12, &[group_change(&key, 10, GroupAction::Kick, "other")]), Effect::News);
    assert_eq!(rows.apply(13, &[group_change(&key, 10, GroupAction::Leave, "me")]), Effect::News);
    assert_eq!((rows.total_unread(), rows.keys().count()), (0, 0));
    assert_eq!(addresses(&mut rows, 10), []);
    // The end of what I left is none of my business, also where it stands behind what it makes of another.
    assert_eq!(rows.apply(13, &[group_change(&key, 10, GroupAction::Leave, "me")]), Effect::Nothing);
    let inherited = group_change(&key, 10, GroupAction::Duty(Duty::Owner), "other");
    let left = [inherited.clone(), group_change(&key, 10, GroupAction::Leave, "me")];
    assert_eq!(rows.apply(13, &left), Effect::Nothing);
    // Control: what does not end it has to be asked.
    assert_eq!(rows.apply(13, &[inherited]), Effect::Unknown);
}

#[test]
fn a_crowd_moves_no_row_and_begins_or_ends_none() {
    let key = Arc::new(ConversationKey::Group(GroupId::parse("g").expect("a valid id")));
    let crowd = |action| event(&key, 9, 0, Content::Crowd { action, count: 70, by: user("boss") });
    let mut rows = Rows::new(user("me"));
    assert_eq!(rows.apply(9, &[crowd(GroupAction::Add)]), Effect::Unknown, "it has to be asked");
    let came = [group_change(&key, 9, GroupAction::Add, "me"), crowd(GroupAction::Add)];
    assert_eq!(rows.apply(10, &came), Effect::News);
    let before = rows.get(&key).cloned().expect("I came in");
    assert_eq!((before.read_cursor, before.unread), (9, 0));
    assert_eq!(rows.apply(11, &[crowd(GroupAction::Kick)]), Effect::News);
    assert_eq!(rows.get(&key), Some(&Standing { lsn: 11, ..before }));
    assert_eq!(rows.apply(12, &[group_change(&key, 9, GroupAction::Kick, "me")]), Effect::News);
    assert_eq!(rows.get(&key), None);
}

#[test]
fn a_conversation_with_a_past_that_is_not_listed_has_to_be_asked() {
    let mut rows = Rows::new(user("me"));
    assert_eq!(rows.apply(9, &[message(&pair("bob"), 2, "bob", 1)]), Effect::Unknown);
    assert_eq!(rows.keys().count(), 0);
}

#[test]
fn a_recalled_newest_message_is_listed_without_its_text() {
    let (key, mut rows) = (pair("bob"), Rows::new(user("me")));
    rows.apply(1, &[message(&key, 1, "bob", 1)]);
    let content = Content::Recall { msg_index: 1, recall_index: 1, by: user("bob") };
    rows.apply(2, &[event(&key, 1, 1, content)]);
    let (page, _) = rows.page(None, 1);
    let last = page[0].2.as_ref().expect("kept");
    assert_eq!((&*last.message.msg, last.recall_index), ("", 1));
    assert_eq!((page[0].1.unread, rows.total_unread()), (0, 0));
}

fn block(key: &Arc<ConversationKey>, messages: u32, blocks: bool) -> Arc<Event> {
    event(key, messages, 0, Content::Block { user: user("me"), blocks })
}

#[test]
fn a_block_is_known_and_makes_no_conversation_appear() {
    let (key, mut rows) = (pair("bob"), Rows::new(user("me")));
    assert_eq!(rows.apply(1, &[block(&key, 0, true)]), Effect::News);
    assert_eq!(rows.apply(1, &[block(&key, 0, true)]), Effect::Nothing, "known already");
    assert_eq!(rows.blocked().collect::<Vec<_>>(), [&key]);
    assert_eq!((addresses(&mut rows, 10), rows.newest_first().count()), (vec![], 0));
    // It appears with its first message, and stays blocked.
    assert_eq!(rows.apply(2, &[message(&key, 1, "me", 7)]), Effect::News);
    assert_eq!(addresses(&mut rows, 10), [Address::User(user("bob"))]);
    assert_eq!((rows.total_unread(), rows.blocked().count()), (0, 1));
    assert_eq!(rows.apply(3, &[block(&key, 1, false)]), Effect::News);
    assert_eq!((addresses(&mut rows, 10).len(), rows.blocked().count()), (1, 0));
}

#[test]
fn of_a_pair_without_messages_nothing_is_left_behind_a_block() {
    let (key, mut rows) = (pair("bob"), Rows::new(user("me")));
    rows.apply(1, &[block(&key, 0, true)]);
    assert_eq!(rows.apply(2, &[block(&key, 0, false)]), Effect::News);
    assert_eq!((rows.keys().count(), rows.bytes()), (0, 0));
    assert_eq!(rows.apply(3, &[block(&key, 0, false)]), Effect::Nothing);
    // Of one with a past somebody has to ask.
    assert_eq!(rows.apply(4, &[block(&pair("carol"), 5, true)]), Effect::Unknown);
}

/// One conversation as plain lists.
#[derive(Debug, Clone, Default)]
struct Model {
    /// Sender and whether it was recalled.
    messages: Vec<(&'static str, bool)>,
    recalls: u32,
    cursors: BTreeMap<&'static str, u32>,
    newest_ns: u64,
}

impl Model {
    fn unread(&self, who: &str) -> u32 {
        let cursor = self.cursors.get(who).copied().unwrap_or(0) as usize;
        let unread = |(sender, recalled): &&(&str, bool)| *sender != who && !recalled;
        self.messages[cursor..].iter().filter(unread).count() as u32
    }

    fn standing(&self, lsn: u64) -> Standing {
        Standing {
            lsn,
            messages: self.messages.len() as u32,
            recalls: self.recalls,
            read_cursor: self.cursors.get("me").copied().unwrap_or(0),
            unread: self.unread("me"),
            timestamp_ns: self.newest_ns,
            blocks: false,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send { by_me: bool },
    Recall { which: usize },
    Ack { by_me: bool, which: usize },
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        4 => any::<bool>().prop_map(|by_me| Step::Send { by_me }),
        1 => (0..64usize).prop_map(|which| Step::Recall { which }),
        1 => (any::<bool>(), 0..64usize).prop_map(|(by_me, which)| Step::Ack { by_me, which }),
    ];
    (0..5usize, step)
}

/// Takes the step in the model; says what everybody hears, `None` when nothing happens.
fn take(model: &mut Model, key: &Arc<ConversationKey>, lsn: u64, step: &Step) -> Option<Arc<Event>> {
    let name = |by_me: bool| if by_me { "me" } else { "other" };
    let content = match *step {
        Step::Send { by_me } => {
            model.messages.push((name(by_me), false));
            let msg_index = model.messages.len() as u32;
            model.cursors.insert(name(by_me), msg_index);
            model.newest_ns = lsn;
            let sender = user(name(by_me));
            let (msg, extra) = ("t".into(), "".into());
            Content::Message(Arc::new(OwnedMessage { msg_index, sender, timestamp_ns: lsn, msg, extra }))
        }
        Step::Recall { which } => {
            let count = model.messages.len().max(1);
            let message = model.messages.get_mut(which % count).filter(|message| !message.1)?;
            message.1 = true;
            model.recalls += 1;
            let (msg_index, recall_index) = ((which % count) as u32 + 1, model.recalls);
            Content::Recall { msg_index, recall_index, by: user("other") }
        }
        Step::Ack { by_me, which } => {
            let msg_index = (which % (model.messages.len() + 1)) as u32;
            let cursor = model.cursors.entry(name(by_me)).or_default();
            if msg_index <= *cursor {
                return None;
            }
            *cursor = msg_index;
            Content::Ack { user: user(name(by_me)), msg_index, unread: model.unread(name(by_me)) }
        }
    };
    Some(event(key, model.messages.len() as u32, model.recalls, content))
}

proptest! {
    /// Whenever a row was read from the disk or asked for, and however many events before and behind
    /// that moment arrive, the numbers are those of plain lists.
    #[test]
    fn rows_stand_where_plain_lists_stand(
        steps in prop::collection::vec(step(), 1..120),
        read_at in prop::collection::vec(0..120u64, 5),
    ) {
        let keys: Vec<_> = (0..5).map(|i| pair(&format!("user-{i}"))).collect();
        let mut models = vec![Model::default(); 5];
        let mut standings = vec![None; 5];
        let mut happened = Vec::new();
        for ((place, step), lsn) in steps.iter().zip(1u64..) {
            happened.extend(take(&mut models[*place], &keys[*place], lsn, step).map(|event| (lsn, event)));
            for (place, model) in models.iter().enumerate() {
                // Read at that moment, if it had begun by then.
                if read_at[place] == lsn && !model.messages.is_empty() {
                    standings[place] = Some(model.standing(lsn));
                }
            }
        }
        let mut rows = Rows::new(user("me"));
        for (key, standing) in keys.iter().zip(standings) {
            standing.into_iter().for_each(|standing| rows.put(key.clone(), standing));
        }
        for (lsn, event) in &happened {
            prop_assert_ne!(rows.apply(*lsn, std::slice::from_ref(event)), Effect::Unknown);
        }
        let mut total = 0;
        for (key, model) in keys.iter().zip(&models) {
            let stands = rows.get(key).map(|row| Standing { lsn: 0, ..row.clone() });
            let expected = (!model.messages.is_empty()).then(|| model.standing(0));
            prop_assert_eq!(stands, expected);
            total += u64::from(model.unread("me"));
        }
        prop_assert_eq!(rows.total_unread(), total);
        let ages: Vec<_> = rows.newest_first().map(|(_, standing)| standing.timestamp_ns).collect();
        prop_assert!(ages.is_sorted_by(|a, b| a >= b));
    }
}

#[test]
fn a_message_that_was_read_before_its_recall_is_not_kept_behind_it() {
    let (key, mut rows) = (pair("bob"), Rows::new(user("me")));
    let standing = Standing {
        lsn: 5,
        messages: 1,
        recalls: 0,
        read_cursor: 0,
        unread: 1,
        timestamp_ns: 1,
        blocks: false,
    };
    rows.put(key.clone(), standing);
    let content = Content::Recall { msg_index: 1, recall_index: 1, by: user("bob") };
    rows.apply(6, &[event(&key, 1, 1, content)]);
    let (msg, extra) = ("regretted".into(), "".into());
    let message = OwnedMessage { msg_index: 1, sender: user("bob"), timestamp_ns: 1, msg, extra };
    let read = |recall_index| Last { message: Arc::new(message.clone()), recall_index };
    rows.keep_last(&key, 5, read(0));
    assert_eq!(rows.page(None, 1).0[0].2, None);
    // The control: while the row has not moved, it is.
    rows.keep_last(&key, 6, read(1));
    assert!(rows.page(None, 1).0[0].2.is_some());
}

#[test]
fn nothing_is_counted_across_a_gap() {
    let (key, mut rows) = (pair("bob"), Rows::new(user("me")));
    rows.apply(1, &[message(&key, 1, "bob", 1)]);
    assert_eq!(rows.apply(3, &[message(&key, 3, "bob", 3)]), Effect::Unknown);
    assert_eq!((rows.get(&key), rows.total_unread()), (None, 0));
}
