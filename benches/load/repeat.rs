//! The same request again and again, one in flight on each connection.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::wire::{Connection, Failure};
use crate::{latencies_ns, micros_at};

const WARM_UP: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Serialize)]
pub(crate) struct Repeated {
    requests_per_s: f64,
    /// Of the last reply; its body alone.
    reply_bytes: usize,
    p50_us: f64,
    p99_us: f64,
}

/// What all connections write down.
struct Tally {
    latencies_ns: Histogram<u64>,
    reply_bytes: usize,
}

/// Sends the request of standard input for so long.
pub(crate) async fn run(address: &str, clients: usize, lasts: Duration) -> Result<Repeated, Failure> {
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request)?;
    let (request, mut open): (Rc<[u8]>, _) = (request.into(), Vec::new());
    for _ in 0..clients {
        open.push(Connection::open(address).await?);
    }
    let tally = Rc::new(RefCell::new(Tally { latencies_ns: latencies_ns(), reply_bytes: 0 }));
    let from = Instant::now() + WARM_UP;
    let mut running = JoinSet::new();
    for connection in open {
        running.spawn_local(repeat(connection, request.clone(), from, from + lasts, tally.clone()));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let Tally { latencies_ns, reply_bytes } = &*tally.borrow();
    Ok(Repeated {
        requests_per_s: latencies_ns.len() as f64 / lasts.as_secs_f64(),
        reply_bytes: *reply_bytes,
        p50_us: micros_at(latencies_ns, 0.5),
        p99_us: micros_at(latencies_ns, 0.99),
    })
}

/// Until the end; what was answered while it was measured counts.
async fn repeat(
    mut connection: Connection,
    request: Rc<[u8]>,
    from: Instant,
    end: Instant,
    tally: Rc<RefCell<Tally>>,
) -> Result<(), Failure> {
    let mut asked = Instant::now();
    while asked < end {
        let reply_bytes = connection.ask(&request).await?;
        let answered = Instant::now();
        if answered >= from && answered < end {
            let mut tally = tally.borrow_mut();
            tally.latencies_ns.saturating_record((answered - asked).as_nanos() as u64);
            tally.reply_bytes = reply_bytes;
        }
        asked = answered;
    }
    Ok(())
}
