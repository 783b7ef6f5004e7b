//! The edge: bytes to calls, outcomes to statuses.
//!
//! Every input is hostile and every client slow: heads, bodies, replies and connections have a limit
//! and a time each. What a call means is the conversations'; who calls is `auth`'s; what is durable
//! nobody asks here.
//!
//! ```text
//! listener -> connection (hyper, wire) -> exchange -> routes -> chat | group | sync -> conversations
//!                                           |            |                          ^
//!                          credentials, rate, body    encoding: json | form | proto -> value, check
//!                                           |                                       |
//!                                         stream (WebSocket, server-sent events) ---+-> live
//! ```

pub mod admin;
mod body;
mod chat;
mod check;
mod connection;
mod console;
mod cors;
mod credentials;
mod drain;
mod edge;
mod encoding;
mod exchange;
mod failure;
mod feed;
mod form;
mod group;
mod http2;
mod json;
mod listener;
mod opening;
pub mod ops;
mod pieces;
mod proto;
mod rate;
mod refusal;
mod relation;
mod reply;
mod request;
mod response;
mod routes;
mod stream;
mod sync;
#[cfg(test)]
mod tests;
pub mod tls;
mod value;
mod wire;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config;

pub use edge::Edge;
pub use ops::{Readiness, ReadinessProbe};
pub use tls::Tls;

/// How the edge treats its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Largest request body, in bytes.
    pub body_limit_bytes: usize,
    /// Longest wait for the head of a request, and for the next request on an idle connection.
    pub header_timeout: Duration,
    /// Longest wait for a whole request body.
    pub body_timeout: Duration,
    /// Longest time in which a client takes nothing of a reply.
    pub write_timeout: Duration,
    /// Most open connections to the public API; further ones wait in the system's queue.
    pub connections: usize,
    /// Origins whose pages may call and open streams, beside the server's own host; `*`: any.
    pub origins: Vec<String>,
    /// How often a silent stream is pinged; unanswered for twice as long, it is closed.
    pub stream_ping: Duration,
    /// Most bytes that wait for one stream before it is told to pull instead.
    pub stream_queue_bytes: usize,
    /// Calls per second and user, which is also the burst.
    pub rate: Option<NonZeroU32>,
}

impl From<&config::Serve> for Options {
    fn from(settings: &config::Serve) -> Self {
        Self {
            body_limit_bytes: settings.body_limit_bytes,
            header_timeout: settings.header_timeout,
            body_timeout: settings.body_timeout,
            write_timeout: settings.write_timeout,
            connections: settings.connections,
            origins: settings.origins.clone(),
            stream_ping: settings.stream_ping,
            stream_queue_bytes: settings.stream_queue_bytes,
            rate: settings.rate,
        }
    }
}
