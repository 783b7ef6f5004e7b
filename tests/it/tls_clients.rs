//! Our own clients over HTTPS: the crate's and `chinwag bench`, with servers they may trust and servers they may not.

use std::time::{Duration, Instant};

use chinwag::client::{Begin, Client, Error, Event, EventStream, Positions};
use chinwag::message::{Address, Direction, Pull, UserId};
use serde_json::Value;

use crate::support::{
    Authority, DEADLINE, Finished, Kind, LATEST, Process, TestServer, chinwag, claims_of, shared_server,
};

/// What servers of these tests are reached at.
const HOST: &str = "127.0.0.1";

fn https(server: &TestServer) -> String {
    format!("https://{}", server.ready().http)
}

/// A client of that user which trusts this authority.
fn client_of(server: &TestServer, user: &str, trusted: &Authority) -> Client {
    let token = server.sign(&claims_of(user));
    Client::trusting(&https(server), &token, trusted.pem().as_bytes()).expect("a client")
}

fn to(user: &str) -> Address {
    Address::User(UserId::parse(user).expect("an id"))
}

async fn next(stream: &mut EventStream) -> Event {
    let event = tokio::time::timeout(DEADLINE, stream.next()).await.expect("in time");
    event.expect("the stream goes on").expect("an event")
}

#[tokio::test]
async fn calls_and_streams_go_over_tls() {
    let authority = Authority::new("ours");
    let server = authority.server(HOST, Kind::Good);
    let (alice, bob) = (client_of(&server, "alice", &authority), client_of(&server, "bob", &authority));
    let mut events = bob.stream(&Positions::default(), Begin::Oldest);
    assert!(matches!(next(&mut events).await, Event::Connected { user } if user == "bob"));
    // From what fits one record of TLS to what needs several.
    for (index, bytes) in (1..).zip([1, 1000, 16_000, 60_000]) {
        let receipt = alice.send(&to("bob"), &"x".repeat(bytes)).await.expect("sent");
        assert_eq!(receipt.msg_index, index);
        let message = loop {
            if let Event::Message { message, .. } = next(&mut events).await {
                break message;
            }
        };
        assert_eq!((message.msg_index, message.msg.len()), (index, bytes));
    }
    let (direction, wait) = (Direction::After, Duration::ZERO);
    let pull = Pull { direction, start_msg_index: 1, start_recall_index: 0, count: 50, wait };
    assert_eq!(bob.pull(&to("alice"), &pull).await.expect("a page").msgs.len(), 4);
    // Calls in turn share a connection: one of each user, and the stream's.
    assert_eq!(server.metric("chinwag_connections "), Some(3.0));
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_told_nothing_and_the_reason_is_said() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (namesake, another_kind) = (Authority::new("ours"), Authority::of_another_kind("ours"));
    for (host, kind, trusted, said) in [
        (HOST, Kind::Good, &other, "no authority that is trusted here vouches"),
        (HOST, Kind::Good, &namesake, "no authority that is trusted here vouches"),
        (HOST, Kind::Good, &another_kind, "no authority that is trusted here vouches"),
        ("chat.example.com", Kind::Good, &ours, "chat.example.com"),
        (HOST, Kind::Expired, &ours, "good until 2020-01-02"),
        (HOST, Kind::Early, &ours, "good from 4000-01-02"),
        (HOST, Kind::Authority, &ours, "CA:TRUE"),
    ] {
        let server = ours.server(host, kind);
        let client = client_of(&server, "alice", trusted);
        let started = Instant::now();
        let refused = client.send(&to("bob"), "a secret").await.expect_err(said);
        let Error::Untrusted(why) = &refused else { panic!("{refused:?}") };
        assert!(why.contains(said) && !why.contains('\n'), "{why}, not {said}");
        assert!(started.elapsed() < LATEST, "it was not tried again: {:?}", started.elapsed());
        let mut events = client.stream(&Positions::default(), Begin::Newest);
        let event = next(&mut events).await;
        let Event::Disconnected { why, .. } = &event else { panic!("{event:?}") };
        assert!(why.contains(said), "{why}, not {said}");
        let metrics = server.ops("GET", "/metrics");
        let asked: f64 = metrics
            .text()
            .lines()
            .filter(|line| line.starts_with("chinwag_requests_total{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        assert_eq!(asked, 0.0, "{}", metrics.text());
    }
}

#[tokio::test]
async fn a_scheme_that_is_not_the_servers_is_said_at_once() {
    let ours = Authority::new("ours");
    let plain = shared_server();
    let refused = client_of(&plain, "alice", &ours).list("", 1).await.expect_err("no TLS");
    assert!(matches!(&refused, Error::Untrusted(why) if why.contains("does not speak TLS")), "{refused}");
    let secret = ours.server(HOST, Kind::Good);
    let url = format!("http://{}", secret.ready().http);
    let client = Client::new(&url, &secret.sign(&claims_of("alice"))).expect("a client");
    let refused = client.list("", 1).await.expect_err("no plain HTTP");
    assert!(refused.to_string().contains("https://"), "{refused}");
}

/// A short run with an environment that says what the system trusts.
fn bench(arguments: &[&str], system: &[(&str, &str)]) -> Finished {
    let few =
        ["bench", "--connections", "4", "--conversations", "10", "--warm-up", "100ms", "--duration", "500ms"];
    let mut command = chinwag(&[&few, arguments].concat());
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").envs(system.iter().copied());
    Process::run(command)
}

#[test]
fn a_bench_goes_over_tls_on_every_transport() {
    let authority = Authority::new("ours");
    let server = authority.server(HOST, Kind::Good);
    let (url, ca) = (https(&server), authority.file());
    let data = server.data().to_str().expect("UTF-8");
    let place = tempfile::tempdir().expect("a temporary directory");
    let json = place.path().join("result.json");
    let json_text = json.to_str().expect("UTF-8");
    for transport in [&["http"][..], &["h2", "--pipeline", "8"], &["ws", "--pipeline", "8"]] {
        let to = ["--url", &*url, "--data", data, "--ca", &ca, "--json", json_text, "--transport"];
        let finished = bench(&[&to, transport].concat(), &[]);
        assert_eq!(finished.code(), Some(0), "{transport:?}: {finished:?}");
        let json: Value = serde_json::from_slice(&std::fs::read(&json).expect("a file")).expect("JSON");
        assert_eq!(json["server"], format!("https://{}", server.ready().http));
        assert_eq!(json["transport"], transport[0]);
        assert!(json["all"]["requests"].as_u64() > Some(0), "{json}");
        assert_eq!(json["all"]["errors"], 0, "{json}");
    }
}

#[test]
fn a_bench_of_its_own_server_goes_over_tls_if_that_does() {
    let authority = Authority::new("ours");
    let (ca, flags) = (authority.file(), authority.flags(HOST, Kind::Good));
    let flags = flags.each_ref().map(String::as_str);
    let finished = bench(&[&["--ca", &*ca, "--"], &flags[..]].concat(), &[]);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stdout[1].contains("HTTPS"), "{finished:?}");
}

#[test]
fn a_bench_trusts_whom_the_system_trusts_and_says_in_one_line_whom_it_does_not() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server = ours.server(HOST, Kind::Good);
    let url = https(&server);
    let data = server.data().to_str().expect("UTF-8");
    let to = ["--url", &*url, "--data", data];
    let trusting = |authority: &Authority| bench(&to, &[("SSL_CERT_FILE", &authority.file())]);
    assert_eq!(trusting(&ours).code(), Some(0));
    trusting(&other).assert_refused_in_one_line(1, &["not trusted", "vouches", "--ca FILE"]);
    let named = bench(&[&to[..], &["--ca", &other.file()]].concat(), &[("SSL_CERT_FILE", &ours.file())]);
    named.assert_refused_in_one_line(1, &["not trusted", "vouches"]);
    let nobody = tempfile::tempdir().expect("a directory");
    let nobody = nobody.path().to_str().expect("UTF-8");
    let none = bench(&to, &[("SSL_CERT_DIR", nobody)]);
    none.assert_refused_in_one_line(1, &["no certificates of authorities", "--ca FILE"]);
    let key = format!("{nobody}/key.pem");
    std::fs::write(&key, "no PEM").expect("a file");
    for (file, said) in [(&*key, "holds no CERTIFICATE"), ("/nowhere.pem", "No such file")] {
        let unusable = bench(&[&to[..], &["--ca", file]].concat(), &[]);
        unusable.assert_refused_in_one_line(2, &["--ca", file, said]);
    }
}

#[test]
fn a_bench_with_the_wrong_scheme_says_which_one_is_right() {
    let authority = Authority::new("ours");
    let (secret, plain) = (authority.server(HOST, Kind::Good), shared_server());
    let asked = |scheme, server: &TestServer, more: &[&str]| {
        let url = format!("{scheme}://{}", server.ready().http);
        let data = server.data().to_str().expect("UTF-8");
        bench(&[&["--url", &*url, "--data", data], more].concat(), &[])
    };
    asked("http", &secret, &[]).assert_refused_in_one_line(1, &["https://"]);
    let ca = authority.file();
    asked("https", &plain, &["--ca", &ca]).assert_refused_in_one_line(1, &["does not speak TLS", "http://"]);
}
