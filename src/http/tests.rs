//! The edge over real sockets, with raw bytes, because that is what clients send.
//!
//! Time-outs are short and never slept through: a test waits for what the server does.

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::admin::{Admin, BackedUp, Orders};
use super::exchange::now_s;
use super::*;
use crate::auth::{LocalKey, PublicKeys, Verifier};
use crate::config::SyncMode;
use crate::conversation::{self, Place, Started, recovery};
use crate::data_dir::DataDir;
use crate::disk::{Disk, Real};
use crate::message::{Caller, Rejection, UserId};
use crate::telemetry::Metrics;

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
        let task = Edge::serve(listener, conversations, verifier, options, metrics.clone(), is_draining);
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

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(options()).await;
    let requests = server.request("/im.chat/send", "{}")
        + &server.request("/nowhere", "some body")
        + &server.request("/im.chat/pull", r#"{"target":"bob","target_type":"user"}"#);
    let mut client = server.connect().await;
    client.send(&requests).await;
    let answers = [client.answer().await, client.answer().await, client.answer().await];
    assert!(answers[0].ends_with(r#"{"code":10001,"msg":"target_type must be \"user\" or \"group\""}"#));
    assert_eq!(status(&answers[1]), "404");
    assert!(answers[2].ends_with(r#"{"code":10001,"msg":"direction must be \"before\" or \"after\""}"#));
    assert!(answers.iter().all(|answer| !closes(answer)));
    server.drained().await;
}

#[tokio::test]
async fn refusals_before_the_body_keep_the_connection() {
    let server = Server::start(options()).await;
    let mut client = server.connect().await;
    let with = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 2\r\n\r\n{{}}")
    };
    let token = format!("Token: {}\r\n", server.token);
    for (request, expected, code) in [
        (with("POST /im.chat/sendx", &token), "404", 10001),
        (with("POST /im.chat/send/", &token), "404", 10001),
        (with("GET /im.chat/send", &token), "405", 10001),
        (with("POST /im.chat/send", ""), "401", 10004),
        (with("POST /im.chat/send?token=x", ""), "401", 10004),
        (with("POST /im.chat/send", "Token: a.b.c\r\n"), "401", 10004),
        (with("POST /im.chat/send", &format!("{token}Content-Type: text/plain\r\n")), "415", 10001),
        (with("POST /im.chat/send", &format!("{token}Content-Encoding: gzip\r\n")), "415", 10001),
        (with("POST http://other/im.chat/send", &token), "400", 10001),
        (with("POST /im.chat/send", &format!("{token}Accept: application/x-protobuf\r\n")), "400", 10001),
    ] {
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(status(&answer), expected, "{request}");
        assert!(answer.contains(&format!("{{\"code\":{code},\"msg\":\"")), "{answer}");
        assert!(answer.contains("\r\ncontent-type: application/json\r\n"), "{answer}");
        assert_eq!(expected == "405", answer.contains("\r\nallow: POST\r\n"), "{answer}");
        assert!(!closes(&answer), "{answer}");
    }
    server.drained().await;
}

#[tokio::test]
async fn a_request_has_exactly_one_host() {
    let server = Server::start(options()).await;
    for hosts in ["", "Host: x\r\nHost: x\r\n", "Host: x\r\nHost: y\r\n"] {
        let request = format!(
            "POST /im.chat/send HTTP/1.1\r\n{hosts}Content-Length: 2\r\n\r\n{{}}GET /next HTTP/1.1\r\n"
        );
        let answer = server.exchange(&request).await;
        assert_eq!(status(&answer), "400", "{answer}");
        assert!(closes(&answer) && answer.contains("exactly one Host"), "{answer}");
    }
    // HTTP/1.0 knows no Host, and ends after one answer by itself.
    let answer = server.exchange("POST /im.chat/send HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}").await;
    assert_eq!(status(&answer), "401", "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_unread() {
    let server = Server::start(options()).await;
    let head = server.head("/im.chat/send", "Content-Length: 1025");
    let answer = server.exchange(&head).await;
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(closes(&answer) && answer.contains("the body must be at most 1024 bytes"), "{answer}");
    let expecting = server.head("/im.chat/send", "Content-Length: 1025\r\nExpect: 100-continue");
    assert_eq!(status(&server.exchange(&expecting).await), "413");
    let fits = server.head("/im.chat/send", "Connection: close\r\nContent-Length: 1024") + &"x".repeat(1024);
    assert_eq!(status(&server.exchange(&fits).await), "400");
    server.drained().await;
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_and_what_follows_is_not_answered() {
    let server = Server::start(options()).await;
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let next = server.request("/im.chat/send", "{}");
    let head = server.head("/im.chat/send", "Transfer-Encoding: chunked");
    let answer = server.exchange(&format!("{head}{}0\r\n\r\n{next}", chunk.repeat(3))).await;
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(closes(&answer) && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    // Control: at the limit it is read whole, and the next request is answered.
    let mut client = server.connect().await;
    client.send(&format!("{head}{}0\r\n\r\n{next}", chunk.repeat(2))).await;
    assert_eq!(status(&client.answer().await), "400");
    assert_eq!(status(&client.answer().await), "400");
    server.drained().await;
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let server = Server::start(options()).await;
    let body = "x".repeat(600_000);
    let answer = server.exchange(&server.request("/im.chat/send", &body)).await;
    assert_eq!(status(&answer), "413", "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn ambiguous_framing_never_makes_a_second_request() {
    let server = Server::start(options()).await;
    let smuggled = server.request("/smuggled", "");
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Content-Length : 5",
        "X: y\r\n folded: z",
    ] {
        let answer =
            server.exchange(&format!("{}0\r\n\r\n{smuggled}", server.head("/im.chat/send", framing))).await;
        assert!(!answer.contains("404"), "{framing}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{framing}: {answer}");
        assert_eq!(status(&answer), "400", "{framing}: {answer}");
    }
    server.drained().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_only_so_long() {
    let server = Server::start(Options { body_timeout: SHORT, ..options() }).await;
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let started = Instant::now();
        let begun = if framing.starts_with('C') { "{" } else { "1\r\n{\r\n" };
        let answer = server.exchange(&(server.head("/im.chat/send", framing) + begun)).await;
        assert_eq!(status(&answer), "408", "{answer}");
        assert!(
            closes(&answer) && answer.contains("\"code\":10001") && answer.contains("within 200ms"),
            "{answer}"
        );
        assert!(started.elapsed() >= SHORT);
    }
    // A refused request does not wait longer for the body it throws away.
    let refused = "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
    let answer = server.exchange(refused).await;
    assert!(status(&answer) == "404" && closes(&answer), "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn bytes_that_trickle_do_not_extend_the_wait_for_a_body() {
    let server = Server::start(Options { body_timeout: SHORT, ..options() }).await;
    let mut client = server.connect().await;
    client.send(&server.head("/im.chat/send", "Content-Length: 1000")).await;
    let (mut read, mut write) = client.0.split();
    let trickle = async {
        let mut pulse = tokio::time::interval(SHORT / 10);
        while write.write_all(b"x").await.is_ok() {
            pulse.tick().await;
        }
        // Closed: whether there was an answer before that is for who reads.
        std::future::pending().await
    };
    let mut answer = vec![0; 4096];
    let bytes = tokio::select! {
        () = trickle => unreachable!("it never ends"),
        bytes = within(read.read(&mut answer)) => bytes.expect("an answer"),
    };
    assert_eq!(status(&String::from_utf8_lossy(&answer[..bytes])), "408");
    drop(client);
    server.drained().await;
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let server = Server::start(Options { header_timeout: SHORT, ..options() }).await;
    assert_eq!(server.exchange("").await, "");
    assert_eq!(server.exchange("POST /im.chat/send HTTP/1.1\r\nHos").await, "");
    let answers = server.exchange(&server.request("/im.chat/send", "{}")).await;
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
    server.drained().await;
}

#[tokio::test]
async fn heads_have_a_largest_size() {
    let server = Server::start(options()).await;
    for headers in [format!("X: {}\r\n", "y".repeat(20_000)), "X: y\r\n".repeat(101)] {
        let answer =
            server.exchange(&format!("POST /im.chat/send HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        assert_eq!(status(&answer), "431", "{answer}");
    }
    server.drained().await;
}

#[tokio::test]
async fn whoever_has_sent_all_still_gets_the_answer() {
    let server = Server::start(options()).await;
    let mut client = server.connect().await;
    client.send(&server.request("/im.chat/send", "{}")).await;
    client.0.shutdown().await.expect("a half-closed connection");
    assert_eq!(status(&client.rest().await), "400");
    let mut client = server.connect().await;
    client.send(&(server.head("/im.chat/send", "Content-Length: 10") + "{}")).await;
    client.0.shutdown().await.expect("a half-closed connection");
    let answer = client.rest().await;
    assert!(status(&answer) == "400" && answer.contains("the body ended early"), "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn a_user_who_is_too_fast_is_told_when_to_come_back() {
    let server = Server::start(Options { rate: NonZeroU32::new(1), ..options() }).await;
    let mut client = server.connect().await;
    // So many at a time that two of them meet within a second on any machine.
    client.send(&server.request("/im.chat/send", "{}").repeat(20)).await;
    assert_eq!(status(&client.answer().await), "400");
    let mut answer = client.answer().await;
    while status(&answer) == "400" {
        answer = client.answer().await;
    }
    assert_eq!(status(&answer), "429", "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n") && answer.contains("\"retry_after_ms\":"), "{answer}");
    server.drained().await;
}

#[tokio::test]
async fn further_connections_wait_for_their_turn() {
    let server = Server::start(Options { connections: 1, ..options() }).await;
    let mut first = server.connect().await;
    first.send(&server.request("/im.chat/send", "{}")).await;
    assert_eq!(status(&first.answer().await), "400");
    let mut second = server.connect().await;
    second.send(&server.request("/im.chat/send", "{}")).await;
    let mut byte = [0];
    let early = tokio::time::timeout(SHORT, second.0.read(&mut byte)).await;
    assert!(early.is_err(), "the second was served beside the first");
    drop(first);
    assert_eq!(status(&second.answer().await), "400");
    server.drained().await;
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_refuses_what_had_begun() {
    let server = Server::start(options()).await;
    let mut begun = server.connect().await;
    begun.send("POST /im.chat/send HTTP/1.1\r\nHost: x\r\n").await;
    // Its answer comes after the server, which has one thread here, has read what came before.
    let mut idle = server.connect().await;
    idle.send(&server.request("/im.chat/send", "{}")).await;
    idle.answer().await;
    server.draining.send(true).expect("a running server");
    assert_eq!(idle.rest().await, "");
    begun.send(&format!("Token: {}\r\nContent-Length: 0\r\n\r\n", server.token)).await;
    let answer = begun.rest().await;
    assert_eq!(status(&answer), "503", "{answer}");
    assert!(closes(&answer) && answer.contains("\"code\":10011"), "{answer}");
    assert!(TcpStream::connect(server.address).await.is_err());
    server.drained().await;
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

#[tokio::test]
async fn the_four_calls_do_what_the_api_document_says() {
    let server = Server::start(options()).await;
    let to_bob = r#"{"target":"bob","target_type":"user","msg":"hi","client_msg_id":"1"}"#;
    let first = say(&server, "alice", "/im.chat/send", to_bob).await;
    assert!(
        first.starts_with(r#"200 {"msg_index":1,"timestamp":"#) && first.ends_with(r#""duplicate":false}"#),
        "{first}"
    );
    let again = say(&server, "alice", "/im.chat/send", to_bob).await;
    assert_eq!(again, first.replace("false", "true"));
    let other = to_bob.replace("hi", "ho");
    assert!(say(&server, "alice", "/im.chat/send", &other).await.starts_with(r#"409 {"code":20003,"#));
    let at_alice = r#"{"target":"alice","target_type":"user","msg_index":1}"#;
    assert_eq!(say(&server, "bob", "/im.chat/ack", at_alice).await, "200 {}");
    assert!(say(&server, "bob", "/im.chat/recall", at_alice).await.starts_with(r#"403 {"code":20002,"#));
    let at_bob = at_alice.replace("alice", "bob");
    assert_eq!(say(&server, "alice", "/im.chat/recall", &at_bob).await, r#"200 {"recall_index":1}"#);
    let pull = r#"{"target":"alice","targetType":"user","direction":"after","startMsgIndex":"1","startRecallIndex":1,"count":50}"#;
    let page = say(&server, "bob", "/im.chat/pull", pull).await;
    let message = r#"200 {"msgs":[{"msg_index":1,"recall_index":1,"msg":"","extra":"","timestamp":"#;
    assert!(page.starts_with(message), "{page}");
    let rest =
        r#""sender":"alice","target":"alice","target_type":"user"}],"recalls":{"1":1},"max_msg_index":1,"#;
    assert!(page.contains(rest), "{page}");
    server.drained().await;
}

#[tokio::test]
async fn groups_do_what_the_contract_says() {
    let server = Server::start(options()).await;
    let create = "group_id=g&name=the+group&members=bob&members=carol";
    let form =
        format!(
        "{}{create}",
        server.head("/im.group/create", &format!(
            "Connection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}",
            create.len()
        ))
    );
    assert!(server.exchange(&form).await.ends_with("\r\n\r\n{\"group_id\":\"g\"}"));
    let group = r#"{"group_id":"g","name":"again"}"#;
    assert!(say(&server, "alice", "/im.group/create", group).await.starts_with(r#"409 {"code":22003,"#));
    let info = say(&server, "bob", "/im.group/info", group).await;
    assert!(info.starts_with(r#"200 {"group_id":"g","name":"the group","created":"#), "{info}");
    assert!(info.ends_with(r#","members_count":3,"duty":0}"#), "{info}");
    assert!(say(&server, "dave", "/im.group/info", group).await.starts_with(r#"403 {"code":10008,"#));
    assert!(
        say(&server, "dave", "/im.group/info", r#"{"group_id":"h"}"#)
            .await
            .starts_with(r#"404 {"code":22002,"#)
    );
    let dave = r#"{"group_id":"g","user_ids":["dave"]}"#;
    assert_eq!(say(&server, "alice", "/im.group/add", dave).await, "200 {}");
    assert_eq!(say(&server, "dave", "/im.group/leave", group).await, "200 {}");
    assert_eq!(say(&server, "alice", "/im.group/kick", &dave.replace("dave", "carol")).await, "200 {}");
    let members = say(&server, "alice", "/im.group/members", group).await;
    assert!(members.starts_with(r#"200 {"members":[{"user_id":"alice","duty":2,"joined":"#), "{members}");
    assert!(members.contains(r#"{"user_id":"bob","duty":0,"#) && !members.contains("carol"), "{members}");
    assert!(members.ends_with(r#"}],"cursor":""}"#), "{members}");
    server.drained().await;
}

#[tokio::test]
async fn a_reply_is_protobuf_for_whoever_accepts_it() {
    let server = Server::start(options()).await;
    let body = r#"{"target":"bob","target_type":"user","msg":"m"}"#;
    let framing =
        format!("Connection: close\r\nAccept: application/x-protobuf\r\nContent-Length: {}", body.len());
    let mut client = server.connect().await;
    client.send(&(server.head("/im.chat/send", &framing) + body)).await;
    let mut answer = Vec::new();
    within(client.0.read_to_end(&mut answer)).await.expect("an answer");
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    assert!(String::from_utf8_lossy(&answer[..body]).contains("content-type: application/x-protobuf\r\n"));
    let reply: super::proto::SendResp = prost::Message::decode(&answer[body..]).expect("protobuf");
    assert_eq!((reply.msg_index, reply.duplicate), (1, false));
    assert_eq!(u64::from(reply.timestamp), reply.timestamp_ns / 1_000_000_000);
    server.drained().await;
}

#[tokio::test]
async fn a_pull_that_waits_is_answered_by_a_send_or_by_the_drain() {
    let server = Server::start(options()).await;
    let pull = |start| {
        let body = format!(
            r#"{{"target":"bob","target_type":"user","direction":"after","start_msg_index":{start},"count":1,"wait_ms":30000}}"#
        );
        server.request("/im.chat/pull", &body)
    };
    let (mut waiting, mut stuck) = (server.connect().await, server.connect().await);
    waiting.send(&pull(1)).await;
    stuck.send(&pull(2)).await;
    say(&server, "bob", "/im.chat/send", r#"{"target":"alice","target_type":"user","msg":"at last"}"#).await;
    assert!(waiting.answer().await.contains("at last"));
    server.draining.send(true).expect("a running server");
    let answer = stuck.rest().await;
    assert!(answer.contains(r#"{"msgs":[],"recalls":{},"max_msg_index":1,"#), "{answer}");
    server.drained().await;
}

struct Ops {
    server: Server,
    readiness: Arc<AtomicU8>,
}

const STATES: [Readiness; 4] =
    [Readiness::Ready, Readiness::Draining, Readiness::ReadOnly, Readiness::LogFailed];

impl Ops {
    async fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let metrics = Arc::new(Metrics::new(SyncMode::Always));
        let readiness = Arc::new(AtomicU8::new(0));
        let state = readiness.clone();
        let probe: ReadinessProbe = Arc::new(move || STATES[usize::from(state.load(Ordering::Relaxed))]);
        let (draining, stopping) = watch::channel(false);
        let directory = tempfile::tempdir().expect("a directory");
        let key = LocalKey::open_or_create(directory.path()).expect("a key");
        let admin = admin_that_tells(&key);
        let task = ops::serve(listener, metrics.clone(), probe, admin, options, stopping);
        let server = Server { address, key, token: String::new(), metrics, draining, task, _under_it: None };
        Self { server, readiness }
    }

    /// Gives an order with a token, an admin's or not.
    async fn order(&self, path: &str, admin: bool, body: &str) -> String {
        let caller = Caller { user: UserId::parse("olga").expect("a valid id"), admin };
        let token = self.server.key.sign(&caller, now_s(), PATIENCE);
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nToken: {token}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        self.server.exchange(&request).await
    }

    async fn get(&self, line: &str) -> String {
        self.server.exchange(&format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }
}

/// Says what was ordered in place of doing it.
fn admin_that_tells(key: &LocalKey) -> Admin {
    let verifier = Arc::new(Verifier::new(key, &PublicKeys::default()).expect("a verifier"));
    let orders = Orders {
        snapshot: Box::new(|compact| if compact { Err("an inner thing".into()) } else { Ok(()) }),
        backup: Box::new(|to| match to.ends_with("taken") {
            true => Err(Rejection::Invalid("is not empty".into())),
            false => Ok(BackedUp { files: 4, linked: 3, bytes: 2, last_lsn: 1 }),
        }),
    };
    Admin::new(verifier, orders)
}

#[tokio::test]
async fn orders_need_an_admin_token_and_a_lawful_body() {
    let ops = Ops::start(options()).await;
    let backup = "/im.admin/backup";
    for (path, admin, body, expected) in [
        (backup, true, r#"{"to":"/b"}"#, "200"),
        (backup, true, r#"{"to":"/taken"}"#, "400"),
        (backup, false, r#"{"to":"/b"}"#, "403"),
        (backup, true, r#"{"to":"b"}"#, "400"),
        (backup, true, r#"{"to":"/b","x":1}"#, "400"),
        (backup, true, "", "400"),
        (backup, true, "[", "400"),
        ("/im.admin/snapshot", true, "", "200"),
        ("/im.admin/snapshot", true, r#"{"compact":false}"#, "200"),
        ("/im.admin/snapshot", true, r#"{"compact":true}"#, "500"),
        ("/im.admin/nothing", true, "{}", "404"),
    ] {
        let reply = ops.order(path, admin, body).await;
        assert_eq!(status(&reply), expected, "{path} {body}: {reply}");
        assert!(!reply.contains("an inner thing"), "{reply}");
    }
    let reply = ops.order(backup, true, r#"{"to":"/b"}"#).await;
    assert!(reply.ends_with(r#"{"files":4,"linked":3,"bytes":2,"last_lsn":1}"#), "{reply}");
    assert_eq!(status(&ops.get("POST /im.admin/backup").await), "401");
    let huge = ops.order(backup, true, &"x".repeat(40_000)).await;
    assert!(status(&huge) == "413" && closes(&huge), "{huge}");
    ops.server.drained().await;
}

#[tokio::test]
async fn the_operations_address_tells_how_the_node_is() {
    let ops = Ops::start(options()).await;
    assert_eq!(status(&ops.get("GET /healthz").await), "200");
    for (state, expected) in [(0, "200"), (1, "503"), (2, "503"), (3, "503")] {
        ops.readiness.store(state, Ordering::Relaxed);
        assert_eq!(status(&ops.get("GET /readyz").await), expected, "{:?}", STATES[usize::from(state)]);
    }
    let metrics = ops.get("GET /metrics").await;
    assert!(metrics.contains("chinwag_sync_mode{mode=\"always\"} 1"), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(ops.get("HEAD /healthz").await.ends_with("\r\n\r\n"));
    assert_eq!(status(&ops.get("GET /nothing").await), "404");
    let refused = ops.get("POST /healthz").await;
    assert!(status(&refused) == "405" && refused.contains("\r\nallow: GET, HEAD\r\n"), "{refused}");
    let body = "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n";
    assert!(closes(&ops.server.exchange(body).await));
    ops.server.drained().await;
}

/// Asks for more and more until the server takes nothing, because it can send nothing, or has closed.
async fn ask_without_reading(client: &TcpStream) {
    let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let (mut rest, mut turns_in_vain) = (requests.as_bytes(), 0);
    // The server has the same thread: after so many turns without room it does nothing any more.
    while turns_in_vain < 10_000 {
        match client.try_write(rest) {
            Ok(written) => (rest, turns_in_vain) = (&rest[written..], 0),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => turns_in_vain += 1,
            Err(_closed) => return,
        }
        if rest.is_empty() {
            rest = requests.as_bytes();
        }
        tokio::task::yield_now().await;
    }
}

/// Starts a drain while a client asks for much and reads nothing, and says whether it ends in time.
async fn drain_ends_beside_a_client_that_never_reads(write_timeout: Duration, wait: Duration) -> bool {
    let ops = Ops::start(Options { write_timeout, ..options() }).await;
    let client = ops.server.connect().await;
    ask_without_reading(&client.0).await;
    ops.server.draining.send(true).expect("a running server");
    let has_ended = tokio::time::timeout(wait, ops.server.task).await.is_ok();
    drop(client);
    has_ended
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed() {
    assert!(drain_ends_beside_a_client_that_never_reads(SHORT, PATIENCE).await);
    // Control: without the time-out it would have held up the drain.
    assert!(!drain_ends_beside_a_client_that_never_reads(PATIENCE, SHORT * 3).await);
}
