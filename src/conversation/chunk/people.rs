//! Who is in a conversation, and who blocks whom in a pair, as one of its chunks says it.

use super::{NO_DUTY, decode};
use crate::conversation::blocks::Blocks;
use crate::conversation::codec;

/// What a chunk says of people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct People<'a> {
    /// The participants in it. None in most chunks of a long series: their table comes at its end, in several chunks
    /// when it is large.
    pub(crate) persons: Vec<Person<'a>>,
    pub(crate) blocks: Blocks,
}

/// A row of the table of participants that a chunk carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Person<'a> {
    pub(crate) user: &'a str,
    pub(crate) read_cursor: u32,
    /// The first message that a member may read; `None` for whoever is no member.
    pub(crate) readable_from: Option<u32>,
}

/// The people of a chunk.
pub(crate) fn people_in(payload: &[u8]) -> Result<People<'_>, codec::Error> {
    let (chunk, marks) = decode(payload)?;
    let persons = chunk.participants.iter().map(|row| Person {
        user: row.user,
        read_cursor: row.read_cursor,
        readable_from: (row.duty != NO_DUTY).then_some(row.readable_from),
    });
    let blocks = Blocks::from_bits(marks.blocks).ok_or(codec::Error::Impossible("marks"))?;
    Ok(People { persons: persons.collect(), blocks })
}
