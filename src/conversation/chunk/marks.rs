//! Marks: what few conversations have beside their head.
//!
//! They stand behind a chunk that has the head, and only where there is something to say: so most chunks are what they
//! were before there were marks.

use bincode::{BorrowDecode, Encode};

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
    /// Always 0 so far.
    spare: u8,
}

/// A participant's number and until when they are muted, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
struct MuteV2 {
    participant: u32,
    until_s: u64,
}

impl MarksV2 {
    pub(super) fn of(state: &State) -> Self {
        let Some(group) = &state.group else { return Self::default() };
        let mute = |mute: &Mute| MuteV2 { participant: mute.participant, until_s: mute.until_s };
        Self { mutes: group.mutes.iter().map(mute).collect(), dismissed: group.dismissed, spare: 0 }
    }

    /// Takes them over behind participants and head.
    pub(super) fn load(&self, state: &mut State) -> Result<(), codec::Error> {
        if *self == Self::default() {
            return Ok(());
        }
        self.check(state)?;
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

    fn check(&self, state: &State) -> Result<(), codec::Error> {
        let is_group = matches!(*state.key, ConversationKey::Group(_)) && state.group.is_some();
        let people = state.participants.rows().len();
        let is_lawful = |mute: &MuteV2| (mute.participant as usize) < people && mute.until_s != 0;
        let in_order = self.mutes.is_sorted_by(|one, next| one.participant < next.participant);
        let is_alone =
            !self.dismissed || self.mutes.is_empty() && state.participants.members().next().is_none();
        match is_group && in_order && is_alone && self.spare == 0 && self.mutes.iter().all(is_lawful) {
            true => Ok(()),
            false => Err(codec::Error::Impossible("marks")),
        }
    }
}
