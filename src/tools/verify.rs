//! `chinwag verify`: everything that is promised of a data directory, checked byte by byte, without changing one.
//!
//! Four passes: the files that say what is current; every record of the log; every chunk of the packs that are kept,
//! and whether their people blocks say what their conversations do; every conversation, brought into memory one at a time
//! from both manifests. The last two are done on all cores, in steps whose findings are told in the order of the files. A
//! finding never ends the look.

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use self::conversations::{Conversations, Totals};
use self::people::PeopleCheck;
use super::Error;
use super::progress::Progress;
use super::reader::Reader;
use super::side_by_side::side_by_side;
use super::state_hash::StateHash;
use crate::conversation::record::{Record, decode_key, key_bytes_of};
use crate::disk::{Disk, Real};
use crate::message::ConversationKey;
use crate::snapshot::{self, IndexEntry, PackReader};
use crate::wal::{self, Checked, Lsn, UncutTail};

mod conversations;
mod people;

/// Chunks that a thread checks at a time, mostly some hundred KiB: enough that handing them out costs nothing, and few
/// enough that all threads have some.
const CHUNKS_A_STEP: usize = 64;

/// How a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it was written.
    Clean,
    /// A crash tore the end of the last batch, which the next start cuts off.
    TornTail,
    /// Some of it could not be read this time; nothing that could is damaged.
    Unreadable,
    /// Damaged.
    Damaged,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it is.
    pub verdict: Verdict,
    /// How many lines said so.
    pub findings: u64,
    /// Conversations that are whole.
    pub conversations: u64,
    /// Their messages, recalled ones included.
    pub messages: u64,
    /// Their recalls.
    pub recalls: u64,
    /// The newest record of the log.
    pub last_lsn: u64,
    /// The state hash, unless something is damaged.
    pub state_hash: Option<StateHash>,
}

impl Report {
    /// Nothing but what a start puts right, or the error that ends the process.
    pub fn into_result(self, dir: &Path) -> Result<Self, Error> {
        let path = dir.to_path_buf();
        match self.verdict {
            Verdict::Clean => Ok(self),
            Verdict::TornTail => Err(Error::TornTail(path)),
            Verdict::Unreadable => {
                let source = io::Error::other("see the lines above");
                Err(Error::Io { action: "read all of", path, source })
            }
            Verdict::Damaged => {
                let why = format!("damaged; {} findings, listed above", self.findings);
                Err(Error::Damaged { path, why })
            }
        }
    }
}

/// Checks the data directory `dir` and writes what it finds to `out`, one line each.
///
/// # Errors
/// When the directory cannot be looked at at all, or `out` fails. What is found is in the [`Report`].
pub fn verify(dir: &Path, out: &mut dyn Write) -> Result<Report, Error> {
    verify_on(Arc::new(Real), dir, out)
}

pub(super) fn verify_on(disk: Arc<dyn Disk>, dir: &Path, out: &mut dyn Write) -> Result<Report, Error> {
    let reader = Reader::open(disk, dir)?;
    let mut findings = Findings::new(out);
    findings.rejected(&reader);
    let log = check_log(&reader, &mut findings)?;
    check_packs(&reader, &mut findings);
    let check = Conversations { reader: &reader, log: &log };
    let totals = match is_continuous(&reader, &log, &mut findings) {
        true => check.all(&mut findings),
        false => Totals::default(),
    };
    let report = report(&findings, &log, &totals);
    describe(&reader, &log, &report, findings.out).map_err(Error::Output)?;
    findings.failed.map_or(Ok(report), |why| Err(Error::Output(why)))
}

/// Something that is not as it should be.
struct Finding {
    /// As opposed to: could not be read this time.
    is_damage: bool,
    what: String,
    concerns: Vec<ConversationKey>,
}

impl Finding {
    fn damaged(what: impl Display, concerns: Vec<ConversationKey>) -> Self {
        Self { is_damage: true, what: what.to_string(), concerns }
    }

    fn snapshot(why: &snapshot::Error, concerns: Vec<ConversationKey>) -> Self {
        let is_unreadable =
            matches!(why, snapshot::Error::Io { source, .. } if source.kind() != io::ErrorKind::NotFound);
        Self { is_damage: !is_unreadable, what: why.to_string(), concerns }
    }
}

/// What was found, told as it is found. The same finding is told once.
struct Findings<'a> {
    out: &'a mut dyn Write,
    told: HashSet<u64>,
    damaged: u64,
    unreadable: u64,
    torn_tail: bool,
    /// Why `out` does not take lines any more.
    failed: Option<io::Error>,
}

impl<'a> Findings<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Self { out, told: HashSet::new(), damaged: 0, unreadable: 0, torn_tail: false, failed: None }
    }

    fn damaged(&mut self, what: impl Display, concerns: &[ConversationKey]) {
        self.add(Finding::damaged(what, concerns.to_vec()));
    }

    fn add(&mut self, finding: Finding) {
        let Finding { is_damage, what, concerns } = finding;
        if !self.told.insert(xxh3_64(what.as_bytes())) {
            return;
        }
        let (kind, count) = match is_damage {
            true => ("damaged", &mut self.damaged),
            false => ("unreadable", &mut self.unreadable),
        };
        *count += 1;
        self.tell(kind, &what, &concerns);
    }

    fn tell(&mut self, kind: &str, what: &str, concerns: &[ConversationKey]) {
        let mut line = format!("{kind}: {what}");
        for (number, key) in concerns.iter().enumerate() {
            line += if number == 0 { "; concerns " } else { ", " };
            line += &key.to_string();
        }
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{line}").err();
        }
    }

    fn log(&mut self, why: &wal::Error) {
        let is_damage = !matches!(why, wal::Error::Io { .. });
        self.add(Finding { is_damage, what: why.to_string(), concerns: Vec::new() });
    }

    /// `was_acknowledged`: snapshots have more than the log, so its end is not what a crash leaves.
    fn torn_tail(&mut self, tail: &UncutTail, was_acknowledged: bool) {
        self.torn_tail = true;
        let UncutTail { segment, offset, bytes } = tail;
        let which = if was_acknowledged { "are no whole batch" } else { "were never acknowledged" };
        let what = format!("{} at byte {offset}: {bytes} bytes that {which}", segment.display());
        self.tell("torn tail", &what, &[]);
    }

    fn rejected(&mut self, reader: &Reader) {
        for rejected in &reader.rejected {
            self.add(Finding::snapshot(&rejected.why, Vec::new()));
            self.tell("unusable", &rejected.file.display().to_string(), &[]);
        }
    }

    fn verdict(&self) -> Verdict {
        match (self.damaged, self.unreadable, self.torn_tail) {
            (0, 0, false) => Verdict::Clean,
            (0, 0, true) => Verdict::TornTail,
            (0, ..) => Verdict::Unreadable,
            _ => Verdict::Damaged,
        }
    }
}

/// Every record of every segment, needed or not.
fn check_log(reader: &Reader, findings: &mut Findings<'_>) -> Result<Checked, Error> {
    let log = reader.read_log_prepared(&decode, &mut |record, decoded, segment, offset| {
        if let Err(why) = decoded {
            let key = key_bytes_of(record.payload).and_then(decode_key).ok();
            let what = format!("{} at byte {offset}, record {}: {why}", segment.path.display(), record.lsn);
            findings.damaged(what, key.as_slice());
        }
    })?;
    log.damage.iter().for_each(|why| findings.log(why));
    if let Some(tail) = &log.torn_tail {
        let was_acknowledged = log.covers(reader.newest_in_packs()).is_err();
        findings.torn_tail(tail, was_acknowledged);
    }
    Ok(log)
}

fn decode(record: &wal::Record<'_>) -> Result<(), crate::conversation::codec::Error> {
    Record::decode(record.kind, record.payload)?.key().check()
}

/// Every chunk of the packs that a manifest names.
fn check_packs(reader: &Reader, findings: &mut Findings<'_>) {
    let packs = reader.packs();
    let mut progress = Progress::bytes("packs", packs.iter().map(|pack| pack.info().bytes).sum());
    for pack in &packs {
        let order = pack.entries_in_order();
        let steps: Vec<&[u32]> = order.chunks(CHUNKS_A_STEP).collect();
        let begun = PeopleCheck::of(pack, reader.store());
        let mut people = begun.clone();
        side_by_side(
            steps.len(),
            |step| check_chunks(&packs, pack, begun.clone(), steps[step]),
            |step| {
                progress.add(step.bytes);
                people.add(&step.people);
                progress.aside_if(step.found, |found| findings.add(found));
            },
        );
        progress.aside(|| people.finish(findings));
    }
}

/// What a step found of some chunks.
struct CheckedChunks<'a> {
    people: PeopleCheck<'a>,
    found: Vec<Finding>,
    bytes: u64,
}

fn check_chunks<'a>(
    packs: &[Arc<PackReader>],
    pack: &'a Arc<PackReader>,
    mut people: PeopleCheck<'a>,
    order: &[u32],
) -> CheckedChunks<'a> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (entry, chunk) in pack.chunks(order.to_vec()) {
        bytes += u64::from(entry.bytes);
        match chunk {
            Ok(chunk) => {
                let taken = people.take(&entry, &chunk);
                found.extend(taken.err().map(|why| Finding::damaged(why, Vec::new())));
            }
            Err(why) => {
                people.give_up();
                found.push(Finding::snapshot(&why, conversations_of(packs, pack, &entry)));
            }
        }
    }
    CheckedChunks { people, found, bytes }
}

/// Whose chunk it is: as it says itself or, when even that is damaged, as other chunks under its hash say.
fn conversations_of(
    packs: &[Arc<PackReader>],
    pack: &PackReader,
    entry: &IndexEntry,
) -> Vec<ConversationKey> {
    if let Some(key) = pack.key(entry).ok().and_then(|bytes| decode_key(&bytes).ok()) {
        return vec![key];
    }
    let under_hash = packs.iter().flat_map(|pack| {
        let same = pack.entries().iter().filter(|other| other.key_hash == entry.key_hash);
        same.filter_map(|other| decode_key(&pack.key(other).ok()?).ok())
    });
    let keys: HashSet<_> = under_hash.collect();
    keys.into_iter().collect()
}

/// Whether packs and log together can be whole, so that looking at conversations tells something.
fn is_continuous(reader: &Reader, log: &Checked, findings: &mut Findings<'_>) -> bool {
    for after in [reader.tail_after(), reader.replay_after(), reader.newest_in_packs()] {
        if let Err(why) = log.covers(after) {
            findings.damaged(why, &[]);
        }
    }
    // Without any manifest, and with a log that began before, every conversation would be a finding.
    !reader.images.is_empty() || log.covers(Lsn(0)).is_ok()
}

fn report(findings: &Findings<'_>, log: &Checked, totals: &Totals) -> Report {
    let verdict = findings.verdict();
    let is_whole = matches!(verdict, Verdict::Clean | Verdict::TornTail);
    Report {
        verdict,
        findings: findings.damaged + findings.unreadable,
        conversations: totals.conversations,
        messages: totals.messages,
        recalls: totals.recalls,
        last_lsn: log.last_lsn.0,
        state_hash: is_whole.then_some(totals.state_hash),
    }
}

fn describe(reader: &Reader, log: &Checked, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let format = reader.data.format();
    writeln!(out, "store {:032x} epoch {}", u128::from_be_bytes(format.store), format.epoch)?;
    let end = if log.closed_cleanly { "closed" } else { "not closed" };
    let (segments, bytes) = (log.segments.len(), reader.log_bytes());
    let (records, last_lsn) = (log.records, log.last_lsn);
    writeln!(out, "log segments={segments} records={records} last={last_lsn} bytes={bytes} {end}")?;
    let packs = reader.packs();
    let (count, bytes) = (packs.len(), packs.iter().map(|pack| pack.info().bytes).sum::<u64>());
    let (manifests, covers) = (reader.images.len(), reader.replay_after());
    writeln!(out, "snapshot manifests={manifests} packs={count} covers={covers} bytes={bytes}")?;
    let Report { conversations, messages, recalls, findings, .. } = report;
    writeln!(out, "chat conversations={conversations} messages={messages} recalls={recalls}")?;
    match report.state_hash {
        Some(hash) => writeln!(out, "state hash {hash}")?,
        None => writeln!(out, "state hash unknown")?,
    }
    match report.verdict {
        Verdict::Clean => writeln!(out, "clean"),
        Verdict::TornTail => writeln!(out, "torn tail only"),
        Verdict::Unreadable => writeln!(out, "not all could be read: {findings} findings"),
        Verdict::Damaged => writeln!(out, "damaged: {findings} findings"),
    }
}
