//! `/im.chat`: list, sync, acks, signal, online. Requests to calls; what they mean is the
//! conversations'.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::check;
use super::encoding::BodyEncoding;
use super::json;
use super::proto;
use super::reply::Reply;
use super::request::{Request, decode, from_json};
use super::value::Value;
use crate::config::limits::{
    CURSOR_BYTES_MAX, LIST_COUNT_DEFAULT, LIST_COUNT_MAX, ONLINE_USERS_MAX, PULL_COUNT_MAX, PULL_WAIT_MS_MAX,
    SIGNAL_DATA_BYTES_MAX, SIGNAL_KIND_BYTES_MAX, SYNC_CURSORS_MAX,
};
use crate::conversation::Conversations;
use crate::message::{Address, Position, Rejection, Sync, UserId};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ListRequest<'a> {
    #[serde(borrow)]
    cursor: Value<'a>,
    #[serde(borrow)]
    count: Value<'a>,
}

impl<'a> Request<'a> for ListRequest<'a> {
    type Message = proto::ListReq;
}

impl From<proto::ListReq> for ListRequest<'_> {
    fn from(message: proto::ListReq) -> Self {
        Self { cursor: message.cursor.into(), count: message.count.into() }
    }
}

pub(super) async fn list(
    conversations: &Conversations,
    caller: &UserId,
    request: ListRequest<'_>,
) -> Result<Reply, Rejection> {
    let cursor = check::short(request.cursor, "cursor", CURSOR_BYTES_MAX)?;
    let count = match check::number(&request.count, "count", 0, LIST_COUNT_MAX)? {
        0 => LIST_COUNT_DEFAULT,
        count => count,
    };
    conversations.list(caller, &cursor, count).await.map(Reply::Chats)
}

/// How far a client has one conversation.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PositionRequest<'a> {
    #[serde(borrow)]
    target: Value<'a>,
    #[serde(borrow, alias = "targetType")]
    target_type: Value<'a>,
    #[serde(borrow, alias = "msgIndex")]
    msg_index: Value<'a>,
    #[serde(borrow, alias = "recallIndex")]
    recall_index: Value<'a>,
}

impl PositionRequest<'_> {
    fn check(self) -> Result<Position, Rejection> {
        Ok(Position {
            at: check::address(self.target, self.target_type)?,
            msg_index: self.msg_index.number("msg_index")?,
            recall_index: self.recall_index.number("recall_index")?,
        })
    }
}

impl From<proto::ChatPosition> for PositionRequest<'_> {
    fn from(message: proto::ChatPosition) -> Self {
        Self {
            target: message.target.into(),
            target_type: message.target_type.into(),
            msg_index: message.msg_index.into(),
            recall_index: message.recall_index.into(),
        }
    }
}

/// A list of positions, cut off behind one more than is allowed.
#[derive(Default)]
enum Cursors<'a> {
    /// Absent, or `null`.
    #[default]
    Zero,
    List(Vec<PositionRequest<'a>>),
    /// A text or the like: all that a form can say.
    Other,
}

impl Cursors<'_> {
    fn check(self) -> Result<Vec<Position>, Rejection> {
        let positions = match self {
            Self::Zero => Vec::new(),
            Self::List(positions) => positions,
            Self::Other => {
                let rule = "must be a list of objects, which a form cannot hold: use JSON or protobuf";
                return Err(check::invalid("cursors", rule));
            }
        };
        if positions.len() > SYNC_CURSORS_MAX {
            return Err(check::invalid("cursors", format_args!("must have at most {SYNC_CURSORS_MAX}")));
        }
        let place = |(place, position): (usize, PositionRequest<'_>)| {
            position.check().map_err(|why| match why {
                Rejection::Invalid(why) => check::invalid(&format!("cursors[{place}]:"), why),
                why => why,
            })
        };
        positions.into_iter().enumerate().map(place).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Cursors<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyCursors)
    }
}

struct AnyCursors;

impl<'de> Visitor<'de> for AnyCursors {
    type Value = Cursors<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cursors::Zero)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut positions = Vec::new();
        while positions.len() <= SYNC_CURSORS_MAX {
            let Some(position) = elements.next_element()? else { return Ok(Cursors::List(positions)) };
            positions.push(position);
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cursors::List(positions))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cursors::Other)
    }
}

/// The positions of a `resume`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ResumeRequest<'a> {
    #[serde(borrow)]
    cursors: Cursors<'a>,
}

/// Reads the parameters of a `resume`.
pub(super) fn positions(params: &[u8]) -> Result<Vec<Position>, Rejection> {
    from_json::<ResumeRequest<'_>>(params)?.cursors.check()
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
        let positions = message.cursors.into_iter().take(SYNC_CURSORS_MAX + 1);
        Self {
            cursors: Cursors::List(positions.map(PositionRequest::from).collect()),
            wait_ms: message.wait_ms.into(),
            count: message.count.into(),
        }
    }
}

impl SyncRequest<'_> {
    fn check(self) -> Result<Sync, Rejection> {
        let count = match check::number(&self.count, "count", 0, PULL_COUNT_MAX)? {
            0 => PULL_COUNT_MAX,
            count => count,
        };
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

/// A conversation and nothing else.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct AcksRequest<'a> {
    #[serde(borrow)]
    target: Value<'a>,
    #[serde(borrow, alias = "targetType")]
    target_type: Value<'a>,
}

impl<'a> Request<'a> for AcksRequest<'a> {
    type Message = proto::AcksReq;
}

impl From<proto::AcksReq> for AcksRequest<'_> {
    fn from(message: proto::AcksReq) -> Self {
        Self { target: message.target.into(), target_type: message.target_type.into() }
    }
}

pub(super) async fn acks(
    conversations: &Conversations,
    caller: &UserId,
    request: AcksRequest<'_>,
) -> Result<Reply, Rejection> {
    let at = check::address(request.target, request.target_type)?;
    conversations.acks(caller, &at).await.map(Reply::Acks)
}

/// A signal as forms and protobuf say it: `data` is a text.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SignalRequest<'a> {
    #[serde(borrow)]
    target: Value<'a>,
    #[serde(borrow, alias = "targetType")]
    target_type: Value<'a>,
    #[serde(borrow)]
    kind: Value<'a>,
    #[serde(borrow)]
    data: Value<'a>,
}

impl<'a> Request<'a> for SignalRequest<'a> {
    type Message = proto::SignalReq;
}

impl From<proto::SignalReq> for SignalRequest<'_> {
    fn from(message: proto::SignalReq) -> Self {
        Self {
            target: message.target.into(),
            target_type: message.target_type.into(),
            kind: message.kind.into(),
            data: message.data.into(),
        }
    }
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
        check_data(data)?;
        // Outside of a text a line end is white space, and inside there is none.
        let data = data.replace(['\n', '\r'], " ");
        return signal_of(request.target, request.target_type, request.kind, data);
    }
    let request: SignalRequest<'_> = decode(encoding, body)?;
    let data = request.data.text("data")?;
    check_data(&data)?;
    signal_of(request.target, request.target_type, request.kind, data_json(&data))
}

fn check_data(data: &str) -> Result<(), Rejection> {
    if data.len() <= SIGNAL_DATA_BYTES_MAX {
        return Ok(());
    }
    Err(check::invalid("data", format_args!("must be at most {SIGNAL_DATA_BYTES_MAX} bytes")))
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

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct OnlineRequest<'a> {
    #[serde(borrow, alias = "userIds")]
    user_ids: Value<'a>,
}

impl<'a> Request<'a> for OnlineRequest<'a> {
    type Message = proto::OnlineReq;
}

impl From<proto::OnlineReq> for OnlineRequest<'_> {
    fn from(message: proto::OnlineReq) -> Self {
        Self { user_ids: message.user_ids.into() }
    }
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
    use super::*;
    use crate::message::GroupId;

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
        assert_eq!(refused("k", &format!("\"{}\"", "d".repeat(1023))), "data must be at most 1024 bytes");
        let fits =
            format!(r#"{{"target":"b","target_type":"user","kind":"k","data":"{}"}}"#, "d".repeat(1022));
        assert!(decode_signal(BodyEncoding::Json, fits.as_bytes()).is_ok());
    }
}
