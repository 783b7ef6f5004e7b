//! The binary as a process: its standard output line by line, its standard error kept for later.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::DEADLINE;

/// The binary under test with these arguments, without any setting of the tests' own environment.
pub(crate) fn chinwag(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chinwag"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHINWAG_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// A process that has been started, and dies with this value.
pub(crate) struct Process {
    child: Child,
    /// A lock only so that threads may share the process; nobody waits on it.
    lines: Mutex<Receiver<String>>,
    log: PathBuf,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// The lines of standard output that nobody had taken before.
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Asserts the exit code, and that the one line on standard error contains each of `parts`.
    #[track_caller]
    pub(crate) fn assert_refused_in_one_line(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code(), Some(code), "exit code; standard error:\n{}", self.stderr);
        assert_eq!(self.stdout, Vec::<String>::new(), "standard output");
        assert_eq!(self.stderr.lines().count(), 1, "one line expected:\n{}", self.stderr);
        self.assert_says(parts);
    }

    /// Asserts that standard error contains each of `parts`.
    #[track_caller]
    pub(crate) fn assert_says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
    }
}

impl Process {
    /// Starts `command`; its standard error is added to the file `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let stderr = OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines: Mutex::new(lines), log: log.to_owned() }
    }

    /// Runs a command that ends by itself.
    pub(crate) fn run(command: Command) -> Finished {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start(command, &directory.path().join("stderr")).finish()
    }

    /// The next line on standard output, or `None` when it has ended.
    pub(crate) fn next_line(&mut self) -> Option<String> {
        match self.lines().recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line on standard output within {DEADLINE:?}:\n{}", self.stderr())
            }
        }
    }

    fn lines(&mut self) -> &mut Receiver<String> {
        self.lines.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory that it has, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a running process");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("a size") * 1024
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child can be signalled");
    }

    /// Waits for the end, of which the end of standard output is the sign.
    pub(crate) fn finish(&mut self) -> Finished {
        let deadline = Instant::now() + DEADLINE;
        let mut stdout = Vec::new();
        loop {
            match self.lines().recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => stdout.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("does not end within {DEADLINE:?}:\n{}", self.stderr())
                }
            }
        }
        let status = self.child.wait().expect("our own child can be waited for");
        Finished { status, stdout, stderr: self.stderr() }
    }

    /// What is on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        let bytes = std::fs::read(&self.log).expect("the log file is readable");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
