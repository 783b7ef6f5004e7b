//! The wire as a load needs it: an HTTP call at a time, a WebSocket whose frames are told apart and not looked into.
//!
//! Frames are RFC 6455, 5.2. Ours have a mask of zeros, which leaves the text as it is.

use std::error::Error;

use bytes::{Buf, BytesMut};
use httparse::{EMPTY_HEADER, Response, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What went wrong; the run is worth nothing then.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

const HEADERS_MAX: usize = 32;
/// The first byte of a frame that is a whole text, and of one that closes.
pub(crate) const WHOLE_TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;

/// A connection with what has been read of it and not been taken.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    received: BytesMut,
}

/// A call to `path` as HTTP has it.
pub(crate) fn post(address: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: BytesMut::with_capacity(64 << 10) })
    }

    /// A WebSocket on which nothing has been said.
    pub(crate) async fn stream(address: &str, token: &str) -> Result<Self, Failure> {
        let mut connection = Self::open(address).await?;
        let request = format!(
            "GET /im.chat/stream HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        connection.stream.write_all(request.as_bytes()).await?;
        match connection.head().await? {
            (101, _) => Ok(connection),
            (status, _) => Err(format!("no stream: {status}").into()),
        }
    }

    /// Asks over HTTP; the length of the reply's body, which has to be a success.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<usize, Failure> {
        self.stream.write_all(request).await?;
        let (status, bytes) = self.head().await?;
        while self.received.len() < bytes {
            self.read().await?;
        }
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&self.received[..bytes])).into());
        }
        self.received.advance(bytes);
        Ok(bytes)
    }

    /// Takes a head; its status, and how long its body is.
    async fn head(&mut self) -> Result<(u16, usize), Failure> {
        loop {
            let mut headers = [EMPTY_HEADER; HEADERS_MAX];
            let mut head = Response::new(&mut headers);
            if let Status::Complete(bytes) = head.parse(&self.received)? {
                let status = head.code.unwrap_or(0);
                let length = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
                let length = match length {
                    Some(header) => str::from_utf8(header.value)?.parse()?,
                    None => 0,
                };
                self.received.advance(bytes);
                return Ok((status, length));
            }
            self.read().await?;
        }
    }

    /// The next text of a WebSocket, as a frame's payload.
    pub(crate) async fn text(&mut self) -> Result<BytesMut, Failure> {
        loop {
            if let Some(text) = self.next_text()? {
                return Ok(text);
            }
            self.read().await?;
        }
    }

    /// The same, if it is there already.
    pub(crate) fn next_text(&mut self) -> Result<Option<BytesMut>, Failure> {
        while let Some(header) = Header::of(&self.received) {
            if self.received.len() < header.bytes + header.payload_bytes {
                break;
            }
            self.received.advance(header.bytes);
            let payload = self.received.split_to(header.payload_bytes);
            match header.first {
                WHOLE_TEXT => return Ok(Some(payload)),
                CLOSE => return Err("the server closed the stream".into()),
                // Pings: no load lasts so long that one has to be answered.
                _ => {}
            }
        }
        Ok(None)
    }

    pub(crate) async fn read(&mut self) -> Result<(), Failure> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }
}

/// What stands before a frame's payload.
pub(crate) struct Header {
    pub(crate) first: u8,
    /// How long it is itself, the mask included.
    pub(crate) bytes: usize,
    pub(crate) payload_bytes: usize,
}

impl Header {
    /// The header with which `bytes` begin, if it is whole.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (payload_bytes, length_bytes) = match second & !MASKED {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 2),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 8),
            short => (short.into(), 0),
        };
        let mask_bytes = if second & MASKED == 0 { 0 } else { 4 };
        let header_bytes = 2 + length_bytes + mask_bytes;
        let is_whole = bytes.len() >= header_bytes;
        is_whole.then_some(Self { first, bytes: header_bytes, payload_bytes: payload_bytes as usize })
    }
}

/// A text as a client sends it.
pub(crate) fn masked(text: &str) -> Vec<u8> {
    let mut frame = frame_head(text.len(), MASKED);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A text as a server sends it.
pub(crate) fn unmasked(text: &str) -> Vec<u8> {
    let mut frame = frame_head(text.len(), 0);
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn frame_head(payload_bytes: usize, mask: u8) -> Vec<u8> {
    let mut head = vec![WHOLE_TEXT];
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(short @ ..126), _) => head.push(mask | short),
        (_, Ok(middle)) => {
            head.push(mask | 126);
            head.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    head
}
