//! One stream after the other, from hello to the end, and which of its events are the next.
//!
//! How a gap is filled is the business of `catch_up`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Delivery, Progress};
use crate::client::Client;
use crate::client::api::{Message, Standing};
use crate::client::backoff::Backoff;
use crate::client::error::Error;
use crate::client::event::{Begin, Event};
use crate::client::reading::{Reading, Readings, Verdict, position};
use crate::client::socket::{Frame, GroupChange, Hello, Recall, Socket};
use crate::message::{Address, Duty, Position};

/// The first wait between two connections is at most this.
const RECONNECT_BASE: Duration = Duration::from_millis(500);
/// No wait between two connections is longer, unless the server asks for it.
const RECONNECT_CAP: Duration = Duration::from_secs(30);
/// A stream that lasted so long was a good one: the next failure is the first again.
const STABLE: Duration = Duration::from_secs(10);
/// Bytes of positions in one resume: half of what the server takes unless it is told otherwise.
const RESUME_BYTES_MAX: usize = 32 * 1024;
/// What a position takes beside its id.
const POSITION_BYTES: usize = 96;

/// Why a stream is not read any further.
pub(super) enum Stop {
    /// Nobody takes events any more.
    Gone,
    /// Another one may do better.
    Lost(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

/// What reads the streams of one user.
pub(super) struct Reader {
    pub(super) client: Client,
    pub(super) readings: Readings,
    pub(super) begin: Begin,
    out: mpsc::Sender<Delivery>,
    /// Whether this stream has said hello.
    was_let_in: bool,
}

/// Resumes that are not answered, with where their conversations stood.
type Resuming = HashMap<u64, Vec<Position>>;

impl Reader {
    /// One that begins behind these readings and has not connected yet.
    pub(super) fn new(client: Client, readings: Readings, begin: Begin, out: mpsc::Sender<Delivery>) -> Self {
        Self { client, readings, begin, out, was_let_in: false }
    }

    /// Reads until nobody takes events any more, or the token is refused.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(RECONNECT_BASE, RECONNECT_CAP);
        loop {
            let (token, began) = (self.client.token(), Instant::now());
            self.was_let_in = false;
            let Err(Stop::Lost(error)) = self.read_one(&token).await else { return };
            if error.is_unauthenticated() && self.client.token() == token {
                // Whoever takes it sees the end behind it.
                let _ = self.out.send(Delivery { event: Some(Err(error)), progress: Progress::None }).await;
                return;
            }
            if began.elapsed() > STABLE {
                backoff.reset();
            } else if self.was_let_in {
                backoff.ease();
            }
            let retry_in = backoff.next(error.retry_after());
            let event = Event::Disconnected { why: error.to_string(), retry_in };
            if self.deliver(event, Progress::None).await.is_err() {
                return;
            }
            tokio::time::sleep(retry_in).await;
        }
    }

    /// Reads one stream to its end.
    async fn read_one(&mut self, token: &str) -> Result<(), Stop> {
        let mut socket = Socket::open(&self.client.shared.http, token).await?;
        let Frame::Hello(hello) = socket.next().await? else {
            return Err(Error::Unreadable("the stream does not begin with a hello".to_owned()).into());
        };
        let mut resuming = self.greet(&mut socket, hello).await?;
        loop {
            let frame = socket.next().await?;
            self.take(frame, &mut resuming).await?;
        }
    }

    /// Takes a hello and asks for what was missed.
    async fn greet(&mut self, socket: &mut Socket, hello: Hello) -> Result<Resuming, Stop> {
        self.take_epoch(hello.epoch).await?;
        self.was_let_in = true;
        let ends = hello.chats.iter().map(Standing::position).collect::<Result<Vec<_>, _>>()?;
        self.deliver(Event::Connected { user: hello.user }, Progress::None).await?;
        let mut missed = Vec::new();
        for end in ends {
            if let Some(from) = self.stands(&end).await? {
                missed.push((from, end));
            }
        }
        let mut resuming = Resuming::new();
        for part in parts(missed) {
            let (from, ends): (Vec<_>, Vec<_>) = part.into_iter().unzip();
            resuming.insert(socket.resume(&from).await?, ends);
        }
        if hello.more {
            self.walk_list().await?;
        }
        self.saw_all().await?;
        Ok(resuming)
    }

    async fn take(&mut self, frame: Frame, resuming: &mut Resuming) -> Result<(), Stop> {
        match frame {
            Frame::Message { at, message } => self.take_message(at, message).await,
            Frame::Recall { at, recall } => self.take_recall(at, recall).await,
            Frame::Behind(chats) if chats.is_empty() => self.walk_list().await,
            Frame::Behind(chats) => {
                for end in chats {
                    self.catch_up(&end.at, (&end).into(), None, false).await?;
                }
                Ok(())
            }
            Frame::Resumed { id, failed } => {
                let ends = resuming.remove(&id).unwrap_or_default();
                let is_failed = |at: &Address| failed.as_ref().is_none_or(|failed| failed.contains(at));
                for end in ends.iter().filter(|end| is_failed(&end.at)) {
                    self.catch_up(&end.at, end.into(), None, false).await?;
                }
                Ok(())
            }
            Frame::Ack { at, ack } => {
                let event = Event::Ack { at, user: ack.user, msg_index: ack.msg_index };
                self.deliver(event, Progress::None).await
            }
            Frame::Signal { at, signal } => {
                let event = Event::Signal { at, user: signal.user, kind: signal.kind, data: signal.data };
                self.deliver(event, Progress::None).await
            }
            Frame::Group { at, change } => self.deliver(group_event(at, change), Progress::None).await,
            Frame::Hello(_) | Frame::Other => Ok(()),
        }
    }

    /// Takes where a conversation stands; what comes back is where a replay of it has to begin.
    pub(super) async fn stands(&mut self, end: &Position) -> Result<Option<Position>, Stop> {
        let goal = Reading::from(end);
        let reading = match self.readings.chats.get(&end.at) {
            Some(reading) => *reading,
            None if self.begins_with_first() => self.begin_chat_at(&end.at, Reading::default()).await?,
            None => {
                let msg_index = end.msg_index.saturating_sub(1);
                let recall_index = end.recall_index;
                self.begin_chat_at(&end.at, Reading { msg_index, recall_index }).await?
            }
        };
        if goal.msg_index < reading.msg_index || goal.recall_index < reading.recall_index {
            // A late word, or a history that got shorter: a pull shows which.
            self.catch_up(&end.at, goal, None, true).await?;
            return Ok(None);
        }
        Ok((!reading.has(goal)).then(|| position(&end.at, reading)))
    }

    /// Gives a conversation without a position its beginning.
    pub(super) async fn begin_chat_at(&mut self, at: &Address, first: Reading) -> Result<Reading, Stop> {
        self.readings.chats.insert(at.clone(), first);
        self.note(Progress::Read(at.clone(), first)).await?;
        Ok(first)
    }

    pub(super) fn begins_with_first(&self) -> bool {
        self.begin == Begin::Oldest || self.readings.is_whole
    }

    /// Every conversation was there to be seen: one that was not is new.
    async fn saw_all(&mut self) -> Result<(), Stop> {
        self.readings.is_whole = true;
        self.note(Progress::Whole).await
    }

    /// Another epoch than before makes what was read part of a past that is no more.
    async fn take_epoch(&mut self, epoch: Option<u32>) -> Result<(), Stop> {
        if epoch.is_none() || epoch == self.readings.epoch {
            return Ok(());
        }
        let is_reset = self.readings.epoch.is_some();
        self.readings.begin_epoch(epoch);
        match is_reset {
            true => self.deliver(Event::Reset { at: None }, Progress::Epoch(epoch)).await,
            false => self.note(Progress::Epoch(epoch)).await,
        }
    }

    async fn take_message(&mut self, at: Address, message: Message) -> Result<(), Stop> {
        // The first message of a conversation has nothing before it; another one may have recalls.
        if !self.readings.chats.contains_key(&at) && (message.msg_index == 1 || self.begins_with_first()) {
            self.begin_chat_at(&at, Reading::default()).await?;
        }
        let reading = self.readings.chats.get_mut(&at);
        match reading.map_or(Verdict::Gap, |reading| reading.message(message.msg_index)) {
            Verdict::Next => self.deliver_message(at, message).await,
            Verdict::Known => Ok(()),
            Verdict::Gap => {
                let goal = Reading { msg_index: message.msg_index, recall_index: 0 };
                self.catch_up(&at, goal, Some(message.msg_index), false).await
            }
        }
    }

    async fn take_recall(&mut self, at: Address, recall: Recall) -> Result<(), Stop> {
        let Recall { msg_index, recall_index, by } = recall;
        let reading = self.readings.chats.get_mut(&at);
        match reading.map_or(Verdict::Gap, |reading| reading.recall(recall_index, msg_index)) {
            Verdict::Next => self.deliver_recall(at, msg_index, recall_index, by).await,
            Verdict::Known => Ok(()),
            Verdict::Gap => self.catch_up(&at, Reading { msg_index: 0, recall_index }, None, false).await,
        }
    }

    /// Delivers a message that its reading counts already.
    pub(super) async fn deliver_message(&self, at: Address, message: Message) -> Result<(), Stop> {
        let progress = self.progress(&at);
        self.deliver(Event::Message { at, message }, progress).await
    }

    /// Delivers a recall that its reading counts already.
    pub(super) async fn deliver_recall(
        &self,
        at: Address,
        msg_index: u32,
        recall_index: u32,
        by: String,
    ) -> Result<(), Stop> {
        let progress = self.progress(&at);
        self.deliver(Event::Recall { at, msg_index, recall_index, by }, progress).await
    }

    fn progress(&self, at: &Address) -> Progress {
        self.readings.chats.get(at).map_or(Progress::None, |reading| Progress::Read(at.clone(), *reading))
    }

    /// Waits until there is room for it.
    pub(super) async fn deliver(&self, event: Event, progress: Progress) -> Result<(), Stop> {
        self.out.send(Delivery { event: Some(Ok(event)), progress }).await.map_err(|_| Stop::Gone)
    }

    /// What no event says.
    async fn note(&self, progress: Progress) -> Result<(), Stop> {
        self.out.send(Delivery { event: None, progress }).await.map_err(|_| Stop::Gone)
    }
}

fn group_event(at: Address, change: GroupChange) -> Event {
    let GroupChange { action, user, by, duty, name, until, count } = change;
    let duty = duty.and_then(Duty::from_number);
    Event::Group { at, action, user, by, duty, name, until_s: until, count }
}

/// Positions in resumes of a size that the server takes; at least one, which ends its waiting for one.
fn parts(missed: Vec<(Position, Position)>) -> Vec<Vec<(Position, Position)>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for (from, end) in missed {
        let size = POSITION_BYTES + id_bytes(&from.at);
        if bytes + size > RESUME_BYTES_MAX {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push((from, end));
        }
    }
    parts
}

/// An id as JSON: every byte of it may need an escape.
fn id_bytes(at: &Address) -> usize {
    2 * match at {
        Address::User(user) => user.as_str().len(),
        Address::Group(group) => group.as_str().len(),
    }
}
