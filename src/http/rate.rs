//! How many calls a user may make in a second.
//!
//! Counted on this node only, and only to keep one user from taking what all share. Quotas an app
//! sells are the app's.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::message::UserId;

/// Calls between two clean-ups. A call adds one user at most, and a user is idle after a second, so
/// there are never more than this many users kept beyond those of the last second: about 3 MiB.
const CALLS_PER_CLEAN_UP: u32 = 16_384;

/// Counts calls per user.
pub(super) struct Limiter {
    users: DefaultKeyedRateLimiter<UserId>,
    clock: DefaultClock,
    calls: AtomicU32,
}

impl Limiter {
    /// Lets `per_second` calls through, as many of them at once.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        Self {
            users: RateLimiter::dashmap(Quota::per_second(per_second)),
            clock: DefaultClock::default(),
            calls: AtomicU32::new(0),
        }
    }

    /// Counts a call; says how long to wait if it is one too many.
    pub(super) fn check(&self, user: &UserId) -> Result<(), Duration> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls % CALLS_PER_CLEAN_UP == CALLS_PER_CLEAN_UP - 1 {
            self.users.retain_recent();
            self.users.shrink_to_fit();
        }
        self.users.check_key(user).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("an id")
    }

    #[test]
    fn one_call_too_many_waits_and_other_users_do_not() {
        let limiter = Limiter::new(NonZeroU32::new(3).expect("not zero"));
        for _ in 0..3 {
            assert_eq!(limiter.check(&user("alice")), Ok(()));
        }
        // The next one, unless this thread has not run for a third of a second.
        let wait = (0..).find_map(|_| limiter.check(&user("alice")).err()).expect("too fast");
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(limiter.check(&user("bob")), Ok(()));
    }

    #[test]
    fn idle_users_are_forgotten() {
        let limiter = Limiter::new(NonZeroU32::new(1_000_000).expect("not zero"));
        for id in 0..CALLS_PER_CLEAN_UP * 3 {
            assert_eq!(limiter.check(&user(&id.to_string())), Ok(()));
        }
        assert!(limiter.users.len() <= CALLS_PER_CLEAN_UP as usize * 2, "{}", limiter.users.len());
    }
}
