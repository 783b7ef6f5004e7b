//! Asking a conversation: a call goes into the mailbox at once, and what waits for its answer is small.
//!
//! Every connection has room for the largest thing that it may wait for, and moves it about with each request. So what
//! can be done without waiting is done in plain functions, rare ways are apart, and the wait itself is written by hand:
//! a future that is moved into another by `async` stands in it twice. Promises that a call in the mailbox is carried out
//! also when nobody waits any more, unless it needs old messages.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::Conversations;
use super::actor::{Call, Message, Request, Unread};
use super::completion::{Outcome, Reply};
use super::directory::{Entered, Running};
use super::old::Old;
use crate::message::{Caller, Rejection, UserId};
use crate::wal;

/// A call in a mailbox.
pub(super) struct Asked {
    running: Running,
    answer: oneshot::Receiver<Result<Outcome, Rejection>>,
}

/// The answer to a call of a user; when the call needs old messages, it is made again with them.
pub(super) struct Answer<'a> {
    conversations: &'a Conversations,
    user: &'a UserId,
    progress: Progress<'a>,
}

enum Progress<'a> {
    Refused(Rejection),
    Asked(Asked),
    AskedWithOld(Pin<Box<dyn Future<Output = Result<Outcome, Rejection>> + Send + 'a>>),
    Over,
}

impl Conversations {
    /// Asks, and waits for the answer.
    pub(super) fn call<'a>(&'a self, entered: Entered, caller: &'a Caller, request: Request) -> Answer<'a> {
        self.answer(self.ask(entered, caller.clone(), request, Old::default()), &caller.user)
    }

    /// Puts a call into the mailbox.
    pub(super) fn ask(
        &self,
        entered: Entered,
        caller: Caller,
        request: Request,
        old: Old,
    ) -> Result<Asked, Rejection> {
        let (running, permit) = entered;
        let (to, answer) = oneshot::channel();
        let call = Call { caller, request, old, reply: Reply { to, permit } };
        if running.actor.cast(Message::Call(call)).is_err() {
            self.shared.directory.quarantine(&running.head);
            return Err(Rejection::Quarantined);
        }
        Ok(Asked { running, answer })
    }

    /// Waits for the answer to a call of `user`.
    pub(super) fn answer<'a>(&'a self, asked: Result<Asked, Rejection>, user: &'a UserId) -> Answer<'a> {
        let progress = asked.map_or_else(Progress::Refused, Progress::Asked);
        Answer { conversations: self, user, progress }
    }

    /// The same for a call that has what it needs, as far as that was known.
    pub(super) async fn only_answer(&self, asked: Asked) -> Result<Outcome, Rejection> {
        asked.answer.await.unwrap_or_else(|_| Err(self.unanswered(&asked.running)))
    }

    /// The ticket was dropped: the log has failed, or the actor could not load or died.
    fn unanswered(&self, running: &Running) -> Rejection {
        if self.shared.directory.log_state() == wal::State::Failed {
            return Rejection::LogFailed;
        }
        self.shared.directory.quarantine(&running.head);
        if !running.head.is_loaded() {
            return Rejection::Quarantined;
        }
        Rejection::Broken(format!("the actor of {} died under a call", running.head.key))
    }
}

impl<'a> Answer<'a> {
    fn with_old(&self, asked: Asked, unread: Unread) -> Progress<'a> {
        let Self { conversations, user, .. } = *self;
        Progress::AskedWithOld(Box::pin(async move {
            conversations.answer_with_old(&asked.running.head.key, user, unread).await
        }))
    }
}

impl Future for Answer<'_> {
    type Output = Result<Outcome, Rejection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match mem::replace(&mut self.progress, Progress::Over) {
            Progress::Refused(rejection) => Poll::Ready(Err(rejection)),
            Progress::Asked(mut asked) => match Pin::new(&mut asked.answer).poll(cx) {
                Poll::Ready(Ok(Ok(Outcome::Unread(unread)))) => {
                    self.progress = self.with_old(asked, *unread);
                    self.poll(cx)
                }
                Poll::Ready(Ok(answer)) => Poll::Ready(answer),
                Poll::Ready(Err(_)) => Poll::Ready(Err(self.conversations.unanswered(&asked.running))),
                Poll::Pending => {
                    self.progress = Progress::Asked(asked);
                    Poll::Pending
                }
            },
            Progress::AskedWithOld(mut asked) => {
                let answer = asked.as_mut().poll(cx);
                self.progress = Progress::AskedWithOld(asked);
                answer
            }
            Progress::Over => unreachable!("an answer comes once"),
        }
    }
}
