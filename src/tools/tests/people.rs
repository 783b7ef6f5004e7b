//! `verify` and `inspect` on the people blocks of packs.

use super::*;
use crate::conversation::people::{RowV1, block_of, is_block, rows_of_block, user_hash};
use crate::snapshot::{PackReader, PackWriter};

/// Publishes the newest pack anew with other rows of people; all checksums hold.
fn with_rows(dir: &Path, change: impl FnOnce(&mut Vec<RowV1<'_>>)) {
    let disk: Arc<dyn crate::disk::Disk> = Arc::new(Real);
    let data = DataDir::inspect(disk.clone(), dir).unwrap();
    let (snap, store) = (data.snap_dir(), data.format().store);
    let mut manifest = snapshot::load_newest(&Real, &snap, &store).unwrap().unwrap().manifest;
    let info = manifest.packs.last_mut().unwrap();
    let old = PackReader::open(&Real, &snap, &store, info).unwrap();
    let number = snapshot::next_number(&Real, &snap).unwrap();
    let mut pack = PackWriter::create(disk, &data.tmp_dir(), &snap, store, number).unwrap();
    let (mut payload, mut at) = (Vec::new(), None);
    for (entry, chunk) in old.chunks_in_order() {
        let chunk = chunk.unwrap();
        match is_block(&entry) {
            true => (payload, at) = (chunk.payload, Some(entry)),
            false => pack.add(&chunk.meta, &chunk.payload).unwrap(),
        }
    }
    let hash = |user: &str| user_hash(&store, user);
    let mut rows = rows_of_block(&at.expect("one block"), &payload, &hash).unwrap();
    change(&mut rows);
    let (meta, payload) = block_of(&store, &rows, 0);
    pack.add(&meta, &payload).unwrap();
    *info = pack.finish().unwrap();
    manifest.number = snapshot::next_number(&Real, &snap).unwrap();
    snapshot::publish(&Real, &data.tmp_dir(), &snap, &manifest).unwrap();
}

/// What `verify` says of a store whose newest pack has these rows.
fn told(change: impl FnOnce(&mut Vec<RowV1<'_>>)) -> (Report, Vec<String>) {
    let dir = runtime().block_on(store());
    with_rows(dir.path(), change);
    let (report, told) = verified(dir.path());
    let lines = told.lines().filter(|line| line.contains(".pack at byte ")).map(str::to_owned);
    (report, lines.collect())
}

#[test]
fn rows_that_say_what_the_conversations_say_are_clean() {
    let (report, lines) = told(|rows| rows.reverse());
    assert_eq!(report.verdict, Verdict::Clean, "the control: {lines:?}");
}

#[test]
fn a_missing_row_is_found() {
    let mut missing = String::new();
    let (report, lines) = told(|rows| missing = rows.remove(0).user.to_owned());
    let [line] = lines.try_into().expect("one finding");
    assert_eq!(report.verdict, Verdict::Damaged);
    assert!(line.contains(&format!("the people blocks do not say: {missing:?} is in")), "{line}");
    assert!(line.starts_with("damaged: ") && line.contains("; concerns "), "{line}");
}

#[test]
fn a_row_too_many_is_found() {
    let (report, lines) = told(|rows| rows.push(RowV1 { user: "mallory", ..rows[0] }));
    let [line] = lines.try_into().expect("one finding");
    assert_eq!(report.verdict, Verdict::Damaged);
    assert!(line.contains("says what no conversation says: \"mallory\" is in"), "{line}");
}

#[test]
fn a_row_twice_is_found() {
    let (report, lines) = told(|rows| rows.push(rows[0]));
    assert_eq!((report.verdict, lines.len()), (Verdict::Damaged, 1), "{lines:?}");
}

#[test]
fn a_wrong_row_is_found() {
    for wrong in [|row: &mut RowV1<'_>| row.read_cursor += 1, |row: &mut RowV1<'_>| row.readable_from += 1] {
        let (report, lines) = told(|rows| wrong(&mut rows[0]));
        assert_eq!(
            (report.verdict, lines.len()),
            (Verdict::Damaged, 2),
            "as it is, and as it should be: {lines:?}"
        );
    }
}

#[test]
fn inspect_says_what_the_people_take() {
    let dir = runtime().block_on(store());
    let mut out = Vec::new();
    inspect(dir.path(), true, &mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let packs = json["snapshot"]["packs"].as_array().unwrap();
    let bytes = |pack: &serde_json::Value, field: &str| pack[field].as_u64().unwrap();
    assert!(packs.iter().all(|pack| (100..bytes(pack, "bytes")).contains(&bytes(pack, "people_bytes"))));
}
