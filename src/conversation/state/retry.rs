//! Whether a draft was sent before, and is answered as it was then.

use super::{Found, State};
use crate::conversation::history::Stored;
use crate::conversation::old::{Missing, Old};
use crate::message::{Draft, Receipt, Rejection, UserId};

/// What a send with a `client_msg_id` is.
pub(super) enum Retry {
    New,
    Of(Receipt),
    Needs(Missing),
}

impl State {
    /// Whether this draft was sent before. What was sent too long ago is not looked for, wherever it
    /// is by now: the answers do not depend on what is in memory.
    pub(super) fn retry_of(
        &self,
        sender: &UserId,
        draft: &Draft,
        old: &Old,
        now_ns: u64,
    ) -> Result<Retry, Rejection> {
        let id = draft.client_msg_id.as_str();
        if id.is_empty() {
            return Ok(Retry::New);
        }
        let Some(number) = self.participants.number_of(sender.as_str()) else { return Ok(Retry::New) };
        let mut first = self.history.find_retry(number, id);
        let mut below = u32::MAX;
        while first.is_none() {
            let Some(candidate) = self.history.find_old_retry(number, id, below) else { break };
            if candidate <= old.gone_through() {
                // Only what is forgotten is ever gone.
                break;
            }
            let Some(message) = old.message(candidate) else {
                return Ok(Retry::Needs(Missing(candidate..=candidate)));
            };
            first = Some(candidate).filter(|_| message.sender == number && message.client_msg_id == id);
            below = candidate;
        }
        match first.map(|msg_index| (msg_index, self.find(msg_index, old))) {
            Some((msg_index, Found::Message(first))) => self.compare(msg_index, &first, draft, now_ns),
            _ => Ok(Retry::New),
        }
    }

    /// Of a message that was recalled, or is not kept, nothing may be left to compare with: its id alone
    /// makes the retry.
    fn compare(
        &self,
        msg_index: u32,
        first: &Stored<'_>,
        draft: &Draft,
        now_ns: u64,
    ) -> Result<Retry, Rejection> {
        let timestamp_ns = first.timestamp_ns;
        if !self.history.remembers(msg_index, timestamp_ns, now_ns) {
            return Ok(Retry::New);
        }
        let is_gone = first.erased || first.recall_index != 0 || msg_index < self.history.kept_from();
        if !is_gone && (first.msg != draft.msg || first.extra != draft.extra) {
            return Err(Rejection::ClientIdReused);
        }
        Ok(Retry::Of(Receipt { msg_index, timestamp_ns, duplicate: true }))
    }
}
