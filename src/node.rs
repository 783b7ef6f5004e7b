//! The node: the one place that knows every part. Recover, start, serve, and drain in reverse.
//!
//! Rules of chat, formats and protocols are none of its business.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::auth;
use crate::config::{self, SyncMode};
use crate::conversation::checkpoint::Place;
use crate::conversation::recovery::{self, Recovered};
use crate::conversation::{self, Started};
use crate::data_dir::{self, DataDir, Lock};
use crate::disk::{Disk, Real};
use crate::http;
use crate::telemetry::Metrics;
use crate::wal;

/// After the log has failed, so long for the answers that say so to leave the sockets.
const FAREWELL: Duration = Duration::from_millis(100);

/// Why the node does not run, or does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// What is in it cannot be brought back.
    #[error("cannot recover: {0}")]
    Recovery(#[from] recovery::Error),
    /// The log cannot be started or ended.
    #[error("the log failed: {0}")]
    Log(#[from] wal::Error),
    /// Keys cannot be read or made.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (--{flag}): {source}; is something else using it?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that named it.
        flag: &'static str,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// The process cannot do what every process can.
    #[error("{what}: {source}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// The answer of the operating system.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code of the contract, section 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::DataDir(why) => data_dir_exit_code(why),
            Self::Recovery(why) => recovery_exit_code(why),
            Self::Log(why) => log_exit_code(why),
            Self::Auth(_) => exit::USAGE,
            Self::Listen { .. } | Self::Process { .. } => exit::OTHER,
        }
    }
}

/// Exit codes of the contract, section 1.
pub mod exit {
    /// Anything else.
    pub const OTHER: u8 = 1;
    /// Bad usage or configuration.
    pub const USAGE: u8 = 2;
    /// Damaged data.
    pub const DAMAGED: u8 = 65;
    /// The data directory is in use or not writable.
    pub const CANNOT_USE: u8 = 73;
    /// The disk failed.
    pub const DISK: u8 = 74;
}

fn data_dir_exit_code(why: &data_dir::Error) -> u8 {
    match why {
        data_dir::Error::InUse { .. } | data_dir::Error::NotWritable { .. } | data_dir::Error::Absent(_) => {
            exit::CANNOT_USE
        }
        data_dir::Error::Damaged { .. } | data_dir::Error::TooNew { .. } => exit::DAMAGED,
        data_dir::Error::Io { .. } => exit::DISK,
        data_dir::Error::NoRandom(_) => exit::OTHER,
    }
}

fn recovery_exit_code(why: &recovery::Error) -> u8 {
    match why {
        recovery::Error::Snapshot(crate::snapshot::Error::Io { .. }) => exit::DISK,
        recovery::Error::Log(why) => log_exit_code(why),
        _ => exit::DAMAGED,
    }
}

fn log_exit_code(why: &wal::Error) -> u8 {
    if why.is_damage() { exit::DAMAGED } else { exit::DISK }
}

/// Runs a node until it is told to stop, and drains it.
pub async fn run(config: config::Serve) -> Result<(), Error> {
    let started = Instant::now();
    let node = Node::start(&config)?;
    let public = listen(config.listen, "listen").await?;
    let ops = listen(config.ops, "ops").await?;
    let stop = StopSignals::new()?;
    let edge = node.serve(&config, public.listener, ops.listener)?;
    announce(&config, &node, public.address, ops.address, started)?;
    let reason = stop.wait().await;
    info!(reason, "draining");
    node.drain(edge, config.drain_timeout).await
}

/// Recovered and started, but not serving yet.
struct Node {
    /// Held as long as the process uses the directory.
    _lock: Lock,
    conversations: Started,
    verifier: Arc<auth::Verifier>,
    metrics: Arc<Metrics>,
    draining: watch::Sender<bool>,
    found: Found,
}

/// What recovery found, for the ready line.
struct Found {
    conversations: usize,
    messages: u64,
}

impl Node {
    fn start(config: &config::Serve) -> Result<Self, Error> {
        // Before anything is read or removed.
        let lock = Lock::acquire(&config.data)?;
        let disk: Arc<dyn Disk> = Arc::new(Real);
        let mut data = DataDir::open(disk.clone(), &config.data)?;
        let verifier = Arc::new(auth::Verifier::open(config)?);
        let place = place_in(&data, disk);
        let recovered = recovery::recover(&place, &data.wal_dir())?;
        report(&recovered);
        let found =
            Found { conversations: recovered.conversations(), messages: recovered.messages() };
        let metrics = Arc::new(Metrics::new(config.sync));
        let (draining, is_draining) = watch::channel(false);
        let conversations = conversation::start(
            recovered,
            place,
            &data.wal_dir(),
            options(config),
            &metrics,
            is_draining,
            Box::new(give_up),
        )?;
        data.mark_started()?;
        Ok(Self { _lock: lock, conversations, verifier, metrics, draining, found })
    }

    fn serve(&self, config: &config::Serve, public: TcpListener, ops: TcpListener) -> Result<Edge, Error> {
        todo!()
    }
}
