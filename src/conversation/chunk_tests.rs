//! Chunks: what goes out comes back, in one piece or in many, and nothing else is taken over.

use super::super::resident::Resident;
use super::super::state::tests::{direct, draft, everything, pull, pull_all, recall, send, user};
use super::*;
use crate::message::{ConversationKey, Direction, Draft};

fn series(resident: &mut Resident, mut saved: Saved) -> Vec<Chunk> {
    let mut all = Vec::new();
    loop {
        let chunks = resident.collect(saved);
        saved = chunks.last().expect("at least one").summary.after();
        all.extend(chunks);
        if all.last().is_some_and(|chunk| chunk.complete) {
            return all;
        }
    }
}

const NOTHING: Saved = Saved { messages: 0, recalls: 0 };

fn one(chunks: Vec<Chunk>) -> Chunk {
    let [chunk] = chunks.try_into().expect("one chunk");
    chunk
}

fn reload<'a>(key: &ConversationKey, chunks: impl IntoIterator<Item = &'a Chunk>) -> State {
    let mut loader = Loader::new(key.clone());
    for chunk in chunks {
        loader.load(chunk.applied_lsn, &chunk.payload).expect("loads");
    }
    loader.finish().expect("complete")
}

fn page(state: &State) -> crate::message::Page {
    pull(state, &user("bob"), &pull_all(Direction::After, 1), everything(state)).expect("a page")
}

#[test]
fn a_long_history_becomes_a_series_of_bounded_chunks() {
    let mut state = direct("alice", "bob");
    let text = "x".repeat(30_000);
    for i in 0..200 {
        send(&mut state, "alice", &draft(&text, &format!("id-{i}")), i).expect("accepted");
    }
    let mut resident = Resident::new(state.clone());
    let chunks = series(&mut resident, NOTHING);
    assert!(chunks.len() > 5);
    assert!(chunks.iter().all(|chunk| chunk.payload.len() < CHUNK_TEXT_BYTES + 2 * text.len()));
    let loaded = reload(&state.key, &chunks);
    assert_eq!(chunks.last().map(|chunk| chunk.summary.after()), Some(Saved { messages: 200, recalls: 0 }));
    assert_eq!(page(&loaded), page(&state));
    assert_eq!((loaded.hash, loaded.applied_lsn), (state.hash, state.applied_lsn));
}

#[test]
fn deltas_add_up_and_recalled_texts_are_not_in_them() {
    let mut state = direct("alice", "bob");
    send(&mut state, "alice", &draft("first secret", "a"), 1).expect("accepted");
    send(&mut state, "bob", &draft("second", "b"), 1).expect("accepted");
    let mut resident = Resident::new(state);
    let first = series(&mut resident, NOTHING);
    let state = &mut resident.state;
    send(state, "alice", &draft("third secret", "c"), 1).expect("accepted");
    recall(state, "alice", 1).expect("own");
    recall(state, "alice", 3).expect("own");
    let second = series(&mut resident, Saved { messages: 2, recalls: 0 });
    let has = |chunks: &[Chunk], text: &str| {
        chunks.iter().any(|chunk| chunk.payload.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    assert!(has(&first, "first secret"));
    assert!(!has(&second, "secret"));
    let loaded = reload(&resident.state.key, first.iter().chain(&second));
    assert_eq!(page(&loaded), page(&resident.state));
    let whole = series(&mut resident, NOTHING);
    assert!(!has(&whole, "secret"));
    assert_eq!(page(&reload(&resident.state.key, &whole)), page(&resident.state));
}

#[test]
fn a_clean_conversation_gives_an_empty_delta() {
    let mut state = direct("alice", "bob");
    send(&mut state, "alice", &draft("one", ""), 1).expect("accepted");
    let mut resident = Resident::loaded(state, 0);
    assert!(resident.dirty);
    series(&mut resident, NOTHING);
    assert!(!resident.dirty);
    let chunk = one(resident.collect(Saved { messages: 1, recalls: 0 }));
    assert_eq!(chunk.summary.messages, (1, 1));
    assert!(chunk.complete);
}

#[test]
fn chunks_out_of_order_or_cut_are_refused() {
    let mut state = direct("alice", "bob");
    send(&mut state, "alice", &draft("one", ""), 1).expect("accepted");
    let mut resident = Resident::new(state);
    let first = one(resident.collect(NOTHING));
    send(&mut resident.state, "bob", &draft("two", ""), 1).expect("accepted");
    let second = one(resident.collect(first.summary.after()));
    let key = (*resident.state.key).clone();
    let mut behind = Loader::new(key.clone());
    behind.load(1, &second.payload).expect("retention may have taken the first");
    assert_eq!(behind.finish().expect("complete").history.kept_from(), 2);
    let mut loader = Loader::new(key.clone());
    loader.load(1, &first.payload).expect("loads");
    assert!(loader.load(1, &first.payload).is_err(), "the same again");
    for cut in 0..first.payload.len() {
        assert!(Loader::new(key.clone()).load(1, &first.payload[..cut]).is_err());
    }
}

#[test]
fn a_series_without_its_head_is_no_conversation() {
    let mut state = direct("alice", "bob");
    let text = "x".repeat(CHUNK_TEXT_BYTES);
    send(&mut state, "alice", &draft(&text, ""), 1).expect("accepted");
    send(&mut state, "alice", &draft(&text, ""), 1).expect("accepted");
    let mut resident = Resident::new(state);
    let chunk = one(resident.collect(NOTHING));
    assert!(!chunk.complete);
    let mut loader = Loader::new((*resident.state.key).clone());
    loader.load(1, &chunk.payload).expect("loads");
    assert!(loader.finish().is_err());
}

#[test]
fn many_participants_and_recalls_become_a_series_that_ends_in_one_piece() {
    let mut state = direct("alice", "bob");
    let messages = CHUNK_RECALLS + 10;
    for i in 0..u64::from(messages) {
        send(&mut state, "alice", &draft("m", ""), i).expect("accepted");
    }
    for index in 1..=messages {
        recall(&mut state, "alice", index).expect("own");
    }
    for i in 0..CHUNK_PARTICIPANTS * 2 {
        state.participants.number_or_insert(&user(&format!("user-{i}")));
    }
    let mut resident = Resident::new(state);
    let chunks = series(&mut resident, NOTHING);
    let loaded = reload(&resident.state.key, &chunks);
    let saved = chunks.last().map(|chunk| chunk.summary.after());
    assert_eq!(saved, Some(Saved { messages, recalls: messages }));
    assert_eq!(loaded.participants.rows(), resident.state.participants.rows());
    assert_eq!(loaded.history.newest_recall(), messages);
    let end: Vec<_> = chunks.iter().rev().take(3).map(|chunk| chunk.applied_lsn).collect();
    assert_eq!(end, [resident.state.applied_lsn; 3]);
}

#[test]
fn a_summary_survives_its_numbers() {
    let summary = Summary {
        messages: (3, 9),
        recalls: (0, 2),
        complete: true,
        newest_message_ns: 0x0123_4567_89ab_cdef,
        greatest_recalled: 8,
        hollow: true,
    };
    assert_eq!(Summary::from_numbers(summary.to_numbers()), summary);
}

/// The bytes of a chunk as released: a change here is a change of the disk format.
#[test]
fn a_chunk_has_the_bytes_it_always_had() {
    let mut state = direct("alice", "bob");
    send(&mut state, "alice", &Draft { msg: "m".into(), extra: "e".into(), client_msg_id: "c".into() }, 7)
        .expect("accepted");
    let payload = one(Resident::new(state).collect(NOTHING)).payload;
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "000100070163016d0165000000000105616c69636501ff00000107fe67f0f4f1a108c9370a8c607854bbe02c00"
    );
}
