//! Taking over a record, one just appended as one replayed.
//!
//! Promises that nothing is changed by a record that does not continue the state. What a change of a group does is the
//! business of [`group`].

use super::{Inconsistent, State};
use crate::conversation::blocks;
use crate::conversation::group;
use crate::conversation::history::Stored;
use crate::conversation::participants::Participant;
use crate::conversation::record::{AckV1, RecallV1, Record, SendV1};
use crate::message::UserId;

impl State {
    /// Takes over one record. Nothing is changed when it does not continue this state.
    ///
    /// `hash` is the rolling hash with this record.
    pub(crate) fn apply(&mut self, record: &Record<'_>, lsn: u64, hash: u128) -> Result<(), Inconsistent> {
        match record {
            Record::Send(send) => self.apply_send(send)?,
            Record::Recall(recall) => self.apply_recall(recall)?,
            Record::Ack(ack) => self.apply_ack(ack)?,
            Record::Group(change) => group::apply(self, change)?,
            Record::Relation(change) => blocks::apply(self, change)?,
        }
        self.applied_lsn = lsn;
        self.hash = hash;
        Ok(())
    }

    fn apply_send(&mut self, send: &SendV1<'_>) -> Result<(), Inconsistent> {
        let expected = u64::from(self.history.newest_message()) + 1;
        if u64::from(send.msg_index) != expected {
            return Err(self.inconsistent(format!("message {} where {expected} comes next", send.msg_index)));
        }
        let sender = self.user(send.sender)?;
        let number = self.participants.number_or_insert(&sender);
        self.history.push(Stored {
            sender: number,
            timestamp_ns: send.timestamp_ns,
            recall_index: 0,
            client_msg_id: send.client_msg_id,
            msg: send.msg,
            extra: send.extra,
            erased: false,
        });
        self.participants.get_mut(number).read_cursor = send.msg_index;
        self.advance_time(send.timestamp_ns);
        Ok(())
    }

    fn apply_recall(&mut self, recall: &RecallV1<'_>) -> Result<(), Inconsistent> {
        let expected = self.history.newest_recall() + 1;
        if recall.recall_index != expected {
            return Err(
                self.inconsistent(format!("recall {} where {expected} comes next", recall.recall_index))
            );
        }
        let RecallV1 { msg_index, .. } = *recall;
        if msg_index == 0 || msg_index > self.history.newest_message() {
            return Err(self.inconsistent(format!("recall of absent message {msg_index}")));
        }
        if self.history.recall_of(msg_index) != 0 {
            return Err(self.inconsistent(format!("message {msg_index} recalled twice")));
        }
        self.history.push_recall(msg_index);
        self.advance_time(recall.timestamp_ns);
        Ok(())
    }

    fn apply_ack(&mut self, ack: &AckV1<'_>) -> Result<(), Inconsistent> {
        if ack.msg_index > self.history.newest_message() {
            return Err(self.inconsistent(format!("ack of absent message {}", ack.msg_index)));
        }
        let user = self.user(ack.user)?;
        let number = self.participants.number_or_insert(&user);
        let row: &mut Participant = self.participants.get_mut(number);
        row.read_cursor = row.read_cursor.max(ack.msg_index);
        Ok(())
    }

    /// Moves the conversation's clock; it never runs backwards.
    pub(crate) fn advance_time(&mut self, timestamp_ns: u64) {
        self.last_timestamp_ns = self.last_timestamp_ns.max(timestamp_ns);
    }

    /// The id of a participant named by a record; known ones are shared.
    pub(crate) fn user(&self, id: &str) -> Result<UserId, Inconsistent> {
        match self.participants.number_of(id) {
            Some(number) => Ok(self.participants.get(number).user.clone()),
            None => UserId::parse(id).map_err(|why| self.inconsistent(format!("user id {why}"))),
        }
    }

    pub(crate) fn inconsistent(&self, why: String) -> Inconsistent {
        Inconsistent { key: (*self.key).clone(), why }
    }
}
