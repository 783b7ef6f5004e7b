//! Newcomers: who came into which conversation since the packs' index of people was written.
//!
//! A superset, by user: whoever reads an inbox asks the conversation itself. An entry is made before
//! the record that it is about is appended, and goes with the checkpoint that has the conversation.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::message::{ConversationKey, UserId};

/// Counts checkpoints; an entry belongs to the one that will have it.
pub type Generation = u64;

/// Who came into which conversation lately.
#[derive(Debug, Default)]
pub struct Newcomers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    generation: Generation,
    /// Each conversation of a user once, however often a record that the log refuses is tried again: so bounded by the
    /// log between two checkpoints and the conversations in memory.
    by_user: HashMap<UserId, HashMap<Arc<ConversationKey>, Generation>>,
}

impl Newcomers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `users` are about to be in the conversation. It has to be in the list of changed
    /// conversations already.
    pub fn note<'a>(&self, users: impl IntoIterator<Item = &'a UserId>, key: &Arc<ConversationKey>) {
        let mut inner = self.lock();
        let generation = inner.generation;
        for user in users {
            inner.by_user.entry(user.clone()).or_default().insert(key.clone(), generation);
        }
    }

    /// The conversations that `user` may have come into.
    pub fn of(&self, user: &UserId) -> Vec<Arc<ConversationKey>> {
        let inner = self.lock();
        let entries = inner.by_user.get(user).into_iter().flatten();
        entries.map(|(key, _)| key.clone()).collect()
    }

    /// A checkpoint begins: what was noted so far is in the list of changed conversations that it
    /// takes after this.
    pub fn seal(&self) -> Generation {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.generation - 1
    }

    /// The packs have every conversation that was noted up to `sealed`, but those in `failed`.
    pub fn forget(&self, sealed: Generation, failed: &BTreeSet<ConversationKey>) {
        let by_user = &mut self.lock().by_user;
        by_user.retain(|_, entries| {
            entries.retain(|key, generation| *generation > sealed || failed.contains(&**key));
            !entries.is_empty()
        });
        // Empty slots cost as much as full ones: 65 bytes for everybody who came since the last checkpoint.
        if by_user.len() < by_user.capacity() / 4 {
            by_user.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("a valid id")
    }

    fn pair(a: &str, b: &str) -> Arc<ConversationKey> {
        Arc::new(ConversationKey::direct(user(a), user(b)))
    }

    #[test]
    fn an_entry_stays_until_the_checkpoint_behind_it_has_its_conversation() {
        let (newcomers, alice) = (Newcomers::default(), user("alice"));
        newcomers.note([&alice], &pair("alice", "bob"));
        newcomers.note([&alice], &pair("alice", "carol"));
        let sealed = newcomers.seal();
        newcomers.note([&alice], &pair("alice", "dave"));
        let failed = BTreeSet::from([(*pair("alice", "carol")).clone()]);
        newcomers.forget(sealed, &failed);
        let left: BTreeSet<_> = newcomers.of(&alice).into_iter().collect();
        assert_eq!(left, BTreeSet::from([pair("alice", "carol"), pair("alice", "dave")]));
        let sealed = newcomers.seal();
        newcomers.forget(sealed, &BTreeSet::new());
        assert_eq!(newcomers.of(&alice), []);
        assert!(newcomers.lock().by_user.is_empty());
    }

    #[test]
    fn those_who_are_forgotten_leave_no_empty_slots_behind() {
        let newcomers = Newcomers::default();
        for number in 0..1_000 {
            let name = format!("user-{number}");
            newcomers.note([&user(&name)], &pair(&name, "bob"));
        }
        let sealed = newcomers.seal();
        newcomers.note([&user("late")], &pair("late", "bob"));
        newcomers.forget(sealed, &BTreeSet::new());
        let by_user = &newcomers.lock().by_user;
        assert!(by_user.len() == 1 && by_user.capacity() < 10, "{}", by_user.capacity());
    }

    #[test]
    fn who_tries_again_and_again_takes_one_entry_that_stays_as_long_as_the_last_try() {
        let (newcomers, alice) = (Newcomers::default(), user("alice"));
        let pair = pair("alice", "bob");
        newcomers.note([&alice], &pair);
        let sealed = newcomers.seal();
        for _ in 0..100 {
            newcomers.note([&alice], &pair);
        }
        newcomers.forget(sealed, &BTreeSet::new());
        assert_eq!(newcomers.of(&alice), [pair]);
    }
}
