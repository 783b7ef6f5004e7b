//! A body that is there already, in up to two pieces, so that bytes which many answers share are not copied into each.
//!
//! hyper writes the head and both pieces with one call. What stands in them is none of its business.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The pieces that are still to be written.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    first: Bytes,
    second: Bytes,
}

impl Pieces {
    /// Two pieces, one behind the other.
    pub(super) fn of(first: Bytes, second: Bytes) -> Self {
        Self { first, second }
    }

    /// Bytes of both.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    /// Both as one, for tests that look into them.
    #[cfg(test)]
    pub(super) fn whole(&self) -> Vec<u8> {
        [&self.first[..], &self.second[..]].concat()
    }

    fn next(&mut self) -> Bytes {
        match self.first.is_empty() {
            true => std::mem::take(&mut self.second),
            false => std::mem::take(&mut self.first),
        }
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Self {
        Self::of(bytes.into(), Bytes::new())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.get_mut().next();
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_come_one_behind_the_other_and_empty_ones_not_at_all() {
        for (first, second, frames) in [("ab", "c", 2), ("ab", "", 1), ("", "c", 1), ("", "", 0)] {
            let mut pieces = Pieces::of(first.into(), second.into());
            assert_eq!(pieces.size_hint().exact(), Some(pieces.len() as u64));
            let (mut whole, mut count) = (Vec::new(), 0);
            while let Some(frame) = pieces.frame().await {
                whole.extend(frame.expect("never fails").into_data().expect("data"));
                count += 1;
            }
            assert_eq!((whole, count), (format!("{first}{second}").into_bytes(), frames));
            assert!(pieces.is_end_stream());
        }
    }
}
