//! Everybody talks at once while the server dies again and again; what each was told must fit into one history.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::check::{assert_whole, check};
use crate::ledger::Ledger;
use crate::load::{Load, Talk};
use crate::server::Settings;
use crate::world::{found_groups, rooms};
use crate::{directory, number, seed};

const SECONDS_DEFAULT: u64 = 60;
/// A life that is not killed is drained, so often in a hundred.
const DRAINED_PERCENT: u32 = 20;

/// Under every mode the end of the process costs nothing: only a power cut may.
fn any_life(settings: &Settings, random: &mut StdRng) -> Settings {
    let sync = ["always", "always", "interval", "never"][random.random_range(0..4)];
    let interval = ["1s", "60s"][random.random_range(0..2)];
    settings.clone().with("sync", sync).with("checkpoint-interval", interval).with("checkpoint-bytes", "1MiB")
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn what_clients_are_told_fits_into_one_history_over_kills() {
    let (seed, dir) = (seed("history"), directory());
    let seconds = number("CHINWAG_HISTORY_SECONDS").unwrap_or(SECONDS_DEFAULT);
    let mut random = StdRng::seed_from_u64(seed);
    let (data, old) = (dir.path().join("data"), dir.path().join("old"));
    let settings = Settings::new(&data).with("segment-bytes", "4MiB").with("log-level", "warn");
    let mut server = settings.start();
    let ledger = Arc::new(Ledger::new(rooms()));
    found_groups(&server, &ledger);
    let load = Load::start(&server, &ledger, Talk { seed, text_bytes: 500 });
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut kills = 0;
    while Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(random.random_range(50..4000)));
        match random.random_range(0..100) < DRAINED_PERCENT {
            true => assert_eq!(server.stop().status.code(), Some(0)),
            false => drop(server.kill()),
        }
        kills += 1;
        if kills == 1 {
            copy(&data, &old);
        }
        server = any_life(&settings, &mut random).start();
        load.follow(&server);
    }
    load.stop();
    ledger.check_real_time();
    let before = ledger.fork();
    let messages = assert_whole(&server, &ledger);
    server.kill();
    let server = settings.start();
    assert_whole(&server, &ledger);
    eprintln!("{kills} ends, {messages} messages, {} recalls, {seconds} s", ledger.recalls());
    assert_an_older_state_is_found_out(&settings.in_directory(&old), &before);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp failed");
}

/// The control: a server that has forgotten all but the first seconds.
fn assert_an_older_state_is_found_out(settings: &Settings, ledger: &Ledger) {
    let server = settings.start();
    check(&server, ledger);
    let violations = ledger.violations();
    assert!(!violations.is_empty(), "this test cannot see what is lost");
    eprintln!("control: {} violations, such as {:?}", violations.len(), violations.first());
}
