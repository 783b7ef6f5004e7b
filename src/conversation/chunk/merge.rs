//! Merging chunks: fewer of them that say the same.
//!
//! Used by compaction. Small chunks are joined, heads and participants that a later series
//! replaced are dropped, and so are the texts of messages that a recall among these chunks took
//! back. The chunks need not begin with the conversation.

use std::collections::HashSet;

use super::{
    CHUNK_MESSAGES, CHUNK_RECALLS, CHUNK_TEXT_BYTES, Chunk, ChunkV1, Error, MIXED_TEXT_BYTES, MessageV1,
    Saved, continuing, decode, finish, finish_with,
};
use crate::conversation::history::{self, is_remembered};
use crate::conversation::{codec, retention};

/// Merges the chunks of one conversation. Show every chunk to [`survey`](Merger::survey) first,
/// then again, in the same order, to [`merge`](Merger::merge).
#[derive(Debug, Default)]
pub(crate) struct Merger {
    retention: Option<Retention>,
    recalled: HashSet<u32>,
    /// Messages up to this one have no texts, and were not recalled for all of them.
    hollow_through: u32,
    /// Messages up to this one are left out.
    gone_through: u32,
    /// Series, as counted by their heads.
    series: usize,
    series_merged: usize,
    /// What stands before the messages and recalls that are held back.
    before: Option<Saved>,
    messages: Vec<OwnedMessageV1>,
    text_bytes: usize,
    recalls: Vec<u32>,
    /// The chunks of the last series that have participants or the head.
    tables: Vec<Vec<u8>>,
}

/// What a merge that has the beginning of a conversation leaves out of it.
#[derive(Debug)]
pub(crate) struct Retention {
    pub(crate) rules: retention::Options,
    /// A message of which a retry is to be recognized keeps its id, its sender and its time.
    pub(crate) history: history::Options,
    pub(crate) now_ns: u64,
    /// Found by the survey.
    pub(crate) found: Surveyed,
}

/// The messages there are: the newest, and the last ones that are too old to be shown, and to be
/// recognized. Ages grow with indices downwards.
#[derive(Debug, Default)]
pub(crate) struct Surveyed {
    newest: u32,
    expired_through: u32,
    forgotten_through: u32,
}

impl Retention {
    pub(crate) fn new(rules: retention::Options, history: history::Options, now_ns: u64) -> Self {
        Self { rules, history, now_ns, found: Surveyed::default() }
    }

    fn survey(&mut self, index: u32, timestamp_ns: u64) {
        let found = &mut self.found;
        found.newest = index;
        if timestamp_ns < self.rules.cutoff_ns(self.now_ns) {
            found.expired_through = index;
        }
        // By its age alone: there may be as many messages behind it as it takes.
        if !is_remembered(&self.history, u32::MAX, self.now_ns, index, timestamp_ns) {
            found.forgotten_through = index;
        }
    }

    /// Up to which message texts go.
    fn hollow_through(&self) -> u32 {
        self.found.expired_through.max(self.rules.excess(self.found.newest))
    }

    /// Up to which message everything goes.
    fn gone_through(&self) -> u32 {
        let too_many = self.found.newest.saturating_sub(self.history.retry_messages);
        self.hollow_through().min(self.found.forgotten_through).min(too_many)
    }
}

#[derive(Debug)]
struct OwnedMessageV1 {
    sender: u32,
    timestamp_ns: u64,
    client_msg_id: String,
    msg: String,
    extra: String,
    erased: bool,
}

impl Merger {
    /// The merger of a conversation whose first chunk is among those that are merged.
    pub(crate) fn with(retention: Retention) -> Self {
        Self { retention: Some(retention), ..Self::default() }
    }

    /// Notes what a chunk recalls, and how old its messages are. `is_hollow` as its summary says.
    pub(crate) fn survey(&mut self, payload: &[u8], is_hollow: bool) -> Result<(), Error> {
        let (chunk, marks) = decode(payload)?;
        let last = chunk.messages_before.saturating_add(chunk.messages.len() as u32);
        // Of a dismissed group nobody reads anything any more.
        if is_hollow || marks.dismissed {
            self.hollow_through = last;
        }
        if let Some(retention) = &mut self.retention {
            for (message, index) in chunk.messages.iter().zip(chunk.messages_before + 1..) {
                retention.survey(index, message.timestamp_ns);
            }
            // Chunks without messages say as much.
            retention.found.newest = last;
            self.hollow_through = self.hollow_through.max(retention.hollow_through());
            self.gone_through = retention.gone_through();
        }
        self.recalled.extend(&chunk.recalls);
        self.series += usize::from(chunk.head.is_some());
        Ok(())
    }

    /// Takes the next chunk in, and gives those that became full. With the last head comes
    /// everything that is left.
    pub(crate) fn merge(&mut self, applied_lsn: u64, payload: &[u8]) -> Result<Vec<Chunk>, Error> {
        let (chunk, _) = decode(payload)?;
        self.check_continues(&chunk)?;
        let mut full = Vec::new();
        for (message, index) in chunk.messages.iter().zip(chunk.messages_before + 1..) {
            if index <= self.gone_through {
                // They stand at the very beginning: nothing is held back yet.
                self.before = Some(Saved { messages: index, ..self.before.unwrap_or_default() });
                continue;
            }
            if self.is_hollow() && index == self.hollow_through + 1 {
                full.push(self.flush_messages(applied_lsn));
            }
            self.take(message, index);
            if self.text_bytes >= CHUNK_TEXT_BYTES || self.messages.len() >= CHUNK_MESSAGES as usize {
                full.push(self.flush_messages(applied_lsn));
            }
        }
        self.recalls.extend(&chunk.recalls);
        if self.recalls.len() >= CHUNK_RECALLS as usize {
            // A recall stands behind its message.
            if !self.messages.is_empty() {
                full.push(self.flush_messages(applied_lsn));
            }
            full.push(self.flush_recalls(applied_lsn));
        }
        let is_last_series = self.series_merged + 1 == self.series;
        if is_last_series && (chunk.head.is_some() || !chunk.participants.is_empty()) {
            self.tables.push(payload.to_vec());
        }
        if chunk.head.is_some() {
            self.series_merged += 1;
            if is_last_series {
                self.close(applied_lsn, &mut full)?;
            }
        }
        Ok(full)
    }

    /// Whether `chunk` stands right behind what was merged.
    fn check_continues(&mut self, chunk: &ChunkV1<'_>) -> Result<(), codec::Error> {
        let stands = Saved { messages: chunk.messages_before, recalls: chunk.recalls_before };
        let expected = self.before.get_or_insert(stands).plus(self.messages.len(), self.recalls.len());
        if stands == expected { Ok(()) } else { Err(codec::Error::Impossible("place in its series")) }
    }

    fn take(&mut self, message: &MessageV1<'_>, index: u32) {
        let erased = message.erased || index <= self.hollow_through || self.recalled.contains(&index);
        let text = |text: &str| if erased { String::new() } else { text.to_owned() };
        let owned = OwnedMessageV1 {
            sender: message.sender,
            timestamp_ns: message.timestamp_ns,
            client_msg_id: message.client_msg_id.to_owned(),
            msg: text(message.msg),
            extra: text(message.extra),
            erased,
        };
        self.text_bytes += owned.msg.len() + owned.extra.len();
        self.messages.push(owned);
    }

    /// A chunk of the messages that are held back. Recalls gather behind them: so they are together in
    /// few chunks, which a load reads, apart from the texts, of which it reads few.
    fn flush_messages(&mut self, applied_lsn: u64) -> Chunk {
        let hollow = self.is_hollow();
        let before = self.before.unwrap_or_default();
        self.before = Some(before.plus(self.messages.len(), 0));
        self.text_bytes = 0;
        let messages = std::mem::take(&mut self.messages);
        let messages = messages.iter().map(OwnedMessageV1::borrow).collect();
        let mut chunk = finish(applied_lsn, ChunkV1 { messages, ..continuing(before) });
        chunk.summary.hollow = hollow;
        chunk
    }

    /// Whether the messages that are held back are there for their ids only.
    fn is_hollow(&self) -> bool {
        let before = self.before.unwrap_or_default();
        !self.messages.is_empty() && before.messages < self.hollow_through
    }

    fn flush_recalls(&mut self, applied_lsn: u64) -> Chunk {
        let before = self.before.unwrap_or_default();
        self.before = Some(before.plus(0, self.recalls.len()));
        let recalls = std::mem::take(&mut self.recalls);
        finish(applied_lsn, ChunkV1 { recalls, ..continuing(before) })
    }

    /// What is held back and the last series' tables; the last chunk has the head.
    fn close(&mut self, applied_lsn: u64, full: &mut Vec<Chunk>) -> Result<(), Error> {
        if self.is_hollow() || self.text_bytes > MIXED_TEXT_BYTES && !self.recalls.is_empty() {
            full.push(self.flush_messages(applied_lsn));
        }
        let mut before = self.before.unwrap_or_default();
        let owned = std::mem::take(&mut self.messages);
        let mut messages = owned.iter().map(OwnedMessageV1::borrow).collect::<Vec<_>>();
        let mut recalls = std::mem::take(&mut self.recalls);
        for table in std::mem::take(&mut self.tables) {
            let (ChunkV1 { participants_before, participants, head, .. }, marks) = decode(&table)?;
            // What is left goes with the first table: most conversations are one chunk.
            let (messages, recalls) = (std::mem::take(&mut messages), std::mem::take(&mut recalls));
            let after = before.plus(messages.len(), recalls.len());
            let body =
                ChunkV1 { messages, recalls, participants_before, participants, head, ..continuing(before) };
            full.push(finish_with(applied_lsn, body, &marks));
            before = after;
        }
        Ok(())
    }
}

impl OwnedMessageV1 {
    fn borrow(&self) -> MessageV1<'_> {
        MessageV1 {
            sender: self.sender,
            timestamp_ns: self.timestamp_ns,
            client_msg_id: &self.client_msg_id,
            msg: &self.msg,
            extra: &self.extra,
            erased: self.erased,
        }
    }
}
