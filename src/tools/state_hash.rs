//! One number for everything that ever happened in a store.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use crate::conversation::record::encode_key;
use crate::message::ConversationKey;

/// The rolling hashes of all conversations in one: equal histories have equal hashes, wherever and in whatever order
/// they lie on a disk.
///
/// It is the sum, modulo 2^128, of an XXH3-128 over each conversation's key and its rolling hash. It tells a loss or a
/// mistake; it is no proof against somebody who chooses histories to collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateHash(u128);

impl StateHash {
    /// Takes a conversation in.
    pub(crate) fn add(&mut self, key: &ConversationKey, hash: u128) {
        let mut bytes = encode_key(key);
        bytes.extend_from_slice(&hash.to_le_bytes());
        self.0 = self.0.wrapping_add(xxh3_128(&bytes));
    }

    /// Takes in what another one has.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{GroupId, UserId};

    #[test]
    fn it_depends_on_every_conversation_and_not_on_their_order() {
        let user = |id| UserId::parse(id).unwrap();
        let direct = ConversationKey::direct(user("a"), user("b"));
        let group = ConversationKey::Group(GroupId::parse("a").unwrap());
        let hash = |parts: &[(&ConversationKey, u128)]| {
            let mut hash = StateHash::default();
            parts.iter().for_each(|(key, rolling)| hash.add(key, *rolling));
            hash
        };
        let both = hash(&[(&direct, 1), (&group, 2)]);
        let mut merged = hash(&[(&group, 2)]);
        merged.merge(hash(&[(&direct, 1)]));
        assert_eq!(both, merged);
        assert_eq!(both, hash(&[(&group, 2), (&direct, 1)]));
        for other in [&[(&direct, 1)][..], &[(&direct, 2), (&group, 1)], &[(&direct, 1), (&group, 3)]] {
            assert_ne!(both, hash(other));
        }
    }

    /// Printed by one version and compared with what another printed: the number must never change.
    #[test]
    fn its_value_is_what_it_always_was() {
        let mut hash = StateHash::default();
        assert_eq!(hash.to_string(), "00000000000000000000000000000000");
        hash.add(&ConversationKey::Group(GroupId::parse("g").unwrap()), 7);
        assert_eq!(hash.to_string(), "720e05da1deec5f8c74aea72576f6eb8");
    }
}
