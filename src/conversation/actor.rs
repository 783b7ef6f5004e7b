//! The actor of one conversation: ractor glue around [`State`].
//!
//! It orders the calls on its conversation, lets the rules decide, hands records to the log and
//! handles the next call at once: it never waits for the disk. Answers that depend on the disk
//! travel through the log as a ticket ([`append`]).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tracing::error;

pub(crate) use self::mailbox::{Call, Message, Request, Unread};
use super::admission::Permit;
use super::archive::Archive;
use super::audience::{self, Audience};
use super::blocks;
use super::checkpoint::DirtyList;
use super::chunk::{Chunk, Saved};
use super::completion::{Deliveries, Outcome, Reply, Ticket};
use super::durable::DurableHead;
use super::encoded::EncodedPages;
use super::group;
use super::history;
use super::old::Missing;
use super::resident::Resident;
use super::retention;
use super::shown::Shown;
use super::state::State;
use crate::inbox::newcomers::Newcomers;
use crate::inbox::{Inbox, Inboxes};
use crate::wal::Wal;

mod append;
mod calls;
mod mailbox;
mod pull;

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
            Message::Part(inbox) => residence.part(&inbox),
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

    fn part(&mut self, inbox: &Arc<Inbox>) -> Result<(), ActorProcessingErr> {
        self.audience.part(inbox);
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
            Request::CreateGroup { name, members } => self.regroup(
                group::create(self.state(), &key, &caller, &name, &members, now_ns()),
                false,
                reply,
            ),
            Request::AddMembers(users) => {
                self.regroup(group::add(self.state(), &key, &caller, &users, now_ns()), false, reply)
            }
            Request::KickMembers(users) => {
                self.regroup(group::kick(self.state(), &key, &caller, &users, now_ns()), false, reply)
            }
            Request::LeaveGroup => {
                self.regroup(group::leave(self.state(), &key, &caller, now_ns()), false, reply)
            }
            Request::SetDuty { user, duty } => self.regroup(
                group::set_duty(self.state(), &key, &caller, &user, duty, now_ns()),
                false,
                reply,
            ),
            Request::RenameGroup(name) => {
                self.regroup(group::rename(self.state(), &key, &caller, &name, now_ns()), false, reply)
            }
            Request::Mute { user, until_s } => {
                self.regroup(group::mute(self.state(), &key, &caller, &user, until_s, now_ns()), false, reply)
            }
            Request::DismissGroup => {
                self.regroup(group::dismiss(self.state(), &key, &caller, now_ns()), true, reply)
            }
            Request::Relate(change) => {
                self.change(blocks::change(self.state(), &key, &caller.user, change, now_ns()), reply)
            }
            Request::GroupInfo => self.group_info(&key, &caller, reply),
            Request::Members { cursor, count } => self.members(&caller, &cursor, count, reply),
            Request::Join(inbox) => self.join(inbox, reply),
            Request::Acks => self.acks(&caller, reply),
            Request::Fates(messages) => self.fates(messages, &old, reply),
            Request::Signal { kind, data } => self.signal(&caller, kind, data, reply),
        }
    }

    fn state(&self) -> &State {
        &self.resident.state
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

/// Unix time in nanoseconds; 0 before 1970, the end of time after 2554.
pub(super) fn now_ns() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
