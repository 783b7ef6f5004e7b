//! The rules of a conversation against plain vectors.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::record::{AckV1, KeyV1, RecallV1, SendV1, extend_hash};
use super::*;
use crate::message::{Direction, Draft, GroupId, Page, Pull, Receipt};

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid id")
}

pub(crate) fn direct(a: &str, b: &str) -> State {
    State::new(ConversationKey::direct(user(a), user(b)))
}

pub(crate) fn draft(msg: &str, client_msg_id: &str) -> Draft {
    Draft { msg: msg.into(), extra: format!("extra of {msg}"), client_msg_id: client_msg_id.into() }
}

/// Applies a decision as an actor would after the log has accepted it, by way of its bytes.
pub(crate) fn accept<T>(
    state: &mut State,
    decision: Result<Decision<'_, T>, Rejection>,
) -> Result<T, Rejection> {
    match decision? {
        Decision::Already(answer) => Ok(answer),
        Decision::Needs(missing) => panic!("all of a test's history is in memory, but not {missing:?}"),
        Decision::Append(record, answer) => {
            let bytes = record.encode();
            let decoded = Record::decode(record.kind(), &bytes).expect("what was encoded decodes");
            let hash = extend_hash(state.hash, record.kind(), &bytes);
            state
                .apply(&decoded, state.applied_lsn + 1, hash)
                .expect("an accepted record continues the state");
            Ok(answer)
        }
    }
}

pub(crate) fn send(
    state: &mut State,
    sender: &str,
    draft: &Draft,
    now_ns: u64,
) -> Result<Receipt, Rejection> {
    let (key, sender) = (state.key.clone(), user(sender));
    let decision = state.send(&key, &sender, draft, Old::NONE, now_ns);
    accept(state, decision)
}

pub(crate) fn recall(state: &mut State, by: &str, msg_index: u32) -> Result<u32, Rejection> {
    let (key, by) = (state.key.clone(), user(by));
    let decision = state.recall(&key, &by, msg_index, Old::NONE, None, 0);
    accept(state, decision)
}

fn ack(state: &mut State, by: &str, msg_index: u32) -> Result<(), Rejection> {
    let (key, by) = (state.key.clone(), user(by));
    let decision = state.ack(&key, &by, msg_index, everything(state));
    accept(state, decision)
}

pub(crate) fn everything(state: &State) -> Durable {
    Durable { messages: state.history.newest_message(), recalls: state.history.newest_recall() }
}

/// A pull of a conversation that is in memory as a whole.
pub(crate) fn pull(state: &State, user: &UserId, pull: &Pull, durable: Durable) -> Result<Page, Rejection> {
    match state.pull(user, pull, Old::NONE, durable)? {
        Pulled::Page(page) => Ok(page),
        Pulled::Needs(missing) => panic!("all of a test's history is in memory, but not {missing:?}"),
    }
}

pub(crate) fn pull_all(direction: Direction, start: u32) -> Pull {
    Pull { direction, start_msg_index: start, start_recall_index: start, count: 50, wait: Duration::ZERO }
}

fn texts(page: &Page) -> Vec<(u32, String)> {
    page.messages().map(|message| (message.msg_index, message.msg.to_owned())).collect()
}

#[test]
fn indices_are_dense_from_1_and_time_never_runs_backwards() {
    let mut state = direct("alice", "bob");
    let first = send(&mut state, "alice", &draft("one", ""), 1_000);
    assert_eq!(first, Ok(Receipt { msg_index: 1, timestamp_ns: 1_000, duplicate: false }));
    let second = send(&mut state, "bob", &draft("two", ""), 400);
    assert_eq!(second, Ok(Receipt { msg_index: 2, timestamp_ns: 1_000, duplicate: false }));
}

#[test]
fn a_retry_gets_the_first_answer_and_stores_nothing() {
    let mut state = direct("alice", "bob");
    let first = send(&mut state, "alice", &draft("one", "id"), 7).expect("accepted");
    let again = send(&mut state, "alice", &draft("one", "id"), 99).expect("a retry");
    assert_eq!(again, Receipt { duplicate: true, ..first });
    assert_eq!(state.history.newest_message(), 1);
    assert_eq!(send(&mut state, "alice", &draft("other", "id"), 99), Err(Rejection::ClientIdReused));
    let of_bob = send(&mut state, "bob", &draft("one", "id"), 99).expect("another sender's id");
    assert_eq!((of_bob.msg_index, of_bob.duplicate), (2, false));
}

#[test]
fn a_retry_of_a_recalled_message_is_still_a_retry() {
    let mut state = direct("alice", "bob");
    let first = send(&mut state, "alice", &draft("one", "id"), 7).expect("accepted");
    recall(&mut state, "alice", 1).expect("own message");
    for erased_through in [0, 1] {
        state.history.erase_through(erased_through);
        let again = send(&mut state, "alice", &draft("one", "id"), 99).expect("a retry");
        assert_eq!(again, Receipt { duplicate: true, ..first });
    }
}

#[test]
fn a_recall_is_for_ones_own_message_and_counts_once() {
    let mut state = direct("alice", "bob");
    send(&mut state, "alice", &draft("one", ""), 1).expect("accepted");
    send(&mut state, "alice", &draft("two", ""), 1).expect("accepted");
    assert_eq!(recall(&mut state, "bob", 1), Err(Rejection::NotYourMessage));
    assert_eq!(recall(&mut state, "alice", 2), Ok(1));
    assert_eq!(recall(&mut state, "alice", 1), Ok(2));
    assert_eq!(recall(&mut state, "alice", 2), Ok(1));
    for absent in [0, 3] {
        let missing = Rejection::NoSuchMessage { asked: absent, newest: 2 };
        assert_eq!(recall(&mut state, "alice", absent), Err(missing));
    }
}

#[test]
fn a_recall_after_the_window_is_refused_but_a_repeated_one_is_not() {
    let mut state = direct("alice", "bob");
    send(&mut state, "alice", &draft("one", ""), 0).expect("accepted");
    send(&mut state, "alice", &draft("two", ""), 0).expect("accepted");
    let window = Duration::from_secs(60);
    let late = window.as_nanos() as u64 + 1;
    let (key, alice) = (state.key.clone(), user("alice"));
    let refused = state.recall(&key, &alice, 1, Old::NONE, Some(window), late);
    assert_eq!(refused, Err(Rejection::RecallWindowPassed { window }));
    let in_time = state.recall(&key, &alice, 1, Old::NONE, Some(window), late - 1);
    assert_eq!(accept(&mut state, in_time), Ok(1));
    let again = state.recall(&key, &alice, 1, Old::NONE, Some(window), late);
    assert_eq!(again, Ok(Decision::Already(1)));
}

#[test]
fn a_read_cursor_only_grows_and_a_send_moves_the_senders_own() {
    let mut state = direct("alice", "bob");
    for text in ["one", "two", "three"] {
        send(&mut state, "alice", &draft(text, ""), 1).expect("accepted");
    }
    let cursor = |state: &State, id: &str| state.participants.of(&user(id)).map_or(0, |row| row.read_cursor);
    assert_eq!(cursor(&state, "alice"), 3);
    assert_eq!(ack(&mut state, "bob", 2), Ok(()));
    assert_eq!(ack(&mut state, "bob", 1), Ok(()));
    assert_eq!(cursor(&state, "bob"), 2);
    assert_eq!(ack(&mut state, "bob", 4), Err(Rejection::NoSuchMessage { asked: 4, newest: 3 }));
    assert_eq!(ack(&mut state, "bob", 0), Ok(()));
}

#[test]
fn nothing_is_shown_beyond_the_durable_head() {
    let mut state = direct("alice", "bob");
    for text in ["one", "two", "three"] {
        send(&mut state, "alice", &draft(text, ""), 1).expect("accepted");
    }
    recall(&mut state, "alice", 1).expect("own message");
    let durable = Durable { messages: 2, recalls: 0 };
    let page = pull(&state, &user("bob"), &pull_all(Direction::After, 1), durable).expect("a page");
    assert_eq!(texts(&page), [(1, "one".into()), (2, "two".into())]);
    assert_eq!(page.messages().map(|m| m.recall_index).max(), Some(0));
    assert!(page.recalls.is_empty());
    assert_eq!((page.max_msg_index, page.max_recall_index), (2, 0));
    let (key, bob) = (state.key.clone(), user("bob"));
    let unread = state.ack(&key, &bob, 3, durable);
    assert_eq!(unread, Err(Rejection::NoSuchMessage { asked: 3, newest: 2 }));
    let page = pull(&state, &bob, &pull_all(Direction::After, 1), everything(&state)).expect("a page");
    assert_eq!(texts(&page)[0], (1, String::new()));
    assert_eq!(page.recalls, [(1, 1)]);
}

#[test]
fn records_out_of_order_are_refused_and_change_nothing() {
    let mut state = direct("alice", "bob");
    send(&mut state, "alice", &draft("one", ""), 1).expect("accepted");
    let before = format!("{state:?}");
    let key = state.key.clone();
    let key = KeyV1::of(&key);
    let next =
        SendV1 { key, msg_index: 3, sender: "a", timestamp_ns: 0, client_msg_id: "", msg: "m", extra: "" };
    let recall = RecallV1 { key, recall_index: 1, msg_index: 2, by: "a", timestamp_ns: 0 };
    let wrong = [
        Record::Send(next),
        Record::Send(SendV1 { msg_index: 1, ..next }),
        Record::Recall(recall),
        Record::Recall(RecallV1 { recall_index: 2, msg_index: 1, ..recall }),
        Record::Ack(AckV1 { key, user: "bob", msg_index: 2 }),
    ];
    for record in wrong {
        assert!(state.apply(&record, 9, 9).is_err(), "{record:?}");
        assert_eq!(format!("{state:?}"), before);
    }
}

/// The plainest thing that could be right.
#[derive(Debug, Default)]
struct Model {
    messages: Vec<ModelMessage>,
    recalls: Vec<u32>,
    cursors: BTreeMap<&'static str, u32>,
}

#[derive(Debug, Clone)]
struct ModelMessage {
    sender: &'static str,
    msg: String,
    client_msg_id: String,
    recall_index: u32,
}

#[derive(Debug, Clone)]
enum Step {
    Send {
        sender: usize,
        text: u8,
        id: u8,
    },
    Recall {
        by: usize,
        index: u32,
    },
    Ack {
        by: usize,
        index: u32,
    },
    Pull {
        before: bool,
        start: u32,
        recall_start: u32,
        count: u32,
    },
    /// Write the conversation as chunks and go on with what they hold.
    Reload,
    Erase,
}

const USERS: [&str; 2] = ["alice", "bob"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize, 0..3u8, 0..6u8).prop_map(|(sender, text, id)| Step::Send { sender, text, id }),
        3 => (0..2usize, 0..14u32).prop_map(|(by, index)| Step::Recall { by, index }),
        3 => (0..2usize, 0..14u32).prop_map(|(by, index)| Step::Ack { by, index }),
        4 => (any::<bool>(), 0..14u32, 0..8u32, 1..6u32)
            .prop_map(|(before, start, recall_start, count)| Step::Pull { before, start, recall_start, count }),
        1 => Just(Step::Reload),
        1 => Just(Step::Erase),
    ]
}

impl Model {
    fn send(
        &mut self,
        sender: &'static str,
        msg: &str,
        client_msg_id: &str,
    ) -> Result<(u32, bool), Rejection> {
        let same = |m: &ModelMessage| {
            m.sender == sender && !client_msg_id.is_empty() && m.client_msg_id == client_msg_id
        };
        if let Some(at) = self.messages.iter().position(same) {
            let first = &self.messages[at];
            // Whether content differs is not asked of recalled messages: see `retry_of`.
            if first.recall_index == 0 && first.msg != msg {
                return Err(Rejection::ClientIdReused);
            }
            return Ok((at as u32 + 1, true));
        }
        let (msg, client_msg_id) = (msg.to_owned(), client_msg_id.to_owned());
        self.messages.push(ModelMessage { sender, msg, client_msg_id, recall_index: 0 });
        let index = self.messages.len() as u32;
        self.cursors.insert(sender, index);
        Ok((index, false))
    }

    fn recall(&mut self, by: &str, index: u32) -> Result<u32, Rejection> {
        let newest = self.messages.len() as u32;
        let missing = Rejection::NoSuchMessage { asked: index, newest };
        let at = (index as usize).checked_sub(1).ok_or(missing.clone())?;
        let message = self.messages.get_mut(at).ok_or(missing)?;
        if message.sender != by {
            return Err(Rejection::NotYourMessage);
        }
        if message.recall_index == 0 {
            self.recalls.push(index);
            message.recall_index = self.recalls.len() as u32;
            message.msg.clear();
        }
        Ok(message.recall_index)
    }

    fn ack(&mut self, by: &'static str, index: u32) -> Result<(), Rejection> {
        let newest = self.messages.len() as u32;
        if index > newest {
            return Err(Rejection::NoSuchMessage { asked: index, newest });
        }
        let cursor = self.cursors.entry(by).or_default();
        *cursor = (*cursor).max(index);
        Ok(())
    }

    fn indices(before: bool, start: u32, count: u32, newest: u32) -> Vec<u32> {
        let mut all: Vec<u32> =
            (1..=newest).filter(|i| if before { *i <= start } else { *i >= start }).collect();
        if before {
            all.reverse();
        }
        all.truncate(if start == 0 { 0 } else { count as usize });
        all
    }
}

fn reload(state: &State) -> State {
    use super::super::{chunk::Loader, chunk::Saved, resident::Resident};
    let mut loader = Loader::new((*state.key).clone());
    let mut resident = Resident::new(state.clone());
    let mut saved = Saved::default();
    loop {
        let chunks = resident.collect(saved);
        for chunk in &chunks {
            loader.load(chunk.applied_lsn, &chunk.payload).expect("chunks load");
            saved = chunk.summary.after();
        }
        if chunks.last().is_some_and(|chunk| chunk.complete) {
            return loader.finish().expect("a complete series");
        }
    }
}

fn check_pull(state: &State, model: &Model, before: bool, starts: (u32, u32), count: u32) {
    let direction = if before { Direction::Before } else { Direction::After };
    let (start_msg_index, start_recall_index) = starts;
    let wanted = Pull { direction, start_msg_index, start_recall_index, count, wait: Duration::ZERO };
    let page = pull(state, &user("bob"), &wanted, everything(state)).expect("a direct conversation");
    let newest = (model.messages.len() as u32, model.recalls.len() as u32);
    let messages: Vec<_> = page.messages().map(|m| (m.msg_index, m.msg, m.recall_index, m.sender)).collect();
    let expected: Vec<_> = Model::indices(before, starts.0, count, newest.0)
        .into_iter()
        .map(|i| (i, &model.messages[i as usize - 1]))
        .map(|(i, m)| (i, m.msg.as_str(), m.recall_index, m.sender))
        .collect();
    assert_eq!(messages, expected);
    let recalls: Vec<_> = Model::indices(before, starts.1, count, newest.1)
        .into_iter()
        .map(|i| (i, model.recalls[i as usize - 1]))
        .collect();
    assert_eq!(page.recalls, recalls);
    assert_eq!((page.max_msg_index, page.max_recall_index, page.min_msg_index), (newest.0, newest.1, 1));
}

fn run(steps: Vec<Step>) {
    let mut state = direct("alice", "bob");
    let mut model = Model::default();
    for (step, now_ns) in steps.into_iter().zip(1..) {
        match step {
            Step::Send { sender, text, id } => {
                let client_msg_id = if id == 0 { String::new() } else { format!("id-{id}") };
                let draft = draft(&format!("text {text}"), &client_msg_id);
                let got = send(&mut state, USERS[sender], &draft, now_ns).map(|r| (r.msg_index, r.duplicate));
                // A recalled but not yet erased message still has its text to compare with.
                let unerased = matches!(got, Err(Rejection::ClientIdReused));
                let expected = model.send(USERS[sender], &draft.msg, &client_msg_id);
                assert!(
                    got == expected || unerased && matches!(expected, Ok((_, true))),
                    "{got:?} {expected:?}"
                );
            }
            Step::Recall { by, index } => {
                assert_eq!(recall(&mut state, USERS[by], index), model.recall(USERS[by], index));
            }
            Step::Ack { by, index } => {
                assert_eq!(ack(&mut state, USERS[by], index), model.ack(USERS[by], index));
            }
            Step::Pull { before, start, recall_start, count } => {
                check_pull(&state, &model, before, (start, recall_start), count);
            }
            Step::Reload => {
                let hash = state.hash;
                state = reload(&state);
                assert_eq!(state.hash, hash);
            }
            Step::Erase => state.history.erase_through(state.history.newest_recall()),
        }
        for (user, cursor) in &model.cursors {
            let row = state.participants.number_of(user).map(|number| state.participants.get(number));
            assert_eq!(row.map_or(0, |row| row.read_cursor), *cursor);
        }
    }
    check_pull(&state, &model, false, (1, 1), 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_history_gives_the_answers_of_plain_vectors(steps in proptest::collection::vec(step(), 1..60)) {
        run(steps);
    }
}

#[test]
fn a_group_id_that_nobody_created_is_no_group() {
    let state = State::new(ConversationKey::Group(GroupId::parse("g").expect("a valid id")));
    let page = pull(&state, &user("alice"), &pull_all(Direction::After, 1), everything(&state));
    assert_eq!(page, Err(Rejection::NoSuchGroup));
}
