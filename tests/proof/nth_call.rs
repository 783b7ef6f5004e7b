//! Death at every system call: the process is killed where it would next change or sync a file, and what is then on the
//! disk with power lost, and what is in the system's memory with power kept, must both be whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::check::check;
use crate::image::Image;
use crate::ledger::Ledger;
use crate::server::{Server, Settings};
use crate::strace::{Attached, CALLS, count_calls};
use crate::{directory, number, script};

const EVERY_DEFAULT: u64 = 7;
const IMAGE_MIB: u64 = 32;
const THREADS: [&str; 4] = ["wal", "wal-spare", "checkpoint", "compaction"];
const DIES_WITHIN: Duration = Duration::from_secs(60);

/// Where a life ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Death {
    /// Counted in this thread from the ready line on; `None`: in whichever is first, from the start of the process on.
    thread: Option<&'static str>,
    call: &'static str,
    nth: usize,
}

/// How many of each call a whole life makes.
type Counts = BTreeMap<(Option<&'static str>, &'static str), usize>;

/// Plays the whole life once, undisturbed.
fn counts(dir: &Path) -> Counts {
    let image = Image::make(dir, "counted", IMAGE_MIB);
    let (data, log) = (image.root().join("data"), dir.join("counted.strace"));
    let trace = format!("trace={}", CALLS.join(","));
    let log_text = log.to_str().expect("a UTF-8 path").to_owned();
    let server = script::settings(&data).under_strace(&["-e".into(), trace, "-o".into(), log_text]).start();
    let at_ready = count_calls(&std::fs::read_to_string(&log).expect("a log"));
    let mut names: BTreeMap<u32, &'static str> = THREADS.map(|name| (server.thread(name), name)).into();
    let main = server.id();
    let ledger = Ledger::new(script::rooms());
    script::play(&server, &ledger, &data).expect("an undisturbed life");
    server.stop();
    let mut counts = Counts::new();
    for ((thread, call), count) in count_calls(&std::fs::read_to_string(&log).expect("a log")) {
        let Some(name) = names.get(&thread) else { continue };
        let before = at_ready.get(&(thread, call.clone())).copied().unwrap_or(0);
        let call = CALLS.into_iter().find(|known| *known == call).expect("only these are traced");
        *counts.entry((Some(*name), call)).or_default() += count - before;
    }
    names.clear();
    for ((thread, call), count) in at_ready {
        let call = CALLS.into_iter().find(|known| *known == call).expect("only these are traced");
        if thread == main {
            counts.insert((None, call), count);
        }
    }
    counts
}

/// Every n-th call, and every one of those that are rare.
fn deaths(counts: &Counts, every: usize) -> Vec<Death> {
    let mut deaths = Vec::new();
    for ((thread, call), count) in counts {
        let step = if *count <= 2 * every { every.div_ceil(4) } else { every };
        deaths.extend((1..=*count).step_by(step).map(|nth| Death { thread: *thread, call, nth }));
    }
    deaths
}

impl Death {
    /// Plays the life until it ends here. Gives what is left of the disk, and whether it came to this call at all.
    fn die(&self, image: &Image, settings: &Settings, ledger: &Ledger) -> bool {
        let fault = format!("signal=KILL:when={}", self.nth);
        let log = image.root().with_extension("strace");
        let Some(thread) = self.thread else {
            let inject = format!("inject={}:{fault}", self.call);
            let log = log.to_str().expect("a UTF-8 path").to_owned();
            let started = settings.clone().under_strace(&["-e".into(), inject, "-o".into(), log]).try_start();
            return match started {
                Ok(server) => self.live_on(server, ledger, &settings.data),
                Err(_) => true,
            };
        };
        let server = settings.start();
        let strace = Attached::inject(&server, thread, self.call, &fault, &log);
        let died = self.live_on(server, ledger, &settings.data);
        strace.let_go();
        died
    }

    fn live_on(&self, server: Server, ledger: &Ledger, data: &Path) -> bool {
        let _ = script::play(&server, ledger, data);
        // Whoever is dead cannot be told to drain.
        server.try_signal("-TERM");
        let ended = server.ended(DIES_WITHIN);
        !ended.status.success()
    }
}

/// What a start on these files finds wrong.
fn wrong(settings: &Settings, ledger: &Ledger) -> Vec<String> {
    match settings.try_start() {
        Ok(server) => {
            check(&server, ledger);
            server.kill();
            ledger.violations()
        }
        Err(ended) => vec![format!("no start: {ended:?}")],
    }
}

/// Dies, and looks at both disks.
fn try_death(dir: &Path, death: &Death, settings: impl Fn(&Path) -> Settings) -> (bool, Vec<String>) {
    let name = format!("{}-{}-{}", death.thread.unwrap_or("start"), death.call, death.nth);
    let image = Image::make(dir, &name, IMAGE_MIB);
    let settings = settings(&image.root().join("data"));
    let ledger = Ledger::new(script::rooms());
    let died = death.die(&image, &settings, &ledger);
    let cut = image.after_power_cut(&format!("{name}-cut"));
    let mut found = wrong(&settings, &ledger.fork());
    found.extend(wrong(&settings.in_directory(&cut.root().join("data")), &ledger));
    (died, found)
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn a_death_at_any_system_call_loses_nothing() {
    let began = Instant::now();
    let dir = directory();
    let every = number("CHINWAG_EVERY_NTH").unwrap_or(EVERY_DEFAULT) as usize;
    let counts = counts(dir.path());
    let deaths = deaths(&counts, every.max(1));
    let mut reached = 0;
    for death in &deaths {
        let (died, found) = try_death(dir.path(), death, script::settings);
        reached += usize::from(died);
        assert_eq!(found, [""; 0], "after {death:?}");
    }
    let calls: usize = counts.values().sum();
    eprintln!("{reached} deaths at {} of {calls} system calls, {:.0?}", deaths.len(), began.elapsed());
    // Batches form as they like: on a busy machine a life may have a third fewer calls than the one that was counted.
    assert!(reached * 2 > deaths.len(), "most of the lives were not cut short");
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn control_without_syncs_a_death_at_a_system_call_loses_something() {
    let dir = directory();
    let death = Death { thread: Some("wal"), call: "pwrite64", nth: 12 };
    let (died, found) = try_death(dir.path(), &death, |data| script::settings(data).with("sync", "never"));
    eprintln!("{} violations, such as {:?}", found.len(), found.first());
    assert!(died && !found.is_empty(), "this test cannot see what is lost");
}
