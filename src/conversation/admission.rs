//! Admission: the bound on work in flight.
//!
//! ractor's mailboxes and the channels behind them are unbounded; what bounds them is that every
//! call holds a [`Permit`] from before it is cast until it is answered. No permit, no work: the
//! caller hears "overloaded" at once and nothing was stored.
//!
//! A permit also keeps its conversation in memory. It is taken under the directory's guard, and
//! passivation looks at the permits under the same guard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::census::Permits;
use super::durable::DurableHead;

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Calls in flight on the whole node. At 40,000 sends/s this is less than half a second of
    /// work, so a call that is admitted is answered soon.
    pub in_flight_max: usize,
    /// Bytes of bodies in flight on the whole node.
    pub in_flight_bytes_max: usize,
    /// Calls in flight to one conversation, so that one hot conversation cannot take all permits.
    pub in_flight_per_conversation_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { in_flight_max: 16_384, in_flight_bytes_max: 64 << 20, in_flight_per_conversation_max: 8_192 }
    }
}

/// Counts what is in flight.
#[derive(Debug)]
pub(crate) struct Admission {
    options: Options,
    /// Calls and bytes in flight in one number, because all cores move it with every call: the bytes in the lower
    /// [`BYTES_BITS`] bits, which hold a terabyte, the calls above them.
    in_flight: AtomicU64,
    started: Instant,
}

const BYTES_BITS: u32 = 40;

/// The right to have one call in flight; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    conversation: Arc<DurableHead>,
    weight: u64,
}

/// One call of `bytes`, as `in_flight` counts it.
fn weight(bytes: usize) -> u64 {
    (1 << BYTES_BITS) + bytes as u64
}

/// Calls, and their bytes.
fn calls_and_bytes(in_flight: u64) -> (usize, usize) {
    ((in_flight >> BYTES_BITS) as usize, (in_flight & ((1 << BYTES_BITS) - 1)) as usize)
}

impl Admission {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, in_flight: AtomicU64::new(0), started: Instant::now() }
    }

    /// Calls in flight now.
    pub(crate) fn in_flight(&self) -> usize {
        calls_and_bytes(self.in_flight.load(Ordering::Relaxed)).0
    }

    /// What is in flight, and what may be.
    pub(crate) fn permits(&self) -> Permits {
        let (taken, bytes) = calls_and_bytes(self.in_flight.load(Ordering::Relaxed));
        let Options { in_flight_max: max, in_flight_bytes_max: bytes_max, .. } = self.options;
        Permits { taken, max, bytes, bytes_max }
    }

    /// Seconds of the node's life.
    pub(crate) fn now_s(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// A permit for a call of `bytes` to `conversation`, or `None` when a limit is reached.
    pub(crate) fn admit(&self, conversation: &Arc<DurableHead>, bytes: usize) -> Option<Permit> {
        // Counted first and checked then: dropping the permit takes back exactly what was counted.
        let (permit, calls, bytes_before, here) = self.count(conversation, bytes);
        let Options { in_flight_max, in_flight_bytes_max, in_flight_per_conversation_max } = self.options;
        let fits = calls < in_flight_max
            && bytes_before + bytes <= in_flight_bytes_max
            && here < in_flight_per_conversation_max;
        if fits {
            conversation.used_s.store(self.now_s(), Ordering::Relaxed);
        }
        fits.then_some(permit)
    }

    /// A permit for the node's own work, which is bounded otherwise and no use of the conversation.
    pub(crate) fn escort(&self, conversation: &Arc<DurableHead>) -> Permit {
        self.count(conversation, 0).0
    }

    fn count(&self, conversation: &Arc<DurableHead>, bytes: usize) -> (Permit, usize, usize, u32) {
        let weight = weight(bytes);
        let (calls, bytes_before) = calls_and_bytes(self.in_flight.fetch_add(weight, Ordering::Relaxed));
        let here = conversation.in_flight.fetch_add(1, Ordering::Relaxed);
        (Permit { conversation: conversation.clone(), weight }, calls, bytes_before, here)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.conversation.admission.in_flight.fetch_sub(self.weight, Ordering::Relaxed);
        // Pairs with the acquiring load in `DurableHead::in_flight`: whoever sees no call in
        // flight sees what the calls did.
        self.conversation.in_flight.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ConversationKey, GroupId};

    fn conversation(admission: &Arc<Admission>) -> Arc<DurableHead> {
        let key = ConversationKey::Group(GroupId::parse("g").expect("a valid id"));
        Arc::new(DurableHead::new(Arc::new(key), admission.clone()))
    }

    #[test]
    fn every_limit_refuses_and_every_permit_comes_back() {
        let options =
            Options { in_flight_max: 3, in_flight_bytes_max: 100, in_flight_per_conversation_max: 2 };
        let admission = Arc::new(Admission::new(options));
        let (a, b) = (conversation(&admission), conversation(&admission));
        let first = admission.admit(&a, 10);
        let second = admission.admit(&a, 10);
        assert!(first.is_some() && second.is_some());
        assert!(admission.admit(&a, 10).is_none(), "two calls per conversation");
        assert!(admission.admit(&b, 81).is_none(), "100 bytes on the node");
        let third = admission.admit(&b, 80);
        assert!(third.is_some());
        assert!(admission.admit(&conversation(&admission), 0).is_none(), "three calls on the node");
        assert_eq!((a.in_flight(), b.in_flight()), (2, 1));
        assert_eq!(admission.permits(), Permits { taken: 3, max: 3, bytes: 100, bytes_max: 100 });
        drop((first, second, third));
        assert_eq!((admission.in_flight(), admission.permits().bytes), (0, 0));
        assert!(admission.admit(&b, 100).is_some());
    }

    #[test]
    fn calls_and_bytes_do_not_run_into_each_other() {
        let most = weight(usize::MAX >> (usize::BITS - BYTES_BITS));
        assert_eq!(calls_and_bytes(most), (1, (1 << BYTES_BITS) - 1));
        let many = (0..3).map(|_| weight(7)).sum();
        assert_eq!(calls_and_bytes(many), (3, 21));
        assert_eq!(calls_and_bytes(many - weight(7)), (2, 14));
    }
}
