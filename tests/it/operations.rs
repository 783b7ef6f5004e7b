//! The ops address: alive, ready, and what is counted.

use serde_json::json;

use crate::support::{TestServer, eventually, request, shared_server};

#[test]
fn a_server_that_serves_is_alive_and_ready() {
    let server = shared_server();
    assert_eq!(server.ops("GET", "/healthz").status, 200);
    assert_eq!(server.ops("GET", "/readyz").status, 200);
}

#[test]
fn the_public_address_does_not_serve_operations_nor_the_other_way_round() {
    let server = shared_server();
    for path in ["/healthz", "/readyz", "/metrics"] {
        server.exchange(request("GET", path, &[], b"")).assert_error(404, 10001);
    }
    for path in ["/im.chat/send", "/im.group/create", "/nothing"] {
        assert_eq!(server.ops("POST", path).status, 404, "{path}");
    }
    assert_eq!(server.ops("POST", "/metrics").status, 405);
}

#[test]
fn while_draining_it_is_alive_and_not_ready() {
    let mut server = TestServer::start_with(&["--drain-timeout", "60s", "--body-timeout", "60s"]);
    let alice = server.client("alice");
    let body = alice.with("bob").body(&json!({"msg": "m"})).to_string();
    let bytes = alice.request("/im.chat/send", &[("Expect", "100-continue")], body.as_bytes());
    let mut hanging = server.connect();
    hanging.write(&bytes[..bytes.len() - 1]).expect("the server reads");
    hanging.read_continue().expect("the server waits for the body");
    server.signal(rustix::process::Signal::TERM);
    server.wait_until_draining();
    assert_eq!(server.ops("GET", "/healthz").status, 200);
    assert!(server.ops("GET", "/metrics").status == 200);
    hanging.write(&bytes[bytes.len() - 1..]).expect("the server reads");
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn metrics_are_in_the_format_prometheus_reads() {
    let server = TestServer::start();
    server.client("alice").with("bob").send("m");
    let metrics = server.ops("GET", "/metrics");
    assert_eq!(metrics.status, 200);
    let kind = metrics.header("content-type").expect("a content type");
    let known =
        kind.starts_with("text/plain; version=0.0.4") || kind.starts_with("application/openmetrics-text");
    assert!(known, "{kind}");
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
        assert!(series.starts_with("chinwag_") || series.starts_with("process_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn counters_move_with_what_happens() {
    let server = TestServer::start();
    let metric = |series: &str| server.metric(series).unwrap_or_default();
    let sends = "chinwag_requests_total{verb=\"send\",code=\"0\"}";
    assert_eq!(metric("chinwag_messages_total"), 0.0);
    assert_eq!(metric(sends), 0.0);
    let alice = server.client("alice");
    for _ in 0..3 {
        alice.with("bob").send("m");
    }
    alice.with("carol").send("m");
    alice.with("carol").call("send", &json!({"msg": ""})).assert_error(400, 10001);
    assert_eq!(metric("chinwag_messages_total"), 4.0);
    // Counted by looking from time to time, not with every send.
    eventually("two conversations", || (metric("chinwag_conversations") == 2.0).then_some(()));
    let text = server.ops("GET", "/metrics").text().to_owned();
    let of_send = |code: &str| {
        let line = text.lines().find(|line| {
            line.starts_with("chinwag_requests_total{") && line.contains("\"send\"") && line.contains(code)
        });
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
    };
    assert_eq!(of_send("\"10001\""), Some(1.0), "{text}");
    assert!(text.contains("chinwag_request_seconds_bucket"), "{text}");
    assert!(text.contains("chinwag_sync_seconds"), "{text}");
}

#[test]
fn the_sync_mode_is_in_the_metrics_and_in_the_log() {
    for mode in ["always", "interval", "never"] {
        let server = TestServer::start_with(&["--sync", mode]);
        for other in ["always", "interval", "never"] {
            let series = format!("chinwag_sync_mode{{mode=\"{other}\"}}");
            assert_eq!(server.metric(&series).unwrap_or_default(), f64::from(mode == other), "{series}");
        }
        assert!(server.stderr().contains(mode), "{}", server.stderr());
    }
}
