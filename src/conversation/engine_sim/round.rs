//! One seed: several lives of one store, each with its own mode, faults and end.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::history;
use super::super::old::Old;
use super::super::publisher::Place;
use super::super::recovery::{self, Recovered, recover};
use super::super::retention;
use super::super::state::Durable;
use super::life::{self, Life, Stop};
use super::model::{End, Expected, Model};
use super::request::{Decided, Request, USERS, Wish, chance, user};
use super::seen::Seen;
use crate::disk::{Disk, Operation, Simulated};
use crate::message::{ConversationKey, GroupId, Rejection};
use crate::snapshot;
use crate::wal::{self, Options, State as LogState, SyncMode};

const DIRS: [&str; 4] = ["wal", "snap", "tmp", "quarantine"];

/// So little stays in memory that every conversation has an old part.
const HISTORY: history::Options = history::Options {
    recent_messages: 5,
    recent_text_bytes: 1_000,
    retry_messages: 7,
    retry_age: Duration::from_hours(10),
};
/// Between two calls; ages count in hours.
const STEP_NS: u64 = 600_000_000_000;

/// What a control breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    /// A snapshot is published without waiting for the log to be on the disk.
    SnapshotAheadOfLog,
    /// A conversation enters the list of changed ones some time after its append.
    ListedTooLate,
    /// A conversation whose actor died comes back without what only the log has.
    ReloadedWithoutLog,
    /// Syncs of files succeed and do nothing.
    NoSyncs,
    /// Old messages leave memory before a pack has them.
    UnsavedLetGo,
}

struct Round {
    random: StdRng,
    disk: Simulated,
    keys: Vec<ConversationKey>,
    model: Model,
    seen: Seen,
    sabotage: Sabotage,
    end: End,
    /// Whether a sync failed in the last life: then even a killed process may lose what was out.
    sync_failed: bool,
    now_ns: u64,
}

pub(super) fn round(seed: u64, sabotage: Sabotage) -> Result<Seen, String> {
    let disk = Simulated::new(seed);
    for dir in DIRS {
        disk.create_dir_all(Path::new(dir)).expect("a new disk");
    }
    let mut round = Round {
        random: StdRng::seed_from_u64(seed),
        disk,
        keys: keys(),
        model: Model::default(),
        seen: Seen::default(),
        sabotage,
        end: End::Killed,
        sync_failed: false,
        now_ns: 1,
    };
    round.model.retention = round.retention();
    for _ in 0..round.random.random_range(2..=6) {
        round.life()?;
    }
    round.check_everything()?;
    Ok(round.seen)
}

fn keys() -> Vec<ConversationKey> {
    let direct = [("ann", "ben"), ("ann", "cem"), ("dee", "dee")];
    let direct = direct.map(|(one, other)| ConversationKey::direct(user(one), user(other)));
    let groups = ["g", "h"].map(|id| ConversationKey::Group(GroupId::parse(id).expect("a valid id")));
    direct.into_iter().chain(groups).collect()
}

impl Round {
    fn chance(&mut self, percent: u32) -> bool {
        chance(&mut self.random, percent)
    }

    fn place(&self) -> Place {
        Place {
            disk: Arc::new(self.disk.clone()),
            snap_dir: "snap".into(),
            tmp_dir: "tmp".into(),
            quarantine_dir: "quarantine".into(),
            store: *b"a simulated one.",
            epoch: 1,
        }
    }

    fn life(&mut self) -> Result<(), String> {
        let recovered = self.recover()?;
        let options = self.options();
        let started = Life::start(&self.place(), recovered, options.clone(), self.sabotage);
        let mut life = match started {
            Ok(life) => life,
            Err(Stop::Log(why)) => return Err(format!("no start on a disk that works: {why}")),
            Err(Stop::Broken(why)) => return Err(why),
        };
        (life.now_ns, life.retention) = (self.now_ns, self.model.retention);
        self.arm_fault();
        for _ in 0..self.random.random_range(0..250) {
            match self.step(&mut life, &options) {
                Ok(()) => {}
                Err(Stop::Broken(why)) => return Err(why),
                Err(Stop::Log(_)) => {
                    self.seen.failed_logs += 1;
                    self.sync_failed = true;
                    break;
                }
            }
        }
        self.seen.trimmed += life.trimmed;
        self.seen.loaded_in_part += life.loaded_in_part;
        self.cut();
        Ok(())
    }

    /// Ends the life, by a power cut or by killing the process.
    fn cut(&mut self) {
        self.seen.crashes += 1;
        self.end = if self.chance(70) { End::PowerCut } else { End::Killed };
        self.disk = if self.end == End::PowerCut { self.disk.crash() } else { self.disk.kill() };
        if self.sabotage == Sabotage::NoSyncs {
            self.disk.lie_about_syncs();
        }
    }

    /// Reads the store, possibly with a failing disk and several tries.
    fn recover(&mut self) -> Result<Recovered, String> {
        loop {
            let is_faulty = self.chance(15);
            if is_faulty {
                self.arm_any_fault(25);
            }
            let recovered = recover(&self.place(), Path::new("wal"));
            self.disk.heal();
            let recovered = match recovered {
                Ok(mut recovered) => {
                    recovered.archive.history = HISTORY;
                    recovered
                }
                Err(why) if is_faulty && is_of_the_disk(&why) => {
                    self.seen.faulty_recoveries += 1;
                    self.cut_again();
                    continue;
                }
                Err(why) => return Err(format!("the store was refused: {why}")),
            };
            if !is_faulty && !recovered.rejected.is_empty() {
                return Err(format!("a manifest was refused: {:?}", recovered.rejected));
            }
            self.seen.torn_tails += u64::from(recovered.log.torn_tail.is_some());
            self.seen.lost_suffixes += u64::from(recovered.log.last_lsn.0 < self.model.len());
            self.model.recovered(recovered.log.last_lsn.0, self.end, self.sync_failed)?;
            self.sync_failed = false;
            self.empty_tmp();
            self.model.check_people(&recovered.archive, &self.keys, &USERS.map(user), false)?;
            if !self.chance(10) {
                return Ok(recovered);
            }
            self.cut();
        }
    }

    /// A recovery failed: the next one finds the same disk, or one that lost its power meanwhile.
    fn cut_again(&mut self) {
        // What a killed process had written is only as safe as the recovery that then failed made it.
        self.sync_failed = true;
        if self.chance(50) {
            self.cut();
        }
    }

    fn empty_tmp(&mut self) {
        let tmp = Path::new("tmp");
        for name in self.disk.list(tmp).expect("tmp is there") {
            self.disk.remove(&tmp.join(name)).expect("it was just listed");
        }
    }

    /// Everything is kept, or little: a few hours, a few messages, or both.
    fn retention(&mut self) -> retention::Options {
        let age = self.chance(40).then(|| Duration::from_hours(self.random.random_range(1..=40)));
        let count = self.chance(40).then(|| self.random.random_range(1..=30));
        retention::Options { age, count }
    }

    fn options(&mut self) -> Options {
        let sync = match self.random.random_range(0..4) {
            0 => SyncMode::Interval(Duration::from_millis(50)),
            1 => SyncMode::Never,
            _ => SyncMode::Always,
        };
        Options {
            sync,
            segment_bytes: self.random.random_range(3..=8) << 12,
            first_segment_bytes: self.random.random_range(3..=6) << 12,
            spare_segments: self.random.random_range(1..=2),
            free_bytes_min: 0,
            batch_records_max: self.random.random_range(1..=20),
            batch_bytes_max: self.random.random_range(64..=8192),
            queue_records_max: 60,
            queue_bytes_max: 40_000,
            ..Options::default()
        }
    }

    fn arm_fault(&mut self) {
        match self.random.random_range(0..10) {
            0..4 => self.arm_any_fault(120),
            4..6 => {
                let more = self.random.random_range(0..50_000);
                self.disk.set_capacity(self.disk.used_bytes() + more);
            }
            _ => {}
        }
    }

    fn arm_any_fault(&mut self, nth_max: u64) {
        let operations =
            [Operation::Read, Operation::Write, Operation::Sync, Operation::Sync, Operation::Name];
        let operation = operations[self.random.random_range(0..operations.len())];
        self.disk.fail(operation, self.random.random_range(1..=nth_max), ErrorKind::Other);
    }

    /// One thing happens.
    fn step(&mut self, life: &mut Life, options: &Options) -> Result<(), Stop> {
        let done = match self.random.random_range(0..100) {
            0..50 => self.call(life),
            50..68 => life.log.lock().expect("no panics").commit().map_err(Stop::Log),
            68..71 => self.sync(life),
            71..72 => life.log.lock().expect("no panics").seal().map_err(Stop::Log),
            72..73 => {
                let begun = life.log.lock().expect("no panics").begin_segment();
                self.seen.forced_rotations += u64::from(begun.is_ok());
                Ok(())
            }
            73..79 => {
                // A spare that cannot be made is no failure of the log.
                let _ = life.log.lock().expect("no panics").refill();
                Ok(())
            }
            79..81 => {
                self.disk.set_capacity(usize::MAX);
                Ok(())
            }
            81..93 => self.checkpoint(life),
            93..97 => self.compact(life),
            97..99 => {
                self.seen.passivated += life.passivate() as u64;
                Ok(())
            }
            _ => {
                life.list();
                if self.chance(30) {
                    life.kill_one(self.random.random_range(0..5));
                }
                if self.chance(50) {
                    let reloaded = life.reload_one(self.random.random_range(0..2))?;
                    self.seen.reloaded += u64::from(reloaded);
                }
                Ok(())
            }
        };
        self.take_out(life, options);
        done.and_then(|()| self.check_log(life))
    }

    fn sync(&mut self, life: &Life) -> Result<(), Stop> {
        let mut log = life.log.lock().expect("no panics");
        log.sync().map_err(Stop::Log)?;
        self.model.on_disk = self.model.on_disk.max(log.durable_lsn().0);
        Ok(())
    }

    /// What came out is acknowledged; under `Always` it is safe.
    fn take_out(&mut self, life: &mut Life, options: &Options) {
        self.model.out = self.model.out.max(life.complete());
        if options.sync == SyncMode::Always {
            self.model.on_disk = self.model.on_disk.max(self.model.out);
        }
    }

    /// A checkpoint may have been the first to hear of a failing log.
    fn check_log(&mut self, life: &Life) -> Result<(), Stop> {
        let state = life.log.lock().expect("no panics").state();
        self.seen.full_disks += u64::from(state == LogState::ReadOnly);
        if state == LogState::Failed { Err(Stop::Log(wal::Error::Failed)) } else { Ok(()) }
    }

    fn checkpoint(&mut self, life: &mut Life) -> Result<(), Stop> {
        // Others get their turns between two steps, but a checkpoint does end.
        let steps = if life.has_checkpoint() { self.random.random_range(1..=3) } else { 1 };
        for _ in 0..steps {
            if life.checkpoint(&mut self.model)? {
                self.seen.checkpoints += 1;
                self.check_people(life)?;
            }
        }
        Ok(())
    }

    fn compact(&mut self, life: &mut Life) -> Result<(), Stop> {
        let (first, for_good) = (self.random.random_range(0..3), self.chance(30));
        if life.compact(first, for_good)? {
            self.seen.compactions += 1;
            self.check_people(life)?;
        }
        Ok(())
    }

    /// New packs say of everybody what the ones before and the records say.
    fn check_people(&self, life: &Life) -> Result<(), Stop> {
        let checked = self.model.check_people(&life.archive, &self.keys, &USERS.map(user), true);
        checked.map_err(Stop::Broken)
    }

    /// Somebody asks for something.
    fn call(&mut self, life: &mut Life) -> Result<(), Stop> {
        let key = self.keys[self.random.random_range(0..self.keys.len())].clone();
        self.now_ns += STEP_NS;
        life.now_ns = self.now_ns;
        let request = Request::any(&mut self.random);
        let mut old = Old::default();
        loop {
            let Some(hot) = life.touch(&key, &self.model)? else {
                self.seen.quarantined += 1;
                return Ok(());
            };
            let (state, durable) = (&mut hot.resident.state, hot.durable);
            let needed_old = !old.is_empty();
            let retained = state.history.retain(&self.model.retention, durable.messages, self.now_ns, &old);
            let decided = match retained {
                Some(missing) => Ok(Decided::Needs(missing)),
                None => request.decide(state, &key, &old, durable, self.now_ns),
            };
            if let Ok(Decided::Needs(missing)) = decided {
                match life.read_old(&key, &missing)? {
                    Some(more) if more.is_nothing() => {
                        return Err(Stop::Broken(format!("{key}: {missing:?} is nowhere")));
                    }
                    Some(more) => old.extend(more),
                    None => return Ok(()),
                }
                continue;
            }
            self.check_answer(&request, &key, durable, &decided, needed_old).map_err(Stop::Broken)?;
            if let Ok(Decided::Append(kind, payload)) = decided {
                self.seen.records += u64::from(life.append(&key, kind, payload, &mut self.model)?);
            }
            return Ok(());
        }
    }

    /// Whether the model would have said the same.
    fn check_answer(
        &mut self,
        request: &Request,
        key: &ConversationKey,
        durable: Durable,
        decided: &Result<Decided, Rejection>,
        needed_old: bool,
    ) -> Result<(), String> {
        let by = request.caller.user.as_str();
        let is_pair = matches!(key, ConversationKey::Direct(..));
        let as_expected = match (&request.call, decided) {
            (Wish::Send(draft), Err(Rejection::Forbidden(_))) if is_pair => {
                self.seen.blocked += 1;
                let expected = self.model.expected_of_send(key, by, draft, &HISTORY, durable, self.now_ns);
                expected == Expected::New && self.model.is_blocked(key, by)
            }
            (_, Err(Rejection::Forbidden(_) | Rejection::NoSuchGroup)) => true,
            (Wish::Look(pull), Ok(Decided::Page(page))) => {
                self.seen.old_pages += u64::from(needed_old);
                self.seen.retained += u64::from(is_pair && page.min_msg_index > 1);
                self.model.check_page(key, pull, durable, page, self.now_ns)?;
                true
            }
            (Wish::Send(draft), decided) => {
                let expected = self.model.expected_of_send(key, by, draft, &HISTORY, durable, self.now_ns);
                self.seen.old_retries += u64::from(needed_old && matches!(expected, Expected::Retry(_)));
                self.seen.old_ids_reused += u64::from(needed_old && expected == Expected::Reused);
                let is_muted = self.model.is_muted(key, by, self.now_ns);
                match decided {
                    Ok(Decided::Append(..)) => {
                        expected == Expected::New && !is_muted && !self.model.is_blocked(key, by)
                    }
                    Err(Rejection::Muted { .. }) => {
                        self.seen.muted += 1;
                        expected == Expected::New && is_muted
                    }
                    Ok(Decided::Sent(receipt)) => expected == Expected::Retry(*receipt),
                    Err(Rejection::ClientIdReused) => expected == Expected::Reused,
                    _ => false,
                }
            }
            (Wish::Recall(index), decided) => {
                self.seen.old_recalls += u64::from(needed_old && matches!(decided, Ok(Decided::Append(..))));
                match (self.model.message(key, *index, durable, self.now_ns), decided) {
                    (Some((_, recall)), Ok(Decided::Append(..))) => recall == 0,
                    (Some((_, recall)), Ok(Decided::Recalled(answer))) => recall == *answer && recall > 0,
                    (Some((sender, _)), Err(Rejection::NotYourMessage)) => sender != by,
                    (None, Err(Rejection::NoSuchMessage { .. })) => true,
                    _ => false,
                }
            }
            (Wish::Dismiss, Ok(Decided::Append(..))) => {
                self.seen.dismissed += 1;
                true
            }
            _ => true,
        };
        let call = &request.call;
        if as_expected { Ok(()) } else { Err(format!("{key}: {by} wished {call:?} and got {decided:?}")) }
    }

    /// After the last life: reads every conversation.
    fn check_everything(&mut self) -> Result<(), String> {
        let recovered = self.recover()?;
        let expected = self.model.conversations();
        if recovered.conversations != expected {
            return Err(format!("{} conversations, expected {expected}", recovered.conversations));
        }
        for key in &self.keys {
            let loaded = life::load(&recovered.archive, key, self.now_ns);
            let (loaded, old) = loaded.map_err(|why| format!("{key}: {why}"))?;
            self.model.check(key, loaded.as_ref().map(|resident| &resident.state), &old, self.now_ns)?;
        }
        Ok(())
    }
}

/// Whether a failing disk explains it.
fn is_of_the_disk(why: &recovery::Error) -> bool {
    match why {
        recovery::Error::Log(wal::Error::Io { .. })
        | recovery::Error::Snapshot(snapshot::Error::Io { .. }) => true,
        recovery::Error::Snapshot(snapshot::Error::NoneUsable(all)) => {
            all.iter().any(|rejected| matches!(rejected.why, snapshot::Error::Io { .. }))
        }
        // An older manifest was taken because the newer could not be read this time; its log is cut.
        _ => false,
    }
}
