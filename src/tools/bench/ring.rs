//! Who talks with whom. Users stand in a ring, and everybody has about as many conversations as any other.

use crate::config;

/// Who is in which conversation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ring {
    /// Everybody talks with the next one, then everybody with the next but one, until there are conversations enough. So
    /// no pair comes twice.
    Pairs { users: usize },
    /// Each group begins where the one before it ended.
    Groups { users: usize, members: usize },
}

impl Ring {
    pub(super) fn new(settings: &config::Bench) -> Self {
        let users = settings.users;
        settings.members.map_or(Self::Pairs { users }, |members| Self::Groups { users, members })
    }

    /// How many are in each conversation.
    pub(super) fn parties(self) -> usize {
        match self {
            Self::Pairs { .. } => 2,
            Self::Groups { members, .. } => members,
        }
    }

    /// The user at one of the [`Ring::parties`] places of a conversation.
    pub(super) fn party(self, conversation: usize, place: usize) -> usize {
        match self {
            Self::Pairs { users } => (conversation + place * (1 + conversation / users)) % users,
            Self::Groups { users, members } => (conversation * members + place) % users,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_pair_comes_twice_and_nobody_is_left_out() {
        for (users, conversations) in [(2, 1), (3, 3), (4, 6), (5, 4), (64, 1_000), (46, 1_035), (1_000, 999)]
        {
            let ring = Ring::Pairs { users };
            let pairs = (0..conversations).map(|number| [0, 1].map(|place| ring.party(number, place)));
            let pairs: Vec<_> = pairs.map(|[a, b]| (a.min(b), a.max(b))).collect();
            assert!(pairs.iter().all(|(a, b)| a < b && *b < users), "{users} {conversations}");
            assert_eq!(pairs.iter().collect::<HashSet<_>>().len(), conversations, "{users}");
            let talking: HashSet<_> = pairs.iter().flat_map(|(a, b)| [a, b]).collect();
            assert_eq!(talking.len(), users, "of {users} in {conversations}");
        }
    }

    #[test]
    fn nobody_is_in_a_group_twice_and_nobody_in_none() {
        for (users, members, conversations) in [(2, 2, 1), (5, 5, 3), (7, 3, 3), (9, 3, 3), (100, 64, 10)] {
            let ring = Ring::Groups { users, members };
            let group = |number| (0..members).map(move |place| ring.party(number, place));
            for number in 0..conversations {
                assert_eq!(group(number).collect::<HashSet<_>>().len(), members, "{users} {number}");
            }
            let talking: HashSet<_> = (0..conversations).flat_map(group).collect();
            assert_eq!(talking.len(), users, "of {users} in {conversations}");
        }
    }
}
