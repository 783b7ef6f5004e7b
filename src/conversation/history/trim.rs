//! Where a history begins in memory: behind what packs have, and further on once much has gathered.
//!
//! Only what is in packs goes, which its caller knows. Behind it stay the recalls, the hashes of retries that are
//! still remembered, and marks of its age.

use super::{History, Mark, Options, Row};

/// Messages behind the last mark after which the next one is set. A mark costs 16 bytes.
const MARK_MESSAGES: usize = 4096;

impl History {
    /// Begins behind messages that are not there any more, or not here: the next one pushed comes
    /// behind `messages`. Only for an empty history.
    pub(crate) fn begin_behind(&mut self, messages: u32) {
        debug_assert!(self.newest_message() == 0, "it has begun already");
        self.before = messages;
        self.keep_from(messages.saturating_add(1));
    }

    /// Passes over messages that packs have, up to `mark`. Only while none is in memory.
    pub(crate) fn pass_over(&mut self, mark: Mark) {
        debug_assert!(self.rows.is_empty(), "what is in memory is newer than what is not");
        self.before = mark.msg_index;
        self.marks.push(mark);
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

    fn end_of_blocks(&self) -> u32 {
        self.blocks_before.wrapping_add(self.blocks.len() as u32)
    }
}
