//! The command line: which command, and what each flag was given as, untyped.
//!
//! Flags are texts here so that a bad value is refused in one place and in the same words whether it
//! came from a flag, the environment or the file ([`super::layers`]).

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use self::help::{
    BACKUP_EXAMPLE, BENCH_EXAMPLE, EXPORT_EXAMPLE, IMPORT_EXAMPLE, INSPECT_EXAMPLE, RESTORE_EXAMPLE,
    SERVE_EXAMPLE, SETTINGS_HELP, TOKEN_EXAMPLE, VERIFY_EXAMPLE,
};
use super::Stop;

mod help;

#[derive(Parser)]
#[command(name = "chinwag", version, about = "A chat backend in one binary", after_help = SETTINGS_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Flags,
}

/// A command with its flags as they were given.
#[derive(Subcommand)]
pub(super) enum Flags {
    /// Runs the server
    #[command(after_help = format!("{SERVE_EXAMPLE}\n\n{SETTINGS_HELP}"), allow_negative_numbers = true)]
    Serve(Box<ServeFlags>),
    /// Prints a token signed with the server's key
    #[command(after_help = TOKEN_EXAMPLE)]
    Token(TokenFlags),
    /// Checks every byte and every promise of a data directory, without changing it
    #[command(after_help = VERIFY_EXAMPLE)]
    Verify(DirFlags),
    /// Says what takes the space in a data directory
    #[command(after_help = INSPECT_EXAMPLE)]
    Inspect(InspectFlags),
    /// Writes conversations as JSON Lines
    #[command(after_help = EXPORT_EXAMPLE)]
    Export(ExportFlags),
    /// Stores the conversations of an export
    #[command(after_help = IMPORT_EXAMPLE)]
    Import(ImportFlags),
    /// Copies a running server's data, or a stopped one's, consistently
    #[command(after_help = BACKUP_EXAMPLE)]
    Backup(BackupFlags),
    /// Makes a data directory from a backup, as of its end or of a moment before
    #[command(after_help = RESTORE_EXAMPLE)]
    Restore(RestoreFlags),
    /// Drives load at a server and prints a latency table
    #[command(after_help = BENCH_EXAMPLE, allow_negative_numbers = true)]
    Bench(Box<BenchFlags>),
}

#[derive(Args)]
pub(super) struct BenchFlags {
    /// The server, such as http://127.0.0.1:8000; over TLS it begins with https:// [default: one of its own]
    #[arg(long, value_name = "URL", conflicts_with_all = ["dir", "sync", "serve"])]
    pub(super) url: Option<String>,
    /// With --url: the server's data directory, for its key and its disk [default: as for serve]
    #[arg(long, value_name = "DIR", requires = "url", conflicts_with = "key")]
    pub(super) data: Option<String>,
    /// With --url: the file of the server's key, where its data directory is not here
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(super) key: Option<String>,
    /// With --url: the settings file that names the data directory [default: chinwag.toml if present]
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(super) config: Option<String>,
    /// With https: a PEM file with the certificates of those who may vouch for the server [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<String>,
    /// Where the own server's temporary directory is made [default: the system's]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<String>,
    /// When the own server acknowledges a send: always, interval, never [default: always]
    #[arg(long, value_name = "MODE")]
    pub(super) sync: Option<String>,
    /// How requests travel: http (1.1), h2, ws [default: http]
    #[arg(long, value_name = "NAME")]
    pub(super) transport: Option<String>,
    /// With --transport h2 or ws: requests in flight on each connection [default: 1]
    #[arg(long, value_name = "N")]
    pub(super) pipeline: Option<String>,
    /// Requests per second in all; without it as many as are answered
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<String>,
    /// Connections [default: 64]
    #[arg(long, value_name = "N")]
    pub(super) connections: Option<String>,
    /// How long to measure [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub(super) duration: Option<String>,
    /// How long to run before that [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub(super) warm_up: Option<String>,
    /// Direct conversations [default: 1000]
    #[arg(long, value_name = "N")]
    pub(super) conversations: Option<String>,
    /// Members of each, which makes them groups [default: direct conversations of two]
    #[arg(long, value_name = "N")]
    pub(super) members: Option<String>,
    /// Users who talk in them [default: as many as connections, or as the conversations need]
    #[arg(long, value_name = "N")]
    pub(super) users: Option<String>,
    /// Bytes of text in a message [default: 200]
    #[arg(long, value_name = "BYTES")]
    pub(super) size: Option<String>,
    /// How many of each call [default: send=80,pull=15,ack=5]
    #[arg(long, value_name = "VERB=N,..")]
    pub(super) mix: Option<String>,
    /// Messages in every conversation before the start [default: 1]
    #[arg(long, value_name = "N")]
    pub(super) history: Option<String>,
    /// Messages that a pull asks for [default: 20]
    #[arg(long, value_name = "N")]
    pub(super) page: Option<String>,
    /// Threads that drive the load [default: half of the cores]
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<String>,
    /// Also writes everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<String>,
    /// Flags for the own server, as `serve` takes them
    #[arg(last = true, value_name = "SERVE FLAGS")]
    pub(super) serve: Vec<String>,
}

#[derive(Args)]
pub(super) struct BackupFlags {
    /// The directory to make
    #[arg(long, value_name = "DIR")]
    pub(super) to: String,
    /// The data directory [default: as for serve]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<String>,
    /// The server's operations address [default: as for serve]
    #[arg(long, value_name = "ADDR")]
    pub(super) ops: Option<String>,
    /// An admin token; CHINWAG_TOKEN keeps it out of the process list [default: one signed with the
    /// data directory's key]
    #[arg(long, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// The settings file [default: chinwag.toml if present]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<String>,
}

#[derive(Args)]
pub(super) struct RestoreFlags {
    /// A backup, or a stopped server's directory
    #[arg(value_name = "FROM")]
    pub(super) from: String,
    /// The data directory to make
    #[arg(long, value_name = "DIR")]
    pub(super) data: String,
    /// Where to stop: a time of RFC 3339, or the number of the last record [default: the end]
    #[arg(long, value_name = "TIME|LSN")]
    pub(super) at: Option<String>,
    /// A later backup or directory of the same server, for the log behind FROM's
    #[arg(long, value_name = "DIR")]
    pub(super) log: Option<String>,
}

#[derive(Args)]
pub(super) struct DirFlags {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(super) dir: String,
}

#[derive(Args)]
pub(super) struct InspectFlags {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(super) dir: String,
    /// One JSON object instead of text
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct ExportFlags {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(super) dir: String,
    /// Only the direct conversation of this user with --peer
    #[arg(long, value_name = "ID", requires = "peer")]
    pub(super) user: Option<String>,
    /// The other user
    #[arg(long, value_name = "ID", requires = "user")]
    pub(super) peer: Option<String>,
    /// Only this group
    #[arg(long, value_name = "ID", conflicts_with = "user")]
    pub(super) group: Option<String>,
    /// Where to; must not be there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<String>,
}

#[derive(Args)]
pub(super) struct ImportFlags {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(super) dir: String,
    /// Where from [default: standard input]
    #[arg(long, value_name = "FILE")]
    pub(super) r#in: Option<String>,
}

#[derive(Args, Default)]
pub(super) struct ServeFlags {
    /// The public API; port 0 picks one [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Health and metrics; port 0 picks one [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDR")]
    ops: Option<String>,
    /// The data directory [default: snapshots]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Largest request body, 1KiB to 1MiB [default: 65536]
    #[arg(long, value_name = "BYTES")]
    body_limit: Option<String>,
    /// When a send is acknowledged: always (after fdatasync), interval, never [default: always]
    #[arg(long, value_name = "MODE")]
    sync: Option<String>,
    /// How often to sync under --sync interval [default: 50ms]
    #[arg(long, value_name = "TIME")]
    sync_interval: Option<String>,
    /// Longest wait for the head of a request, and for the next one [default: 30s]
    #[arg(long, value_name = "TIME")]
    header_timeout: Option<String>,
    /// Longest wait for a whole request body [default: 10s]
    #[arg(long, value_name = "TIME")]
    body_timeout: Option<String>,
    /// Longest a client may leave a reply unread [default: 30s]
    #[arg(long, value_name = "TIME")]
    write_timeout: Option<String>,
    /// Most open connections; further ones wait [default: 10000]
    #[arg(long, value_name = "N")]
    connections: Option<String>,
    /// Threads that serve connections and conversations; one or two also write the log [default: one less than cores,
    /// at least 1]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// An origin whose pages may call and open streams, or *; may be repeated [default: the server's own host]
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// How often a silent stream is pinged; after two unanswered ones it is closed [default: 25s]
    #[arg(long, value_name = "TIME")]
    stream_ping: Option<String>,
    /// Most that waits for one slow stream before it is told to pull instead [default: 1MiB]
    #[arg(long, value_name = "BYTES")]
    stream_queue: Option<String>,
    /// Calls per second and user, or off [default: off]
    #[arg(long, value_name = "N")]
    rate: Option<String>,
    /// How old a message may be recalled, or off [default: off]
    #[arg(long, value_name = "TIME")]
    recall_window: Option<String>,
    /// Longest a drain may take [default: 10s]
    #[arg(long, value_name = "TIME")]
    drain_timeout: Option<String>,
    /// Longest time between two checkpoints [default: 60s]
    #[arg(long, value_name = "TIME")]
    checkpoint_interval: Option<String>,
    /// Most log between two checkpoints [default: 64MiB]
    #[arg(long, value_name = "BYTES")]
    checkpoint_bytes: Option<String>,
    /// Size of one file of the log; one is made ahead, and as much is left free [default: 64MiB]
    #[arg(long, value_name = "BYTES")]
    segment_bytes: Option<String>,
    /// Conversations unused for so long leave memory [default: 5m]
    #[arg(long, value_name = "TIME")]
    idle_after: Option<String>,
    /// Conversations leave memory over so much of it [default: half of the machine's or cgroup's]
    #[arg(long, value_name = "BYTES")]
    memory_limit: Option<String>,
    /// Keep the log so long after it is no longer needed, for restores to a moment, or off [default: off]
    #[arg(long, value_name = "TIME")]
    keep_log: Option<String>,
    /// Keep messages so many days, or off [default: off]
    #[arg(long, value_name = "N")]
    retain_days: Option<String>,
    /// Keep the newest so many messages of each conversation, or off [default: off]
    #[arg(long, value_name = "N")]
    retain_count: Option<String>,
    /// How often everything on the disk is read and checked, or off [default: 24h]
    #[arg(long, value_name = "TIME")]
    scrub_interval: Option<String>,
    /// Bytes per second that this reads at most [default: 8MiB]
    #[arg(long, value_name = "BYTES")]
    scrub_rate: Option<String>,
    /// A PEM public key (EdDSA, ES256 or RS256) whose tokens are accepted; may be repeated
    #[arg(long, value_name = "FILE")]
    verify_key: Vec<String>,
    /// A JWKS file whose keys' tokens are accepted
    #[arg(long, value_name = "FILE")]
    jwks: Option<String>,
    /// What `aud` must name in tokens of --verify-key and --jwks [default: no aud allowed]
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// What `iss` must be in tokens of --verify-key and --jwks [default: any]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// A PEM file with the certificate of --listen, and those that vouch for it: makes it HTTPS [default: plain HTTP]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// A PEM file with its private key; SIGHUP reads both files again
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// The settings file [default: chinwag.toml if present]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
}

#[derive(Args)]
pub(super) struct TokenFlags {
    /// Whose token it is
    #[arg(long, value_name = "ID")]
    pub(super) user: String,
    /// How long it is good for [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub(super) ttl: Option<String>,
    /// Opens the admin calls
    #[arg(long)]
    pub(super) admin: bool,
    /// The data directory whose key signs [default: as for serve]
    #[arg(long, value_name = "DIR", conflicts_with = "key")]
    pub(super) data: Option<String>,
    /// The key file that signs, instead of the data directory's
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<String>,
    /// The settings file [default: chinwag.toml if present]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<String>,
}

impl ServeFlags {
    /// Every setting with the values its flag was given; empty for none.
    pub(super) fn into_settings(self) -> Vec<(&'static str, Vec<String>)> {
        let one = |value: Option<String>| value.into_iter().collect();
        vec![
            ("listen", one(self.listen)),
            ("ops", one(self.ops)),
            ("data", one(self.data)),
            ("body-limit", one(self.body_limit)),
            ("sync", one(self.sync)),
            ("sync-interval", one(self.sync_interval)),
            ("header-timeout", one(self.header_timeout)),
            ("body-timeout", one(self.body_timeout)),
            ("write-timeout", one(self.write_timeout)),
            ("connections", one(self.connections)),
            ("workers", one(self.workers)),
            ("origin", self.origin),
            ("stream-ping", one(self.stream_ping)),
            ("stream-queue", one(self.stream_queue)),
            ("rate", one(self.rate)),
            ("recall-window", one(self.recall_window)),
            ("drain-timeout", one(self.drain_timeout)),
            ("checkpoint-interval", one(self.checkpoint_interval)),
            ("checkpoint-bytes", one(self.checkpoint_bytes)),
            ("segment-bytes", one(self.segment_bytes)),
            ("idle-after", one(self.idle_after)),
            ("memory-limit", one(self.memory_limit)),
            ("keep-log", one(self.keep_log)),
            ("retain-days", one(self.retain_days)),
            ("retain-count", one(self.retain_count)),
            ("scrub-interval", one(self.scrub_interval)),
            ("scrub-rate", one(self.scrub_rate)),
            ("verify-key", self.verify_key),
            ("jwks", one(self.jwks)),
            ("audience", one(self.audience)),
            ("issuer", one(self.issuer)),
            ("tls-cert", one(self.tls_cert)),
            ("tls-key", one(self.tls_key)),
            ("log-level", one(self.log_level)),
            ("config", one(self.config)),
        ]
    }
}

/// Reads the arguments, the program's name first.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Flags, Stop> {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => Ok(cli.command),
        Err(error) if !error.use_stderr() => Err(Stop::Help(error.to_string())),
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Stop::Usage("name a command: `chinwag --help` explains them".to_owned()))
        }
        Err(error) => Err(Stop::Usage(first_paragraph(&error.to_string()))),
    }
}

/// The flags with which `bench` starts its own server; its user may give any other.
pub(crate) fn serve_arguments<'a>(sync: &'a str, data: &'a str) -> [&'a str; 11] {
    let anywhere = "127.0.0.1:0";
    let log_level = "warn";
    [
        "serve",
        "--listen",
        anywhere,
        "--ops",
        anywhere,
        "--data",
        data,
        "--sync",
        sync,
        "--log-level",
        log_level,
    ]
}

/// Whether these flags make `serve` HTTPS. Refuses those that it would not take beside those of `bench`.
pub(super) fn make_https(flags: &[String]) -> Result<bool, String> {
    let ours = serve_arguments("always", "data");
    let all = ["chinwag"].into_iter().chain(ours).chain(flags.iter().map(String::as_str));
    match Cli::try_parse_from(all).map(|cli| cli.command) {
        Ok(command) => Ok(matches!(command, Flags::Serve(serve) if serve.tls_cert.is_some())),
        Err(error) => Err(first_paragraph(&error.to_string())),
    }
}

/// The part of clap's message that says what is wrong, on one line.
fn first_paragraph(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let lines = message.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}
