//! Who is in a conversation, as one of its chunks says it.

use super::{NO_DUTY, decode};
use crate::conversation::codec;

/// A row of the table of participants that a chunk carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Person<'a> {
    pub(crate) user: &'a str,
    pub(crate) read_cursor: u32,
    /// The first message that a member may read; `None` for whoever is no member.
    pub(crate) readable_from: Option<u32>,
}

/// The participants in a chunk. None in most chunks of a long series: their table comes at its end, in several chunks
/// when it is large.
pub(crate) fn people_in(payload: &[u8]) -> Result<Vec<Person<'_>>, codec::Error> {
    let (chunk, _) = decode(payload)?;
    let people = chunk.participants.iter().map(|row| Person {
        user: row.user,
        read_cursor: row.read_cursor,
        readable_from: (row.duty != NO_DUTY).then_some(row.readable_from),
    });
    Ok(people.collect())
}
