//! One WebSocket from its 101 to its end: one task that reads many frames at a time, makes their
//! calls, and writes answers and events with one system call for all that is ready.
//!
//! Nothing here waits for the client without a limit: what is not read by it fills a bounded buffer,
//! then neither events nor calls are taken in any more, and the socket's write time-out ends it. The
//! protocol of what comes in is a library's, which is given bytes and gives messages.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use super::call::{self, Call, ENVELOPE_BYTES_MAX, Id, Refused};
use super::outgoing::Outgoing;
use super::resume::{Replayed, Resumed, replay};
use super::{
    Alarm, DrainBegins, Ending, GOING_DOWN, Opened, Pending, TAKE_BYTES_MAX, TOKEN_EXPIRED, drain_begins,
    event, frame,
};
use crate::http::body::SMALL_BYTES;
use crate::http::failure::Failure;
use crate::http::sync::positions;
use crate::http::wire::Wire;
use crate::live::Event;
use crate::telemetry::{SUCCESS, Verb};

/// What one read takes at most: some sixteen sends. An idle socket keeps this much.
const READ_BYTES: usize = 4096;
/// Most calls of one socket in flight; from there on it is not read.
const CALLS_MAX: usize = 256;
/// Calls that answer with pages, made at a time; further ones wait, and hold up no others. A page may
/// have three MiB, and waits here when the client does not read.
const PAGES_MAX: usize = 8;
/// Most bytes of their frames; the same.
const CALL_BYTES_MAX: usize = 64 * 1024;
/// How long live events wait for the client's first frame, which may be a `resume`: a round trip on a
/// bad line. Whoever needs longer says so with `?resume=1`.
const HOLD_FOR_FIRST_FRAME: Duration = Duration::from_millis(300);
/// How long they wait for a `resume` that was announced.
const HOLD_FOR_RESUME: Duration = Duration::from_secs(10);
/// How long calls in flight have to be answered, and then the farewell to be written, when the server
/// ends the stream.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Pings of the client between two of ours: a client needs one.
const PINGS_MAX: usize = 100;
/// How many of our pings may go unanswered.
const SILENCE_MAX: u32 = 2;
/// After so many rounds the task lets others run.
const ROUNDS_MAX: usize = 16;
/// What a result of a resume takes when nothing failed.
const RESUMED_BYTES: usize = 64;

/// Close codes of IANA's list (RFC 6455, 7.4.1).
const fn fault(code: u16, why: &'static str) -> Ending {
    Ending { code, why, told: false }
}
const BAD_FRAME: Ending = fault(1002, "the frame breaks the protocol");
const NOT_TEXT: Ending = fault(1003, "only text frames are understood");
const NOT_UTF8: Ending = fault(1007, "a text frame must be UTF-8");
const TOO_MANY_PINGS: Ending = fault(1008, "too many pings");
const TOO_LARGE: Ending = fault(1009, "the message is larger than --body-limit");
const NO_MEMORY: Ending = fault(1013, "too many large messages at a time: try again later");
/// Like the status of HTTP for who does not go on.
const TOO_SLOW: Ending = fault(4408, "the message did not arrive in time");
const SILENT: Ending = fault(4408, "pings were not answered");

type Calls = FuturesUnordered<Pin<Box<dyn Future<Output = (usize, Option<Bytes>)> + Send>>>;

/// Serves a WebSocket whose 101 is sent, until it ends.
pub(in crate::http) async fn run(pending: Pending) {
    let Pending { upgrade, opened } = pending;
    // The client may be gone already.
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<Wire>>() else {
        tracing::error!("a connection that was upgraded is none of ours");
        return;
    };
    let mut socket = Box::new(Socket::new(opened, parts.io.into_inner(), &parts.read_buf));
    std::future::poll_fn(|cx| socket.poll(cx)).await;
}

/// How far the stream is.
enum Phase {
    Open,
    /// Nothing further is taken; what is in flight is answered until then.
    Closing {
        ending: Ending,
        until: Instant,
    },
    /// The last bytes are on their way.
    Farewell {
        until: Instant,
    },
}

/// A resume that is under way.
struct Resuming {
    id: Id,
    began: std::time::Instant,
    replay: Option<Pin<Box<dyn Future<Output = Resumed> + Send>>>,
    /// Its outcome, once there is one.
    resumed: Option<Resumed>,
    replayed: mpsc::Receiver<Replayed>,
}

/// A message of which only a part has come.
#[derive(Default)]
struct Unfinished {
    bytes: usize,
    /// When it has to be whole.
    due: Option<Instant>,
    /// Its part of the memory for bodies, once it is not small.
    share: Option<OwnedSemaphorePermit>,
}

struct Socket {
    opened: Opened,
    wire: Wire,
    protocol: WebSocketContext,
    out: Outgoing,
    phase: Phase,
    calls: Calls,
    /// Turns of calls that answer with pages; made for the first one.
    pages: Option<Arc<Semaphore>>,
    /// How many bytes the frames of the calls in flight have.
    call_bytes: usize,
    unfinished: Unfinished,
    /// Until when live events wait, at most.
    held_until: Option<Instant>,
    resuming: Option<Box<Resuming>>,
    /// A second resume waits for the first, and everything behind it unread.
    next_resume: Option<Call>,
    batch: Vec<Arc<Event>>,
    alarm: Alarm,
    drain: DrainBegins,
    next_ping: Instant,
    /// Whether anything came since the last ping.
    was_heard: bool,
    /// How many pings went unanswered.
    silence: u32,
    /// How many pings came since the last of ours.
    pings: usize,
}

impl Socket {
    fn new(mut opened: Opened, wire: Wire, read: &[u8]) -> Self {
        let edge = &opened.edge;
        edge.metrics.websockets.inc();
        let message_max = edge.bodies.limit_bytes() + ENVELOPE_BYTES_MAX;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            // What the library writes goes into our own buffer at once.
            .write_buffer_size(0)
            .max_message_size(Some(message_max))
            .max_frame_size(Some(message_max));
        let mut out = Outgoing::default();
        let now = Instant::now();
        let held_until = match (opened.will_resume, opened.start.has_history()) {
            (true, _) => Some(now + HOLD_FOR_RESUME),
            (false, true) => Some(now + HOLD_FOR_FIRST_FRAME),
            (false, false) => None,
        };
        out.push(std::mem::take(&mut opened.hello));
        Self {
            wire,
            protocol: WebSocketContext::from_partially_read(read.to_vec(), Role::Server, Some(config)),
            out,
            phase: Phase::Open,
            calls: Calls::new(),
            pages: None,
            call_bytes: 0,
            unfinished: Unfinished::default(),
            held_until,
            resuming: None,
            next_resume: None,
            batch: Vec::new(),
            alarm: Alarm::new(),
            drain: drain_begins(&opened.edge),
            next_ping: now + opened.edge.streams.ping,
            was_heard: true,
            silence: 0,
            pings: 0,
            opened,
        }
    }

    /// Does everything that can be done now, again and again until nothing can.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS_MAX {
            let mut moved = self.poll_clock(cx);
            if matches!(self.phase, Phase::Open) {
                match self.poll_read(cx) {
                    Ok(read) => moved |= read,
                    // The client is gone.
                    Err(_) => return Poll::Ready(()),
                }
            }
            moved |= self.poll_calls(cx);
            if matches!(self.phase, Phase::Open) {
                moved |= self.poll_replay(cx) | self.poll_events(cx);
            }
            self.say_farewell();
            let was_full = self.out.is_full();
            match self.out.poll_write(cx, Pin::new(&mut self.wire)) {
                Poll::Ready(Ok(())) if matches!(self.phase, Phase::Farewell { .. }) => {
                    return self.poll_shutdown(cx);
                }
                Poll::Ready(Ok(())) => moved |= was_full,
                Poll::Ready(Err(error)) => {
                    if error.kind() == ErrorKind::TimedOut {
                        self.opened.edge.metrics.stream_stalled.inc();
                    }
                    return Poll::Ready(());
                }
                Poll::Pending => moved |= was_full && !self.out.is_full(),
            }
            // What came may have set a nearer time than the one that is waited for.
            if !moved && self.alarm.is_set_for(self.due()) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    // --- time ---

    /// Looks at the clock and the drain.
    fn poll_clock(&mut self, cx: &mut Context<'_>) -> bool {
        if matches!(self.phase, Phase::Open) && self.drain.as_mut().poll(cx).is_ready() {
            self.close(GOING_DOWN);
        }
        let due = self.due();
        if self.alarm.poll_at(cx, due).is_pending() {
            return false;
        }
        self.ring(Instant::now());
        true
    }

    /// When the clock has to be looked at again.
    fn due(&self) -> Instant {
        match self.phase {
            Phase::Open => [self.held_until, self.unfinished.due, Some(self.opened.expires)]
                .into_iter()
                .flatten()
                .fold(self.next_ping, Instant::min),
            Phase::Closing { until, .. } | Phase::Farewell { until } => until,
        }
    }

    fn ring(&mut self, now: Instant) {
        match self.phase {
            Phase::Open => {}
            Phase::Closing { ending, .. } => return self.farewell(ending),
            Phase::Farewell { .. } => {
                // It had its time: what is not written yet never will be.
                self.out = Outgoing::default();
                self.phase = Phase::Farewell { until: now + CLOSE_PATIENCE };
                return;
            }
        }
        let is_due = |moment: Option<Instant>| moment.is_some_and(|moment| now >= moment);
        if is_due(self.held_until) {
            self.held_until = None;
        }
        if now >= self.opened.expires {
            self.close(TOKEN_EXPIRED);
        } else if is_due(self.unfinished.due) {
            self.message_is_late(now);
        } else if now >= self.next_ping {
            self.ping(now);
        }
    }

    /// What is not read cannot come: its time begins anew then.
    fn message_is_late(&mut self, now: Instant) {
        if self.may_read() {
            self.farewell(TOO_SLOW);
        } else {
            self.unfinished.due = Some(now + self.opened.edge.bodies.patience());
        }
    }

    fn ping(&mut self, now: Instant) {
        self.next_ping = now + self.opened.edge.streams.ping;
        self.pings = 0;
        // Whoever is not read cannot be heard.
        if self.was_heard || !self.may_read() {
            self.silence = 0;
        } else if self.silence >= SILENCE_MAX {
            self.opened.edge.metrics.stream_stalled.inc();
            return self.farewell(SILENT);
        } else {
            self.silence += 1;
            self.out.copy(&frame::PING);
        }
        self.was_heard = false;
    }

    // --- the end ---

    /// Takes nothing further; what is in flight is answered first.
    fn close(&mut self, ending: Ending) {
        self.phase = Phase::Closing { ending, until: Instant::now() + CLOSE_PATIENCE };
    }

    fn say_farewell(&mut self) {
        if let Phase::Closing { ending, .. } = self.phase
            && self.calls.is_empty()
        {
            self.farewell(ending);
        }
    }

    fn farewell(&mut self, ending: Ending) {
        if ending.told {
            self.out.push(event::close(ending.code, ending.why));
        }
        self.out.push(frame::close(ending.code, ending.why));
        self.leave();
    }

    fn leave(&mut self) {
        self.phase = Phase::Farewell { until: Instant::now() + CLOSE_PATIENCE };
    }

    /// Closes the sending side and takes in for a moment what still comes, so that the close frame is
    /// not overtaken by a reset.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // It says only that the client is gone.
        let _ = ready!(Pin::new(&mut self.wire).poll_shutdown(cx));
        Poll::Ready(())
    }

    // --- what comes in ---

    fn may_read(&self) -> bool {
        !self.out.is_full()
            && self.calls.len() < CALLS_MAX
            && self.call_bytes < CALL_BYTES_MAX
            && self.next_resume.is_none()
    }

    /// Reads what is there, as far as there is room for answers.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        while matches!(self.phase, Phase::Open) && self.may_read() {
            let mut bytes = Incoming { wire: &mut self.wire, cx, out: &mut self.out, read: 0 };
            let message = self.protocol.read(&mut bytes);
            self.unfinished.bytes += bytes.read;
            self.was_heard |= bytes.read > 0;
            match message {
                Ok(message) => self.take(message),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.check_unfinished();
                    break;
                }
                Err(error) => self.refuse(error)?,
            }
            moved = true;
        }
        Ok(moved)
    }

    fn take(&mut self, message: Message) {
        /// Header and mask of a control frame.
        const CONTROL_BYTES: usize = 6;
        match message {
            Message::Text(text) => {
                let unfinished = std::mem::take(&mut self.unfinished);
                self.take_text(text.into(), unfinished.share);
            }
            Message::Ping(payload) => {
                self.unfinished.bytes = self.unfinished.bytes.saturating_sub(payload.len() + CONTROL_BYTES);
                self.pings += 1;
                if self.pings > PINGS_MAX {
                    self.farewell(TOO_MANY_PINGS);
                }
            }
            Message::Pong(payload) => {
                self.unfinished.bytes = self.unfinished.bytes.saturating_sub(payload.len() + CONTROL_BYTES);
            }
            Message::Close(_) => {
                // The library has its answer ready, and says that this was all.
                let mut context = Context::from_waker(std::task::Waker::noop());
                let mut bytes =
                    Incoming { wire: &mut self.wire, cx: &mut context, out: &mut self.out, read: 0 };
                let _ = self.protocol.flush(&mut bytes);
                self.leave();
            }
            Message::Binary(_) | Message::Frame(_) => self.farewell(NOT_TEXT),
        }
    }

    /// A message that is not whole has a time, and a share of the memory if it is not small.
    fn check_unfinished(&mut self) {
        let bodies = &self.opened.edge.bodies;
        if self.unfinished.bytes == 0 {
            return;
        }
        if self.unfinished.due.is_none() {
            self.unfinished.due = Some(Instant::now() + bodies.patience());
        }
        if self.unfinished.bytes as u64 > SMALL_BYTES && self.unfinished.share.is_none() {
            match bodies.share(bodies.limit_bytes() as u64) {
                Ok(share) => self.unfinished.share = share,
                Err(_) => self.farewell(NO_MEMORY),
            }
        }
    }

    /// What to say to nonsense; an error if there is nobody to say it to.
    fn refuse(&mut self, error: Error) -> io::Result<()> {
        let ending = match error {
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Error::ConnectionClosed | Error::AlreadyClosed => {
                self.leave();
                return Ok(());
            }
            Error::Io(error) => return Err(error),
            Error::Capacity(CapacityError::MessageTooLong { .. }) => TOO_LARGE,
            Error::Utf8(_) => NOT_UTF8,
            _ => BAD_FRAME,
        };
        self.farewell(ending);
        Ok(())
    }

    // --- calls ---

    fn take_text(&mut self, text: Bytes, share: Option<OwnedSemaphorePermit>) {
        let Opened { edge, caller, .. } = &self.opened;
        let call = call::read(&text).and_then(|call| call.admit(edge, caller));
        let call = match call {
            Ok(call) if call.verb == Verb::Resume => return self.take_resume(call),
            Ok(call) => call,
            Err(refused) => {
                let frame = refused.answer(edge);
                self.out.push(frame);
                self.go_live();
                return;
            }
        };
        let share = match share {
            Some(share) => Ok(Some(share)),
            None => edge.bodies.share(text.len() as u64),
        };
        match share {
            Ok(share) => {
                let pages = call
                    .answers_with_page()
                    .then(|| self.pages.get_or_insert_with(|| Arc::new(Semaphore::new(PAGES_MAX))).clone());
                let made = call.make(edge.clone(), caller.clone(), share);
                let bytes = text.len();
                self.call_bytes += bytes;
                self.calls.push(Box::pin(async move {
                    let _turn = match &pages {
                        Some(pages) => pages.acquire().await.ok(),
                        None => None,
                    };
                    (bytes, made.await)
                }));
            }
            Err(failure) => {
                let frame = Refused::of(call, failure).answer(edge);
                self.out.push(frame);
            }
        }
        self.go_live();
    }

    /// A frame that is no resume ends the waiting for one, unless it was announced.
    fn go_live(&mut self) {
        if !self.opened.will_resume {
            self.held_until = None;
        }
    }

    /// Gives the calls in flight their turn, in the order in which they came, and takes what they
    /// answer. A call gets its first turn in the round in which it came, and a send takes its place in
    /// its conversation then: so the sends of one socket keep their order.
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.out.is_full() {
            let Poll::Ready(Some((bytes, frame))) = Pin::new(&mut self.calls).poll_next(cx) else { break };
            self.call_bytes -= bytes;
            if let Some(frame) = frame {
                self.out.push(frame);
            }
            moved = true;
        }
        moved
    }

    // --- resume ---

    fn take_resume(&mut self, call: Call) {
        if self.resuming.is_some() {
            self.next_resume = Some(call);
            return;
        }
        let Opened { edge, caller, start, .. } = &self.opened;
        match positions(&call.params) {
            Ok(positions) => {
                let (frames, replayed) = mpsc::channel(1);
                let replay = replay(edge.clone(), caller.clone(), start.clone(), positions, frames);
                let Call { id, began, .. } = call;
                let replay: Pin<Box<dyn Future<Output = Resumed> + Send>> = Box::pin(replay);
                let replay = Some(replay);
                self.resuming = Some(Box::new(Resuming { id, began, replay, resumed: None, replayed }));
            }
            Err(why) => {
                let frame = Refused::of(call, Failure::Rejected(why)).answer(edge);
                self.out.push(frame);
                self.held_until = None;
            }
        }
    }

    /// Carries the replay on while there is room for it.
    fn poll_replay(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.out.is_full()
            && let Some(resuming) = &mut self.resuming
        {
            resuming.advance(cx);
            match resuming.replayed.poll_recv(cx) {
                Poll::Ready(Some(Replayed { frames, events })) => {
                    self.opened.edge.metrics.stream_events.inc_by(events as u64);
                    self.out.push(frames);
                }
                // The sender went with the replay, and nothing is left of it.
                Poll::Ready(None) => self.end_replay(),
                Poll::Pending => break,
            }
            moved = true;
        }
        moved
    }

    fn end_replay(&mut self) {
        self.held_until = None;
        let Some(resuming) = self.resuming.take() else { return };
        let Some(resumed) = resuming.resumed else { return };
        let frame = resuming.id.result(RESUMED_BYTES, |out| resumed.write_json(out));
        if let Some(frame) = frame {
            self.out.push(frame);
        }
        self.opened.edge.metrics.request(Verb::Resume, SUCCESS, resuming.began.elapsed());
        if let Some(call) = self.next_resume.take() {
            self.take_resume(call);
        }
    }

    // --- events ---

    fn poll_events(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.out.is_full() && self.held_until.is_none() && self.resuming.is_none() {
            let Opened { session, edge, caller, .. } = &self.opened;
            let Poll::Ready(behind) = session.poll_take(cx, &mut self.batch, TAKE_BYTES_MAX) else { break };
            if let Some(behind) = behind {
                edge.metrics.stream_behind.inc();
                self.out.push(event::behind(&behind, &caller.user));
            }
            edge.metrics.stream_events.inc_by(self.batch.len() as u64);
            for event in self.batch.drain(..) {
                self.out.push(event::frame_for(&event, &caller.user));
            }
            moved = true;
        }
        // An idle connection keeps no room for the busiest moment it had.
        if self.batch.capacity() > 64 {
            self.batch = Vec::new();
        }
        moved
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.opened.edge.metrics.websockets.dec();
    }
}

impl Resuming {
    fn advance(&mut self, cx: &mut Context<'_>) {
        if let Some(replay) = &mut self.replay
            && let Poll::Ready(resumed) = replay.as_mut().poll(cx)
        {
            self.replay = None;
            self.resumed = Some(resumed);
        }
    }
}

/// The socket as the library sees it: what it reads comes from the wire or would block, and what it
/// writes (pongs, the answer to a close) goes to the rest of what goes out.
struct Incoming<'a, 'b> {
    wire: &'a mut Wire,
    cx: &'a mut Context<'b>,
    out: &'a mut Outgoing,
    read: usize,
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut *self.wire).poll_read(self.cx, &mut buffer)? {
            Poll::Ready(()) => {
                self.read += buffer.filled().len();
                Ok(buffer.filled().len())
            }
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Incoming<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.copy(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
