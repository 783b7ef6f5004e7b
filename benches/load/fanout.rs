//! Deliveries per second: one writer on a WebSocket with many sends in flight, and many sockets that get each of them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::wire::{CLOSE, Connection, Failure, Header, WHOLE_TEXT, masked};

/// How long after the last send its deliveries may take.
const LAST_DELIVERY_MAX: Duration = Duration::from_secs(20);
const TEXT_BYTES: usize = 200;
/// The slowest reader may be so many messages behind the writer. With the window it stays within what a server keeps
/// for a stream (1,024 events and `--stream-queue`), so nobody is told to pull instead.
const LAG_MAX: u64 = 500;
/// How often who waits for the readers looks.
const LOOK: Duration = Duration::from_millis(1);
/// What one read takes, in bytes: a few hundred events.
const READ_BYTES: usize = 256 << 10;

/// Who takes part, as standard input names them.
#[derive(Deserialize)]
struct Talk {
    writer_token: String,
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

/// What all of them have got.
struct All(Vec<Rc<Got>>);

impl All {
    fn frames(&self) -> u64 {
        self.0.iter().map(|got| got.frames.get()).sum()
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|got| got.bytes.get()).sum()
    }

    /// How far the slowest one is behind so many messages.
    fn lag(&self, accepted: u64) -> u64 {
        accepted.saturating_sub(self.0.iter().map(|got| got.frames.get()).min().unwrap_or(accepted))
    }
}

/// What the writer was told.
#[derive(Default)]
struct Written {
    asked: u64,
    accepted: u64,
    refused: u64,
}

/// Writes for so long with so many sends in flight, and waits until everybody has everything.
pub(crate) async fn run(address: &str, window: u64, lasts: Duration) -> Result<FannedOut, Failure> {
    let talk: Talk = serde_json::from_reader(std::io::stdin())?;
    let (mut all, mut reading) = (All(Vec::new()), JoinSet::new());
    for token in &talk.reader_tokens {
        let (mut stream, got) = (Connection::stream(address, token).await?, Rc::new(Got::default()));
        // The hello.
        stream.text().await?;
        all.0.push(got.clone());
        reading.spawn_local(count(stream, got));
    }
    let mut writer = Connection::stream(address, &talk.writer_token).await?;
    writer.text().await?;
    let begun = Instant::now();
    let Written { accepted, refused, .. } =
        write(&mut writer, &talk.group, window, begun + lasts, &all).await?;
    let deadline = Instant::now() + LAST_DELIVERY_MAX;
    while all.lag(accepted) > 0 {
        tokio::select! {
            ended = reading.join_next() => ended.ok_or("there are no readers")???,
            // A writer that does not read its own events would hold the server up.
            read = writer.read() => {
                read?;
                while writer.next_text()?.is_some() {}
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        if Instant::now() > deadline {
            let lag = all.lag(accepted);
            return Err(format!("of {accepted} messages the slowest reader has {lag} too few").into());
        }
    }
    let (took_s, frames) = (begun.elapsed().as_secs_f64(), all.frames());
    Ok(FannedOut {
        readers: talk.reader_tokens.len(),
        sends_per_s: accepted as f64 / took_s,
        deliveries_per_s: frames as f64 / took_s,
        frame_bytes: all.bytes() as f64 / frames.max(1) as f64,
        refused,
    })
}

/// Sends until the end, the next half of the window whenever half of it was answered and the readers are not too far
/// behind.
async fn write(
    writer: &mut Connection,
    group: &str,
    window: u64,
    end: Instant,
    all: &All,
) -> Result<Written, Failure> {
    let (mut written, mut out, text) = (Written::default(), Vec::new(), "m".repeat(TEXT_BYTES));
    let params = format!(r#"{{"target":"{group}","target_type":"group","msg":"{text}","extra":""}}"#);
    loop {
        let in_flight = written.asked - written.accepted - written.refused;
        let is_over = Instant::now() >= end;
        if is_over && in_flight == 0 {
            return Ok(written);
        }
        if !is_over && in_flight <= window / 2 && all.lag(written.accepted) < LAG_MAX {
            out.clear();
            for id in written.asked..written.asked + window - in_flight {
                out.extend(masked(&format!(r#"{{"id":{id},"method":"send","params":{params}}}"#)));
            }
            written.asked += window - in_flight;
            writer.stream.write_all(&out).await?;
        }
        tokio::select! {
            read = writer.read() => read?,
            () = tokio::time::sleep(LOOK) => {}
        }
        while let Some(text) = writer.next_text()? {
            written.take(&text);
        }
    }
}

impl Written {
    /// An answer; or one of the writer's own events, which come here too.
    fn take(&mut self, text: &[u8]) {
        if text.starts_with(br#"{"id""#) {
            let is_refused = text.windows(8).any(|window| window == br#""error":"#);
            self.accepted += u64::from(!is_refused);
            self.refused += u64::from(is_refused);
        }
    }
}

/// Counts messages until the connection ends, without keeping anything of them.
async fn count(stream: Connection, got: Rc<Got>) -> Result<(), Failure> {
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
