//! The console's files on the operations address: what browsers are told about them, and that nobody else is served.
//!
//! What the page does in a browser is tested in `tests/console`.

use std::sync::Arc;

use crate::support::{Connection, Reply, TestServer, request, shared_server};

/// The page and every file that it or another file names, with its content type.
fn files(server: &Arc<TestServer>) -> Vec<(String, Reply)> {
    let mut found: Vec<(String, Reply)> = Vec::new();
    let mut paths = vec!["/".to_owned()];
    while let Some(path) = paths.pop() {
        if found.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let reply = server.ops("GET", &path);
        assert_eq!(reply.status, 200, "{path}");
        for (before, folder) in [("src=\"", "/"), ("href=\"console", "/console"), ("from \"./", "/console/")]
        {
            let named = reply.text().split(before).skip(1).filter_map(|rest| rest.split('"').next());
            paths.extend(named.map(|name| format!("{folder}{name}")));
        }
        found.push((path, reply));
    }
    found
}

#[test]
fn the_console_comes_from_the_binary_with_all_its_files() {
    let files = files(&shared_server());
    let types = files.iter().map(|(path, reply)| {
        let kind = reply.header("content-type").expect("a content type");
        let expected = match path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(kind, expected, "{path}");
        expected
    });
    let mut types: Vec<_> = types.collect();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), 4, "a page, its scripts, its looks and its icon");
    assert!(files[0].1.text().starts_with("<!doctype html>"));
}

#[test]
fn browsers_are_told_to_load_nothing_else_and_to_show_it_in_no_frame() {
    for (path, reply) in files(&shared_server()) {
        let header = |name: &str| reply.header(name).unwrap_or_else(|| panic!("{path} has no {name}"));
        let policy: Vec<_> = header("content-security-policy").split(';').map(str::trim).collect();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(&rule), "{path} lacks {rule}: {policy:?}");
        }
        assert!(!policy.iter().any(|rule| rule.contains("unsafe") || rule.contains("http")), "{policy:?}");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
    }
}

#[test]
fn a_head_of_a_file_says_what_a_get_says_without_the_file() {
    let server = shared_server();
    let mut connection = Connection::open(server.ready().ops).expect("a connection");
    connection.write(request("HEAD", "/", &[], b"")).expect("the server reads");
    let head = String::from_utf8(connection.read_head().expect("a head")).expect("UTF-8");
    // Had a body come, it would stand before this reply.
    connection.write(request("GET", "/", &[], b"")).expect("the server reads");
    let page = connection.read_reply().expect("the page");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", page.body.len())), "{head}");
    assert!(head.contains("content-security-policy: "), "{head}");
}

#[test]
fn what_is_no_file_of_the_console_is_not_there() {
    let server = shared_server();
    for path in ["/console", "/console/", "/console/nothing.js", "/console/../console/main.js", "/main.js"] {
        server.ops("GET", path).assert_error(404, 10001);
    }
    for path in ["/", "/console/main.js"] {
        let refused = server.ops("POST", path);
        refused.assert_error(405, 10001);
        assert_eq!(refused.header("allow"), Some("GET, HEAD"));
        server.exchange(request("GET", path, &[], b"")).assert_error(404, 10001);
    }
    assert_eq!(server.ops("GET", "/?anything=at+all").status, 200);
}

#[test]
fn a_request_for_it_names_one_host() {
    let server = shared_server();
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let mut connection = Connection::open(server.ready().ops).expect("a connection");
        connection.write(format!("GET / HTTP/1.1\r\n{hosts}\r\n")).expect("the server reads");
        connection.read_reply().expect("a reply").assert_error(400, 10001);
    }
}
