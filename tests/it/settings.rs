//! Settings: each one by flag, by environment and by file; which of them wins; what a bad one says.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::{Arrangement, Finished, Process, TestServer, chinwag, key_path};

/// Every setting with a value that works and one that cannot.
fn settings() -> Vec<(&'static str, String, &'static str)> {
    let key = key_path("ed25519.public.pem").to_str().expect("UTF-8").to_owned();
    let set = key_path("jwks.json").to_str().expect("UTF-8").to_owned();
    let plain = [
        ("listen", "127.0.0.1:0", "nowhere"),
        ("ops", "127.0.0.1:0", "8001"),
        ("body-limit", "2048", "-1"),
        ("sync", "interval", "sometimes"),
        ("sync-interval", "20ms", "soon"),
        ("header-timeout", "5s", "0s"),
        ("body-timeout", "5s", "-1s"),
        ("write-timeout", "5s", "never"),
        ("connections", "100", "0"),
        ("workers", "2", "0"),
        ("rate", "1000", "fast"),
        ("recall-window", "1h", "1"),
        ("drain-timeout", "5s", "x"),
        ("checkpoint-interval", "2s", "0"),
        ("checkpoint-bytes", "2MiB", "2MB"),
        ("scrub-interval", "1h", "0s"),
        ("scrub-rate", "1MiB", "1"),
    ];
    let mut all: Vec<_> = plain.into_iter().map(|(key, good, bad)| (key, good.to_owned(), bad)).collect();
    all.push(("verify-key", key, "/nowhere/at/all.pem"));
    all.push(("jwks", set, "/nowhere/at/all.json"));
    all
}

fn variable(key: &str) -> String {
    format!("CHINWAG_{}", key.replace('-', "_").to_uppercase())
}

fn directory() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a temporary directory"))
}

/// `chinwag serve` in a directory of its own, on ports the system picks.
fn serve_in(directory: &Path) -> Command {
    let mut command = chinwag(&["serve"]);
    command.current_dir(directory);
    command.env("CHINWAG_LISTEN", "127.0.0.1:0").env("CHINWAG_OPS", "127.0.0.1:0");
    command
}

fn ready(directory: &Arc<TempDir>, command: Command, data: &str) -> TestServer {
    let process = Process::start(command, &directory.path().join("stderr"));
    TestServer::of(process, directory.clone(), directory.path().join(data), Arrangement::default())
}

/// That the settings above are in force, as far as they can be seen.
fn assert_in_force(server: &TestServer) {
    assert_eq!(server.metric("chinwag_sync_mode{mode=\"interval\"}"), Some(1.0));
    let client = server.client("alice");
    let body = vec![b' '; 2049];
    client.post("/im.chat/send", &[], &body).expect("a reply").assert_error(413, 10001);
    client.with("bob").send("hello");
}

#[test]
fn every_setting_works_as_a_flag() {
    let directory = directory();
    let mut command = chinwag(&["serve", "--data", "by-flag"]);
    command.current_dir(directory.path());
    for (key, good, _) in settings() {
        command.arg(format!("--{key}")).arg(good);
    }
    assert_in_force(&ready(&directory, command, "by-flag"));
}

#[test]
fn every_setting_works_from_the_environment() {
    let directory = directory();
    let mut command = chinwag(&["serve"]);
    command.current_dir(directory.path()).env("CHINWAG_DATA", "by-environment");
    for (key, good, _) in settings() {
        command.env(variable(key), good);
    }
    assert_in_force(&ready(&directory, command, "by-environment"));
}

#[test]
fn every_setting_works_from_the_file() {
    let directory = directory();
    let mut file = "data = \"by-file\"\n".to_owned();
    for (key, good, _) in settings() {
        file.push_str(&format!("{key} = {good:?}\n"));
    }
    std::fs::write(directory.path().join("chinwag.toml"), file).expect("a file");
    let mut command = chinwag(&["serve"]);
    command.current_dir(directory.path());
    assert_in_force(&ready(&directory, command, "by-file"));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let directory = directory();
    std::fs::write(directory.path().join("chinwag.toml"), "data = \"file\"\n").expect("a file");
    let by_file = ready(&directory, serve_in(directory.path()), "file");
    assert_eq!(by_file.ready().data, "file");

    let mut command = serve_in(directory.path());
    command.env("CHINWAG_DATA", "environment");
    let by_environment = ready(&directory, command, "environment");
    assert_eq!(by_environment.ready().data, "environment");

    let mut command = serve_in(directory.path());
    command.env("CHINWAG_DATA", "environment").args(["--data", "flag"]);
    assert_eq!(ready(&directory, command, "flag").ready().data, "flag");
}

#[test]
fn numbers_in_the_file_need_no_quotes() {
    let directory = directory();
    std::fs::write(directory.path().join("chinwag.toml"), "body-limit = 1024\n").expect("a file");
    let server = ready(&directory, serve_in(directory.path()), "snapshots");
    let reply = server.client("alice").post("/im.chat/send", &[], &[b' '; 1025]);
    reply.expect("a reply").assert_error(413, 10001);
}

#[test]
fn another_file_can_be_named_and_has_to_be_there() {
    let directory = directory();
    std::fs::write(directory.path().join("other.toml"), "data = \"other\"\n").expect("a file");
    let mut command = serve_in(directory.path());
    command.args(["--config", "other.toml"]);
    assert_eq!(ready(&directory, command, "other").ready().data, "other");
    let mut command = serve_in(directory.path());
    command.env("CHINWAG_CONFIG", "absent.toml");
    Process::run(command).assert_refused_in_one_line(2, &["absent.toml"]);
}

#[test]
fn a_bad_flag_is_2_with_one_line_that_names_it() {
    let directory = directory();
    for (key, _, bad) in settings() {
        let mut command = serve_in(directory.path());
        // With "=", or a value like -1s would be taken for a flag.
        command.arg(format!("--{key}={bad}"));
        assert_refused(&Process::run(command), key, &format!("--{key}"));
    }
    let mut command = serve_in(directory.path());
    command.args(["--no-such-flag", "1"]);
    Process::run(command).assert_refused_in_one_line(2, &["--no-such-flag"]);
    let mut command = serve_in(directory.path());
    command.args(["--data"]);
    Process::run(command).assert_refused_in_one_line(2, &["--data"]);
}

#[test]
fn a_bad_variable_is_2_with_one_line_that_names_it() {
    let directory = directory();
    for (key, _, bad) in settings() {
        let mut command = serve_in(directory.path());
        command.env(variable(key), bad);
        assert_refused(&Process::run(command), key, &variable(key));
    }
}

#[test]
fn a_bad_key_of_the_file_is_2_with_one_line_that_names_it() {
    let directory = directory();
    for (key, _, bad) in settings() {
        std::fs::write(directory.path().join("chinwag.toml"), format!("{key} = {bad:?}\n")).expect("a file");
        let mut command = chinwag(&["serve"]);
        command.current_dir(directory.path());
        assert_refused(&Process::run(command), key, key);
    }
    for (text, named) in [
        ("no-such-key = 1\n", "no-such-key"),
        ("data = \"a\"\ndata = \"b\"\n", "line 2"),
        ("sync = [\n", "line"),
    ] {
        std::fs::write(directory.path().join("chinwag.toml"), text).expect("a file");
        let finished = Process::run(serve_in(directory.path()));
        finished.assert_refused_in_one_line(2, &["chinwag.toml", named]);
    }
}

/// A key file that cannot be read is found out later than the others and may be named by its path.
#[track_caller]
fn assert_refused(finished: &Finished, key: &str, named: &str) {
    let by_path = matches!(key, "verify-key" | "jwks");
    assert_eq!(finished.code(), Some(2), "{named}: {finished:?}");
    assert_eq!(finished.stdout, Vec::<String>::new(), "{named}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(if by_path { "/nowhere/at/all" } else { named }), "{named} in {finished:?}");
    assert!(by_path || finished.stderr.lines().count() == 1, "one line for {named}: {finished:?}");
}

#[test]
fn without_a_command_or_with_an_unknown_one_usage_is_2() {
    assert_eq!(Process::run(chinwag(&[])).code(), Some(2));
    let finished = Process::run(chinwag(&["dance"]));
    finished.assert_refused_in_one_line(2, &["dance"]);
}
