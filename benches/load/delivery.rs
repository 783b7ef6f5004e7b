//! How long after its acknowledgement a message reaches another user's socket.
//!
//! Pairs talk, each from one user over HTTP to another on a WebSocket. Who sends and who listens are threads of their
//! own, so that neither waits while the other is at work, and what is measured includes a thread's waking: a client on
//! another machine has that too. An event may come before the acknowledgement; then the time is negative.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::wire::{Connection, Failure, post};
use crate::{latencies_ns, micros_at, on_this_thread};

/// What is not counted at the beginning.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the last event may take.
const LAST_EVENT_MAX: Duration = Duration::from_secs(10);
const TEXT_BYTES: usize = 200;
/// A text begins with its number in so many digits.
const DIGITS: usize = 8;
const BEFORE_TEXT: &[u8] = br#""msg":""#;

/// A pair, as standard input names it.
#[derive(Deserialize)]
struct Talk {
    sender_token: String,
    reader_token: String,
    reader: String,
}

/// What came of it.
#[derive(Serialize)]
pub(crate) struct Delivered {
    sends: usize,
    sends_per_s: f64,
    /// From the acknowledgement to the event.
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// How many events came before the acknowledgement.
    share_before: f64,
    /// From the request to its acknowledgement.
    acknowledged_p50_us: f64,
    acknowledged_p99_us: f64,
    /// From the request to the event.
    delivered_p50_us: f64,
    delivered_p99_us: f64,
}

/// A send: when it was asked for, and when it was acknowledged.
type Sent = (Instant, Instant);

/// Sends at `rate` messages a second over all pairs.
pub(crate) fn run(address: &str, rate: u32, lasts: Duration) -> Result<Delivered, Failure> {
    let talks: Vec<Talk> = serde_json::from_reader(std::io::stdin())?;
    let (address, talks): (Arc<str>, Arc<[Talk]>) = (address.into(), talks.into());
    let pairs = u32::try_from(talks.len())?;
    let sends_each = ((WARM_UP + lasts).as_secs_f64() * f64::from(rate) / f64::from(pairs)) as usize;
    let (ready, is_ready) = std::sync::mpsc::channel();
    let listening = {
        let (address, talks) = (address.clone(), talks.clone());
        std::thread::spawn(move || on_this_thread(listen_all(address, talks, sends_each, ready)))
    };
    // A listener that fails drops its end, and says why below.
    let sent = match is_ready.recv() {
        Ok(()) => on_this_thread(send_all(address, talks, sends_each, rate))?,
        Err(_) => Vec::new(),
    };
    let heard = listening.join().map_err(|_| "the listeners' thread died")??;
    Ok(compare(&sent, &heard, f64::from(rate)))
}

fn compare(sent: &[Vec<Sent>], heard: &[Vec<Instant>], rate: f64) -> Delivered {
    let (mut acknowledged, mut delivered, mut between_ns) = (latencies_ns(), latencies_ns(), Vec::new());
    let uncounted = (WARM_UP.as_secs_f64() * rate / sent.len() as f64) as usize;
    for (sent, heard) in sent.iter().zip(heard) {
        for (&(asked, answered), &event) in sent.iter().zip(heard).skip(uncounted) {
            acknowledged.saturating_record((answered - asked).as_nanos() as u64);
            delivered.saturating_record((event - asked).as_nanos() as u64);
            let after = event.saturating_duration_since(answered).as_nanos() as i64;
            between_ns.push(after - answered.saturating_duration_since(event).as_nanos() as i64);
        }
    }
    between_ns.sort_unstable();
    let at = |share: f64| {
        between_ns[((between_ns.len() as f64 * share) as usize).min(between_ns.len() - 1)] as f64 / 1000.0
    };
    let first = sent.iter().filter_map(|sent| sent.get(uncounted)).map(|sent| sent.0).min();
    let last = sent.iter().filter_map(|sent| sent.last()).map(|sent| sent.1).max();
    let took = first.zip(last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    Delivered {
        sends: between_ns.len(),
        sends_per_s: between_ns.len() as f64 / took,
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: at(1.0),
        share_before: between_ns.partition_point(|ns| *ns < 0) as f64 / between_ns.len() as f64,
        acknowledged_p50_us: micros_at(&acknowledged, 0.5),
        acknowledged_p99_us: micros_at(&acknowledged, 0.99),
        delivered_p50_us: micros_at(&delivered, 0.5),
        delivered_p99_us: micros_at(&delivered, 0.99),
    }
}

async fn send_all(
    address: Arc<str>,
    talks: Arc<[Talk]>,
    sends_each: usize,
    rate: u32,
) -> Result<Vec<Vec<Sent>>, Failure> {
    let mut senders = JoinSet::new();
    let begin = Instant::now() + Duration::from_millis(100);
    let pace = Duration::from_secs(1) / rate;
    let pairs = u32::try_from(talks.len())?;
    for number in 0..pairs {
        let (address, talks, first) = (address.clone(), talks.clone(), begin + pace * number);
        senders.spawn_local(async move {
            let talk = &talks[number as usize];
            Ok::<_, Failure>((number, send(&address, talk, sends_each, first, pace * pairs).await?))
        });
    }
    in_order(senders).await
}

/// At fixed moments; one that is late is sent at once.
async fn send(
    address: &str,
    talk: &Talk,
    sends: usize,
    first: Instant,
    pace: Duration,
) -> Result<Vec<Sent>, Failure> {
    let mut connection = Connection::open(address).await?;
    let mut sent = Vec::with_capacity(sends);
    let (mut due, filling) = (first, "m".repeat(TEXT_BYTES - DIGITS));
    for number in 0..sends {
        let Talk { sender_token, reader, .. } = talk;
        let body = format!(
            r#"{{"target":"{reader}","target_type":"user","msg":"{number:0DIGITS$}{filling}","extra":""}}"#
        );
        let request = post(address, "/im.chat/send", sender_token, &body);
        tokio::time::sleep_until(due.into()).await;
        let asked = Instant::now();
        connection.ask(&request).await?;
        sent.push((asked, Instant::now()));
        due += pace;
    }
    Ok(sent)
}

async fn listen_all(
    address: Arc<str>,
    talks: Arc<[Talk]>,
    sends_each: usize,
    ready: std::sync::mpsc::Sender<()>,
) -> Result<Vec<Vec<Instant>>, Failure> {
    let mut listeners = JoinSet::new();
    for (number, talk) in (0..).zip(talks.iter()) {
        let mut stream = Connection::stream(&address, &talk.reader_token).await?;
        // The hello.
        stream.text().await?;
        listeners.spawn_local(async move { Ok((number, listen(stream, sends_each).await?)) });
    }
    // Who sends waits for it, or has failed.
    let _ = ready.send(());
    drop(ready);
    in_order(listeners).await
}

/// When each message came; in their order, without a hole.
async fn listen(mut stream: Connection, sends: usize) -> Result<Vec<Instant>, Failure> {
    let mut heard = Vec::with_capacity(sends);
    while heard.len() < sends {
        let event = match stream.next_text()? {
            Some(event) => event,
            None => {
                let read = tokio::time::timeout(LAST_EVENT_MAX, stream.read()).await;
                read.map_err(|_| format!("{} of {sends} messages came", heard.len()))??;
                continue;
            }
        };
        let now = Instant::now();
        let Some(at) = event.windows(BEFORE_TEXT.len()).position(|window| window == BEFORE_TEXT) else {
            continue;
        };
        let digits = event.get(at + BEFORE_TEXT.len()..at + BEFORE_TEXT.len() + DIGITS).unwrap_or_default();
        if str::from_utf8(digits)?.parse() != Ok(heard.len()) {
            return Err(format!("message {} where {} comes next", digits.escape_ascii(), heard.len()).into());
        }
        heard.push(now);
    }
    Ok(heard)
}

/// What the tasks gave, by their numbers.
async fn in_order<T: 'static>(
    mut tasks: JoinSet<Result<(u32, Vec<T>), Failure>>,
) -> Result<Vec<Vec<T>>, Failure> {
    let mut results = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        results.push(ended??);
    }
    results.sort_by_key(|(number, _)| *number);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
