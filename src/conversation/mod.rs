//! Conversations: one actor each, which orders what is sent, recalled and acknowledged.
//!
//! [`Conversations`] is the handle the edge uses. Every method answers only what is durable under
//! the server's sync mode, and gives back a lawful "no" as a [`Rejection`].
//!
//! The way of one call: [`admission`] gives a permit, [`directory`] finds the actor, [`actor`]
//! lets [`state`] and [`group`] decide and hands a [`record`] to the log, [`completion`] moves
//! the durable head and answers.

use std::sync::Arc;

use futures_util::FutureExt;
use ractor::ActorStatus;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use self::actor::{Context, Request};
use self::admission::Admission;
use self::arrivals::Arrivals;
use self::asking::Asked;
use self::completion::{Outcome, PageFound};
use self::directory::{Directory, Entered, Refusal};
use self::encoded::{EncodeRows, EncodedPage};
use self::old::Old;
use self::paging::Paging;
use self::shown::View;
use crate::message::{
    Address, Caller, ConversationKey, Direction, Draft, Page, Pull, Receipt, Rejection, UserId,
};

mod actor;
pub mod admission;
pub mod archive;
mod arrivals;
mod asking;
mod audience;
mod background;
mod blocks;
pub mod census;
pub mod checkpoint;
pub mod chunk;
pub mod codec;
pub mod compaction;
mod completion;
#[cfg(test)]
mod counted;
mod directory;
mod durable;
pub mod encoded;
#[cfg(test)]
mod engine_sim;
pub mod feed;
pub(crate) mod group;
mod groups;
pub mod history;
mod in_place;
mod kept_log;
#[cfg(test)]
mod life_tests;
mod old;
mod paging;
pub(crate) mod participants;
pub mod passivation;
pub(crate) mod people;
pub mod publisher;
pub mod reader;
pub(crate) mod record;
pub mod recovery;
mod relations;
pub mod reload;
pub mod reserve;
mod resident;
pub mod retention;
pub mod scrub;
mod shown;
pub mod start;
pub mod state;

pub use self::publisher::Place;
pub use self::start::{Calls, Operator, Options, Started, start};

/// The handle to every conversation of this node. Cheap to clone.
#[derive(Clone)]
pub struct Conversations {
    shared: Arc<Shared>,
}

struct Shared {
    context: Arc<Context>,
    directory: Arc<Directory>,
    admission: Arc<Admission>,
    arrivals: Arc<Arrivals>,
    /// Inboxes being read at a time.
    reading: Semaphore,
    paging: Paging,
    /// Becomes true when the node drains; waiting pulls then answer with what there is.
    draining: watch::Receiver<bool>,
    epoch: u32,
}

/// What a pull gets.
enum Pulled {
    Page(PageFound),
    Encoded(EncodedPage),
}

/// A page, or the call that will answer with one.
enum Sought {
    Found(Pulled),
    Asked(Asked),
}

impl Pulled {
    fn is_empty(&self) -> bool {
        match self {
            Self::Page(found) => found.page.is_empty(),
            // Too short to be kept.
            Self::Encoded(_) => false,
        }
    }
}

/// Bytes a call weighs beside its texts.
const CALL_BYTES: usize = 256;

impl Conversations {
    /// Stores a message; answers once it is durable. Its place in the conversation is taken at once.
    pub fn send<'a>(
        &'a self,
        caller: &'a UserId,
        to: &Address,
        draft: Draft,
    ) -> impl Future<Output = Result<Receipt, Rejection>> + Send + use<'a> {
        self.answer(self.ask_to_send(caller, to, draft), caller).map(|outcome| match outcome? {
            Outcome::Sent(receipt) => Ok(receipt),
            other => Err(unexpected(&other)),
        })
    }

    fn ask_to_send(&self, caller: &UserId, to: &Address, draft: Draft) -> Result<Asked, Rejection> {
        let key = ConversationKey::of(caller, to);
        let bytes = CALL_BYTES + draft.msg.len() + draft.extra.len();
        // A group begins with `create`, a direct conversation with its first message.
        let entered = match &key {
            ConversationKey::Direct(..) => self.enter_or_begin(&key, bytes)?,
            ConversationKey::Group(_) => self.enter_group(&key, bytes)?,
        };
        self.ask(entered, as_user(caller), Request::Send(draft), Old::default())
    }

    /// Takes a message back; answers its recall index, the first one if it was recalled before.
    pub async fn recall(&self, caller: &UserId, at: &Address, msg_index: u32) -> Result<u32, Rejection> {
        let nothing = Rejection::NoSuchMessage { asked: msg_index, newest: 0 };
        let entered = self.enter(caller, at)?.ok_or(nothing)?;
        match self.call(entered, &as_user(caller), Request::Recall(msg_index)).await? {
            Outcome::Recalled(recall_index) => {
                self.shared.paging.forget(&ConversationKey::of(caller, at));
                Ok(recall_index)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Moves the caller's read cursor forward; never back.
    pub async fn ack(&self, caller: &UserId, at: &Address, msg_index: u32) -> Result<(), Rejection> {
        match self.enter(caller, at)? {
            Some(entered) => self.change(entered, &as_user(caller), Request::Ack(msg_index)).await,
            None if msg_index == 0 => Ok(()),
            None => Err(Rejection::NoSuchMessage { asked: msg_index, newest: 0 }),
        }
    }

    /// A page of durable history. With `pull.wait`, an `After` page that would be empty waits for
    /// something to become durable, for the time to pass or for the node to drain.
    pub async fn pull(&self, caller: &UserId, at: &Address, pull: Pull) -> Result<Page, Rejection> {
        match self.pull_in_time(caller, at, &pull, false).await? {
            Pulled::Page(found) => Ok(found.page),
            Pulled::Encoded(_) => {
                Err(Rejection::Broken("a page came encoded that was not asked for so".into()))
            }
        }
    }

    /// The same, with its rows as `encode` writes them, or wrote them for whoever pulled the same before.
    /// There is one `encode` for all callers.
    pub async fn pull_encoded(
        &self,
        caller: &UserId,
        at: &Address,
        pull: Pull,
        encode: EncodeRows,
    ) -> Result<EncodedPage, Rejection> {
        let PageFound { page, keep } = match self.pull_in_time(caller, at, &pull, true).await? {
            Pulled::Encoded(page) => return Ok(page),
            Pulled::Page(found) => found,
        };
        let rows = encode(&page, at);
        let rows = match keep {
            Some(keep) => self.shared.context.pages.keep(&keep, caller, rows),
            None => rows.into(),
        };
        Ok(EncodedPage::of(rows, &page))
    }

    async fn pull_in_time(
        &self,
        caller: &UserId,
        at: &Address,
        pull: &Pull,
        encoded: bool,
    ) -> Result<Pulled, Rejection> {
        let pulled = self.pull_now(caller, at, pull, encoded).await?;
        let asks = pull.start_msg_index != 0 || pull.start_recall_index != 0;
        if !pulled.is_empty() || pull.wait.is_zero() || !asks || pull.direction == Direction::Before {
            return Ok(pulled);
        }
        // Apart, because few wait: their future is larger.
        Box::pin(self.pull_waiting(caller, at, pull, encoded)).await
    }

    async fn pull_waiting(
        &self,
        caller: &UserId,
        at: &Address,
        pull: &Pull,
        encoded: bool,
    ) -> Result<Pulled, Rejection> {
        let deadline = Instant::now() + pull.wait;
        let waiting = self.shared.arrivals.wait(ConversationKey::of(caller, at));
        let mut draining = self.shared.draining.clone();
        loop {
            let arrival = waiting.armed();
            let pulled = self.pull_now(caller, at, pull, encoded).await?;
            // A node that is gone drains too.
            let over = Instant::now() >= deadline || *draining.borrow() || draining.has_changed().is_err();
            if !pulled.is_empty() || over {
                return Ok(pulled);
            }
            tokio::select! {
                () = arrival => {}
                () = tokio::time::sleep_until(deadline) => {}
                _ = draining.wait_for(|draining| *draining) => {}
            }
        }
    }

    async fn pull_now(
        &self,
        caller: &UserId,
        at: &Address,
        pull: &Pull,
        encoded: bool,
    ) -> Result<Pulled, Rejection> {
        match self.seek(caller, at, pull, encoded)? {
            Sought::Found(pulled) => Ok(pulled),
            Sought::Asked(asked) => match self.answer(Ok(asked), caller).await? {
                Outcome::Page(found) => Ok(Pulled::Page(*found)),
                Outcome::Encoded(page) => Ok(Pulled::Encoded(*page)),
                other => Err(unexpected(&other)),
            },
        }
    }

    fn seek(&self, caller: &UserId, at: &Address, pull: &Pull, encoded: bool) -> Result<Sought, Rejection> {
        let Some(entered) = self.enter(caller, at)? else {
            let mut page = Page::new(0, 0, 1);
            page.epoch = self.shared.epoch;
            return Ok(Sought::Found(Pulled::Page(PageFound { page, keep: None })));
        };
        if encoded && let Some(page) = self.kept_page(&entered, caller, pull) {
            return Ok(Sought::Found(Pulled::Encoded(page)));
        }
        let request = Request::Pull { pull: pull.clone(), encoded };
        self.ask(entered, as_user(caller), request, Old::default()).map(Sought::Asked)
    }

    /// The page that the actor would answer with, where it need not be asked: in a direct conversation its two may
    /// read everything that is kept.
    fn kept_page(&self, (running, _permit): &Entered, caller: &UserId, pull: &Pull) -> Option<EncodedPage> {
        let (head, context) = (&running.head, &self.shared.context);
        let is_open = matches!(*head.key, ConversationKey::Direct(..)) && context.retention.is_off();
        // One that is gone has to be missed, and one that has something to do has to be woken.
        let is_well = head.is_loaded() && running.actor.get_status() == ActorStatus::Running;
        if !is_open || !is_well || head.has_unseen_packs() {
            return None;
        }
        context.pages.find(&head.key, caller, &View::of(pull, head.kept_from(), head.durable()))
    }

    /// Changes only when a restore took history back.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
    }

    /// Calls in flight now.
    pub fn in_flight(&self) -> usize {
        self.shared.admission.in_flight()
    }

    /// How many conversations there are.
    pub fn count(&self) -> usize {
        self.shared.directory.count()
    }

    /// How many of them are in memory.
    pub fn resident(&self) -> usize {
        self.shared.directory.resident()
    }

    async fn change(&self, entered: Entered, caller: &Caller, request: Request) -> Result<(), Rejection> {
        match self.call(entered, caller, request).await? {
            Outcome::Done | Outcome::Regrouped { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Enters the conversation at an address. A direct one that does not exist is not created by
    /// looking; a group that does not exist is refused.
    fn enter(&self, caller: &UserId, at: &Address) -> Result<Option<Entered>, Rejection> {
        let key = ConversationKey::of(caller, at);
        match key {
            ConversationKey::Direct(..) => self.enter_existing(&key, CALL_BYTES),
            ConversationKey::Group(_) => self.enter_group(&key, CALL_BYTES).map(Some),
        }
    }

    fn enter_group(&self, key: &ConversationKey, bytes: usize) -> Result<Entered, Rejection> {
        self.enter_existing(key, bytes)?.ok_or(Rejection::NoSuchGroup)
    }

    fn enter_existing(&self, key: &ConversationKey, bytes: usize) -> Result<Option<Entered>, Rejection> {
        self.shared.directory.enter(key, bytes).transpose().map_err(rejection)
    }

    fn enter_or_begin(&self, key: &ConversationKey, bytes: usize) -> Result<Entered, Rejection> {
        self.shared.directory.enter_or_begin(key, bytes).map_err(rejection)
    }
}

/// An admin token has no rights beyond its user's in the four calls.
fn as_user(user: &UserId) -> Caller {
    Caller { user: user.clone(), admin: false }
}

fn rejection(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::Quarantined => Rejection::Quarantined,
        Refusal::Overloaded => Rejection::Overloaded,
    }
}

fn unexpected(outcome: &Outcome) -> Rejection {
    Rejection::Broken(format!("an actor gave an answer of the wrong kind: {outcome:?}"))
}
