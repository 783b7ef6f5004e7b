//! A `chinwag serve` of our own: started, asked, killed.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use chinwag::auth::LocalKey;
use chinwag::message::{Caller, UserId};

use crate::client;
use crate::{PATIENCE, until};

/// How a server is started.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    flags: Vec<String>,
    /// Arguments of the strace to run under.
    strace: Vec<String>,
}

impl Settings {
    pub(crate) fn new(data: &Path) -> Self {
        let settings = Self { data: data.to_path_buf(), flags: Vec::new(), strace: Vec::new() };
        settings.with("listen", "127.0.0.1:0").with("ops", "127.0.0.1:0")
    }

    pub(crate) fn with(mut self, flag: &str, value: &str) -> Self {
        self.flags.extend([format!("--{flag}"), value.to_owned()]);
        self
    }

    pub(crate) fn under_strace(mut self, arguments: &[String]) -> Self {
        self.strace = arguments.to_vec();
        self
    }

    pub(crate) fn in_directory(&self, data: &Path) -> Self {
        Self { data: data.to_path_buf(), ..self.clone() }
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_chinwag");
        let mut command = match self.strace.is_empty() {
            true => Command::new(binary),
            false => {
                let mut strace = Command::new("strace");
                // -D: the server is our child, strace is somebody's grandchild.
                strace.args(["-D", "-f"]).args(&self.strace).arg(binary);
                strace
            }
        };
        command.arg("serve").arg("--data").arg(&self.data).args(&self.flags);
        // A settings file in the current directory is not ours.
        command.current_dir(self.data.parent().expect("the data directory is in one"));
        command
    }

    /// Starts a server; the error is how it ended before it was ready.
    pub(crate) fn try_start(&self) -> Result<Server, Ended> {
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server or strace runs");
        let stdout = child.stdout.take().expect("piped");
        let stderr = collect(child.stderr.take().expect("piped"));
        let (line, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(stdout).read_line(&mut text);
            let _ = line.send(text);
        });
        let text = ready.recv_timeout(PATIENCE).expect("a ready line, or the end");
        let mut server =
            Server { child, stderr: Some(stderr), data: self.data.clone(), public: None, ops: None };
        server.public = address_in(&text, "http=");
        server.ops = address_in(&text, "ops=");
        if server.public.is_some() && server.ops.is_some() { Ok(server) } else { Err(server.ended(PATIENCE)) }
    }

    pub(crate) fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|ended| panic!("the server did not start: {ended:?}"))
    }
}

fn address_in(line: &str, name: &str) -> Option<SocketAddr> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name))?.parse().ok()
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// How a server ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Ends when the server has ended, and the strace it was started under.
    stderr: Option<JoinHandle<String>>,
    data: PathBuf,
    public: Option<SocketAddr>,
    ops: Option<SocketAddr>,
}

impl Server {
    pub(crate) fn public(&self) -> SocketAddr {
        self.public.expect("a started server has one")
    }

    pub(crate) fn ops(&self) -> SocketAddr {
        self.ops.expect("a started server has one")
    }

    /// A token for a user of this server's store.
    pub(crate) fn token(&self, user: &str) -> String {
        let key = LocalKey::open(&self.data).expect("the server has made a key");
        let caller = Caller { user: UserId::parse(user).expect("an id"), admin: false };
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
        key.sign(&caller, now.as_secs(), Duration::from_hours(1))
    }

    /// The threads with this name, as the kernel knows them.
    pub(crate) fn thread(&self, name: &str) -> u32 {
        let tasks = format!("/proc/{}/task", self.child.id());
        let find = || {
            let tasks = std::fs::read_dir(&tasks).ok()?;
            tasks.filter_map(Result::ok).find_map(|task| {
                let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
                (comm.trim() == name).then(|| task.file_name().to_str()?.parse().ok()).flatten()
            })
        };
        until(PATIENCE, &format!("the thread {name}"), find)
    }

    /// The value of a metric without labels, or with them as they are spelled.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = client::get(self.ops(), "/metrics").expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }

    pub(crate) fn readyz(&self) -> u16 {
        client::get(self.ops(), "/readyz").expect("an answer").0
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whoever is dead already, stays so. (It is our child: its number is not somebody else's.)
    pub(crate) fn try_signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status();
    }

    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().expect("our own child");
        self.ended(PATIENCE)
    }

    /// Drains and waits for the end.
    pub(crate) fn stop(self) -> Ended {
        self.try_signal("-TERM");
        self.ended(PATIENCE)
    }

    /// Waits for the end.
    pub(crate) fn ended(mut self, patience: Duration) -> Ended {
        let status =
            until(patience, "the end of the server", || self.child.try_wait().expect("our own child"));
        let stderr = self.stderr.take().expect("taken once").join().expect("no panic");
        Ended { status, stderr }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
