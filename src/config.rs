//! Every setting of every command: typed, bounded, checked once before anything starts.
//!
//! A bad value is refused with one line that names where it came from and why. Nothing here opens a
//! data directory or a socket, and nothing reads a setting again later.

mod bench;
mod cli;
mod layers;
pub mod limits;
mod memory;
mod moment;
#[cfg(test)]
mod tests;
mod tool;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::message::UserId;
pub use bench::{Bench, BenchServer, Mix, Transport};
pub(crate) use cli::serve_arguments;
use layers::{Environment, Layers};
pub use moment::Moment;
pub use tool::Tool;

/// When a send is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// After `fdatasync` of its batch.
    Always,
    /// After the write; synced every `sync_interval`.
    Interval,
    /// After the write; synced when the system likes.
    Never,
}

impl SyncMode {
    /// As the flag spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Interval => "interval",
            Self::Never => "never",
        }
    }
}

/// Where the certificate of the public address is, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that vouch for it, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// The settings of `chinwag serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Address of the public API; port 0 picks one.
    pub listen: SocketAddr,
    /// Address of health and metrics; port 0 picks one.
    pub ops: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// Largest request body, in bytes ([`limits::BODY_BYTES`]).
    pub body_limit_bytes: usize,
    /// When a send is acknowledged.
    pub sync: SyncMode,
    /// Time between two syncs under [`SyncMode::Interval`].
    pub sync_interval: Duration,
    /// Longest wait for the head of a request, and so for the next request on an idle connection.
    pub header_timeout: Duration,
    /// Longest wait for a whole request body.
    pub body_timeout: Duration,
    /// Longest a client may leave what was written unread.
    pub write_timeout: Duration,
    /// Most open connections to the public API.
    pub connections: usize,
    /// Threads that serve connections and conversations.
    pub workers: usize,
    /// Origins whose pages may open streams, beside the server's own host; `*`: any.
    pub origins: Vec<String>,
    /// How often a silent stream is pinged.
    pub stream_ping: Duration,
    /// Most bytes that wait for one stream.
    pub stream_queue_bytes: usize,
    /// Calls per second and user, which is also the burst; `None`: any number.
    pub rate: Option<NonZeroU32>,
    /// How old a message may be recalled; `None`: any age.
    pub recall_window: Option<Duration>,
    /// Longest a drain may take.
    pub drain_timeout: Duration,
    /// Longest time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// Most bytes of log between two checkpoints.
    pub checkpoint_bytes: u64,
    /// Size of a segment of the log, in bytes ([`limits::SEGMENT_BYTES`]).
    pub segment_bytes: u64,
    /// How long a conversation must be unused to leave memory.
    pub idle_after: Duration,
    /// How much memory conversations may take together, in bytes; over it, the least recently used
    /// leave.
    pub memory_limit_bytes: u64,
    /// How long the log is kept after no snapshot needs it; `None`: not at all.
    pub keep_log: Option<Duration>,
    /// How long a message is kept; `None`: for ever.
    pub retain_age: Option<Duration>,
    /// How many messages of a conversation are kept; `None`: all.
    pub retain_count: Option<u32>,
    /// How often everything on the disk is read and checked; `None`: never.
    pub scrub_interval: Option<Duration>,
    /// Bytes per second that this reads at most.
    pub scrub_bytes_per_second: u64,
    /// PEM files of public keys whose tokens are accepted.
    pub verify_keys: Vec<PathBuf>,
    /// JWKS file of public keys whose tokens are accepted.
    pub jwks: Option<PathBuf>,
    /// What `aud` must name in tokens of those keys; `None`: such a token must have no `aud`.
    pub audience: Option<String>,
    /// What `iss` must be in tokens of those keys; `None`: anything.
    pub issuer: Option<String>,
    /// What makes the public address HTTPS; `None`: it is plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How much is logged.
    pub log_level: LevelFilter,
}

/// The settings of `chinwag token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose token it is.
    pub user: UserId,
    /// How long it is good for.
    pub ttl: Duration,
    /// Whether it opens the admin calls.
    pub admin: bool,
    /// The key that signs it.
    pub key: KeyPlace,
}

/// Where a signing key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a data directory.
    Data(PathBuf),
    /// In a file of its own.
    File(PathBuf),
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `chinwag serve`.
    Serve(Box<Serve>),
    /// `chinwag token`.
    Token(Token),
    /// A tool on a data directory.
    Tool(Tool),
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct Error {
    /// The flag, variable, or file and key.
    place: String,
    /// What is wrong with it.
    why: String,
}

impl Error {
    /// A refusal of what `place` says.
    pub fn new(place: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self { place: place.to_string(), why: why.to_string() }
    }
}

/// Why no command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Help or the version was asked for; print it, exit 0.
    Help(String),
    /// The arguments or settings are wrong, in one line; exit 2.
    Usage(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl Command {
    /// Reads the arguments (the program's name first), the environment and the settings file.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Stop> {
        match cli::parse(arguments)? {
            cli::Flags::Serve(flags) => {
                let layers = Layers::read(flags.into_settings(), &environment)?;
                Ok(Self::Serve(Box::new(serve(&layers)?)))
            }
            cli::Flags::Token(flags) => Ok(Self::Token(token(flags, &environment)?)),
            cli::Flags::Verify(flags) => Ok(Self::Tool(tool::verify(flags)?)),
            cli::Flags::Inspect(flags) => Ok(Self::Tool(tool::inspect(flags)?)),
            cli::Flags::Export(flags) => Ok(Self::Tool(tool::export(flags)?)),
            cli::Flags::Import(flags) => Ok(Self::Tool(tool::import(flags)?)),
            cli::Flags::Backup(flags) => Ok(Self::Tool(tool::backup(flags, &environment)?)),
            cli::Flags::Restore(flags) => Ok(Self::Tool(tool::restore(flags)?)),
            cli::Flags::Bench(flags) => {
                Ok(Self::Tool(Tool::Bench(Box::new(bench::read(*flags, &environment)?))))
            }
        }
    }
}

fn serve(layers: &Layers) -> Result<Serve, Error> {
    let time = |key, default, allowed| layers.one(key, default, |text| value::duration(text, allowed));
    let size = |key, default, allowed| layers.one(key, default, |text| value::size_bytes(text, allowed));
    let connections = |text: &str| value::whole_number(text, &limits::CONNECTIONS);
    let workers = |text: &str| value::whole_number(text, &limits::WORKERS);
    let window = |text: &str| value::optional_duration(text, &limits::RECALL_WINDOW);
    let body_limit_bytes = size("body-limit", "64KiB", &limits::BODY_BYTES)?;
    Ok(Serve {
        listen: layers.one("listen", "127.0.0.1:8000", value::address)?,
        ops: ops(layers)?,
        data: data(layers)?,
        body_limit_bytes: to_usize(body_limit_bytes),
        sync: layers.one("sync", "always", value::sync_mode)?,
        sync_interval: time("sync-interval", "50ms", &limits::SYNC_INTERVAL)?,
        header_timeout: time("header-timeout", "30s", &limits::CONNECTION_TIMEOUT)?,
        body_timeout: time("body-timeout", "10s", &limits::CONNECTION_TIMEOUT)?,
        write_timeout: time("write-timeout", "30s", &limits::CONNECTION_TIMEOUT)?,
        connections: to_usize(layers.one("connections", "10000", connections)?),
        workers: to_usize(layers.one("workers", &workers_default(), workers)?),
        origins: layers.all("origin", value::origin)?,
        stream_ping: time("stream-ping", "25s", &limits::STREAM_PING)?,
        stream_queue_bytes: to_usize(stream_queue_bytes(layers, body_limit_bytes)?),
        rate: layers.one("rate", "off", value::rate)?,
        recall_window: layers.one("recall-window", "off", window)?,
        drain_timeout: time("drain-timeout", "10s", &limits::DRAIN_TIMEOUT)?,
        checkpoint_interval: time("checkpoint-interval", "60s", &limits::CHECKPOINT_INTERVAL)?,
        checkpoint_bytes: size("checkpoint-bytes", "64MiB", &limits::CHECKPOINT_BYTES)?,
        segment_bytes: segment_bytes(layers, body_limit_bytes)?,
        idle_after: time("idle-after", "5m", &limits::IDLE_AFTER)?,
        memory_limit_bytes: size("memory-limit", &half_of_memory(), &limits::MEMORY_BYTES)?,
        keep_log: layers.one("keep-log", "off", |text| value::optional_duration(text, &limits::KEEP_LOG))?,
        retain_age: layers.one("retain-days", "off", days)?,
        retain_count: layers
            .one("retain-count", "off", |text| value::optional_number(text, &limits::RETAIN_COUNT))?,
        scrub_interval: layers
            .one("scrub-interval", "24h", |text| value::optional_duration(text, &limits::SCRUB_INTERVAL))?,
        scrub_bytes_per_second: size("scrub-rate", "8MiB", &limits::SCRUB_RATE)?,
        verify_keys: layers.all("verify-key", value::path)?,
        jwks: layers.optional("jwks", value::path)?,
        audience: layers.optional("audience", value::name)?,
        issuer: layers.optional("issuer", value::name)?,
        tls: tls(layers)?,
        log_level: layers.one("log-level", "info", value::log_level)?,
    })
}

fn days(text: &str) -> Result<Option<Duration>, String> {
    let days = value::optional_number(text, &limits::RETAIN_DAYS)?;
    Ok(days.map(|days| Duration::from_hours(24) * days))
}

fn segment_bytes(layers: &Layers, body_limit_bytes: u64) -> Result<u64, Error> {
    let least = (body_limit_bytes * limits::BODIES_PER_SEGMENT_MIN).max(*limits::SEGMENT_BYTES.start());
    let allowed = least..=*limits::SEGMENT_BYTES.end();
    layers.one("segment-bytes", "64MiB", |text| value::size_bytes(text, &allowed))
}

/// Both files or none.
fn tls(layers: &Layers) -> Result<Option<TlsFiles>, Error> {
    let cert = layers.optional("tls-cert", value::path)?;
    let key = layers.optional("tls-key", value::path)?;
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Error::new("--tls-key", "has to be there beside --tls-cert")),
        (None, Some(_)) => Err(Error::new("--tls-cert", "has to be there beside --tls-key")),
    }
}

/// One message of the longest kind has to fit, or it would always be left out.
fn stream_queue_bytes(layers: &Layers, body_limit_bytes: u64) -> Result<u64, Error> {
    let least = body_limit_bytes * limits::EVENT_BYTES_PER_BODY_BYTE + limits::STREAM_QUEUE_BYTES_BESIDE_BODY;
    let least = least.max(*limits::STREAM_QUEUE_BYTES.start());
    let allowed = least..=*limits::STREAM_QUEUE_BYTES.end();
    let default = limits::STREAM_QUEUE_BYTES_DEFAULT.max(least).to_string();
    layers.one("stream-queue", &default, |text| value::size_bytes(text, &allowed))
}

fn data(layers: &Layers) -> Result<PathBuf, Error> {
    layers.one("data", "snapshots", value::path)
}

fn token(flags: cli::TokenFlags, environment: Environment<'_>) -> Result<Token, Error> {
    let user = UserId::parse(&flags.user).map_err(|why| Error::new("--user", why))?;
    let ttl = token_ttl(flags.ttl.as_deref()).map_err(|why| Error::new("--ttl", why))?;
    let key = match &flags.key {
        Some(file) => KeyPlace::File(value::path(file).map_err(|why| Error::new("--key", why))?),
        None => KeyPlace::Data(data_of_the_server(flags.data, flags.config, environment)?),
    };
    Ok(Token { user, ttl, admin: flags.admin, key })
}

/// How long a token is good that is made here or asked for: a day unless somebody says otherwise.
///
/// # Errors
/// What is no duration within [`limits::TOKEN_TTL`]; the text says what is.
pub fn token_ttl(text: Option<&str>) -> Result<Duration, String> {
    value::duration(text.unwrap_or("24h"), &limits::TOKEN_TTL)
}

/// The data directory that `serve` would use here, so that both work with the same key.
fn data_of_the_server(
    data_flag: Option<String>,
    config_flag: Option<String>,
    environment: Environment<'_>,
) -> Result<PathBuf, Error> {
    data(&layers_of_the_server(data_flag, None, config_flag, environment)?)
}

/// The settings that `serve` would find here with these flags.
fn layers_of_the_server(
    data_flag: Option<String>,
    ops_flag: Option<String>,
    config_flag: Option<String>,
    environment: Environment<'_>,
) -> Result<Layers, Error> {
    let mut settings = cli::ServeFlags::default().into_settings();
    for (key, values) in &mut settings {
        match *key {
            "data" => values.extend(data_flag.clone()),
            "ops" => values.extend(ops_flag.clone()),
            "config" => values.extend(config_flag.clone()),
            _ => {}
        }
    }
    Layers::read(settings, environment)
}

fn ops(layers: &Layers) -> Result<SocketAddr, Error> {
    layers.one("ops", "127.0.0.1:8001", value::address)
}

fn half_of_memory() -> String {
    (memory::available_bytes() / 2)
        .clamp(*limits::MEMORY_BYTES.start(), *limits::MEMORY_BYTES.end())
        .to_string()
}

/// One core is left to the log's thread, the kernel's side of the network, and whoever else is on the machine:
/// on two cores one worker answers more requests than two do, which wake each other all the time
/// (figures in `docs/performance.md`).
fn workers_default() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    (cores.saturating_sub(1)).clamp(*limits::WORKERS.start(), *limits::WORKERS.end()).to_string()
}

/// Every size here has an upper bound far below what 32 bits hold.
fn to_usize(bounded: u64) -> usize {
    usize::try_from(bounded).expect("the bounds of sizes and counts fit a usize")
}
