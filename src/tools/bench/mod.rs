//! `chinwag bench`: drives load at a server and says how it was answered.
//!
//! Latencies are free of coordinated omission (Gil Tene's word for leaving out what a stall kept from being sent):
//! [`schedule`] says when a request is due, and [`report`] counts what a closed loop held back. The generator's own
//! cost is measured too, so that nobody takes its limit for the server's.
//!
//! ```text
//! mod     arguments -> server, cast, probe, director, report
//!   server      the server: our own process, or one that runs
//!   cast        users, their tokens, what is said
//!     ring      who talks with whom
//!   probe       the disk's own fdatasync
//!   director    the threads of the load: their moments, their end, an interrupt
//!     part      one thread: its connections, through preparation, warm-up and measurement
//!       client  one request at a time: connection, schedule, timer, tally
//!         connection  http, a stream of http2, or a lane of a websocket
//!   report      the table and the JSON
//! ```

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::progress::Progress;
use crate::config;

mod cast;
mod client;
mod connection;
mod director;
mod http;
mod http2;
mod part;
mod probe;
mod report;
mod ring;
mod schedule;
mod server;
mod tally;
mod timer;
mod websocket;

use cast::Cast;
use director::Director;
use probe::Probe;
use report::Report;
use server::Server;

/// Runs a load and writes its table to `out`.
///
/// # Errors
/// When there is no server or key, when no request at all succeeded, or when a file cannot be written. Requests that
/// fail are results, not errors.
pub fn bench(settings: &config::Bench, out: &mut dyn Write) -> Result<(), Error> {
    let director = Director::new()?;
    let server = Server::begin(settings)?;
    let cast = Arc::new(Cast::new(settings, server.endpoint().authority(), &server.key()?)?);
    let mut probe = server.disk().map(|dir| Probe::new(dir, settings)).transpose()?;
    sample(&mut probe)?;
    let outcome = director.run(settings, &server, &cast)?;
    // Before and after: what the disk did in between is what the load itself made it do.
    sample(&mut probe)?;
    let described = server.describe();
    server.end()?;
    let report = Report::of(settings, described, outcome, probe.as_ref());
    report.write_table(out).map_err(Error::Output)?;
    if let Some(file) = &settings.json {
        write_json(&report, file)?;
    }
    report.into_result()
}

fn sample(probe: &mut Option<Probe>) -> Result<(), Error> {
    let Some(probe) = probe else { return Ok(()) };
    let progress = Progress::moments("disk", probe::ROUND_MAX);
    probe.sample(|spent| progress.reach(spent, ""))
}

fn write_json(report: &Report, file: &Path) -> Result<(), Error> {
    let json = serde_json::to_vec_pretty(report).expect("numbers and texts are JSON");
    std::fs::write(file, json).map_err(Error::io("write", file))
}
