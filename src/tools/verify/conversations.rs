//! The last pass: every conversation is brought into memory, from the snapshot and the log, and must be what it
//! should be. Which files and chunks are damaged is known by then.

use super::{Finding, Findings};
use crate::conversation::archive::{self, Held, RecordError, TailRecord, replay};
use crate::conversation::record::{encode_key, key_bytes_of};
use crate::conversation::state::State;
use crate::message::ConversationKey;
use crate::tools::invariants::{broken, difference};
use crate::tools::progress::Progress;
use crate::tools::reader::Reader;
use crate::tools::side_by_side::side_by_side;
use crate::tools::state_hash::StateHash;
use crate::wal::{self, Checked, Lsn, SegmentFile};

/// Conversations that a thread brings into memory, one after the other: enough that handing them out costs nothing, and
/// few enough that all threads have some.
const CONVERSATIONS_A_STEP: usize = 16;

/// What all conversations have together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) conversations: u64,
    pub(super) messages: u64,
    pub(super) recalls: u64,
    pub(super) state_hash: StateHash,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.conversations += other.conversations;
        self.messages += other.messages;
        self.recalls += other.recalls;
        self.state_hash.merge(other.state_hash);
    }
}

/// The last pass.
pub(super) struct Conversations<'a> {
    pub(super) reader: &'a Reader,
    pub(super) log: &'a Checked,
}

/// What a step found of some conversations.
#[derive(Default)]
struct CheckedConversations {
    totals: Totals,
    found: Vec<Finding>,
    /// How many hashes it looked under.
    hashes: u64,
}

impl CheckedConversations {
    fn count(&mut self, key: &ConversationKey, state: &State) {
        self.totals.conversations += u64::from(state.has_begun());
        self.totals.messages += u64::from(state.history.newest_message());
        self.totals.recalls += u64::from(state.history.newest_recall());
        self.totals.state_hash.add(key, state.hash);
    }
}

impl Conversations<'_> {
    pub(super) fn all(&self, findings: &mut Findings<'_>) -> Totals {
        let mut hashes = self.reader.archive().hashes();
        hashes.extend(self.fallback().map(|older| older.hashes()).unwrap_or_default());
        hashes.sort_unstable();
        hashes.dedup();
        let progress = Progress::conversations("conversations", hashes.len() as u64);
        let steps: Vec<&[u128]> = hashes.chunks(CONVERSATIONS_A_STEP).collect();
        let mut totals = Totals::default();
        side_by_side(
            steps.len(),
            |step| self.some(steps[step]),
            |step| {
                totals.add(&step.totals);
                progress.many(step.hashes);
                progress.aside_if(step.found, |found| findings.add(found));
            },
        );
        totals
    }

    fn some(&self, hashes: &[u128]) -> CheckedConversations {
        let mut checked = CheckedConversations { hashes: hashes.len() as u64, ..Default::default() };
        let newest = self.reader.archive();
        for &hash in hashes {
            let mut keys = newest.under(hash).keys;
            keys.extend(self.fallback().map(|older| older.under(hash).keys).unwrap_or_default());
            let tail = newest.take_tail(hash);
            keys.iter().for_each(|key| self.one(key, &tail, &mut checked));
        }
        checked
    }

    /// The older image, whose log is there too.
    fn fallback(&self) -> Option<&archive::Archive> {
        let older = self.reader.images.get(1)?;
        let covered = self.log.covers(Lsn(older.manifest.replay_after_lsn)).is_ok();
        (covered && self.log.damage.is_empty()).then_some(&older.archive)
    }

    fn one(&self, key: &ConversationKey, tail: &Held, checked: &mut CheckedConversations) {
        let found = match self.load(key, tail) {
            Ok(state) => {
                let broken = broken(&state);
                if broken.is_empty() {
                    checked.count(key, &state);
                }
                broken
            }
            Err(Lost::Archive(why)) => return checked.found.push(self.lost(key, &why)),
            Err(Lost::Differs(why)) => vec![why],
        };
        let root = self.reader.data.root().display();
        let found =
            found.into_iter().map(|why| Finding::damaged(format!("{root}: {key}: {why}"), Vec::new()));
        checked.found.extend(found);
    }

    fn lost(&self, key: &ConversationKey, why: &archive::Error) -> Finding {
        let concerns = vec![key.clone()];
        match why {
            archive::Error::Snapshot(why) => Finding::snapshot(why, concerns),
            archive::Error::Record { lsn, why } => Finding::damaged(self.at_record(*lsn, why), concerns),
            _ => Finding::damaged(why, concerns),
        }
    }

    /// The conversation from the newest image and the log; what the older image makes of it must be the same.
    fn load(&self, key: &ConversationKey, tail: &Held) -> Result<State, Lost> {
        let archive = self.reader.archive();
        let newest = archive.load_chunks(key)?;
        // From the same chunks comes the same.
        let older = self.fallback().filter(|older| !older.has_the_chunks_of(archive, key));
        let older = older.map(|older| older.load_chunks(key)).transpose()?.flatten();
        let reached = newest.as_ref().map_or(0, |state| state.applied_lsn);
        if let Some(older) = older {
            let from_older = advance(older, tail.iter().take_while(|record| record.lsn <= reached))?;
            let why = match &newest {
                None => Some("the newest manifest lacks it, the one before has it".into()),
                Some(newest) => difference(&from_older, newest)
                    .map(|what| format!("the two manifests and the log disagree about it: {what}")),
            };
            why.map_or(Ok(()), |why| Err(Lost::Differs(why)))?;
        }
        self.check_covered(key, tail, reached)?;
        let state = newest.unwrap_or_else(|| State::new(key.clone()));
        Ok(advance(state, tail.iter().skip_while(|record| record.lsn <= reached))?)
    }

    /// What the newest manifest covers is in its packs: a start does not read it in the log.
    fn check_covered(&self, key: &ConversationKey, tail: &Held, reached: u64) -> Result<(), Lost> {
        let (covered, key) = (self.reader.replay_after().0, encode_key(key));
        let mut behind =
            tail.rows().filter(|record| record.lsn > reached).take_while(|record| record.lsn <= covered);
        match behind.find(|record| key_bytes_of(record.payload).is_ok_and(|of| of == key)) {
            None => Ok(()),
            Some(TailRecord { lsn, .. }) => Err(Lost::Differs(format!(
                "the newest manifest covers the log up to record {covered}, but its packs lack record {lsn}"
            ))),
        }
    }

    fn at_record(&self, lsn: u64, why: &RecordError) -> String {
        let place = self.place_of(Lsn(lsn));
        let place = place.map_or(String::new(), |(segment, offset)| {
            format!("{} at byte {offset}, ", segment.path.display())
        });
        format!("{place}record {lsn}: {why}")
    }

    fn place_of(&self, lsn: Lsn) -> Option<(SegmentFile, u64)> {
        let reader = self.reader;
        let segment = self.log.segments.iter().rfind(|segment| segment.file.first_lsn <= lsn)?;
        let place = wal::place_of(&*reader.disk, &segment.file, reader.store(), lsn).ok()??;
        Some((segment.file.clone(), place.start))
    }
}

/// Why a conversation is not what it should be.
enum Lost {
    Archive(archive::Error),
    Differs(String),
}

impl From<archive::Error> for Lost {
    fn from(why: archive::Error) -> Self {
        Self::Archive(why)
    }
}

fn advance<'a>(
    mut state: State,
    records: impl Iterator<Item = TailRecord<'a>>,
) -> Result<State, archive::Error> {
    let key = encode_key(&state.key);
    for record in records {
        replay(&mut state, &key, &record).map_err(|why| archive::Error::Record { lsn: record.lsn, why })?;
    }
    Ok(state)
}
