//! The protobuf messages of the API, generated from the `.proto` files beside this one.
//!
//! They carry no rule: an absent field is its zero value, and what is allowed is decided where the
//! JSON and the form of the same request are checked.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
#![allow(dead_code, reason = "every message of the API is there; some have the fields of another one")]

include!(concat!(env!("OUT_DIR"), "/im.rs"));

/// The API as an OpenAPI document, in JSON.
pub(super) const OPENAPI: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));
