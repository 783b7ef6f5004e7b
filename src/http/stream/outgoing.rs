//! What a WebSocket has still to write: many frames with one system call, large ones without a copy.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Frames up to this many bytes are copied together: a slice of its own costs the system about as much.
const COPIED_BYTES_MAX: usize = 1024;
/// From so many bytes on nothing further is taken in: one write to a socket rarely takes more.
const FULL_BYTES: usize = 64 * 1024;
/// Most slices of one system call; far fewer than any system allows.
const SLICES_MAX: usize = 32;
/// Room that is kept while there is nothing to write.
const KEPT_BYTES_MAX: usize = 1024;

/// Bytes in the order in which they go out.
#[derive(Default)]
pub(super) struct Outgoing {
    chunks: VecDeque<Bytes>,
    /// What goes behind the chunks.
    tail: BytesMut,
    bytes: usize,
}

impl Outgoing {
    /// Adds a frame.
    pub(super) fn push(&mut self, frame: Bytes) {
        if frame.len() <= COPIED_BYTES_MAX {
            return self.copy(&frame);
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.bytes += frame.len();
        self.chunks.push_back(frame);
    }

    /// Adds bytes of somebody else's.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.tail.extend_from_slice(bytes);
    }

    /// Whether to wait until some of it is written.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Writes until all is written and on its way, or the socket takes no more.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut socket: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.slices(&mut slices);
            let written = ready!(socket.as_mut().poll_write_vectored(cx, &slices[..filled]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        // A secret socket may still have what it took.
        ready!(socket.as_mut().poll_flush(cx))?;
        if self.tail.capacity() > KEPT_BYTES_MAX {
            (self.tail, self.chunks) = (BytesMut::new(), VecDeque::new());
        }
        Poll::Ready(Ok(()))
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let all = self.chunks.iter().map(|chunk| &chunk[..]).chain([&self.tail[..]]);
        let mut filled = 0;
        for (slice, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                return chunk.advance(written);
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
        self.tail.advance(written);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// Takes a few bytes, then none, then a few again; what it took is gone only when it was flushed.
    struct Slow {
        held: Vec<u8>,
        taken: Vec<u8>,
        appetite: usize,
        rests: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.rests = !self.rests;
            if self.rests {
                return Poll::Pending;
            }
            let appetite = self.appetite;
            let bytes: Vec<u8> =
                slices.iter().flat_map(|slice| slice.iter().copied()).take(appetite).collect();
            self.held.extend(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.rests = !self.rests;
            if self.rests {
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.taken.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn bytes_go_out_in_order_whatever_the_socket_takes(
            lengths in prop::collection::vec(prop_oneof![0..50_usize, 900..1200_usize, 5000..9000_usize], 0..80),
            appetite in 1..20_000_usize,
        ) {
            let mut socket = Slow { held: Vec::new(), taken: Vec::new(), appetite, rests: false };
            let (mut out, mut expected) = (Outgoing::default(), Vec::new());
            let mut cx = Context::from_waker(Waker::noop());
            for (place, length) in lengths.iter().enumerate() {
                let frame = vec![place as u8; *length];
                expected.extend_from_slice(&frame);
                out.push(frame.into());
                let _ = out.poll_write(&mut cx, Pin::new(&mut socket));
            }
            while out.poll_write(&mut cx, Pin::new(&mut socket)).is_pending() {}
            prop_assert!(out.is_empty());
            prop_assert_eq!(socket.taken, expected);
        }
    }
}
