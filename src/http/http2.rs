//! HTTP/2 on a connection: many requests at a time, each in a task of its own, and limits on all of it.
//!
//! A request is answered as over HTTP/1.1. What is different is who holds up whom: a client that stops reading one
//! answer, or leaves one body unread, loses that stream and not its connection. Frames are a library's business.

mod framed;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, UPGRADE};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use self::framed::{CHUNK_BYTES, Framed};
use super::Options;
use super::drain::Drain;
use super::exchange::{self, Connection};
use super::failure::Failure;
use super::pieces::Pieces;
use super::response::{Answer, Body};
use super::routes;
use super::stream::Alarm;
use super::wire::Wire;
use crate::config::limits::HEADER_BYTES_MAX;
use crate::message::Rejection;

/// Requests of one connection at a time: the least that the standard recommends (RFC 9113, 6.5.2), and a gateway
/// opens a second connection for more.
const STREAMS_MAX: u32 = 100;
/// Requests of all connections at a time, beside one for each. With 12 KiB for each (a chunk of its answer, its task
/// and the library's part) 384 MiB at the very worst.
const REQUESTS_MAX: usize = 32 * 1024;
/// Bytes of answers that wait for their clients, over all connections, beside a chunk of each: a client may ask for
/// many pages at a time, and a page may have three MiB.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of one body on the way before the client has to wait for a word of ours: a whole one under the default
/// `--body-limit`.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all bodies of a connection: two such. They are taken in as they come, so that they lie here only
/// while the processor is behind.
const CONNECTION_WINDOW_BYTES: u32 = 128 * 1024;
/// Largest frame, in bytes: the least that the standard allows (RFC 9113, 4.2).
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Streams that a client may have reset before we looked at them: a few are impatience, more are a flood
/// (CVE-2023-44487), and the connection ends.
const UNSEEN_RESETS_MAX: usize = 20;
/// Streams that may break the protocol in the life of a connection, which ends then: a gateway's may be long.
const BROKEN_STREAMS_MAX: usize = 1024;
/// After the connection was told to end and has no request in flight, so long until it is cut: a round trip on a bad
/// line, in which the client says that it has heard.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the requests of all HTTP/2 connections may take together.
pub(super) struct Room {
    /// For requests beyond the first of each connection.
    turns: Arc<Semaphore>,
    /// For answers of more than a chunk, in chunks.
    answers: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new() -> Self {
        let chunks = ANSWER_BYTES_MAX / CHUNK_BYTES;
        Self { turns: Arc::new(Semaphore::new(REQUESTS_MAX)), answers: Arc::new(Semaphore::new(chunks)) }
    }

    /// The answer with its part of the memory for answers, which it keeps while it is being sent; or a refusal.
    pub(super) fn hold(&self, mut answer: Answer) -> Answer {
        let bytes = answer.response.body().size_hint().lower();
        if bytes > CHUNK_BYTES as u64 {
            let chunks = u32::try_from(bytes.div_ceil(CHUNK_BYTES as u64)).unwrap_or(u32::MAX);
            let Ok(share) = self.answers.clone().try_acquire_many_owned(chunks) else {
                return Answer::failure(Failure::Rejected(Rejection::Overloaded));
            };
            answer.response.extensions_mut().insert(Arc::new(share));
        }
        answer
    }
}

/// How HTTP/2 is spoken.
pub(super) struct Protocol {
    http: http2::Builder<Tasks>,
    idle_max: Duration,
}

impl Protocol {
    pub(super) fn new(options: &Options) -> Self {
        let mut http = http2::Builder::new(Tasks { write_timeout: options.write_timeout });
        http.timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).expect("a small number"))
            .max_send_buf_size(CHUNK_BYTES)
            .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
            .max_local_error_reset_streams(BROKEN_STREAMS_MAX)
            // As a WebSocket: who is gone without a word is noticed, and does not keep a stream open for ever.
            .keep_alive_interval(options.stream_ping)
            .keep_alive_timeout(options.stream_ping * 2);
        Self { http, idle_max: options.header_timeout }
    }

    /// Answers the requests of a connection until the client, a time-out or the drain ends it.
    pub(super) async fn run(&self, wire: Wire, connection: Arc<Connection>, drain: &Drain) {
        let open = Arc::new(Open::default());
        let answering = open.clone();
        let service = service_fn(move |request| answer(connection.clone(), &answering, request));
        let mut conversation = pin!(self.http.serve_connection(TokioIo::new(wire), service));
        let mut drain_begins = pin!(drain.begins());
        let mut end = End::new(open, self.idle_max);
        let closed = poll_fn(|cx| {
            if !end.is_told() && drain_begins.as_mut().poll(cx).is_ready() {
                end.tell();
                conversation.as_mut().graceful_shutdown();
            }
            match end.poll(cx) {
                Step::Tell => conversation.as_mut().graceful_shutdown(),
                Step::Cut => return Poll::Ready(Ok(())),
                Step::GoOn => {}
            }
            conversation.as_mut().poll(cx)
        });
        if let Err(error) = closed.await {
            // Clients go away and send nonsense; that is not an operator's concern.
            tracing::debug!(%error, "an HTTP/2 connection ended badly");
        }
    }
}

/// The requests of a connection that are not answered to their last byte.
struct Open {
    requests: AtomicUsize,
    /// When there was none the last time.
    idle_since: Mutex<Instant>,
}

impl Default for Open {
    fn default() -> Self {
        Self { requests: AtomicUsize::new(0), idle_since: Mutex::new(Instant::now()) }
    }
}

impl Open {
    /// Since when the connection has been idle; nothing while it is not.
    fn idle_since(&self) -> Option<Instant> {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        (self.requests.load(Ordering::Acquire) == 0).then_some(since)
    }
}

/// A request counts as open as long as this lives.
struct Turn {
    open: Arc<Open>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// One more request of a connection, and whether it may be answered: its first may always.
    fn take(open: &Arc<Open>, room: &Room) -> (Self, bool) {
        let is_first = open.requests.fetch_add(1, Ordering::AcqRel) == 0;
        let permit = if is_first { None } else { room.turns.clone().try_acquire_owned().ok() };
        let may = is_first || permit.is_some();
        (Self { open: open.clone(), _permit: permit }, may)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Before the count, so that whoever sees the one sees the other.
        *self.open.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.open.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    GoOn,
    /// The client hears that it ends, and what is in flight is answered.
    Tell,
    /// It ends at once.
    Cut,
}

/// When a connection ends by itself: idle for too long, or told to end and idle for a moment.
struct End {
    open: Arc<Open>,
    idle_max: Duration,
    told: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl End {
    fn new(open: Arc<Open>, idle_max: Duration) -> Self {
        Self { open, idle_max, told: None, alarm: Box::pin(tokio::time::sleep(idle_max)) }
    }

    fn is_told(&self) -> bool {
        self.told.is_some()
    }

    fn tell(&mut self) {
        let now = Instant::now();
        self.told = Some(now);
        self.alarm.as_mut().reset(now + FAREWELL);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Step {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = self.due(now);
            if due > now {
                self.alarm.as_mut().reset(due);
            } else if self.is_told() {
                return Step::Cut;
            } else {
                self.tell();
                // The alarm has to be asked once more to wake this task.
                let _ = self.alarm.as_mut().poll(cx);
                return Step::Tell;
            }
        }
        Step::GoOn
    }

    /// When it has been idle for long enough; while it is not, the earliest moment to look again.
    fn due(&self, now: Instant) -> Instant {
        let since = self.open.idle_since().unwrap_or(now);
        match self.told {
            Some(told) => since.max(told) + FAREWELL,
            None => since + self.idle_max,
        }
    }
}

/// Answers one request of a connection.
fn answer(
    connection: Arc<Connection>,
    open: &Arc<Open>,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Framed>, Infallible>> + Send + use<> {
    let (turn, may) = Turn::take(open, &connection.edge.http2);
    let is_head = request.method() == Method::HEAD;
    let asked = if may {
        name_host(&mut request);
        Ok(exchange::answer(connection, request))
    } else {
        Err(overloaded(&connection, &request))
    };
    async move {
        let Ok(mut response) = match asked {
            Ok(answer) => answer.await,
            Err(answer) => Ok(answer.response),
        };
        // A connection of HTTP/2 goes on, and cannot become another (RFC 9113, 8.2.2).
        response.headers_mut().remove(CONNECTION);
        response.headers_mut().remove(UPGRADE);
        Ok(Framed::response(if is_head { without_body(response) } else { response }, turn))
    }
}

/// The answer of a HEAD, of which the library would send the body too.
fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(bytes) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    response.map(|_| Body::Left(Pieces::default()))
}

fn overloaded(connection: &Connection, request: &Request<Incoming>) -> Answer {
    let answer = Answer::failure(Failure::Rejected(Rejection::Overloaded));
    let verb = routes::verb(request.uri().path());
    connection.edge.metrics.request(verb, answer.code, Duration::ZERO);
    answer
}

/// Says the host where HTTP/1.1 says it. Two that differ are left there to be refused, as is none.
fn name_host(request: &mut Request<Incoming>) {
    let Some(authority) = request.uri().authority() else { return };
    let is_named = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
    let mut hosts = request.headers().get_all(HOST).iter();
    if hosts.next().is_some_and(is_named) && hosts.next().is_none() {
        return;
    }
    // An authority is a header value, as there is nothing in it but visible ASCII.
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().append(HOST, host);
    }
}

tokio::task_local! {
    /// Since when the last bytes that a stream has given to be sent wait for the client.
    static SENDING_SINCE: Cell<Option<Instant>>;
}

/// Gives every stream a task, which ends with it or with the client's patience.
#[derive(Clone, Copy)]
struct Tasks {
    write_timeout: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        tokio::spawn(SENDING_SINCE.scope(Cell::new(None), until_stalled(stream, self.write_timeout)));
    }
}

/// Runs a stream until it ends, or its client takes nothing of an answer for `write_timeout`: dropping it resets it.
///
/// A client can leave an answer unread without the socket ever being full, by giving its stream no window.
async fn until_stalled(stream: impl Future<Output = ()>, write_timeout: Duration) {
    let mut stream = pin!(stream);
    let mut alarm = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match SENDING_SINCE.with(Cell::get) {
            Some(since) => alarm.get_or_insert_with(Alarm::new).poll_at(cx, since + write_timeout),
            None => Poll::Pending,
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn room(turns: usize, chunks: usize) -> Room {
        Room { turns: Arc::new(Semaphore::new(turns)), answers: Arc::new(Semaphore::new(chunks)) }
    }

    #[test]
    fn a_connection_has_one_request_always_and_more_while_the_node_has_room() {
        let room = room(1, 0);
        let (one, other) = (Arc::new(Open::default()), Arc::new(Open::default()));
        let (first, may_first) = Turn::take(&one, &room);
        let (second, may_second) = Turn::take(&one, &room);
        let (third, may_third) = Turn::take(&one, &room);
        let (_others, may_others) = Turn::take(&other, &room);
        assert_eq!([may_first, may_second, may_third, may_others], [true, true, false, true]);
        drop((second, third));
        let (fourth, may_fourth) = Turn::take(&one, &room);
        assert!(may_fourth, "the second has gone");
        assert_eq!(one.idle_since(), None);
        let before = Instant::now();
        drop((first, fourth));
        assert!(one.idle_since().is_some_and(|since| since >= before), "idle since the last one went");
    }

    #[test]
    fn a_large_answer_is_held_within_the_room_and_a_small_one_takes_none() {
        let room = room(0, 2);
        let answer = |bytes| room.hold(Answer::text(StatusCode::OK, "text/plain", vec![b'x'; bytes]));
        let held = answer(2 * CHUNK_BYTES);
        assert_eq!(held.response.status(), 200);
        assert_eq!(answer(CHUNK_BYTES + 1).response.status(), 503);
        assert_eq!(answer(CHUNK_BYTES).response.status(), 200);
        drop(held);
        assert_eq!(answer(CHUNK_BYTES + 1).response.status(), 200);
        assert_eq!(answer(2 * CHUNK_BYTES + 1).response.status(), 503, "more than there is at all");
    }
}
