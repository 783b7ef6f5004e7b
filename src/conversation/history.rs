//! History: the ordered messages and recalls of one conversation, in memory.
//!
//! Texts stand in append-only blocks that are never copied when the history grows; a message is a
//! small row that points into a block. Of a long conversation only the newest part is here; of the
//! older part, which packs have, what must be known without reading them: every recall ([`recalls`]),
//! which retries are remembered ([`retries`]), and about when it was sent. What goes from memory is
//! the business of [`trim`], what is kept at all of [`kept`]. Which part may be read, and by whom, is
//! not decided here, nor is anything read from packs.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashTable;

use self::old_retries::OldRetries;
pub(crate) use self::retries::is_remembered;
use self::room::{GROWTH, block_bytes, place_in, rows_with_room};

mod kept;
mod old_retries;
mod part;
mod recalls;
mod retries;
mod room;
mod trim;

/// How much of a long conversation stays in memory, and how long a retry is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Of the messages that packs have, the newest that stay: eighty full pages. Twice as many may
    /// gather before the oldest go, so that going costs little per message.
    pub recent_messages: u32,
    /// The same for their texts, in bytes: with all else a conversation keeps about 3 MiB at most.
    pub recent_text_bytes: usize,
    /// A retry of one of the newest so many messages is recognized, whatever their age...
    pub retry_messages: u32,
    /// ... and one of any message up to this age.
    pub retry_age: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            recent_messages: 4096,
            recent_text_bytes: 1 << 20,
            retry_messages: 4096,
            retry_age: Duration::from_hours(24),
        }
    }
}

/// When a message that is not in memory was sent. Those before it are no younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) msg_index: u32,
    pub(crate) timestamp_ns: u64,
}

/// One message without its texts.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// High and low half: one number would be aligned to eight bytes, and the row four bytes longer.
    timestamp: [u32; 2],
    block: u32,
    msg_bytes: u32,
    extra_bytes: u32,
    /// Participant number of the sender.
    sender: u32,
    /// Where its texts begin in the block: nothing begins further behind.
    at: u16,
    client_msg_id_bytes: u8,
    /// [`RECALLED`] and [`ERASED`].
    flags: u8,
}

/// A recall took the message back; which one, [`History::recall_of`] finds.
const RECALLED: u8 = 1;
/// `msg` and `extra` were overwritten.
const ERASED: u8 = 2;

// Most of what a message takes beside its texts.
const _: () = assert!(size_of::<Row>() == 28);

impl Row {
    fn timestamp_ns(&self) -> u64 {
        let [high, low] = self.timestamp;
        u64::from(high) << 32 | u64::from(low)
    }

    fn is_erased(&self) -> bool {
        self.flags & ERASED != 0
    }
}

/// One message as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) sender: u32,
    pub(crate) timestamp_ns: u64,
    /// 0 for none.
    pub(crate) recall_index: u32,
    pub(crate) client_msg_id: &'a str,
    /// Empty once erased.
    pub(crate) msg: &'a str,
    /// Empty once erased.
    pub(crate) extra: &'a str,
    /// Whether the texts are gone.
    pub(crate) erased: bool,
}

/// The messages and recalls of one conversation.
#[derive(Debug, Clone)]
pub(crate) struct History {
    options: Options,
    /// Messages that are not in memory: row `i` is message `before + i + 1`.
    before: u32,
    rows: Vec<Row>,
    /// Entry `i` is the message that recall `i + 1` took back.
    recalls: Vec<u32>,
    /// All recall indices, in the order of the messages that they took back.
    recalled: Vec<u32>,
    /// Block `i` is number `blocks_before + i` to the rows.
    blocks: VecDeque<String>,
    blocks_before: u32,
    text_bytes: usize,
    /// Message indices by sender and `client_msg_id`; only messages in memory that have one. Of
    /// several with the same, the newest.
    retries: HashTable<u32>,
    /// The same of messages that are not in memory.
    old_retries: OldRetries,
    /// The oldest message that is kept; those below are not shown to anybody. Never moves back.
    kept_from: u32,
    /// When it was sent, where that is known.
    kept_from_ns: Option<u64>,
    /// Ages of messages that are not in memory, ascending; the last one is of the newest of them.
    marks: Vec<Mark>,
    /// Recalls up to this one have had their texts overwritten.
    erased_through: u32,
}

impl Default for History {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl History {
    /// An empty one.
    pub(crate) fn new(options: Options) -> Self {
        let (before, blocks_before, text_bytes, erased_through) = (0, 0, 0, 0);
        let (rows, recalls, recalled, marks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (blocks, retries, old_retries) = (VecDeque::new(), HashTable::new(), OldRetries::default());
        Self {
            options,
            before,
            rows,
            recalls,
            recalled,
            blocks,
            blocks_before,
            text_bytes,
            retries,
            old_retries,
            kept_from: 1,
            kept_from_ns: None,
            marks,
            erased_through,
        }
    }

    /// Newest message; 0 when there is none.
    pub(crate) fn newest_message(&self) -> u32 {
        self.before + self.rows.len() as u32
    }

    /// When the newest message was sent, in memory or not.
    pub(crate) fn newest_message_ns(&self) -> Option<u64> {
        let in_memory = self.rows.last().map(Row::timestamp_ns);
        in_memory.or_else(|| self.marks.last().map(|mark| mark.timestamp_ns))
    }

    /// Newest recall; 0 when there is none.
    pub(crate) fn newest_recall(&self) -> u32 {
        self.recalls.len() as u32
    }

    /// Newest message that is not in memory; 0 when all are.
    pub(crate) fn newest_old(&self) -> u32 {
        self.before
    }

    /// Sets how it is kept from here on.
    pub(crate) fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Roughly what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let recalls = (self.recalls.capacity() + self.recalled.capacity()) * size_of::<u32>();
        let rows = self.rows.capacity() * size_of::<Row>() + recalls;
        let old = self.old_retries.bytes() + self.marks.capacity() * size_of::<Mark>();
        // A retry costs its number and a byte of the table.
        rows + old + self.text_bytes + self.text_bytes / GROWTH + self.retries.capacity() * 5
    }

    /// Adds the next message. `message.recall_index` must be 0: recalls are added as recalls.
    pub(crate) fn push(&mut self, message: Stored<'_>) {
        self.push_row(message);
        if !message.client_msg_id.is_empty() {
            self.remember_retry(message.sender, message.client_msg_id);
        }
    }

    /// The same, and its retries are not looked for here.
    pub(crate) fn push_row(&mut self, message: Stored<'_>) {
        let parts = [message.msg, message.extra, message.client_msg_id];
        let (block, at) = self.store(&parts);
        self.make_room_for_a_row();
        self.rows.push(Row {
            timestamp: [(message.timestamp_ns >> 32) as u32, message.timestamp_ns as u32],
            block,
            at,
            msg_bytes: message.msg.len() as u32,
            extra_bytes: message.extra.len() as u32,
            sender: message.sender,
            client_msg_id_bytes: message.client_msg_id.len() as u8,
            flags: if message.erased { ERASED } else { 0 },
        });
    }

    fn store(&mut self, parts: &[&str]) -> (u32, u16) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let place = self.blocks.back().and_then(|block| place_in(block, bytes));
        let at = place.unwrap_or_else(|| {
            self.blocks.push_back(String::with_capacity(block_bytes(self.text_bytes, bytes)));
            0
        });
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        parts.iter().for_each(|part| block.push_str(part));
        self.text_bytes += bytes;
        (self.blocks_before.wrapping_add(number as u32), at)
    }

    fn make_room_for_a_row(&mut self) {
        if self.rows.len() == self.rows.capacity() {
            let grown = rows_with_room(self.rows.len(), size_of::<Row>());
            self.rows.reserve_exact(grown - self.rows.len());
        }
    }

    fn place_of(&self, msg_index: u32) -> Option<usize> {
        Some(msg_index.checked_sub(self.before)?.checked_sub(1)? as usize)
    }

    fn row(&self, msg_index: u32) -> Option<&Row> {
        self.rows.get(self.place_of(msg_index)?)
    }

    fn row_mut(&mut self, msg_index: u32) -> Option<&mut Row> {
        let place = self.place_of(msg_index)?;
        self.rows.get_mut(place)
    }

    /// The message with this index, if it is in memory.
    pub(crate) fn message(&self, msg_index: u32) -> Option<Stored<'_>> {
        let row = self.row(msg_index)?;
        let (msg, extra) = match row.is_erased() {
            true => ("", ""),
            false => (self.text(row, 0, row.msg_bytes), self.text(row, row.msg_bytes, row.extra_bytes)),
        };
        Some(Stored {
            sender: row.sender,
            timestamp_ns: row.timestamp_ns(),
            recall_index: self.recall_of_row(msg_index, row),
            client_msg_id: self.client_msg_id(row),
            msg,
            extra,
            erased: row.is_erased(),
        })
    }

    fn client_msg_id(&self, row: &Row) -> &str {
        self.text(row, row.msg_bytes + row.extra_bytes, u32::from(row.client_msg_id_bytes))
    }

    fn text(&self, row: &Row, skip: u32, bytes: u32) -> &str {
        let from = usize::from(row.at) + skip as usize;
        &self.block(row.block)[from..from + bytes as usize]
    }

    fn block(&self, number: u32) -> &str {
        &self.blocks[number.wrapping_sub(self.blocks_before) as usize]
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
