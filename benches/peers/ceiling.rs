//! The ceiling: what hyper alone does on this machine. Reads a send, parses it, answers, and stores nothing.
//!
//! `ceiling ADDRESS [REPLY_BYTES]` listens there and prints `ready` when it does. Tokens are not looked at. With a
//! second argument every reply is the same so many bytes of JSON, and requests are read and not
//! parsed: the ceiling of a call that only reads.

use std::borrow::Cow;
use std::convert::Infallible;
use std::hint::black_box;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

#[derive(Deserialize)]
struct Send<'a> {
    #[serde(borrow)]
    target: Cow<'a, str>,
    #[serde(borrow)]
    target_type: Cow<'a, str>,
    #[serde(borrow)]
    msg: Cow<'a, str>,
    #[serde(borrow)]
    extra: Cow<'a, str>,
}

#[derive(Serialize)]
struct Receipt {
    msg_index: u32,
    timestamp: u64,
}

/// What every request is answered with, if it is always the same.
static REPLY: OnceLock<Bytes> = OnceLock::new();

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    if let Some(bytes) = std::env::args().nth(2) {
        let bytes =
            bytes.parse().map_err(|_| io::Error::other("the second argument is a number of bytes"))?;
        REPLY.get_or_init(|| padded(bytes));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        writeln!(io::stdout(), "ready http={}", listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream));
        }
    })
}

async fn serve(stream: TcpStream) {
    let served = stream.set_nodelay(true).map(|()| TokioIo::new(stream));
    if let Ok(stream) = served {
        // It ends when the client goes away.
        let _ = http1::Builder::new().serve_connection(stream, service_fn(answer)).await;
    }
}

/// So many bytes of JSON that pass for a page, and for the receipt of a first message.
fn padded(bytes: usize) -> Bytes {
    let mut reply = br#"{"msgs":[],"msg_index":1,"padding":""#.to_vec();
    reply.resize(bytes.saturating_sub(2).max(reply.len()), b'm');
    reply.extend_from_slice(br#""}"#);
    reply.into()
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await;
    let reply = |body: &[u8]| REPLY.get().cloned().or_else(|| receipt(body).map(Bytes::from));
    let Some(reply) = body.ok().and_then(|body| reply(&body.to_bytes())) else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let mut response = Response::new(Full::from(reply));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn receipt(body: &[u8]) -> Option<Vec<u8>> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let send: Send<'_> = serde_json::from_slice(body).ok()?;
    black_box((send.target.len(), send.target_type.len(), send.msg.len(), send.extra.len()));
    let timestamp = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    serde_json::to_vec(&Receipt { msg_index: NEXT.fetch_add(1, Ordering::Relaxed), timestamp }).ok()
}
