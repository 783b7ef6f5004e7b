//! Messages of a history as they stand, for a page that copies them: few texts instead of many.

use super::{History, Row};
use crate::message::Placed;

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

impl History {
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
}
