//! HTTP/2 as a client may speak it: with a library, and in raw frames for what no library sends.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Client, Connection, DEADLINE, TestServer};

/// How every connection begins, with settings that say nothing.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Runs a test that waits for many things at a time, for as long as anything may take.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, test).await.expect("no test takes so long") })
}

/// A body that never comes.
pub(crate) struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// A connection with a library's idea of HTTP/2.
pub(crate) struct Http2<B> {
    sender: SendRequest<B>,
    authority: String,
    pub(crate) ended: JoinHandle<hyper::Result<()>>,
}

impl<B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static> Http2<B> {
    pub(crate) async fn connect(server: &TestServer) -> Self {
        let stream = TcpStream::connect(server.ready().http).await.expect("the server accepts connections");
        stream.set_nodelay(true).expect("an open connection");
        Self::over(stream, server).await
    }

    pub(crate) async fn over<S>(stream: S, server: &TestServer) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("HTTP/2");
        Self { sender, authority: server.ready().http.to_string(), ended: tokio::spawn(connection) }
    }

    /// A request of a user; the answer when its head has come.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: B,
    ) -> hyper::Result<Response<Incoming>> {
        let uri = Uri::builder().scheme("http").authority(&*self.authority).path_and_query(path);
        let mut request = Request::builder().method(method).uri(uri.build().expect("a URI"));
        request = request.header("token", client.token());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.clone().send_request(request.body(body).expect("a request")).await
    }
}

impl Http2<Full<Bytes>> {
    /// A call of a verb: its status and its reply.
    pub(crate) async fn call(&self, client: &Client, path: &str, body: &Value) -> (u16, Value) {
        let headers = [("content-type", "application/json")];
        let answer = self.ask(client, "POST", path, &headers, body.to_string().into()).await;
        reply(answer.expect("an answer")).await
    }
}

/// The status and the JSON of an answer.
pub(crate) async fn reply(answer: Response<Incoming>) -> (u16, Value) {
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("a whole answer").to_bytes();
    (status, serde_json::from_slice(&bytes).expect("JSON"))
}

/// A frame of a client.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, &stream.to_be_bytes()[..], payload].concat()
}

/// The head of a request, whole, with names and values as literals.
pub(crate) fn head(stream: u32, is_last: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(1, 4 | u8::from(is_last), stream, &block)
}

/// A length of seven bits, or more (RFC 7541, 5.1).
fn push_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(length as u8);
    };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// A frame of the server.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Connection {
    /// The next frame.
    pub(crate) fn read_frame(&mut self) -> io::Result<Received> {
        let head = self.read_exactly(9)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let payload = self.read_exactly(number(&head[..3]) as usize)?;
        Ok(Received { kind: head[3], flags: head[4], stream: number(&head[5..]), payload })
    }

    /// The next frame of this kind.
    pub(crate) fn read_frame_of(&mut self, kind: u8) -> io::Result<Received> {
        loop {
            let frame = self.read_frame()?;
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }
}
