//! The socket as hyper sees it: a write that stalls ends it, and an unread body does not take the
//! answer with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_io_timeout::TimeoutWriter;

use crate::tls::Socket;

/// How long an unread body is taken in behind the last answer: a round trip on a bad line.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// Most bytes of it that are taken in.
pub(super) const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of it taken in at a time.
const LINGER_READ_BYTES: usize = 4096;

/// A connection's socket.
///
/// Closing a socket with bytes unread makes the system send a reset, and a reset may overtake the
/// answer that says *why* (RFC 9112, 9.6). So after an answer to a request whose body was left unread
/// the sending side is closed first, and what still comes is thrown away for a while.
pub(super) struct Wire {
    stream: Pin<Box<TimeoutWriter<Socket>>>,
    has_unread: Arc<AtomicBool>,
    lingering: Option<Lingering>,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Wire {
    /// Wraps a socket. A write during which the client takes nothing for `write_timeout` fails.
    pub(super) fn new(stream: Socket, write_timeout: Duration, has_unread: Arc<AtomicBool>) -> Self {
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(write_timeout));
        Self { stream: Box::pin(stream), has_unread, lingering: None }
    }

    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self
            .lingering
            .get_or_insert_with(|| Lingering { until: Box::pin(tokio::time::sleep(LINGER)), bytes: 0 });
        let mut scratch = [0; LINGER_READ_BYTES];
        while lingering.bytes < LINGER_BYTES_MAX && lingering.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(self.stream.as_mut().poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            lingering.bytes += buffer.filled().len();
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(self.stream.as_mut().poll_shutdown(cx))?;
            if !self.has_unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        self.linger(cx).map(Ok)
    }
}
