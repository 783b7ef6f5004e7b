//! `POST /im.admin/feed`: what it takes, and how a page of the log looks on the wire.
//!
//! Promises that every refusal carries where the log stands, so that a consumer can go on without asking. What is in
//! the log, and who may read which text of it, is the business of [`conversation::feed`](crate::conversation::feed).

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

use super::admin::{broken, parse};
use super::check;
use super::failure::Failure;
use super::json::{number, text};
use super::reply::{field, list, text_field};
use super::response::Answer;
use super::stream::event::{action_fields, action_name};
use super::value::Value;
use crate::config::limits::{FEED_COUNT_DEFAULT, FEED_COUNT_MAX, FEED_WAIT_MS_MAX};
use crate::conversation::feed::{
    Change, Conversation, Entry, Error, Fate, Feed, FeedPage, Positions, Start, Wanted,
};
use crate::live::GroupAction;
use crate::message::Rejection;

/// What an entry takes beside its texts, roughly.
const ENTRY_JSON_BYTES: usize = 256;
/// Says in place of an offset that only what is yet to come is wanted.
const NEWEST: &str = "newest";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedBody<'a> {
    #[serde(default)]
    offset: serde_json::Value,
    #[serde(default, borrow)]
    count: Value<'a>,
    #[serde(default, borrow)]
    wait_ms: Value<'a>,
    #[serde(default, borrow)]
    epoch: Value<'a>,
}

/// Answers with a page, or says where the log stands and why there is none.
pub(super) async fn answer(feed: &Feed, body: &[u8]) -> Result<Answer, Failure> {
    let wanted = wanted(parse(body)?).map_err(Failure::Rejected)?;
    let page = match feed.read(wanted).await {
        Ok(page) => page,
        Err(why) => return refusal(why, &feed.positions()),
    };
    // A long page takes a millisecond or two, for which no call should wait.
    let json = tokio::task::spawn_blocking(move || page_json(&page)).await;
    let json = json.map_err(|why| broken(&why))?.map_err(|why| broken(&why))?;
    Ok(Answer::text(StatusCode::OK, "application/json", json))
}

fn wanted(body: FeedBody<'_>) -> Result<Wanted, Rejection> {
    let count = check::count(&body.count, FEED_COUNT_DEFAULT, FEED_COUNT_MAX)? as usize;
    let wait_ms = check::number(&body.wait_ms, "wait_ms", 0, FEED_WAIT_MS_MAX)?;
    // The first epoch is 1.
    let epoch = Some(check::number(&body.epoch, "epoch", 0, u32::MAX)?).filter(|epoch| *epoch != 0);
    let wait = Duration::from_millis(wait_ms.into());
    Ok(Wanted { start: start(&body.offset)?, epoch, count, wait })
}

fn start(offset: &serde_json::Value) -> Result<Start, Rejection> {
    use serde_json::Value::{Null, Number, String};
    let at = match offset {
        Null => Some(0),
        Number(number) => number.as_u64(),
        String(text) if text == NEWEST => return Ok(Start::Newest),
        String(text) => text.parse().ok(),
        _ => None,
    };
    match at {
        Some(0) => Ok(Start::Oldest),
        Some(at) => Ok(Start::At(at)),
        None => Err(check::invalid("offset", "must be a whole number from 0, or \"newest\"")),
    }
}

/// A refusal with status, code and words, and with where the log stands.
fn refusal(why: Error, positions: &Positions) -> Result<Answer, Failure> {
    let (status, code, resume): (_, u32, _) = match &why {
        Error::Gone { .. } => (StatusCode::GONE, 23001, None),
        Error::Beyond { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, 23002, None),
        Error::OtherEpoch { .. } => (StatusCode::CONFLICT, 23003, None),
        Error::Unreadable { from, resume, why } => {
            tracing::error!(from, %why, "the feed cannot read the log");
            (StatusCode::INTERNAL_SERVER_ERROR, 10003, *resume)
        }
        Error::TooMany => return Err(Failure::TooManyFeeds),
        Error::Rejected(rejection) => return Err(Failure::Rejected(rejection.clone())),
    };
    let mut out = Vec::new();
    field(&mut out, b"{\"code\":", code);
    text_field(&mut out, b",\"msg\":", &why.to_string());
    if let Some(resume) = resume {
        field(&mut out, b",\"resume\":", resume);
    }
    positions_json(&mut out, positions);
    out.push(b'}');
    Ok(Answer::text(status, "application/json", out))
}

fn page_json(page: &FeedPage) -> Result<Vec<u8>, Error> {
    let broken = |why| Error::Rejected(Rejection::Broken(format!("a record of the log: {why}")));
    let entries = page.entries().collect::<Result<Vec<_>, _>>().map_err(broken)?;
    let texts = entries.iter().map(text_bytes).sum::<usize>();
    let mut out = Vec::with_capacity(256 + entries.len() * ENTRY_JSON_BYTES + texts);
    out.extend_from_slice(b"{\"records\":[");
    list(&mut out, &entries, entry_json);
    field(&mut out, b"],\"next\":", page.next);
    positions_json(&mut out, &page.positions);
    out.push(b'}');
    Ok(out)
}

fn text_bytes(entry: &Entry<'_>) -> usize {
    match &entry.change {
        Change::Send { msg, extra, .. } => msg.len() + extra.len(),
        Change::Group { users, .. } => users.iter().map(|user| user.len() + 3).sum(),
        Change::Recall { .. } | Change::Ack { .. } | Change::Block { .. } => 0,
    }
}

fn positions_json(out: &mut Vec<u8>, positions: &Positions) {
    let Positions { first, newest, epoch, store } = *positions;
    field(out, b",\"first\":", first);
    field(out, b",\"newest\":", newest);
    field(out, b",\"epoch\":", epoch);
    let store: String = store.iter().map(|byte| format!("{byte:02x}")).collect();
    text_field(out, b",\"store\":", &store);
}

fn entry_json(out: &mut Vec<u8>, entry: &Entry<'_>) {
    field(out, b"{\"offset\":", entry.offset);
    text_field(out, b",\"kind\":", kind(&entry.change));
    match entry.conversation {
        Conversation::Pair(smaller, greater) => {
            out.extend_from_slice(b",\"conversation\":{\"type\":\"user\",\"users\":[");
            list(out, [smaller, greater], text);
            out.extend_from_slice(b"]}");
        }
        Conversation::Group(group) => {
            text_field(out, b",\"conversation\":{\"type\":\"group\",\"group_id\":", group);
            out.push(b'}');
        }
    }
    change_json(out, &entry.change);
    out.push(b'}');
}

fn kind(change: &Change<'_>) -> &'static str {
    match change {
        Change::Send { .. } => "send",
        Change::Recall { .. } => "recall",
        Change::Ack { .. } => "ack",
        Change::Group { .. } => "group",
        Change::Block { blocks: true, .. } => "block",
        Change::Block { blocks: false, .. } => "unblock",
    }
}

fn change_json(out: &mut Vec<u8>, change: &Change<'_>) {
    match change {
        Change::Send { msg_index, sender, timestamp_ns, client_msg_id, msg, extra, fate } => {
            field(out, b",\"msg_index\":", *msg_index);
            text_field(out, b",\"sender\":", sender);
            time(out, *timestamp_ns);
            text_field(out, b",\"client_msg_id\":", client_msg_id);
            text_field(out, b",\"msg\":", msg);
            text_field(out, b",\"extra\":", extra);
            let (recall_index, hidden) = fate_words(*fate);
            field(out, b",\"recall_index\":", recall_index);
            text_field(out, b",\"hidden\":", hidden);
        }
        Change::Recall { recall_index, msg_index, by, timestamp_ns } => {
            field(out, b",\"recall_index\":", *recall_index);
            field(out, b",\"msg_index\":", *msg_index);
            text_field(out, b",\"by\":", by);
            time(out, *timestamp_ns);
        }
        Change::Ack { user, msg_index } => {
            text_field(out, b",\"user\":", user);
            field(out, b",\"msg_index\":", *msg_index);
        }
        Change::Group { action, by, timestamp_ns, users, name } => {
            text_field(out, b",\"action\":", action_name(action));
            text_field(out, b",\"by\":", by);
            out.extend_from_slice(b",\"users\":[");
            list(out, users, |out, user| text(out, user));
            out.push(b']');
            time(out, *timestamp_ns);
            if *action == GroupAction::Create {
                text_field(out, b",\"name\":", name);
            }
            action_fields(out, action);
        }
        Change::Block { by, user, timestamp_ns, .. } => {
            text_field(out, b",\"by\":", by);
            text_field(out, b",\"user\":", user);
            time(out, *timestamp_ns);
        }
    }
}

/// The recall that took a message back, and why its text is not there; empty when it is.
fn fate_words(fate: Fate) -> (u32, &'static str) {
    match fate {
        Fate::Readable => (0, ""),
        Fate::Recalled(recall_index) => (recall_index, "recalled"),
        Fate::Dismissed => (0, "dismissed"),
        Fate::Expired => (0, "expired"),
        Fate::Unknown => (0, "damaged"),
    }
}

/// Nanoseconds as text: they do not fit the numbers of many readers.
fn time(out: &mut Vec<u8>, timestamp_ns: u64) {
    out.extend_from_slice(b",\"timestamp_ns\":\"");
    number(out, timestamp_ns);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Duty;

    fn json_of(conversation: Conversation<'_>, change: Change<'_>) -> String {
        let mut out = Vec::new();
        entry_json(&mut out, &Entry { offset: 7, conversation, change });
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn every_kind_of_record_has_its_fields() {
        let pair = Conversation::Pair("alice", "b\"ob");
        let group = Conversation::Group("g");
        let sent = |fate| Change::Send {
            msg_index: 3,
            sender: "alice",
            timestamp_ns: 1_700_000_000_123_456_789,
            client_msg_id: "c",
            msg: "hi",
            extra: "{}",
            fate,
        };
        let changed = |action, users: &[&'static str]| Change::Group {
            action,
            by: "alice",
            timestamp_ns: 5,
            users: users.to_vec(),
            name: "n",
        };
        for (conversation, change, expected) in [
            (
                pair,
                sent(Fate::Readable),
                r#""kind":"send","conversation":{"type":"user","users":["alice","b\"ob"]},"msg_index":3,"sender":"alice","timestamp_ns":"1700000000123456789","client_msg_id":"c","msg":"hi","extra":"{}","recall_index":0,"hidden":"""#,
            ),
            (
                group,
                Change::Recall { recall_index: 1, msg_index: 3, by: "alice", timestamp_ns: 5 },
                r#""kind":"recall","conversation":{"type":"group","group_id":"g"},"recall_index":1,"msg_index":3,"by":"alice","timestamp_ns":"5""#,
            ),
            (
                group,
                Change::Ack { user: "bob", msg_index: 3 },
                r#""kind":"ack","conversation":{"type":"group","group_id":"g"},"user":"bob","msg_index":3"#,
            ),
            (
                group,
                changed(GroupAction::Create, &["alice", "bob"]),
                r#""kind":"group","conversation":{"type":"group","group_id":"g"},"action":"create","by":"alice","users":["alice","bob"],"timestamp_ns":"5","name":"n""#,
            ),
            (
                group,
                changed(GroupAction::Duty(Duty::Admin), &["bob"]),
                r#""kind":"group","conversation":{"type":"group","group_id":"g"},"action":"duty","by":"alice","users":["bob"],"timestamp_ns":"5","duty":3"#,
            ),
            (
                group,
                changed(GroupAction::Mute { until_s: 9 }, &["bob"]),
                r#""kind":"group","conversation":{"type":"group","group_id":"g"},"action":"mute","by":"alice","users":["bob"],"timestamp_ns":"5","until":9"#,
            ),
            (
                pair,
                Change::Block { blocks: false, by: "alice", user: "b\"ob", timestamp_ns: 5 },
                r#""kind":"unblock","conversation":{"type":"user","users":["alice","b\"ob"]},"by":"alice","user":"b\"ob","timestamp_ns":"5""#,
            ),
        ] {
            let json = json_of(conversation, change);
            assert_eq!(json, format!("{{\"offset\":7,{expected}}}"));
            serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
        }
        for (fate, end) in [
            (Fate::Recalled(4), r#""recall_index":4,"hidden":"recalled"}"#),
            (Fate::Dismissed, r#""recall_index":0,"hidden":"dismissed"}"#),
            (Fate::Expired, r#""recall_index":0,"hidden":"expired"}"#),
            (Fate::Unknown, r#""recall_index":0,"hidden":"damaged"}"#),
        ] {
            assert!(json_of(pair, sent(fate)).ends_with(end), "{fate:?}");
        }
    }

    #[test]
    fn a_body_says_where_to_begin_and_a_bad_one_which_field_is_wrong() {
        let of = |body: &str| parse(body.as_bytes()).and_then(|body| wanted(body).map_err(Failure::Rejected));
        let begin = |body: &str| of(body).expect("a lawful body").start;
        assert_eq!(begin(""), Start::Oldest);
        assert_eq!(begin(r#"{"offset":0}"#), Start::Oldest);
        assert_eq!(begin(r#"{"offset":null}"#), Start::Oldest);
        assert_eq!(begin(r#"{"offset":"18446744073709551615"}"#), Start::At(u64::MAX));
        assert_eq!(begin(r#"{"offset":12}"#), Start::At(12));
        assert_eq!(begin(r#"{"offset":"newest"}"#), Start::Newest);
        let all = of(r#"{"offset":1,"count":1000,"wait_ms":"30000","epoch":2}"#).expect("a lawful body");
        let wait = Duration::from_secs(30);
        assert_eq!(all, Wanted { start: Start::At(1), epoch: Some(2), count: 1000, wait });
        let few = of(r#"{"epoch":0}"#).expect("a lawful body");
        assert_eq!((few.epoch, few.count, few.wait), (None, 100, Duration::ZERO));
        for (body, said) in [
            (r#"{"offset":-1}"#, "offset must be a whole number from 0, or \"newest\""),
            (r#"{"offset":1.5}"#, "offset must be a whole number from 0, or \"newest\""),
            (r#"{"offset":"oldest"}"#, "offset must be a whole number from 0, or \"newest\""),
            (r#"{"offset":[]}"#, "offset must be a whole number from 0, or \"newest\""),
            (r#"{"count":1001}"#, "count must be from 0 to 1000"),
            (r#"{"wait_ms":30001}"#, "wait_ms must be from 0 to 30000"),
            (r#"{"epoch":"x"}"#, "epoch must be a whole number from 0 to 4294967295"),
        ] {
            let Err(failure) = of(body) else { panic!("{body} is lawful") };
            assert_eq!(failure.verdict().msg, said);
        }
        assert!(of(r#"{"from":1}"#).is_err());
    }
}
