//! The oldest message of a history that is kept: it moves on by the rules of retention, and never back.
//!
//! What is below stays where it is, in memory or in packs; nobody is shown it. When messages were sent that are not in
//! memory is known from marks, and between two of them from what was read.

use super::{History, Mark, Row};
use crate::conversation::old::{Missing, Old};
use crate::conversation::retention;

impl History {
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

    /// Nothing is kept any more: what is in memory of texts is overwritten. Ids and times stay, as of what retention
    /// took.
    pub(crate) fn keep_nothing(&mut self) {
        let newest = self.newest_message();
        (self.newest_old() + 1..=newest).for_each(|msg_index| self.erase(msg_index));
        self.keep_from(newest.saturating_add(1));
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
}
