//! Histories of publishing and pruning with power cuts, killed processes and failing operations in between.
//!
//! `CHINWAG_CRASH_SEED=n` replays one history, `CHINWAG_CRASH_ROUNDS=n` says how many to try.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fragile::{Forgets, Fragile};
use super::scene::{STORE, chunk, make_dirs, manifest, manifest_path, quarantine, snap, tmp, write_pack};
use super::{Chunk, Error, FileKind, Loaded, Manifest, load_newest, next_number, prune, publish};
use crate::disk::{Disk, Operation, Simulated};

const LIVES: usize = 5;

/// One store through several lives, and what must be found of it.
struct History {
    random: StdRng,
    disk: Simulated,
    forgets: Forgets,
    /// What the next load may find: the last that was published for sure, or one of the attempts since.
    allowed: Vec<Option<u64>>,
    manifests: HashMap<u64, Manifest>,
    packs: HashMap<u64, Vec<Chunk>>,
    lsn: u64,
    /// Up to here the log is gone.
    cut: u64,
}

impl History {
    fn new(seed: u64, forgets: Forgets) -> Self {
        let disk = Simulated::new(seed);
        make_dirs(&disk);
        let random = StdRng::seed_from_u64(seed);
        let (manifests, packs) = (HashMap::new(), HashMap::new());
        Self { random, disk, forgets, allowed: vec![None], manifests, packs, lsn: 0, cut: 0 }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..LIVES {
            self.live()?;
            let power_cut = self.random.random_bool(0.8);
            // A killed process leaves the disk as it is, unsynced bytes and names with it.
            if power_cut {
                self.disk = self.disk.crash();
            }
            let found = self.check()?;
            self.check_every_manifest()?;
            if power_cut {
                self.allowed = vec![found];
            }
        }
        Ok(())
    }

    /// One process: publishes and prunes until the lights go out.
    fn live(&mut self) -> Result<(), String> {
        let changes = self.random.random_range(0..120);
        let disk = Fragile::disk(self.disk.clone(), changes, self.forgets);
        for _ in 0..self.random.random_range(1..8) {
            if self.random.random_bool(0.2) {
                self.sabotage();
            }
            // Errors are the point; what they may leave is checked by the next load.
            let _ = self.publish_next(&disk);
            if self.random.random_bool(0.7)
                && let Ok(pruned) = prune(&*disk, &snap(), &quarantine(), &STORE)
            {
                self.cut = self.cut.max(pruned.log_needed_after.unwrap_or(0));
                assert!(pruned.quarantined.is_empty() || self.forgets != Forgets::Nothing);
            }
            self.disk.heal();
        }
        Ok(())
    }

    fn sabotage(&mut self) {
        let operations = [Operation::Read, Operation::Write, Operation::Sync, Operation::Name];
        let operation = operations[self.random.random_range(0..operations.len())];
        self.disk.fail(operation, self.random.random_range(1..10), std::io::ErrorKind::StorageFull);
    }

    fn publish_next(&mut self, disk: &Arc<dyn Disk>) -> Result<(), Error> {
        let current = load_newest(&**disk, &snap(), &STORE)?;
        let mut packs = current.map(|loaded| loaded.manifest.packs).unwrap_or_default();
        if packs.len() > 3 {
            packs.drain(..self.random.random_range(1..=packs.len()));
        }
        self.lsn += 1;
        let number = next_number(&**disk, &snap())?;
        let chunks: Vec<_> = (0..self.random.random_range(0..4))
            .map(|at| chunk(&format!("k{at}"), self.lsn as u32, 300))
            .collect();
        self.packs.insert(number, chunks.clone());
        packs.push(write_pack(disk.clone(), number, &chunks)?);
        let number = next_number(&**disk, &snap())?;
        let next = manifest(number, self.lsn, packs);
        self.manifests.insert(number, next.clone());
        self.allowed.push(Some(number));
        publish(&**disk, &tmp(), &snap(), &next)?;
        self.allowed = vec![Some(number)];
        Ok(())
    }

    /// Loads what is there; answers its number.
    fn check(&self) -> Result<Option<u64>, String> {
        let found = self.load()?;
        let Some(newest) = found else {
            return if self.allowed.contains(&None) { Ok(None) } else { Err("everything is gone".into()) };
        };
        let number = newest.manifest.number;
        if !self.allowed.contains(&Some(number)) || !newest.rejected.is_empty() {
            return Err(format!("{number} was found, {:?} expected; {:?}", self.allowed, newest.rejected));
        }
        Ok(Some(number))
    }

    /// Manifest after manifest is damaged, newest first: the one before must step in, with its packs all there, and
    /// once the log was cut the second must still reach it.
    fn check_every_manifest(&self) -> Result<(), String> {
        let names = self.disk.list(&snap()).map_err(|error| error.to_string())?;
        let numbers = names.iter().filter_map(|name| FileKind::Manifest.number(name.to_str()?));
        let newest_first: Vec<_> = numbers.collect::<Vec<_>>().into_iter().rev().collect();
        let mut damaged = Vec::new();
        let checked = newest_first.iter().try_for_each(|&number| {
            let found = self.load().map(|found| found.map(|loaded| loaded.manifest));
            match found? {
                Some(found) if found.number == number => self.check_reach(&found, damaged.len())?,
                found => return Err(format!("{found:?} was found instead of {number}")),
            }
            self.disk.flip(&manifest_path(number), 40, 1);
            damaged.push(number);
            Ok(())
        });
        damaged.iter().for_each(|&number| self.disk.flip(&manifest_path(number), 40, 1));
        checked.and(if self.cut > 0 && damaged.len() < 2 { Err("no second chance".into()) } else { Ok(()) })
    }

    fn check_reach(&self, manifest: &Manifest, nth: usize) -> Result<(), String> {
        match nth >= 2 || manifest.replay_after_lsn >= self.cut {
            true => Ok(()),
            false => Err(format!("the log that {} needs is gone", manifest.number)),
        }
    }

    fn load(&self) -> Result<Option<Loaded>, String> {
        let found = load_newest(&self.disk, &snap(), &STORE).map_err(|error| error.to_string())?;
        if let Some(loaded) = &found {
            self.check_content(loaded)?;
        }
        Ok(found)
    }

    fn check_content(&self, loaded: &Loaded) -> Result<(), String> {
        let number = loaded.manifest.number;
        if self.manifests.get(&number) != Some(&loaded.manifest) {
            return Err(format!("{number} is not what was published"));
        }
        for pack in &loaded.packs {
            let in_order: Result<Vec<_>, _> = pack.chunks_in_order().map(|(_, chunk)| chunk).collect();
            let in_order = in_order.map_err(|error| error.to_string())?;
            if self.packs.get(&pack.info().number) != Some(&in_order) {
                return Err(format!("{} has other chunks", pack.path().display()));
            }
        }
        Ok(())
    }
}

fn seeds(rounds: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("CHINWAG_CRASH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CHINWAG_CRASH_ROUNDS").unwrap_or(rounds),
    }
}

#[test]
fn no_crash_takes_back_what_was_published() {
    for seed in seeds(2_000) {
        if let Err(why) = History::new(seed, Forgets::Nothing).run() {
            panic!("{why}\nreplay with CHINWAG_CRASH_SEED={seed}");
        }
    }
}

/// The controls: a test that cannot fail proves nothing.
fn must_be_caught(forgets: Forgets) {
    let caught = (0..200).filter(|&seed| History::new(seed, forgets).run().is_err()).count();
    assert!(caught > 20, "{forgets:?} was caught in {caught} of 200 histories only");
}

#[test]
fn without_file_syncs_a_crash_is_caught_taking_something_back() {
    must_be_caught(Forgets::FileSyncs);
}

#[test]
fn without_directory_syncs_a_crash_is_caught_taking_something_back() {
    must_be_caught(Forgets::DirectorySyncs);
}
