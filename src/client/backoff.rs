//! How long to wait before the next try: exponential with full jitter, so that the clients of a
//! server that was away come back spread out (Marc Brooker, "Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015).

use std::time::Duration;

/// A longer wait that a server asks for is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The waits between one try and the next.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// The first wait is at most `base`, every wait at most `cap`.
    pub(super) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, tries: 0 }
    }

    /// The next wait; never less than what the server asked for.
    pub(super) fn next(&mut self, retry_after: Duration) -> Duration {
        let bound = self.base.saturating_mul(2_u32.saturating_pow(self.tries)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        retry_after.min(RETRY_AFTER_MAX) + bound.mul_f64(fraction())
    }

    /// The last try was a good one.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The last try went well for a moment: the waits may grow, but not for long.
    pub(super) fn ease(&mut self) {
        self.tries = self.tries.min(2);
    }
}

/// A random number in [0, 1).
fn fraction() -> f64 {
    f64::from(u32::from_ne_bytes(random())) / (f64::from(u32::MAX) + 1.0)
}

/// Random bytes. A system without any has other worries than waves of clients.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = getrandom::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_a_bound_that_doubles_up_to_a_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for bound_ms in [100, 200, 400, 800, 1000, 1000] {
            assert!(backoff.next(Duration::ZERO) <= Duration::from_millis(bound_ms));
        }
        for _ in 0..100 {
            assert!(backoff.next(Duration::ZERO) <= Duration::from_secs(1));
        }
        backoff.ease();
        assert!(backoff.next(Duration::ZERO) <= Duration::from_millis(400));
        backoff.reset();
        let wait = backoff.next(Duration::from_hours(1));
        assert!(wait >= RETRY_AFTER_MAX && wait <= RETRY_AFTER_MAX + Duration::from_millis(100));
    }
}
