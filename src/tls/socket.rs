//! A connection's bytes, whichever way they go.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// What bytes come from and go to. What TLS has taken and the system has not goes out with a flush.
pub(crate) enum Socket {
    /// Anybody on the way reads them.
    Plain(TcpStream),
    /// Only the other end does.
    Secret(Box<TlsStream<TcpStream>>),
}

/// Passes a call on to whichever socket it is.
macro_rules! on {
    ($socket:expr, $call:ident($($argument:expr),*)) => {
        match $socket.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).$call($($argument),*),
            Socket::Secret(stream) => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self, poll_write_vectored(cx, slices))
    }

    /// Both take many slices at a time.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, poll_shutdown(cx))
    }
}
