//! The text of `FORMAT`.
//!
//! ```text
//! chinwag data directory
//! version 1
//! store 000102030405060708090a0b0c0d0e0f
//! epoch 1
//! started yes
//! crc32c f206d170
//! ```
//!
//! The first two lines and the last one stay in every version; the checksum is over everything before its line.

use std::fmt::Write;

/// The version that this program writes. It reads no newer one.
pub const VERSION: u32 = 1;

const TITLE: &str = "chinwag data directory\n";
const CRC_KEY: &str = "crc32c ";

/// Which store a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Random; in every file of the store, so that files of two stores cannot be mixed up.
    pub store: [u8; 16],
    /// From 1; grows when a restore takes history back.
    pub epoch: u32,
    /// Whether the log's first segment was once durable, so that a log without any is a loss.
    pub started: bool,
}

/// Why a text is no `FORMAT`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Some other file, or none of it left.
    #[error("it is not the FORMAT of a data directory")]
    Foreign,
    /// The bytes changed after they were written.
    #[error("its checksum does not hold")]
    Checksum,
    /// A later version wrote it.
    #[error("its version {0} is newer than {VERSION}")]
    TooNew(u32),
    /// The checksum holds, but this program would not have written it.
    #[error("it holds something else than version {VERSION} allows")]
    Impossible,
}

impl Format {
    /// The text, ASCII.
    pub fn encode(&self) -> String {
        let store = u128::from_be_bytes(self.store);
        let started = if self.started { "yes" } else { "no" };
        let mut text = format!(
            "{TITLE}version {VERSION}\nstore {store:032x}\nepoch {}\nstarted {started}\n",
            self.epoch
        );
        let crc = crc32c::crc32c(text.as_bytes());
        writeln!(text, "{CRC_KEY}{crc:08x}").expect("a String takes everything");
        text
    }

    /// Reads exactly what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Foreign)?;
        let fields = check(text)?.strip_prefix(TITLE).ok_or(Malformed::Foreign)?;
        let mut lines = fields.lines();
        match number(lines.next(), "version ") {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => return Err(Malformed::TooNew(newer)),
            _ => return Err(Malformed::Impossible),
        }
        let store = lines.next().and_then(|line| u128::from_str_radix(line.strip_prefix("store ")?, 16).ok());
        let epoch = number(lines.next(), "epoch ");
        let started = lines.next() == Some("started yes");
        let (Some(store), Some(epoch)) = (store, epoch) else { return Err(Malformed::Impossible) };
        let format = Self { store: store.to_be_bytes(), epoch, started };
        // One text for one meaning: no second spelling, no line behind.
        if format.encode() == text { Ok(format) } else { Err(Malformed::Impossible) }
    }
}

/// Checks the last line; answers what stands before it.
fn check(text: &str) -> Result<&str, Malformed> {
    if !text.starts_with(TITLE) {
        return Err(Malformed::Foreign);
    }
    let at = text.rfind(CRC_KEY).ok_or(Malformed::Checksum)?;
    let (body, last) = text.split_at(at);
    let expected = format!("{CRC_KEY}{:08x}\n", crc32c::crc32c(body.as_bytes()));
    if last == expected { Ok(body) } else { Err(Malformed::Checksum) }
}

fn number(line: Option<&str>, key: &str) -> Option<u32> {
    line?.strip_prefix(key)?.parse().ok()
}
