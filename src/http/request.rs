//! A body in any of the three encodings to the fields of a request.

use serde::Deserialize;

use super::encoding::BodyEncoding;
use super::form;
use crate::message::Rejection;

/// The fields of a verb's request, not yet checked.
pub(super) trait Request<'a>: Deserialize<'a> {
    /// The same request in protobuf.
    type Message: prost::Message + Default + Into<Self>;
}

/// Declares a verb's request: each field a [`Value`](super::value::Value), under its own name or the other one that
/// proto3's JSON mapping gives it, and the same in protobuf.
macro_rules! request {
    (
        $(#[$attribute:meta])*
        $visibility:vis $name:ident = $message:ty { $($field:ident $(| $alias:literal)?),+ $(,)? }
    ) => {
        $(#[$attribute])*
        #[derive(Default, serde::Deserialize)]
        #[serde(default, expecting = "an object")]
        $visibility struct $name<'a> {
            $(#[serde(borrow $(, alias = $alias)?)] $field: $crate::http::value::Value<'a>,)+
        }

        impl<'a> $crate::http::request::Request<'a> for $name<'a> {
            type Message = $message;
        }

        impl From<$message> for $name<'_> {
            fn from(message: $message) -> Self {
                Self { $($field: message.$field.into()),+ }
            }
        }
    };
}

pub(super) use request;

/// Reads a request. Refuses what is not the encoding that it claims to be.
pub(super) fn decode<'a, R: Request<'a>>(encoding: BodyEncoding, body: &'a [u8]) -> Result<R, Rejection> {
    match encoding {
        BodyEncoding::Json => from_json(body),
        BodyEncoding::Form => form::decode(body),
        BodyEncoding::Protobuf => from_protobuf(body),
    }
}

/// An object, not the array that serde would take for a struct as well.
pub(super) fn from_json<'a, R: Deserialize<'a>>(body: &'a [u8]) -> Result<R, Rejection> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Rejection::Invalid("the body must be a JSON object".to_owned()));
    }
    // What is unknown is passed over, and has to be UTF-8 too.
    let body = std::str::from_utf8(body)
        .map_err(|error| Rejection::Invalid(format!("the body is no valid JSON: {error}")))?;
    serde_json::from_str(body)
        .map_err(|error| Rejection::Invalid(format!("the body is no valid JSON: {error}")))
}

fn from_protobuf<'a, R: Request<'a>>(body: &[u8]) -> Result<R, Rejection> {
    let message: R::Message = prost::Message::decode(body)
        .map_err(|error| Rejection::Invalid(format!("the body is no valid protobuf: {error}")))?;
    Ok(message.into())
}
