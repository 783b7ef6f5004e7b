//! What the rounds came across: a test that never meets its cases proves nothing.

/// How often the cases came up that the test is for.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) crashes: u64,
    pub(super) records: u64,
    pub(super) torn_tails: u64,
    pub(super) lost_suffixes: u64,
    pub(super) failed_logs: u64,
    pub(super) checkpoints: u64,
    pub(super) compactions: u64,
    pub(super) passivated: u64,
    pub(super) faulty_recoveries: u64,
    pub(super) full_disks: u64,
    pub(super) quarantined: u64,
    pub(super) forced_rotations: u64,
    pub(super) reloaded: u64,
    pub(super) trimmed: u64,
    pub(super) loaded_in_part: u64,
    /// Calls that needed old messages, and what they came to.
    pub(super) old_pages: u64,
    pub(super) old_recalls: u64,
    pub(super) old_retries: u64,
    pub(super) old_ids_reused: u64,
    /// Pages that did not begin with the first message.
    pub(super) retained: u64,
    /// Sends of who was muted, and groups that ended.
    pub(super) muted: u64,
    pub(super) dismissed: u64,
    /// Sends of who was blocked.
    pub(super) blocked: u64,
}

impl Seen {
    fn counts(&mut self) -> [&mut u64; 23] {
        [
            &mut self.crashes,
            &mut self.records,
            &mut self.torn_tails,
            &mut self.lost_suffixes,
            &mut self.failed_logs,
            &mut self.checkpoints,
            &mut self.compactions,
            &mut self.passivated,
            &mut self.faulty_recoveries,
            &mut self.full_disks,
            &mut self.quarantined,
            &mut self.trimmed,
            &mut self.loaded_in_part,
            &mut self.old_pages,
            &mut self.old_recalls,
            &mut self.old_retries,
            &mut self.old_ids_reused,
            &mut self.retained,
            &mut self.muted,
            &mut self.dismissed,
            &mut self.blocked,
            &mut self.forced_rotations,
            &mut self.reloaded,
        ]
    }

    pub(super) fn is_everything(&mut self) -> bool {
        self.counts().iter().all(|count| **count > 0)
    }

    pub(super) fn add(&mut self, other: &mut Self) {
        for (count, more) in self.counts().into_iter().zip(other.counts()) {
            *count += *more;
        }
    }
}
