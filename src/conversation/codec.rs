//! How a conversation's bytes are encoded: bincode 2.0.1 behind two functions.
//!
//! Every record and chunk goes through here, so replacing bincode (unmaintained, see `deny.toml`)
//! means replacing this file behind the same golden bytes. Versions, kinds and checksums are not
//! its business: they stand outside the payload, in the frame or the chunk header.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Encode};

/// Most bytes one payload may claim to need. Without a limit, ten hostile bytes make bincode
/// 2.0.1 reserve memory until it panics.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<PAYLOAD_BYTES_MAX>> =
    bincode::config::standard().with_limit::<PAYLOAD_BYTES_MAX>();

/// Why a payload cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// bincode refuses it.
    #[error("payload does not decode: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    /// It decodes, but bytes are left over.
    #[error("payload has {extra} bytes too many")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// A kind that this version does not know.
    #[error("unknown record kind {0}")]
    UnknownKind(u8),
    /// A field holds what the vocabulary forbids.
    #[error("field {0} holds an impossible value")]
    Impossible(&'static str),
}

/// Encodes `value` behind what `buffer` already holds.
pub(super) fn encode_into<T: Encode>(value: &T, buffer: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, buffer, CONFIG).expect("a Vec takes every byte");
}

/// Decodes the whole of `bytes`.
pub(super) fn decode<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, Error> {
    let (value, consumed) = bincode::borrow_decode_from_slice(bytes, CONFIG)?;
    match bytes.len() - consumed {
        0 => Ok(value),
        extra => Err(Error::TrailingBytes { extra }),
    }
}

/// Decodes the `T` at the beginning of `bytes`; with what stands behind it.
pub(super) fn decode_first<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Error> {
    let (value, consumed) = bincode::borrow_decode_from_slice(bytes, CONFIG)?;
    Ok((value, &bytes[consumed..]))
}

/// How many bytes the `T` at the beginning of `bytes` takes.
pub(super) fn length_of<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<usize, Error> {
    let (_, consumed) = bincode::borrow_decode_from_slice::<T, _>(bytes, CONFIG)?;
    Ok(consumed)
}
