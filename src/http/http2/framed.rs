//! The body of an answer, in chunks that show how far the client takes it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Either;
use hyper::Response;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{SENDING_SINCE, Turn};
use crate::http::response::Body;

/// Most bytes of an answer that are handed over at a time, and most that wait with the library for the client's
/// window: few enough for every stream to have some, enough for one frame to be worth its head.
pub(super) const CHUNK_BYTES: usize = 8 * 1024;

/// A body that hands over its next chunk when the last one was taken, and notes since when one waits.
pub(super) struct Framed {
    body: Body,
    /// What the body has given and was not handed over yet.
    rest: Bytes,
    _turn: Turn,
    /// The answer's part of the memory for answers.
    _share: Option<Arc<OwnedSemaphorePermit>>,
}

impl Framed {
    pub(super) fn response(response: Response<Body>, turn: Turn) -> Response<Self> {
        let (mut head, body) = response.into_parts();
        let share = head.extensions.remove();
        Response::from_parts(head, Self { body, rest: Bytes::new(), _turn: turn, _share: share })
    }

    /// The next chunk of the rest. The last byte of an answer is one of its own: the library takes a chunk as soon as there is
    /// window for one byte, so with the last one there is window for all before.
    fn chunk(&mut self) -> Bytes {
        let is_last = matches!(self.body, Either::Left(_)) && self.body.is_end_stream();
        let bytes = if is_last && self.rest.len() > 1 { self.rest.len() - 1 } else { self.rest.len() };
        self.rest.split_to(bytes.min(CHUNK_BYTES))
    }
}

impl hyper::body::Body for Framed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        SENDING_SINCE.with(|since| since.set(None));
        while this.rest.is_empty() {
            let Some(Ok(frame)) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            this.rest = frame.into_data().unwrap_or_default();
        }
        SENDING_SINCE.with(|since| since.set(Some(Instant::now())));
        Poll::Ready(Some(Ok(Frame::data(this.chunk()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.size_hint();
        let rest = self.rest.len() as u64;
        match body.exact() {
            Some(bytes) => SizeHint::with_exact(bytes + rest),
            None => SizeHint::default(),
        }
    }
}
