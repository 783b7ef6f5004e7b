//! Blocks: which of the two users of a pair blocks the other, and what that forbids.
//!
//! A block is a record of the pair's own conversation: it is ordered with the sends, and a send pays one look at two
//! bits for it. It needs no conversation to be there and makes none: a pair in which nothing was ever sent is in
//! nobody's list. Whom a user blocks is told by their inbox. Pure and synchronous, like [`super::state`].

use super::record::{KeyV1, Record, RelationChange, RelationV1};
use super::state::{Decision, Inconsistent, State};
use crate::message::{ConversationKey, Rejection, UserId};

const BLOCKED: &str = "this user has blocked you";
/// Bits, also in chunks: the user with the smaller id blocks the other, and the other way round.
const BY_FIRST: u8 = 1;
const BY_SECOND: u8 = 2;

/// Who of a pair blocks whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Blocks(u8);

impl Blocks {
    /// As they stand in a chunk; `None` for bits that mean nothing.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        (bits <= BY_FIRST | BY_SECOND).then_some(Self(bits))
    }

    /// As they stand in a chunk.
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// Whether somebody blocks somebody.
    pub(crate) fn is_any(self) -> bool {
        self.0 != 0
    }

    /// Whether the user with the smaller id blocks the other, and the other way round.
    pub(crate) fn by_first_and_second(self) -> (bool, bool) {
        (self.0 & BY_FIRST != 0, self.0 & BY_SECOND != 0)
    }

    /// Whether `user` blocks the other one of the pair.
    pub(crate) fn by(self, key: &ConversationKey, user: &UserId) -> bool {
        side_of(key, user.as_str()).is_some_and(|side| self.0 & side != 0)
    }

    /// Refuses `user` if the other one of the pair blocks them.
    pub(super) fn refuse(self, key: &ConversationKey, user: &UserId) -> Result<(), Rejection> {
        let own = side_of(key, user.as_str()).unwrap_or(0);
        if self.0 & !own == 0 { Ok(()) } else { Err(Rejection::Forbidden(BLOCKED)) }
    }

    /// These and a further one, by the other side's id too.
    pub(crate) fn with(self, key: &ConversationKey, user: &str) -> Option<Self> {
        Some(Self(self.0 | side_of(key, user)?))
    }
}

/// Which bit is a user's. Nobody is the other side of themselves.
fn side_of(key: &ConversationKey, user: &str) -> Option<u8> {
    match key {
        ConversationKey::Direct(first, second) if first != second => match user {
            user if user == first.as_str() => Some(BY_FIRST),
            user if user == second.as_str() => Some(BY_SECOND),
            _ => None,
        },
        _ => None,
    }
}

/// Rules of blocking the other one of a pair, and of not doing so any more.
pub(crate) fn change<'a>(
    state: &State,
    key: &'a ConversationKey,
    by: &'a UserId,
    change: RelationChange,
    now_ns: u64,
) -> Result<Decision<'a, ()>, Rejection> {
    if side_of(key, by.as_str()).is_none() {
        return Err(Rejection::Invalid("user_id must be somebody else: nobody blocks themselves".into()));
    }
    if state.blocks.by(key, by) == (change == RelationChange::Block) {
        return Ok(Decision::Already(()));
    }
    let record = Record::Relation(RelationV1 {
        key: KeyV1::of(key),
        change: change as u8,
        by: by.as_str(),
        timestamp_ns: state.next_timestamp_ns(now_ns),
    });
    Ok(Decision::Append(record, ()))
}

/// Takes over a record. Nothing is changed when it does not continue the state.
pub(super) fn apply(state: &mut State, record: &RelationV1<'_>) -> Result<(), Inconsistent> {
    let change = record.change().map_err(|why| state.inconsistent(why.to_string()))?;
    let side = side_of(&state.key, record.by);
    let side = side.ok_or_else(|| state.inconsistent(format!("{:?} blocks nobody here", record.by)))?;
    state.blocks.0 = match change {
        RelationChange::Block => state.blocks.0 | side,
        RelationChange::Unblock => state.blocks.0 & !side,
    };
    state.note_silenced();
    state.advance_time(record.timestamp_ns);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::{accept, direct, draft, everything, pull, pull_all, recall, send, user};
    use super::*;
    use crate::message::{Direction, GroupId};

    fn set(state: &mut State, by: &str, wanted: RelationChange) -> Result<(), Rejection> {
        let (key, by) = (state.key.clone(), user(by));
        let decision = change(state, &key, &by, wanted, 9);
        accept(state, decision)
    }

    #[test]
    fn who_is_blocked_sends_nothing_and_may_do_all_else() {
        let mut state = direct("alice", "bob");
        send(&mut state, "bob", &draft("before", "id"), 1).expect("accepted");
        set(&mut state, "alice", RelationChange::Block).expect("not yet");
        let blocked = Err(Rejection::Forbidden(BLOCKED));
        assert_eq!(send(&mut state, "bob", &draft("x", ""), 2).map(|_| ()), blocked);
        assert!(send(&mut state, "bob", &draft("before", "id"), 2).expect("it was stored").duplicate);
        assert_eq!(recall(&mut state, "bob", 1), Ok(1));
        assert!(pull(&state, &user("bob"), &pull_all(Direction::After, 1), everything(&state)).is_ok());
        // One-directional.
        assert!(send(&mut state, "alice", &draft("x", ""), 2).is_ok());
        set(&mut state, "bob", RelationChange::Block).expect("not yet");
        assert!(send(&mut state, "alice", &draft("x", ""), 2).is_err());
        set(&mut state, "alice", RelationChange::Unblock).expect("blocked");
        assert!(send(&mut state, "bob", &draft("x", ""), 2).is_ok());
        assert!(send(&mut state, "alice", &draft("x", ""), 2).is_err());
    }

    #[test]
    fn what_is_so_already_appends_nothing() {
        let mut state = direct("alice", "bob");
        set(&mut state, "bob", RelationChange::Unblock).expect("already");
        assert_eq!(state.applied_lsn, 0);
        set(&mut state, "bob", RelationChange::Block).expect("not yet");
        set(&mut state, "bob", RelationChange::Block).expect("already");
        assert_eq!(state.applied_lsn, 1);
    }

    #[test]
    fn a_block_begins_no_conversation() {
        let mut state = direct("alice", "bob");
        set(&mut state, "alice", RelationChange::Block).expect("not yet");
        assert!(!state.has_begun());
        assert!(state.standing_of(&user("bob")).is_none());
        let standing = state.standing_of(&user("alice")).expect("she blocks");
        assert_eq!((standing.messages, standing.blocks), (0, true));
        assert_eq!(state.read_cursors(&user("bob")), Ok(vec![]));
        set(&mut state, "alice", RelationChange::Unblock).expect("blocked");
        assert!(state.standing_of(&user("alice")).is_none());
    }

    #[test]
    fn nobody_blocks_themselves_and_what_does_not_fit_is_refused() {
        let mut own = direct("alice", "alice");
        assert!(matches!(set(&mut own, "alice", RelationChange::Block), Err(Rejection::Invalid(_))));
        let mut pair = direct("alice", "bob");
        let mut group = State::new(ConversationKey::Group(GroupId::parse("g").expect("an id")));
        for state in [&mut own, &mut pair, &mut group] {
            let key = state.key.clone();
            let mut record = RelationV1 { key: KeyV1::of(&key), change: 1, by: "carol", timestamp_ns: 1 };
            let before = format!("{state:?}");
            assert!(apply(state, &record).is_err());
            (record.by, record.change) = ("alice", 3);
            assert!(apply(state, &record).is_err());
            assert_eq!(format!("{state:?}"), before);
        }
    }
}
