//! The way into the log, and of answers that have to wait for the disk.
//!
//! Promises that a record is taken over in memory only once the log has accepted it, and that an answer goes out once
//! everything it says is durable. Which answer that is, is not known here.

use std::sync::atomic::Ordering;

use ractor::ActorProcessingErr;

use super::Residence;
use crate::conversation::completion::{Outcome, Reply, Ticket};
use crate::conversation::record::{Record, extend_hash};
use crate::conversation::state::{Decision, Durable};
use crate::message::Rejection;
use crate::wal::Reason;

impl Residence {
    /// Turns a decision into an append, a barrier or an answer.
    pub(super) fn settle<T>(
        &mut self,
        decision: Result<Decision<'_, T>, Rejection>,
        outcome: impl FnOnce(T) -> Outcome,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        match decision {
            Err(rejection) => reply.send(Err(rejection)),
            Ok(Decision::Already(answer)) => self.answer_when_durable(outcome(answer), reply),
            Ok(Decision::Append(record, answer)) => return self.append(&record, outcome(answer), reply),
            Ok(Decision::Needs(_)) => unreachable!("who may need old messages looks for it first"),
        }
        Ok(())
    }

    /// Hands a record to the log, and takes it over once the log has accepted it.
    fn append(
        &mut self,
        record: &Record<'_>,
        outcome: Outcome,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        self.mark_dirty();
        let news = self.audience.prepare(&self.context, &self.resident.state, record);
        let kind = record.kind();
        let payload = record.encode();
        let hash = extend_hash(self.state().hash, kind, &payload);
        let durable = self.heads_with(record);
        let ticket = Ticket { head: self.head.clone(), durable, barrier_lsn: None, outcome, news, reply };
        // Before it, so that whoever is answered finds the conversation counted.
        let begins = !self.state().has_begun() && !Record::is_relation(kind);
        if begins {
            self.context.count.fetch_add(1, Ordering::Relaxed);
        }
        match self.context.log.append(kind, payload, ticket) {
            Ok(lsn) => {
                self.resident.state.apply(record, lsn.0, hash)?;
                self.audience.settle();
                self.head.weigh(self.state().bytes());
                Ok(())
            }
            Err(refused) => {
                if begins {
                    self.context.count.fetch_sub(1, Ordering::Relaxed);
                }
                refuse(refused.ticket.reply, refused.reason);
                Ok(())
            }
        }
    }

    /// Before the append: a checkpoint that reads the log's end must find every conversation with
    /// records up to there in the list.
    fn mark_dirty(&mut self) {
        if !self.resident.dirty {
            self.resident.dirty = true;
            self.context.dirty.add((*self.resident.state.key).clone());
        }
    }

    pub(super) fn heads(&self) -> Durable {
        let history = &self.state().history;
        Durable { messages: history.newest_message(), recalls: history.newest_recall() }
    }

    fn heads_with(&self, record: &Record<'_>) -> Durable {
        let heads = self.heads();
        match record {
            Record::Send(send) => Durable { messages: send.msg_index, ..heads },
            Record::Recall(recall) => Durable { recalls: recall.recall_index, ..heads },
            Record::Ack(_) | Record::Group(_) | Record::Relation(_) => heads,
        }
    }

    /// An answer that is already true in memory goes out once it is true on disk.
    pub(super) fn answer_when_durable(&mut self, outcome: Outcome, reply: Reply) {
        if self.head.lsn() >= self.state().applied_lsn {
            return reply.send(Ok(outcome));
        }
        let barrier_lsn = Some(self.state().applied_lsn);
        let (head, durable, news) = (self.head.clone(), self.heads(), None);
        let ticket = Ticket { head, durable, barrier_lsn, outcome, news, reply };
        if let Err(refused) = self.context.log.barrier(ticket) {
            refuse(refused.ticket.reply, refused.reason);
        }
    }
}

fn refuse(reply: Reply, reason: Reason) {
    reply.send(Err(match reason {
        Reason::QueueFull => Rejection::Overloaded,
        Reason::NoSpace => Rejection::ReadOnly,
        Reason::Failed => Rejection::LogFailed,
        Reason::Closed => Rejection::Draining,
        Reason::TooLarge => Rejection::Invalid("the call is larger than a log record may be".into()),
    }));
}
