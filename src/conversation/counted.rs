//! What a conversation costs in instructions: see [`crate::counted`].

use std::path::Path;
use std::sync::Arc;

use super::chunk::{Chunk, Loader, Saved, encode_next};
use super::old::Old;
use super::publisher::Place;
use super::record::{Record, extend_hash};
use super::recovery::recover;
use super::state::tests::{draft, user};
use super::state::{Decision, Durable, Pulled, State};
use crate::counted::{measured, rounds};
use crate::data_dir::DataDir;
use crate::disk::{Disk, Simulated};
use crate::message::{ConversationKey, Direction, Draft, Pull, UserId};
use crate::wal::{self, Stepped};

const TEXT_BYTES: usize = 200;
const MESSAGES: usize = 1_000;
const CONVERSATIONS: usize = 100;
const PAGE: u32 = 50;
const BATCH: usize = 64;

fn key() -> ConversationKey {
    ConversationKey::direct(user("alice"), user("bob"))
}

fn message() -> Draft {
    Draft { msg: "m".repeat(TEXT_BYTES), ..draft("", "") }
}

/// The record that a send in this state makes.
fn record_of<'a>(state: &State, key: &'a ConversationKey, by: &'a UserId, draft: &'a Draft) -> Record<'a> {
    match state.send(key, by, draft, Old::NONE, 1) {
        Ok(Decision::Append(record, _)) => record,
        other => panic!("not a record: {other:?}"),
    }
}

/// Payloads of the records of so many sends, one conversation.
fn payloads(key: &ConversationKey, count: usize) -> Vec<(u8, Vec<u8>)> {
    let (by, draft, mut state) = (user("alice"), message(), State::new(key.clone()));
    (1..)
        .take(count)
        .map(|lsn| {
            let record = record_of(&state, key, &by, &draft);
            state.apply(&record, lsn, 0).expect("it continues");
            (record.kind(), record.encode())
        })
        .collect()
}

fn conversation(count: usize) -> State {
    let key = key();
    let mut state = State::new(key.clone());
    for (lsn, (kind, payload)) in (1..).zip(payloads(&key, count)) {
        let record = Record::decode(kind, &payload).expect("our own record");
        state.apply(&record, lsn, extend_hash(state.hash, kind, &payload)).expect("it continues");
    }
    state
}

#[test]
fn rules() {
    let (key, by, draft, state) = (key(), user("alice"), message(), conversation(10));
    let made = measured(|| {
        (0..rounds(MESSAGES)).filter(|_| record_of(&state, &key, &by, &draft).kind() == 1).count()
    });
    assert_eq!(made, rounds(MESSAGES));
}

#[test]
fn record() {
    let (key, by, draft, state) = (key(), user("alice"), message(), conversation(10));
    let record = record_of(&state, &key, &by, &draft);
    let bytes: usize = measured(|| {
        (0..rounds(MESSAGES))
            .map(|_| {
                let payload = record.encode();
                payload.len() + usize::from(extend_hash(7, record.kind(), &payload) == 0)
            })
            .sum()
    });
    assert!(bytes > rounds(MESSAGES) * TEXT_BYTES);
}

#[test]
fn apply() {
    let key = key();
    let payloads = payloads(&key, rounds(MESSAGES));
    let records: Vec<_> =
        payloads.iter().map(|(kind, payload)| Record::decode(*kind, payload).expect("our own")).collect();
    let mut state = State::new(key.clone());
    measured(|| {
        for (lsn, record) in (1..).zip(&records) {
            state.apply(record, lsn, 0).expect("it continues");
        }
    });
    assert_eq!(state.history.newest_message() as usize, rounds(MESSAGES));
}

#[test]
fn pull() {
    let (state, by) = (conversation(MESSAGES), user("bob"));
    let durable = Durable { messages: MESSAGES as u32, recalls: 0 };
    let pull = Pull {
        direction: Direction::Before,
        start_msg_index: MESSAGES as u32,
        start_recall_index: 0,
        count: PAGE,
        wait: std::time::Duration::ZERO,
    };
    let messages: usize = measured(|| {
        (0..rounds(100))
            .map(|_| match state.pull(&by, &pull, Old::NONE, durable) {
                Ok(Pulled::Page(page)) => page.messages().len(),
                other => panic!("not a page: {other:?}"),
            })
            .sum()
    });
    assert_eq!(messages, rounds(100) * PAGE as usize);
}

#[test]
fn chunk_encode() {
    let state = conversation(rounds(MESSAGES));
    let chunks = measured(|| chunks_of(&state));
    assert!(chunks.last().is_some_and(|last| last.complete));
}

#[test]
fn chunk_load() {
    let chunks = chunks_of(&conversation(rounds(MESSAGES)));
    let state = measured(|| {
        let mut loader = Loader::new(key());
        for chunk in &chunks {
            loader.load(chunk.applied_lsn, &chunk.payload).expect("loads");
        }
        loader.finish().expect("complete")
    });
    assert_eq!(state.history.newest_message() as usize, rounds(MESSAGES));
}

fn chunks_of(state: &State) -> Vec<Chunk> {
    let chunks = encode_next(state, Saved::default());
    assert!(chunks.last().is_some_and(|last| last.complete), "a short history is one series");
    chunks
}

/// A store on a simulated disk, its log begun.
struct Store {
    disk: Simulated,
    place: Place,
    data: DataDir,
    log: Stepped<()>,
}

impl Store {
    fn begin() -> Self {
        let disk = Simulated::new(1);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let data = DataDir::open(shared.clone(), Path::new("data")).expect("a data directory");
        let place = Place::of(&data, shared.clone());
        let recovered = recover(&place, &data.wal_dir()).expect("an empty store");
        let options =
            wal::Options { free_bytes_min: 0, first_segment_bytes: 512 << 10, ..wal::Options::default() };
        let (wal_dir, tmp_dir, sink) = (data.wal_dir(), &place.tmp_dir, Box::new(|_| ()));
        let log = Stepped::start(shared, &wal_dir, tmp_dir, place.store, &recovered.log, options, sink);
        Self { disk, place, data, log: log.expect("a log") }
    }

    /// Appends and commits in batches.
    fn append(&mut self, payloads: Vec<(u8, Vec<u8>)>) {
        for (number, (kind, payload)) in (1..).zip(payloads) {
            self.log.append(kind, payload, ()).expect("room");
            if number % BATCH == 0 {
                self.log.commit().expect("a disk");
            }
        }
        self.log.commit().expect("a disk");
    }
}

#[test]
fn log() {
    let mut store = Store::begin();
    let payloads = payloads(&key(), rounds(MESSAGES));
    measured(|| store.append(payloads));
    assert_eq!(store.log.durable_lsn().0 as usize, rounds(MESSAGES));
}

/// A store that was killed with all of it in the log.
fn left_in_the_log() -> Store {
    let mut store = Store::begin();
    for number in 0..CONVERSATIONS {
        let key = ConversationKey::direct(user("alice"), user(&format!("peer-{number:03}")));
        store.append(payloads(&key, rounds(MESSAGES) / CONVERSATIONS));
    }
    store
}

#[test]
fn recovery() {
    let Store { disk, place, data, log } = left_in_the_log();
    drop(log);
    let place = Place { disk: Arc::new(disk.kill()), ..place };
    let recovered = measured(|| recover(&place, &data.wal_dir()).expect("recovers"));
    assert_eq!(recovered.messages as usize, rounds(MESSAGES));
}

#[test]
fn load() {
    let Store { disk, place, data, log } = left_in_the_log();
    drop(log);
    let place = Place { disk: Arc::new(disk.kill()), ..place };
    let mut recovered = recover(&place, &data.wal_dir()).expect("recovers");
    // Their order in a set differs from run to run.
    recovered.dirty.sort();
    let loaded = measured(|| {
        let load = |key| recovered.archive.load(key, 1, |_| ()).expect("loads").is_some();
        recovered.dirty.iter().filter(|key| load(key)).count()
    });
    assert_eq!(loaded, CONVERSATIONS);
}
