//! Reads a trace of system calls as a disk would that keeps nothing it was not told to keep.
//!
//! Rules, for the data directory without `tmp/` (which every start empties) and `LOCK` (which holds nothing):
//! 1. a file is renamed to its name only when all that was written to it is synced;
//! 2. a success goes to a client only when nothing of the log, no new name in `wal/` and none in the directory itself is
//!    unsynced (the traced life has one client, so nothing else is under way);
//! 3. a pack's name is synced before the manifest that may name it gets its own;
//! 4. a log segment or a pack goes only when every name that was given in `snap/` and every one taken before is synced;
//! 5. in the end nothing is unsynced.

use std::collections::{BTreeMap, BTreeSet};

/// One finding: the line of the trace (from 1) and what is wrong there.
pub(crate) type Finding = (usize, String);

/// What the trace says so far.
#[derive(Default)]
struct Reader {
    root: String,
    /// Files with bytes or lengths that are not synced.
    dirty: BTreeSet<String>,
    /// Directories with names that are not synced, and the last of these names.
    unsynced_names: BTreeMap<String, Vec<String>>,
    /// Names that were removed.
    taken: BTreeSet<String>,
    /// Calls that have begun on a thread and not ended.
    unfinished: BTreeMap<String, String>,
    findings: Vec<Finding>,
    line: usize,
}

/// Checks the log of `strace -f -y` of one life of a server with one client.
pub(crate) fn findings(trace: &str, root: &str) -> Vec<Finding> {
    let mut reader = Reader { root: root.to_owned(), ..Reader::default() };
    for (number, line) in trace.lines().enumerate() {
        reader.line = number + 1;
        reader.read(line);
    }
    reader.end();
    reader.findings
}

impl Reader {
    fn find(&mut self, what: String) {
        self.findings.push((self.line, what));
    }

    /// Joins a call that another thread interrupted, and passes whole ones on.
    fn read(&mut self, line: &str) {
        let Some((thread, rest)) = line.split_once(' ') else { return };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            // What a call is about to do is done at its beginning, at the latest at its end; only a sync counts late.
            if is_write(begun) {
                self.call(&format!("{begun} = 0"));
            }
            self.unfinished.insert(thread.to_owned(), begun.to_owned());
        } else if let Some((_, end)) = rest.split_once(" resumed>") {
            let begun = self.unfinished.remove(thread).unwrap_or_default();
            if !is_write(&begun) {
                self.call(&format!("{begun}{end}"));
            }
        } else {
            self.call(rest);
        }
    }

    fn call(&mut self, call: &str) {
        let Some((name, arguments)) = call.split_once('(') else { return };
        if call.contains(") = -1 ") || call.contains(" = -1 ") {
            return;
        }
        match name {
            "pwrite64" | "ftruncate" | "write" | "writev" | "sendto" => self.written(arguments),
            "fsync" | "fdatasync" => self.synced(arguments),
            "openat" if call.contains("O_CREAT") => self.named(quoted(arguments, 0)),
            "mkdir" => self.named(quoted(arguments, 0)),
            "unlink" => self.unlinked(quoted(arguments, 0)),
            "rename" | "renameat2" => self.renamed(quoted(arguments, 0), quoted(arguments, 1)),
            _ => {}
        }
    }

    fn written(&mut self, arguments: &str) {
        let Some(target) = in_brackets(arguments) else { return };
        if target.starts_with("TCP:") || target.starts_with("socket:") {
            if arguments.contains("HTTP/1.1 200") && arguments.contains("application/json") {
                self.acknowledged();
            }
        } else if self.counts(&target) {
            self.dirty.insert(target);
        }
    }

    /// Whether anything depends on this path.
    fn counts(&self, path: &str) -> bool {
        path.strip_prefix(&self.root).is_some_and(|inner| inner != "/LOCK")
    }

    fn is_temporary(&self, path: &str) -> bool {
        path.starts_with(&format!("{}/tmp/", self.root)) || path.ends_with(".unfinished")
    }

    fn synced(&mut self, arguments: &str) {
        if let Some(target) = in_brackets(arguments) {
            self.dirty.remove(&target);
            self.unsynced_names.remove(&target);
        }
    }

    fn named(&mut self, path: &str) {
        if self.counts(path) && !self.is_temporary(path) {
            let (dir, _) = path.rsplit_once('/').unwrap_or_default();
            self.unsynced_names.entry(dir.to_owned()).or_default().push(path.to_owned());
        }
    }

    fn unlinked(&mut self, path: &str) {
        self.dirty.remove(path);
        if self.is_temporary(path) || !self.counts(path) {
            return;
        }
        if path.ends_with(".wal") || path.ends_with(".pack") {
            self.expect_synced("snap", path, |name| !name.ends_with(".pack") || !path.ends_with(".pack"));
            self.expect_synced("wal", path, |_| path.ends_with(".wal"));
        }
        self.taken.insert(path.to_owned());
        self.named(path);
    }

    fn renamed(&mut self, from: &str, to: &str) {
        if self.dirty.remove(from) {
            self.find(format!("{from} is renamed with unsynced content"));
        }
        if to.ends_with(".manifest") {
            self.expect_synced("snap", to, |_| true);
        }
        self.named(to);
    }

    /// Nothing may happen to `path` while a name that `matters` is unsynced in this directory.
    fn expect_synced(&mut self, dir: &str, path: &str, matters: impl Fn(&str) -> bool) {
        let names = self.unsynced_names.get(&format!("{}/{dir}", self.root));
        let unsynced = names.into_iter().flatten().find(|name| matters(name)).cloned();
        if let Some(name) = unsynced {
            self.find(format!("{path} changes while the name {name} is unsynced"));
        }
    }

    fn acknowledged(&mut self) {
        let unsynced = self.dirty.iter().find(|file| file.ends_with(".wal")).cloned();
        if let Some(file) = unsynced {
            self.find(format!("a success is told with {file} unsynced"));
        }
        for dir in [self.root.clone(), format!("{}/wal", self.root)] {
            // A name that was taken may come back: the next start knows what it is.
            let names = self.unsynced_names.get(&dir).into_iter().flatten();
            let given: Vec<_> = names.filter(|name| !self.taken.contains(*name)).cloned().collect();
            if !given.is_empty() {
                self.find(format!("a success is told with unsynced names: {}", given.join(", ")));
            }
        }
    }

    fn end(&mut self) {
        let dirty: Vec<_> = self.dirty.iter().filter(|file| !self.is_temporary(file)).cloned().collect();
        dirty.into_iter().for_each(|file| self.find(format!("{file} is never synced")));
        for (dir, names) in std::mem::take(&mut self.unsynced_names) {
            self.find(format!("names in {dir} are never synced: {}", names.join(", ")));
        }
    }
}

fn is_write(call: &str) -> bool {
    ["pwrite64", "ftruncate", "write", "writev", "sendto"]
        .iter()
        .any(|name| call.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')))
}

/// The path behind the first descriptor: `11</data/wal/x.wal>`.
fn in_brackets(arguments: &str) -> Option<String> {
    let (_, behind) = arguments.split_once('<')?;
    // Sockets have arrows in them.
    let ends = behind.match_indices('>').map(|(at, _)| at);
    let end = ends.into_iter().find(|at| !behind[..*at].ends_with('-'))?;
    Some(behind[..end].trim_end_matches(" (deleted)").to_owned())
}

fn quoted(arguments: &str, nth: usize) -> &str {
    arguments.split('"').nth(2 * nth + 1).unwrap_or_default()
}
