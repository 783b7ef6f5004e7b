//! Live delivery: each message and each recall once, in order, without a hole.
//!
//! One task reads one stream after the other. An event is delivered if it is the next of its
//! conversation; before one that is not, what lies between is pulled, while the server holds what comes
//! further. Whoever takes the events sets the pace: a bounded channel is between.

mod catch_up;
mod reader;

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::reader::Reader;
use super::Client;
use super::error::Error;
use super::event::{Begin, Event};
use super::reading::{Positions, Reading, Readings};
use crate::message::Address;

/// Events that wait for who takes them; from there on the stream is not read.
const EVENTS_WAITING_MAX: usize = 256;

/// The events of one user, over one stream after the other. Ends with an error that no waiting helps
/// against: the token. Dropping it ends the connection.
pub struct EventStream {
    deliveries: mpsc::Receiver<Delivery>,
    /// As far as events were taken.
    taken: Readings,
    task: JoinHandle<()>,
}

/// What is true once it was taken, and the event that says so, if one does.
struct Delivery {
    event: Option<Result<Event, Error>>,
    progress: Progress,
}

enum Progress {
    None,
    /// A conversation was read so far, or begins here.
    Read(Address, Reading),
    /// Every conversation that there was has a reading.
    Whole,
    /// History is this one: what was read of another is gone.
    Epoch(Option<u32>),
}

impl EventStream {
    /// How far the events that were taken go: to be kept, and given to the next stream.
    pub fn positions(&self) -> Positions {
        self.taken.positions()
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn count(&mut self, progress: Progress) {
        match progress {
            Progress::None => {}
            Progress::Read(at, reading) => {
                self.taken.chats.insert(at, reading);
            }
            Progress::Whole => self.taken.is_whole = true,
            Progress::Epoch(epoch) => self.taken.begin_epoch(epoch),
        }
    }
}

impl Stream for EventStream {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(Delivery { event, progress }) = std::task::ready!(self.deliveries.poll_recv(cx)) {
            self.count(progress);
            if event.is_some() {
                return Poll::Ready(event);
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins live delivery behind these positions.
pub(super) fn events(client: Client, positions: &Positions, begin: Begin) -> EventStream {
    let (out, deliveries) = mpsc::channel(EVENTS_WAITING_MAX);
    let reader = Reader::new(client, Readings::new(positions), begin, out);
    let task = tokio::spawn(Box::pin(reader.run()));
    EventStream { deliveries, taken: Readings::new(positions), task }
}
