//! Deliveries per second: a few writers on WebSockets with many sends in flight each, and many sockets that get all of
//! it.
//!
//! Several writers, because with one a server that syncs would mostly wait for its disk, and deliveries are what is
//! asked for.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::wire::{CLOSE, Connection, Failure, Header, WHOLE_TEXT, masked};

/// How long after the last send its deliveries may take.
const LAST_DELIVERY_MAX: Duration = Duration::from_secs(20);
const TEXT_BYTES: usize = 200;
/// The slowest reader may be so many messages behind the writers. With what is in flight it stays within what a server
/// keeps for a stream (1,024 events and `--stream-queue`), so nobody is told to pull instead.
const LAG_MAX: u64 = 256;
/// How often who waits for the readers looks.
const LOOK: Duration = Duration::from_millis(1);
/// What one read takes, in bytes: a few hundred events.
const READ_BYTES: usize = 256 << 10;

/// Who takes part, as standard input names them.
#[derive(Deserialize)]
struct Talk {
    writer_tokens: Vec<String>,
    reader_tokens: Vec<String>,
    group: String,
}

/// What came of it.
#[derive(Serialize)]
pub(crate) struct FannedOut {
    readers: usize,
    sends_per_s: f64,
    deliveries_per_s: f64,
    /// Bytes of an event's frame, on average.
    frame_bytes: f64,
    /// Sends that the server would not take: it delivers as fast as it can.
    refused: u64,
}

/// What a reader has got.
#[derive(Default)]
struct Got {
    frames: Cell<u64>,
    bytes: Cell<u64>,
}

/// What all of them know of each other.
#[derive(Default)]
struct Room {
    asked: Cell<u64>,
    accepted: Cell<u64>,
    refused: Cell<u64>,
    readers: RefCell<Vec<Rc<Got>>>,
}

impl Room {
    /// How many messages the slowest reader lacks.
    fn lag(&self) -> u64 {
        let slowest = self.readers.borrow().iter().map(|got| got.frames.get()).min();
        slowest.map_or(0, |slowest| self.accepted.get().saturating_sub(slowest))
    }

    fn is_quiet(&self) -> bool {
        self.asked.get() == self.accepted.get() + self.refused.get() && self.lag() == 0
    }

    /// A writer's answer; or one of its own events, which come to it too.
    fn take(&self, text: &[u8]) -> bool {
        let is_answer = text.starts_with(br#"{"id""#);
        if is_answer {
            let is_refused = text.windows(8).any(|window| window == br#""error":"#);
            let count = if is_refused { &self.refused } else { &self.accepted };
            count.set(count.get() + 1);
        }
        is_answer
    }

    fn sum(&self, what: impl Fn(&Got) -> u64) -> u64 {
        self.readers.borrow().iter().map(|got| what(got)).sum()
    }
}

/// Writes for so long with so many sends in flight each, and waits until everybody has everything.
pub(crate) async fn run(address: &str, window: u64, lasts: Duration) -> Result<FannedOut, Failure> {
    let talk: Talk = serde_json::from_reader(std::io::stdin())?;
    let (room, mut tasks) = (Rc::new(Room::default()), JoinSet::new());
    for token in &talk.reader_tokens {
        let (stream, got) = (open(address, token).await?, Rc::new(Got::default()));
        room.readers.borrow_mut().push(got.clone());
        tasks.spawn_local(count(stream, got));
    }
    let mut writers = Vec::new();
    for token in &talk.writer_tokens {
        writers.push(open(address, token).await?);
    }
    let begun = Instant::now();
    let end = begun + lasts;
    for writer in writers {
        tasks.spawn_local(write(writer, talk.group.clone(), window, end, room.clone()));
    }
    while Instant::now() < end || !room.is_quiet() {
        tokio::select! {
            Some(ended) = tasks.join_next() => match ended? {
                Ok(never) => match never {},
                Err(why) => return Err(why),
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        if Instant::now() > end + LAST_DELIVERY_MAX {
            let (lag, accepted) = (room.lag(), room.accepted.get());
            return Err(format!("of {accepted} messages the slowest reader has {lag} too few").into());
        }
    }
    let (took_s, frames) = (begun.elapsed().as_secs_f64(), room.sum(|got| got.frames.get()));
    Ok(FannedOut {
        readers: talk.reader_tokens.len(),
        sends_per_s: room.accepted.get() as f64 / took_s,
        deliveries_per_s: frames as f64 / took_s,
        frame_bytes: room.sum(|got| got.bytes.get()) as f64 / frames.max(1) as f64,
        refused: room.refused.get(),
    })
}

/// A stream behind its hello.
async fn open(address: &str, token: &str) -> Result<Connection, Failure> {
    let mut stream = Connection::stream(address, token).await?;
    stream.text().await?;
    Ok(stream)
}

/// Sends until the end, the next half of the window whenever half of it was answered and the readers are not too far
/// behind; and reads as long as it lives, because who does not is a slow reader.
async fn write(
    mut writer: Connection,
    group: String,
    window: u64,
    end: Instant,
    room: Rc<Room>,
) -> Result<Infallible, Failure> {
    let (mut in_flight, mut id, mut out) = (0, 0, Vec::new());
    let text = "m".repeat(TEXT_BYTES);
    let params = format!(r#"{{"target":"{group}","target_type":"group","msg":"{text}","extra":""}}"#);
    loop {
        if Instant::now() < end && in_flight <= window / 2 && room.lag() < LAG_MAX {
            out.clear();
            for _ in in_flight..window {
                id += 1;
                out.extend(masked(&format!(r#"{{"id":{id},"method":"send","params":{params}}}"#)));
            }
            room.asked.set(room.asked.get() + window - in_flight);
            in_flight = window;
            writer.stream.write_all(&out).await?;
        }
        tokio::select! {
            read = writer.read() => read?,
            () = tokio::time::sleep(LOOK) => {}
        }
        while let Some(text) = writer.next_text()? {
            in_flight -= u64::from(room.take(&text));
        }
    }
}

/// Counts messages until the connection ends, without keeping anything of them.
async fn count(stream: Connection, got: Rc<Got>) -> Result<Infallible, Failure> {
    let (mut buffer, mut header, mut left) = (vec![0; READ_BYTES], Vec::new(), 0);
    loop {
        stream.stream.readable().await?;
        let mut bytes = match stream.stream.try_read(&mut buffer) {
            Ok(0) => return Err("the server closed a reader's connection".into()),
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        while let Some((&next, behind)) = bytes.split_first() {
            if left > 0 {
                let passed = bytes.len().min(left);
                (bytes, left) = (&bytes[passed..], left - passed);
                continue;
            }
            header.push(next);
            bytes = behind;
            if let Some(whole) = Header::of(&header) {
                match whole.first {
                    CLOSE => return Err("the server closed a reader's stream".into()),
                    WHOLE_TEXT if whole.payload_bytes >= TEXT_BYTES => {
                        got.frames.set(got.frames.get() + 1);
                        got.bytes.set(got.bytes.get() + (whole.bytes + whole.payload_bytes) as u64);
                    }
                    // A ping, or news of somebody's read cursor.
                    _ => {}
                }
                left = whole.payload_bytes;
                header.clear();
            }
        }
    }
}
