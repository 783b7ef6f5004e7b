//! The real binary from outside, against the contract: one module per kind of behaviour.
//!
//! How the server is built is none of its business: nothing of the crate is used, only the binary; and
//! its client, in `clients` and `tls_clients` alone.
//! `support` alone knows processes, HTTP and the spelling of the API.

mod support;

mod acking;
mod administering;
mod benching;
mod bodies;
mod chatting;
mod checkpoints;
mod clients;
mod console;
mod cors;
mod damage;
mod describing;
mod draining;
mod errors;
mod feeding;
mod full_disk;
mod golden;
mod groups;
mod http2;
mod http2_hostile;
mod identity;
mod json;
mod keys;
mod kill;
mod membership;
mod operations;
mod ordering;
mod paging;
mod pipelining;
mod pulling;
mod pulling_again;
mod rate;
mod recalling;
mod relating;
mod restarts;
mod retention;
mod retrying;
mod settings;
mod slow;
mod starting;
mod stats;
mod streaming;
mod streaming_ends;
mod streaming_hostile;
mod streaming_many;
mod streaming_resume;
mod streaming_slow;
mod syncing;
mod tls;
mod tls_clients;
mod tools;
mod validation;
mod waiting;
