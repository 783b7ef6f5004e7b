//! The operations address: is it alive, can it take a send, what does it count; the console; and the admin calls.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::admin::{self, Admin};
use super::connection::Protocol;
use super::console::{self, Asset};
use super::drain::Drain;
use super::failure::Failure;
use super::response::{Answer, Body};
use super::{Options, exchange, listener};
use crate::config::limits::OPS_CONNECTIONS_MAX;
use crate::telemetry::Metrics;
use crate::tls::Socket;

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// For whoever does not ask for the newer format.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS_TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the node could take a send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It could.
    Ready,
    /// It takes nothing new.
    Draining,
    /// The disk is full; reading works.
    ReadOnly,
    /// The log has failed; the process is about to end.
    LogFailed,
}

impl Readiness {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready\n",
            Self::Draining => "draining\n",
            Self::ReadOnly => "read-only: the disk is full\n",
            Self::LogFailed => "the log has failed\n",
        }
    }

    /// The same for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::ReadOnly => "read_only",
            Self::LogFailed => "log_failed",
        }
    }
}

/// Asks the node.
pub type ReadinessProbe = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// What everybody who reaches this address may read.
enum Page {
    Healthz,
    Readyz,
    Metrics,
    Console(&'static Asset),
}

impl Page {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/healthz" => Some(Self::Healthz),
            "/readyz" => Some(Self::Readyz),
            "/metrics" => Some(Self::Metrics),
            _ => console::asset(path).map(Self::Console),
        }
    }
}

struct Ops {
    metrics: Arc<Metrics>,
    readiness: ReadinessProbe,
    admin: Admin,
}

/// Serves health, metrics, the console and the admin calls on `listener` until `stopping` becomes true or its sender is gone.
///
/// Not the drain: while the node drains, `/readyz` is what tells a load balancer so.
pub fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: ReadinessProbe,
    admin: Admin,
    options: Options,
    stopping: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let stop = Drain::new(stopping);
    let ops = Arc::new(Ops { metrics, readiness, admin });
    let protocol = Arc::new(Protocol::new(options, stop.clone()).ends_with_its_client());
    tokio::spawn(listener::accept(listener, OPS_CONNECTIONS_MAX, stop, move |stream, permit| {
        let (ops, protocol) = (ops.clone(), protocol.clone());
        tokio::spawn(async move {
            let has_unread = Arc::new(AtomicBool::new(false));
            let unread = has_unread.clone();
            let service = service_fn(move |request| answer(ops.clone(), unread.clone(), request));
            protocol.run(protocol.wire(Socket::Plain(stream), has_unread), service).await;
            drop(permit);
        });
    }))
}

async fn answer(
    ops: Arc<Ops>,
    has_unread: Arc<AtomicBool>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path().starts_with(admin::PREFIX) {
        return Ok(ops.admin.answer(request, &has_unread).await.response);
    }
    let mut answer = ops.answer(&request).unwrap_or_else(Answer::failure);
    // No page takes a body.
    if !request.body().is_end_stream() {
        has_unread.store(true, Ordering::Relaxed);
        answer = answer.closing();
    }
    Ok(answer.response)
}

impl Ops {
    fn answer(&self, request: &Request<Incoming>) -> Result<Answer, Failure> {
        exchange::check_host(request.version(), request.headers())?;
        let page = Page::at(request.uri().path()).ok_or(Failure::UnknownPath)?;
        match *request.method() {
            Method::GET | Method::HEAD => Ok(self.show(page, request)),
            _ => Err(Failure::WrongMethod { allow: "GET, HEAD" }),
        }
    }

    fn show(&self, page: Page, request: &Request<Incoming>) -> Answer {
        match page {
            Page::Healthz => Answer::text(StatusCode::OK, PLAIN_TEXT, "alive\n"),
            Page::Readyz => self.readyz(),
            Page::Metrics => self.metrics(request),
            Page::Console(asset) => asset.answer(),
        }
    }

    fn readyz(&self) -> Answer {
        let readiness = (self.readiness)();
        let status = match readiness {
            Readiness::Ready => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Answer::text(status, PLAIN_TEXT, readiness.as_str())
    }

    fn metrics(&self, request: &Request<Incoming>) -> Answer {
        let accept = request.headers().get_all(hyper::header::ACCEPT);
        let mut accepted = accept.iter().filter_map(|value| value.to_str().ok());
        if accepted.any(|value| value.contains("application/openmetrics-text")) {
            Answer::text(StatusCode::OK, OPEN_METRICS_TEXT, self.metrics.to_text())
        } else {
            Answer::text(StatusCode::OK, METRICS_TEXT, self.metrics.to_prometheus())
        }
    }
}
