//! The calls on a conversation: each lets the rules decide, and says what the answer is.
//!
//! The rules are in [`State`](crate::conversation::state::State) and [`group`]. Here is only what they do not know: the
//! clock, the settings of the node, and who is looking.

use std::sync::Arc;

use ractor::ActorProcessingErr;

use super::mailbox::Request;
use super::{Residence, now_ns, reply_unread};
use crate::conversation::completion::{Outcome, Reply};
use crate::conversation::group;
use crate::conversation::old::{Missing, Old};
use crate::conversation::state::{Decision, Durable};
use crate::inbox::Inbox;
use crate::inbox::delivery::Delivery;
use crate::live::{Content, Event};
use crate::message::{Caller, ConversationKey, Draft, Rejection};

impl Residence {
    pub(super) fn send(
        &mut self,
        key: &ConversationKey,
        caller: &Caller,
        draft: Draft,
        old: &Old,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        // Only a retry looks at what was sent before.
        let missing = if draft.client_msg_id.is_empty() { None } else { self.retain(old) };
        if let Some(missing) = missing {
            reply_unread(missing, Request::Send(draft), reply);
            return Ok(());
        }
        let decision = self.state().send(key, &caller.user, &draft, old, now_ns());
        if let Ok(Decision::Needs(missing)) = decision {
            reply_unread(missing, Request::Send(draft), reply);
            return Ok(());
        }
        self.settle(decision, Outcome::Sent, reply)
    }

    pub(super) fn recall(
        &mut self,
        key: &ConversationKey,
        caller: &Caller,
        msg_index: u32,
        old: &Old,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(missing) = self.retain(old) {
            reply_unread(missing, Request::Recall(msg_index), reply);
            return Ok(());
        }
        let window = self.context.recall_window;
        let newest = self.head.durable().messages;
        let decision = self.state().recall(key, &caller.user, msg_index, old, window, now_ns());
        let decision = decision.map_err(|rejection| match rejection {
            // What is not durable yet is nobody's business.
            Rejection::NoSuchMessage { asked, .. } => Rejection::NoSuchMessage { asked, newest },
            other => other,
        });
        if let Ok(Decision::Needs(missing)) = decision {
            reply_unread(missing, Request::Recall(msg_index), reply);
            return Ok(());
        }
        self.settle(decision, Outcome::Recalled, reply)
    }

    /// Looks how much of the conversation is kept by now; what it has to see first.
    pub(super) fn retain(&mut self, old: &Old) -> Option<Missing> {
        let retention = &self.context.retention;
        let now_ns = if retention.is_off() { 0 } else { now_ns() };
        let newest = self.head.durable().messages;
        let history = &mut self.resident.state.history;
        let missing = history.retain(retention, newest, now_ns, old);
        self.head.keep_from(history.kept_from());
        missing
    }

    pub(super) fn ack(
        &mut self,
        key: &ConversationKey,
        caller: &Caller,
        msg_index: u32,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        let decision = self.state().ack(key, &caller.user, msg_index, self.head.durable());
        self.change(decision, reply)
    }

    pub(super) fn change(
        &mut self,
        decision: Result<Decision<'_, ()>, Rejection>,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        self.settle(decision, |()| Outcome::Done, reply)
    }

    /// The same of a group. `ends`: nothing of it is readable from there on.
    pub(super) fn regroup(
        &mut self,
        decision: Result<Decision<'_, ()>, Rejection>,
        ends: bool,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        self.settle(decision, |()| Outcome::Regrouped { ends }, reply)
    }

    pub(super) fn group_info(
        &mut self,
        key: &ConversationKey,
        caller: &Caller,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        let ConversationKey::Group(id) = key else { unreachable!("group calls go to group keys") };
        let info = group::info(self.state(), id, caller).map(Decision::Already);
        self.settle(info, |info| Outcome::Info(Box::new(info)), reply)
    }

    pub(super) fn members(
        &mut self,
        caller: &Caller,
        cursor: &str,
        count: u32,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        let page = group::members(self.state(), caller, cursor, count, now_ns()).map(Decision::Already);
        self.settle(page, |page| Outcome::Members(Box::new(page)), reply)
    }

    pub(super) fn join(&mut self, inbox: Arc<Inbox>, reply: Reply) -> Result<(), ActorProcessingErr> {
        let standing = self.state().standing_of(&inbox.user);
        if standing.is_some() {
            self.audience.join(inbox);
        }
        self.answer_when_durable(Outcome::Standing(standing.map(Box::new)), reply);
        Ok(())
    }

    pub(super) fn acks(&mut self, caller: &Caller, reply: Reply) -> Result<(), ActorProcessingErr> {
        let cursors = self.state().read_cursors(&caller.user).map(Decision::Already);
        self.settle(cursors, Outcome::Cursors, reply)
    }

    pub(super) fn fates(
        &mut self,
        messages: Box<[u32]>,
        old: &Old,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(missing) = self.retain(old) {
            reply_unread(missing, Request::Fates(messages), reply);
            return Ok(());
        }
        let fates = self.state().fates(&messages, self.head.durable());
        if self.state().is_dismissed() {
            // What a crash could still take back may not keep a text from anybody.
            self.answer_when_durable(Outcome::Fates(fates), reply);
        } else {
            reply.send(Ok(Outcome::Fates(fates)));
        }
        Ok(())
    }

    /// Never stored, so it goes past the log.
    pub(super) fn signal(
        &mut self,
        caller: &Caller,
        kind: Box<str>,
        data: Box<str>,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        let timestamp_ns = self.state().next_timestamp_ns(now_ns());
        // A signal carries text too: who may not send may not signal.
        let admitted = self.state().admit(&caller.user).map(|_| ());
        let admitted = admitted.and_then(|()| self.state().refuse_silenced(&caller.user, timestamp_ns));
        if let Err(rejection) = admitted {
            reply.send(Err(rejection));
            return Ok(());
        }
        if !self.state().has_begun() {
            // Strangers are not reached.
            reply.send(Ok(Outcome::Done));
            return Ok(());
        }
        let Durable { messages, recalls } = self.head.durable();
        let content = Content::Signal { user: caller.user.clone(), kind, data };
        let event = Event::new(self.state().key.clone(), messages, recalls, content);
        let Reply { to, permit } = reply;
        self.context.deliveries.give_unannounced(vec![Delivery {
            listeners: self.audience.listeners(),
            lsn: None,
            events: vec![Arc::new(event)],
            apart: Vec::new(),
            permit,
        }]);
        let _ = to.send(Ok(Outcome::Done));
        Ok(())
    }
}
