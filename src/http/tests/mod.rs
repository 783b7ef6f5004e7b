//! The edge over real sockets, with raw bytes, because that is what clients send.
//!
//! Time-outs are short and never slept through: a test waits for what the server does.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::auth::{LocalKey, PublicKeys, Verifier};
use crate::config::SyncMode;
use crate::conversation::{self, Place, Started, recovery};
use crate::data_dir::DataDir;
use crate::disk::{Disk, Real};
use crate::message::{Caller, UserId};
use crate::telemetry::Metrics;

mod calls;
mod framing;
mod limits;
mod operations;

const SHORT: Duration = Duration::from_millis(200);
/// Far more than anything here takes on the busiest machine; a test that gets here hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options {
        body_limit_bytes: 1024,
        header_timeout: PATIENCE,
        body_timeout: PATIENCE,
        write_timeout: PATIENCE,
        connections: 100,
        origins: Vec::new(),
        stream_ping: PATIENCE,
        stream_queue_bytes: 1024 * 1024,
        rate: None,
    }
}

fn conversations(root: &Path, metrics: &Arc<Metrics>, draining: watch::Receiver<bool>) -> Started {
    let disk: Arc<dyn Disk> = Arc::new(Real);
    let data = DataDir::open(disk.clone(), root).expect("a data directory");
    let place = Place::of(&data, disk);
    let recovered = recovery::recover(&place, &data.wal_dir()).expect("an empty log");
    let options = conversation::Options::default();
    let calls = conversation::Calls { before_first_batch: Box::new(|| ()), on_log_failure: Box::new(|_| ()) };
    conversation::start(recovered, place, &data.wal_dir(), options, metrics, draining, calls)
        .expect("conversations")
}

struct Server {
    address: SocketAddr,
    key: LocalKey,
    token: String,
    metrics: Arc<Metrics>,
    draining: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Kept until the end: the conversations, and the directory they are in.
    _under_it: Option<(Started, tempfile::TempDir)>,
}

impl Server {
    async fn start(options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let metrics = Arc::new(Metrics::new(SyncMode::Always));
        let (draining, is_draining) = watch::channel(false);
        let started = conversations(&directory.path().join("data"), &metrics, is_draining.clone());
        let key = LocalKey::open_or_create(directory.path()).expect("a key");
        let verifier = Arc::new(Verifier::new(&key, &PublicKeys::default()).expect("a verifier"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let conversations = started.conversations.clone();
        let task =
            Edge::serve(listener, conversations, verifier, options, None, metrics.clone(), is_draining);
        let token = token_of(&key, "alice");
        Self { address, key, token, metrics, draining, task, _under_it: Some((started, directory)) }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.expect("a connection"))
    }

    /// A request with a good head; `framing` says how long the body is.
    fn head(&self, path: &str, framing: &str) -> String {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nToken: {}\r\n{framing}\r\n\r\n", self.token)
    }

    fn request(&self, path: &str, body: &str) -> String {
        self.head(path, &format!("Content-Length: {}", body.len())) + body
    }

    /// Sends bytes on a connection of their own and gives back all that comes until the server closes.
    async fn exchange(&self, bytes: &str) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }

    /// Drains and waits until every connection is closed.
    async fn drained(self) {
        self.draining.send(true).expect("a running server");
        within(self.task).await.expect("no panic");
        let text = self.metrics.to_text();
        for line in ["chinwag_connections 0\n", "chinwag_in_flight 0\n"] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

fn token_of(key: &LocalKey, user: &str) -> String {
    let caller = Caller { user: UserId::parse(user).expect("an id"), admin: false };
    let now_s = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    key.sign(&caller, now_s, Duration::from_hours(1))
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, bytes: &str) {
        within(self.0.write_all(bytes.as_bytes())).await.expect("a server that reads");
    }

    /// All that comes until the server closes.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        within(self.0.read_to_end(&mut bytes)).await.expect("an orderly end");
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// One answer, head and body.
    async fn answer(&mut self) -> String {
        let mut bytes = Vec::new();
        while !is_whole(&bytes) {
            bytes.push(within(self.0.read_u8()).await.expect("an answer"));
        }
        String::from_utf8(bytes).expect("UTF-8")
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() == length.map_or(0, |length| length.parse().expect("a length"))
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("the server does what it should in time")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn closes(answer: &str) -> bool {
    answer.contains("\r\nconnection: close\r\n")
}

/// Says one thing as one user and gives back the body of the answer, with the status in front.
async fn say(server: &Server, user: &str, path: &str, body: &str) -> String {
    let token = token_of(&server.key, user);
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = server.exchange(&request).await;
    format!("{} {}", status(&answer), answer.split_once("\r\n\r\n").expect("a body").1)
}
