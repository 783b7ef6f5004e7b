//! Paging: calls that need messages which are not in memory.
//!
//! The actor never waits for the disk. It says which messages it needs and gives the call back;
//! they are read here, on a thread that may block, and the call is made again with them. Every rule
//! is the actor's, and applies at the second time: membership, recalls, what is durable.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::{error, warn};

use super::actor::{Request, Unread};
use super::archive::Archive;
use super::completion::Outcome;
use super::directory::Entered;
use super::old::{Missing, Old};
use super::{CALL_BYTES, Conversations, as_user};
use crate::message::{ConversationKey, Rejection, UserId};

/// Old pages that are read and answered at the same time; others wait, each on its connection. More
/// would neither read faster nor fit: a page takes up to a few megabytes.
const READS_MAX: usize = 16;
/// So often one call may need more: what was in memory may have left it meanwhile, and of ids that
/// share a hash each is looked at.
const ROUNDS_MAX: usize = 32;

/// What reads old pages.
pub(super) struct Paging {
    pub(super) archive: Arc<Archive>,
    turns: Semaphore,
}

impl Paging {
    pub(super) fn new(archive: Arc<Archive>) -> Self {
        Self { archive, turns: Semaphore::new(READS_MAX) }
    }

    /// Lets go of pages that were read of a conversation: one of their messages may have been recalled.
    pub(super) fn forget(&self, key: &ConversationKey) {
        self.archive.forget_old(key);
    }

    async fn read(&self, key: &Arc<ConversationKey>, missing: Missing) -> Result<Old, Rejection> {
        let (archive, of, Missing(span)) = (self.archive.clone(), key.clone(), missing);
        match tokio::task::spawn_blocking(move || archive.read_old(&of, &span)).await {
            Ok(Ok(old)) => Ok(old),
            Ok(Err(why)) if why.is_passing() => {
                warn!(conversation = %key, %why, "an old part of it cannot be read now; refusing the call");
                Err(Rejection::CannotRead)
            }
            Ok(Err(why)) => {
                error!(conversation = %key, %why, "an old part of it cannot be read from disk; refusing the call");
                Err(Rejection::Quarantined)
            }
            Err(why) => Err(Rejection::Broken(format!("reading an old part of {key}: {why}"))),
        }
    }
}

impl Conversations {
    /// Makes a call of `user` again with what it needs, until it needs nothing more.
    pub(super) async fn answer_with_old(
        &self,
        key: &Arc<ConversationKey>,
        user: &UserId,
        mut unread: Unread,
    ) -> Result<Outcome, Rejection> {
        let paging = &self.shared.paging;
        let _turn = paging.turns.acquire().await.expect("nobody closes it");
        let mut old = Old::default();
        for _round in 0..ROUNDS_MAX {
            old.extend(paging.read(key, unread.missing).await?);
            let entered = self.enter_again(key, &unread.request)?;
            let asked = self.ask(entered, as_user(user), unread.request, old.clone())?;
            match self.only_answer(asked).await? {
                Outcome::Unread(again) => unread = *again,
                outcome => return Ok(outcome),
            }
        }
        Err(Rejection::Broken(format!("a call on {key} needed more of its old part {ROUNDS_MAX} times")))
    }

    fn enter_again(&self, key: &ConversationKey, request: &Request) -> Result<Entered, Rejection> {
        let texts = match request {
            Request::Send(draft) => draft.msg.len() + draft.extra.len(),
            _ => 0,
        };
        let gone = || Rejection::Broken(format!("{key} is gone"));
        self.enter_existing(key, CALL_BYTES + texts)?.ok_or_else(gone)
    }
}
