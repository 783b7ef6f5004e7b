//! Marks: what few conversations have beside their head.
//!
//! They stand behind a chunk that has the head, and only where there is something to say: so most chunks are what they
//! were before there were marks.

use bincode::{BorrowDecode, Encode};

use crate::conversation::blocks::Blocks;
use crate::conversation::codec;
use crate::conversation::group::{Mute, Mutes};
use crate::conversation::state::State;
use crate::message::ConversationKey;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub(super) struct MarksV2 {
    /// Of a group, in the order of the participants.
    mutes: Vec<MuteV2>,
    /// Of a group: it has ended.
    pub(super) dismissed: bool,
    /// Of a pair: the bits of [`Blocks`].
    pub(super) blocks: u8,
}

/// A participant's number and until when they are muted, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
struct MuteV2 {
    participant: u32,
    until_s: u64,
}

impl MarksV2 {
    pub(super) fn of(state: &State) -> Self {
        let blocks = state.blocks.bits();
        let Some(group) = &state.group else { return Self { blocks, ..Self::default() } };
        let mute = |mute: &Mute| MuteV2 { participant: mute.participant, until_s: mute.until_s };
        Self { mutes: group.mutes.iter().map(mute).collect(), dismissed: group.dismissed, blocks }
    }

    /// Takes them over behind participants and head.
    pub(super) fn load(&self, state: &mut State) -> Result<(), codec::Error> {
        // What a series does not say is not so any more.
        state.blocks = Blocks::default();
        if *self == Self::default() {
            return Ok(());
        }
        match &*state.key {
            ConversationKey::Direct(one, other) if one != other => self.load_into_pair(state),
            ConversationKey::Group(_) if state.group.is_some() => self.load_into_group(state),
            _ => Err(codec::Error::Impossible("marks")),
        }
    }

    fn load_into_pair(&self, state: &mut State) -> Result<(), codec::Error> {
        let is_of_pair = self.mutes.is_empty() && !self.dismissed;
        let blocks = Blocks::from_bits(self.blocks).filter(|_| is_of_pair);
        state.blocks = blocks.ok_or(codec::Error::Impossible("marks"))?;
        Ok(())
    }

    fn load_into_group(&self, state: &mut State) -> Result<(), codec::Error> {
        self.check_group(state)?;
        let mut mutes = Mutes::default();
        self.mutes.iter().for_each(|mute| mutes.set(mute.participant, mute.until_s));
        if let Some(group) = &mut state.group {
            (group.mutes, group.dismissed) = (mutes, self.dismissed);
        }
        if self.dismissed {
            state.history.keep_nothing();
        }
        Ok(())
    }

    fn check_group(&self, state: &State) -> Result<(), codec::Error> {
        let people = state.participants.rows().len();
        let is_lawful = |mute: &MuteV2| (mute.participant as usize) < people && mute.until_s != 0;
        let in_order = self.mutes.is_sorted_by(|one, next| one.participant < next.participant);
        let is_alone =
            !self.dismissed || self.mutes.is_empty() && state.participants.members().next().is_none();
        match in_order && is_alone && self.blocks == 0 && self.mutes.iter().all(is_lawful) {
            true => Ok(()),
            false => Err(codec::Error::Impossible("marks")),
        }
    }
}
