//! Chunks: the part of a conversation that a snapshot does not have yet, as bytes, and back.
//!
//! A chunk holds the messages and recalls since the last one, and, when it is the last of its
//! series, the small head whole: participants, group facts, clock, hash. A long delta is a series
//! of chunks of bounded size. Files, checksums and which chunks are current are the business of
//! [`crate::snapshot`].

use bincode::{BorrowDecode, Encode};

pub use self::loader::Error;
pub(crate) use self::loader::{Loader, messages_of};
pub(crate) use self::merge::{Merger, Retention};
pub(crate) use self::people::{People as ChunkPeople, people_in};

use self::marks::MarksV2;
use super::codec;
use super::history::Stored;
use super::participants::{Membership, Participant};
use super::state::State;

mod loader;
mod marks;
mod merge;
mod people;

/// Texts per chunk after which the next one begins. Small enough that encoding one does not delay
/// its conversation noticeably (about 1 ms), large enough that headers do not count.
const CHUNK_TEXT_BYTES: usize = 1 << 20;
/// Texts behind which recalls get a chunk of their own: whoever loads a long conversation reads all
/// of its recalls, but few of its texts.
const MIXED_TEXT_BYTES: usize = 64 << 10;
/// Messages per chunk, for the same reason when texts are short.
const CHUNK_MESSAGES: u32 = 4_096;
/// Recalls per chunk: at most 1.3 MB.
const CHUNK_RECALLS: u32 = 1 << 18;
/// Participants per chunk: at most 2.6 MB with the longest ids.
const CHUNK_PARTICIPANTS: usize = 1 << 14;
/// The kind of every chunk, as it stands in the pack beside the payload.
pub(crate) const KIND: u8 = 1;
/// Which struct the payload is: [`ChunkV1`] ...
pub(crate) const VERSION: u8 = 1;
/// ... and [`MarksV2`] behind it.
pub(crate) const VERSION_WITH_MARKS: u8 = 2;
/// Stands for "not a member" where a duty is expected.
const NO_DUTY: u8 = 255;

/// How much of a conversation the snapshot has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) messages: u32,
    pub(crate) recalls: u32,
}

impl Saved {
    fn plus(self, messages: usize, recalls: usize) -> Self {
        Self { messages: self.messages + messages as u32, recalls: self.recalls + recalls as u32 }
    }
}

/// One encoded chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The state of the log in it; only true of the series up to this chunk when `complete`.
    pub(crate) applied_lsn: u64,
    pub(crate) summary: Summary,
    pub(crate) payload: Vec<u8>,
    /// Whether it is the last of its series and carries the head.
    pub(crate) complete: bool,
    /// [`VERSION`], or [`VERSION_WITH_MARKS`] where there are some.
    pub(crate) version: u8,
}

/// What the index of a pack tells of a chunk without decoding it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Messages before the chunk, and with it.
    pub(crate) messages: (u32, u32),
    /// Recalls before the chunk, and with it.
    pub(crate) recalls: (u32, u32),
    pub(crate) complete: bool,
    /// When the newest message of the chunk was sent, Unix nanoseconds; 0 when it has none, or when
    /// a version that did not say wrote it.
    pub(crate) newest_message_ns: u64,
    /// The greatest message index that a recall of the chunk took back; 0 for none.
    pub(crate) greatest_recalled: u32,
    /// Whether its messages are kept for their ids only: retention took their texts.
    pub(crate) hollow: bool,
    /// Whether there is a head and no conversation: one of a pair blocks the other, or did.
    pub(crate) unbegun: bool,
}

/// Bits of one of the numbers of a summary.
const COMPLETE: u32 = 1;
const HOLLOW: u32 = 2;
const UNBEGUN: u32 = 4;

impl Summary {
    /// As the eight opaque numbers of a pack's index.
    pub(crate) fn to_numbers(self) -> [u32; 8] {
        let Self { messages, recalls, complete, newest_message_ns: ns, greatest_recalled, .. } = self;
        let bits = u32::from(complete) * COMPLETE
            + u32::from(self.hollow) * HOLLOW
            + u32::from(self.unbegun) * UNBEGUN;
        let (ns_high, ns_low) = ((ns >> 32) as u32, ns as u32);
        [messages.0, messages.1, recalls.0, recalls.1, bits, ns_high, ns_low, greatest_recalled]
    }

    /// How much of the conversation the packs have with this chunk.
    pub(crate) fn after(self) -> Saved {
        Saved { messages: self.messages.1, recalls: self.recalls.1 }
    }

    /// Back from the numbers of an index.
    pub(crate) fn from_numbers(numbers: [u32; 8]) -> Self {
        let [m0, m1, r0, r1, bits, ns_high, ns_low, greatest_recalled] = numbers;
        let newest_message_ns = u64::from(ns_high) << 32 | u64::from(ns_low);
        let [complete, hollow, unbegun] = [COMPLETE, HOLLOW, UNBEGUN].map(|bit| bits & bit != 0);
        let (messages, recalls) = ((m0, m1), (r0, r1));
        Self { messages, recalls, complete, newest_message_ns, greatest_recalled, hollow, unbegun }
    }
}

/// Every chunk has every part; which ones are filled depends on its place in the series.
#[derive(Debug, Default, Encode, BorrowDecode)]
struct ChunkV1<'a> {
    messages_before: u32,
    messages: Vec<MessageV1<'a>>,
    recalls_before: u32,
    recalls: Vec<u32>,
    /// Participants of this series in the chunks before; 0 begins the table anew.
    participants_before: u32,
    participants: Vec<ParticipantV1<'a>>,
    head: Option<HeadV1<'a>>,
}

#[derive(Debug, Encode, BorrowDecode)]
struct MessageV1<'a> {
    sender: u32,
    timestamp_ns: u64,
    client_msg_id: &'a str,
    msg: &'a str,
    extra: &'a str,
    erased: bool,
}

impl MessageV1<'_> {
    fn text_bytes(&self) -> usize {
        self.msg.len() + self.extra.len()
    }

    fn stored(&self) -> Stored<'_> {
        Stored {
            sender: self.sender,
            timestamp_ns: self.timestamp_ns,
            recall_index: 0,
            client_msg_id: self.client_msg_id,
            msg: self.msg,
            extra: self.extra,
            erased: self.erased,
        }
    }
}

#[derive(Debug, Encode, BorrowDecode)]
struct HeadV1<'a> {
    last_timestamp_ns: u64,
    hash: u128,
    group: Option<GroupFactsV1<'a>>,
}

#[derive(Debug, Encode, BorrowDecode)]
struct GroupFactsV1<'a> {
    name: &'a str,
    created_ns: u64,
}

#[derive(Debug, Encode, BorrowDecode)]
struct ParticipantV1<'a> {
    user: &'a str,
    read_cursor: u32,
    duty: u8,
    joined_ns: u64,
    readable_from: u32,
}

/// The next chunks of what `saved` does not have: one of messages, or one of recalls, or, when
/// little is left, the end of the series. Call again until the last one is complete.
///
/// Messages and recalls only grow, so their chunks stay true while the conversation goes on; what
/// can change, the participants and the head, is taken in one piece at the end.
///
/// Texts of recalled messages are left out: the caller publishes chunks only after everything in
/// them, the recalls too, is durable.
pub(crate) fn encode_next(state: &State, saved: Saved) -> Vec<Chunk> {
    if let Some(hollow) = take_hollow(state, saved) {
        return vec![hollow];
    }
    let messages = take_messages(state, saved);
    let after = saved.plus(messages.len(), 0);
    if after.messages < state.history.newest_message() {
        return vec![finish(state.applied_lsn, ChunkV1 { messages, ..continuing(saved) })];
    }
    if state.history.newest_recall() - saved.recalls > CHUNK_RECALLS {
        let recalls = take_recalls(state, saved);
        return vec![
            finish(state.applied_lsn, ChunkV1 { messages, ..continuing(saved) }),
            finish(state.applied_lsn, ChunkV1 { recalls, ..continuing(after) }),
        ];
    }
    let has_recalls = saved.recalls < state.history.newest_recall();
    if has_recalls && is_long(messages.iter().map(MessageV1::text_bytes)) {
        let mut chunks = vec![finish(state.applied_lsn, ChunkV1 { messages, ..continuing(saved) })];
        chunks.append(&mut encode_end(state, after, Vec::new()));
        return chunks;
    }
    encode_end(state, saved, messages)
}

/// The next messages that are there for their ids only: an import may bring such.
fn take_hollow(state: &State, saved: Saved) -> Option<Chunk> {
    let history = &state.history;
    let last = (history.kept_from() - 1).min(saved.messages.saturating_add(CHUNK_MESSAGES));
    let stored = (saved.messages + 1..=last).filter_map(|index| history.message(index));
    // What was sent here and is not kept any more still has its text.
    if !stored.clone().any(|stored| stored.erased && stored.recall_index == 0) {
        return None;
    }
    let messages = stored.map(message_of).collect();
    let mut chunk = finish(state.applied_lsn, ChunkV1 { messages, ..continuing(saved) });
    chunk.summary.hollow = true;
    Some(chunk)
}

fn is_long(text_bytes: impl Iterator<Item = usize>) -> bool {
    text_bytes.sum::<usize>() > MIXED_TEXT_BYTES
}

/// Whatever messages and recalls are left, then the participants, then the head.
fn encode_end<'a>(state: &'a State, saved: Saved, messages: Vec<MessageV1<'a>>) -> Vec<Chunk> {
    let recalls = take_recalls(state, saved);
    let all = saved.plus(messages.len(), recalls.len());
    let mut body = ChunkV1 { messages, recalls, ..continuing(saved) };
    let mut chunks = Vec::new();
    for (rows, number) in state.participants.rows().chunks(CHUNK_PARTICIPANTS).zip(0u32..) {
        if number > 0 {
            let next = ChunkV1 { participants_before: number * CHUNK_PARTICIPANTS as u32, ..continuing(all) };
            chunks.push(finish(state.applied_lsn, std::mem::replace(&mut body, next)));
        }
        body.participants = rows.iter().map(participant_of).collect();
    }
    body.head = Some(head_of(state));
    chunks.push(finish_with(state.applied_lsn, body, &MarksV2::of(state)));
    chunks
}

fn continuing<'a>(saved: Saved) -> ChunkV1<'a> {
    ChunkV1 { messages_before: saved.messages, recalls_before: saved.recalls, ..ChunkV1::default() }
}

fn finish(applied_lsn: u64, body: ChunkV1<'_>) -> Chunk {
    finish_with(applied_lsn, body, &MarksV2::default())
}

fn finish_with(applied_lsn: u64, body: ChunkV1<'_>, marks: &MarksV2) -> Chunk {
    let summary = Summary {
        messages: (body.messages_before, body.messages_before + body.messages.len() as u32),
        recalls: (body.recalls_before, body.recalls_before + body.recalls.len() as u32),
        complete: body.head.is_some(),
        newest_message_ns: body.messages.last().map_or(0, |message| message.timestamp_ns),
        greatest_recalled: body.recalls.iter().copied().max().unwrap_or(0),
        hollow: false,
        // Whatever else happens in a conversation names somebody.
        unbegun: body.head.is_some() && body.participants_before == 0 && body.participants.is_empty(),
    };
    let mut payload = Vec::new();
    codec::encode_into(&body, &mut payload);
    let version = match *marks == MarksV2::default() {
        true => VERSION,
        false => {
            codec::encode_into(marks, &mut payload);
            VERSION_WITH_MARKS
        }
    };
    Chunk { applied_lsn, complete: summary.complete, summary, payload, version }
}

/// What a payload of either version holds. Marks are about the whole, so they stand with the head alone.
fn decode(payload: &[u8]) -> Result<(ChunkV1<'_>, MarksV2), codec::Error> {
    let (chunk, rest) = codec::decode_first::<ChunkV1<'_>>(payload)?;
    if rest.is_empty() {
        return Ok((chunk, MarksV2::default()));
    }
    let marks = codec::decode(rest)?;
    if chunk.head.is_some() { Ok((chunk, marks)) } else { Err(codec::Error::Impossible("marks")) }
}

fn take_messages(state: &State, saved: Saved) -> Vec<MessageV1<'_>> {
    let newest = state.history.newest_message();
    let last = newest.min(saved.messages.saturating_add(CHUNK_MESSAGES));
    let mut text_bytes = 0;
    let mut messages = Vec::with_capacity((last - saved.messages) as usize);
    for index in saved.messages + 1..=last {
        let stored = state.history.message(index).expect("indices up to the newest exist");
        text_bytes += stored.msg.len() + stored.extra.len();
        messages.push(message_of(stored));
        if text_bytes >= CHUNK_TEXT_BYTES {
            break;
        }
    }
    messages
}

fn message_of(stored: Stored<'_>) -> MessageV1<'_> {
    let erased = stored.erased || stored.recall_index != 0;
    let (msg, extra) = if erased { ("", "") } else { (stored.msg, stored.extra) };
    let Stored { sender, timestamp_ns, client_msg_id, .. } = stored;
    MessageV1 { sender, timestamp_ns, client_msg_id, msg, extra, erased }
}

fn take_recalls(state: &State, saved: Saved) -> Vec<u32> {
    let last = state.history.newest_recall().min(saved.recalls.saturating_add(CHUNK_RECALLS));
    let indices = saved.recalls + 1..=last;
    indices.map(|index| state.history.recalled_by(index).expect("indices up to the newest exist")).collect()
}

fn head_of(state: &State) -> HeadV1<'_> {
    HeadV1 {
        last_timestamp_ns: state.last_timestamp_ns,
        hash: state.hash,
        group: state
            .group
            .as_ref()
            .map(|facts| GroupFactsV1 { name: &facts.name, created_ns: facts.created_ns }),
    }
}

fn participant_of(row: &Participant) -> ParticipantV1<'_> {
    let absent = ParticipantV1 {
        user: row.user.as_str(),
        read_cursor: row.read_cursor,
        duty: NO_DUTY,
        joined_ns: 0,
        readable_from: 0,
    };
    match &row.membership {
        None => absent,
        Some(Membership { duty, joined_ns, readable_from }) => ParticipantV1 {
            duty: *duty as u8,
            joined_ns: *joined_ns,
            readable_from: *readable_from,
            ..absent
        },
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
