//! The socket as hyper sees it: a write that stalls ends it, an unread body does not take the
//! answer with it, and what hyper may answer by itself is held back until somebody knows.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_io_timeout::TimeoutWriter;

use super::refusal;
use crate::tls::Socket;

/// How long an unread body is taken in behind the last answer: a round trip on a bad line.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// Most bytes of it that are taken in.
pub(super) const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of it taken in at a time.
const LINGER_READ_BYTES: usize = 4096;
/// An answer with a body comes in as many slices at least, so that no other one is looked at.
const ANSWER_SLICES_MIN: usize = 2;

/// A connection's socket.
///
/// Closing a socket with bytes unread makes the system send a reset, and a reset may overtake the
/// answer that says *why* (RFC 9112, 9.6). So after an answer to a request whose body was left unread
/// the sending side is closed first, and what still comes is thrown away for a while.
///
/// What has the form of an answer of hyper's own ([`refusal`]) is held back. Such an answer is the last of its connection, so
/// the socket is closed next, which is left to whoever [takes](Self::take_withheld) it: hyper's error says by then what it
/// is. Whatever is written instead goes behind it. Of a body that waits for the client the rest would be held back too, if it
/// had that form to its end: none of ours ends with an empty line.
pub(super) struct Wire {
    stream: Pin<Box<TimeoutWriter<Socket>>>,
    has_unread: Arc<AtomicBool>,
    lingering: Option<Lingering>,
    /// Writes of fewer slices are looked at: of all of them while something is held back.
    looks_below_slices: usize,
    withheld: Vec<u8>,
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
        let (stream, looks_below_slices) = (Box::pin(stream), ANSWER_SLICES_MIN);
        Self { stream, has_unread, lingering: None, looks_below_slices, withheld: Vec::new() }
    }

    /// What was held back and is still to be written, once hyper has done with the socket.
    pub(super) fn take_withheld(&mut self) -> Option<Vec<u8>> {
        self.looks_below_slices = ANSWER_SLICES_MIN;
        let withheld = std::mem::take(&mut self.withheld);
        (!withheld.is_empty()).then_some(withheld)
    }

    /// From here on it is not HTTP/1.1, and nothing is looked at.
    pub(super) fn looks_no_more(&mut self) {
        self.looks_below_slices = 0;
    }

    /// From here on a close takes in what the client still sends.
    pub(super) fn leaves_unread(&self) {
        self.has_unread.store(true, Ordering::Relaxed);
    }

    #[cold]
    fn write_looking(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while !self.withheld.is_empty() {
            let written = ready!(self.stream.as_mut().poll_write(cx, &self.withheld))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.withheld.drain(..written);
        }
        self.looks_below_slices = ANSWER_SLICES_MIN;
        match slices {
            [head] if refusal::may_be(head) => {
                self.withheld.extend_from_slice(head);
                self.looks_below_slices = usize::MAX;
                Poll::Ready(Ok(head.len()))
            }
            _ => self.stream.as_mut().poll_write_vectored(cx, slices),
        }
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
        if slices.len() < self.looks_below_slices {
            return self.write_looking(cx, slices);
        }
        self.stream.as_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.withheld.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.lingering.is_none() {
            ready!(self.stream.as_mut().poll_shutdown(cx))?;
            if !self.has_unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        self.linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Of the form that hyper's own refusals have.
    const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    async fn wire() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        (Wire::new(Socket::Plain(stream), Duration::from_secs(60), Arc::default()), client)
    }

    async fn write(wire: &mut Wire, slices: &[&[u8]]) {
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let written = wire.write_vectored(&slices).await.expect("a client that reads");
        assert_eq!(written, slices.iter().map(|slice| slice.len()).sum::<usize>());
    }

    async fn rest(mut client: TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.expect("an orderly end");
        bytes
    }

    #[tokio::test]
    async fn what_hyper_may_have_said_itself_and_the_end_behind_it_are_left_to_whoever_takes_it() {
        let (mut wire, client) = wire().await;
        write(&mut wire, &[b"before ", b"it"]).await;
        write(&mut wire, &[REFUSAL]).await;
        wire.flush().await.expect("a socket");
        wire.shutdown().await.expect("a socket");
        assert_eq!(wire.take_withheld().as_deref(), Some(REFUSAL));
        assert_eq!(wire.take_withheld(), None);
        write(&mut wire, &[b" and instead"]).await;
        wire.shutdown().await.expect("a socket");
        assert_eq!(rest(client).await, b"before it and instead");
    }

    #[tokio::test]
    async fn what_is_not_http_is_not_looked_at() {
        let (mut wire, client) = wire().await;
        wire.looks_no_more();
        write(&mut wire, &[REFUSAL]).await;
        assert_eq!(wire.take_withheld(), None);
        wire.shutdown().await.expect("a socket");
        assert_eq!(rest(client).await, REFUSAL);
    }

    #[tokio::test]
    async fn what_was_no_end_goes_out_before_what_follows() {
        let (mut wire, client) = wire().await;
        for _ in 0..2 {
            write(&mut wire, &[REFUSAL]).await;
            write(&mut wire, &[b"more", b" of it "]).await;
        }
        assert_eq!(wire.take_withheld(), None);
        wire.shutdown().await.expect("a socket");
        let once = [REFUSAL, b"more of it "].concat();
        assert_eq!(rest(client).await, [once.clone(), once].concat());
    }
}
