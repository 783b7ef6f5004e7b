//! Admission: the bound on work in flight.
//!
//! ractor's mailboxes and the channels behind them are unbounded; what bounds them is that every
//! call holds a [`Permit`] from before it is cast until it is answered. No permit, no work: the
//! caller hears "overloaded" at once and nothing was stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        Self {
            in_flight_max: 16_384,
            in_flight_bytes_max: 64 << 20,
            in_flight_per_conversation_max: 8_192,
        }
    }
}

/// Counts what is in flight.
#[derive(Debug)]
pub(crate) struct Admission {
    options: Options,
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

/// The right to have one call in flight; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    conversation: Arc<DurableHead>,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, calls: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    /// Calls in flight now.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// A permit for a call of `bytes` to `conversation`, or `None` when a limit is reached.
    pub(crate) fn admit(self: &Arc<Self>, conversation: Arc<DurableHead>, bytes: usize) -> Option<Permit> {
        // Counted first and checked then: dropping the permit takes back exactly what was counted.
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let here = conversation.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit { admission: self.clone(), conversation, bytes };
        let Options { in_flight_max, in_flight_bytes_max, in_flight_per_conversation_max } = self.options;
        let fits = calls < in_flight_max
            && bytes_before + bytes <= in_flight_bytes_max
            && here < in_flight_per_conversation_max;
        fits.then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.calls.fetch_sub(1, Ordering::Relaxed);
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.conversation.in_flight.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Durable;
    use super::*;
    use crate::message::{ConversationKey, GroupId};

    fn conversation() -> Arc<DurableHead> {
        let key = ConversationKey::Group(GroupId::parse("g").expect("a valid id"));
        Arc::new(DurableHead::new(Arc::new(key), Durable { messages: 0, recalls: 0 }, 0))
    }

    #[test]
    fn every_limit_refuses_and_every_permit_comes_back() {
        let options =
            Options { in_flight_max: 3, in_flight_bytes_max: 100, in_flight_per_conversation_max: 2 };
        let admission = Arc::new(Admission::new(options));
        let (a, b) = (conversation(), conversation());
        let first = admission.admit(a.clone(), 10);
        let second = admission.admit(a.clone(), 10);
        assert!(first.is_some() && second.is_some());
        assert!(admission.admit(a.clone(), 10).is_none(), "two calls per conversation");
        assert!(admission.admit(b.clone(), 81).is_none(), "100 bytes on the node");
        let third = admission.admit(b.clone(), 80);
        assert!(third.is_some());
        assert!(admission.admit(conversation(), 0).is_none(), "three calls on the node");
        drop((first, second, third));
        assert_eq!(admission.in_flight(), 0);
        assert!(admission.admit(b, 100).is_some());
    }
}
