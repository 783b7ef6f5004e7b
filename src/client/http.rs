//! Calls over HTTP/1.1 connections that are kept.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::error::Error;
use crate::tls::{self, Endpoint, Protocol, Socket};

/// Connections that are kept while nobody calls.
const IDLE_MAX: usize = 32;
/// Longest reply: a page of fifty of the longest messages, every byte escaped, is below it.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Sender = SendRequest<Full<Bytes>>;

/// A server, and the connections to it.
#[derive(Debug)]
pub(super) struct Http {
    endpoint: Endpoint,
    idle: Mutex<Vec<Sender>>,
}

/// The body of every error.
#[derive(Deserialize)]
pub(super) struct Refusal {
    code: u32,
    msg: String,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

impl From<Refusal> for Error {
    fn from(Refusal { code, msg, retry_after_ms }: Refusal) -> Self {
        Self::Refused { code, msg, retry_after: retry_after_ms.map(Duration::from_millis) }
    }
}

impl Http {
    /// A server by its URL, `http://host:port` or `https://host:port`. Nothing is connected yet. `authorities` in PEM are
    /// trusted instead of the system's.
    pub(super) fn new(url: &str, authorities: Option<&[u8]>) -> Result<Self, Error> {
        let wrong = || Error::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        let (tls, port) = match (uri.scheme_str(), authorities) {
            (Some("http"), None) => (None, 80),
            (Some("http"), Some(_)) => {
                return Err(Error::Authorities("they go with https:// only".to_owned()));
            }
            (Some("https"), None) => (Some(tls::trusting_system()), 443),
            (Some("https"), Some(pem)) => (Some(tls::trusting_pem(pem)), 443),
            _ => return Err(wrong()),
        };
        let tls = tls.transpose().map_err(Error::Authorities)?;
        let port = authority.port_u16().unwrap_or(port);
        let endpoint = Endpoint::new(authority.host(), port, tls).map_err(|_| wrong())?;
        Ok(Self { endpoint, idle: Mutex::default() })
    }

    /// Where its WebSockets are, up to the path.
    pub(super) fn sockets(&self) -> String {
        let scheme = if self.endpoint.is_secret() { "wss" } else { "ws" };
        format!("{scheme}://{}", self.endpoint.authority())
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Socket, Error> {
        let opening = Box::pin(self.endpoint.open(Protocol::Http1));
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
        opened.map_err(|_| Error::no_answer("no connection in time"))?.map_err(Error::not_connected)
    }

    /// One POST and its reply; a refusal is an error.
    pub(super) async fn call(
        &self,
        path: &str,
        body: Bytes,
        token: &str,
        timeout: Duration,
    ) -> Result<Bytes, Error> {
        let exchange = self.exchange(path, body, token);
        tokio::time::timeout(timeout, exchange).await.map_err(|_| Error::no_answer("not in time"))?
    }

    async fn exchange(&self, path: &str, body: Bytes, token: &str) -> Result<Bytes, Error> {
        let request = Request::post(path)
            .header(HOST, self.endpoint.authority())
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|why| Error::Unreadable(format!("the token is no header: {why}")))?;
        let (sender, response) = self.send(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await;
        let body = body.map_err(Error::no_answer)?.to_bytes();
        self.keep(sender);
        if status == StatusCode::OK {
            return Ok(body);
        }
        // What is no error of the server's is one of something between.
        Err(serde_json::from_slice::<Refusal>(&body).map_or_else(|_| Error::no_answer(status), Error::from))
    }

    /// Sends over a kept connection as long as one takes the request, else over a new one.
    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<(Sender, Response<Incoming>), Error> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                // It was closed while it was kept, and nothing of the request was written.
                Err(mut why) => match why.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Error::no_answer(why.error())),
                },
            }
        }
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = handshake(stream).await.map_err(Error::no_answer)?;
        // Its end is seen by who sends.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(Error::no_answer)?;
        Ok((sender, response))
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() && idle.len() < IDLE_MAX {
            idle.push(sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority_of(url: &str) -> String {
        Http::new(url, None).expect("a URL").endpoint.authority().to_owned()
    }

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for (url, authority) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://chat.example.com/", "chat.example.com:80"),
            ("http://[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(authority_of(url), authority);
        }
        for url in ["", "chat", "http://x/y", "http://x?y", "ws://x", "/x"] {
            assert!(matches!(Http::new(url, None), Err(Error::Url(_))), "{url}");
        }
    }

    #[test]
    fn authorities_are_for_https_and_have_to_be_some() {
        let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("a certificate");
        let pem = made.cert.pem();
        let http = Http::new("https://chat.example.com", Some(pem.as_bytes())).expect("a URL");
        assert_eq!(http.sockets(), "wss://chat.example.com:443");
        for (url, pem) in [("http://x", &*pem), ("https://x", "no PEM")] {
            let refused = Http::new(url, Some(pem.as_bytes()));
            assert!(matches!(refused, Err(Error::Authorities(_))), "{url}");
        }
    }
}
