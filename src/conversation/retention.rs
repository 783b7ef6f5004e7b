//! Retention: how much of a conversation is kept, by age and by number.
//!
//! A rule says which message is the oldest that is kept. What is below is not shown from the moment
//! on at which the rule says so; it leaves the disk when packs are merged. Ages are counted in whole
//! hours, so that the oldest message that is kept changes once an hour and not with every look.

use std::time::Duration;

const HOUR_NS: u64 = 3_600_000_000_000;

/// What is kept of every conversation. Off where there is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Messages up to this age, and up to an hour more.
    pub age: Option<Duration>,
    /// The newest so many messages.
    pub count: Option<u32>,
}

impl Options {
    /// Whether everything is kept.
    pub(crate) fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Messages from before are too old at `now_ns`; 0 when none is.
    pub(crate) fn cutoff_ns(&self, now_ns: u64) -> u64 {
        let Some(age) = self.age else { return 0 };
        let cutoff = now_ns.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        cutoff - cutoff % HOUR_NS
    }

    /// How many of the oldest messages are too many when there are `messages`.
    pub(crate) fn excess(&self, messages: u32) -> u32 {
        self.count.map_or(0, |count| messages.saturating_sub(count))
    }
}
