//! Live delivery: what happens in conversations, on its way to connections.
//!
//! An [`Event`] is made once by a conversation's actor, and shared by everybody who gets it. A
//! [`Session`] is one connection's bounded queue of events: giving it one never waits, and a reader
//! that is too slow for it is told where to pull instead. Who gets which event is the inboxes'
//! business, how an event looks on the wire the edge's.

mod event;
mod session;

pub use event::{Content, Event, GroupAction};
pub use session::{Behind, Limits, Newest, Session};
