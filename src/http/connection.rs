//! The life of a connection: HTTP until the client, a time-out or the drain ends it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::Options;
use super::drain::Drain;
use super::exchange::Connection;
use super::http2;
use super::opening::{self, Speaks};
use super::response::Body;
use super::wire::Wire;
use crate::config::limits::{CONNECTION_BUFFER_BYTES_MAX, HEADER_BYTES_MAX};

/// How every connection of a listener is spoken to.
pub(super) struct Protocol {
    http: http1::Builder,
    http2: http2::Protocol,
    options: Options,
    drain: Drain,
}

impl Protocol {
    pub(super) fn new(options: Options, drain: Drain) -> Self {
        let mut http = http1::Builder::new();
        // Without a timer hyper waits for ever. Its time-out for heads is also the one for idle
        // connections: it runs from the moment a connection could take a request.
        http.timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(CONNECTION_BUFFER_BYTES_MAX)
            // Whoever closes the sending side after a request still wants the answer.
            .half_close(true);
        let http2 = http2::Protocol::new(&options);
        Self { http, http2, options, drain }
    }

    /// Waits for the first words of a connection, for as long as for a head. Nothing if none come, or the drain does.
    pub(super) async fn opening(&self, stream: &TcpStream) -> Option<Speaks> {
        let first_words = tokio::time::timeout(self.options.header_timeout, opening::first_words(stream));
        tokio::select! {
            biased;
            told = first_words => if let Ok(told) = told { return told.ok() },
            () = self.drain.begins() => {}
        }
        opening::take_words(stream);
        None
    }

    /// The socket of a connection. `has_unread` is set by its service when it leaves a body unread.
    pub(super) fn wire(&self, stream: TcpStream, has_unread: Arc<AtomicBool>) -> Wire {
        Wire::new(stream, self.options.write_timeout, has_unread)
    }

    /// Answers the requests of an HTTP/2 connection until it is closed.
    pub(super) async fn run_http2(&self, wire: Wire, connection: Arc<Connection>) {
        self.http2.run(wire, connection, &self.drain).await;
    }

    /// Answers the requests of a connection with `service` until it is closed, or becomes something
    /// else behind the answer of a 101.
    pub(super) async fn run<S>(&self, wire: Wire, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    {
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(wire), service).with_upgrades());
        let mut drain_begins = pin!(self.drain.begins());
        let (mut is_waiting, mut is_told) = (false, false);
        let closed = poll_fn(|cx| {
            // Waited for once, so that the drain wakes this task; asking again would take a lock that
            // all connections share, on each of their requests.
            let begun =
                if is_waiting { self.drain.has_begun() } else { drain_begins.as_mut().poll(cx).is_ready() };
            is_waiting = true;
            if begun && !is_told {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        });
        if let Err(error) = closed.await {
            // Clients go away and send nonsense; that is not an operator's concern.
            tracing::debug!(%error, "a connection ended badly");
        }
    }
}
