//! One life of the engine: what the node does between a start and its end, one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::archive::{self, Archive};
use super::super::checkpoint::DirtyList;
use super::super::chunk::{Merger, Retention, Saved, Summary};
use super::super::old::{Missing, Old};
use super::super::people::{ConversationPack, is_block};
use super::super::publisher::{self, LogEnds, Place, Publisher};
use super::super::record::{Record, encode_key, extend_hash};
use super::super::recovery::Recovered;
use super::super::reload;
use super::super::resident::Resident;
use super::super::retention;
use super::super::state::{Durable, State};
use super::model::Model;
use super::round::Sabotage;
use crate::message::ConversationKey;
use crate::snapshot::{self, PackReader};
use crate::wal::{self, Lsn, Options, Refused, Sink, Stepped};

/// What waits for a record: whose head moves, and to where.
pub(super) type Ticket = (ConversationKey, Durable);

type Log = Arc<Mutex<Stepped<Ticket>>>;

/// A conversation in memory, with what its actor and its durable head know.
pub(super) struct Hot {
    pub(super) resident: Resident,
    pub(super) durable: Durable,
    durable_lsn: u64,
    saved_lsn: u64,
}

/// A checkpoint between two of its steps.
struct Checkpoint {
    covered: Lsn,
    keys: BTreeSet<ConversationKey>,
    failed: BTreeSet<ConversationKey>,
    left: Vec<ConversationKey>,
    pack: ConversationPack,
    saved: Vec<(ConversationKey, u64)>,
}

/// A merged pack that is not published yet, and what it was merged from.
struct Merged {
    run: Vec<Arc<PackReader>>,
    pack: ConversationPack,
}

pub(super) struct Life {
    pub(super) log: Log,
    pub(super) archive: Arc<Archive>,
    publisher: Publisher,
    dirty: DirtyList,
    pub(super) hot: BTreeMap<ConversationKey, Hot>,
    /// With the newest record that a pack has, where that is known.
    quarantined: BTreeMap<ConversationKey, Option<u64>>,
    out: Arc<Mutex<Vec<(Lsn, Ticket)>>>,
    checkpoint: Option<Checkpoint>,
    merged: Option<Merged>,
    sabotage: Sabotage,
    /// Under sabotage: not yet in the list.
    unlisted: Vec<ConversationKey>,
    pub(super) now_ns: u64,
    pub(super) retention: retention::Options,
    /// How often old messages left memory, and how many conversations came without theirs.
    pub(super) trimmed: u64,
    pub(super) loaded_in_part: u64,
}

/// Why a step could not be taken.
#[derive(Debug)]
pub(super) enum Stop {
    /// The log failed, as it may on a failing disk: the process ends.
    Log(wal::Error),
    /// This must not happen.
    Broken(String),
}

impl Life {
    pub(super) fn start(
        place: &Place,
        recovered: Recovered,
        options: Options,
        sabotage: Sabotage,
    ) -> Result<Self, Stop> {
        let out = Arc::new(Mutex::new(Vec::new()));
        let into = out.clone();
        let sink: Sink<Ticket> = Box::new(move |batch| into.lock().expect("no panics").extend(batch.tickets));
        let Place { disk, tmp_dir, store, .. } = place;
        let log = Stepped::start(
            disk.clone(),
            std::path::Path::new("wal"),
            tmp_dir,
            *store,
            &recovered.log,
            options,
            sink,
        );
        let log = Arc::new(Mutex::new(log.map_err(Stop::Log)?));
        let archive = Arc::new(recovered.archive);
        let ends = ends_of(&log, sabotage);
        let publisher =
            Publisher::new(place.clone(), archive.clone(), ends, recovered.replay_after, Duration::ZERO);
        let dirty = DirtyList::default();
        dirty.add_all(recovered.dirty.into_iter().collect());
        Ok(Self {
            publisher: publisher.map_err(snapshot_failed)?,
            log,
            archive,
            dirty,
            hot: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            out,
            checkpoint: None,
            merged: None,
            sabotage,
            unlisted: Vec::new(),
            now_ns: 0,
            retention: retention::Options::default(),
            trimmed: 0,
            loaded_in_part: 0,
        })
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Stepped<Ticket>> {
        self.log.lock().expect("no panics")
    }

    /// The conversation, read from the disk if it is not in memory, and compared with the model then; `None` when it is
    /// quarantined.
    pub(super) fn touch(&mut self, key: &ConversationKey, model: &Model) -> Result<Option<&mut Hot>, Stop> {
        if self.quarantined.contains_key(key) {
            return Ok(None);
        }
        if !self.hot.contains_key(key) {
            let (loaded, old) = match self.load(key) {
                Ok(loaded) => loaded,
                Err(archive::Error::Snapshot(snapshot::Error::Io { .. })) => {
                    self.quarantined.insert(key.clone(), None);
                    return Ok(None);
                }
                Err(why) => return Err(Stop::Broken(format!("{key}: {why}"))),
            };
            let state = loaded.as_ref().map(|resident| &resident.state);
            model.check(key, state, &old, self.now_ns).map_err(Stop::Broken)?;
            let resident =
                loaded.unwrap_or_else(|| Resident::new(State::with(key.clone(), self.archive.history)));
            self.loaded_in_part += u64::from(resident.state.history.newest_old() > 0);
            let (durable, saved_lsn) = (durable_of(&resident.state), resident.saved_lsn);
            let durable_lsn = resident.state.applied_lsn;
            self.hot.insert(key.clone(), Hot { resident, durable, durable_lsn, saved_lsn });
        }
        let hot = self.hot.get_mut(key).expect("just inserted");
        hot.resident.state.history.erase_through(hot.durable.recalls);
        if self.sabotage == Sabotage::UnsavedLetGo {
            hot.resident.state.history.trim(u32::MAX);
        }
        self.trimmed += u64::from(hot.resident.trim(hot.saved_lsn));
        Ok(Some(hot))
    }

    /// A conversation as an actor loads it, and everything that it leaves on the disk.
    fn load(&self, key: &ConversationKey) -> Result<(Option<Resident>, Old), archive::Error> {
        load(&self.archive, key, self.now_ns)
    }

    /// What a call needs of the packs; `None` when the disk fails.
    pub(super) fn read_old(&self, key: &ConversationKey, missing: &Missing) -> Result<Option<Old>, Stop> {
        match self.archive.read_old(key, &missing.0) {
            Ok(old) => Ok(Some(old)),
            Err(archive::Error::Snapshot(snapshot::Error::Io { .. })) => Ok(None),
            Err(why) => Err(Stop::Broken(format!("{key}: {why}"))),
        }
    }

    /// Somebody who is refused comes back; whether there was somebody.
    pub(super) fn reload_one(&mut self, nth: usize) -> Result<bool, Stop> {
        let Some(key) = self.quarantined.keys().nth(nth).cloned() else { return Ok(false) };
        if self.sabotage != Sabotage::ReloadedWithoutLog {
            match reload::hold_again(&self.publisher, &self.dirty, &key) {
                Ok(()) => {}
                // The log failed, or cannot be read this time.
                Err(wal::Error::Io { .. } | wal::Error::Failed) => return Ok(false),
                Err(why) => return Err(Stop::Broken(format!("{key} does not come back: {why}"))),
            }
        }
        self.quarantined.remove(&key);
        Ok(true)
    }

    /// An actor panics: what it knew is on its way to the disk, and it is refused until it comes back.
    pub(super) fn kill_one(&mut self, nth: usize) {
        let Some(key) = self.hot.keys().nth(nth).cloned() else { return };
        let hot = self.hot.remove(&key).expect("it is there");
        self.quarantined.insert(key, Some(hot.saved_lsn));
    }

    /// As the directory says it.
    fn saved_through(&self, key: &ConversationKey) -> u64 {
        let known = self.quarantined.get(key).copied().flatten();
        known.unwrap_or_else(|| self.archive.tail_begins_at(key).map_or(0, |lsn| lsn.saturating_sub(1)))
    }

    /// What an actor does with a record that the rules have made; whether the log took it.
    pub(super) fn append(
        &mut self,
        key: &ConversationKey,
        kind: u8,
        payload: Vec<u8>,
        model: &mut Model,
    ) -> Result<bool, Stop> {
        let is_late = self.sabotage == Sabotage::ListedTooLate;
        let hot = self.hot.get_mut(key).expect("it was touched");
        if !std::mem::replace(&mut hot.resident.dirty, true) {
            if is_late { self.unlisted.push(key.clone()) } else { self.dirty.add(key.clone()) }
        }
        let record = Record::decode(kind, &payload).map_err(|why| Stop::Broken(why.to_string()))?;
        let state = &mut hot.resident.state;
        let mut durable = durable_of(state);
        match &record {
            Record::Send(send) => durable.messages = send.msg_index,
            Record::Recall(recall) => durable.recalls = recall.recall_index,
            _ => {}
        }
        let appended =
            self.log.lock().expect("no panics").append(kind, payload.clone(), (key.clone(), durable));
        let lsn = match appended {
            Ok(lsn) => lsn,
            Err(Refused { .. }) => return Ok(false),
        };
        if lsn.0 != model.len() + 1 {
            return Err(Stop::Broken(format!("record {} was numbered {lsn}", model.len() + 1)));
        }
        let hash = extend_hash(state.hash, kind, &payload);
        state.apply(&record, lsn.0, hash).map_err(|why| Stop::Broken(why.to_string()))?;
        model.append(key, kind, payload);
        Ok(true)
    }

    /// What the completing task does with what came out.
    pub(super) fn complete(&mut self) -> u64 {
        let mut newest = 0;
        for (lsn, (key, durable)) in std::mem::take(&mut *self.out.lock().expect("no panics")) {
            // Whoever has something in flight stays in memory, unless the actor died.
            // One that came back has a head of its own, which began with all of it.
            if let Some(hot) = self.hot.get_mut(&key).filter(|hot| hot.durable_lsn < lsn.0) {
                (hot.durable, hot.durable_lsn) = (durable, lsn.0);
            }
            newest = lsn.0;
        }
        newest
    }

    /// Lists whoever is listed too late.
    pub(super) fn list(&mut self) {
        self.unlisted.drain(..).for_each(|key| self.dirty.add(key));
    }

    /// Takes those out of memory that a pack has whole; how many.
    pub(super) fn passivate(&mut self) -> usize {
        let before = self.hot.len();
        self.hot.retain(|_, hot| {
            let in_flight = hot.durable_lsn < hot.resident.state.applied_lsn;
            in_flight || hot.saved_lsn < hot.durable_lsn
        });
        before - self.hot.len()
    }

    pub(super) fn has_checkpoint(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// The next step of a checkpoint; true when it was published.
    pub(super) fn checkpoint(&mut self, model: &mut Model) -> Result<bool, Stop> {
        match self.checkpoint.take() {
            None => self.begin_checkpoint().map(|()| false),
            Some(mut checkpoint) => match checkpoint.left.pop() {
                Some(key) => {
                    let saved = self.save(&mut checkpoint, &key, model);
                    self.keep_or_give_up(checkpoint, saved).map(|()| false)
                }
                None => self.publish(checkpoint, model),
            },
        }
    }

    fn begin_checkpoint(&mut self) -> Result<(), Stop> {
        let covered = self.log().durable_lsn();
        let keys = self.dirty.take();
        if keys.is_empty() {
            return Ok(());
        }
        match self.publisher.create_pack() {
            Ok(pack) => {
                let left = keys.iter().cloned().collect();
                self.checkpoint = Some(Checkpoint {
                    covered,
                    keys,
                    failed: BTreeSet::new(),
                    left,
                    pack,
                    saved: Vec::new(),
                });
                Ok(())
            }
            Err(why) => {
                self.dirty.add_all(keys);
                tolerate(&why)
            }
        }
    }

    /// As the checkpoint thread does for one conversation.
    fn save(
        &mut self,
        checkpoint: &mut Checkpoint,
        key: &ConversationKey,
        model: &Model,
    ) -> Result<(), Stop> {
        let key_bytes = encode_key(key);
        let mut saved: Saved = self.archive.saved(key);
        if self.touch(key, model)?.is_none() {
            checkpoint.covered = checkpoint.covered.min(Lsn(self.saved_through(key)));
            checkpoint.failed.insert(key.clone());
            return Ok(());
        }
        loop {
            let hot = self.hot.get_mut(key).expect("touched");
            let chunks = hot.resident.collect(saved);
            for chunk in chunks.iter().filter(|chunk| chunk.applied_lsn > 0) {
                checkpoint.pack.add(&key_bytes, chunk).map_err(snapshot_failed)?;
                saved = chunk.summary.after();
            }
            if let Some(last) = chunks.last().filter(|chunk| chunk.complete) {
                checkpoint.saved.push((key.clone(), last.applied_lsn));
                return Ok(());
            }
        }
    }

    fn keep_or_give_up(&mut self, checkpoint: Checkpoint, saved: Result<(), Stop>) -> Result<(), Stop> {
        match saved {
            Ok(()) => self.checkpoint = Some(checkpoint),
            Err(Stop::Log(_)) => self.dirty.add_all(checkpoint.keys),
            Err(broken) => return Err(broken),
        }
        Ok(())
    }

    fn publish(&mut self, checkpoint: Checkpoint, model: &mut Model) -> Result<bool, Stop> {
        let Checkpoint { covered, keys, failed, pack, saved, .. } = checkpoint;
        let published = match pack.chunks() {
            0 => {
                self.dirty.add_all(failed);
                return Ok(false);
            }
            _ => self.publisher.append(pack, covered),
        };
        match published {
            Ok(_) => {
                self.note_synced(model);
                self.dirty.add_all(failed);
                for (key, lsn) in saved {
                    // A conversation that was passivated meanwhile had nothing new.
                    if let Some(hot) = self.hot.get_mut(&key) {
                        hot.saved_lsn = hot.saved_lsn.max(lsn);
                    }
                }
                Ok(true)
            }
            Err(why) => {
                self.dirty.add_all(keys);
                tolerate_publish(&why).map(|()| false)
            }
        }
    }

    /// Publishing has synced the log.
    fn note_synced(&mut self, model: &mut Model) {
        if self.sabotage == Sabotage::None {
            model.on_disk = model.on_disk.max(self.log().durable_lsn().0);
        }
    }

    /// The next step of a compaction of the packs from `first` on; true when it was published.
    pub(super) fn compact(&mut self, first: usize, for_good: bool) -> Result<bool, Stop> {
        let Some(Merged { run, pack }) = self.merged.take() else {
            let packs = self.archive.packs();
            let (older, run) = packs.split_at(first.min(packs.len()));
            let run = run.to_vec();
            if run.is_empty() {
                return Ok(false);
            }
            self.merged = match self.merge(older, &run) {
                Ok(pack) => Some(Merged { run, pack }),
                Err(why) => tolerate(&why).map(|()| None)?,
            };
            return Ok(false);
        };
        match self.publisher.replace(&run, pack, for_good) {
            Ok(_) => Ok(true),
            Err(why) => tolerate_publish(&why).map(|()| false),
        }
    }

    fn merge(
        &self,
        older: &[Arc<PackReader>],
        run: &[Arc<PackReader>],
    ) -> Result<ConversationPack, snapshot::Error> {
        let mut places = BTreeMap::<u128, Vec<_>>::new();
        for pack in run {
            for entry in pack.entries().iter().filter(|entry| !is_block(entry)) {
                places.entry(entry.key_hash).or_default().push((pack, *entry));
            }
        }
        let mut merged = self.publisher.create_pack()?;
        for places in places.into_values() {
            let mut merger = Merger::default();
            let hash = places[0].1.key_hash;
            let is_whole =
                !older.iter().any(|pack| pack.entries().iter().any(|entry| entry.key_hash == hash));
            if is_whole {
                merger = Merger::with(Retention::new(self.retention, self.archive.history, self.now_ns));
            }
            for (pack, entry) in &places {
                let is_hollow = Summary::from_numbers(entry.summary).hollow;
                merger.survey(&pack.chunk(entry)?.payload, is_hollow).expect("chunks make sense");
            }
            for (pack, entry) in &places {
                let chunk = pack.chunk(entry)?;
                let full = merger.merge(chunk.meta.applied_lsn, &chunk.payload).expect("chunks make sense");
                for out in full {
                    merged.add(&chunk.meta.key, &out)?;
                }
            }
        }
        Ok(merged)
    }
}

pub(super) fn load(
    archive: &Archive,
    key: &ConversationKey,
    now_ns: u64,
) -> Result<(Option<Resident>, Old), archive::Error> {
    let loaded = archive.load(key, now_ns, |_| ())?;
    let newest_old = loaded.as_ref().map_or(0, |resident| resident.state.history.newest_old());
    Ok((loaded, archive.read_old(key, &(1..=newest_old))?))
}

fn ends_of(log: &Log, sabotage: Sabotage) -> LogEnds {
    let (end, all, beginning) = (log.clone(), log.clone(), log.clone());
    LogEnds {
        wait_for_disk: Box::new(move || {
            let mut log = end.lock().expect("no panics");
            if sabotage != Sabotage::SnapshotAheadOfLog {
                log.commit()?;
                log.sync()?;
            }
            Ok(log.durable_lsn())
        }),
        segments: Box::new(move || all.lock().expect("no panics").segments()),
        remove_below: Box::new(move |lsn| beginning.lock().expect("no panics").remove_below(lsn)),
    }
}

fn durable_of(state: &State) -> Durable {
    Durable { messages: state.history.newest_message(), recalls: state.history.newest_recall() }
}

fn snapshot_failed(why: snapshot::Error) -> Stop {
    match &why {
        // The caller gives the attempt up; the name says that nothing is broken.
        snapshot::Error::Io { .. } | snapshot::Error::Abandoned(_) => Stop::Log(wal::Error::Failed),
        _ => Stop::Broken(why.to_string()),
    }
}

/// A failing disk may keep a snapshot from being taken; nothing else may.
fn tolerate(why: &snapshot::Error) -> Result<(), Stop> {
    match why {
        snapshot::Error::Io { .. } | snapshot::Error::Abandoned(_) => Ok(()),
        _ => Err(Stop::Broken(why.to_string())),
    }
}

fn tolerate_publish(why: &publisher::Error) -> Result<(), Stop> {
    match why {
        publisher::Error::Snapshot(why) => tolerate(why),
        publisher::Error::Log(wal::Error::Io { .. } | wal::Error::Failed) => Ok(()),
        publisher::Error::Log(why) => Err(Stop::Broken(why.to_string())),
    }
}
