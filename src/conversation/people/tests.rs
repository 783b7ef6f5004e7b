//! Rows and blocks: what goes in comes out, whoever shares a hash with whom.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::conversation::chunk::{Saved, encode_next};
use crate::conversation::participants::Membership;
use crate::conversation::record::encode_key;
use crate::conversation::state::State;
use crate::conversation::state::tests::{direct, draft, send, user};
use crate::disk::{Disk, Simulated};
use crate::message::{ConversationKey, Duty, GroupId};
use crate::snapshot::{PackInfo, PackReader, PackWriter};

const STORE: StoreId = *b"a store for test";

fn hash(user: &str) -> u64 {
    user_hash(&STORE, user)
}

fn group_key(id: &str) -> ConversationKey {
    ConversationKey::Group(GroupId::parse(id).expect("a valid id"))
}

/// A group of these members; each has read up to a message of their own.
fn group(id: &str, members: impl Iterator<Item = String>) -> State {
    let mut state = State::new(group_key(id));
    for (id, number) in members.zip(0u32..) {
        let membership = Membership { duty: Duty::Member, joined_ns: 1, readable_from: 1 };
        let row = state.participants.number_or_insert(&user(&id));
        let row = state.participants.get_mut(row);
        (row.membership, row.read_cursor) = (Some(membership), number);
    }
    state
}

/// One pack on a disk of its own.
struct Packed {
    disk: Simulated,
    info: PackInfo,
}

impl Packed {
    fn writer() -> (Simulated, PackWriter) {
        let disk = Simulated::new(1);
        let [tmp, snap] = ["tmp", "snap"].map(Path::new);
        [tmp, snap].iter().for_each(|dir| disk.create_dir_all(dir).expect("a new disk"));
        let dynamic: Arc<dyn Disk> = Arc::new(disk.clone());
        let writer = PackWriter::create(dynamic, tmp, snap, STORE, 1).expect("a new disk");
        (disk, writer)
    }

    fn of(states: &[State]) -> Self {
        let (disk, writer) = Self::writer();
        let mut pack = ConversationPack::new(writer, STORE);
        for state in states {
            for chunk in encode_next(state, Saved::default()) {
                pack.add(&encode_key(&state.key), &chunk).expect("there is room");
            }
        }
        Self { disk, info: pack.finish().expect("there is room") }
    }

    /// Only these rows, under a hash of the test's own; each list is a run.
    fn of_rows(runs: &[Vec<RowV1<'_>>], hash: UserHash<'_>) -> Self {
        let (disk, mut writer) = Self::writer();
        let mut number = 0;
        for run in runs {
            let mut rows = Rows::default();
            run.iter().for_each(|row| rows.push(hash(row.user), row));
            rows.sort();
            for block in rows.blocks() {
                writer.add(&block.meta(number), &block.payload).expect("there is room");
                number += 1;
            }
        }
        Self { disk, info: writer.finish().expect("there is room") }
    }

    fn open(&self) -> Arc<PackReader> {
        Arc::new(PackReader::open(&self.disk, Path::new("snap"), &STORE, &self.info).expect("it is whole"))
    }
}

fn found(pack: &Arc<PackReader>, id: &str, hash: UserHash<'_>) -> Vec<(ConversationKey, u32)> {
    let people = People::default();
    let found = people.in_pack(pack, &user(id), hash).expect("it is whole");
    let mut found: Vec<_> = found.into_iter().map(|it| (it.key, it.read_cursor)).collect();
    found.sort();
    found
}

/// As released. A change here is a change of the disk format: it needs a new version and a reader for the old one.
#[test]
fn a_block_has_the_bytes_it_always_had() {
    let key = ConversationKey::direct(user("bob"), user("alice"));
    let group = group_key("g");
    let row = |id, key, read_cursor| RowV1 { user: id, key: KeyV1::of(key), read_cursor, readable_from: 1 };
    let mut rows = Rows::default();
    for row in [row("bob", &key, 300), row("alice", &key, 7), row("alice", &group, 0)] {
        rows.push(hash(row.user), &row);
    }
    rows.sort();
    let block = rows.blocks().next().expect("one block");
    let hex: String = block.payload.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "0303626f620005616c69636503626f62fb2c010105616c6963650005616c69636503626f6207\
         0105616c696365010167000001"
    );
    assert_eq!(block.meta(258).key, [2, 0, 0, 1, 2]);
    assert_eq!(block.meta(0).summary, [954_830_228, 3_191_308_640, 2_362_686_390, 766_186_641, 3, 0, 0, 0]);
}

#[test]
fn of_a_pair_both_have_a_row_and_of_a_group_its_members() {
    let mut pair = direct("alice", "bob");
    send(&mut pair, "bob", &draft("hello", ""), 1).expect("accepted");
    let mut own = direct("bob", "bob");
    send(&mut own, "bob", &draft("note", ""), 1).expect("accepted");
    let mut group = group("g", ["bob", "gone", "alice"].into_iter().map(str::to_owned));
    group.participants.get_mut(1).membership = None;
    let pack = Packed::of(&[pair.clone(), own.clone(), group.clone()]).open();
    let (pair, own, group) = ((*pair.key).clone(), (*own.key).clone(), (*group.key).clone());
    assert_eq!(found(&pack, "alice", &hash), [(pair.clone(), 0), (group.clone(), 2)]);
    assert_eq!(found(&pack, "bob", &hash), [(pair, 1), (own, 1), (group, 0)]);
    assert_eq!(found(&pack, "gone", &hash), []);
    assert_eq!(found(&pack, "nobody", &hash), []);
}

#[test]
fn users_who_share_a_hash_are_told_apart() {
    let collide: UserHash<'_> = &|user| hash(user) % 2;
    let keys: Vec<_> = (0..40).map(|number| group_key(&format!("group-{number}"))).collect();
    let row = |id, key, read_cursor| RowV1 { user: id, key: KeyV1::of(key), read_cursor, readable_from: 1 };
    let users = ["ann", "ben", "cem", "dee", "eve"];
    let all = || keys.iter().zip(0u32..).flat_map(|(key, n)| users.map(|id| row(id, key, n)));
    let pack = Packed::of_rows(&[all().collect()], collide).open();
    for (id, nth) in users.iter().zip(0..) {
        let expected: Vec<_> = all().skip(nth).step_by(5).map(|row| row.read_cursor).collect();
        let found: Vec<_> = found(&pack, id, collide).into_iter().map(|(_, cursor)| cursor).collect();
        assert_eq!(sorted(found), expected, "{id}");
    }
    assert_eq!(found(&pack, "nobody", collide), []);
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn rows_of_one_user_are_found_over_blocks_and_runs() {
    let keys: Vec<_> = (0..3000).map(|number| group_key(&format!("group-{number}"))).collect();
    let others: Vec<_> = (0..3000).map(|number| format!("user-{number}")).collect();
    let mut runs = vec![Vec::new(), Vec::new()];
    for ((key, other), number) in keys.iter().zip(&others).zip(0u32..) {
        for id in ["everywhere", other] {
            let row = RowV1 { user: id, key: KeyV1::of(key), read_cursor: number, readable_from: 1 };
            runs[number as usize % 2].push(row);
        }
    }
    let pack = Packed::of_rows(&runs, &hash).open();
    assert!(pack.entries().len() > 15, "{} blocks", pack.entries().len());
    assert_eq!(runs_of_pack(&pack), 2);
    let everywhere = found(&pack, "everywhere", &hash).into_iter().map(|(_, cursor)| cursor);
    assert_eq!(sorted(everywhere.collect()), (0..3000).collect::<Vec<_>>());
    for number in (0..3000).step_by(7) {
        let one = found(&pack, &format!("user-{number}"), &hash);
        assert_eq!(one, [(keys[number].clone(), number as u32)]);
    }
}

fn runs_of_pack(pack: &PackReader) -> usize {
    pack_people::runs_of(pack.entries()).len()
}

#[test]
fn more_people_than_are_held_back_make_several_runs() {
    let long = "x".repeat(100);
    let groups = (0..24).map(|number| {
        let members = (0..8000).map(|member| format!("{number}-{member}-{long}"));
        group(&format!("{number}-{long}"), members.chain(["everywhere".into()]))
    });
    let pack = Packed::of(&groups.collect::<Vec<_>>()).open();
    assert_eq!(runs_of_pack(&pack), 2);
    let everywhere = found(&pack, "everywhere", &hash);
    assert_eq!(everywhere.len(), 24);
    assert!(everywhere.iter().all(|(_, cursor)| *cursor == 8000));
    assert_eq!(found(&pack, &format!("23-7999-{long}"), &hash).len(), 1);
}

#[test]
fn a_block_that_is_unsorted_or_not_what_the_index_says_is_refused() {
    let key = group_key("g");
    let row = |id| RowV1 { user: id, key: KeyV1::of(&key), read_cursor: 0, readable_from: 1 };
    let pack = Packed::of_rows(&[vec![row("ann"), row("ben"), row("cem")]], &hash).open();
    let entry = pack.entries()[0];
    let payload = pack.chunk(&entry).expect("it is whole").payload;
    assert_eq!(rows_of_block(&entry, &payload, &hash).expect("it is whole").len(), 3, "the control");
    assert!(rows_of_block(&entry, &payload, &|user| !hash(user)).is_err(), "another order");
    assert!(rows_of_block(&entry, &payload[..payload.len() - 1], &hash).is_err(), "cut");
    for word in 0..5 {
        let mut other = entry;
        other.summary[word] ^= 1;
        assert!(rows_of_block(&other, &payload, &hash).is_err(), "word {word}");
    }
    for (kind, version) in [(1, VERSION), (KIND, 2)] {
        let mut other = entry;
        (other.kind, other.version) = (kind, version);
        assert!(rows_of_block(&other, &payload, &hash).is_err(), "kind {kind}, version {version}");
    }
}

#[test]
fn a_pack_in_which_nobody_is_has_a_block_all_the_same() {
    let mut group = group("g", ["gone".to_owned()].into_iter());
    group.participants.get_mut(0).membership = None;
    let pack = Packed::of(&[group]).open();
    assert_eq!(pack.entries().iter().filter(|entry| is_block(entry)).count(), 1);
    assert_eq!(found(&pack, "gone", &hash), []);
    assert!(pack_people::has_blocks(&pack));
}
