//! The start: the ready line, what works without any flag, and the exit codes of a start that fails.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::support::{Arrangement, Process, TestServer, chinwag};

#[test]
fn the_ready_line_is_as_promised_and_alone_on_standard_output() {
    // Starting checks the shape to the letter.
    let mut server = TestServer::start();
    let data = server.data().to_str().expect("a path in UTF-8").to_owned();
    assert_eq!(server.ready().data, data);
    assert_ne!(server.ready().http.port(), 0);
    assert_ne!(server.ready().ops.port(), 0);
    assert_ne!(server.ready().http, server.ready().ops);
    server.client("alice").with("bob").send("hello");
    server.client("alice").with("bob").call("send", &serde_json::json!({})).assert_error(400, 10001);
    server.signal(rustix::process::Signal::TERM);
    let finished = server.finish();
    assert_eq!(finished.stdout, Vec::<String>::new(), "behind the ready line {:?}", server.ready().line);
    assert!(!finished.stderr.is_empty(), "logs go to standard error");
}

/// A full disk under the log file, or a reader of it that died.
#[test]
fn what_cannot_be_logged_stops_nothing() {
    let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let data = directory.path().join("data");
    let arrangement = Arrangement::flags(&["--log-level", "debug"]);
    let serve = arrangement.command(&data);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", r#"exec "$0" "$@" 2>/dev/full"#]).arg(serve.get_program()).args(serve.get_args());
    let process = Process::start(shell, &directory.path().join("stderr"));
    let mut server = TestServer::of(process, directory, data, arrangement);
    server.client("alice").with("bob").send("hello");
    server.operator().call("/im.admin/snapshot", &serde_json::json!({})).ok();
    assert_eq!(server.ops("GET", "/readyz").status, 200);
    server.stop();
}

/// Whoever opens connections and says nothing takes no descriptor that the log or an operator needs.
#[test]
fn idle_connections_leave_descriptors_for_the_server_itself() {
    let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let data = directory.path().join("data");
    let arrangement = Arrangement::flags(&[]);
    let serve = arrangement.command(&data);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", r#"ulimit -n 64; exec "$0" "$@""#]).arg(serve.get_program()).args(serve.get_args());
    let process = Process::start(shell, &directory.path().join("stderr"));
    let mut server = TestServer::of(process, directory, data, arrangement);
    server.client("alice").with("bob").send("hello");
    let connections = || TcpStream::connect(server.ready().http).expect("the system takes it");
    let idle: Vec<_> = (0..100).map(|_| connections()).collect();
    crate::support::eventually("those that are let in are open", || {
        server.metric("chinwag_connections").filter(|open| *open >= 32.0)
    });
    server.operator().call("/im.admin/snapshot", &serde_json::json!({"compact": true})).ok();
    assert_eq!(server.ops("GET", "/readyz").status, 200);
    assert!(server.stderr().contains("ulimit -n"), "{}", server.stderr());
    drop(idle);
    server.stop();
}

/// Cargo finds its configuration from the directory in which it is called, so a build may miss it without an error.
#[test]
fn the_allocator_was_built_with_the_settings_of_the_repository() {
    let configuration: toml::Table = include_str!("../../.cargo/config.toml").parse().expect("TOML");
    let settings = configuration["env"]["JEMALLOC_SYS_WITH_MALLOC_CONF"].as_str().expect("a text");
    let mut command = chinwag(&["--help"]);
    // jemalloc writes every setting that it takes to standard error.
    command.env("_RJEM_MALLOC_CONF", "confirm_conf:true");
    let finished = Process::run(command);
    for setting in settings.split(',') {
        finished.assert_says(&[&format!("Set conf value: {setting}\n")]);
    }
}

#[test]
fn the_ready_line_counts_what_was_found() {
    let mut server = TestServer::start();
    assert_eq!((server.ready().conversations, server.ready().messages), (0, 0));
    let alice = server.client("alice");
    alice.with("bob").send("one");
    alice.with("bob").send("two");
    alice.with("carol").send("three");
    server.stop();
    server.start_again();
    assert_eq!((server.ready().conversations, server.ready().messages), (2, 3));
}

#[test]
fn without_flags_serve_works_at_once_in_a_fresh_directory() {
    let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let mut command = chinwag(&["serve"]);
    // The ports are the one thing that tests running side by side cannot leave alone.
    command.env("CHINWAG_LISTEN", "127.0.0.1:0").env("CHINWAG_OPS", "127.0.0.1:0");
    command.current_dir(directory.path());
    let process = Process::start(command, &directory.path().join("stderr"));
    let data = directory.path().join("snapshots");
    let server = TestServer::of(process, directory.clone(), data, Arrangement::default());
    assert_eq!(server.ready().data, "snapshots");
    assert!(server.ready().http.ip().is_loopback() && server.ready().ops.ip().is_loopback());
    server.client("alice").with("bob").send("hello");

    let mut token = chinwag(&["token", "--user", "bob"]);
    token.current_dir(directory.path());
    let printed = Process::run(token);
    assert_eq!(printed.code(), Some(0), "{printed:?}");
    let [token] = printed.stdout.as_slice() else { panic!("only the token is printed: {printed:?}") };
    let bob = crate::support::Client::new(server.ready().http, "bob", token.clone());
    assert_eq!(bob.with("alice").beginning().texts(), ["hello"]);
}

#[test]
fn foreign_files_in_the_data_directory_are_left_alone() {
    let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let data = directory.path().join("data");
    std::fs::create_dir_all(data.join("lost+found")).expect("a directory");
    std::fs::write(data.join("README.md"), "mine").expect("a file");
    let command = Arrangement::default().command(&data);
    let process = Process::start(command, &directory.path().join("stderr"));
    let server = TestServer::of(process, directory, data.clone(), Arrangement::default());
    server.client("alice").with("bob").send("hello");
    assert_eq!(std::fs::read(data.join("README.md")).expect("the file"), b"mine");
    assert!(data.join("lost+found").is_dir());
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_with_73() {
    let server = TestServer::start();
    let second = server.start_in_vain();
    second.assert_refused_in_one_line(73, &[server.data().to_str().expect("UTF-8")]);
    assert_eq!(server.client("alice").with("bob").send("still here").msg_index, 1);
}

#[test]
fn a_lock_dies_with_its_process() {
    let mut server = TestServer::start();
    server.kill();
    server.start_again();
}

#[test]
fn a_file_where_the_directory_should_be_is_73() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").expect("a file");
    for data in [file.clone(), file.join("below")] {
        let finished = Process::run(Arrangement::default().command(&data));
        finished.assert_refused_in_one_line(73, &[data.to_str().expect("UTF-8")]);
    }
    assert_eq!(std::fs::read(&file).expect("the file"), b"not a directory");
}

#[test]
fn a_port_in_use_is_1_with_a_line_that_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for flag in ["--listen", "--ops"] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let other = if flag == "--ops" { "--listen" } else { "--ops" };
        let mut command = chinwag(&["serve", flag, &address, other, "127.0.0.1:0", "--data"]);
        command.arg(directory.path().join("data"));
        let finished = Process::run(command);
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        assert_eq!(finished.stdout, Vec::<String>::new());
        let last = finished.stderr.lines().last().expect("a line").to_owned();
        assert!(last.contains(&address) && last.contains(flag), "{last}");
    }
}

#[test]
fn a_start_that_fails_leaves_a_directory_that_works() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut server = TestServer::start();
    server.client("alice").with("bob").send("kept");
    server.stop();
    let mut command = chinwag(&["serve", "--listen", &address, "--ops", "127.0.0.1:0", "--data"]);
    command.arg(server.data());
    assert_eq!(Process::run(command).code(), Some(1));
    server.start_again();
    assert_eq!(server.client("bob").with("alice").beginning().texts(), ["kept"]);
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["token", "--help"]] {
        let finished = Process::run(chinwag(arguments));
        assert_eq!(finished.code(), Some(0), "{arguments:?}");
        let help = finished.stdout.join("\n");
        assert!(help.contains("chinwag"), "{help}");
        if arguments.len() == 2 {
            assert!(help.to_lowercase().contains("example"), "no example in {help}");
        }
    }
}

#[test]
fn a_token_names_whom_it_was_asked_for() {
    let server = TestServer::start();
    let data = server.data().to_str().expect("UTF-8");
    let key = server.data().join("token.key");
    let key = key.to_str().expect("UTF-8");
    let client = |arguments: &[&str]| {
        let printed = Process::run(chinwag(arguments));
        assert_eq!((printed.code(), printed.stdout.len()), (Some(0), 1), "{printed:?}");
        crate::support::Client::new(server.ready().http, "", printed.stdout[0].clone())
    };
    client(&["token", "--user", "alice", "--data", data]).with("bob").send("from the directory's key");
    client(&["token", "--user", "alice", "--key", key, "--ttl", "1h"]).with("bob").send("from a key file");
    let seen = server.client("bob").with("alice").beginning();
    assert_eq!(seen.msgs.iter().map(|msg| msg.sender.as_str()).collect::<Vec<_>>(), ["alice", "alice"]);

    server.client("owner").create_group("g", &[]);
    let add = serde_json::json!({"group_id": "g", "user_ids": ["dave"]});
    client(&["token", "--user", "app", "--data", data]).call("/im.group/add", &add).assert_error(403, 10008);
    client(&["token", "--user", "app", "--data", data, "--admin"]).group_call("add", &add);
}

#[test]
fn a_token_for_nobody_or_without_a_key_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().to_str().expect("UTF-8");
    assert_eq!(Process::run(chinwag(&["token", "--data", data])).code(), Some(2));
    let nobody = Process::run(chinwag(&["token", "--user", "", "--data", data]));
    nobody.assert_refused_in_one_line(2, &["--user"]);
    let no_key = Process::run(chinwag(&["token", "--user", "alice", "--data", data]));
    assert!(no_key.code().is_some_and(|code| code != 0), "{no_key:?}");
    assert_eq!((no_key.stdout.len(), no_key.stderr.lines().count()), (0, 1), "{no_key:?}");
    assert!(no_key.stderr.contains("token.key"), "{no_key:?}");
}
