//! Completion: what happens once a record is durable.
//!
//! The committer hands over whole batches; one task completes them in the order of the log: first
//! the durable heads move and pages with a recalled text are forgotten, then waiting pulls wake, then the
//! replies go out. Where few threads serve everything, the same task commits. Else one wake-up per batch
//! crosses from the committer's thread; the replies then wake connections from inside the runtime.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::actor::Unread;
use super::admission::Permit;
use super::arrivals::Arrivals;
use super::durable::DurableHead;
use super::encoded::{EncodedPage, EncodedPages, Keep};
use super::feed::{Fate, Followers};
use super::in_place::{Offer, Volunteer};
use super::state::Durable;
use crate::inbox::delivery::{self, Apart, Listeners};
use crate::inbox::rows::Standing;
use crate::live::Event;
use crate::message::{GroupInfo, MembersPage, Page, Receipt, Rejection, UserId};
use crate::telemetry::Metrics;
use crate::wal::{Batch, Lsn};

/// What a call answers when it is not refused.
#[derive(Debug)]
pub(crate) enum Outcome {
    Sent(Receipt),
    Recalled(u32),
    /// Acks, blocks, and what is never stored.
    Done,
    /// A group changed. `ends`: nothing of it is readable any more.
    Regrouped {
        ends: bool,
    },
    Page(Box<PageFound>),
    /// A page that was encoded for somebody before.
    Encoded(Box<EncodedPage>),
    Info(Box<GroupInfo>),
    Members(Box<MembersPage>),
    /// Where the conversation stands for a user; `None` when they are not in it.
    Standing(Option<Box<Standing>>),
    /// The read cursors of everybody in the conversation.
    Cursors(Vec<(UserId, u32)>),
    /// What has become of messages.
    Fates(Vec<Fate>),
    /// No answer yet: it needs messages that are not in memory.
    Unread(Box<Unread>),
}

/// A page as the conversation has it.
#[derive(Debug)]
pub(crate) struct PageFound {
    pub(crate) page: Page,
    /// Where it is to be kept once it is encoded; `None` when it is not worth it.
    pub(crate) keep: Option<Keep>,
}

/// The way from what is durable to the inboxes.
pub(crate) type Deliveries = delivery::Deliveries<Permit>;

/// What a record does, for those who are looking.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) listeners: Listeners,
    pub(crate) events: Vec<Arc<Event>>,
    /// Those who hear something else of it.
    pub(crate) apart: Apart,
}

/// Where an answer goes, and the permit that its call holds until then.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) to: oneshot::Sender<Result<Outcome, Rejection>>,
    pub(crate) permit: Permit,
}

impl Reply {
    /// Answers. A caller who has gone away misses it.
    pub(crate) fn send(self, answer: Result<Outcome, Rejection>) {
        let _ = self.to.send(answer);
        drop(self.permit);
    }
}

/// What the log carries beside a record, or instead of one in a barrier.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) head: Arc<DurableHead>,
    /// The head once this ticket's record is durable.
    pub(crate) durable: Durable,
    /// In a barrier, the conversation's newest record: the log says the node's.
    pub(crate) barrier_lsn: Option<u64>,
    pub(crate) outcome: Outcome,
    /// `None` where nobody is looking: the usual case costs nothing.
    pub(crate) news: Option<Box<News>>,
    pub(crate) reply: Reply,
}

impl Ticket {
    /// Whether a pull that waits may have something to show, or to hear that its user is out.
    fn can_be_pulled(&self) -> bool {
        self.is_new_message() || matches!(self.outcome, Outcome::Recalled(_) | Outcome::Regrouped { .. })
    }

    fn hides_texts(&self) -> bool {
        matches!(self.outcome, Outcome::Recalled(_) | Outcome::Regrouped { ends: true })
    }

    fn is_new_message(&self) -> bool {
        matches!(&self.outcome, Outcome::Sent(receipt) if !receipt.duplicate)
    }
}

/// The way from the committer to the completing task. Unbounded because permits bound it: a
/// ticket in it holds one.
pub(crate) type Batches = mpsc::UnboundedSender<Batch<Ticket>>;

/// Starts the task; it ends when the sender is dropped and everything is answered.
pub(crate) fn start(
    offer: Offer,
    arrivals: Arc<Arrivals>,
    followers: Arc<Followers>,
    deliveries: Deliveries,
    pages: Arc<EncodedPages>,
    metrics: Arc<Metrics>,
) -> (Batches, tokio::task::JoinHandle<()>) {
    let (batches, mut incoming) = mpsc::unbounded_channel::<Batch<Ticket>>();
    let task = tokio::spawn(async move {
        let mut volunteer = Volunteer::new(offer);
        while let Some(batch) = next(&mut incoming, &mut volunteer).await {
            deliveries.keep_pace().await;
            complete(batch.tickets, &arrivals, &deliveries, &pages, &metrics);
            if batch.records > 0 {
                followers.wake();
            }
            volunteer.look_out().await;
        }
    });
    (batches, task)
}

/// The next batch; commits it where that is for the volunteer.
async fn next(
    incoming: &mut mpsc::UnboundedReceiver<Batch<Ticket>>,
    volunteer: &mut Volunteer,
) -> Option<Batch<Ticket>> {
    loop {
        tokio::select! {
            // What is durable is answered before more becomes so.
            biased;
            batch = incoming.recv() => return batch,
            () = volunteer.called() => volunteer.commit().await,
        }
    }
}

fn complete(
    tickets: Vec<(Lsn, Ticket)>,
    arrivals: &Arrivals,
    deliveries: &Deliveries,
    pages: &EncodedPages,
    metrics: &Metrics,
) {
    let has_news = tickets.iter().any(|(_, ticket)| ticket.news.is_some());
    if has_news {
        // Before anybody can see it: whoever does, and then asks for a list, waits for its delivery.
        deliveries.announce();
    }
    for (lsn, ticket) in &tickets {
        ticket.head.advance(ticket.durable, ticket.barrier_lsn.unwrap_or(lsn.0));
        if ticket.hides_texts() {
            pages.forget(&ticket.head.key);
        }
    }
    if arrivals.anybody() {
        let arrived = tickets.iter().filter(|(_, ticket)| ticket.can_be_pulled());
        arrived.for_each(|(_, ticket)| arrivals.wake(&ticket.head.key));
    }
    metrics.messages.inc_by(tickets.iter().filter(|(_, ticket)| ticket.is_new_message()).count() as u64);
    match has_news {
        true => deliver_and_answer(tickets, deliveries),
        false => tickets.into_iter().for_each(|(_, ticket)| ticket.reply.send(Ok(ticket.outcome))),
    }
}

/// What happened is handed over before anybody hears that it did. Its permit stays with what is to be delivered.
fn deliver_and_answer(tickets: Vec<(Lsn, Ticket)>, deliveries: &Deliveries) {
    let mut batch = Vec::new();
    let mut answers = Vec::with_capacity(tickets.len());
    for (lsn, ticket) in tickets {
        let Ticket { outcome, news, reply: Reply { to, permit }, .. } = ticket;
        let permit = match news {
            Some(news) => {
                let News { listeners, events, apart } = *news;
                batch.push(delivery::Delivery { listeners, lsn: Some(lsn.0), events, apart, permit });
                None
            }
            None => Some(permit),
        };
        answers.push((to, outcome, permit));
    }
    deliveries.give_announced(batch);
    for (to, outcome, permit) in answers {
        // A caller who has gone away misses it.
        let _ = to.send(Ok(outcome));
        drop(permit);
    }
}
