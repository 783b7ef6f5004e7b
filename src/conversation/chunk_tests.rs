//! Chunks: what goes out comes back, in one piece or in many, and nothing else is taken over.

use super::super::blocks;
use super::super::group;
use super::super::record::RelationChange;
use super::super::resident::Resident;
use super::super::state::tests::{accept, direct, draft, everything, pull, pull_all, recall, send, user};
use super::*;
use crate::message::{Caller, ConversationKey, Direction, Draft, GroupId};

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
        unbegun: false,
    };
    assert_eq!(Summary::from_numbers(summary.to_numbers()), summary);
    let unbegun = Summary { hollow: false, unbegun: true, ..summary };
    assert_eq!(Summary::from_numbers(unbegun.to_numbers()), unbegun);
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

/// A group with a mute; its head is the last chunk.
fn marked(change: impl FnOnce(&mut State)) -> State {
    let alice = Caller { user: user("alice"), admin: false };
    let mut state = State::new(ConversationKey::Group(GroupId::parse("g").expect("an id")));
    let (key, bob) = (state.key.clone(), [user("bob")]);
    let created = group::create(&state, &key, &alice, "name", &bob, 5);
    accept(&mut state, created).expect("a new group");
    send(&mut state, "bob", &draft("secret", "id"), 6).expect("a member");
    change(&mut state);
    state
}

fn muted() -> State {
    marked(|state| {
        let (key, alice, bob) =
            (state.key.clone(), Caller { user: user("alice"), admin: false }, user("bob"));
        let muted = group::mute(state, &key, &alice, &bob, 1_800_000_000, 7);
        accept(state, muted).expect("the owner");
    })
}

fn dismissed() -> State {
    marked(|state| {
        let (key, alice) = (state.key.clone(), Caller { user: user("alice"), admin: false });
        let dismissed = group::dismiss(state, &key, &alice, 7);
        accept(state, dismissed).expect("the owner");
    })
}

/// The bytes of marks as released, and that there are none where there is nothing to say.
#[test]
fn marks_stand_behind_the_chunk_and_have_the_bytes_they_always_had() {
    let plain = one(Resident::new(marked(|_| ())).collect(NOTHING));
    assert_eq!(plain.version, VERSION);
    let with = one(Resident::new(muted()).collect(NOTHING));
    assert_eq!(with.version, VERSION_WITH_MARKS);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&with.payload[with.payload.len() - 9..]), "0101fc00d2496b0000");
    let body = decode(&with.payload).expect("decodes").0;
    let mut bytes = Vec::new();
    codec::encode_into(&body, &mut bytes);
    assert_eq!(bytes, with.payload[..with.payload.len() - 9]);
}

#[test]
fn mutes_and_the_end_of_a_group_come_back_also_from_a_merge() {
    for state in [muted(), dismissed()] {
        let chunks = series(&mut Resident::new(state.clone()), NOTHING);
        let loaded = reload(&state.key, &chunks);
        assert_eq!(loaded.group, state.group);
        assert_eq!(loaded.participants.rows(), state.participants.rows());
        let mut merger = Merger::default();
        chunks.iter().for_each(|chunk| merger.survey(&chunk.payload, chunk.summary.hollow).expect("fits"));
        let merged: Vec<_> = chunks
            .iter()
            .flat_map(|chunk| merger.merge(chunk.applied_lsn, &chunk.payload).expect("fits"))
            .collect();
        let mut loaded = reload(&state.key, &merged);
        assert!(send(&mut loaded, "bob", &draft("refused", ""), 8).is_err());
        assert_eq!((&loaded.group, loaded.hash), (&state.group, state.hash));
        assert_eq!(merged.last().map(|chunk| chunk.version), Some(VERSION_WITH_MARKS));
    }
}

#[test]
fn the_texts_of_a_dismissed_group_are_in_no_later_pack_and_leave_the_earlier_ones_with_a_merge() {
    let has_text = |chunks: &[Chunk]| {
        let holds = |chunk: &Chunk| chunk.payload.windows(6).any(|window| window == b"secret");
        chunks.iter().any(holds)
    };
    assert!(!has_text(&series(&mut Resident::new(dismissed()), NOTHING)));
    let mut resident = Resident::new(marked(|_| ()));
    let mut chunks = series(&mut resident, NOTHING);
    assert!(has_text(&chunks));
    let saved = chunks.last().expect("one").summary.after();
    let (key, alice) = (resident.state.key.clone(), Caller { user: user("alice"), admin: false });
    let decision = group::dismiss(&resident.state, &key, &alice, 7);
    accept(&mut resident.state, decision).expect("the owner");
    chunks.extend(series(&mut resident, saved));
    let loaded = reload(&key, &chunks);
    assert_eq!(loaded.history.kept_from(), 2);
    assert!(loaded.history.message(1).is_some_and(|message| message.erased && message.msg.is_empty()));
    let mut merger = Merger::default();
    chunks.iter().for_each(|chunk| merger.survey(&chunk.payload, chunk.summary.hollow).expect("fits"));
    let merge = |chunk: &Chunk| merger.merge(chunk.applied_lsn, &chunk.payload).expect("fits");
    let merged: Vec<_> = chunks.iter().flat_map(merge).collect();
    assert!(!has_text(&merged));
    assert!(merged.iter().any(|chunk| chunk.summary.hollow));
    assert_eq!(reload(&key, &merged).group, resident.state.group);
}

#[test]
fn marks_that_make_no_sense_are_refused() {
    let with = one(Resident::new(muted()).collect(NOTHING));
    let without = &with.payload[..with.payload.len() - 9];
    let load = |marks: &[u8]| {
        let mut loader = Loader::new((*muted().key).clone());
        loader.load(with.applied_lsn, &[without, marks].concat())
    };
    assert!(load(&[]).is_ok() && load(&[1, 1, 9, 0, 0]).is_ok());
    for bad in [
        &[1, 2, 9, 0, 0][..],
        &[1, 1, 0, 0, 0],
        &[2, 1, 9, 1, 9, 0, 0],
        &[2, 1, 9, 0, 9, 0, 0],
        &[0, 1, 0],
        &[0, 2, 0],
        &[0, 0, 1],
        &[0, 0, 0, 0],
        &[0, 0],
        &[9],
    ] {
        assert!(load(bad).is_err(), "{bad:?}");
    }
    let pair = one(Resident::new({
        let mut state = direct("alice", "bob");
        send(&mut state, "alice", &draft("m", ""), 1).expect("accepted");
        state
    })
    .collect(NOTHING));
    let load = |key: ConversationKey, marks: &[u8]| {
        Loader::new(key).load(1, &[&pair.payload[..], marks].concat()).is_ok()
    };
    let of_two = || ConversationKey::direct(user("alice"), user("bob"));
    assert!(load(of_two(), &[0, 0, 1]) && load(of_two(), &[0, 0, 3]));
    for bad in [&[1, 0, 9, 0, 0][..], &[0, 1, 0], &[0, 0, 4], &[0, 1, 1]] {
        assert!(!load(of_two(), bad), "{bad:?}");
    }
    assert!(!load(ConversationKey::direct(user("alice"), user("alice")), &[0, 0, 1]));
}

#[test]
fn blocks_come_back_and_a_later_series_without_them_ends_them() {
    let mut resident = Resident::new(direct("alice", "bob"));
    let relate = |state: &mut State, change| {
        let (key, alice) = (state.key.clone(), user("alice"));
        let decision = blocks::change(state, &key, &alice, change, 5);
        accept(state, decision).expect("lawful");
    };
    relate(&mut resident.state, RelationChange::Block);
    let blocked = one(resident.collect(NOTHING));
    assert_eq!((blocked.version, blocked.summary.unbegun), (VERSION_WITH_MARKS, true));
    let key = resident.state.key.clone();
    let mut loaded = reload(&key, [&blocked]);
    assert_eq!(loaded.blocks, resident.state.blocks);
    assert!(send(&mut loaded, "bob", &draft("refused", ""), 6).is_err());
    let people = people_in(&blocked.payload).expect("decodes");
    assert_eq!((people.persons.len(), people.blocks), (0, resident.state.blocks));
    relate(&mut resident.state, RelationChange::Unblock);
    let unblocked = one(resident.collect(NOTHING));
    assert_eq!((unblocked.version, unblocked.summary.unbegun), (VERSION, true));
    assert!(!reload(&key, [&blocked, &unblocked]).blocks.is_any());
    relate(&mut resident.state, RelationChange::Block);
    send(&mut resident.state, "alice", &draft("one-directional", ""), 6).expect("she blocks him");
    let begun = one(resident.collect(NOTHING));
    assert_eq!((begun.version, begun.summary.unbegun), (VERSION_WITH_MARKS, false));
    let mut merger = Merger::default();
    let all = [&blocked, &unblocked, &begun];
    all.iter().for_each(|chunk| merger.survey(&chunk.payload, false).expect("fits"));
    let merge = |chunk: &&Chunk| merger.merge(chunk.applied_lsn, &chunk.payload).expect("fits");
    let merged: Vec<_> = all.iter().flat_map(merge).collect();
    let loaded = reload(&key, &merged);
    assert_eq!((loaded.blocks, loaded.hash), (resident.state.blocks, resident.state.hash));
}
