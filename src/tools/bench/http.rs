//! One connection over HTTP/1.1: a request, then its answer.
//!
//! Requests are bytes that were prepared, and of an answer only the head is parsed. With hyper's client a request cost
//! 4.3 us of this side's CPU beside the kernel's, and so took a fifth off what the server next to it could show; this
//! way it is about as much as `wrk` takes (figures in docs/performance.md). What it gives up: an answer has to say its
//! length, as ours do.

use std::io;

use httparse::{EMPTY_HEADER, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{ANSWER_BYTES_MAX, Answered, judge};
use super::tally::{Failure, Verb};
use crate::tls::{Endpoint, Protocol, Socket};

/// Longest head of an answer, in bytes, and most headers in it.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 32;
/// Room for an answer before its length is known, in bytes: what a page of twenty messages needs.
const FIRST_READ_BYTES: usize = 8 << 10;

/// An open connection.
pub(super) struct HttpConnection {
    stream: Socket,
    /// What came of the answer so far.
    received: Vec<u8>,
    is_over: bool,
}

/// What the head of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    head_bytes: usize,
    body_bytes: usize,
    /// No request may follow.
    is_last: bool,
}

impl HttpConnection {
    pub(super) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = endpoint.open(Protocol::Http1).await?;
        Ok(Self { stream, received: Vec::with_capacity(FIRST_READ_BYTES), is_over: false })
    }

    /// Whether no request can follow: the other side said so, is gone, or is not understood.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Sends a request and waits for its answer. Of a send, the index of the message.
    pub(super) async fn ask(&mut self, verb: Verb, request: &[u8]) -> Answered {
        let (status, body) = self.exchange(request).await?;
        judge(verb, status, body)
    }

    /// Sends a request and waits for its answer: the status and the body.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8]), Failure> {
        // Until the answer is whole.
        self.is_over = true;
        self.received.clear();
        self.stream.write_all(request).await.map_err(|_| Failure::Connection)?;
        self.stream.flush().await.map_err(|_| Failure::Connection)?;
        let head = loop {
            self.read(FIRST_READ_BYTES).await?;
            match head_of(&self.received)? {
                Some(head) => break head,
                None if self.received.len() > HEAD_BYTES_MAX => return Err(Failure::WrongBody),
                None => {}
            }
        };
        let whole = head.head_bytes + head.body_bytes;
        while self.received.len() < whole {
            self.read(whole - self.received.len()).await?;
        }
        self.is_over = head.is_last || self.received.len() > whole;
        Ok((head.status, &self.received[head.head_bytes..whole]))
    }

    async fn read(&mut self, room_bytes: usize) -> Result<(), Failure> {
        self.received.reserve(room_bytes);
        match self.stream.read_buf(&mut self.received).await {
            Ok(0) | Err(_) => Err(Failure::Connection),
            Ok(_) => Ok(()),
        }
    }
}

/// The head, if it is whole already.
fn head_of(received: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(received) {
        Ok(Status::Complete(head_bytes)) => head_bytes,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::WrongBody),
    };
    let (mut body_bytes, mut is_last) = (None, false);
    for header in &*response.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            body_bytes = std::str::from_utf8(header.value).ok().and_then(|value| value.parse().ok());
        } else if header.name.eq_ignore_ascii_case("connection") {
            is_last = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    match (response.code, body_bytes.filter(|bytes| *bytes <= ANSWER_BYTES_MAX)) {
        (Some(status), Some(body_bytes)) => Ok(Some(Head { status, head_bytes, body_bytes, is_last })),
        _ => Err(Failure::WrongBody),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        let head = Head { status: 200, head_bytes: whole.len() - 2, body_bytes: 2, is_last: true };
        assert_eq!(head_of(whole), Ok(Some(head)));
        for end in 0..head.head_bytes {
            assert_eq!(head_of(&whole[..end]), Ok(None), "{end}");
        }
        for bad in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            "SSH-2.0\r\n",
        ] {
            assert_eq!(head_of(bad.as_bytes()), Err(Failure::WrongBody), "{bad:?}");
        }
    }
}
