//! `GET /im.chat/stream`: what happens, as it happens.
//!
//! A stream is a WebSocket, over which verbs may be called too, or server-sent events. It says
//! `hello` first, with where every conversation of the user stands, and from there on every event
//! once and in order; a reader that is too slow is told where to pull instead. Everything that can
//! be refused is refused as a normal HTTP answer before the stream begins. Which events a user gets
//! is the conversations' business, and how much waits for a slow reader the session's.

mod call;
pub(super) mod event;
mod frame;
pub(super) mod handshake;
mod outgoing;
mod resume;
mod sse;
mod websocket;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dashmap::DashMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, Sleep};

use self::handshake::Kind;
pub(super) use self::sse::Events;
pub(super) use self::websocket::run;
use super::edge::Edge;
use super::exchange::{check_host, now_s};
use super::failure::Failure;
use super::pieces::Pieces;
use super::response::{Answer, Body};
use super::{Options, credentials};
use crate::conversation::reader::Attached;
use crate::live::{Limits, Session};
use crate::message::{Address, Caller, Chat, Rejection, UserId};

/// Most conversations that `hello` names: the newest. About 150 KiB.
const HELLO_CHATS_MAX: usize = 1000;
/// Most streams of one user on this node: more than anybody has devices. Every event of theirs goes to
/// each.
const STREAMS_PER_USER_MAX: usize = 64;
/// Most bytes of events taken from a session at a time.
const TAKE_BYTES_MAX: usize = 64 * 1024;
/// The token's time is over: 4000 and up are an application's own (RFC 6455, 7.4.2).
const TOKEN_EXPIRED: Ending = Ending { code: 4401, why: "token expired", told: true };
/// "Service restart", of IANA's list of close codes.
const GOING_DOWN: Ending = Ending { code: 1012, why: "the server is going down: connect again", told: true };

/// What the streams of all connections share.
pub(super) struct Streams {
    per_user: DashMap<UserId, usize>,
    origins: Vec<String>,
    ping: Duration,
    limits: Limits,
}

impl Streams {
    pub(super) fn new(options: &Options) -> Self {
        let limits = Limits { bytes_max: options.stream_queue_bytes, ..Limits::default() };
        Self { per_user: DashMap::new(), origins: options.origins.clone(), ping: options.stream_ping, limits }
    }

    /// One more stream of a user, if there may be.
    fn enter(edge: &Arc<Edge>, user: &UserId) -> Result<Place, Failure> {
        let mut open = edge.streams.per_user.entry(user.clone()).or_insert(0);
        if *open >= STREAMS_PER_USER_MAX {
            return Err(Failure::TooManyStreams { most: STREAMS_PER_USER_MAX });
        }
        *open += 1;
        Ok(Place { edge: edge.clone(), user: user.clone() })
    }
}

/// Counts a stream among its user's as long as it lives.
struct Place {
    edge: Arc<Edge>,
    user: UserId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.edge.streams.per_user.remove_if_mut(&self.user, |_, open| {
            *open -= 1;
            *open == 0
        });
    }
}

/// Why the server ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending {
    /// The close code of a WebSocket.
    code: u16,
    why: &'static str,
    /// Whether an event says so too, and calls in flight are answered first.
    told: bool,
}

/// A stream that has been let in: who it is for, and what comes.
struct Opened {
    edge: Arc<Edge>,
    caller: Arc<Caller>,
    /// When the token's time is over.
    expires: Instant,
    session: Arc<Session>,
    /// No event comes any more once this is dropped.
    _attached: Attached,
    _place: Place,
    start: Arc<Start>,
    /// The first event.
    hello: Bytes,
    /// Whether the client says that it will resume.
    will_resume: bool,
}

/// Where the conversations stood when the stream began: what comes live is what is behind that.
struct Start {
    chats: Box<[(Address, u32, u32)]>,
    /// Whether these are all.
    is_whole: bool,
}

impl Start {
    /// Whether the client may have missed anything.
    fn has_history(&self) -> bool {
        self.chats.iter().any(|(_, msg_index, _)| *msg_index > 0)
    }
}

/// A WebSocket that begins when its connection has sent the 101.
pub(super) struct Pending {
    upgrade: OnUpgrade,
    opened: Opened,
}

/// Answers a request for a stream: with events, or with a 101 and what comes behind it, or with a
/// refusal.
pub(super) async fn answer(edge: &Arc<Edge>, request: Request<Incoming>) -> (Answer, Option<Pending>) {
    if !request.body().is_end_stream() {
        let failure = match *request.method() {
            Method::GET => {
                Failure::Rejected(Rejection::Invalid("a request for a stream has no body".to_owned()))
            }
            _ => Failure::WrongMethod { allow: "GET" },
        };
        return (Answer::failure(failure).closing(), None);
    }
    let (mut head, _) = request.into_parts();
    let upgrade = head.extensions.remove::<OnUpgrade>();
    match open(edge, &head).await {
        Ok((Kind::EventSource, opened)) => (event_source(opened), None),
        Ok((Kind::WebSocket(acceptance), opened)) => {
            // hyper has none for what it does not take for an upgrade, such as HTTP/1.0.
            let Some(upgrade) = upgrade else { return (Answer::failure(Failure::NoStream), None) };
            let mut response = Response::new(Body::Left(Pieces::default()));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().extend(acceptance.headers());
            (Answer::success(response), Some(Pending { upgrade, opened }))
        }
        Err(failure) => {
            let is_final = failure.is_final();
            let answer = Answer::failure(failure);
            (if is_final { answer.closing() } else { answer }, None)
        }
    }
}

fn event_source(opened: Opened) -> Answer {
    let mut response = Response::new(Body::Right(Events::new(opened)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // What keeps nginx from holding events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Answer::success(response)
}

/// Everything that can be decided before the stream begins, the cheapest first.
async fn open(edge: &Arc<Edge>, head: &Parts) -> Result<(Kind, Opened), Failure> {
    check_host(head.version, &head.headers)?;
    if head.method != Method::GET {
        return Err(Failure::WrongMethod { allow: "GET" });
    }
    if edge.drain.has_begun() {
        return Err(Failure::Rejected(Rejection::Draining));
    }
    let now_s = now_s();
    let verified = credentials::of_stream(&head.headers, &edge.verifier, now_s);
    let verified = verified.map_err(Failure::Unauthenticated)?;
    handshake::check_query(head)?;
    handshake::check_origin(&head.headers, &edge.streams.origins)?;
    let kind = handshake::kind(head)?;
    if let Some(limiter) = &edge.limiter {
        limiter.check(&verified.caller.user).map_err(|wait| Failure::TooFast { wait })?;
    }
    let left_s = verified.expires_s.saturating_sub(now_s);
    let opened = attach(edge, verified.caller, expiry(left_s), handshake::will_resume(head)).await?;
    Ok((kind, opened))
}

/// The moment in so many seconds; a token for a hundred years is good for as long as the stream.
fn expiry(left_s: u64) -> Instant {
    const FOREVER_S: u64 = 365 * 24 * 3600;
    Instant::now() + Duration::from_secs(left_s.min(FOREVER_S)) - fraction_of_second()
}

/// Tokens end on whole seconds, and now is somewhere between two.
fn fraction_of_second() -> Duration {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Duration::from_nanos(now.subsec_nanos().into())
}

async fn attach(
    edge: &Arc<Edge>,
    caller: Caller,
    expires: Instant,
    will_resume: bool,
) -> Result<Opened, Failure> {
    let place = Streams::enter(edge, &caller.user)?;
    let session = Arc::new(Session::new(edge.streams.limits));
    let attached = edge.conversations.attach(&caller.user, session.clone(), HELLO_CHATS_MAX + 1).await;
    let (attached, mut chats) = attached.map_err(Failure::Rejected)?;
    let more = chats.len() > HELLO_CHATS_MAX;
    chats.truncate(HELLO_CHATS_MAX);
    let hello = event::hello(&caller.user, &chats, more, edge.conversations.epoch());
    Ok(Opened {
        edge: edge.clone(),
        caller: Arc::new(caller),
        expires,
        session,
        _attached: attached,
        _place: place,
        start: Arc::new(start_of(chats, !more)),
        hello,
        will_resume,
    })
}

fn start_of(chats: Vec<Chat>, is_whole: bool) -> Start {
    let chats = chats.into_iter().map(|chat| (chat.at, chat.msg_index, chat.recall_index)).collect();
    Start { chats, is_whole }
}

/// A timer that is set anew whenever it is asked for another moment.
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(super) fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(Duration::MAX)))
    }

    fn is_set_for(&self, moment: Instant) -> bool {
        self.0.deadline() == moment
    }

    pub(super) fn poll_at(&mut self, cx: &mut Context<'_>, moment: Instant) -> Poll<()> {
        if self.0.deadline() != moment {
            self.0.as_mut().reset(moment);
        }
        self.0.as_mut().poll(cx)
    }
}

/// Resolves when the node drains.
type DrainBegins = Pin<Box<dyn Future<Output = ()> + Send>>;

fn drain_begins(edge: &Edge) -> DrainBegins {
    let drain = edge.drain.clone();
    Box::pin(async move { drain.begins().await })
}
