//! The life of a connection: HTTP until the client, a time-out or the drain ends it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Options;
use super::drain::Drain;
use super::exchange::Connection;
use super::http2;
use super::opening::{self, Speaks};
use super::refusal;
use super::response::Body;
use super::tls::Tls;
use super::wire::Wire;
use crate::config::limits::{CONNECTION_BUFFER_BYTES_MAX, HEADER_BYTES_MAX};
use crate::tls::Socket;

/// What HTTP where HTTPS belongs is answered with, up to the length of what it says.
const PLAIN_REFUSED_HEAD: &str =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ";
const PLAIN_REFUSED: &[u8] =
    br#"{"code":10001,"msg":"this address takes HTTPS only: the URL must begin with https://"}"#;

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

    /// A client that closes its sending side is gone, and what was asked for it ends: some of it waits for long, and has few
    /// places.
    pub(super) fn ends_with_its_client(mut self) -> Self {
        self.http.half_close(false);
        self
    }

    /// Waits for the first words of a connection, and for its handshake where there is TLS, for as long as for a head in
    /// all. Nothing if the client does not get so far, or the drain begins.
    pub(super) async fn open(&self, stream: TcpStream, tls: Option<&Tls>) -> Option<(Socket, Speaks)> {
        let deadline = Instant::now() + self.options.header_timeout;
        let Some(told) = self.before(deadline, opening::first_words(&stream)).await else {
            opening::take_words(&stream);
            return None;
        };
        match (told.ok()?, tls) {
            (Speaks::Tls, Some(tls)) => Box::pin(self.handshake(stream, tls, deadline)).await,
            (_, Some(_)) => {
                Box::pin(self.refuse_plain(stream)).await;
                None
            }
            (speaks, None) => Some((Socket::Plain(stream), speaks)),
        }
    }

    async fn handshake(&self, stream: TcpStream, tls: &Tls, deadline: Instant) -> Option<(Socket, Speaks)> {
        match self.before(deadline, tls.accept(stream)).await? {
            Ok((stream, speaks)) => Some((Socket::Secret(Box::new(stream.into())), speaks)),
            Err(error) => {
                // Scanners and clients that do not trust the certificate; no operator's concern.
                tracing::debug!(%error, "no TLS connection came of it");
                None
            }
        }
    }

    /// Says what is wrong to somebody who would see only noise otherwise.
    async fn refuse_plain(&self, stream: TcpStream) {
        let mut wire = self.wire(Socket::Plain(stream), Arc::new(AtomicBool::new(true)));
        let head = format!("{PLAIN_REFUSED_HEAD}{}\r\n\r\n", PLAIN_REFUSED.len());
        let said = async {
            wire.write_all(&[head.as_bytes(), PLAIN_REFUSED].concat()).await?;
            wire.shutdown().await
        };
        if let Err(error) = said.await {
            tracing::debug!(%error, "a client that does not speak TLS was not told so");
        }
    }

    /// What comes of `work` before the deadline and the drain.
    async fn before<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = tokio::time::timeout_at(deadline, work) => done.ok(),
            () = self.drain.begins() => None,
        }
    }

    /// The socket of a connection. `has_unread` is set by its service when it leaves a body unread.
    pub(super) fn wire(&self, stream: Socket, has_unread: Arc<AtomicBool>) -> Wire {
        Wire::new(stream, self.options.write_timeout, has_unread)
    }

    /// Answers the requests of an HTTP/2 connection until it is closed.
    pub(super) async fn run_http2(&self, mut wire: Wire, connection: Arc<Connection>) {
        wire.looks_no_more();
        self.http2.run(wire, connection, &self.drain).await;
    }

    /// Answers the requests of a connection with `service` until it is closed, or becomes something
    /// else behind the answer of a 101.
    pub(super) async fn run<S>(&self, wire: Wire, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    {
        let mut connection = self.http.serve_connection(TokioIo::new(wire), service).with_upgrades();
        let mut drain_begins = pin!(self.drain.begins());
        let (mut is_waiting, mut is_told) = (false, false);
        let ended = poll_fn(|cx| {
            let mut connection = Pin::new(&mut connection);
            // Waited for once, so that the drain wakes this task; asking again would take a lock that
            // all connections share, on each of their requests.
            let begun =
                if is_waiting { self.drain.has_begun() } else { drain_begins.as_mut().poll(cx).is_ready() };
            is_waiting = true;
            if begun && !is_told {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.poll(cx)
        });
        let ended = ended.await;
        if let Err(error) = &ended {
            // Clients go away and send nonsense; that is not an operator's concern.
            tracing::debug!(%error, "a connection ended badly");
        }
        let wire = connection.into_parts().map(|parts| parts.io.into_inner());
        if let Some(mut wire) = wire
            && let Some(head) = wire.take_withheld()
        {
            Box::pin(say_last(wire, head, ended)).await;
        }
    }
}

/// Writes what was held back of a connection's end, and closes it: with words where hyper refused a head, and else as it is.
async fn say_last(mut wire: Wire, head: Vec<u8>, ended: hyper::Result<()>) {
    let answer = match &ended {
        Err(why) if why.is_parse() => {
            wire.leaves_unread();
            refusal::with_words(&head, why)
        }
        _ => head,
    };
    let said = async {
        wire.write_all(&answer).await?;
        wire.shutdown().await
    };
    if let Err(error) = said.await {
        tracing::debug!(%error, "a client was not told why its request was refused");
    }
}
