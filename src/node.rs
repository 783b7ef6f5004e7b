//! The node: the one place that knows every part. Recover, start, serve, and drain in reverse.
//!
//! Rules of chat, formats and protocols are none of its business.

mod descriptors;
mod stats;

use std::io::{ErrorKind, Write};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::auth::{self, LocalKey};
use crate::config::{self, SyncMode};
use crate::conversation::recovery::{self, Recovered};
use crate::conversation::reserve::Reserve;
use crate::conversation::{self, Calls, Place, Started, checkpoint, encoded, passivation, retention, scrub};
use crate::data_dir::{self, DataDir, Lock};
use crate::disk::{Disk, Real};
use crate::exit;
use crate::http::admin::{Admin, BackedUp, Means, Orders};
use crate::http::{self, Edge, Readiness, ReadinessProbe, Tls};
use crate::message::Rejection;
use crate::telemetry::Metrics;
use crate::{tools, wal};

/// So long for the last answers to leave the sockets, also where time is up: after the log has failed, those that say so.
const FAREWELL: Duration = Duration::from_millis(100);
/// No longer than this does a client of the operations address hold up an end for which everything else is ready.
const OPS_FAREWELL_MAX: Duration = Duration::from_millis(500);

/// With so few workers one of them writes the log. Measured on two cores; with more workers the log's own thread has a
/// core to itself, and what a wake-up costs is not taken from calls.
const COMMITTING_WORKERS_MAX: usize = 2;

/// How many threads of the runtime it takes for so many to serve: where they also write the log, one more is in reserve.
pub fn runtime_threads(workers: usize) -> usize {
    workers + usize::from(commit_in_place(workers))
}

fn commit_in_place(workers: usize) -> bool {
    workers <= COMMITTING_WORKERS_MAX
}

/// Why the node does not run, or does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// What is in it cannot be brought back.
    #[error("cannot recover: {0}")]
    Recovery(#[from] recovery::Error),
    /// The conversations cannot be started.
    #[error("cannot start: {0}")]
    Start(#[from] conversation::start::Error),
    /// The log cannot be ended.
    #[error("the log failed: {0}")]
    Log(#[from] wal::Error),
    /// Keys cannot be read or made.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] http::tls::Error),
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
            Self::DataDir(why) => exit::of_data_dir(why),
            Self::Recovery(why) => exit::of_recovery(why),
            Self::Log(why) | Self::Start(conversation::start::Error::Log(why)) => exit::of_log(why),
            Self::Start(conversation::start::Error::Snapshot(why)) => exit::of_snapshot(why),
            Self::Start(conversation::start::Error::Thread(_)) => exit::OTHER,
            Self::Auth(auth::Error::Io { source, .. }) if source.kind() != ErrorKind::NotFound => {
                exit::CANNOT_USE
            }
            Self::Auth(_) | Self::Tls(_) => exit::USAGE,
            Self::Listen { .. } | Self::Process { .. } => exit::OTHER,
        }
    }
}

/// Runs a node until it is told to stop, and drains it.
pub async fn run(mut config: config::Serve) -> Result<(), Error> {
    let began = Instant::now();
    config.connections = descriptors::connections_max(config.connections);
    // Before anything else runs here.
    let reserve = if commit_in_place(config.workers) { Reserve::keep_one() } else { None };
    let tls = config.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
    let node = Node::start(&config, reserve, began)?;
    let public = listen(config.listen, "listen").await?;
    let ops = listen(config.ops, "ops").await?;
    let stop = StopSignals::new()?;
    let serving = node.serve(&config, public.listener, tls.clone(), ops.listener);
    if let Some(tls) = tls {
        renew_on_hangup(tls)?;
    }
    announce(&config, &node.found, public.address, ops.address, began)?;
    let reason = stop.wait(&node.drain_order).await;
    info!(reason, "draining");
    node.drain(serving, config.drain_timeout).await
}

/// Recovered and started.
struct Node {
    /// Never given back by this process: a thread may still write when everything else has ended.
    /// The system takes it back with the process.
    _lock: ManuallyDrop<Lock>,
    started: Started,
    key: Arc<LocalKey>,
    verifier: Arc<auth::Verifier>,
    metrics: Arc<Metrics>,
    /// Told when an operator orders the drain.
    drain_order: Arc<Notify>,
    draining: watch::Sender<bool>,
    format: data_dir::Format,
    found: Found,
    began: Instant,
}

/// What recovery found, for the ready line.
struct Found {
    conversations: usize,
    messages: u64,
}

impl Node {
    fn start(config: &config::Serve, reserve: Option<Reserve>, began: Instant) -> Result<Self, Error> {
        // Before anything is read or removed.
        let lock = ManuallyDrop::new(Lock::acquire(&config.data)?);
        let disk: Arc<dyn Disk> = Arc::new(Real);
        let data = DataDir::open(disk.clone(), &config.data)?;
        // Under the lock: two servers that start at once must not make two keys.
        let key = Arc::new(LocalKey::open_or_create(&config.data)?);
        let verifier = Arc::new(auth::Verifier::open(&key, config)?);
        let place = Place::of(&data, disk);
        let recovered = recovery::recover(&place, &data.wal_dir())?;
        let metrics = Arc::new(Metrics::new(config.sync));
        report(&recovered, &metrics);
        let found = Found { conversations: recovered.conversations, messages: recovered.messages };
        let (draining, is_draining) = watch::channel(false);
        let (wal_dir, format) = (data.wal_dir(), data.format().clone());
        let data = Arc::new(Mutex::new(data));
        let calls =
            Calls { before_first_batch: mark_or_give_up(data.clone()), on_log_failure: Box::new(give_up) };
        let started = conversation::start(
            recovered,
            place,
            &wal_dir,
            options(config, reserve),
            &metrics,
            is_draining,
            calls,
        )?;
        // On a full disk the log begins only with its first batch.
        if started.log_has_begun() {
            mark_started(&data)?;
        }
        let drain_order = Arc::default();
        Ok(Self { _lock: lock, started, key, verifier, metrics, drain_order, draining, format, found, began })
    }

    /// Answers from here on. The edge ends with the drain, the operations address with the node.
    fn serve(
        &self,
        config: &config::Serve,
        public: TcpListener,
        tls: Option<Arc<Tls>>,
        ops: TcpListener,
    ) -> Serving {
        let options = http::Options::from(config);
        let edge = Edge::serve(
            public,
            self.started.conversations.clone(),
            self.verifier.clone(),
            options.clone(),
            tls,
            self.metrics.clone(),
            self.draining.subscribe(),
        );
        let (stopping, is_stopping) = watch::channel(false);
        let (metrics, readiness) = (self.metrics.clone(), self.readiness());
        let ops = http::ops::serve(ops, metrics, readiness, self.admin(config), options, is_stopping);
        Serving { edge, ops, stopping }
    }

    /// What an operator may order; each order may take minutes.
    fn admin(&self, config: &config::Serve) -> Admin {
        let (operator, root, format) = (self.started.operator(), config.data.clone(), self.format.clone());
        let snapshot = self.started.operator();
        let figures = self.figures(config);
        let orders = Orders {
            stats: Box::new(move || figures.take()),
            snapshot: Box::new(move |compact| snapshot.checkpoint(compact).map_err(|why| why.to_string())),
            backup: Box::new(move |to| {
                let copied = tools::backup_running(&root, &format, &operator, to).map_err(admin_refusal)?;
                let tools::Copied { files, linked, bytes, last_lsn } = copied;
                info!(to = %to.display(), files, linked, bytes, last_lsn, "backed up");
                Ok(BackedUp { files, linked, bytes, last_lsn })
            }),
        };
        Admin::new(self.verifier.clone(), orders, self.means())
    }

    /// With what the admin calls are answered that are no orders.
    fn means(&self) -> Means {
        let drain_order = self.drain_order.clone();
        Means {
            key: self.key.clone(),
            conversations: self.started.conversations.clone(),
            feed: self.started.feed(),
            // One that comes before anybody waits for it is kept.
            drain: Box::new(move || drain_order.notify_one()),
            draining: self.draining.subscribe(),
        }
    }

    fn figures(&self, config: &config::Serve) -> stats::Source {
        let facts = stats::Facts {
            began: self.began,
            sync_mode: config.sync,
            format: self.format.clone(),
            root: config.data.clone(),
            messages: self.found.messages,
            connections_max: config.connections,
            memory_bytes_max: config.memory_limit_bytes,
        };
        let (metrics, readiness) = (self.metrics.clone(), self.readiness());
        stats::Source { operator: self.started.operator(), metrics, readiness, facts }
    }

    fn readiness(&self) -> ReadinessProbe {
        let (draining, log) = (self.draining.subscribe(), self.started.log_probe());
        Arc::new(move || match log() {
            _ if *draining.borrow() => Readiness::Draining,
            wal::State::Writable => Readiness::Ready,
            wal::State::ReadOnly => Readiness::ReadOnly,
            wal::State::Failed | wal::State::Closed => Readiness::LogFailed,
        })
    }

    /// In reverse: take nothing new, finish what was taken, take the last checkpoint, close the
    /// log. Everything acknowledged is durable already, so running out of time loses nothing.
    async fn drain(self, serving: Serving, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let Serving { edge, ops, stopping } = serving;
        let _ = self.draining.send(true);
        // What hangs at the end of half the time will hang at the end of all of it.
        if tokio::time::timeout(timeout / 2, edge).await.is_err() {
            warn!("some connections did not end in time; closing them");
        }
        let stopped = tokio::time::timeout_at(deadline.into(), self.started.stop()).await;
        let _ = stopping.send(true);
        // What was asked of it is answered too, an order to drain first of all.
        let _ = tokio::time::timeout_at(farewell(deadline).into(), ops).await;
        match stopped {
            Ok(result) => result?,
            Err(_) => warn!("the last checkpoint did not end in time; the next start reads the log instead"),
        }
        info!("drained");
        Ok(())
    }
}

/// Until when the operations address may finish its answers.
fn farewell(deadline: Instant) -> Instant {
    let now = Instant::now();
    deadline.clamp(now + FAREWELL, now + OPS_FAREWELL_MAX)
}

/// What the operator can put right is theirs to read; the rest goes to the log.
fn admin_refusal(why: tools::Error) -> Rejection {
    match why {
        tools::Error::CannotUse { .. } | tools::Error::Refused(_) | tools::Error::Io { .. } => {
            Rejection::Invalid(why.to_string())
        }
        why => Rejection::Broken(why.to_string()),
    }
}

/// What answers clients and operators.
struct Serving {
    edge: JoinHandle<()>,
    ops: JoinHandle<()>,
    stopping: watch::Sender<bool>,
}

fn options(config: &config::Serve, reserve: Option<Reserve>) -> conversation::Options {
    let defaults = conversation::Options::default();
    let sync = match config.sync {
        SyncMode::Always => wal::SyncMode::Always,
        SyncMode::Interval => wal::SyncMode::Interval(config.sync_interval),
        SyncMode::Never => wal::SyncMode::Never,
    };
    let admission = defaults.admission;
    conversation::Options {
        log: wal::Options {
            sync,
            segment_bytes: config.segment_bytes,
            first_segment_bytes: defaults.log.first_segment_bytes.min(config.segment_bytes),
            free_bytes_min: config.segment_bytes,
            // Permits refuse first: then the caller hears it before any work was done.
            queue_records_max: admission.in_flight_max,
            queue_bytes_max: admission.in_flight_bytes_max,
            ..defaults.log
        },
        commits_in_place: commit_in_place(config.workers),
        reserve,
        checkpoint: checkpoint::Options {
            interval: config.checkpoint_interval,
            log_bytes: config.checkpoint_bytes,
        },
        passivation: passivation::Options {
            idle_after: config.idle_after,
            memory_bytes_max: config.memory_limit_bytes,
        },
        scrub: scrub::Options {
            interval: config.scrub_interval.unwrap_or_default(),
            bytes_per_second: config.scrub_bytes_per_second,
        },
        keep_log: config.keep_log.unwrap_or_default(),
        recall_window: config.recall_window,
        retention: retention::Options { age: config.retain_age, count: config.retain_count },
        pages: encoded::Options { bytes_max: defaults.pages.bytes_max.min(config.memory_limit_bytes / 16) },
        ..defaults
    }
}

fn report(recovered: &Recovered, metrics: &Metrics) {
    if let Some(torn) = &recovered.log.torn_tail {
        metrics.torn_tails.inc();
        warn!(
            segment = %torn.segment.display(),
            offset = torn.offset,
            bytes = torn.bytes,
            copy = %torn.quarantined.display(),
            "cut the torn tail of the log: the end of a batch that was never acknowledged"
        );
    }
    for rejected in &recovered.rejected {
        error!(file = %rejected.file.display(), why = %rejected.why, "a damaged snapshot was passed over for an older one");
    }
}

/// From here on a log that is missing is damage.
fn mark_started(data: &Mutex<DataDir>) -> Result<(), data_dir::Error> {
    data.lock().unwrap_or_else(PoisonError::into_inner).mark_started()
}

/// On the log's thread, before anything is acknowledged.
fn mark_or_give_up(data: Arc<Mutex<DataDir>>) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        if let Err(why) = mark_started(&data) {
            error!(%why, "cannot note that the log has begun; stopping before anything is acknowledged");
            std::process::exit(i32::from(exit::DISK));
        }
    })
}

/// On the log's thread: nothing further was acknowledged. The answers that say so get a moment to
/// leave; then the process ends, and recovery starts from the disk.
fn give_up(why: wal::Error) {
    error!(%why, "the log failed; stopping without another sync, start again to recover from the disk");
    std::thread::sleep(FAREWELL);
    std::process::exit(i32::from(exit::of_log(&why)));
}

/// A listener and the address it got.
struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<Listening, Error> {
    let cannot = |source| Error::Listen { address, flag, source };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok(Listening { listener, address })
}

/// The one line on standard output.
fn announce(
    config: &config::Serve,
    found: &Found,
    http: SocketAddr,
    ops: SocketAddr,
    started: Instant,
) -> Result<(), Error> {
    let Found { conversations, messages } = found;
    let (data, ms) = (config.data.display(), started.elapsed().as_millis());
    let line = format!(
        "chinwag ready http={http} ops={ops} data={data} conversations={conversations} messages={messages} in_ms={ms}\n"
    );
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Error::Process { what: "cannot write to standard output", source })?;
    info!(sync = config.sync.as_str(), "ready");
    Ok(())
}

/// Reads the certificate and its key again on every SIGHUP, as long as the process lives.
fn renew_on_hangup(tls: Arc<Tls>) -> Result<(), Error> {
    let mut hangup = catch(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let tls = tls.clone();
            match tokio::task::spawn_blocking(move || tls.reload()).await {
                Ok(Ok(())) => info!("the certificate was read again"),
                Ok(Err(why)) => error!(%why, "the certificate stays as it was"),
                Err(why) => error!(%why, "reading the certificate again broke"),
            }
        }
    });
    Ok(())
}

fn catch(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|source| Error::Process { what: "cannot catch signals", source })
}

/// SIGTERM and SIGINT, caught from before the ready line on.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> Result<Self, Error> {
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    /// Waits for the first of them or for an operator's order, and names it.
    async fn wait(mut self, order: &Notify) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = order.notified() => "an order",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answers_get_a_moment_whether_time_is_up_or_not() {
        let now = Instant::now();
        let got = |left: Duration| farewell(now + left).duration_since(now);
        assert!(got(Duration::ZERO) >= FAREWELL);
        assert_eq!(got(Duration::from_millis(400)), Duration::from_millis(400));
        assert!(got(Duration::from_mins(1)) < Duration::from_secs(50), "no client holds up the end for long");
    }
}
