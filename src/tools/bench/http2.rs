//! One connection over HTTP/2: requests of one user that are in flight together, each on a stream of its own.
//!
//! A [`Stream`] has one request at a time; the streams of a connection share it. The client is hyper's: what it takes of
//! the processor is in the report with the rest of this side's, and is several times what the other transports take.
//! Where server and load share cores, the rates of the two are to be compared with that in mind.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connection::{ANSWER_BYTES_MAX, Answered, judge};
use super::tally::{Failure, Verb};
use crate::tls::{Endpoint, Protocol};

/// How long the server may take to open a connection.
const OPEN_MAX: Duration = Duration::from_secs(10);

type Sender = SendRequest<Full<Bytes>>;

/// Room for one request in flight.
pub(super) struct Stream {
    connection: Rc<Connection>,
}

/// What the streams of a connection share. It is opened again whenever it is over and somebody has something to say.
struct Connection {
    sender: RefCell<Sender>,
    /// Where each verb goes.
    uris: [Uri; 3],
    authorization: HeaderValue,
    /// Who holds it opens the connection; the other streams wait.
    opening: Mutex<()>,
}

impl Stream {
    /// Opens a connection for the user of this token, with room for so many requests in flight.
    pub(super) async fn open(endpoint: &Endpoint, bearer: &str, streams: usize) -> io::Result<Vec<Self>> {
        let connection = Rc::new(Connection {
            sender: RefCell::new(shake_hands(endpoint).await?),
            uris: Verb::ALL.map(|verb| uri(endpoint, verb)),
            authorization: HeaderValue::from_str(bearer).map_err(io::Error::other)?,
            opening: Mutex::new(()),
        });
        Ok((0..streams).map(|_| Self { connection: connection.clone() }).collect())
    }

    pub(super) fn is_over(&self) -> bool {
        self.connection.sender.borrow().is_closed()
    }

    pub(super) async fn reopen(&self, endpoint: &Endpoint) -> io::Result<()> {
        let _turn = self.connection.opening.lock().await;
        // Another stream may have done it.
        if self.is_over() {
            let sender = shake_hands(endpoint).await?;
            *self.connection.sender.borrow_mut() = sender;
        }
        Ok(())
    }

    /// Makes a call and waits for its answer.
    pub(super) async fn ask(&self, verb: Verb, body: &[u8]) -> Answered {
        let mut sender = self.connection.sender.borrow().clone();
        match exchange(&mut sender, self.connection.request(verb, body)).await {
            Some((status, body)) => judge(verb, status, &body),
            None if sender.is_closed() => Err(Failure::Connection),
            None => Err(Failure::Reset),
        }
    }
}

impl Connection {
    fn request(&self, verb: Verb, body: &[u8]) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uris[verb as usize].clone();
        request.headers_mut().insert(AUTHORIZATION, self.authorization.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }
}

/// The status and the body of an answer, if one comes.
async fn exchange(sender: &mut Sender, request: Request<Full<Bytes>>) -> Option<(u16, Bytes)> {
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?;
    Some((status, body.to_bytes()))
}

fn uri(endpoint: &Endpoint, verb: Verb) -> Uri {
    let path =
        PathAndQuery::try_from(format!("/im.chat/{}", verb.as_str())).expect("a path of plain letters");
    let scheme = if endpoint.is_secret() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(endpoint.authority()).path_and_query(path);
    uri.build().expect("host and port come from a URL")
}

async fn shake_hands(endpoint: &Endpoint) -> io::Result<Sender> {
    let opening = async {
        let socket = endpoint.open(Protocol::Http2).await?;
        handshake(TokioExecutor::new(), TokioIo::new(socket)).await.map_err(io::Error::other)
    };
    let (sender, connection) = timeout(OPEN_MAX, opening).await.map_err(|_| ErrorKind::TimedOut)??;
    // Its end is seen by who asks.
    tokio::spawn(connection);
    Ok(sender)
}
