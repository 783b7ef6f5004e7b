//! The server under load: a process of our own on a temporary directory, or one that runs already.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::super::Error;
use crate::auth::LocalKey;
use crate::config::{self, BenchServer, KeyPlace, serve_arguments};
use crate::tls::{self, Endpoint, Trust};

/// How long our own server may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// How long it may take to stop: longer than its own `--drain-timeout`.
const STOP_MAX: Duration = Duration::from_secs(20);
/// How often we look whether it has stopped.
const LOOK: Duration = Duration::from_millis(5);

/// A server that can be asked.
pub(super) struct Server {
    endpoint: Endpoint,
    key: KeyPlace,
    own: Option<Own>,
}

struct Own {
    process: Process,
    data: PathBuf,
    sync: &'static str,
    /// Removed with everything in it when this is dropped, after the process.
    _dir: TempDir,
}

/// A process that dies with this value.
struct Process(Child);

impl Server {
    /// Starts a server, or takes the one that is named.
    pub(super) fn begin(settings: &config::Bench) -> Result<Self, Error> {
        let trust = trust(settings)?;
        match &settings.server {
            BenchServer::Running { url, key } => {
                let port = url.port_u16().unwrap_or(if trust.is_some() { 443 } else { 80 });
                let endpoint = Endpoint::new(url.host().unwrap_or_default(), port, trust);
                let endpoint = endpoint.map_err(|why| Error::Setting(format!("--url: {why}")))?;
                Ok(Self { endpoint, key: key.clone(), own: None })
            }
            BenchServer::Own { dir, sync, flags, .. } => start(dir.as_deref(), sync.as_str(), flags, trust),
        }
    }

    /// Where it is asked.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The key that signs tokens for it.
    pub(super) fn key(&self) -> Result<LocalKey, Error> {
        let key = match &self.key {
            KeyPlace::Data(dir) => LocalKey::open(dir),
            KeyPlace::File(file) => LocalKey::read(file),
        };
        key.map_err(|why| Error::Refused(format!("{why}; --data or --key says where the server's key is")))
    }

    /// The directory on whose disk it keeps its data, if that is known and here.
    pub(super) fn disk(&self) -> Option<&Path> {
        match (&self.own, &self.key) {
            (Some(own), _) => Some(&own.data),
            (None, KeyPlace::Data(dir)) => Some(dir),
            (None, KeyPlace::File(_)) => None,
        }
    }

    /// CPU time that it has used, if it is our own.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.own.as_ref()?.process.0.id())).ok()?;
        // The name in parentheses may contain anything; user and system time are the 12th and 13th behind it
        // (proc_pid_stat(5), fields 14 and 15).
        let (_, behind) = stat.rsplit_once(") ")?;
        let ticks = behind.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().ok());
        let ticks: u64 = ticks.sum::<Option<u64>>()?;
        Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// As the report names it.
    pub(super) fn describe(&self) -> String {
        match (&self.own, self.endpoint.is_secret()) {
            (Some(own), false) => format!("own, --sync {}", own.sync),
            (Some(own), true) => format!("own, --sync {}, HTTPS", own.sync),
            (None, false) => self.endpoint.authority().to_owned(),
            (None, true) => format!("https://{}", self.endpoint.authority()),
        }
    }

    /// Stops it, if it is our own.
    pub(super) fn end(self) -> Result<(), Error> {
        self.own.map_or(Ok(()), |mut own| own.process.stop())
    }
}

/// How the server's certificate is checked, if it has to show one.
fn trust(settings: &config::Bench) -> Result<Option<Trust>, Error> {
    if !settings.server.is_secret() {
        return Ok(None);
    }
    let Some(ca) = &settings.ca else {
        let system = tls::trusting_system();
        return system.map(Some).map_err(|why| Error::Refused(format!("{why}; --ca FILE names some")));
    };
    let named = tls::read_file(ca, tls::AUTHORITIES_BYTES_MAX).and_then(|pem| tls::trusting_pem(&pem));
    named.map(Some).map_err(|why| Error::Setting(format!("--ca {}: {why}", ca.display())))
}

fn start(
    dir: Option<&Path>,
    sync: &'static str,
    flags: &[String],
    trust: Option<Trust>,
) -> Result<Server, Error> {
    let place = dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let dir = tempfile::Builder::new().prefix("chinwag-bench-").tempdir_in(&place);
    let dir = dir.map_err(Error::io("make a directory in", &place))?;
    let data = dir.path().join("data");
    let data_text = data.to_str().ok_or_else(|| Error::Refused(format!("{}: not UTF-8", data.display())))?;
    let mut process = Process::start(command(dir.path(), &serve_arguments(sync, data_text), flags)?)?;
    let (host, port) = process.ready()?;
    let endpoint = Endpoint::new(&host, port, trust).map_err(Error::Refused)?;
    let own = Own { process, data: data.clone(), sync, _dir: dir };
    Ok(Server { endpoint, key: KeyPlace::Data(data), own: Some(own) })
}

/// This binary, with no settings but those of the command line.
fn command(dir: &Path, arguments: &[&str], flags: &[String]) -> Result<Command, Error> {
    let ourselves = std::env::current_exe().map_err(Error::io("find", Path::new("this program")))?;
    let mut command = Command::new(ourselves);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"CHINWAG_") {
            command.env_remove(name);
        }
    }
    // A group of its own: an interrupt from the terminal is for us, and the server is stopped when the report is made.
    command.args(arguments).args(flags).current_dir(dir).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

impl Process {
    fn start(mut command: Command) -> Result<Self, Error> {
        let program = PathBuf::from(command.get_program());
        command.spawn().map(Self).map_err(Error::io("start", &program))
    }

    /// Waits for the line that says it can be asked; gives its host and port.
    fn ready(&mut self) -> Result<(String, u16), Error> {
        let stdout = self.0.stdout.take().expect("standard output is a pipe");
        let (told, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Goes on reading: a server must not wait for us to hear what it says.
                let _ = told.send(line);
            }
        });
        let line = match lines.recv_timeout(START_MAX) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Err(self.ended("did not start")),
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error::Refused(format!("its own server was not ready within {START_MAX:?}")));
            }
        };
        let address = line.split(' ').find_map(|field| field.strip_prefix("http=")?.rsplit_once(':'));
        let address = address.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        address.ok_or_else(|| Error::Refused(format!("its own server said {line:?}")))
    }

    /// Why it ended is on standard error, which it shares with us.
    fn ended(&mut self, what: &str) -> Error {
        let how = self.0.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        Error::Refused(format!("its own server {what} ({how}); the reason stands above"))
    }

    fn stop(&mut self) -> Result<(), Error> {
        // It fails if the process is gone, and then waiting says how it went.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            match self.0.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(_)) | Err(_) => return Err(self.ended("failed")),
                Ok(None) => thread::sleep(LOOK),
            }
        }
        Err(Error::Refused(format!("its own server did not stop within {STOP_MAX:?}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
