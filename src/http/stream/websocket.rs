//! One WebSocket from its 101 to its end: one task that reads many frames at a time, makes their
//! calls, and writes answers and events with one system call for all that is ready.
//!
//! Nothing here waits for the client without a limit: what is not read by it fills a bounded buffer,
//! then neither events nor calls are taken in any more, and the socket's write time-out ends it. The
//! protocol of what comes in is a library's, which is given bytes and gives messages.

mod calls;
mod reading;

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use super::call::{Call, ENVELOPE_BYTES_MAX, Id};
use super::outgoing::Outgoing;
use super::resume::{Replayed, Resumed};
use super::{
    Alarm, DrainBegins, Ending, GOING_DOWN, Opened, Pending, TOKEN_EXPIRED, drain_begins, event, frame,
};
use crate::http::wire::Wire;
use crate::live::Event;

/// What the protocol takes at a time: some sixteen sends. An idle socket keeps this much.
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
/// Pings and pongs of the client between two pings of ours: a client needs one of each.
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
    let mut wire = parts.io.into_inner();
    wire.looks_no_more();
    let mut socket = Box::new(Socket::new(opened, wire, &parts.read_buf));
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
    /// What was read of the wire and is for the protocol still.
    ahead: Bytes,
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
    /// How many pings and pongs came since the last ping of ours.
    pings: usize,
}

impl Socket {
    fn new(mut opened: Opened, wire: Wire, read: &[u8]) -> Self {
        let edge = &opened.edge;
        edge.metrics.streams.websockets.inc();
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
            ahead: Bytes::new(),
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
                        self.opened.edge.metrics.streams.stalled.inc();
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
            self.opened.edge.metrics.streams.stalled.inc();
            return self.farewell(SILENT);
        } else {
            self.silence += 1;
            self.out.copy(&frame::PING);
        }
        self.was_heard = false;
    }

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
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.opened.edge.metrics.streams.websockets.dec();
    }
}
