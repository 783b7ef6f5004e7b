//! Server-sent events: the same objects, one `data:` each, as the body of an ordinary answer.
//!
//! hyper asks for more only when its own bounded buffer has room, so a slow reader's events wait in
//! the session; the socket's write time-out ends one that stopped.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::Instant;

use super::{
    Alarm, DrainBegins, Ending, GOING_DOWN, Opened, TAKE_BYTES_MAX, TOKEN_EXPIRED, drain_begins, event, frame,
};
use crate::live::Event;

/// How often a comment says that the stream lives: proxies close what is silent for a minute or less.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING: &[u8] = b": ping\n\n";
/// After how many milliseconds a browser connects again.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// The events of a stream as a body that ends with the token or the node.
pub(in crate::http) struct Events {
    opened: Opened,
    drain: DrainBegins,
    alarm: Alarm,
    next_ping: Instant,
    /// What goes before everything else.
    first: Option<Bytes>,
    has_ended: bool,
    batch: Vec<Arc<Event>>,
}

impl Events {
    pub(super) fn new(mut opened: Opened) -> Self {
        opened.edge.metrics.streams.event_sources.inc();
        let mut first = RETRY.to_vec();
        append(&mut first, &std::mem::take(&mut opened.hello));
        Self {
            drain: drain_begins(&opened.edge),
            alarm: Alarm::new(),
            next_ping: Instant::now() + PING_EVERY,
            first: Some(first.into()),
            has_ended: false,
            batch: Vec::new(),
            opened,
        }
    }

    /// What to write next.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if let Some(ending) = self.poll_ending(cx) {
            self.has_ended = true;
            return Poll::Ready(Some(lines([&event::close(ending.code, ending.why)])));
        }
        if let Poll::Ready(events) = self.poll_events(cx) {
            return Poll::Ready(Some(events));
        }
        let now = Instant::now();
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            return Poll::Ready(Some(Bytes::from_static(PING)));
        }
        Poll::Pending
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Option<Ending> {
        if self.drain.as_mut().poll(cx).is_ready() {
            return Some(GOING_DOWN);
        }
        let expires = self.opened.expires;
        // Also sees to it that the next ping is sent in time.
        let is_due = self.alarm.poll_at(cx, expires.min(self.next_ping)).is_ready();
        (is_due && Instant::now() >= expires).then_some(TOKEN_EXPIRED)
    }

    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let Opened { session, edge, caller, .. } = &self.opened;
        session.poll_take(cx, &mut self.batch, TAKE_BYTES_MAX).map(|behind| {
            if let Some(behind) = behind {
                edge.metrics.streams.behind.inc();
                return lines([&event::behind(&behind, &caller.user)]);
            }
            edge.metrics.streams.events.inc_by(self.batch.len() as u64);
            let frames: Vec<_> =
                self.batch.drain(..).map(|event| event::frame_for(&event, &caller.user)).collect();
            lines(&frames)
        })
    }
}

fn lines<'a>(frames: impl IntoIterator<Item = &'a Bytes>) -> Bytes {
    let mut out = Vec::new();
    for frame in frames {
        append(&mut out, frame);
    }
    out.into()
}

/// Appends one event: our JSON has no line ends.
fn append(out: &mut Vec<u8>, frame: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(frame::payload(frame));
    out.extend_from_slice(b"\n\n");
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.opened.edge.metrics.streams.event_sources.dec();
    }
}
