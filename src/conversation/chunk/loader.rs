//! From chunks back to a conversation, whole or as much of it as memory is to have.
//!
//! Nothing in a chunk is believed: what does not continue the chunks before it is refused.

use super::{ChunkV1, HeadV1, MessageV1, NO_DUTY, ParticipantV1, Saved, Summary, decode};
use crate::config::limits::CLIENT_MSG_ID_BYTES_MAX;
use crate::conversation::codec;
use crate::conversation::group::Mutes;
use crate::conversation::history::{History, Mark};
use crate::conversation::participants::{Membership, Participant};
use crate::conversation::state::{GroupFacts, Inconsistent, State};
use crate::message::{ConversationKey, Duty, UserId};

/// Why a chunk cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its bytes do not decode.
    #[error(transparent)]
    Codec(#[from] codec::Error),
    /// It does not continue the chunks before it.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
}

/// Puts the chunks of one conversation together again, in their order.
#[derive(Debug)]
pub(crate) struct Loader {
    state: State,
    /// Greatest sender number since the last head, plus one.
    senders: u32,
    /// Whether the last chunk carried the head.
    complete: bool,
    /// Whether there was a chunk.
    begun: bool,
}

impl Loader {
    /// Begins with nothing of the conversation `key`.
    pub(crate) fn new(key: ConversationKey) -> Self {
        Self { state: State::new(key), senders: 0, complete: false, begun: false }
    }

    /// Takes over the next chunk.
    pub(crate) fn load(&mut self, applied_lsn: u64, payload: &[u8]) -> Result<(), Error> {
        let (chunk, marks) = decode(payload)?;
        self.check_continues(saved_before(&chunk))?;
        for message in &chunk.messages {
            self.check_message(message)?;
            self.state.history.push(message.stored());
        }
        load_recalls(&mut self.state, &chunk.recalls)?;
        load_participants(&mut self.state, &chunk)?;
        self.complete = chunk.head.is_some();
        if let Some(head) = &chunk.head {
            load_head(&mut self.state, head);
            marks.load(&mut self.state)?;
            self.state.note_silenced();
            self.check_senders()?;
            self.state.applied_lsn = applied_lsn;
        }
        Ok(())
    }

    /// Takes over of an old chunk what memory is to have of it: its recalls, and which retries are
    /// `remembered` of its messages, by their index and time. What later chunks replace is left out.
    pub(crate) fn load_old(
        &mut self,
        payload: &[u8],
        remembered: impl Fn(u32, u64) -> bool,
    ) -> Result<(), Error> {
        let (chunk, _) = decode(payload)?;
        self.check_continues(saved_before(&chunk))?;
        let history = &mut self.state.history;
        for (message, msg_index) in chunk.messages.iter().zip(chunk.messages_before + 1..) {
            if !message.client_msg_id.is_empty() && remembered(msg_index, message.timestamp_ns) {
                history.remember_old_retry(message.sender, message.client_msg_id, msg_index);
            }
        }
        if let Some(newest) = chunk.messages.last() {
            let msg_index = chunk.messages_before + chunk.messages.len() as u32;
            history.pass_over(Mark { msg_index, timestamp_ns: newest.timestamp_ns });
        }
        load_recalls(&mut self.state, &chunk.recalls)?;
        self.complete = chunk.head.is_some();
        Ok(())
    }

    /// Passes over an old chunk of which memory is to have nothing.
    pub(crate) fn pass_over(&mut self, summary: &Summary) -> Result<(), Error> {
        let before = Saved { messages: summary.messages.0, recalls: summary.recalls.0 };
        self.check_continues(before)?;
        if summary.messages.1 > summary.messages.0 {
            let mark = Mark { msg_index: summary.messages.1, timestamp_ns: summary.newest_message_ns };
            self.state.history.pass_over(mark);
        }
        if summary.hollow {
            self.keep_behind(summary.messages.1);
        }
        self.complete = summary.complete;
        Ok(())
    }

    /// Nothing up to this message is kept any more, though its row may be there.
    pub(crate) fn keep_behind(&mut self, msg_index: u32) {
        self.state.history.keep_from(msg_index.saturating_add(1));
    }

    /// A conversation begins with its first message, or behind those that retention took.
    fn check_continues(&mut self, wants: Saved) -> Result<(), Inconsistent> {
        let history = &mut self.state.history;
        if !std::mem::replace(&mut self.begun, true) && wants.recalls == 0 && wants.messages > 0 {
            history.begin_behind(wants.messages);
        }
        let has = Saved { messages: history.newest_message(), recalls: history.newest_recall() };
        if has != wants {
            return Err(self.state.inconsistent(format!("chunk continues {wants:?}, there is {has:?}")));
        }
        Ok(())
    }

    fn check_message(&mut self, message: &MessageV1<'_>) -> Result<(), Error> {
        self.senders = self.senders.max(message.sender.saturating_add(1));
        if message.client_msg_id.len() > CLIENT_MSG_ID_BYTES_MAX {
            return Err(codec::Error::Impossible("client_msg_id").into());
        }
        Ok(())
    }

    fn check_senders(&mut self) -> Result<(), Inconsistent> {
        let known = self.state.participants.rows().len();
        if self.senders as usize > known {
            return Err(self.state.inconsistent(format!("sender number {} of {known}", self.senders)));
        }
        self.senders = 0;
        Ok(())
    }

    /// The conversation.
    pub(crate) fn finish(self) -> Result<State, Inconsistent> {
        if !self.complete {
            return Err(self.state.inconsistent("its last chunk has no head".into()));
        }
        Ok(self.state)
    }
}

/// The messages of a chunk, to be looked up by their index.
pub(crate) fn messages_of(payload: &[u8]) -> Result<History, Error> {
    let (chunk, _) = decode(payload)?;
    let mut messages = History::default();
    messages.begin_behind(chunk.messages_before);
    for message in &chunk.messages {
        if message.client_msg_id.len() > CLIENT_MSG_ID_BYTES_MAX {
            return Err(codec::Error::Impossible("client_msg_id").into());
        }
        messages.push_row(message.stored());
    }
    Ok(messages)
}

fn saved_before(chunk: &ChunkV1<'_>) -> Saved {
    Saved { messages: chunk.messages_before, recalls: chunk.recalls_before }
}

fn load_recalls(state: &mut State, messages: &[u32]) -> Result<(), Inconsistent> {
    let loaded = state.history.push_recalls(messages);
    loaded.map_err(|msg_index| {
        state.inconsistent(format!("message {msg_index} is recalled twice, or absent"))
    })?;
    state.history.erase_through(state.history.newest_recall());
    Ok(())
}

/// Participants come whole at the end of each series, and replace those of the one before.
fn load_participants(state: &mut State, chunk: &ChunkV1<'_>) -> Result<(), Error> {
    if chunk.participants.is_empty() {
        return Ok(());
    }
    if chunk.participants_before == 0 {
        state.participants = Default::default();
    }
    if state.participants.rows().len() != chunk.participants_before as usize {
        return Err(state.inconsistent("participants are missing".into()).into());
    }
    for row in &chunk.participants {
        let participant = load_participant(state, row)?;
        state.participants.push(participant);
    }
    Ok(())
}

fn load_head(state: &mut State, head: &HeadV1<'_>) {
    let members_count = state.participants.members().count() as u32;
    state.group = head.group.as_ref().map(|facts| GroupFacts {
        name: facts.name.to_owned(),
        created_ns: facts.created_ns,
        members_count,
        mutes: Mutes::default(),
        dismissed: false,
    });
    state.last_timestamp_ns = head.last_timestamp_ns;
    state.hash = head.hash;
}

fn load_participant(state: &State, row: &ParticipantV1<'_>) -> Result<Participant, Error> {
    let user = UserId::parse(row.user).map_err(|_| codec::Error::Impossible("user"))?;
    if state.participants.number_of(row.user).is_some() {
        return Err(state.inconsistent(format!("participant {user} twice")).into());
    }
    if row.read_cursor > state.history.newest_message() {
        return Err(state.inconsistent(format!("{user} has read an absent message")).into());
    }
    if row.duty != NO_DUTY && matches!(*state.key, ConversationKey::Direct(..)) {
        return Err(state.inconsistent(format!("{user} is a member of a pair")).into());
    }
    if row.readable_from > state.history.newest_message().saturating_add(1) {
        return Err(state.inconsistent(format!("{user} reads from an absent message")).into());
    }
    let membership = match row.duty {
        NO_DUTY => None,
        number => Some(Membership {
            duty: Duty::from_number(number).ok_or(codec::Error::Impossible("duty"))?,
            joined_ns: row.joined_ns,
            readable_from: row.readable_from,
        }),
    };
    Ok(Participant { user, read_cursor: row.read_cursor, membership })
}
