//! strace: watching system calls, failing them, delaying them, dying at them.
//!
//! Its counters are per thread, so a fault is aimed at one thread by attaching to that thread alone, or at the start of
//! a process, where the first thread to reach the count is hit.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::server::Server;
use crate::until;

/// What changes files or makes them durable, by the names that this machine's library uses.
pub(crate) const CALLS: [&str; 9] =
    ["openat", "pwrite64", "fdatasync", "fsync", "renameat2", "rename", "unlink", "ftruncate", "mkdir"];

const ATTACHES_WITHIN: Duration = Duration::from_secs(60);

/// A strace that is attached to one thread of a server.
pub(crate) struct Attached {
    child: Child,
    log: PathBuf,
}

impl Attached {
    /// Injects `fault` (`error=EIO:when=1`) into `call` of the thread `name`, and logs to `log`.
    pub(crate) fn inject(server: &Server, name: &str, call: &str, fault: &str, log: &Path) -> Self {
        let thread = server.thread(name).to_string();
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{fault}"));
        let mut child = Command::new("strace")
            .args(["-y", "-p", &thread, "-e", &trace, "-e", &inject, "-o"])
            .arg(log)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed");
        let stderr = child.stderr.take().expect("piped");
        // "strace: Process N attached": from here on calls are counted.
        let first = BufReader::new(stderr).lines().next().expect("a line").expect("text");
        assert!(first.contains("attached"), "{first}");
        Self { child, log: log.to_path_buf() }
    }

    /// Waits until the thread has ended or, if it lives on, lets go of it. Gives the log.
    pub(crate) fn let_go(mut self) -> String {
        if self.child.try_wait().expect("our own child").is_none() {
            let pid = self.child.id().to_string();
            let _ = Command::new("kill").args(["-INT", &pid]).status();
        }
        until(ATTACHES_WITHIN, "the end of strace", || self.child.try_wait().expect("our own child"));
        fs::read_to_string(&self.log).expect("a log")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often each thread of a traced life made each call: the log of `strace -f`.
pub(crate) fn count_calls(log: &str) -> HashMap<(u32, String), usize> {
    let mut counts = HashMap::new();
    for line in log.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let call = rest.trim_start().split('(').next().unwrap_or_default();
        if let (Ok(pid), true) = (pid.parse(), CALLS.contains(&call)) {
            *counts.entry((pid, call.to_owned())).or_default() += 1;
        }
    }
    counts
}
