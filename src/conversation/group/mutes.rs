//! Mutes of a group: who may not send, and until when. Pure, without a clock.
//!
//! A mute is about a participant, not about a membership: who leaves and comes back is still muted. Few are muted at a
//! time, so it is a list beside the members and costs those who are not muted one look at whether it is empty.

use crate::message::Rejection;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Who is muted, in the order of their numbers; each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mutes(Vec<Mute>);

/// One participant's mute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mute {
    /// Number of the participant.
    pub(crate) participant: u32,
    /// From this second of Unix time on they may send again; never 0.
    pub(crate) until_s: u64,
}

impl Mutes {
    /// Whether nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, those that are over too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mute> {
        self.0.iter()
    }

    /// Until when a participant is muted; 0 for not at all.
    pub(crate) fn until_s(&self, participant: u32) -> u64 {
        self.place_of(participant).map_or(0, |place| self.0[place].until_s)
    }

    /// The same, as of this time of the conversation: 0 for a mute that is over too.
    pub(crate) fn until_s_after(&self, participant: u32, timestamp_ns: u64) -> u64 {
        let until_s = self.until_s(participant);
        if is_before(timestamp_ns, until_s) { until_s } else { 0 }
    }

    /// Mutes a participant until then; 0 ends it.
    pub(crate) fn set(&mut self, participant: u32, until_s: u64) {
        match (self.place_of(participant), until_s) {
            (Ok(place), 0) => {
                self.0.remove(place);
            }
            (Ok(place), _) => self.0[place].until_s = until_s,
            (Err(_), 0) => {}
            (Err(place), _) => self.0.insert(place, Mute { participant, until_s }),
        }
    }

    /// Drops those that are over at this time of the conversation.
    pub(super) fn forget_past(&mut self, timestamp_ns: u64) {
        self.0.retain(|mute| is_before(timestamp_ns, mute.until_s));
    }

    /// Refuses a participant who is muted at this time of the conversation.
    pub(crate) fn refuse(&self, participant: u32, timestamp_ns: u64) -> Result<(), Rejection> {
        match self.until_s_after(participant, timestamp_ns) {
            0 => Ok(()),
            until_s => Err(Rejection::Muted { until_s }),
        }
    }

    fn place_of(&self, participant: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&participant, |mute| mute.participant)
    }
}

/// Whether a moment is before the beginning of a second.
pub(super) fn is_before(timestamp_ns: u64, second: u64) -> bool {
    timestamp_ns / NANOS_PER_SECOND < second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mute_ends_with_the_second_that_it_names() {
        let mut mutes = Mutes::default();
        mutes.set(3, 10);
        assert_eq!(mutes.refuse(3, 9_999_999_999), Err(Rejection::Muted { until_s: 10 }));
        assert_eq!(mutes.refuse(3, 10_000_000_000), Ok(()));
        assert_eq!(mutes.refuse(2, 0), Ok(()));
        mutes.set(3, u64::MAX);
        assert_eq!(mutes.refuse(3, u64::MAX), Err(Rejection::Muted { until_s: u64::MAX }));
    }

    #[test]
    fn each_is_muted_once_and_those_that_are_over_go() {
        let mut mutes = Mutes::default();
        for (participant, until_s) in [(5, 9), (1, 7), (3, 8), (5, 20), (9, 0), (3, 0)] {
            mutes.set(participant, until_s);
        }
        let all = |mutes: &Mutes| mutes.iter().map(|it| (it.participant, it.until_s)).collect::<Vec<_>>();
        assert_eq!(all(&mutes), [(1, 7), (5, 20)]);
        mutes.forget_past(7_000_000_000);
        assert_eq!(all(&mutes), [(5, 20)]);
        mutes.set(5, 0);
        assert!(mutes.is_empty());
    }
}
