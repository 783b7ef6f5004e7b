//! A client of a Chinwag server: calls that are repeated safely, and live delivery without holes.
//!
//! It speaks HTTP/1.1 and WebSocket to `http://host:port`, or the same over TLS to `https://host:port`, keeps connections,
//! and knows nothing of the server's inside but the [`message`](crate::message) vocabulary.
//!
//! Over TLS the server's certificate is checked against the authorities of the system, which `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` in the environment place elsewhere, or against those of [`Client::trusting`].
//!
//! ```no_run
//! # async fn talk() -> Result<(), Box<dyn std::error::Error>> {
//! use chinwag::client::{Begin, Client, Event, Positions};
//! use chinwag::message::{Address, UserId};
//!
//! let client = Client::new("http://127.0.0.1:8000", &std::env::var("TOKEN")?)?;
//! let bob = Address::User(UserId::parse("bob")?);
//! client.send(&bob, "Fancy a chinwag?").await?;
//!
//! let mut events = client.stream(&Positions::default(), Begin::Newest);
//! while let Some(event) = events.next().await {
//!     if let Event::Message { at, message } = event? {
//!         println!("{at:?} {}: {}", message.msg_index, message.msg);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod api;
mod backoff;
mod error;
mod event;
mod http;
mod reading;
mod socket;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::api::{
    At, BlocksReply, GroupInfoReply, GroupsReply, ListReply, MembersReply, Named, ReceiptReply, SyncReply,
    cursor, group_id, user_id, word,
};
pub use self::api::{ChatDelta, ChatList, Message, Page, Synced};
use self::backoff::{Backoff, random};
pub use self::error::Error;
use self::error::Repeatable;
pub use self::event::{Begin, Event};
use self::http::Http;
pub use self::reading::Positions;
pub use self::stream::EventStream;
use crate::message::{
    Address, BlocksPage, Draft, Duty, GroupId, GroupInfo, GroupsPage, MembersPage, Pull, Receipt, Sync,
    UserId,
};

/// How long one try of a call may take, beside what it asks the server to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a call that may be repeated is.
const REPEAT_FOR: Duration = Duration::from_secs(60);
/// The first wait between two tries is at most this.
const REPEAT_BASE: Duration = Duration::from_millis(100);
/// No wait between two tries is longer, unless the server asks for it.
const REPEAT_CAP: Duration = Duration::from_secs(5);

/// One user's access to a server. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    token: RwLock<Arc<str>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is nobody's to read in a log.
        f.debug_struct("Client").field("http", &self.shared.http).finish_non_exhaustive()
    }
}

/// A call: where it goes, and what may be done about a failure.
struct Call<'a> {
    path: &'a str,
    repeatable: Repeatable,
    /// How long the server holds it by intent.
    wait: Duration,
}

impl<'a> Call<'a> {
    fn of(path: &'a str) -> Self {
        Self { path, repeatable: Repeatable::Always, wait: Duration::ZERO }
    }

    fn repeatable(self, repeatable: Repeatable) -> Self {
        Self { repeatable, ..self }
    }
}

impl Client {
    /// A client of the server at `http://host:port` or `https://host:port` for the user whose token it is. Nothing is
    /// connected before the first call; the first client of a process over HTTPS reads the system's authorities.
    ///
    /// # Errors
    /// [`Error::Url`], or [`Error::Authorities`] where the system has none.
    pub fn new(url: &str, token: &str) -> Result<Self, Error> {
        Ok(Self::over(Http::new(url, None)?, token))
    }

    /// The same over HTTPS for a server that one of these authorities vouches for, certificates in PEM, and no other.
    ///
    /// # Errors
    /// [`Error::Url`], or [`Error::Authorities`] where none of them can be used or the URL is no `https://`.
    pub fn trusting(url: &str, token: &str, authorities: &[u8]) -> Result<Self, Error> {
        Ok(Self::over(Http::new(url, Some(authorities))?, token))
    }

    fn over(http: Http, token: &str) -> Self {
        Self { shared: Arc::new(Shared { http, token: RwLock::new(token.into()) }) }
    }

    /// Another token, for every call and stream from here on.
    pub fn set_token(&self, token: &str) {
        *self.shared.token.write().unwrap_or_else(PoisonError::into_inner) = token.into();
    }

    fn token(&self) -> Arc<str> {
        self.shared.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything that happens from these positions on.
    ///
    /// Each message and each recall comes once, in order and without a hole, over as many connections as
    /// it takes. To be called inside a tokio runtime.
    pub fn stream(&self, positions: &Positions, begin: Begin) -> EventStream {
        stream::events(self.clone(), positions, begin)
    }

    /// Sends a text under a name of its own, again and again until the server has it or says no, for at
    /// most a minute: it is never stored twice.
    pub async fn send(&self, at: &Address, msg: &str) -> Result<Receipt, Error> {
        let draft = Draft { msg: msg.to_owned(), extra: String::new(), client_msg_id: String::new() };
        self.send_draft(at, draft).await
    }

    /// The same with everything a message may have; an empty `client_msg_id` is made up.
    ///
    /// After [`Error::NoAnswer`] nobody knows whether it was stored: send it again under the same name.
    pub async fn send_draft(&self, at: &Address, mut draft: Draft) -> Result<Receipt, Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            msg: &'a str,
            extra: &'a str,
            client_msg_id: &'a str,
        }
        if draft.client_msg_id.is_empty() {
            draft.client_msg_id = new_id();
        }
        let Draft { msg, extra, client_msg_id } = &draft;
        let body = At::new(at, Fields { msg, extra, client_msg_id });
        self.call::<ReceiptReply>(&Call::of("/im.chat/send"), &body).await?.receipt()
    }

    /// Takes a message back; the index of the recall.
    pub async fn recall(&self, at: &Address, msg_index: u32) -> Result<u32, Error> {
        #[derive(Deserialize)]
        struct Reply {
            recall_index: u32,
        }
        let body = At::new(at, Named { msg_index });
        Ok(self.call::<Reply>(&Call::of("/im.chat/recall"), &body).await?.recall_index)
    }

    /// Moves one's read cursor to a message.
    pub async fn ack(&self, at: &Address, msg_index: u32) -> Result<(), Error> {
        self.order(&Call::of("/im.chat/ack"), &At::new(at, Named { msg_index })).await
    }

    /// A page of history.
    pub async fn pull(&self, at: &Address, pull: &Pull) -> Result<Page, Error> {
        #[derive(Serialize)]
        struct Fields {
            direction: &'static str,
            start_msg_index: u32,
            start_recall_index: u32,
            count: u32,
            wait_ms: u64,
        }
        let fields = Fields {
            direction: word(pull.direction),
            start_msg_index: pull.start_msg_index,
            start_recall_index: pull.start_recall_index,
            count: pull.count,
            wait_ms: milliseconds(pull.wait),
        };
        self.call(&Call { wait: pull.wait, ..Call::of("/im.chat/pull") }, &At::new(at, fields)).await
    }

    /// A page of one's conversations, newest first, behind `cursor` (empty: from the newest).
    pub async fn list(&self, cursor: &str, count: u32) -> Result<ChatList, Error> {
        let body = json!({"cursor": cursor, "count": count});
        self.call::<ListReply>(&Call::of("/im.chat/list"), &body).await?.list()
    }

    /// What moved past the positions given, and the newest message of conversations not named.
    pub async fn sync(&self, sync: &Sync) -> Result<Synced, Error> {
        let cursors: Vec<_> = sync.positions.iter().map(cursor).collect();
        let body = json!({"cursors": cursors, "wait_ms": milliseconds(sync.wait), "count": sync.count});
        let call = Call { wait: sync.wait, ..Call::of("/im.chat/sync") };
        self.call::<SyncReply>(&call, &body).await?.synced()
    }

    /// How far everybody in a conversation has read.
    pub async fn acks(&self, at: &Address) -> Result<Vec<(UserId, u32)>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            acks: BTreeMap<String, u32>,
        }
        let reply: Reply = self.call(&Call::of("/im.chat/acks"), &At::new(at, ())).await?;
        reply.acks.into_iter().map(|(user, index)| Ok((user_id(&user)?, index))).collect()
    }

    /// Tells those who are connected; once or not at all.
    pub async fn signal(&self, at: &Address, kind: &str, data: &serde_json::Value) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            kind: &'a str,
            data: &'a serde_json::Value,
        }
        let call = Call::of("/im.chat/signal").repeatable(Repeatable::Never);
        self.order(&call, &At::new(at, Fields { kind, data })).await
    }

    /// Which of these people, with whom one shares a conversation, are connected.
    pub async fn online(&self, users: &[UserId]) -> Result<Vec<(UserId, bool)>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            online: BTreeMap<String, bool>,
        }
        let body = json!({"user_ids": ids(users)});
        let reply: Reply = self.call(&Call::of("/im.chat/online"), &body).await?;
        reply.online.into_iter().map(|(user, is_online)| Ok((user_id(&user)?, is_online))).collect()
    }

    /// Creates a group that the caller owns; without an id the server makes one up.
    pub async fn create_group(
        &self,
        group: Option<&GroupId>,
        name: &str,
        members: &[UserId],
    ) -> Result<GroupId, Error> {
        #[derive(Deserialize)]
        struct Reply {
            group_id: String,
        }
        let id = group.map_or("", GroupId::as_str);
        let body = json!({"group_id": id, "name": name, "members": ids(members)});
        let call = Call::of("/im.group/create").repeatable(Repeatable::Refused);
        group_id(&self.call::<Reply>(&call, &body).await?.group_id)
    }

    /// A group as the caller sees it.
    pub async fn group_info(&self, group: &GroupId) -> Result<GroupInfo, Error> {
        let body = json!({"group_id": group.as_str()});
        self.call::<GroupInfoReply>(&Call::of("/im.group/info"), &body).await?.info()
    }

    /// A page of a group's members behind `cursor` (empty: from the first).
    pub async fn members(&self, group: &GroupId, cursor: &str, count: u32) -> Result<MembersPage, Error> {
        let body = json!({"group_id": group.as_str(), "cursor": cursor, "count": count});
        self.call::<MembersReply>(&Call::of("/im.group/members"), &body).await?.page()
    }

    /// Adds members to a group.
    pub async fn add_members(&self, group: &GroupId, users: &[UserId]) -> Result<(), Error> {
        self.change_group("/im.group/add", &json!({"group_id": group.as_str(), "user_ids": ids(users)})).await
    }

    /// Puts members out of a group.
    pub async fn kick_members(&self, group: &GroupId, users: &[UserId]) -> Result<(), Error> {
        self.change_group("/im.group/kick", &json!({"group_id": group.as_str(), "user_ids": ids(users)}))
            .await
    }

    /// Leaves a group.
    pub async fn leave_group(&self, group: &GroupId) -> Result<(), Error> {
        self.change_group("/im.group/leave", &json!({"group_id": group.as_str()})).await
    }

    /// Gives a member a duty; who gives somebody else the owner's becomes an admin.
    pub async fn set_duty(&self, group: &GroupId, user: &UserId, duty: Duty) -> Result<(), Error> {
        let body = json!({"group_id": group.as_str(), "user_id": user.as_str(), "duty": duty as u8});
        self.change_group("/im.group/set_duty", &body).await
    }

    /// Gives a group another name.
    pub async fn rename_group(&self, group: &GroupId, name: &str) -> Result<(), Error> {
        self.change_group("/im.group/rename", &json!({"group_id": group.as_str(), "name": name})).await
    }

    /// Mutes a member until `until_s`, Unix seconds; a moment that is past lets them send again.
    pub async fn mute(&self, group: &GroupId, user: &UserId, until_s: u32) -> Result<(), Error> {
        let body = json!({"group_id": group.as_str(), "user_id": user.as_str(), "until": until_s});
        self.change_group("/im.group/mute", &body).await
    }

    /// Ends a group, for everybody and for ever.
    pub async fn dismiss_group(&self, group: &GroupId) -> Result<(), Error> {
        self.change_group("/im.group/dismiss", &json!({"group_id": group.as_str()})).await
    }

    /// A page of one's groups behind `cursor` (empty: from the first), in the order of their ids.
    pub async fn groups(&self, cursor: &str, count: u32) -> Result<GroupsPage, Error> {
        let body = json!({"cursor": cursor, "count": count});
        self.call::<GroupsReply>(&Call::of("/im.group/list"), &body).await?.page()
    }

    /// From here on what this user sends to the caller is refused.
    pub async fn block(&self, user: &UserId) -> Result<(), Error> {
        self.order(&Call::of("/im.relation/block"), &json!({"user_id": user.as_str()})).await
    }

    /// From here on this user may send to the caller again.
    pub async fn unblock(&self, user: &UserId) -> Result<(), Error> {
        self.order(&Call::of("/im.relation/unblock"), &json!({"user_id": user.as_str()})).await
    }

    /// A page of those whom the caller blocks behind `cursor` (empty: from the first), in the order of their ids.
    pub async fn blocks(&self, cursor: &str, count: u32) -> Result<BlocksPage, Error> {
        let body = json!({"cursor": cursor, "count": count});
        self.call::<BlocksReply>(&Call::of("/im.relation/blocks"), &body).await?.page()
    }

    async fn change_group(&self, path: &str, body: &serde_json::Value) -> Result<(), Error> {
        self.order(&Call::of(path).repeatable(Repeatable::Refused), body).await
    }

    /// A call whose reply says only that it is done.
    async fn order(&self, call: &Call<'_>, body: &impl Serialize) -> Result<(), Error> {
        self.call::<IgnoredAny>(call, body).await.map(|_| ())
    }

    async fn call<T: DeserializeOwned>(&self, call: &Call<'_>, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).expect("these types have no maps with odd keys");
        let reply = self.repeat(call, body).await?;
        serde_json::from_slice(&reply).map_err(|why| Error::Unreadable(why.to_string()))
    }

    /// Tries until there is an answer, a lawful no, or no time left.
    async fn repeat(&self, call: &Call<'_>, body: Vec<u8>) -> Result<bytes::Bytes, Error> {
        let body = bytes::Bytes::from(body);
        let until = Instant::now() + REPEAT_FOR;
        let mut backoff = Backoff::new(REPEAT_BASE, REPEAT_CAP);
        loop {
            let token = self.token();
            let http = &self.shared.http;
            let error = match http.call(call.path, body.clone(), &token, CALL_TIMEOUT + call.wait).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let wait = backoff.next(error.retry_after());
            if !error.is_worth_repeating(call.repeatable) || Instant::now() + wait >= until {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }
}

fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

fn ids(users: &[UserId]) -> Vec<&str> {
    users.iter().map(UserId::as_str).collect()
}

/// A name that nobody else makes up: 128 random bits.
fn new_id() -> String {
    format!("{:032x}", u128::from_ne_bytes(random()))
}
