//! Chinwag: a chat backend in one binary.
//!
//! Code map, from the edge to the disk. Arrows point only downwards:
//!
//! ```text
//! main (arguments) -> node (composition root) -> http -> conversation -> wal | snapshot
//!                       |                          |         |                |
//!                     tools -> (all but http)    auth      inbox -> live     disk
//! ```
//!
//! * [`message`]: the vocabulary; used by `http`, `conversation` and `client`, uses nothing.
//! * [`config`]: plain data, checked once, handed down as each part's own options.
//! * [`telemetry`]: logs and metrics; used anywhere, uses nothing.
//! * [`auth`]: tokens to callers.
//! * [`http`]: the edge; bytes to calls, outcomes to statuses.
//! * [`conversation`]: one actor per conversation; the rules of chat; what a record means.
//! * [`inbox`]: for each user who looks, where their conversations stand, and who is to hear of what.
//! * [`live`]: events, and the bounded queue of each connection.
//! * [`wal`] and [`snapshot`]: durable bytes; they know no chat word and no tokio.
//! * [`data_dir`]: who may use a data directory, and which store is in it.
//! * [`disk`]: the one trait, so that crashes can be simulated.
//! * [`tools`]: what an operator does with a data directory: verify, inspect, export, import, backup, restore;
//!   and `bench`, which drives load at a server.
//! * [`node`]: recover, start, drain.
//! * [`client`]: the other end of the wire; uses `message` and `tls`, and nothing of the server.
//! * `tls`: secret sockets, and how a client checks who it talks to; used by `http`, `client` and `bench`, uses nothing.
//! * [`exit`]: which error ends the process with which code.

pub mod auth;
pub mod client;
pub mod config;
pub mod conversation;
#[cfg(test)]
mod counted;
pub mod data_dir;
pub mod disk;
pub mod exit;
pub mod http;
pub mod inbox;
pub mod live;
pub mod message;
pub mod node;
pub mod snapshot;
pub mod telemetry;
mod tls;
pub mod tools;
pub mod wal;
