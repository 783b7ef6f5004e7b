//! Loads that `chinwag bench` has no shape for, for `benches/figures`: each runs once and prints one line of JSON.
//!
//! ```text
//! load repeat ADDRESS CLIENTS SECONDS      the same HTTP request again and again; the request comes on standard input
//! load delivery ADDRESS RATE SECONDS       from acknowledged to delivered on another socket
//! load fanout ADDRESS WINDOW SECONDS       a few writers, many sockets
//! load broadcast FRAME_BYTES               not a load: the bare server that a fan-out is compared with
//! ```
//!
//! One thread drives a load (two in `delivery`), and what comes back is parsed no further than needed. Tokens are
//! made by who calls this; who talks with whom comes on standard input, see `Talk` in the modules.

mod broadcast;
mod delivery;
mod fanout;
mod repeat;
mod wire;

use std::future::Future;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::LocalSet;

use wire::Failure;

const USAGE: &str = "usage: load repeat ADDRESS CLIENTS SECONDS | delivery ADDRESS RATE SECONDS | \
                     fanout ADDRESS WINDOW SECONDS | broadcast FRAME_BYTES";

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["repeat", address, clients, seconds] => {
            tell(&on_this_thread(repeat::run(address, number(clients)?, duration(seconds)?))?)
        }
        ["delivery", address, rate, seconds] => {
            tell(&delivery::run(address, number(rate)?, duration(seconds)?)?)
        }
        ["fanout", address, window, seconds] => {
            tell(&on_this_thread(fanout::run(address, number(window)?, duration(seconds)?))?)
        }
        ["broadcast", frame_bytes] => broadcast::serve(number(frame_bytes)?),
        _ => Err(USAGE.into()),
    }
}

fn number<T: FromStr>(word: &str) -> Result<T, Failure> {
    word.parse().map_err(|_| format!("{word:?} is no number here; {USAGE}").into())
}

fn duration(seconds: &str) -> Result<Duration, Failure> {
    Ok(Duration::try_from_secs_f64(number(seconds)?)?)
}

fn tell(result: &impl Serialize) -> Result<(), Failure> {
    Ok(writeln!(io::stdout(), "{}", serde_json::to_string(result)?)?)
}

/// A runtime of one thread, on which tasks may share without locks.
fn on_this_thread<T>(load: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, load)
}

/// An empty histogram of nanoseconds up to a minute, right to a thousandth.
fn latencies_ns() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("lawful bounds")
}

/// Microseconds at a quantile of nanoseconds.
fn micros_at(latencies_ns: &Histogram<u64>, quantile: f64) -> f64 {
    latencies_ns.value_at_quantile(quantile) as f64 / 1000.0
}
