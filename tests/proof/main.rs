//! What is promised about durability, shown on the real binary: processes are killed, power is cut (loop-mounted ext4
//! images), system calls fail (strace), disks fill up.
//!
//! Needs root, strace and e2fsprogs, and minutes, so every test here is ignored unless asked for:
//! `cargo test --release --test proof -- --ignored --test-threads=1`, which `.ci/slow` does. Each test prints its
//! seed (`CHINWAG_PROOF_SEED` replays it as far as timing allows), and has a control that must fail.
//! `docs/reliability.md` says which promise each test is for.

#![allow(clippy::print_stderr)] // A proof says what it did.

mod check;
mod client;
mod disk_errors;
mod disk_full;
mod history;
mod image;
mod ledger;
mod lint;
mod load;
mod nth_call;
mod power_cut;
mod script;
mod server;
mod strace;
mod sync_lint;
mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Far more than anything but a load takes here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The number in an environment variable.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// The seed of this run; printed, so that it can be used again.
pub(crate) fn seed(of: &str) -> u64 {
    let seed = number("CHINWAG_PROOF_SEED").unwrap_or_else(|| getrandom::u64().expect("random bytes"));
    eprintln!("{of}: CHINWAG_PROOF_SEED={seed}");
    seed
}

/// A new directory for one test, gone afterwards.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(scratch()).expect("a directory")
}

/// On the disk that the build uses: the machine's memory is not what is to be proven.
fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Waits for something to become true. The only waiting there is.
pub(crate) fn until<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
