//! Recalls of a history: which one took which message back, and that the texts of such messages go.
//!
//! Every recall is in memory, also of messages that are not. From when on its text may go is told to it.

use super::{ERASED, History, RECALLED, Row};

impl History {
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
    pub(super) fn recall_of_row(&self, msg_index: u32, row: &Row) -> u32 {
        if row.flags & RECALLED != 0 { self.recall_of(msg_index) } else { 0 }
    }

    /// How many messages behind this one were recalled.
    pub(crate) fn recalled_behind(&self, msg_index: u32) -> u32 {
        let up_to = self.recalled.partition_point(|recall| self.message_of(*recall) <= msg_index);
        (self.recalled.len() - up_to) as u32
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

    /// Overwrites the texts of a message.
    pub(super) fn erase(&mut self, msg_index: u32) {
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
}
