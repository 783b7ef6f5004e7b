//! The operations address: health, metrics, orders, figures, and a client that reads nothing of it.

use std::sync::atomic::{AtomicU8, Ordering};

use super::super::admin::{Admin, BackedUp, Means, Orders, Stats};
use super::super::exchange::now_s;
use super::*;
use crate::conversation::Started;
use crate::message::Rejection;

struct Ops {
    server: Server,
    readiness: Arc<AtomicU8>,
}

const STATES: [Readiness; 4] =
    [Readiness::Ready, Readiness::Draining, Readiness::ReadOnly, Readiness::LogFailed];

impl Ops {
    async fn start(options: Options) -> Self {
        Self::start_with(options, |_| ()).await
    }

    /// With other orders than those that only tell.
    async fn start_with(options: Options, change: impl FnOnce(&mut Orders)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let metrics = Arc::new(Metrics::new(SyncMode::Always));
        let readiness = Arc::new(AtomicU8::new(0));
        let state = readiness.clone();
        let probe: ReadinessProbe = Arc::new(move || STATES[usize::from(state.load(Ordering::Relaxed))]);
        let (draining, stopping) = watch::channel(false);
        let directory = tempfile::tempdir().expect("a directory");
        let key = LocalKey::open_or_create(directory.path()).expect("a key");
        let started = conversations(&directory.path().join("data"), &metrics, stopping.clone());
        let key_of_admin = LocalKey::open(directory.path()).expect("the same key");
        let admin = admin_that_tells(key_of_admin, &started, change);
        let task = ops::serve(listener, metrics.clone(), probe, admin, options, stopping);
        let _under_it = Some((started, directory));
        let server = Server { address, key, token: String::new(), metrics, draining, task, _under_it };
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
fn admin_that_tells(key: LocalKey, under_it: &Started, change: impl FnOnce(&mut Orders)) -> Admin {
    let verifier = Arc::new(Verifier::new(&key, &PublicKeys::default()).expect("a verifier"));
    let mut orders = Orders {
        snapshot: Box::new(|compact| if compact { Err("an inner thing".into()) } else { Ok(()) }),
        backup: Box::new(|to| match to.ends_with("taken") {
            true => Err(Rejection::Invalid("is not empty".into())),
            false => Ok(BackedUp { files: 4, linked: 3, bytes: 2, last_lsn: 1 }),
        }),
        stats: Box::new(|| Stats { version: "7.8.9", ..Stats::default() }),
    };
    change(&mut orders);
    let (node, draining) = watch::channel(false);
    let drain = Box::new(move || {
        node.send_replace(true);
    });
    let (key, conversations, feed) = (Arc::new(key), under_it.conversations.clone(), under_it.feed());
    Admin::new(verifier, orders, Means { key, conversations, feed, drain, draining })
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
        ("/im.admin/stats", true, "", "200"),
        ("/im.admin/stats", true, r#"{"x":1}"#, "400"),
        ("/im.admin/stats", false, "{}", "403"),
        ("/im.admin/feed", true, "", "200"),
        ("/im.admin/feed", false, "", "403"),
        ("/im.admin/feed", true, r#"{"count":1001}"#, "400"),
        ("/im.admin/feed", true, r#"{"offset":2}"#, "416"),
        ("/im.admin/feed", true, r#"{"epoch":9}"#, "409"),
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
async fn a_drain_is_ordered_once_and_answered_whenever_it_is() {
    let ops = Ops::start(options()).await;
    let members = r#"{"group_id":"none"}"#;
    assert_eq!(status(&ops.order("/im.admin/members", true, members).await), "404");
    assert_eq!(status(&ops.order("/im.admin/drain", true, "[1]").await), "400");
    assert_eq!(status(&ops.order("/im.admin/members", true, members).await), "404", "nothing was ordered");
    for _ in 0..2 {
        let reply = ops.order("/im.admin/drain", true, "").await;
        assert!(status(&reply) == "200" && reply.ends_with("{}"), "{reply}");
    }
    // A token is good beyond this server's life, and nothing is stored for it.
    for (path, body, expected) in
        [("/im.admin/members", members, "503"), ("/im.admin/token", r#"{"user":"a"}"#, "200")]
    {
        assert_eq!(status(&ops.order(path, true, body).await), expected, "{path}");
    }
    ops.server.drained().await;
}

#[tokio::test]
async fn figures_are_told_while_an_order_is_carried_out() {
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let ops = Ops::start_with(options(), |orders| {
        orders.snapshot = Box::new(move |_| {
            begun.send(()).expect("the test waits");
            may_go_on.lock().expect("not poisoned").recv().map_err(|why| why.to_string())
        });
    });
    let ops = ops.await;
    let ordered = async {
        let reply = ops.order("/im.admin/snapshot", true, "").await;
        assert_eq!(status(&reply), "200");
    };
    let looked = async {
        has_begun.recv().await.expect("the order runs");
        assert_eq!(status(&ops.order("/im.admin/snapshot", true, "").await), "503");
        let stats = ops.order("/im.admin/stats", true, "{}").await;
        assert!(status(&stats) == "200" && stats.contains(r#"{"version":"7.8.9","#), "{stats}");
        go_on.send(()).expect("the order waits");
    };
    tokio::join!(ordered, looked);
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
