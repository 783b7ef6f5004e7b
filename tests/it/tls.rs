//! HTTPS on the public address: the same API over TLS, and what becomes of who does not speak it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned, version,
};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use crate::support::h2::{Http2, PREFACE, block_on};
use crate::support::{Arrangement, Client, DEADLINE, LATEST, Process, TestServer, eventually};

/// What clients know the server as.
const NAME: &str = "chat.example.com";

/// A certificate with its key, in files.
struct Certificate {
    directory: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { der: Self::write(directory.path()), directory }
    }

    fn write(directory: &Path) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
        std::fs::write(directory.join("cert.pem"), made.cert.pem()).expect("a file");
        std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        made.cert.der().clone()
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn server(&self, flags: &[&str]) -> TestServer {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        TestServer::start_with(&[&["--tls-cert", &cert, "--tls-key", &key], flags].concat())
    }

    fn client(
        &self,
        protocols: &[&str],
        versions: &[&'static tokio_rustls::rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_protocol_versions(versions).expect("versions");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

const BOTH: [&tokio_rustls::rustls::SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

type Secret = StreamOwned<ClientConnection, TcpStream>;

fn connect(server: &TestServer, config: Arc<ClientConfig>) -> std::io::Result<Secret> {
    let tcp = TcpStream::connect(server.ready().http)?;
    tcp.set_read_timeout(Some(DEADLINE))?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(NAME).expect("a name");
    let mut stream = StreamOwned::new(ClientConnection::new(config, name).expect("a client"), tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn send(client: &Client, text: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let body = json!({"target": "bob", "target_type": "user", "msg": text}).to_string();
    client.request("/im.chat/send", headers, body.as_bytes())
}

#[test]
fn both_versions_of_tls_carry_http_and_keep_the_connection() {
    let certificate = Certificate::new();
    let server = certificate.server(&[]);
    let alice = server.client("alice");
    for (version, name) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        // Without a word about protocols it is HTTP/1.1.
        let mut stream = connect(&server, certificate.client(&[], &[version])).expect("a connection");
        assert_eq!(stream.conn.protocol_version(), Some(name));
        for _ in 0..2 {
            stream.write_all(&send(&alice, "hello", &[])).expect("the server reads");
            let mut begin = [0; 15];
            stream.read_exact(&mut begin).expect("an answer");
            assert_eq!(&begin, b"HTTP/1.1 200 OK");
            // The rest of it has come too: an answer is one write.
            let _ = stream.read(&mut [0; 4096]).expect("the rest");
        }
        stream.write_all(&send(&alice, "bye", &[("Connection", "close")])).expect("the server reads");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("a clean end");
        assert!(rest.starts_with(b"HTTP/1.1 200 OK"));
    }
    eventually("none is counted", || (server.metric("chinwag_connections ")? == 0.0).then_some(()));
}

#[test]
fn http2_is_spoken_where_it_is_offered() {
    let certificate = Certificate::new();
    let server = certificate.server(&[]);
    let alice = server.client("alice");
    block_on(async {
        let tcp = tokio::net::TcpStream::connect(server.ready().http).await.expect("a connection");
        let connector = tokio_rustls::TlsConnector::from(certificate.client(&["http/1.1", "h2"], &BOTH));
        let stream = connector.connect(ServerName::try_from(NAME).expect("a name"), tcp).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let connection: Http2<Full<Bytes>> = Http2::over(stream, &server).await;
        let bodies: Vec<Value> = (0..20)
            .map(|number| json!({"target": format!("bob {number}"), "target_type": "user", "msg": "x".repeat(50_000)}))
            .collect();
        let calls = bodies.iter().map(|body| connection.call(&alice, "/im.chat/send", body));
        for (status, reply) in futures_util::future::join_all(calls).await {
            assert_eq!(status, 200, "{reply}");
        }
    });
}

/// RFC 9113, 3.3: over TLS only ALPN makes it HTTP/2. What comes is HTTP/1.1 then, in which this is no request.
#[test]
fn http2_that_was_not_offered_is_not_spoken() {
    let certificate = Certificate::new();
    let server = certificate.server(&[]);
    for protocols in [&[][..], &["http/1.1"]] {
        let mut stream = connect(&server, certificate.client(protocols, &BOTH)).expect("a connection");
        stream.write_all(PREFACE).expect("the server reads");
        let mut answer = Vec::new();
        let ended =
            stream.read_to_end(&mut answer).map_or_else(|why| why.kind(), |_| ErrorKind::UnexpectedEof);
        assert_eq!((ended, &*String::from_utf8_lossy(&answer)), (ErrorKind::UnexpectedEof, ""));
    }
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused_in_the_handshake() {
    let certificate = Certificate::new();
    let server = certificate.server(&[]);
    let error = connect(&server, certificate.client(&["spdy/3"], &BOTH)).expect_err("no connection");
    assert!(error.to_string().to_lowercase().contains("applicationprotocol"), "{error}");
}

/// The next text of a WebSocket.
fn text(socket: &mut WebSocket<Secret>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().expect("a frame") {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

#[test]
fn a_websocket_and_events_work_over_tls() {
    let certificate = Certificate::new();
    let server = certificate.server(&[]);
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    let config = certificate.client(&["http/1.1"], &BOTH);
    let mut request = format!("wss://{NAME}/im.chat/stream").into_client_request().expect("a request");
    request.headers_mut().insert("token", alice.token().parse().expect("a header value"));
    let (mut socket, _) =
        tungstenite::client(request, connect(&server, config.clone()).expect("a connection"))
            .expect("a WebSocket");
    assert_eq!(text(&mut socket)["type"], "hello");
    let mut events = connect(&server, config).expect("a connection");
    let head = bob.request("/im.chat/stream", &[("Accept", "text/event-stream")], b"");
    let head = String::from_utf8(head).expect("UTF-8").replacen("POST", "GET", 1);
    events.write_all(head.as_bytes()).expect("the server reads");
    let mut received = String::new();
    let mut wait_for = |what: &str| {
        while !received.contains(what) {
            let mut bytes = [0; 4096];
            let read = events.read(&mut bytes).expect("events");
            assert!(read > 0, "{what} in {received}");
            received.push_str(std::str::from_utf8(&bytes[..read]).expect("UTF-8"));
        }
    };
    wait_for("\"hello\"");
    for (id, length) in [(1, 10), (2, 60_000), (3, 60_000), (4, 10)] {
        let params = json!({"target": "bob", "target_type": "user", "msg": "x".repeat(length)});
        let call = json!({"id": id, "method": "send", "params": params}).to_string();
        socket.send(Message::text(call)).expect("the server reads");
        let frames = [text(&mut socket), text(&mut socket)];
        assert!(frames.iter().any(|frame| frame["result"]["msg_index"] == json!(id)), "{id}");
        assert!(frames.iter().any(|frame| frame["content"]["msg_index"] == json!(id)), "{id}");
        wait_for(&format!("\"msg_index\":{id},"));
    }
    server.signal(Signal::TERM);
    loop {
        match socket.read() {
            Ok(Message::Close(close)) => break assert_eq!(u16::from(close.expect("a reason").code), 1012),
            Ok(_) => {}
            Err(why) => panic!("no close frame: {why}"),
        }
    }
}

/// More than the sockets hold is answered before anything of it is read.
#[test]
fn a_client_that_reads_late_gets_everything_over_tls() {
    const CALLS: usize = 150;
    let certificate = Certificate::new();
    let server = certificate.server(&["--sync", "never"]);
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    let mut request = format!("wss://{NAME}/im.chat/stream").into_client_request().expect("a request");
    request.headers_mut().insert("token", alice.token().parse().expect("a header value"));
    let stream = connect(&server, certificate.client(&["http/1.1"], &BOTH)).expect("a connection");
    let (mut socket, _) = tungstenite::client(request, stream).expect("a WebSocket");
    let mut sending = connect(&server, certificate.client(&[], &BOTH)).expect("a connection");
    for _ in 0..2 {
        let body = json!({"target": "alice", "target_type": "user", "msg": "x".repeat(60_000)}).to_string();
        sending.write_all(&bob.request("/im.chat/send", &[], body.as_bytes())).expect("the server reads");
        let _ = sending.read(&mut [0; 4096]).expect("an answer");
    }
    for id in 1..=CALLS {
        let params = json!({"target": "bob", "target_type": "user", "direction": "after", "start_msg_index": 1, "count": 2});
        let call = json!({"id": id, "method": "pull", "params": params}).to_string();
        socket.send(Message::text(call)).expect("the server reads");
    }
    for _ in 0..CALLS {
        while text(&mut socket)["result"]["max_msg_index"] != json!(2) {}
    }
}

#[test]
fn plain_http_is_told_to_speak_tls() {
    let certificate = Certificate::new();
    let server = certificate.server(&[]);
    let large = format!(
        "POST /im.chat/send HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n{}",
        "x".repeat(50_000)
    );
    for request in
        ["GET /im.chat/stream HTTP/1.1\r\nHost: x\r\n\r\n", &*large, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut connection = server.connect();
        connection.write(request).expect("the server reads");
        let reply = connection.read_reply().expect("an answer");
        reply.assert_error(400, 10001);
        assert!(reply.text().contains("https://"), "{reply:?}");
        assert_eq!(connection.read_to_close().expect("the connection ends"), b"");
    }
    assert_eq!(server.ops("GET", "/healthz").status, 200, "the operations address is plain HTTP");
}

#[test]
fn a_handshake_that_is_not_finished_ends_in_time_and_holds_up_nobody() {
    let certificate = Certificate::new();
    let server = certificate.server(&["--header-timeout", "500ms", "--connections", "2"]);
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let started = Instant::now();
    let mut hanging = server.connect();
    hanging.write(hello).expect("the server reads");
    drop(connect(&server, certificate.client(&[], &BOTH)).expect("beside it there is room"));
    hanging.read_to_close().expect("the connection ends");
    assert!(
        started.elapsed() >= Duration::from_millis(490) && started.elapsed() < LATEST,
        "{:?}",
        started.elapsed()
    );
    let mut nonsense = server.connect();
    nonsense.write([22, 3, 1, 0, 4, 99, 0, 0, 0]).expect("the server reads");
    let alert = nonsense.read_to_close().expect("the connection ends");
    assert_eq!(alert.first(), Some(&21), "an alert says so: {alert:?}");
    eventually("none is counted", || (server.metric("chinwag_connections ")? == 0.0).then_some(()));
}

#[test]
fn a_handshake_does_not_hold_up_the_end() {
    let certificate = Certificate::new();
    let mut server = certificate.server(&["--header-timeout", "60s", "--drain-timeout", "60s"]);
    let mut hanging = server.connect();
    hanging.write([22, 3, 1]).expect("the server reads");
    eventually("it is there", || (server.metric("chinwag_connections ")? == 1.0).then_some(()));
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < LATEST, "{:?}", started.elapsed());
    hanging.read_to_close().expect("the connection ends");
}

#[test]
fn a_renewed_certificate_is_shown_after_a_hangup_and_a_broken_one_is_not() {
    let mut certificate = Certificate::new();
    let server = certificate.server(&[]);
    let mut before = connect(&server, certificate.client(&[], &BOTH)).expect("a connection");
    std::fs::write(certificate.path("key.pem"), "no key").expect("a file");
    server.signal(Signal::HUP);
    eventually("the log says so", || server.stderr().contains("--tls-key").then_some(()));
    connect(&server, certificate.client(&[], &BOTH)).expect("the old one is shown");
    certificate.der = Certificate::write(certificate.directory.path());
    server.signal(Signal::HUP);
    let renewed = certificate.client(&[], &BOTH);
    eventually("the new one is shown", || connect(&server, renewed.clone()).ok());
    let alice = server.client("alice");
    before.write_all(&send(&alice, "still here", &[])).expect("the server reads");
    let mut begin = [0; 15];
    before.read_exact(&mut begin).expect("an answer");
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
}

#[test]
fn files_that_cannot_be_used_are_2_and_one_line() {
    let (one, two) = (Certificate::new(), Certificate::new());
    let (cert, key, other) = (one.path("cert.pem"), one.path("key.pem"), two.path("key.pem"));
    let missing = one.path("missing.pem");
    let flags: [(&[&str], [&str; 2]); 7] = [
        (&["--tls-cert", &cert], ["--tls-key", "beside"]),
        (&["--tls-key", &key], ["--tls-cert", "beside"]),
        (&["--tls-cert", &missing, "--tls-key", &key], ["--tls-cert", &missing]),
        (&["--tls-cert", &cert, "--tls-key", &missing], ["--tls-key", &missing]),
        (&["--tls-cert", &cert, "--tls-key", &other], ["--tls-key", "is not the key"]),
        (&["--tls-cert", &key, "--tls-key", &key], ["--tls-cert", "CERTIFICATE"]),
        (&["--tls-cert", &cert, "--tls-key", &cert], ["--tls-key", "PRIVATE KEY"]),
    ];
    for (flags, said) in flags {
        let data = one.directory.path().join("data");
        let finished = Process::run(Arrangement::flags(flags).command(&data));
        finished.assert_refused_in_one_line(2, &said);
        assert!(!data.exists(), "nothing was touched for {flags:?}");
    }
    let arrangement = Arrangement {
        environment: vec![("CHINWAG_TLS_CERT".to_owned(), cert), ("CHINWAG_TLS_KEY".to_owned(), key)],
        ..Arrangement::default()
    };
    let server = TestServer::arranged(arrangement);
    connect(&server, one.client(&[], &BOTH)).expect("the environment names them too");
}
