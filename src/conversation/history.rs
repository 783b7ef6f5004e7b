//! History: the ordered messages and recalls of one conversation, in memory.
//!
//! Texts stand in append-only blocks that are never copied when the history grows; a message is a
//! small row that points into a block. Of a long conversation only the newest part is here; of the
//! older part, which packs have, what must be known without reading them: every recall, and which
//! retries are remembered ([`OldRetries`]). Which part may be read, and by whom, is not decided
//! here, nor is anything read from packs.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::old_retries::OldRetries;
use self::room::{GROWTH, block_bytes, place_in, rows_with_room};
use super::old::{Missing, Old};
use super::retention;
use crate::message::Placed;

mod old_retries;
mod room;

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

/// Messages behind the last mark after which the next one is set. A mark costs 16 bytes.
const MARK_MESSAGES: usize = 4096;

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

/// Messages that follow each other and whose texts stand together.
pub(crate) struct Part<'a> {
    first: u32,
    rows: &'a [Row],
    history: &'a History,
    /// All of their texts, and what stands between them.
    pub(crate) text: &'a str,
}

impl Part<'_> {
    /// The messages, each with the place of its texts, and whether they are gone. `sender` is the
    /// number of a participant.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (Placed, bool)> {
        let begin = u32::from(self.rows[0].at);
        (self.first..).zip(self.rows).map(move |(msg_index, row)| {
            let msg_from = u32::from(row.at) - begin;
            let extra_from = msg_from + row.msg_bytes;
            let placed = Placed {
                timestamp_ns: row.timestamp_ns(),
                msg_index,
                recall_index: self.history.recall_of_row(msg_index, row),
                sender: row.sender,
                msg_from,
                extra_from,
                to: extra_from + row.extra_bytes,
            };
            (placed, row.is_erased())
        })
    }
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

    /// Adds the next recall, of a message that exists and is not recalled.
    pub(crate) fn push_recall(&mut self, msg_index: u32) {
        self.recalls.push(msg_index);
        let recall_index = self.recalls.len() as u32;
        // Mostly young messages are recalled: the place is near the end.
        let place = self.recalled.partition_point(|recall| self.message_of(*recall) < msg_index);
        self.recalled.insert(place, recall_index);
        if let Some(row) = self.row_mut(msg_index) {
            row.flags |= RECALLED;
        }
    }

    /// Adds many: an insertion each would take the square of their number.
    ///
    /// # Errors
    /// The message that does not exist, or is recalled twice; then the history is of no more use.
    pub(crate) fn push_recalls(&mut self, messages: &[u32]) -> Result<(), u32> {
        let newest = self.newest_message();
        if let Some(absent) = messages.iter().find(|index| **index == 0 || **index > newest) {
            return Err(*absent);
        }
        if messages.is_empty() {
            return Ok(());
        }
        let first = self.newest_recall() + 1;
        self.recalls.extend_from_slice(messages);
        self.recalled.extend(first..=self.newest_recall());
        let recalls = &self.recalls;
        // Stable, which is quick where most is in order.
        self.recalled.sort_by_key(|recall| recalls[*recall as usize - 1]);
        let same = |pair: &&[u32]| recalls[pair[0] as usize - 1] == recalls[pair[1] as usize - 1];
        if let Some(pair) = self.recalled.windows(2).find(same) {
            return Err(recalls[pair[0] as usize - 1]);
        }
        for msg_index in messages {
            if let Some(row) = self.row_mut(*msg_index) {
                row.flags |= RECALLED;
            }
        }
        Ok(())
    }

    fn message_of(&self, recall_index: u32) -> u32 {
        self.recalls[recall_index as usize - 1]
    }

    /// The recall that took this message back, in memory or not; 0 for none.
    pub(crate) fn recall_of(&self, msg_index: u32) -> u32 {
        let found = self.recalled.binary_search_by_key(&msg_index, |recall| self.message_of(*recall));
        found.map_or(0, |place| self.recalled[place])
    }

    /// The same of a message in memory, without a search where there is nothing to find.
    fn recall_of_row(&self, msg_index: u32, row: &Row) -> u32 {
        if row.flags & RECALLED != 0 { self.recall_of(msg_index) } else { 0 }
    }

    /// How many messages behind this one were recalled.
    pub(crate) fn recalled_behind(&self, msg_index: u32) -> u32 {
        let up_to = self.recalled.partition_point(|recall| self.message_of(*recall) <= msg_index);
        (self.recalled.len() - up_to) as u32
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

    /// Messages from `first` to `last`, which are in memory, in parts whose texts stand together.
    pub(crate) fn parts(&self, first: u32, last: u32) -> impl Iterator<Item = Part<'_>> {
        let from = (first - self.before - 1) as usize;
        let rows = &self.rows[from..from + (last + 1 - first) as usize];
        let mut msg_index = first;
        rows.chunk_by(|row, next| row.block == next.block).map(move |rows| {
            let part = Part { first: msg_index, rows, history: self, text: self.text_around(rows) };
            msg_index += rows.len() as u32;
            part
        })
    }

    /// The texts of rows of one block, which follow each other in it.
    fn text_around(&self, rows: &[Row]) -> &str {
        let (first, last) = (&rows[0], &rows[rows.len() - 1]);
        let to = usize::from(last.at) + (last.msg_bytes + last.extra_bytes) as usize;
        &self.block(first.block)[usize::from(first.at)..to]
    }

    fn block(&self, number: u32) -> &str {
        &self.blocks[number.wrapping_sub(self.blocks_before) as usize]
    }

    /// The message that this recall took back, if the recall exists.
    pub(crate) fn recalled_by(&self, recall_index: u32) -> Option<u32> {
        self.recalls.get((recall_index as usize).checked_sub(1)?).copied()
    }

    /// Overwrites the texts of everything that recalls up to `recall_index` took back.
    pub(crate) fn erase_through(&mut self, recall_index: u32) {
        while self.erased_through < recall_index {
            let msg_index = self.recalls[self.erased_through as usize];
            self.erase(msg_index);
            self.erased_through += 1;
        }
    }

    fn erase(&mut self, msg_index: u32) {
        // What is not in memory has no text to overwrite.
        let Some(row) = self.row_mut(msg_index) else { return };
        if row.is_erased() {
            return;
        }
        row.flags |= ERASED;
        let (from, block) = (usize::from(row.at), row.block);
        let to = from + (row.msg_bytes + row.extra_bytes) as usize;
        // As long as what it replaces, so that it takes the same place in memory.
        let zeros = "\0".repeat(to - from);
        self.blocks[block.wrapping_sub(self.blocks_before) as usize].replace_range(from..to, &zeros);
    }

    /// The newest message in memory that `sender` sent under this `client_msg_id`.
    pub(crate) fn find_retry(&self, sender: u32, client_msg_id: &str) -> Option<u32> {
        let same = |index: &u32| self.is_retry(*index, sender, client_msg_id);
        self.retries.find(retry_hash(sender, client_msg_id), same).copied()
    }

    /// The newest message below `below` that is not in memory and may have been sent by `sender`
    /// under this `client_msg_id`: only its text can tell.
    pub(crate) fn find_old_retry(&self, sender: u32, client_msg_id: &str, below: u32) -> Option<u32> {
        self.old_retries.find(retry_hash(sender, client_msg_id), below)
    }

    /// Whether a retry of this message is to be recognized by a send at `now_ns`.
    pub(crate) fn remembers(&self, msg_index: u32, timestamp_ns: u64, now_ns: u64) -> bool {
        is_remembered(&self.options, self.newest_message(), now_ns, msg_index, timestamp_ns)
    }

    fn is_retry(&self, msg_index: u32, sender: u32, client_msg_id: &str) -> bool {
        let row = self.row(msg_index);
        row.is_some_and(|row| row.sender == sender && self.client_msg_id(row) == client_msg_id)
    }

    fn hash_of(&self, msg_index: u32) -> u64 {
        let row = self.row(msg_index).expect("the table names messages in memory");
        retry_hash(row.sender, self.client_msg_id(row))
    }

    fn remember_retry(&mut self, sender: u32, client_msg_id: &str) {
        let newest = self.newest_message();
        let mut retries = std::mem::take(&mut self.retries);
        let same = |index: &u32| self.is_retry(*index, sender, client_msg_id);
        match retries.entry(retry_hash(sender, client_msg_id), same, |index| self.hash_of(*index)) {
            Entry::Occupied(mut older) => *older.get_mut() = newest,
            Entry::Vacant(place) => drop(place.insert(newest)),
        }
        self.retries = retries;
    }

    /// Begins behind messages that are not there any more, or not here: the next one pushed comes
    /// behind `messages`. Only for an empty history.
    pub(crate) fn begin_behind(&mut self, messages: u32) {
        debug_assert!(self.newest_message() == 0, "it has begun already");
        self.before = messages;
        self.keep_from(messages.saturating_add(1));
    }

    /// The oldest message that is kept; one behind the newest when none is.
    pub(crate) fn kept_from(&self) -> u32 {
        self.kept_from
    }

    /// Nothing below this message is kept any more.
    pub(crate) fn keep_from(&mut self, msg_index: u32) {
        if msg_index > self.kept_from {
            (self.kept_from, self.kept_from_ns) = (msg_index, None);
        }
    }

    /// Applies the rules of retention at `now_ns` to the messages up to `newest`. Says which messages
    /// it has to see first; those in `old` it sees.
    pub(crate) fn retain(
        &mut self,
        retention: &retention::Options,
        newest: u32,
        now_ns: u64,
        old: &Old,
    ) -> Option<Missing> {
        self.keep_from(old.hollow_through() + 1);
        if retention.is_off() {
            return None;
        }
        self.keep_from(retention.excess(newest) + 1);
        let cutoff_ns = retention.cutoff_ns(now_ns);
        if cutoff_ns == 0 || self.kept_from_ns.is_some_and(|ns| ns >= cutoff_ns) {
            return None;
        }
        match self.first_since(cutoff_ns, newest, old) {
            Ok((msg_index, timestamp_ns)) => {
                self.keep_from(msg_index);
                self.kept_from_ns = timestamp_ns;
                None
            }
            Err(missing) => Some(missing),
        }
    }

    /// The first message that is kept, not older than `cutoff_ns` and not behind `newest`; and when
    /// it was sent.
    fn first_since(&self, cutoff_ns: u64, newest: u32, old: &Old) -> Result<(u32, Option<u64>), Missing> {
        let is_before = |mark: &Mark| mark.msg_index < self.kept_from || mark.timestamp_ns < cutoff_ns;
        let next = self.marks.partition_point(is_before);
        let Some(mark) = self.marks.get(next) else {
            let first = self.rows.partition_point(|row| row.timestamp_ns() < cutoff_ns);
            let first = (self.before + first as u32 + 1).max(self.kept_from).min(newest + 1);
            return Ok((first, self.row(first).map(Row::timestamp_ns)));
        };
        let behind = next.checked_sub(1).map_or(0, |at| self.marks[at].msg_index);
        let span = self.kept_from.max(behind + 1)..=mark.msg_index;
        let ages = span.clone().map(|msg_index| (msg_index, old.message(msg_index)));
        for (msg_index, message) in ages {
            let Some(message) = message else { return Err(Missing(span)) };
            if message.timestamp_ns >= cutoff_ns {
                return Ok((msg_index, Some(message.timestamp_ns)));
            }
        }
        Ok((mark.msg_index, Some(mark.timestamp_ns)))
    }

    /// Passes over messages that packs have, up to `mark`. Only while none is in memory.
    pub(crate) fn pass_over(&mut self, mark: Mark) {
        debug_assert!(self.rows.is_empty(), "what is in memory is newer than what is not");
        self.before = mark.msg_index;
        self.marks.push(mark);
    }

    /// Remembers under which id a message that is not in memory was sent.
    pub(crate) fn remember_old_retry(&mut self, sender: u32, client_msg_id: &str, msg_index: u32) {
        self.old_retries.add(retry_hash(sender, client_msg_id), msg_index);
    }

    /// Lets go of the oldest messages, once there are many more than are to stay. `saved_messages`
    /// are in packs; only those can go. Whether any went.
    pub(crate) fn trim(&mut self, saved_messages: u32) -> bool {
        let Options { recent_messages, recent_text_bytes, .. } = self.options;
        let many = self.rows.len() > 2 * recent_messages as usize;
        if !many && self.text_bytes <= 2 * recent_text_bytes {
            return false;
        }
        let saved = saved_messages.saturating_sub(self.before) as usize;
        let goes = self.first_to_stay().min(saved);
        if goes > 0 {
            self.let_go(goes);
        }
        goes > 0
    }

    /// The row from which on no limit is passed.
    fn first_to_stay(&self) -> usize {
        let mut text_bytes = 0;
        let fits = |row: &&Row| {
            let ends = row.msg_bytes + row.extra_bytes + u32::from(row.client_msg_id_bytes);
            text_bytes += ends as usize;
            text_bytes <= self.options.recent_text_bytes
        };
        let newest = self.rows.iter().rev().take(self.options.recent_messages as usize);
        self.rows.len() - newest.take_while(fits).count()
    }

    fn let_go(&mut self, rows: usize) {
        let last_to_go = self.before + rows as u32;
        self.remember_old_retries(rows);
        for part in self.rows[..rows].chunks(MARK_MESSAGES) {
            let (last, before) = (part[part.len() - 1], self.before + part.len() as u32);
            self.marks.push(Mark { msg_index: before, timestamp_ns: last.timestamp_ns() });
            self.before = before;
        }
        self.rows.drain(..rows);
        self.rows.shrink_to(2 * self.rows.len());
        let first_block = self.rows.first().map_or(self.end_of_blocks(), |row| row.block);
        while self.blocks_before != first_block {
            let gone = self.blocks.pop_front().expect("rows point to blocks that are there");
            self.text_bytes -= gone.len();
            self.blocks_before = self.blocks_before.wrapping_add(1);
        }
        self.forget_retries_through(last_to_go);
    }

    fn forget_retries_through(&mut self, msg_index: u32) {
        let mut retries = std::mem::take(&mut self.retries);
        retries.retain(|index| *index > msg_index);
        retries.shrink_to(2 * retries.len(), |index| self.hash_of(*index));
        self.retries = retries;
    }

    fn end_of_blocks(&self) -> u32 {
        self.blocks_before.wrapping_add(self.blocks.len() as u32)
    }

    /// Notes the ids of the oldest rows, which are about to go, and forgets what is too old by now.
    fn remember_old_retries(&mut self, rows: usize) {
        let newest = self.newest_message();
        let now_ns = self.rows.last().map_or(0, Row::timestamp_ns);
        let is_remembered = |index, ns| is_remembered(&self.options, newest, now_ns, index, ns);
        let forgotten = self.marks.partition_point(|mark| !is_remembered(mark.msg_index, mark.timestamp_ns));
        if let Some(mark) = forgotten.checked_sub(1) {
            self.old_retries.forget_through(self.marks[mark].msg_index);
        }
        for (row, msg_index) in self.rows[..rows].iter().zip(self.before + 1..) {
            if row.client_msg_id_bytes > 0 && is_remembered(msg_index, row.timestamp_ns()) {
                self.old_retries.add(retry_hash(row.sender, self.client_msg_id(row)), msg_index);
            }
        }
    }
}

/// Whether a send at `now_ns`, behind the message `newest`, is to recognize a retry of `msg_index`.
pub(crate) fn is_remembered(
    options: &Options,
    newest: u32,
    now_ns: u64,
    msg_index: u32,
    timestamp_ns: u64,
) -> bool {
    newest.saturating_sub(msg_index) < options.retry_messages
        || Duration::from_nanos(now_ns.saturating_sub(timestamp_ns)) <= options.retry_age
}

/// New in every process, so that nobody can choose ids that collide.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));

fn retry_hash(sender: u32, client_msg_id: &str) -> u64 {
    xxh3_64_with_seed(client_msg_id.as_bytes(), *SEED ^ u64::from(sender))
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
