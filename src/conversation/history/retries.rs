//! Retries of a history: which message was sent by whom under which `client_msg_id`, and how long that is remembered.
//!
//! Of a message in memory the answer is certain. Of another there is a hash ([`OldRetries`](super::OldRetries)): whoever
//! asks reads it and compares. Whether a retry says the same as the first send is not looked at here.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{History, Options, Row};

impl History {
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

    pub(super) fn remember_retry(&mut self, sender: u32, client_msg_id: &str) {
        let newest = self.newest_message();
        let mut retries = std::mem::take(&mut self.retries);
        let same = |index: &u32| self.is_retry(*index, sender, client_msg_id);
        match retries.entry(retry_hash(sender, client_msg_id), same, |index| self.hash_of(*index)) {
            Entry::Occupied(mut older) => *older.get_mut() = newest,
            Entry::Vacant(place) => drop(place.insert(newest)),
        }
        self.retries = retries;
    }

    /// Remembers under which id a message that is not in memory was sent.
    pub(crate) fn remember_old_retry(&mut self, sender: u32, client_msg_id: &str, msg_index: u32) {
        self.old_retries.add(retry_hash(sender, client_msg_id), msg_index);
    }

    /// Notes the ids of the oldest rows, which are about to go, and forgets what is too old by now.
    pub(super) fn remember_old_retries(&mut self, rows: usize) {
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

    pub(super) fn forget_retries_through(&mut self, msg_index: u32) {
        let mut retries = std::mem::take(&mut self.retries);
        retries.retain(|index| *index > msg_index);
        retries.shrink_to(2 * retries.len(), |index| self.hash_of(*index));
        self.retries = retries;
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
