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

/// A pair of people, each number another, and one message.
fn pair(number: usize, users: usize) -> String {
    let half = users / 2;
    let (one, other) = (number % half, half + (number % half * 7919 + number / half) % half);
    let (one, other) = (format!("user-{one:06}"), format!("user-{other:06}"));
    format!(
        "{{\"type\":\"conversation\",\"version\":1,\"users\":[\"{one}\",\"{other}\"],\"messages\":1,\"recalls\":0,\
         \"last_timestamp_ns\":\"5\",\"participants\":[{{\"user\":\"{one}\",\"ack_index\":1}}]}}\n\
         {{\"type\":\"message\",\"msg_index\":1,\"sender\":\"{one}\",\"timestamp_ns\":\"5\",\"msg\":\"hello\"}}\n"
    )
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).map_or(0, |kib| kib.parse::<u64>().unwrap() / 1024)
}

/// The figures of docs/storage.md: `cargo test --release --lib tools::tests::people::figures -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
#[allow(clippy::print_stderr)]
fn figures() {
    let conversations =
        std::env::var("CHINWAG_BENCH_CONVERSATIONS").map_or(1_000_000, |text| text.parse().unwrap());
    let users = conversations / 5;
    let dir = tempfile::tempdir().unwrap();
    let mut lines =
        std::io::BufReader::new(Pairs { next: 0, conversations, users, line: Vec::new(), read: 0 });
    import(dir.path(), &mut lines, Path::new("pairs")).unwrap();
    runtime().block_on(async {
        let life = Life::begin(dir.path());
        for number in 0..7 {
            for other in 0..100 {
                let to = Address::User(user(&format!("user-{:06}", number * 100 + other)));
                life.send("user-000000", &to, "hello").await;
            }
            life.checkpoint(false);
        }
        life.stop().await;
    });
    let disk: Arc<dyn crate::disk::Disk> = Arc::new(Real);
    let started = std::time::Instant::now();
    let before_mib = resident_mib();
    let data = DataDir::open(disk.clone(), dir.path()).unwrap();
    let recovered = recovery::recover(&Place::of(&data, disk), &data.wal_dir()).unwrap();
    eprintln!("start {:?}, resident {} MiB more", started.elapsed(), resident_mib() - before_mib);
    for pack in recovered.archive.packs().iter() {
        let blocks = pack.entries().iter().filter(|entry| is_block(entry)).count();
        let (bytes, chunks) = (pack.info().bytes, pack.info().chunks);
        let people: u64 =
            pack.entries().iter().filter(|entry| is_block(entry)).map(|entry| u64::from(entry.bytes)).sum();
        eprintln!("pack of {bytes} bytes, {chunks} chunks, of them {blocks} blocks of {people} bytes");
    }
    let ask = |from: usize, to: usize| {
        let started = std::time::Instant::now();
        let rows: usize = (from..to)
            .map(|number| recovered.archive.people_of(&user(&format!("user-{number:06}"))).unwrap().len())
            .sum();
        let each = started.elapsed() / (to - from) as u32;
        eprintln!("{} people in {rows} conversations: {each:?} each", to - from);
    };
    ask(1, 2);
    ask(1000, 2000);
    ask(1000, 2000);
    ask(0, 1);
    eprintln!("resident {} MiB more", resident_mib() - before_mib);
}

/// The lines of many pairs, made as they are read.
struct Pairs {
    next: usize,
    conversations: usize,
    users: usize,
    line: Vec<u8>,
    read: usize,
}

impl std::io::Read for Pairs {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.read == self.line.len() && self.next < self.conversations {
            (self.line, self.read) = (pair(self.next, self.users).into_bytes(), 0);
            self.next += 1;
        }
        let bytes = into.len().min(self.line.len() - self.read);
        into[..bytes].copy_from_slice(&self.line[self.read..self.read + bytes]);
        self.read += bytes;
        Ok(bytes)
    }
}
