//! A client of one user, with the verbs of the API.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::{Connection, Reply, request};

const JSON: &str = "application/json";
/// A connection that rested longer is not used again: the server closes those that rest for 30 s.
const REST_MAX: Duration = Duration::from_secs(10);

/// One user with a token, and a connection that is kept.
pub(crate) struct Client {
    pub(crate) user: String,
    address: SocketAddr,
    token: String,
    /// With the moment of its last answer.
    connection: Mutex<Option<(Connection, Instant)>>,
}

/// One user's view of one conversation.
pub(crate) struct Chat<'a> {
    client: &'a Client,
    target: String,
    target_type: &'static str,
}

/// The answer of a send.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) msg_index: u32,
    pub(crate) timestamp: u32,
    pub(crate) timestamp_ns: String,
    pub(crate) duplicate: bool,
}

impl Receipt {
    pub(crate) fn nanoseconds(&self) -> u64 {
        self.timestamp_ns.parse().expect("nanoseconds in decimal")
    }
}

/// One message of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct MsgInfo {
    pub(crate) msg_index: u32,
    pub(crate) recall_index: u32,
    pub(crate) msg: String,
    pub(crate) extra: String,
    pub(crate) timestamp: u32,
    pub(crate) sender: String,
    pub(crate) target: String,
    pub(crate) target_type: String,
}

/// The answer of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Page {
    pub(crate) msgs: Vec<MsgInfo>,
    pub(crate) recalls: BTreeMap<u32, u32>,
    pub(crate) max_msg_index: u32,
    pub(crate) max_recall_index: u32,
    pub(crate) min_msg_index: u32,
    pub(crate) epoch: u32,
}

impl Page {
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.msgs.iter().map(|msg| msg.msg.as_str()).collect()
    }

    pub(crate) fn indices(&self) -> Vec<u32> {
        self.msgs.iter().map(|msg| msg.msg_index).collect()
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, user: &str, token: String) -> Self {
        Self { user: user.to_owned(), address, token, connection: Mutex::new(None) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The direct conversation with another user, or with oneself.
    pub(crate) fn with(&self, user: &str) -> Chat<'_> {
        Chat { client: self, target: user.to_owned(), target_type: "user" }
    }

    /// A group's conversation.
    pub(crate) fn group(&self, group: &str) -> Chat<'_> {
        Chat { client: self, target: group.to_owned(), target_type: "group" }
    }

    /// A call with a JSON body that gets some reply.
    #[track_caller]
    pub(crate) fn call(&self, path: &str, body: &Value) -> Reply {
        self.try_call(path, body).expect("a reply")
    }

    /// A call whose connection may break.
    pub(crate) fn try_call(&self, path: &str, body: &Value) -> io::Result<Reply> {
        self.post(path, &[("Content-Type", JSON)], body.to_string().as_bytes())
    }

    /// A POST with a body of any kind.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Reply> {
        self.exchange(&self.request(path, headers, body))
    }

    /// The bytes of a GET of this user.
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        request("GET", path, &all, b"")
    }

    /// The bytes of a POST of this user.
    pub(crate) fn request(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        request("POST", path, &all, body)
    }

    /// A group verb that works.
    #[track_caller]
    pub(crate) fn group_call(&self, verb: &str, body: &Value) -> Value {
        self.call(&format!("/im.group/{verb}"), body).ok()
    }

    /// Creates a group of its own id; the caller owns it.
    #[track_caller]
    pub(crate) fn create_group(&self, group: &str, members: &[&str]) {
        let created =
            self.group_call("create", &json!({"group_id": group, "name": "Friends", "members": members}));
        assert_eq!(created["group_id"], group);
    }

    /// Nothing is retried: what became of a request whose connection broke is unknown.
    fn exchange(&self, bytes: &[u8]) -> io::Result<Reply> {
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = match kept.take().filter(|(_, since)| since.elapsed() < REST_MAX) {
            Some((connection, _)) => connection,
            None => Connection::open(self.address)?,
        };
        connection.write(bytes)?;
        let reply = connection.read_reply()?;
        if !reply.closes() {
            *kept = Some((connection, Instant::now()));
        }
        Ok(reply)
    }
}

impl Chat<'_> {
    /// The body of a call about this conversation with further fields.
    pub(crate) fn body(&self, fields: &Value) -> Value {
        let mut body = json!({"target": self.target, "target_type": self.target_type});
        for (name, value) in fields.as_object().expect("fields") {
            body[name] = value.clone();
        }
        body
    }

    /// A call about this conversation that gets some reply.
    #[track_caller]
    pub(crate) fn call(&self, verb: &str, fields: &Value) -> Reply {
        self.try_call(verb, fields).expect("a reply")
    }

    /// A call about this conversation whose connection may break.
    pub(crate) fn try_call(&self, verb: &str, fields: &Value) -> io::Result<Reply> {
        self.client.try_call(&format!("/im.chat/{verb}"), &self.body(fields))
    }

    #[track_caller]
    fn answer<T: serde::de::DeserializeOwned>(&self, verb: &str, fields: &Value) -> T {
        let answer = self.call(verb, fields).ok();
        serde_json::from_value(answer).unwrap_or_else(|why| panic!("answer of {verb}: {why}"))
    }

    /// Sends a text.
    #[track_caller]
    pub(crate) fn send(&self, msg: &str) -> Receipt {
        self.answer("send", &json!({"msg": msg}))
    }

    /// Sends a text under a name that makes a retry safe.
    #[track_caller]
    pub(crate) fn send_named(&self, client_msg_id: &str, msg: &str) -> Receipt {
        self.answer("send", &json!({"msg": msg, "client_msg_id": client_msg_id}))
    }

    /// Takes a message back.
    #[track_caller]
    pub(crate) fn recall(&self, msg_index: u32) -> u32 {
        let answer = self.call("recall", &json!({"msg_index": msg_index})).ok();
        answer["recall_index"].as_u64().and_then(|index| index.try_into().ok()).expect("a recall index")
    }

    /// Moves the read cursor.
    #[track_caller]
    pub(crate) fn ack(&self, msg_index: u32) {
        let answer = self.call("ack", &json!({"msg_index": msg_index})).ok();
        assert_eq!(answer, json!({}));
    }

    /// Pulls with the fields given; 50 of each half unless they say otherwise.
    #[track_caller]
    pub(crate) fn pull(&self, fields: &Value) -> Page {
        let mut all = json!({"direction": "after", "count": 50});
        for (name, value) in fields.as_object().expect("fields") {
            all[name] = value.clone();
        }
        self.answer("pull", &all)
    }

    /// The first fifty messages and recalls.
    #[track_caller]
    pub(crate) fn beginning(&self) -> Page {
        self.pull(&json!({"start_msg_index": 1, "start_recall_index": 1}))
    }

    /// Everything, page by page.
    #[track_caller]
    pub(crate) fn everything(&self) -> Page {
        let mut all = self.beginning();
        loop {
            let next_msg = all.msgs.last().map_or(1, |msg| msg.msg_index + 1);
            let next_recall = all.recalls.last_key_value().map_or(1, |(index, _)| index + 1);
            let page = self.pull(&json!({"start_msg_index": next_msg, "start_recall_index": next_recall}));
            if page.msgs.is_empty() && page.recalls.is_empty() {
                return all;
            }
            all.msgs.extend(page.msgs);
            all.recalls.extend(page.recalls);
        }
    }
}
