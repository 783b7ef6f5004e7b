//! What comes in on a WebSocket: bytes to messages, within limits of size, number and time.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error, ProtocolError};

use super::{
    BAD_FRAME, CALL_BYTES_MAX, CALLS_MAX, NO_MEMORY, NOT_TEXT, NOT_UTF8, Outgoing, PINGS_MAX, Phase, Socket,
    TOO_LARGE, TOO_MANY_PINGS, Unfinished,
};
use crate::http::body::SMALL_BYTES;
use crate::http::wire::Wire;

/// What one read of the system takes at most: some fifty sends.
const READ_AHEAD_BYTES: usize = 16 * 1024;

impl Socket {
    pub(super) fn may_read(&self) -> bool {
        !self.out.is_full()
            && self.calls.len() < CALLS_MAX
            && self.call_bytes < CALL_BYTES_MAX
            && self.next_resume.is_none()
    }

    /// Reads what is there, as far as there is room for answers.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        while matches!(self.phase, Phase::Open) && self.may_read() {
            let (wire, ahead, out) = (&mut self.wire, &mut self.ahead, &mut self.out);
            let mut bytes = Incoming { wire, ahead, cx, out, read: 0 };
            let message = self.protocol.read(&mut bytes);
            self.unfinished.bytes += bytes.read;
            self.was_heard |= bytes.read > 0;
            match message {
                Ok(message) => self.take(message),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.check_unfinished();
                    break;
                }
                Err(error) => self.refuse(error)?,
            }
            moved = true;
        }
        Ok(moved)
    }

    fn take(&mut self, message: Message) {
        /// Header and mask of a control frame.
        const CONTROL_BYTES: usize = 6;
        match message {
            Message::Text(text) => {
                let unfinished = std::mem::take(&mut self.unfinished);
                self.take_text(text.into(), unfinished.share);
            }
            Message::Ping(payload) | Message::Pong(payload) => {
                self.unfinished.bytes = self.unfinished.bytes.saturating_sub(payload.len() + CONTROL_BYTES);
                if self.unfinished.bytes == 0 {
                    // It came in pieces, and nothing of a message with it.
                    self.unfinished = Unfinished::default();
                }
                self.pings += 1;
                if self.pings > PINGS_MAX {
                    self.farewell(TOO_MANY_PINGS);
                }
            }
            Message::Close(_) => {
                // The library has its answer ready, and says that this was all.
                let mut context = Context::from_waker(std::task::Waker::noop());
                let (wire, ahead, out) = (&mut self.wire, &mut self.ahead, &mut self.out);
                let mut bytes = Incoming { wire, ahead, cx: &mut context, out, read: 0 };
                let _ = self.protocol.flush(&mut bytes);
                self.leave();
            }
            Message::Binary(_) | Message::Frame(_) => self.farewell(NOT_TEXT),
        }
    }

    /// A message that is not whole has a time, and a share of the memory if it is not small.
    fn check_unfinished(&mut self) {
        let bodies = &self.opened.edge.bodies;
        if self.unfinished.bytes == 0 {
            return;
        }
        if self.unfinished.due.is_none() {
            self.unfinished.due = Some(Instant::now() + bodies.patience());
        }
        if self.unfinished.bytes as u64 > SMALL_BYTES && self.unfinished.share.is_none() {
            match bodies.share(bodies.limit_bytes() as u64) {
                Ok(share) => self.unfinished.share = share,
                Err(_) => self.farewell(NO_MEMORY),
            }
        }
    }

    /// What to say to nonsense; an error if there is nobody to say it to.
    fn refuse(&mut self, error: Error) -> io::Result<()> {
        let ending = match error {
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Error::ConnectionClosed | Error::AlreadyClosed => {
                self.leave();
                return Ok(());
            }
            Error::Io(error) => return Err(error),
            Error::Capacity(CapacityError::MessageTooLong { .. }) => TOO_LARGE,
            Error::Utf8(_) => NOT_UTF8,
            _ => BAD_FRAME,
        };
        self.farewell(ending);
        Ok(())
    }
}

/// The socket as the library sees it: what it reads comes from the wire or would block, and what it
/// writes (pongs, the answer to a close) goes to the rest of what goes out.
///
/// The library asks for as many bytes as its buffer has room for, which beside messages in flight may be a few. The
/// system is asked for many, and what is more than was asked for waits here.
struct Incoming<'a, 'b> {
    wire: &'a mut Wire,
    ahead: &'a mut Bytes,
    cx: &'a mut Context<'b>,
    out: &'a mut Outgoing,
    read: usize,
}

impl Incoming<'_, '_> {
    fn read_wire(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut room = [const { MaybeUninit::uninit() }; READ_AHEAD_BYTES];
        let mut buffer = ReadBuf::uninit(&mut room);
        let Poll::Ready(()) = Pin::new(&mut *self.wire).poll_read(self.cx, &mut buffer)? else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let (now, later) = buffer.filled().split_at(buffer.filled().len().min(bytes.len()));
        bytes[..now.len()].copy_from_slice(now);
        *self.ahead = Bytes::copy_from_slice(later);
        Ok(now.len())
    }
}

/// Takes as much as there is room for; says how much. An idle socket keeps nothing of what it read ahead.
fn take(ahead: &mut Bytes, bytes: &mut [u8]) -> usize {
    let read = ahead.len().min(bytes.len());
    ahead.copy_to_slice(&mut bytes[..read]);
    if ahead.is_empty() {
        *ahead = Bytes::new();
    }
    read
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = if self.ahead.is_empty() { self.read_wire(bytes)? } else { take(self.ahead, bytes) };
        self.read += read;
        Ok(read)
    }
}

impl Write for Incoming<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.copy(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_ahead_comes_once_and_its_room_is_given_back() {
        let mut ahead = Bytes::copy_from_slice(b"abcde");
        let mut bytes = [0; 3];
        assert_eq!((take(&mut ahead, &mut bytes), &bytes), (3, b"abc"));
        assert!(ahead.is_unique(), "the control: there is room that is this one's alone");
        assert_eq!((take(&mut ahead, &mut bytes), &bytes[..2]), (2, &b"de"[..]));
        assert!(ahead.is_empty() && !ahead.is_unique());
    }
}
