//! Whose conversations these are: told by packs of every age and by the log's tail, in the face of damage.

use std::collections::BTreeMap;

use super::super::archive::people::{Row, Whereabouts};
use super::super::people::{KIND, PeopleError, is_block};
use super::*;
use crate::snapshot::{PackInfo, PackReader, PackWriter};

const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "nobody"];

fn rows(life: &Life, id: &str) -> Vec<Row> {
    let mut rows = life.directory().archive().people_of(&user(id)).expect("the packs are whole");
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

fn everybodys(life: &Life) -> BTreeMap<&'static str, Vec<Row>> {
    USERS.iter().map(|id| (*id, rows(life, id))).collect()
}

fn in_tail(life: &Life, id: &str) -> Vec<ConversationKey> {
    life.directory().archive().tail_conversations_of(&user(id))
}

/// Pairs and a group over two packs; the second takes back some of what the first says.
async fn two_packs() -> Life {
    let life = Life::begin(&Simulated::new(1));
    life.send("alice", &to("bob"), "one").await;
    life.send("carol", &to("carol"), "a note").await;
    let members = ["bob", "carol"].map(user).to_vec();
    let g = group_id("g");
    let conversations = life.conversations().clone();
    conversations.create_group(&caller("alice"), Some(g.clone()), "name".into(), members).await.unwrap();
    life.send("alice", &group("g"), "welcome").await;
    life.checkpoint().unwrap();
    conversations.kick_members(&caller("alice"), &g, vec![user("bob")]).await.unwrap();
    conversations.add_members(&caller("alice"), &g, vec![user("dave")]).await.unwrap();
    life.send("alice", &group("g"), "who was that").await;
    conversations.recall(&user("alice"), &group("g"), 1).await.unwrap();
    life.checkpoint().unwrap();
    life
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_pack_says_who_is_in() {
    let life = two_packs().await;
    let keys = |id| rows(&life, id).into_iter().map(|row| row.key).collect::<Vec<_>>();
    let (pair, own, g) = (key("alice", &to("bob")), key("carol", &to("carol")), key("alice", &group("g")));
    assert_eq!(keys("alice"), [&pair, &g].map(Clone::clone));
    assert_eq!(keys("bob"), vec![pair], "put out of the group");
    assert_eq!(keys("carol"), [own, g.clone()]);
    let [pair_of_bob] = rows(&life, "bob").try_into().expect("one");
    assert_eq!((pair_of_bob.messages, pair_of_bob.read_cursor, pair_of_bob.readable_from), (1, 0, 1));
    let [dave] = rows(&life, "dave").try_into().expect("one");
    let newest = life.texts("dave", &group("g")).await;
    assert_eq!((newest.len(), dave.messages, dave.read_cursor, dave.readable_from), (1, 2, 1, 2));
    assert_eq!((dave.recalls, dave.greatest_recalled), (1, 1));
    assert!(dave.newest_message_ns > pair_of_bob.newest_message_ns);
    let place = life.directory().archive().place_of(&g);
    assert_eq!(place, Whereabouts::InPacks { applied_lsn: dave.applied_lsn });
    let before = everybodys(&life);
    life.compact().unwrap();
    assert_eq!(everybodys(&life), before);
    let life = Life::begin(&life.kill().await);
    assert_eq!(everybodys(&life), before);
    life.stop().await;
}

/// Publishes the same conversations in packs as they were before people blocks.
fn age(disk: &Simulated) {
    let data = DataDir::inspect(Arc::new(disk.clone()), Path::new(ROOT)).unwrap();
    let (snap, tmp, store) = (data.snap_dir(), data.tmp_dir(), data.format().store);
    let mut manifest = manifest_on(disk);
    for info in &mut manifest.packs {
        let old = PackReader::open(disk, &snap, &store, info).unwrap();
        let number = snapshot::next_number(disk, &snap).unwrap();
        let mut pack = PackWriter::create(Arc::new(disk.clone()), &tmp, &snap, store, number).unwrap();
        for (entry, chunk) in old.chunks_in_order().filter(|(entry, _)| entry.kind != KIND) {
            let chunk = chunk.unwrap();
            let summary = entry.summary;
            pack.add(&snapshot::ChunkMeta { summary, ..chunk.meta }, &chunk.payload).unwrap();
        }
        *info = pack.finish().unwrap();
    }
    manifest.number = snapshot::next_number(disk, &snap).unwrap();
    snapshot::publish(disk, &tmp, &snap, &manifest).unwrap();
}

fn blocks(life: &Life) -> usize {
    let packs = life.directory().archive().packs();
    packs.iter().flat_map(|pack| pack.entries()).filter(|entry| is_block(entry)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_older_than_people_blocks_answer_too_and_get_blocks_when_they_are_merged() {
    let life = two_packs().await;
    let before = everybodys(&life);
    assert_eq!(blocks(&life), 2);
    let disk = life.stop().await;
    age(&disk);
    let life = Life::begin(&disk);
    assert_eq!(blocks(&life), 0);
    assert_eq!(everybodys(&life), before);
    life.send("dave", &to("alice"), "new").await;
    life.checkpoint().unwrap();
    assert_eq!(blocks(&life), 1, "old and new packs stand side by side");
    assert_eq!(rows(&life, "dave").len(), before["dave"].len() + 1);
    let mixed = everybodys(&life);
    life.compact().unwrap();
    assert_eq!(blocks(&life), 1);
    assert_eq!(everybodys(&life), mixed);
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_pack_with_a_damaged_chunk_answers_nobody_wrongly() {
    let disk = two_packs().await.stop().await;
    age(&disk);
    let (file, at) = files_with(&disk, &["snap"], "a note").pop().expect("in a pack");
    disk.flip(&file, at, 1);
    let life = Life::begin(&disk);
    for id in USERS {
        let why = life.directory().archive().people_of(&user(id)).expect_err("nobody knows whose it is");
        assert!(why.to_string().contains(file.to_str().unwrap()), "{why}");
    }
    assert_eq!(life.texts("alice", &to("bob")).await, ["one"], "the others are served");
    life.stop().await;
}

/// A group of so many people that their rows take several blocks, in one pack.
async fn crowd() -> (Life, Vec<String>) {
    let life = Life::begin(&Simulated::new(1));
    let ids: Vec<_> = (0..300).map(|number| format!("{number}-{}", "x".repeat(100))).collect();
    let (alice, g, conversations) = (caller("alice"), group_id("g"), life.conversations());
    conversations.create_group(&alice, Some(g.clone()), "crowd".into(), vec![]).await.unwrap();
    for some in ids.chunks(20) {
        let members: Vec<_> = some.iter().map(|id| user(id)).collect();
        // The log's next segment may just be in the making.
        let added = loop {
            match conversations.add_members(&alice, &g, members.clone()).await {
                Err(Rejection::Overloaded) => tokio::task::yield_now().await,
                answer => break answer,
            }
        };
        added.unwrap();
    }
    life.checkpoint().unwrap();
    (life, ids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_people_block_costs_those_in_it_an_answer_until_it_is_merged() {
    let (life, ids) = crowd().await;
    assert!(blocks(&life) > 3);
    let packs = life.directory().archive().packs();
    let all = packs[0].entries().iter().filter(|entry| is_block(entry));
    let entry = *all.max_by_key(|entry| entry.bytes).unwrap();
    let path = packs[0].path().to_path_buf();
    let rows = entry.summary[4] as usize;
    let disk = life.kill().await;
    disk.flip(&path, entry.offset as usize + 1000, 1);
    let life = Life::begin(&disk);
    let archive = life.directory().archive().clone();
    let (told, refused): (Vec<_>, Vec<_>) =
        ids.iter().map(|id| archive.people_of(&user(id))).partition(Result::is_ok);
    assert!((rows - 1..=rows).contains(&refused.len()), "{} of {rows}, alice may be one", refused.len());
    assert!(told.iter().all(|rows| rows.as_ref().is_ok_and(|rows| rows.len() == 1)));
    for why in refused.into_iter().filter_map(Result::err) {
        assert!(matches!(why, PeopleError::Snapshot(_)), "{why}");
        let place = format!("{} is damaged at byte {}", path.display(), entry.offset);
        assert!(why.to_string().contains(&place), "{why}");
    }
    life.send("alice", &group("g"), "the group goes on").await;
    life.compact().unwrap();
    assert!(ids.iter().all(|id| archive.people_of(&user(id)).is_ok_and(|rows| rows.len() == 1)));
    life.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_log_has_is_named_by_its_tail_until_it_is_loaded() {
    let life = two_packs().await;
    let g = group_id("g");
    life.send("dave", &to("bob"), "only in the log").await;
    life.conversations().add_members(&caller("alice"), &g, vec![user("erin")]).await.unwrap();
    let life = Life::begin(&life.kill().await);
    let archive = life.directory().archive().clone();
    let (pair, g) = (key("dave", &to("bob")), key("alice", &group("g")));
    let named = |id| in_tail(&life, id);
    assert_eq!([named("bob"), named("dave"), named("erin")], [&pair, &pair, &g].map(|key| vec![key.clone()]));
    // Alice's row is old, and says so.
    assert_eq!(in_tail(&life, "alice"), []);
    assert_eq!([archive.place_of(&pair), archive.place_of(&g)], [Whereabouts::InTail; 2]);
    assert_eq!(archive.place_of(&key("erin", &to("bob"))), Whereabouts::Absent);
    life.texts("dave", &to("bob")).await;
    assert_eq!((in_tail(&life, "bob"), in_tail(&life, "erin")), (vec![], vec![g.clone()]));
    assert_eq!(archive.place_of(&pair), Whereabouts::Absent, "in memory now, and in no pack yet");
    life.checkpoint().unwrap();
    assert_eq!(in_tail(&life, "erin"), []);
    assert!(matches!(archive.place_of(&pair), Whereabouts::InPacks { .. }));
    assert_eq!((rows(&life, "erin").len(), rows(&life, "bob").len()), (1, 2));
    life.stop().await;
}

#[test]
fn what_an_old_pack_did_not_say_is_not_known() {
    let disk = Simulated::new(1);
    ["tmp", "snap"].iter().for_each(|dir| disk.create_dir_all(Path::new(dir)).unwrap());
    let conversation = key("alice", &to("bob"));
    let pack = |summary: &[u32; 8]| {
        let (dynamic, [tmp, snap]): (Arc<dyn Disk>, _) =
            (Arc::new(disk.clone()), ["tmp", "snap"].map(Path::new));
        let number = snapshot::next_number(&disk, snap).unwrap();
        let mut pack = PackWriter::create(dynamic, tmp, snap, [7; 16], number).unwrap();
        pack.add(&meta(&conversation, *summary), &payload_of_a_pair()).unwrap();
        let info: PackInfo = pack.finish().unwrap();
        PackReader::open(&disk, snap, &[7; 16], &info).unwrap()
    };
    let archive =
        |summaries: &[[u32; 8]]| archive::Archive::new([7; 16], summaries.iter().map(pack).collect());
    let told = |summaries: &[[u32; 8]]| {
        let [row] = archive(summaries).people_of(&user("bob")).unwrap().try_into().expect("one");
        (row.messages, row.newest_message_ns, row.recalls, row.greatest_recalled)
    };
    let (old, new) = ([0, 5, 0, 2, 1, 0, 0, 0], [5, 7, 2, 3, 1, 1, 2, 4]);
    assert_eq!(told(&[old]), (5, 0, 2, 0));
    assert_eq!(told(&[old, new]), (7, (1 << 32) + 2, 3, 0), "an older recall may reach further");
    assert_eq!(told(&[old, [5, 5, 2, 2, 1, 0, 0, 0]]), (5, 0, 2, 0));
    assert_eq!(told(&[[0, 5, 0, 2, 1, 0, 9, 3], [5, 5, 2, 3, 1, 0, 0, 1]]), (5, 9, 3, 3));
}

fn meta(key: &ConversationKey, summary: [u32; 8]) -> snapshot::ChunkMeta {
    let key = record::encode_key(key);
    snapshot::ChunkMeta { key, kind: chunk::KIND, version: chunk::VERSION, applied_lsn: 1, summary }
}

/// A chunk with a participant; what it says beside that is not looked at.
fn payload_of_a_pair() -> Vec<u8> {
    let mut pair = state::tests::direct("alice", "bob");
    state::tests::send(&mut pair, "alice", &draft("hello", ""), 1).unwrap();
    chunk::encode_next(&pair, Saved::default()).pop().expect("one chunk").payload
}
