//! A running server with a data directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use super::connection::{Connection, Reply, request};
use super::process::{Finished, Process, chinwag};
use super::tokens::{claims_of, secret_of, sign_with_secret};
use super::{eventually, fresh};

/// How servers of one test are started: arguments, environment, working directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrangement {
    pub(crate) flags: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Arrangement {
    pub(crate) fn flags(flags: &[&str]) -> Self {
        Self { flags: flags.iter().map(|flag| (*flag).to_owned()).collect(), ..Self::default() }
    }

    /// The command that serves `data` on ports the system picks.
    pub(crate) fn command(&self, data: &Path) -> std::process::Command {
        let mut command = chinwag(&["serve", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--data"]);
        command.arg(data).args(&self.flags).envs(self.environment.iter().cloned());
        command
    }
}

/// A server that has said it is ready.
pub(crate) struct TestServer {
    process: Process,
    ready: Ready,
    directory: Arc<TempDir>,
    data: PathBuf,
    arrangement: Arrangement,
    secret: Vec<u8>,
}

/// The ready line, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) line: String,
    pub(crate) http: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) data: String,
    pub(crate) conversations: u64,
    pub(crate) messages: u64,
}

impl Ready {
    /// Panics unless the line is exactly what the contract shows.
    #[track_caller]
    pub(crate) fn parse(line: &str) -> Self {
        let shape = || format!("not the ready line: {line:?}");
        let mut words = line.split(' ');
        assert_eq!((words.next(), words.next()), (Some("chinwag"), Some("ready")), "{}", shape());
        let mut value = |key: &str| {
            let word = words.next().unwrap_or_else(|| panic!("{}", shape()));
            let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("{}", shape()));
            assert_eq!(name, key, "{}", shape());
            value.to_owned()
        };
        let number = |text: String| text.parse::<u64>().unwrap_or_else(|_| panic!("{}", shape()));
        let address = |text: String| text.parse::<SocketAddr>().unwrap_or_else(|_| panic!("{}", shape()));
        let ready = Self {
            line: line.to_owned(),
            http: address(value("http")),
            ops: address(value("ops")),
            data: value("data"),
            conversations: number(value("conversations")),
            messages: number(value("messages")),
        };
        number(value("in_ms"));
        assert_eq!(words.next(), None, "{}", shape());
        ready
    }
}

impl TestServer {
    /// A server on a new directory, with every setting at its default but the ports.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server on a new directory with further flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        Self::arranged(Arrangement::flags(flags))
    }

    /// A server on a new directory.
    pub(crate) fn arranged(arrangement: Arrangement) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let data = directory.path().join("data");
        Self::launch(directory, data, arrangement)
    }

    fn launch(directory: Arc<TempDir>, data: PathBuf, arrangement: Arrangement) -> Self {
        let process = Process::start(arrangement.command(&data), &directory.path().join("stderr"));
        Self::of(process, directory, data, arrangement)
    }

    /// The server that `process` becomes when it says that it is ready.
    pub(crate) fn of(
        mut process: Process,
        directory: Arc<TempDir>,
        data: PathBuf,
        arrangement: Arrangement,
    ) -> Self {
        let Some(line) = process.next_line() else {
            panic!("the server ended without a ready line: {:?}", process.finish());
        };
        let ready = Ready::parse(&line);
        let secret = secret_of(&data);
        Self { process, ready, directory, data, arrangement, secret }
    }

    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// What is on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// A connection to the public address.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.ready.http).expect("the server accepts connections")
    }

    /// One request to the public address, written as given, and its reply.
    pub(crate) fn exchange(&self, bytes: impl AsRef<[u8]>) -> Reply {
        let mut connection = self.connect();
        connection.write(bytes).expect("the server reads");
        connection.read_reply().expect("the server replies")
    }

    /// One request to the ops address.
    pub(crate) fn ops(&self, method: &str, path: &str) -> Reply {
        let mut connection = Connection::open(self.ready.ops).expect("the ops address accepts connections");
        connection.write(request(method, path, &[], b"")).expect("the server reads");
        connection.read_reply().expect("the server replies")
    }

    /// The value of a metric; `series` is its name with labels as written in the text.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let metrics = self.ops("GET", "/metrics");
        metrics.text().lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// A token with these claims, signed with the server's own key.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        sign_with_secret(&self.secret, claims)
    }

    /// A client of that user.
    pub(crate) fn client(&self, user: &str) -> Client {
        Client::new(self.ready.http, user, self.sign(&claims_of(user)))
    }

    /// A client whose token opens the admin calls.
    pub(crate) fn admin(&self, user: &str) -> Client {
        let mut claims = claims_of(user);
        claims["admin"] = json!(true);
        Client::new(self.ready.http, user, self.sign(&claims))
    }

    /// A client with an admin token that calls the operations address.
    pub(crate) fn operator(&self) -> Client {
        Client::new(self.ready.ops, "root", self.admin("root").token().to_owned())
    }

    /// Two users nobody has met yet.
    pub(crate) fn strangers(&self) -> (Client, Client) {
        (self.client(&fresh("alice")), self.client(&fresh("bob")))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.finish();
    }

    /// The memory that the server has, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// Sends a signal and goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the end.
    pub(crate) fn finish(&mut self) -> Finished {
        self.process.finish()
    }

    /// SIGTERM, and a clean end.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let finished = self.finish();
        assert_eq!(finished.code(), Some(0), "a clean end; standard error:\n{}", finished.stderr);
    }

    /// Starts again on the same directory, after [`TestServer::kill`] or [`TestServer::stop`].
    pub(crate) fn start_again(&mut self) {
        let again = Self::launch(self.directory.clone(), self.data.clone(), self.arrangement.clone());
        *self = again;
    }

    /// Other flags from the next start on.
    pub(crate) fn arrange(&mut self, flags: &[&str]) {
        self.arrangement = Arrangement::flags(flags);
    }

    /// Starts again, or says how that ended.
    pub(crate) fn try_again(&mut self) -> Option<Finished> {
        let log = self.directory.path().join("stderr");
        let mut process = Process::start(self.arrangement.command(&self.data), &log);
        let Some(line) = process.next_line() else { return Some(process.finish()) };
        self.process = process;
        self.ready = Ready::parse(&line);
        None
    }

    /// A copy of the data directory, while no server runs.
    pub(crate) fn copy_of_data(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_files(&self.data, copy.path());
        copy
    }

    /// Puts a copy in the place of the data directory, while no server runs.
    pub(crate) fn replace_data(&self, copy: &TempDir) {
        std::fs::remove_dir_all(&self.data).expect("removed");
        copy_files(copy.path(), &self.data);
    }

    /// A start on the same directory that is expected to fail.
    pub(crate) fn start_in_vain(&self) -> Finished {
        Process::run(self.arrangement.command(&self.data))
    }

    /// Waits until the health check says that nothing more is taken.
    pub(crate) fn wait_until_draining(&self) {
        eventually("readyz says 503", || (self.ops("GET", "/readyz").status == 503).then_some(()));
    }
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let (from, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).expect("an entry");
        if from.is_dir() {
            copy_files(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("copied");
        }
    }
}

impl Drop for TestServer {
    #[allow(clippy::print_stderr, reason = "a failed test shows the server's side of it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- standard error of the server\n{}---", self.process.stderr());
        }
    }
}

/// A server with default settings that tests share which do not disturb each other.
///
/// It lives as long as a test uses it; a static would never be dropped, nor the process end.
pub(crate) fn shared_server() -> Arc<TestServer> {
    static SHARED: Mutex<Weak<TestServer>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(TestServer::start());
    *shared = Arc::downgrade(&server);
    server
}
