//! Merging: whatever was saved in whatever packs, any merges of them say the same.

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::chunk::{Loader, Merger};
use super::super::group;
use super::super::history::Stored;
use super::super::participants::Participant;
use super::super::resident::Resident;
use super::super::state::tests::{accept, everything, recall, send};
use super::super::state::{GroupFacts, State};
use super::*;

/// What happens to a group, and to the packs it is saved in.
#[derive(Debug, Clone)]
enum Step {
    Send {
        by: Index,
        id: Option<u8>,
        long: bool,
    },
    Recall(Index),
    Ack(Index, Index),
    Add(u8),
    Kick(u8),
    Leave(u8),
    /// Save; these happen between one chunk of the series and the next.
    Save(Vec<Step>),
    /// Merge some packs that stand side by side.
    Merge(Index, Index),
}

fn change() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        8 => (index(), prop::option::of(0..8u8), prop::bool::weighted(0.04))
            .prop_map(|(by, id, long)| Step::Send { by, id, long }),
        3 => index().prop_map(Step::Recall),
        2 => (index(), index()).prop_map(|(by, upto)| Step::Ack(by, upto)),
        2 => (0..20u8).prop_map(Step::Add),
        1 => (0..20u8).prop_map(Step::Kick),
        1 => (0..20u8).prop_map(Step::Leave),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => change(),
        3 => prop::collection::vec(change(), 0..4).prop_map(Step::Save),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(first, last)| Step::Merge(first, last)),
    ]
}

/// A group and the packs in which it is saved.
struct Saving {
    resident: Resident,
    packs: Vec<Vec<Chunk>>,
    saved: Saved,
    /// The state at the end of the newest series.
    last: State,
    sent: usize,
}

impl Saving {
    fn begin() -> Self {
        let mut state = State::new(ConversationKey::Group(group_id("g")));
        let (key, owner) = (state.key.clone(), caller("user-0"));
        let created = group::create(&state, &key, &owner, "name", &[], 1);
        accept(&mut state, created).expect("a new group");
        let resident = Resident::new(state.clone());
        let mut saving = Self { resident, packs: Vec::new(), saved: Saved::default(), last: state, sent: 0 };
        saving.save(&[]);
        saving
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Save(between) => self.save(between),
            Step::Merge(first, last) => {
                self.merge(first.index(self.packs.len()), last.index(self.packs.len()))
            }
            change => self.change(change),
        }
    }

    /// A change; what is refused changes nothing.
    fn change(&mut self, change: &Step) {
        self.sent += 1;
        let (number, state) = (self.sent, &mut self.resident.state);
        let (key, admin) = (state.key.clone(), Caller { user: user("user-0"), admin: true });
        let some_user = |who: &u8| vec![user(&format!("user-{who}"))];
        let refused = match change {
            Step::Send { by, id, long } => {
                let members: Vec<_> =
                    state.participants.members().map(|(_, row, _)| row.user.clone()).collect();
                let Some(by) = members.get(by.index(members.len().max(1))) else { return };
                let text = format!("<{number}>{}", "x".repeat(if *long { 600_000 } else { 0 }));
                let id = id.map_or(String::new(), |id| format!("id-{id}-{}", number / 50));
                send(state, by.as_str(), &draft(&text, &id), number as u64).map(drop)
            }
            Step::Recall(index) => {
                let index = index.index(state.history.newest_message() as usize + 1) as u32;
                let Some(message) = state.history.message(index) else { return };
                let sender = state.participants.get(message.sender).user.clone();
                recall(state, sender.as_str(), index).map(drop)
            }
            Step::Ack(by, upto) => {
                let rows = state.participants.rows();
                let by = rows[by.index(rows.len())].user.clone();
                let upto = upto.index(state.history.newest_message() as usize + 1) as u32;
                let decision = state.ack(&key, &by, upto, everything(state));
                accept(state, decision)
            }
            Step::Add(who) => {
                let users = some_user(who);
                let decision = group::add(state, &key, &admin, &users, number as u64);
                accept(state, decision)
            }
            Step::Kick(who) => {
                let users = some_user(who);
                let decision = group::kick(state, &key, &admin, &users, number as u64);
                accept(state, decision)
            }
            Step::Leave(who) => {
                let who = caller(&format!("user-{who}"));
                let decision = group::leave(state, &key, &who, number as u64);
                accept(state, decision)
            }
            Step::Save(_) | Step::Merge(..) => unreachable!("not a change"),
        };
        drop(refused);
    }

    /// Saves as a checkpoint does: chunk by chunk, while the group goes on.
    fn save(&mut self, between: &[Step]) {
        let mut between = between.iter();
        let mut pack = Vec::new();
        loop {
            let chunks = self.resident.collect(self.saved);
            self.saved = chunks.last().expect("at least one").summary.after();
            pack.extend(chunks);
            if pack.last().is_some_and(|last: &Chunk| last.complete) {
                break;
            }
            between.next().into_iter().for_each(|change| self.change(change));
        }
        self.packs.push(pack);
        self.last = self.resident.state.clone();
    }

    fn merge(&mut self, one: usize, other: usize) {
        let run = one.min(other)..=one.max(other);
        let merged = merged(self.packs[run.clone()].iter().flatten());
        self.packs.splice(run, [merged]);
    }

    fn reload(&self) -> State {
        let mut loader = Loader::new((*self.last.key).clone());
        for chunk in self.packs.iter().flatten() {
            loader.load(chunk.applied_lsn, &chunk.payload).expect("continues");
        }
        loader.finish().expect("complete")
    }
}

/// As compaction does it.
fn merged<'a>(chunks: impl Iterator<Item = &'a Chunk> + Clone) -> Vec<Chunk> {
    let mut merger = Merger::default();
    chunks.clone().for_each(|chunk| merger.survey(&chunk.payload, chunk.summary.hollow).expect("decodes"));
    chunks.flat_map(|chunk| merger.merge(chunk.applied_lsn, &chunk.payload).expect("continues")).collect()
}

/// Everything of a state that anybody could ever see.
#[derive(Debug, PartialEq)]
struct Seen {
    position: (u64, u128, u64),
    group: Option<GroupFacts>,
    participants: Vec<Participant>,
    messages: Vec<SeenMessage>,
    recalls: Vec<Option<u32>>,
}

#[derive(Debug, PartialEq)]
struct SeenMessage {
    sender: u32,
    timestamp_ns: u64,
    recall_index: u32,
    /// Id, text and what was attached.
    texts: [String; 3],
    /// What a retry of it finds.
    retry: Option<u32>,
}

fn seen(state: &State) -> Seen {
    let mut state = state.clone();
    state.history.erase_through(state.history.newest_recall());
    let history = &state.history;
    let messages = (1..=history.newest_message()).map(|index| {
        let it = history.message(index).expect("up to the newest");
        let retry = history.find_retry(it.sender, it.client_msg_id);
        let texts = [it.client_msg_id, it.msg, it.extra].map(str::to_owned);
        let Stored { sender, timestamp_ns, recall_index, .. } = it;
        SeenMessage { sender, timestamp_ns, recall_index, texts, retry }
    });
    Seen {
        position: (state.applied_lsn, state.hash, state.last_timestamp_ns),
        group: state.group.clone(),
        participants: state.participants.rows().to_vec(),
        messages: messages.collect(),
        recalls: (1..=history.newest_recall()).map(|index| history.recalled_by(index)).collect(),
    }
}

/// The numbers of the texts that stand in these bytes.
fn texts_in(chunks: &[Chunk]) -> HashSet<usize> {
    let number_of = |part: &[u8]| {
        let end = part.iter().take(8).position(|byte| *byte == b'>')?;
        std::str::from_utf8(&part[..end]).ok()?.parse().ok()
    };
    let parts = chunks.iter().flat_map(|chunk| chunk.payload.split(|byte| *byte == b'<'));
    parts.filter_map(number_of).collect()
}

/// The numbers of the texts that are to stand in chunks of this state.
fn texts_of(state: &State) -> HashSet<usize> {
    let messages =
        (1..=state.history.newest_message()).map(|index| state.history.message(index).expect("exists"));
    let kept = messages.filter(|message| message.recall_index == 0);
    kept.map(|message| message.msg[1..].split_once('>').expect("a number").0.parse().expect("a number"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_history_saved_and_merged_in_any_way_reloads_as_it_was(
        steps in prop::collection::vec(step(), 1..100)
    ) {
        let mut saving = Saving::begin();
        for step in &steps {
            saving.step(step);
            if matches!(step, Step::Merge(..)) {
                prop_assert_eq!(seen(&saving.reload()), seen(&saving.last));
            }
        }
        saving.save(&[]);
        prop_assert_eq!(seen(&saving.reload()), seen(&saving.last));
        saving.merge(0, saving.packs.len() - 1);
        prop_assert_eq!(seen(&saving.reload()), seen(&saving.last));
        prop_assert_eq!(texts_in(&saving.packs[0]), texts_of(&saving.last));
    }
}

/// More messages, recalls and participants than one chunk takes, in several series.
#[test]
fn long_series_are_merged_into_long_series() {
    let mut saving = Saving::begin();
    let some = |from: u32, to: u32, saving: &mut Saving| {
        let state = &mut saving.resident.state;
        for number in from..to {
            send(state, "user-0", &draft(&format!("<{number}>"), ""), u64::from(number)).expect("a member");
            state.participants.number_or_insert(&user(&format!("reader-{number}-a")));
            state.participants.number_or_insert(&user(&format!("reader-{number}-b")));
        }
        saving.save(&[]);
    };
    some(0, 9_000, &mut saving);
    some(9_000, 9_010, &mut saving);
    some(9_010, 19_000, &mut saving);
    let chunks: Vec<usize> = saving.packs.iter().map(Vec::len).collect();
    assert!(chunks.iter().max() > Some(&4), "{chunks:?}");
    for (first, last) in [(1, 2), (0, 0), (0, 2)] {
        saving.merge(first, last);
        assert_eq!(seen(&saving.reload()), seen(&saving.last));
    }
    assert_eq!(saving.packs.len(), 1);
}
