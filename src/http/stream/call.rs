//! Verbs over a WebSocket: `{"id":7,"method":"send","params":{..}}` to a call, its outcome to
//! `{"id":7,"result":{..}}` or `{"id":7,"error":{..}}`.
//!
//! The same checks, limits, codes and counts as over HTTP, because the same code does it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;

use super::frame;
use crate::http::edge::Edge;
use crate::http::encoding::{BodyEncoding, ReplyEncoding};
use crate::http::exchange::InFlight;
use crate::http::failure::Failure;
use crate::http::response::error_json;
use crate::http::routes;
use crate::message::{Caller, Rejection};
use crate::telemetry::{SUCCESS, Verb};

/// Longest `id`, in bytes as it is written: it is kept and sent back.
const ID_BYTES_MAX: usize = 128;
/// What a frame may have around its `params`, in bytes.
pub(super) const ENVELOPE_BYTES_MAX: usize = 1024;
/// What a small reply takes with everything around it.
const REPLY_BYTES: usize = 192;
const NO_PARAMS: &[u8] = b"{}";
const NULL: &[u8] = b"null";

/// The frame as it is written, its values unread.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// What a client wants done.
pub(super) struct Call {
    pub(super) verb: Verb,
    pub(super) id: Id,
    /// A JSON value, part of the frame it came in.
    pub(super) params: Bytes,
    pub(super) began: Instant,
}

/// The client's name for a call, as JSON; absent if it wants no result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Id(Option<Bytes>);

/// A call that cannot be made, and whose it was as far as that can be told.
pub(super) struct Refused {
    verb: Verb,
    id: Id,
    failure: Failure,
}

/// Reads a text frame, and decides everything that can be decided before its call is made. Nonsense
/// counts against the user's rate as much as calls do.
pub(super) fn admit(text: &Bytes, edge: &Edge, caller: &Caller) -> Result<Call, Refused> {
    let call = read(text);
    if edge.drain.has_begun() {
        return Err(refuse(call, Failure::Rejected(Rejection::Draining)));
    }
    if let Some(limiter) = &edge.limiter
        && let Err(wait) = limiter.check(&caller.user)
    {
        return Err(refuse(call, Failure::TooFast { wait }));
    }
    call?.check(edge)
}

fn refuse(call: Result<Call, Refused>, failure: Failure) -> Refused {
    match call {
        Ok(call) => Refused::of(call, failure),
        Err(refused) => Refused { failure, ..refused },
    }
}

/// Reads a text frame; what it names is not looked into.
fn read(text: &Bytes) -> Result<Call, Refused> {
    let invalid = |id, why: String| Refused {
        verb: Verb::Unknown,
        id,
        failure: Failure::Rejected(Rejection::Invalid(why)),
    };
    // An object, not the array that serde would take for a struct as well.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid(Id(None), "a frame must be a JSON object".to_owned()));
    }
    let envelope: Envelope<'_> = serde_json::from_slice(text)
        .map_err(|error| invalid(Id(None), format!("the frame is no valid call: {error}")))?;
    let id = id_of(envelope.id, text).map_err(|why| invalid(Id(None), why))?;
    let verb = envelope.method.as_deref().map_or(Verb::Unknown, routes::verb_of_method);
    if verb == Verb::Unknown {
        return Err(invalid(id, "method names no verb".to_owned()));
    }
    let params = match envelope.params.map(RawValue::get) {
        None | Some("null") => Bytes::from_static(NO_PARAMS),
        Some(params) => text.slice_ref(params.as_bytes()),
    };
    Ok(Call { verb, id, params, began: Instant::now() })
}

fn id_of(id: Option<&RawValue>, text: &Bytes) -> Result<Id, String> {
    let Some(id) = id.map(RawValue::get) else { return Ok(Id(None)) };
    if id.len() > ID_BYTES_MAX {
        return Err(format!("id must be at most {ID_BYTES_MAX} bytes"));
    }
    match id.as_bytes() {
        NULL => Ok(Id(None)),
        [b'"' | b'-' | b'0'..=b'9', ..] => Ok(Id(Some(text.slice_ref(id.as_bytes())))),
        _ => Err("id must be a number or a text".to_owned()),
    }
}

impl Id {
    /// The frame of a result that `write` appends; none if none is wanted.
    pub(super) fn result(&self, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Option<Bytes> {
        let id = self.0.as_deref()?;
        Some(frame::text(id.len() + bytes, |out| {
            out.extend_from_slice(b"{\"id\":");
            out.extend_from_slice(id);
            out.extend_from_slice(b",\"result\":");
            write(out);
            out.push(b'}');
        }))
    }

    /// The frame of an error, which also comes to who wants no result; and the error's code.
    pub(super) fn error(&self, failure: Failure) -> (Bytes, u32) {
        let verdict = failure.verdict();
        let frame = frame::text(REPLY_BYTES + verdict.msg.len(), |out| {
            out.extend_from_slice(b"{\"id\":");
            out.extend_from_slice(self.0.as_deref().unwrap_or(NULL));
            out.extend_from_slice(b",\"error\":");
            error_json(out, &verdict);
            out.push(b'}');
        });
        (frame, verdict.code)
    }
}

impl Call {
    /// What can be decided of a call on its own before it is made.
    fn check(self, edge: &Edge) -> Result<Self, Refused> {
        match edge.bodies.check(self.params.len()) {
            Ok(()) => Ok(self),
            Err(failure) => Err(Refused::of(self, failure)),
        }
    }

    /// Whether its answer may be far longer than it is.
    pub(super) fn answers_with_page(&self) -> bool {
        matches!(self.verb, Verb::Pull | Verb::List | Verb::Sync | Verb::Acks | Verb::GroupMembers)
    }

    /// Makes the call; its frame, if it wants one. `share` is the frame's part of the memory for bodies.
    pub(super) async fn make(
        self,
        edge: Arc<Edge>,
        caller: Arc<Caller>,
        share: Option<OwnedSemaphorePermit>,
    ) -> Option<Bytes> {
        let _in_flight = InFlight::begin(&edge.metrics);
        let (read, write) = (BodyEncoding::Json, ReplyEncoding::Json);
        let outcome = routes::dispatch(&edge, self.verb, &caller, read, &self.params, write).await;
        drop(share);
        let (frame, code) = match outcome {
            Ok(reply) => (self.id.result(REPLY_BYTES, |out| reply.write_json(out)), SUCCESS),
            Err(rejection) => {
                let (frame, code) = self.id.error(Failure::Rejected(rejection));
                (Some(frame), code)
            }
        };
        edge.metrics.request(self.verb, code, self.began.elapsed());
        frame
    }
}

impl Refused {
    /// A refusal for another reason of a call that was read.
    pub(super) fn of(call: Call, failure: Failure) -> Self {
        Self { verb: call.verb, id: call.id, failure }
    }

    /// The frame that says so; also counts it.
    pub(super) fn answer(self, edge: &Edge) -> Bytes {
        let (frame, code) = self.id.error(self.failure);
        edge.metrics.request(self.verb, code, std::time::Duration::ZERO);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Call, String> {
        read(&Bytes::copy_from_slice(text.as_bytes())).map_err(|refused| {
            let (frame, _) = refused.id.error(refused.failure);
            String::from_utf8(frame::payload(&frame).to_vec()).expect("UTF-8")
        })
    }

    #[test]
    fn a_call_has_an_id_a_method_and_params() {
        let call =
            read_text(r#"{"params":{"a":[1]},"id":"x\n7","method":"send","more":{}}"#).expect("a call");
        assert_eq!((call.verb, &call.params[..]), (Verb::Send, &br#"{"a":[1]}"#[..]));
        let frame = call.id.result(0, |out| out.extend_from_slice(b"{}")).expect("a frame");
        assert_eq!(frame::payload(&frame), br#"{"id":"x\n7","result":{}}"#);
        let quiet = read_text(r#"{"method":"ack"}"#).expect("a call");
        assert_eq!((quiet.id.clone(), &quiet.params[..]), (Id(None), &b"{}"[..]));
        assert!(quiet.id.result(0, |_| ()).is_none());
    }

    #[test]
    fn methods_have_short_and_long_names() {
        for (method, verb) in [
            ("send", Verb::Send),
            ("im.chat/pull", Verb::Pull),
            ("group.create", Verb::GroupCreate),
            ("im.group/leave", Verb::GroupLeave),
            ("group.set_duty", Verb::GroupSetDuty),
            ("relation.block", Verb::RelationBlock),
            ("im.relation/blocks", Verb::RelationBlocks),
            ("resume", Verb::Resume),
            ("se\\u006ed", Verb::Send),
        ] {
            let call = read_text(&format!(r#"{{"id":1,"method":"{method}"}}"#)).expect("a call");
            assert_eq!(call.verb, verb, "{method}");
        }
        for method in [
            "",
            "stream",
            "im.chat/stream",
            "create",
            "block",
            "group.send",
            "group.block",
            "relation.",
            "/im.chat/send",
            "Send",
        ] {
            let refused = read_text(&format!(r#"{{"id":1,"method":"{method}"}}"#)).err().expect("a refusal");
            assert_eq!(
                refused, r#"{"id":1,"error":{"code":10001,"msg":"method names no verb"}}"#,
                "{method}"
            );
        }
    }

    #[test]
    fn a_call_without_a_method_is_refused_under_its_id() {
        for text in [r#"{"id":1}"#, r#"{"id":1,"method":null}"#] {
            let refused = read_text(text).err().expect(text);
            assert!(
                refused.starts_with(r#"{"id":1,"error":{"code":10001,"msg":"method "#),
                "{text}: {refused}"
            );
        }
    }

    #[test]
    fn what_is_no_call_is_told_so() {
        for text in
            ["", "[]", "7", "{", r#"{"method":7}"#, "[7,\"send\",{}]", "{\"id\":1,\"method\":\"send\"}x"]
        {
            let refused = read_text(text).err().expect(text);
            assert!(refused.starts_with(r#"{"id":null,"error":{"code":10001,"msg":""#), "{text}: {refused}");
        }
        for id in ["{}", "[1]", "true", &format!("\"{}\"", "x".repeat(127))] {
            let refused = read_text(&format!(r#"{{"id":{id},"method":"send"}}"#)).err().expect(id);
            assert!(refused.contains("\"msg\":\"id must be"), "{id}: {refused}");
        }
    }
}
