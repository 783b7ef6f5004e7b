//! `/im.chat`: list, sync, acks, signal, online. Requests to calls; what they mean is the
//! conversations'.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use self::cursors::Cursors;
use super::check;
use super::encoding::BodyEncoding;
use super::json;
use super::proto;
use super::reply::Reply;
use super::request::{Request, decode, from_json, request};
use super::value::Value;
use crate::config::limits::{
    CURSOR_BYTES_MAX, LIST_COUNT_DEFAULT, LIST_COUNT_MAX, ONLINE_USERS_MAX, PULL_COUNT_MAX, PULL_WAIT_MS_MAX,
    SIGNAL_DATA_BYTES_MAX, SIGNAL_DATA_DEPTH_MAX, SIGNAL_KIND_BYTES_MAX,
};
use crate::conversation::Conversations;
use crate::message::{Address, Rejection, Sync, UserId};

pub(super) use self::cursors::positions;

mod cursors;

request! {
    /// A page of something of the caller's own: what `list` and `blocks` ask for, of conversations, groups and users.
    /// Their messages have the same fields under the same numbers.
    pub(super) PageRequest = proto::ListReq { cursor, count }
}

impl<'a> PageRequest<'a> {
    /// Cursor and count.
    pub(super) fn check(self, count_default: u32, count_max: u32) -> Result<(Cow<'a, str>, u32), Rejection> {
        let cursor = check::short(self.cursor, "cursor", CURSOR_BYTES_MAX)?;
        Ok((cursor, check::count(&self.count, count_default, count_max)?))
    }
}

pub(super) async fn list(
    conversations: &Conversations,
    caller: &UserId,
    request: PageRequest<'_>,
) -> Result<Reply, Rejection> {
    let (cursor, count) = request.check(LIST_COUNT_DEFAULT, LIST_COUNT_MAX)?;
    conversations.list(caller, &cursor, count).await.map(Reply::Chats)
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SyncRequest<'a> {
    #[serde(borrow)]
    cursors: Cursors<'a>,
    #[serde(borrow, alias = "waitMs")]
    wait_ms: Value<'a>,
    #[serde(borrow)]
    count: Value<'a>,
}

impl<'a> Request<'a> for SyncRequest<'a> {
    type Message = proto::SyncReq;
}

impl From<proto::SyncReq> for SyncRequest<'_> {
    fn from(message: proto::SyncReq) -> Self {
        Self {
            cursors: Cursors::of(message.cursors),
            wait_ms: message.wait_ms.into(),
            count: message.count.into(),
        }
    }
}

impl SyncRequest<'_> {
    fn check(self) -> Result<Sync, Rejection> {
        let count = check::count(&self.count, PULL_COUNT_MAX, PULL_COUNT_MAX)?;
        let wait_ms = check::number(&self.wait_ms, "wait_ms", 0, PULL_WAIT_MS_MAX)?;
        let wait = Duration::from_millis(wait_ms.into());
        Ok(Sync { positions: self.cursors.check()?, wait, count })
    }
}

pub(super) async fn sync(
    conversations: &Conversations,
    caller: &UserId,
    request: SyncRequest<'_>,
) -> Result<Reply, Rejection> {
    conversations.sync(caller, request.check()?).await.map(Reply::Synced)
}

request! {
    /// A conversation and nothing else.
    pub(super) AcksRequest = proto::AcksReq { target, target_type | "targetType" }
}

pub(super) async fn acks(
    conversations: &Conversations,
    caller: &UserId,
    request: AcksRequest<'_>,
) -> Result<Reply, Rejection> {
    let at = check::address(request.target, request.target_type)?;
    conversations.acks(caller, &at).await.map(Reply::Acks)
}

request! {
    /// A signal as forms and protobuf say it: `data` is a text.
    SignalRequest = proto::SignalReq { target, target_type | "targetType", kind, data }
}

/// A signal as JSON says it: `data` is any value, passed on as it is written.
#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonSignalRequest<'a> {
    #[serde(borrow)]
    target: Value<'a>,
    #[serde(borrow, alias = "targetType")]
    target_type: Value<'a>,
    #[serde(borrow)]
    kind: Value<'a>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A signal that may be passed on.
#[derive(Debug, PartialEq)]
pub(super) struct Signal {
    at: Address,
    kind: String,
    /// JSON on one line.
    data: String,
}

/// Reads a signal in any encoding.
pub(super) fn decode_signal(encoding: BodyEncoding, body: &[u8]) -> Result<Signal, Rejection> {
    if encoding == BodyEncoding::Json {
        let request: JsonSignalRequest<'_> = from_json(body)?;
        let data = request.data.map_or("null", RawValue::get);
        check_json(data)?;
        // Outside of a text a line end is white space, and inside there is none.
        let data = data.replace(['\n', '\r'], " ");
        return signal_of(request.target, request.target_type, request.kind, data);
    }
    let request: SignalRequest<'_> = decode(encoding, body)?;
    let data = request.data.text("data")?;
    check_length(data.len())?;
    signal_of(request.target, request.target_type, request.kind, data_json(&data))
}

fn check_length(bytes: usize) -> Result<(), Rejection> {
    if bytes <= SIGNAL_DATA_BYTES_MAX {
        return Ok(());
    }
    Err(check::invalid("data", format_args!("must be at most {SIGNAL_DATA_BYTES_MAX} bytes")))
}

/// It goes out inside of an event, which has to be readable by every reader of JSON: they differ in how deep a value may
/// be, and in halves of surrogate pairs and numbers that no `f64` has, which this reader refuses.
fn check_json(data: &str) -> Result<(), Rejection> {
    let value: serde_json::Value = serde_json::from_str(data)
        .map_err(|why| check::invalid("data", format_args!("cannot be read by everybody: {why}")))?;
    // Of a text counts what it says, as in a form, and not how it is written.
    check_length(value.as_str().map_or(data.len(), str::len))?;
    if is_within(&value, SIGNAL_DATA_DEPTH_MAX) {
        return Ok(());
    }
    Err(check::invalid("data", format_args!("must be at most {SIGNAL_DATA_DEPTH_MAX} levels deep")))
}

fn is_within(value: &serde_json::Value, levels: usize) -> bool {
    let mut inner: Box<dyn Iterator<Item = &serde_json::Value>> = match value {
        serde_json::Value::Array(values) => Box::new(values.iter()),
        serde_json::Value::Object(fields) => Box::new(fields.values()),
        _ => return true,
    };
    levels > 0 && inner.all(|value| is_within(value, levels - 1))
}

fn data_json(data: &str) -> String {
    if data.is_empty() {
        return "null".to_owned();
    }
    let mut out = Vec::with_capacity(data.len() + 2);
    json::text(&mut out, data);
    String::from_utf8(out).expect("a JSON text of UTF-8 is UTF-8")
}

fn signal_of(
    target: Value<'_>,
    target_type: Value<'_>,
    kind: Value<'_>,
    data: String,
) -> Result<Signal, Rejection> {
    let at = check::address(target, target_type)?;
    let kind = check::text(check::short(kind, "kind", SIGNAL_KIND_BYTES_MAX).map(Value::Text)?, "kind")?;
    Ok(Signal { at, kind: kind.into_owned(), data })
}

pub(super) async fn signal(
    conversations: &Conversations,
    caller: &UserId,
    signal: Signal,
) -> Result<Reply, Rejection> {
    conversations.signal(caller, &signal.at, &signal.kind, &signal.data).await?;
    Ok(Reply::Done)
}

request! {
    pub(super) OnlineRequest = proto::OnlineReq { user_ids | "userIds" }
}

pub(super) async fn online(
    conversations: &Conversations,
    caller: &UserId,
    request: OnlineRequest<'_>,
) -> Result<Reply, Rejection> {
    let mut users = check::user_ids(request.user_ids, "user_ids")?;
    if users.len() > ONLINE_USERS_MAX {
        return Err(check::invalid("user_ids", format_args!("must have at most {ONLINE_USERS_MAX} ids")));
    }
    // A map has each key once.
    users.sort_unstable();
    users.dedup();
    let online = conversations.online(caller, &users).await?;
    Ok(Reply::Online(users.into_iter().zip(online).collect()))
}

#[cfg(test)]
mod counted;
#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::config::limits::SYNC_CURSORS_MAX;
    use crate::message::{GroupId, Position};

    fn refusal<T: fmt::Debug>(result: Result<T, Rejection>) -> String {
        match result {
            Err(Rejection::Invalid(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    fn sync_of(encoding: BodyEncoding, body: &[u8]) -> Result<Sync, Rejection> {
        decode::<SyncRequest<'_>>(encoding, body)?.check()
    }

    #[test]
    fn a_sync_has_positions_and_defaults() {
        let body = br#"{"cursors":[{"target":"bob","targetType":"user","msg_index":"7","recall_index":null},
            {"target":"g","target_type":"group","recallIndex":2}],"waitMs":5}"#;
        let bob = Address::User(UserId::parse("bob").expect("an id"));
        let group = Address::Group(GroupId::parse("g").expect("an id"));
        let expected = Sync {
            positions: vec![
                Position { at: bob, msg_index: 7, recall_index: 0 },
                Position { at: group, msg_index: 0, recall_index: 2 },
            ],
            wait: Duration::from_millis(5),
            count: 50,
        };
        assert_eq!(sync_of(BodyEncoding::Json, body), Ok(expected.clone()));
        let position = |target: &str, target_type: &str, msg_index, recall_index| proto::ChatPosition {
            target: target.into(),
            target_type: target_type.into(),
            msg_index,
            recall_index,
        };
        let cursors = vec![position("bob", "user", 7, 0), position("g", "group", 0, 2)];
        let message = proto::SyncReq { cursors, wait_ms: 5, count: 0 };
        let bytes = prost::Message::encode_to_vec(&message);
        assert_eq!(sync_of(BodyEncoding::Protobuf, &bytes), Ok(expected));
        assert!(sync_of(BodyEncoding::Json, b"{}").is_ok_and(|sync| sync.positions.is_empty()));
        assert!(sync_of(BodyEncoding::Form, b"count=5").is_ok_and(|sync| sync.count == 5));
    }

    #[test]
    fn what_is_wrong_with_a_sync_is_named_with_its_place() {
        let refused = |body: &str| refusal(sync_of(BodyEncoding::Json, body.as_bytes()));
        assert_eq!(refused(r#"{"count":51}"#), "count must be from 0 to 50");
        assert_eq!(refused(r#"{"wait_ms":30001}"#), "wait_ms must be from 0 to 30000");
        for body in [r#"{"cursors":"a"}"#, r#"{"cursors":7}"#, r#"{"cursors":{"a":[1]}}"#] {
            assert!(refused(body).starts_with("cursors must be a list of objects"), "{body}");
        }
        let form = refusal(sync_of(BodyEncoding::Form, b"cursors=a"));
        assert!(form.ends_with("which a form cannot hold: use JSON or protobuf"), "{form}");
        assert_eq!(
            refused(r#"{"cursors":[{"target":"b","target_type":"user"},{"target":"c"}]}"#),
            "cursors[1]: target_type must be \"user\" or \"group\""
        );
        let many = format!("{{\"cursors\":[{}{{}}]}}", "{},".repeat(SYNC_CURSORS_MAX + 5));
        assert_eq!(refused(&many), "cursors must have at most 10000");
    }

    #[test]
    fn a_signal_carries_any_json_on_one_line() {
        let body = "{\"target\":\"bob\",\"target_type\":\"user\",\"kind\":\"typing\",\"data\":{\n \"a\\n\": [1e3,\r\n\"x\"]}}";
        let signal = decode_signal(BodyEncoding::Json, body.as_bytes()).expect("a signal");
        assert_eq!((signal.kind.as_str(), signal.data.as_str()), ("typing", "{  \"a\\n\": [1e3,  \"x\"]}"));
        let none = r#"{"target":"bob","target_type":"user","kind":"typing"}"#;
        assert_eq!(decode_signal(BodyEncoding::Json, none.as_bytes()).expect("a signal").data, "null");
        let form = b"target=bob&target_type=user&kind=typing&data=say+%22hi%22";
        assert_eq!(decode_signal(BodyEncoding::Form, form).expect("a signal").data, r#""say \"hi\"""#);
        let bare = b"target=bob&target_type=user&kind=typing";
        assert_eq!(decode_signal(BodyEncoding::Form, bare).expect("a signal").data, "null");
    }

    #[test]
    fn a_signal_has_limits() {
        let refused = |kind: &str, data: &str| {
            let body = format!(r#"{{"target":"b","target_type":"user","kind":"{kind}","data":{data}}}"#);
            refusal(decode_signal(BodyEncoding::Json, body.as_bytes()))
        };
        assert_eq!(refused("", "1"), "kind must not be empty");
        assert_eq!(refused(&"k".repeat(65), "1"), "kind must be at most 64 bytes");
        assert_eq!(refused("k", &format!("\"{}\"", "d".repeat(1025))), "data must be at most 1024 bytes");
        for unreadable in [r#""\ud800""#, "1e400"] {
            assert!(refused("k", unreadable).starts_with("data "), "{unreadable}");
        }
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(refused("k", &nested(33)), "data must be at most 32 levels deep");
        assert_eq!(
            refused("k", &nested(400)),
            "data cannot be read by everybody: recursion limit exceeded at line 1 column 128"
        );
        let deepest = format!(r#"{{"target":"b","target_type":"user","kind":"k","data":{}}}"#, nested(32));
        assert!(decode_signal(BodyEncoding::Json, deepest.as_bytes()).is_ok());
        let fits =
            format!(r#"{{"target":"b","target_type":"user","kind":"k","data":"{}"}}"#, "d".repeat(1024));
        assert!(decode_signal(BodyEncoding::Json, fits.as_bytes()).is_ok());
    }
}
