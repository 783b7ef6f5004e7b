//! The actor of one conversation: ractor glue around [`State`].
//!
//! It orders the calls on its conversation, lets the rules decide, hands records to the log and
//! handles the next call at once: it never waits for the disk. Answers that depend on the disk
//! travel through the log as a ticket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tracing::error;

use super::admission::Permit;
use super::archive::Archive;
use super::audience::{self, Audience};
use super::checkpoint::DirtyList;
use super::chunk::{Chunk, Saved};
use super::completion::{Deliveries, Outcome, PageFound, Reply, Ticket};
use super::durable::DurableHead;
use super::encoded::{EncodedPages, Keep};
use super::group;
use super::history;
use super::old::{Missing, Old};
use super::record::{Record, extend_hash};
use super::resident::Resident;
use super::retention;
use super::shown::Shown;
use super::state::{Decision, Durable, Pulled, State};
use crate::inbox::delivery::Delivery;
use crate::inbox::newcomers::Newcomers;
use crate::inbox::{Inbox, Inboxes};
use crate::live::{Content, Event};
use crate::message::{Caller, ConversationKey, Draft, Page, Pull, Rejection, UserId};
use crate::wal::{Reason, Wal};

/// What every conversation of a node needs.
pub(crate) struct Context {
    pub(crate) log: Arc<Wal<Ticket>>,
    pub(crate) archive: Arc<Archive>,
    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) recall_window: Option<Duration>,
    /// How much of a long conversation is in memory.
    pub(crate) history: history::Options,
    /// How much of a conversation is kept.
    pub(crate) retention: retention::Options,
    /// Changes only when a restore took history back.
    pub(crate) epoch: u32,
    /// Conversations in which something has happened, in memory or not.
    pub(crate) count: AtomicUsize,
    /// Who is looking.
    pub(crate) inboxes: Arc<Inboxes>,
    pub(crate) newcomers: Newcomers,
    pub(crate) deliveries: Deliveries,
    pub(crate) pages: Arc<EncodedPages>,
}

/// What a caller wants of a conversation.
#[derive(Debug)]
pub(crate) enum Request {
    Send(Draft),
    Recall(u32),
    Ack(u32),
    Pull {
        pull: Pull,
        /// Whether the caller takes a page that is encoded already.
        encoded: bool,
    },
    CreateGroup {
        name: String,
        members: Vec<UserId>,
    },
    AddMembers(Vec<UserId>),
    KickMembers(Vec<UserId>),
    LeaveGroup,
    GroupInfo,
    Members {
        cursor: String,
        count: u32,
    },
    /// The inbox hears from here on what happens; the answer is where the conversation stands for
    /// its user.
    Join(Arc<Inbox>),
    Acks,
    Signal {
        kind: Box<str>,
        data: Box<str>,
    },
}

/// One call in the mailbox.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) request: Request,
    /// What was read for it of messages that are not in memory.
    pub(crate) old: Old,
    pub(crate) reply: Reply,
}

/// What a pull gets from the actor.
enum Found {
    Outcome(Outcome),
    /// Ask again with these messages, which are not in memory.
    Needs(Missing),
}

/// What a call waits for that is not in memory, and the call again.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) missing: Missing,
    pub(crate) request: Request,
}

/// The mailbox.
#[derive(Debug)]
pub(crate) enum Message {
    /// A client's call.
    Call(Call),
    /// The snapshot wants the next chunks behind what it has.
    Collect { saved: Saved, to: oneshot::Sender<Vec<Chunk>>, permit: Permit },
    /// The inbox is closed.
    Part(Arc<Inbox>),
    /// For tests of what a bug in here may cost.
    #[cfg(test)]
    Panic,
}

// ractor moves a message whole into a box and out again.
const _: () = assert!(size_of::<Message>() <= 192);

/// The actor's behaviour; its state is a [`Residence`].
pub(crate) struct Conversation;

/// Where an actor's state comes from.
pub(crate) enum Origin {
    /// Nowhere: the conversation begins.
    New,
    /// The disk.
    Archive,
}

/// What an actor starts with.
pub(crate) struct Start {
    pub(crate) context: Arc<Context>,
    pub(crate) head: Arc<DurableHead>,
    pub(crate) origin: Origin,
}

/// What the actor owns.
pub(crate) struct Residence {
    context: Arc<Context>,
    head: Arc<DurableHead>,
    resident: Resident,
    audience: Audience,
    /// What the last pull showed whose page was written anew.
    last_shown: Option<Shown>,
}

impl Actor for Conversation {
    type Msg = Message;
    type State = Residence;
    type Arguments = Start;

    async fn pre_start(
        &self,
        _myself: ActorRef<Message>,
        start: Start,
    ) -> Result<Residence, ActorProcessingErr> {
        let Start { context, head, origin } = start;
        let resident = match origin {
            Origin::New => Resident::new(State::with((*head.key).clone(), context.history)),
            Origin::Archive => load(&context, &head).await?,
        };
        let audience = Audience::find(&context.inboxes, &resident.state);
        let residence = Residence { context, head, resident, audience, last_shown: None };
        residence.head.weigh(residence.state().bytes());
        residence.head.keep_from(residence.state().history.kept_from());
        residence.head.load(residence.heads(), residence.state().applied_lsn, residence.resident.saved_lsn);
        Ok(residence)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        residence: &mut Residence,
    ) -> Result<(), ActorProcessingErr> {
        residence.erase_recalled();
        residence.trim();
        match message {
            Message::Call(call) => residence.call(call),
            Message::Collect { saved, to, permit } => residence.collect(saved, to, permit),
            Message::Part(inbox) => {
                residence.audience.part(&inbox);
                Ok(())
            }
            #[cfg(test)]
            Message::Panic => panic!("as a test wanted"),
        }
    }
}

impl Residence {
    /// Texts of durable recalls leave memory with the next message.
    fn erase_recalled(&mut self) {
        let recalls = self.head.durable().recalls;
        self.resident.state.history.erase_through(recalls);
    }

    /// Old messages leave memory with the next message after packs have them.
    fn trim(&mut self) {
        self.head.note_look();
        if self.resident.trim(self.head.saved_lsn()) {
            self.head.weigh(self.state().bytes());
        }
    }

    fn collect(
        &mut self,
        saved: Saved,
        to: oneshot::Sender<Vec<Chunk>>,
        permit: Permit,
    ) -> Result<(), ActorProcessingErr> {
        // When nobody takes the chunks the checkpoint has failed, and the next one asks again.
        let _ = to.send(self.resident.collect(saved));
        drop(permit);
        Ok(())
    }

    fn call(&mut self, call: Call) -> Result<(), ActorProcessingErr> {
        let Call { caller, request, old, reply } = call;
        let key = self.resident.state.key.clone();
        match request {
            Request::Send(draft) => self.send(&key, &caller, draft, &old, reply),
            Request::Recall(msg_index) => self.recall(&key, &caller, msg_index, &old, reply),
            Request::Ack(msg_index) => self.ack(&key, &caller, msg_index, reply),
            Request::Pull { pull, encoded } => self.pull(&caller, pull, encoded, &old, reply),
            Request::CreateGroup { name, members } => {
                self.change(group::create(self.state(), &key, &caller, &name, &members, now_ns()), reply)
            }
            Request::AddMembers(users) => {
                self.change(group::add(self.state(), &key, &caller, &users, now_ns()), reply)
            }
            Request::KickMembers(users) => {
                self.change(group::kick(self.state(), &key, &caller, &users, now_ns()), reply)
            }
            Request::LeaveGroup => self.change(group::leave(self.state(), &key, &caller, now_ns()), reply),
            Request::GroupInfo => self.group_info(&key, &caller, reply),
            Request::Members { cursor, count } => self.members(&caller, &cursor, count, reply),
            Request::Join(inbox) => self.join(inbox, reply),
            Request::Acks => self.acks(&caller, reply),
            Request::Signal { kind, data } => self.signal(&caller, kind, data, reply),
        }
    }

    fn state(&self) -> &State {
        &self.resident.state
    }

    fn send(
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

    fn recall(
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
    fn retain(&mut self, old: &Old) -> Option<Missing> {
        let retention = &self.context.retention;
        let now_ns = if retention.is_off() { 0 } else { now_ns() };
        let newest = self.head.durable().messages;
        let history = &mut self.resident.state.history;
        let missing = history.retain(retention, newest, now_ns, old);
        self.head.keep_from(history.kept_from());
        missing
    }

    fn ack(
        &mut self,
        key: &ConversationKey,
        caller: &Caller,
        msg_index: u32,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        let decision = self.state().ack(key, &caller.user, msg_index, self.head.durable());
        self.change(decision, reply)
    }

    fn change(
        &mut self,
        decision: Result<Decision<'_, ()>, Rejection>,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        self.settle(decision, |()| Outcome::Done, reply)
    }

    fn pull(
        &mut self,
        caller: &Caller,
        pull: Pull,
        encoded: bool,
        old: &Old,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(missing) = self.retain(old) {
            reply_unread(missing, Request::Pull { pull, encoded }, reply);
            return Ok(());
        }
        match self.look_up(&caller.user, &pull, encoded, old) {
            Ok(Found::Outcome(outcome)) => reply.send(Ok(outcome)),
            Ok(Found::Needs(missing)) => reply_unread(missing, Request::Pull { pull, encoded }, reply),
            Err(rejection) => reply.send(Err(rejection)),
        }
        Ok(())
    }

    fn look_up(&mut self, user: &UserId, pull: &Pull, encoded: bool, old: &Old) -> Result<Found, Rejection> {
        let view = self.state().view(user, pull, self.head.durable())?;
        if encoded && let Some(page) = self.context.pages.find(&self.head.key, user, &view) {
            return Ok(Found::Outcome(Outcome::Encoded(Box::new(page))));
        }
        let mut page = match self.state().page(&view, old)? {
            Pulled::Page(page) => page,
            Pulled::Needs(missing) => return Ok(Found::Needs(missing)),
        };
        page.epoch = self.context.epoch;
        let keep = encoded && self.is_worth_keeping(&page, view.shown);
        let keep = keep.then(|| Keep::new(&self.head, view.shown));
        Ok(Found::Outcome(Outcome::Page(Box::new(PageFound { page, keep }))))
    }

    /// What is read only once is not worth the place of what is read again. With retention a page may not outlive its
    /// messages either, so nothing is kept.
    fn is_worth_keeping(&mut self, page: &Page, shown: Shown) -> bool {
        // Pollers who find nothing new stand between two readers of a page.
        if page.is_empty() || !self.context.retention.is_off() {
            return false;
        }
        self.last_shown.replace(shown) == Some(shown)
    }

    fn group_info(
        &mut self,
        key: &ConversationKey,
        caller: &Caller,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        let ConversationKey::Group(id) = key else { unreachable!("group calls go to group keys") };
        let info = group::info(self.state(), id, caller).map(Decision::Already);
        self.settle(info, |info| Outcome::Info(Box::new(info)), reply)
    }

    fn members(
        &mut self,
        caller: &Caller,
        cursor: &str,
        count: u32,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        let page = group::members(self.state(), caller, cursor, count).map(Decision::Already);
        self.settle(page, |page| Outcome::Members(Box::new(page)), reply)
    }

    fn join(&mut self, inbox: Arc<Inbox>, reply: Reply) -> Result<(), ActorProcessingErr> {
        let standing = self.state().standing_of(&inbox.user);
        if standing.is_some() {
            self.audience.join(inbox);
        }
        self.answer_when_durable(Outcome::Standing(standing.map(Box::new)), reply);
        Ok(())
    }

    fn acks(&mut self, caller: &Caller, reply: Reply) -> Result<(), ActorProcessingErr> {
        let cursors = self.state().read_cursors(&caller.user).map(Decision::Already);
        self.settle(cursors, Outcome::Cursors, reply)
    }

    /// Never stored, so it goes past the log.
    fn signal(
        &mut self,
        caller: &Caller,
        kind: Box<str>,
        data: Box<str>,
        reply: Reply,
    ) -> Result<(), ActorProcessingErr> {
        if let Err(rejection) = self.state().admit(&caller.user) {
            reply.send(Err(rejection));
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
            permit,
        }]);
        let _ = to.send(Ok(Outcome::Done));
        Ok(())
    }

    /// Turns a decision into an append, a barrier or an answer.
    fn settle<T>(
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
        match self.context.log.append(kind, payload, ticket) {
            Ok(lsn) => {
                if !self.state().has_begun() {
                    self.context.count.fetch_add(1, Ordering::Relaxed);
                }
                self.resident.state.apply(record, lsn.0, hash)?;
                self.audience.settle();
                self.head.weigh(self.state().bytes());
                Ok(())
            }
            Err(refused) => {
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

    fn heads(&self) -> Durable {
        let history = &self.state().history;
        Durable { messages: history.newest_message(), recalls: history.newest_recall() }
    }

    fn heads_with(&self, record: &Record<'_>) -> Durable {
        let heads = self.heads();
        match record {
            Record::Send(send) => Durable { messages: send.msg_index, ..heads },
            Record::Recall(recall) => Durable { recalls: recall.recall_index, ..heads },
            Record::Ack(_) | Record::Group(_) => heads,
        }
    }

    /// An answer that is already true in memory goes out once it is true on disk.
    fn answer_when_durable(&mut self, outcome: Outcome, reply: Reply) {
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

/// Reads a conversation from disk. Damage ends the actor: it is refused, never taken for absent.
async fn load(context: &Arc<Context>, head: &DurableHead) -> Result<Resident, ActorProcessingErr> {
    let (with, key, of) = (context.clone(), &head.key, head.key.clone());
    // Inboxes look for what the packs do not have yet in the tail, then among the newcomers.
    let tell = move |state: &State| audience::note_everybody(&with.newcomers, state);
    let archive = context.archive.clone();
    match tokio::task::spawn_blocking(move || archive.load(&of, now_ns(), tell)).await? {
        Ok(Some(resident)) => Ok(resident),
        Ok(None) => Ok(Resident::new(State::with((**key).clone(), context.history))),
        Err(why) => {
            error!(conversation = %key, %why, "cannot be read from disk; refusing it");
            if why.is_damage() {
                head.mark_damaged();
            }
            Err(why.into())
        }
    }
}

/// Gives a call back to whoever reads what it needs, and asks again.
fn reply_unread(missing: Missing, request: Request, reply: Reply) {
    reply.send(Ok(Outcome::Unread(Box::new(Unread { missing, request }))));
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

/// Unix time in nanoseconds; 0 before 1970, the end of time after 2554.
pub(super) fn now_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
