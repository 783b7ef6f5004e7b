//! One seed: several lives of one store, each with its own mode, faults and end.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::group;
use super::super::publisher::Place;
use super::super::record::Record;
use super::super::recovery::{self, Recovered, recover};
use super::super::state::{Decision, State};
use super::life::{Life, Stop};
use super::model::{End, Model};
use crate::disk::{Disk, Operation, Simulated};
use crate::message::{Caller, ConversationKey, Direction, Draft, GroupId, Pull, Rejection, UserId};
use crate::snapshot;
use crate::wal::{self, Options, State as LogState, SyncMode};

const DIRS: [&str; 4] = ["wal", "snap", "tmp", "quarantine"];
const USERS: [&str; 4] = ["ann", "ben", "cem", "dee"];

/// What a control breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    /// A snapshot is published without waiting for the log to be on the disk.
    SnapshotAheadOfLog,
    /// A conversation enters the list of changed ones some time after its append.
    ListedTooLate,
    /// Syncs of files succeed and do nothing.
    NoSyncs,
}

/// How often the cases came up that the test is for.
#[derive(Debug, Default)]
pub(super) struct Seen {
    crashes: u64,
    records: u64,
    torn_tails: u64,
    lost_suffixes: u64,
    failed_logs: u64,
    checkpoints: u64,
    compactions: u64,
    passivated: u64,
    faulty_recoveries: u64,
    full_disks: u64,
    quarantined: u64,
}

impl Seen {
    fn counts(&mut self) -> [&mut u64; 11] {
        [
            &mut self.crashes,
            &mut self.records,
            &mut self.torn_tails,
            &mut self.lost_suffixes,
            &mut self.failed_logs,
            &mut self.checkpoints,
            &mut self.compactions,
            &mut self.passivated,
            &mut self.faulty_recoveries,
            &mut self.full_disks,
            &mut self.quarantined,
        ]
    }

    pub(super) fn is_everything(&mut self) -> bool {
        self.counts().iter().all(|count| **count > 0)
    }

    pub(super) fn add(&mut self, other: &mut Self) {
        for (count, more) in self.counts().into_iter().zip(other.counts()) {
            *count += *more;
        }
    }
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
    for _ in 0..round.random.random_range(2..=6) {
        round.life()?;
    }
    round.check_everything()?;
    Ok(round.seen)
}

fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid id")
}

fn keys() -> Vec<ConversationKey> {
    let direct = [("ann", "ben"), ("ann", "cem"), ("dee", "dee")];
    let direct = direct.map(|(one, other)| ConversationKey::direct(user(one), user(other)));
    let groups = ["g", "h"].map(|id| ConversationKey::Group(GroupId::parse(id).expect("a valid id")));
    direct.into_iter().chain(groups).collect()
}

impl Round {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
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
                Ok(recovered) => recovered,
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
            self.model.check_people(&recovered.archive, &self.keys, &USERS.map(user))?;
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
            71..73 => life.log.lock().expect("no panics").seal().map_err(Stop::Log),
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
                if self.chance(20) {
                    life.kill_one(self.random.random_range(0..5));
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
            self.seen.checkpoints += u64::from(life.checkpoint(&mut self.model)?);
        }
        Ok(())
    }

    fn compact(&mut self, life: &mut Life) -> Result<(), Stop> {
        let (first, for_good) = (self.random.random_range(0..3), self.chance(30));
        self.seen.compactions += u64::from(life.compact(first, for_good)?);
        Ok(())
    }

    /// Somebody asks for something.
    fn call(&mut self, life: &mut Life) -> Result<(), Stop> {
        let key = self.keys[self.random.random_range(0..self.keys.len())].clone();
        self.now_ns += 1;
        let request = self.request();
        let Some(hot) = life.touch(&key, &self.model)? else {
            self.seen.quarantined += 1;
            return Ok(());
        };
        let durable = hot.durable;
        let record = request.decide(&hot.resident.state, &key, durable, self.now_ns);
        if let Ok(Some((kind, payload))) = record {
            self.seen.records += u64::from(life.append(&key, kind, payload, &mut self.model)?);
        }
        Ok(())
    }

    fn request(&mut self) -> Request {
        let caller = Caller { user: user(USERS[self.random.random_range(0..USERS.len())]), admin: false };
        let other = user(USERS[self.random.random_range(0..USERS.len())]);
        let index = self.random.random_range(0..30);
        let call = match self.random.random_range(0..100) {
            0..60 => {
                let bytes = if self.chance(15) { 2500 } else { self.random.random_range(1..120) };
                let client_msg_id = self.random.random_range(0..200).to_string();
                let msg = char::from(self.random.random_range(b'a'..=b'z')).to_string().repeat(bytes);
                Wish::Send(Draft { msg, extra: String::new(), client_msg_id })
            }
            60..72 => Wish::Recall(index),
            72..84 => Wish::Ack(index),
            84..90 => Wish::Look,
            90..93 => Wish::Create,
            93..96 => Wish::Add(other),
            96..98 => Wish::Kick(other),
            _ => Wish::Leave,
        };
        Request { caller, call }
    }

    /// After the last life: reads every conversation.
    fn check_everything(&mut self) -> Result<(), String> {
        let recovered = self.recover()?;
        let keys = self.model.keys();
        if recovered.conversations != keys.len() {
            return Err(format!("{} conversations, expected {}", recovered.conversations, keys.len()));
        }
        for key in &self.keys {
            let loaded = recovered.archive.load(key).map_err(|why| format!("{key}: {why}"))?;
            self.model.check(key, loaded.as_ref().map(|resident| &resident.state))?;
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

struct Request {
    caller: Caller,
    call: Wish,
}

enum Wish {
    Send(Draft),
    Recall(u32),
    Ack(u32),
    Look,
    Create,
    Add(UserId),
    Kick(UserId),
    Leave,
}

/// A record to append, as its kind and payload.
type Change = Option<(u8, Vec<u8>)>;

impl Request {
    /// What the rules make of it.
    fn decide(
        &self,
        state: &State,
        key: &ConversationKey,
        durable: super::super::state::Durable,
        now_ns: u64,
    ) -> Result<Change, Rejection> {
        let caller = &self.caller;
        match &self.call {
            Wish::Send(draft) => change(state.send(key, &caller.user, draft, now_ns)),
            Wish::Recall(index) => change(state.recall(key, &caller.user, *index, None, now_ns)),
            Wish::Ack(index) => change(state.ack(key, &caller.user, *index, durable)),
            Wish::Look => {
                let wait = Duration::ZERO;
                let pull = Pull {
                    direction: Direction::After,
                    start_msg_index: 1,
                    start_recall_index: 1,
                    count: 50,
                    wait,
                };
                state.pull(&caller.user, &pull, durable).map(|_| None)
            }
            _ if !matches!(key, ConversationKey::Group(_)) => Ok(None),
            Wish::Create => change(group::create(state, key, caller, "a group", &[user("ben")], now_ns)),
            Wish::Add(other) => change(group::add(state, key, caller, std::slice::from_ref(other), now_ns)),
            Wish::Kick(other) => change(group::kick(state, key, caller, std::slice::from_ref(other), now_ns)),
            Wish::Leave => change(group::leave(state, key, caller, now_ns)),
        }
    }
}

fn change<T>(decision: Result<Decision<'_, T>, Rejection>) -> Result<Change, Rejection> {
    let record = |record: &Record<'_>| (record.kind(), record.encode());
    decision.map(|decision| match decision {
        Decision::Append(appended, _) => Some(record(&appended)),
        Decision::Already(_) => None,
    })
}
