//! What has become of messages, for who reads the log.

use super::{Durable, State};
use crate::conversation::feed::Fate;

impl State {
    /// What has become of these messages, each of which was sent here, as far as it is durable; but a group counts as
    /// dismissed from the moment on at which that was accepted.
    pub(crate) fn fates(&self, messages: &[u32], durable: Durable) -> Vec<Fate> {
        messages.iter().map(|msg_index| self.fate_of(*msg_index, durable)).collect()
    }

    fn fate_of(&self, msg_index: u32, durable: Durable) -> Fate {
        let recall_index = self.history.recall_of(msg_index);
        if recall_index != 0 && recall_index <= durable.recalls {
            Fate::Recalled(recall_index)
        } else if self.is_dismissed() {
            Fate::Dismissed
        } else if msg_index < self.history.kept_from() {
            Fate::Expired
        } else {
            Fate::Readable
        }
    }

    /// Whether it is a group that has ended.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.dismissed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{direct, draft, recall, send};
    use super::*;

    #[test]
    fn only_durable_recalls_count_and_what_is_not_kept_is_expired() {
        let mut state = direct("alice", "bob");
        for number in 1..=4 {
            send(&mut state, "alice", &draft(&format!("text {number}"), ""), number).expect("sent");
        }
        recall(&mut state, "alice", 3).expect("recalled");
        recall(&mut state, "alice", 1).expect("recalled");
        let fates = |state: &State, recalls| state.fates(&[1, 2, 3], Durable { messages: 4, recalls });
        assert_eq!(fates(&state, 0), [Fate::Readable; 3]);
        assert_eq!(fates(&state, 1), [Fate::Readable, Fate::Readable, Fate::Recalled(1)]);
        assert_eq!(fates(&state, 2), [Fate::Recalled(2), Fate::Readable, Fate::Recalled(1)]);
        state.history.keep_from(3);
        assert_eq!(fates(&state, 2), [Fate::Recalled(2), Fate::Expired, Fate::Recalled(1)]);
    }
}
