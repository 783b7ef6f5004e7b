//! Everything the tests know about processes, HTTP and the spelling of the API.
//!
//! What must hold is none of its business: it asserts only that a reply is a reply. The server is
//! the real binary; nothing of the crate is used, so a mistake there cannot hide itself here.

mod authority;
mod client;
mod connection;
pub(crate) mod h2;
mod line;
mod process;
pub(crate) mod protobuf;
mod server;
mod stream;
mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use authority::{Authority, Kind};
pub(crate) use client::{Chat, Client, Page, Receipt};
pub(crate) use connection::{Connection, Reply, request};
pub(crate) use line::Line;
pub(crate) use process::{Finished, Process, chinwag};
pub(crate) use server::{Arrangement, TestServer, shared_server};
pub(crate) use stream::{EventSource, Stream};
pub(crate) use tokens::{claims_of, key_file, key_path, sign_with_pem, sign_with_secret, unsigned};

/// How long anything may take before a test gives up: far beyond what a busy machine needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What a busy machine may add to something that takes a moment: less than all that a server is told to wait for, or
/// waits for by itself, where a test asserts that it does not.
pub(crate) const LATEST: Duration = Duration::from_secs(20);

/// A name nobody else in this run uses, so that tests can share a server.
pub(crate) fn fresh(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Unix time now.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970")
}

/// Looks again and again until `there` sees what it waits for.
///
/// For what no reply and no end of file announces: the state of files and of health checks.
pub(crate) fn eventually<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
