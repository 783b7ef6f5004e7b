//! A pull: the page of it, encoded already where it may be, or what has to be read first.
//!
//! Which pages are worth keeping is decided here; keeping them is the business of [`EncodedPages`].
//!
//! [`EncodedPages`]: crate::conversation::encoded::EncodedPages

use ractor::ActorProcessingErr;

use super::mailbox::Request;
use super::{Residence, reply_unread};
use crate::conversation::completion::{Outcome, PageFound, Reply};
use crate::conversation::encoded::Keep;
use crate::conversation::old::{Missing, Old};
use crate::conversation::shown::Shown;
use crate::conversation::state::Pulled;
use crate::message::{Caller, Page, Pull, Rejection, UserId};

/// What a pull gets from the actor.
enum Found {
    Outcome(Outcome),
    /// Ask again with these messages, which are not in memory.
    Needs(Missing),
}

impl Residence {
    pub(super) fn pull(
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
}
