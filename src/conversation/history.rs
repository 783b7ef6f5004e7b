//! History: the ordered messages and recalls of one conversation, in memory.
//!
//! Texts stand in append-only blocks that are never copied when the history grows; a message is a
//! small row that points into a block. Which part of it may be read, and by whom, is not decided
//! here.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A block holds a quarter of what is there already (so slack stays under 25 %), but not less and
/// not more than this; a longer message gets a block of its own.
const BLOCK_BYTES_MIN: usize = 256;
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// One message without its texts.
#[derive(Debug, Clone, Copy)]
struct Row {
    timestamp_ns: u64,
    block: u32,
    at: u32,
    msg_bytes: u32,
    extra_bytes: u32,
    /// Participant number of the sender.
    sender: u32,
    /// The recall that took it back; 0 for none.
    recall_index: u32,
    client_msg_id_bytes: u8,
    /// Whether `msg` and `extra` were overwritten.
    erased: bool,
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
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Row `i` is message `i + 1`.
    rows: Vec<Row>,
    /// Entry `i` is the message that recall `i + 1` took back.
    recalls: Vec<u32>,
    /// The same messages in ascending order.
    recalled: Vec<u32>,
    blocks: Vec<Vec<u8>>,
    text_bytes: usize,
    /// Message indices by sender and `client_msg_id`; only messages that have one.
    retries: HashTable<u32>,
    /// Recalls up to this one have had their texts overwritten.
    erased_through: u32,
}

impl History {
    /// Newest message; 0 when there is none.
    pub(crate) fn newest_message(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Newest recall; 0 when there is none.
    pub(crate) fn newest_recall(&self) -> u32 {
        self.recalls.len() as u32
    }

    /// Roughly what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let recalls = (self.recalls.capacity() + self.recalled.capacity()) * size_of::<u32>();
        let rows = self.rows.capacity() * size_of::<Row>() + recalls;
        // Blocks have up to a quarter of slack; a retry costs its number and a byte of the table.
        rows + self.text_bytes + self.text_bytes / 4 + self.retries.capacity() * 5
    }

    /// Adds the next message. `message.recall_index` must be 0: recalls are added as recalls.
    pub(crate) fn push(&mut self, message: Stored<'_>) {
        let parts = [message.msg, message.extra, message.client_msg_id];
        let (block, at) = self.store(&parts);
        self.rows.push(Row {
            timestamp_ns: message.timestamp_ns,
            block,
            at,
            msg_bytes: message.msg.len() as u32,
            extra_bytes: message.extra.len() as u32,
            sender: message.sender,
            recall_index: 0,
            client_msg_id_bytes: message.client_msg_id.len() as u8,
            erased: message.erased,
        });
        if !message.client_msg_id.is_empty() {
            self.remember_retry(message.sender, message.client_msg_id);
        }
    }

    fn store(&mut self, parts: &[&str]) -> (u32, u32) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let fits = self.blocks.last().is_some_and(|block| block.capacity() - block.len() >= bytes);
        if !fits {
            let grown = (self.text_bytes / 4).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
            self.blocks.push(Vec::with_capacity(grown.max(bytes)));
        }
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        let at = block.len();
        parts.iter().for_each(|part| block.extend_from_slice(part.as_bytes()));
        self.text_bytes += bytes;
        (number as u32, at as u32)
    }

    /// Adds the next recall, of a message that exists and is not recalled.
    pub(crate) fn push_recall(&mut self, msg_index: u32) {
        self.recalls.push(msg_index);
        // Mostly young messages are recalled: the place is near the end.
        let place = self.recalled.partition_point(|recalled| *recalled < msg_index);
        self.recalled.insert(place, msg_index);
        self.rows[msg_index as usize - 1].recall_index = self.recalls.len() as u32;
    }

    /// The message with this index, if it exists.
    pub(crate) fn message(&self, msg_index: u32) -> Option<Stored<'_>> {
        let row = self.rows.get((msg_index as usize).checked_sub(1)?)?;
        let (msg, extra) = match row.erased {
            true => ("", ""),
            false => (self.text(row, 0, row.msg_bytes), self.text(row, row.msg_bytes, row.extra_bytes)),
        };
        Some(Stored {
            sender: row.sender,
            timestamp_ns: row.timestamp_ns,
            recall_index: row.recall_index,
            client_msg_id: self.client_msg_id(row),
            msg,
            extra,
            erased: row.erased,
        })
    }

    fn client_msg_id(&self, row: &Row) -> &str {
        self.text(row, row.msg_bytes + row.extra_bytes, u32::from(row.client_msg_id_bytes))
    }

    fn text(&self, row: &Row, skip: u32, bytes: u32) -> &str {
        let from = (row.at + skip) as usize;
        let slice = &self.blocks[row.block as usize][from..from + bytes as usize];
        std::str::from_utf8(slice).expect("only whole texts are stored and erased")
    }

    /// The message that this recall took back, if the recall exists.
    pub(crate) fn recalled_by(&self, recall_index: u32) -> Option<u32> {
        self.recalls.get((recall_index as usize).checked_sub(1)?).copied()
    }

    /// How many messages behind this one were recalled.
    pub(crate) fn recalled_behind(&self, msg_index: u32) -> u32 {
        (self.recalled.len() - self.recalled.partition_point(|recalled| *recalled <= msg_index)) as u32
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
        let row = &mut self.rows[msg_index as usize - 1];
        if row.erased {
            return;
        }
        row.erased = true;
        let from = row.at as usize;
        let to = from + (row.msg_bytes + row.extra_bytes) as usize;
        self.blocks[row.block as usize][from..to].fill(0);
    }

    /// The message that `sender` sent under this `client_msg_id`.
    pub(crate) fn find_retry(&self, sender: u32, client_msg_id: &str) -> Option<u32> {
        let same = |index: &u32| {
            let row = &self.rows[*index as usize - 1];
            row.sender == sender && self.client_msg_id(row) == client_msg_id
        };
        self.retries.find(retry_hash(sender, client_msg_id), same).copied()
    }

    fn remember_retry(&mut self, sender: u32, client_msg_id: &str) {
        let newest = self.newest_message();
        let mut retries = std::mem::take(&mut self.retries);
        let rehash = |index: &u32| {
            let row = &self.rows[*index as usize - 1];
            retry_hash(row.sender, self.client_msg_id(row))
        };
        retries.insert_unique(retry_hash(sender, client_msg_id), newest, rehash);
        self.retries = retries;
    }
}

fn retry_hash(sender: u32, client_msg_id: &str) -> u64 {
    xxh3_64_with_seed(client_msg_id.as_bytes(), u64::from(sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(client_msg_id: &'a str, msg: &'a str, extra: &'a str) -> Stored<'a> {
        Stored { sender: 1, timestamp_ns: 9, recall_index: 0, client_msg_id, msg, extra, erased: false }
    }

    #[test]
    fn messages_of_any_length_come_back() {
        let mut history = History::default();
        let texts: Vec<String> = (0..200).map(|i| "ä".repeat(i * i % 50_000)).collect();
        for text in &texts {
            history.push(message("", text, "e"));
        }
        for (text, index) in texts.iter().zip(1..) {
            assert_eq!(history.message(index), Some(message("", text, "e")));
        }
        assert_eq!(history.message(0), None);
        assert_eq!(history.message(201), None);
    }

    #[test]
    fn a_retry_is_found_by_sender_and_id_also_after_erasure() {
        let mut history = History::default();
        for i in 0..1_000 {
            history.push(message(&format!("id-{i}"), "text", "extra"));
        }
        history.push_recall(500);
        history.erase_through(1);
        for i in 0..1_000 {
            assert_eq!(history.find_retry(1, &format!("id-{i}")), Some(i + 1));
        }
        assert_eq!(history.find_retry(2, "id-1"), None);
        assert_eq!(history.find_retry(1, "id-1000"), None);
    }

    #[test]
    fn recalled_messages_behind_any_one_are_counted_whatever_their_order() {
        let mut history = History::default();
        (0..10).for_each(|_| history.push(message("", "text", "")));
        for (recalled, index) in [7, 2, 9, 8, 1].into_iter().zip(1..) {
            history.push_recall(recalled);
            assert_eq!(history.recalled_behind(0), index);
        }
        let behind: Vec<_> = (0..=10).map(|index| history.recalled_behind(index)).collect();
        assert_eq!(behind, [5, 4, 3, 3, 3, 3, 3, 2, 1, 0, 0]);
    }

    #[test]
    fn erased_texts_are_gone_from_memory() {
        let mut history = History::default();
        history.push(message("c", "secret", "attached"));
        history.push(message("", "kept", ""));
        history.push_recall(1);
        assert_eq!(history.message(1).map(|m| (m.msg, m.recall_index)), Some(("secret", 1)));
        history.erase_through(1);
        assert_eq!(history.message(1).map(|m| (m.msg, m.extra)), Some(("", "")));
        let blocks = history.blocks.concat();
        assert!(!blocks.windows(6).any(|window| window == b"secret" || window == b"attach"));
        assert_eq!(history.message(2), Some(message("", "kept", "")));
    }
}
