//! What a connection speaks, told by its first bytes without taking them from it.
//!
//! So whoever speaks HTTP/1.1 is served as if nobody had looked. What the bytes mean beyond that is the protocols'
//! business.

use std::io::{self, ErrorKind};

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How every HTTP/2 connection begins, and nothing else: the method is reserved for it (RFC 9113, 3.4 and 11.1).
const HTTP2: &[u8; 4] = b"PRI ";

/// How every TLS connection begins: the type of a record with a handshake, which no HTTP begins with (RFC 8446, 5.1).
const TLS: u8 = 22;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1.1, or what its parser will refuse.
    Http1,
    /// HTTP/2, which the client knows the server to understand ("prior knowledge").
    Http2,
    /// TLS, and something else inside it.
    Tls,
}

/// Waits until the first bytes say what a connection speaks. Whoever sends none is waited for without end.
pub(super) async fn first_words(stream: &TcpStream) -> io::Result<Speaks> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // "Would block" makes the next turn wait for further bytes, which a mere look would not.
        match stream.try_io(Interest::READABLE, || look(stream, ready.is_read_closed())) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            told => return told,
        }
    }
}

/// Takes the first words of a connection that is closed before they told anything: what lies unread makes the end of a
/// socket look like a fault.
pub(super) fn take_words(stream: &TcpStream) {
    let _ = recv(stream, &mut [0; HTTP2.len()], RecvFlags::DONTWAIT);
}

fn look(stream: &TcpStream, is_all: bool) -> io::Result<Speaks> {
    let mut begin = [0; HTTP2.len()];
    let (read, _) = recv(stream, &mut begin, RecvFlags::PEEK)?;
    judge(&begin[..read], is_all).ok_or_else(|| ErrorKind::WouldBlock.into())
}

/// What begins like this; nothing if it takes more bytes to tell and there may be more.
fn judge(begin: &[u8], is_all: bool) -> Option<Speaks> {
    match begin {
        [TLS, ..] => Some(Speaks::Tls),
        begin if begin == HTTP2 => Some(Speaks::Http2),
        begin if !begin.is_empty() && HTTP2.starts_with(begin) && !is_all => None,
        _ => Some(Speaks::Http1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_bytes_are_waited_for_than_it_takes_to_tell() {
        for (begin, is_all, told) in [
            (&b"PRI "[..], false, Some(Speaks::Http2)),
            (b"P", false, None),
            (b"PRI", false, None),
            (b"PRI", true, Some(Speaks::Http1)),
            (b"PO", false, Some(Speaks::Http1)),
            (b"PRIX", false, Some(Speaks::Http1)),
            (b"G", false, Some(Speaks::Http1)),
            (b"\x16", false, Some(Speaks::Tls)),
            (b"", true, Some(Speaks::Http1)),
            (b"", false, Some(Speaks::Http1)),
        ] {
            assert_eq!(judge(begin, is_all), told, "{begin:?} {is_all}");
        }
    }
}
