//! One request and its answer on the public API, from head to status.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use hyper::body::{Body as _, Incoming};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version, header};

use super::cors::{self, Page};
use super::credentials::LastCaller;
use super::edge::Edge;
use super::encoding::{self, BodyEncoding, ReplyEncoding};
use super::failure::Failure;
use super::proto::OPENAPI;
use super::response::{Answer, Body};
use super::routes;
use super::stream;
use crate::message::{Caller, Rejection};
use crate::telemetry::{Metrics, Verb};

/// What the requests of one connection share.
pub(super) struct Connection {
    pub(super) edge: Arc<Edge>,
    pub(super) last_caller: LastCaller,
    /// Set when the connection ends with a body unread: tells the wire to linger.
    pub(super) has_unread: Arc<AtomicBool>,
    /// Whether other requests may be in flight beside each: then small bodies and large answers have a limit too.
    pub(super) is_http2: bool,
    /// The WebSocket that this connection becomes behind its last answer.
    pub(super) becomes: Mutex<Option<stream::Pending>>,
}

/// What the head of a request says, once it may go on.
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) body_encoding: BodyEncoding,
    reply_encoding: ReplyEncoding,
}

/// Answers a request. Never fails: what goes wrong is an answer too.
///
/// What the head says is looked into at once, so that neither it nor the buffer that it pins is kept while the answer
/// is waited for.
pub(super) fn answer(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send {
    let started = Instant::now();
    let verb = routes::verb(request.uri().path());
    let page = connection.edge.cors.page(request.headers());
    let mut asked = Asked::of(&connection, verb, page.is_some(), request);
    async move {
        let _in_flight = InFlight::begin(&connection.edge.metrics);
        let answer = match asked {
            Asked::Call(Ok(ref call), ref mut body) => connection.call(verb, call, body).await,
            Asked::Call(Err(failure), body) => Box::pin(connection.refuse(failure, body)).await,
            Asked::Stream(request) => Box::pin(connection.stream(*request)).await,
            Asked::Known(answer) => *answer,
        };
        Ok(connection.finish(verb, answer, page, started))
    }
}

/// What a request asks for.
enum Asked {
    /// A verb with these fields in its body, if the head allows it.
    Call(Result<Call, Failure>, Incoming),
    Stream(Box<Request<Incoming>>),
    /// What is known without asking anybody.
    Known(Box<Answer>),
}

impl Asked {
    fn of(connection: &Connection, verb: Verb, by_page: bool, request: Request<Incoming>) -> Self {
        let answer = match verb {
            _ if by_page && request.method() == Method::OPTIONS => cors::preflight(verb, &request),
            Verb::OpenApi => document(&request),
            _ => None,
        };
        if let Some(answer) = answer.filter(|_| check_host(request.version(), request.headers()).is_ok()) {
            return Self::Known(Box::new(answer));
        }
        if verb == Verb::Stream {
            return Self::Stream(Box::new(request));
        }
        let (head, body) = request.into_parts();
        Self::Call(admit(connection, verb, &head), body)
    }
}

/// The document that describes the API, for everybody; `None` where the request for it is not as it should be.
fn document(request: &Request<Incoming>) -> Option<Answer> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
    reads.then(|| Answer::text(StatusCode::OK, "application/json", OPENAPI))
}

/// Everything that can be decided without the body, the cheapest first.
fn admit(connection: &Connection, verb: Verb, head: &Parts) -> Result<Call, Failure> {
    let edge = &connection.edge;
    check_host(head.version, &head.headers)?;
    check_route(verb, &head.method)?;
    if verb == Verb::OpenApi {
        return Err(Failure::Rejected(Rejection::Invalid(
            "a request for the document has no body".to_owned(),
        )));
    }
    if edge.drain.has_begun() {
        return Err(Failure::Rejected(Rejection::Draining));
    }
    let caller = connection.last_caller.identify(&head.headers, &edge.verifier, now_s());
    let caller = caller.map_err(Failure::Unauthenticated)?;
    if let Some(limiter) = &edge.limiter {
        limiter.check(&caller.user).map_err(|wait| Failure::TooFast { wait })?;
    }
    let body_encoding = encoding::of_body(&head.headers).ok_or(Failure::UnknownEncoding)?;
    Ok(Call { caller, body_encoding, reply_encoding: encoding::of_reply(&head.headers) })
}

/// Two hosts are how a request means one thing to a proxy and another to us (RFC 9112, 3.2).
pub(super) fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Failure> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if version == Version::HTTP_2 && host.as_bytes().contains(&b'@') => {
            Err(Failure::Ambiguous("the host must be without a user"))
        }
        (Some(_), None) => Ok(()),
        (None, _) if version < Version::HTTP_11 => Ok(()),
        _ if version == Version::HTTP_2 => Err(Failure::Ambiguous(
            "a request must name exactly one host: in :authority, or in Host, or the same in both",
        )),
        _ => Err(Failure::Ambiguous("a request must have exactly one Host header")),
    }
}

fn check_route(verb: Verb, method: &Method) -> Result<(), Failure> {
    match verb {
        Verb::Unknown | Verb::Resume => Err(Failure::UnknownPath),
        _ if method == routes::method(verb) => Ok(()),
        _ => Err(Failure::WrongMethod { allow: routes::method(verb) }),
    }
}

/// Unix time in seconds. A clock before 1970 makes every `nbf` lie ahead, and no token is expired.
pub(super) fn now_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

impl Connection {
    /// What every answer goes through, whatever it says.
    fn finish(
        &self,
        verb: Verb,
        answer: Answer,
        page: Option<Box<Page>>,
        started: Instant,
    ) -> Response<Body> {
        let mut answer = if self.is_http2 { self.edge.http2.hold(answer) } else { answer };
        if let Some(page) = page {
            page.may_read(&mut answer.response);
        }
        self.edge.metrics.request(verb, answer.code, started.elapsed());
        answer.response
    }

    async fn stream(&self, request: Request<Incoming>) -> Answer {
        let (answer, pending) = stream::answer(&self.edge, request).await;
        if pending.is_some() {
            // What a client still sends behind the end of a WebSocket is taken in for a moment too.
            self.has_unread.store(true, Ordering::Relaxed);
            *self.becomes.lock().unwrap_or_else(PoisonError::into_inner) = pending;
        }
        answer
    }

    async fn call(&self, verb: Verb, call: &Call, body: &mut Incoming) -> Answer {
        let bodies = &self.edge.bodies;
        let body = if self.is_http2 {
            Box::pin(bodies.read_beside_others(body)).await
        } else {
            bodies.read(body).await
        };
        let body = match body {
            Ok(body) => body,
            Err(failure) => return self.abandon(failure),
        };
        let Call { caller, body_encoding, reply_encoding } = call;
        match routes::dispatch(&self.edge, verb, caller, *body_encoding, &body.bytes, *reply_encoding).await {
            Ok(reply) => Answer::reply(reply, *reply_encoding),
            Err(rejection) => {
                let failure = Failure::Rejected(rejection);
                let is_final = failure.is_final();
                let answer = Answer::failure(failure);
                if is_final { answer.closing() } else { answer }
            }
        }
    }

    /// A small body is read all the same, so that the requests behind it are answered too.
    async fn refuse(&self, failure: Failure, mut body: Incoming) -> Answer {
        if self.is_http2 {
            self.edge.bodies.skim(&mut body).await;
            return self.abandon(failure);
        }
        if failure.is_final() || !self.edge.bodies.discard(body).await {
            return self.abandon(failure);
        }
        Answer::failure(failure)
    }

    /// The last answer of the connection, or of its stream: what follows on it cannot be told from the unread body.
    fn abandon(&self, failure: Failure) -> Answer {
        self.has_unread.store(true, Ordering::Relaxed);
        Answer::failure(failure).closing()
    }
}

/// Counts a request as in flight as long as it lives, also when the client goes away.
pub(super) struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    pub(super) fn begin(metrics: &'a Metrics) -> Self {
        metrics.in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<F: Future>(_: fn(Arc<Connection>, Request<Incoming>) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection has it, and 256 of them have to stand in a core's cache beside all that they talk to.
    #[test]
    fn a_request_in_flight_takes_little_room() {
        assert!(bytes_of(answer) <= 640, "{} bytes", bytes_of(answer));
    }
}
