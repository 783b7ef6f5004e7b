//! Live delivery: each message and each recall once, in order, without a hole.
//!
//! One task reads one stream after the other. An event is delivered if it is the next of its
//! conversation; before one that is not, what lies between is pulled, while the server holds what comes
//! further. Whoever takes the events sets the pace: a bounded channel is between.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Client;
use super::api::{Message, Page, Standing};
use super::backoff::Backoff;
use super::error::Error;
use super::event::{Begin, Event};
use super::reading::{Positions, Reading, Readings, Verdict, position};
use super::socket::{Frame, Hello, Recall, Socket};
use crate::message::{Address, Direction, Position, Pull};

/// Events that wait for who takes them; from there on the stream is not read.
const EVENTS_WAITING_MAX: usize = 256;
/// The first wait between two connections is at most this.
const RECONNECT_BASE: Duration = Duration::from_millis(500);
/// No wait between two connections is longer, unless the server asks for it.
const RECONNECT_CAP: Duration = Duration::from_secs(30);
/// A stream that lasted so long was a good one: the next failure is the first again.
const STABLE: Duration = Duration::from_secs(10);
/// Messages, and recalls, of one pull: the most that the server gives.
const PAGE: u32 = 50;
/// Conversations of one page of a list: the most that the server gives.
const LIST_PAGE: u32 = 200;
/// Pages of one walk through the list: a million conversations.
const LIST_PAGES_MAX: usize = 5000;
/// Bytes of positions in one resume: half of what the server takes unless it is told otherwise.
const RESUME_BYTES_MAX: usize = 32 * 1024;
/// What a position takes beside its id.
const POSITION_BYTES: usize = 96;

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
    let reader = Reader { client, readings: Readings::new(positions), begin, out, was_let_in: false };
    let task = tokio::spawn(Box::pin(reader.run()));
    EventStream { deliveries, taken: Readings::new(positions), task }
}

/// Why a stream is not read any further.
enum Stop {
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

struct Reader {
    client: Client,
    readings: Readings,
    begin: Begin,
    out: mpsc::Sender<Delivery>,
    /// Whether this stream has said hello.
    was_let_in: bool,
}

/// Resumes that are not answered, with where their conversations stood.
type Resuming = HashMap<u64, Vec<Position>>;

impl Reader {
    async fn run(mut self) {
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
            Frame::Group { at, change } => {
                let event = Event::Group { at, action: change.action, user: change.user, by: change.by };
                self.deliver(event, Progress::None).await
            }
            Frame::Hello(_) | Frame::Other => Ok(()),
        }
    }

    /// Takes where a conversation stands; what comes back is where a replay of it has to begin.
    async fn stands(&mut self, end: &Position) -> Result<Option<Position>, Stop> {
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
    async fn begin_chat_at(&mut self, at: &Address, first: Reading) -> Result<Reading, Stop> {
        self.readings.chats.insert(at.clone(), first);
        self.note(Progress::Read(at.clone(), first)).await?;
        Ok(first)
    }

    fn begins_with_first(&self) -> bool {
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

    /// Looks through the whole list for what moved: more did than an event can name.
    async fn walk_list(&mut self) -> Result<(), Stop> {
        let mut cursor = String::new();
        for _ in 0..LIST_PAGES_MAX {
            let page = self.client.list(&cursor, LIST_PAGE).await?;
            for (chat, _) in page.chats {
                let (msg_index, recall_index) = (chat.msg_index, chat.recall_index);
                let end = Position { at: chat.at, msg_index, recall_index };
                if self.stands(&end).await?.is_some() {
                    self.catch_up(&end.at, (&end).into(), None, false).await?;
                }
            }
            if page.cursor.is_empty() {
                return Ok(());
            }
            cursor = page.cursor;
        }
        Ok(())
    }

    /// Reads a conversation up to `goal`, first the messages and then the recalls. Without a position
    /// it begins at the message `from`, or at the newest. `look`: also if it seems to be there.
    async fn catch_up(
        &mut self,
        at: &Address,
        mut goal: Reading,
        from: Option<u32>,
        mut look: bool,
    ) -> Result<(), Stop> {
        loop {
            let Some(reading) = self.readings.chats.get(at).copied() else {
                let Some(newest) = self.begin_chat(at, from).await? else { return Ok(()) };
                goal.raise(newest);
                continue;
            };
            if reading.has(goal) && !look {
                return Ok(());
            }
            let pull = pull_for(reading, goal, look);
            look = false;
            let Some(page) = self.pull(at, &pull).await? else { return Ok(()) };
            let end = Reading { msg_index: page.max_msg_index, recall_index: page.max_recall_index };
            if !end.has(reading) {
                let first = match self.begin {
                    Begin::Newest => Reading { msg_index: end.msg_index.saturating_sub(1), ..end },
                    Begin::Oldest => Reading::default(),
                };
                self.readings.chats.insert(at.clone(), first);
                let event = Event::Reset { at: Some(at.clone()) };
                self.deliver(event, Progress::Read(at.clone(), first)).await?;
                goal = end;
                continue;
            }
            let ahead = self.read_page(at, reading, page).await?;
            goal.raise(Reading { msg_index: ahead, recall_index: 0 });
            if ahead == 0 && self.readings.chats.get(at) == Some(&reading) {
                // The server has nothing there: whoever said so was wrong, and asking again would not end.
                return Ok(());
            }
        }
    }

    /// Gives a conversation without a position its beginning. Everything up to the newest message of
    /// this moment is then pulled, so that it is read as it is after the recalls that are skipped.
    async fn begin_chat(&mut self, at: &Address, from: Option<u32>) -> Result<Option<Reading>, Stop> {
        if self.begins_with_first() {
            return self.begin_chat_at(at, Reading::default()).await.map(Some);
        }
        let newest = Pull {
            direction: Direction::Before,
            start_msg_index: u32::MAX,
            start_recall_index: 0,
            count: 1,
            wait: Duration::ZERO,
        };
        let Some(page) = self.pull(at, &newest).await? else { return Ok(None) };
        let first = from.unwrap_or(u32::MAX).min(page.max_msg_index.max(1));
        let reading = Reading { msg_index: first - 1, recall_index: page.max_recall_index };
        self.begin_chat_at(at, reading).await?;
        Ok(Some(Reading { msg_index: page.max_msg_index, recall_index: page.max_recall_index }))
    }

    /// A page, unless the server refuses this conversation.
    async fn pull(&mut self, at: &Address, pull: &Pull) -> Result<Option<Page>, Stop> {
        match self.client.pull(at, pull).await {
            // A restore needs a restart, and the next hello tells of it.
            Ok(page) if self.readings.epoch.is_some_and(|epoch| epoch != page.epoch) => {
                Err(Error::no_answer("history has changed").into())
            }
            Ok(page) => Ok(Some(page)),
            Err(error @ Error::Refused { .. }) if !error.is_unauthenticated() => {
                let event = Event::Problem { at: at.clone(), why: error.to_string() };
                self.deliver(event, Progress::None).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Delivers what is the next in a page, and what is behind that. What comes back is the message
    /// that has to be read before a recall of it; 0: none.
    async fn read_page(&mut self, at: &Address, mut reading: Reading, page: Page) -> Result<u32, Stop> {
        reading.begin_at(page.min_msg_index.min(page.max_msg_index.saturating_add(1)));
        self.readings.chats.insert(at.clone(), reading);
        for message in page.msgs {
            if reading.message(message.msg_index) == Verdict::Next {
                self.readings.chats.insert(at.clone(), reading);
                self.deliver_message(at.clone(), message).await?;
            }
        }
        for (recall_index, msg_index) in page.recalls {
            match reading.recall(recall_index, msg_index) {
                Verdict::Next => {
                    self.readings.chats.insert(at.clone(), reading);
                    self.deliver_recall(at.clone(), msg_index, recall_index, String::new()).await?;
                }
                Verdict::Known => {}
                Verdict::Gap if msg_index > reading.msg_index => return Ok(msg_index),
                Verdict::Gap => break,
            }
        }
        Ok(0)
    }

    async fn deliver_message(&self, at: Address, message: Message) -> Result<(), Stop> {
        let progress = self.progress(&at);
        self.deliver(Event::Message { at, message }, progress).await
    }

    async fn deliver_recall(
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
    async fn deliver(&self, event: Event, progress: Progress) -> Result<(), Stop> {
        self.out.send(Delivery { event: Some(Ok(event)), progress }).await.map_err(|_| Stop::Gone)
    }

    /// What no event says.
    async fn note(&self, progress: Progress) -> Result<(), Stop> {
        self.out.send(Delivery { event: None, progress }).await.map_err(|_| Stop::Gone)
    }
}

fn pull_for(reading: Reading, goal: Reading, look: bool) -> Pull {
    let is_messages = look || reading.msg_index < goal.msg_index;
    Pull {
        direction: Direction::After,
        start_msg_index: if is_messages { reading.msg_index.saturating_add(1) } else { 0 },
        start_recall_index: if is_messages { 0 } else { reading.recall_index.saturating_add(1) },
        count: PAGE,
        wait: Duration::ZERO,
    }
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
