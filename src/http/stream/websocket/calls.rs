//! What goes out on a WebSocket: answers of calls, replays, events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Opened, PAGES_MAX, Phase, RESUMED_BYTES, Resuming, Socket};
use crate::http::failure::Failure;
use crate::http::stream::call::{self, Call, Refused};
use crate::http::stream::resume::{Replayed, Resumed, replay};
use crate::http::stream::{TAKE_BYTES_MAX, event};
use crate::http::sync::positions;
use crate::telemetry::{SUCCESS, Verb};

impl Socket {
    pub(super) fn take_text(&mut self, text: Bytes, share: Option<OwnedSemaphorePermit>) {
        let Opened { edge, caller, .. } = &self.opened;
        let call = match call::admit(&text, edge, caller) {
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
    /// its conversation then: so the sends of one socket keep their order. So does what came in front of a close; but
    /// behind the close frame nothing is answered (RFC 6455, 5.5.1).
    pub(super) fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let may_answer = !matches!(self.phase, Phase::Farewell { .. });
        while !self.out.is_full() {
            let Poll::Ready(Some((bytes, frame))) = Pin::new(&mut self.calls).poll_next(cx) else { break };
            self.call_bytes -= bytes;
            if let Some(frame) = frame.filter(|_| may_answer) {
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
    pub(super) fn poll_replay(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.out.is_full()
            && let Some(resuming) = &mut self.resuming
        {
            resuming.advance(cx);
            match resuming.replayed.poll_recv(cx) {
                Poll::Ready(Some(Replayed { frames, events })) => {
                    self.opened.edge.metrics.streams.events.inc_by(events as u64);
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

    pub(super) fn poll_events(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.out.is_full() && self.held_until.is_none() && self.resuming.is_none() {
            let Opened { session, edge, caller, .. } = &self.opened;
            let Poll::Ready(behind) = session.poll_take(cx, &mut self.batch, TAKE_BYTES_MAX) else { break };
            if let Some(behind) = behind {
                edge.metrics.streams.behind.inc();
                self.out.push(event::behind(&behind, &caller.user));
            }
            edge.metrics.streams.events.inc_by(self.batch.len() as u64);
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
