//! The public API on a listener.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::service::service_fn;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Options;
use super::body;
use super::connection::Protocol;
use super::cors::Cors;
use super::credentials::LastCaller;
use super::drain::Drain;
use super::exchange::{self, Connection};
use super::http2;
use super::listener;
use super::opening::Speaks;
use super::rate::Limiter;
use super::stream;
use super::tls::Tls;
use super::wire::Wire;
use crate::auth::Verifier;
use crate::conversation::Conversations;
use crate::telemetry::Metrics;
use crate::tls::Socket;

/// What every connection to the public API needs.
pub struct Edge {
    pub(super) conversations: Conversations,
    pub(super) verifier: Arc<Verifier>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limiter: Option<Limiter>,
    pub(super) bodies: body::Reader,
    pub(super) streams: stream::Streams,
    pub(super) cors: Cors,
    pub(super) http2: http2::Room,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) drain: Drain,
}

impl Edge {
    /// Serves the API on `listener`, with TLS or without, until `draining` becomes true or its sender is gone.
    ///
    /// The task ends when every connection is closed: idle ones at once, the others after the
    /// request they are in, the slow ones by their time-outs. Whoever cannot wait so long stops
    /// waiting. Has to be called inside a tokio runtime with time and io.
    pub fn serve(
        listener: TcpListener,
        conversations: Conversations,
        verifier: Arc<Verifier>,
        options: Options,
        tls: Option<Arc<Tls>>,
        metrics: Arc<Metrics>,
        draining: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        let drain = Drain::new(draining);
        let edge = Arc::new(Self {
            conversations,
            verifier,
            metrics,
            limiter: options.rate.map(Limiter::new),
            bodies: body::Reader::new(options.body_limit_bytes, options.body_timeout),
            streams: stream::Streams::new(&options),
            cors: Cors::new(&options.origins),
            http2: http2::Room::new(),
            tls,
            drain: drain.clone(),
        });
        let connections = options.connections;
        let protocol = Arc::new(Protocol::new(options, drain.clone()));
        tokio::spawn(listener::accept(listener, connections, drain, move |stream, permit| {
            let (edge, protocol) = (edge.clone(), protocol.clone());
            tokio::spawn(async move {
                let _open = OpenConnection::count(&edge.metrics);
                match protocol.open(stream, edge.tls.as_deref()).await {
                    Some((socket, Speaks::Http2)) => Box::pin(edge.serve_http2(&protocol, socket)).await,
                    // Also what is TLS where there is none: its refusal is HTTP's.
                    Some((socket, Speaks::Http1 | Speaks::Tls)) => edge.serve_http1(&protocol, socket).await,
                    None => {}
                }
                drop(permit);
            });
        }))
    }

    async fn serve_http1(self: &Arc<Self>, protocol: &Protocol, socket: Socket) {
        let (connection, wire) = self.connection(protocol, socket, false);
        let answering = connection.clone();
        let service = service_fn(move |request| exchange::answer(answering.clone(), request));
        protocol.run(wire, service).await;
        let becomes = connection.becomes.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pending) = becomes {
            drop(connection);
            stream::run(pending).await;
        }
    }

    async fn serve_http2(self: &Arc<Self>, protocol: &Protocol, socket: Socket) {
        let (connection, wire) = self.connection(protocol, socket, true);
        protocol.run_http2(wire, connection).await;
    }

    /// What the requests of a connection share, and its socket.
    fn connection(
        self: &Arc<Self>,
        protocol: &Protocol,
        socket: Socket,
        is_http2: bool,
    ) -> (Arc<Connection>, Wire) {
        // HTTP/2 says why it ends a connection while the client may still be sending.
        let has_unread = Arc::new(AtomicBool::new(is_http2));
        let wire = protocol.wire(socket, has_unread.clone());
        let connection = Connection {
            edge: self.clone(),
            last_caller: LastCaller::default(),
            has_unread,
            is_http2,
            becomes: Mutex::new(None),
        };
        (Arc::new(connection), wire)
    }
}

/// Counts a connection as open as long as it lives.
struct OpenConnection<'a>(&'a Metrics);

impl<'a> OpenConnection<'a> {
    fn count(metrics: &'a Metrics) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
