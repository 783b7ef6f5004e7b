//! WebSocket frames as a server writes them: whole and unmasked (RFC 6455, 5.2).
//!
//! So the bytes of an event are the same for every socket, and are made once. Reading frames, which
//! come from anybody, is a library's.

use bytes::Bytes;

/// Longest header of an unmasked frame.
const HEADER_BYTES_MAX: usize = 10;
/// The last (and only) frame of a message, with its opcode.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
/// A ping without payload, whole.
pub(super) const PING: [u8; 2] = [0x89, 0];
/// Longest reason of a close frame: 125 bytes of payload less the code.
const REASON_BYTES_MAX: usize = 123;

/// A text frame around what `write` appends; `bytes` is a guess of its length.
pub(super) fn text(bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_BYTES_MAX + bytes);
    out.extend_from_slice(&[0; HEADER_BYTES_MAX]);
    write(&mut out);
    let (header, header_bytes) = header(TEXT, out.len() - HEADER_BYTES_MAX);
    // The header's end is known only now: it goes right in front of the payload.
    let from = HEADER_BYTES_MAX - header_bytes;
    out[from..HEADER_BYTES_MAX].copy_from_slice(&header[..header_bytes]);
    Bytes::from(out).slice(from..)
}

/// What is in a frame of [`text`].
pub(super) fn payload(frame: &[u8]) -> &[u8] {
    let header_bytes = match frame[1] {
        126 => 4,
        127 => HEADER_BYTES_MAX,
        _ => 2,
    };
    &frame[header_bytes..]
}

/// A close frame; a reason that is too long is left out.
pub(super) fn close(code: u16, reason: &str) -> Bytes {
    let reason = if reason.len() <= REASON_BYTES_MAX { reason } else { "" };
    let (header, header_bytes) = header(CLOSE, reason.len() + 2);
    [&header[..header_bytes], &code.to_be_bytes(), reason.as_bytes()].concat().into()
}

/// The header of a frame with so many bytes of payload, and its length.
fn header(first: u8, payload: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [first, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if payload < 126 {
        header[1] = payload as u8;
        return (header, 2);
    }
    if let Ok(short) = u16::try_from(payload) {
        header[1] = 126;
        header[2..4].copy_from_slice(&short.to_be_bytes());
        return (header, 4);
    }
    header[1] = 127;
    header[2..].copy_from_slice(&(payload as u64).to_be_bytes());
    (header, HEADER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::Message;
    use tungstenite::protocol::{Role, WebSocket};

    use super::*;

    /// What a client of the library reads.
    fn read(bytes: &[u8]) -> Message {
        let stream = Cursor::new(bytes.to_vec());
        WebSocket::from_raw_socket(stream, Role::Client, None).read().expect("a message")
    }

    #[test]
    fn a_client_reads_texts_of_every_length() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let expected = "x".repeat(length);
            let frame = text(0, |out| out.extend_from_slice(expected.as_bytes()));
            assert_eq!(payload(&frame), expected.as_bytes());
            assert_eq!(read(&frame), Message::text(expected));
        }
    }

    #[test]
    fn a_client_reads_pings_and_closes() {
        assert_eq!(read(&PING), Message::Ping(Bytes::new()));
        let Message::Close(Some(close)) = read(&close(4401, "token expired")) else { panic!("a close") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4401, "token expired"));
        let Message::Close(Some(close)) = read(&super::close(1012, &"x".repeat(124))) else {
            panic!("a close")
        };
        assert_eq!(close.reason.as_str(), "");
    }
}
