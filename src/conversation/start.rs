//! Starting and stopping: the log, the completing task, the directory and the checkpoints in the
//! order in which they need each other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::actor::Context;
use super::admission::{self, Admission};
use super::arrivals::Arrivals;
use super::checkpoint::{self, Checkpointer, Checkpoints, Desk, DirtyList, Growth, Place};
use super::completion::{self, Batches, Ticket};
use super::directory::Directory;
use super::recovery::Recovered;
use super::{Conversations, Shared};
use crate::telemetry::Metrics;
use crate::wal::{self, Batch, Wal};

/// Settings of the conversations of a node.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bounds on work in flight.
    pub admission: admission::Options,
    /// The log's own.
    pub log: wal::Options,
    /// When to take a snapshot.
    pub checkpoint: checkpoint::Options,
    /// How long a message may be recalled; `None` for ever.
    pub recall_window: Option<Duration>,
}

/// Running conversations, and what ends them.
pub struct Started {
    /// The handle for the edge.
    pub conversations: Conversations,
    log: Arc<Wal<Ticket>>,
    checkpoints: Checkpoints,
    completing: JoinHandle<()>,
}

/// Starts what `recovered` found. `draining` becomes true when the node begins to drain;
/// `on_log_failure` runs once, on the log's thread, when the log cannot go on.
pub fn start(
    recovered: Recovered,
    place: Place,
    wal_dir: &Path,
    options: Options,
    metrics: &Arc<Metrics>,
    draining: watch::Receiver<bool>,
    on_log_failure: Box<dyn FnOnce(wal::Error) + Send>,
) -> Result<Started, wal::Error> {
    let arrivals = Arc::new(Arrivals::default());
    let (batches, completing) = completion::start(arrivals.clone());
    let desk = Desk::new();
    let sink = sink(batches, desk.growth(&options.checkpoint), metrics.clone());
    let log = Wal::start(
        place.disk.clone(),
        wal_dir,
        &place.tmp_dir,
        place.store,
        &recovered.log,
        options.log,
        sink,
        on_log_failure,
    )?;
    let log = Arc::new(log);
    let dirty = Arc::new(DirtyList::default());
    for resident in recovered.residents.iter().filter(|resident| resident.dirty) {
        dirty.add((*resident.state.key).clone());
    }
    let context = Context {
        log: log.clone(),
        dirty: dirty.clone(),
        recall_window: options.recall_window,
        epoch: place.epoch,
    };
    let directory = Arc::new(Directory::new(Arc::new(context), recovered.residents));
    let shared = Shared {
        directory: directory.clone(),
        admission: Arc::new(Admission::new(options.admission)),
        arrivals,
        draining,
        epoch: place.epoch,
    };
    let checkpointer = Checkpointer {
        options: options.checkpoint,
        place,
        directory,
        log: log.clone(),
        dirty,
        metrics: metrics.clone(),
        current: recovered.manifest,
        restart: false,
    };
    let checkpoints = desk.open(checkpointer).map_err(wal::Error::Thread)?;
    Ok(Started { conversations: Conversations { shared: Arc::new(shared) }, log, checkpoints, completing })
}

/// What the committer does with a batch: count it, and pass it on.
fn sink(
    batches: Batches,
    mut growth: Growth,
    metrics: Arc<Metrics>,
) -> Box<dyn FnMut(Batch<Ticket>) + Send> {
    Box::new(move |batch| {
        metrics.observe_commit(batch.records, batch.bytes, batch.sync);
        growth.add(batch.bytes as u64);
        // The completing task ends after the log: nobody misses this batch.
        let _ = batches.send(batch);
    })
}

impl Started {
    /// Whether the log takes records.
    pub fn log_state(&self) -> wal::State {
        self.log.state()
    }

    /// Takes a snapshot now. Blocks.
    pub fn checkpoint(&self) -> Result<(), checkpoint::Error> {
        self.checkpoints.take_now()
    }

    /// Ends everything once no more calls come: what was accepted becomes durable and is
    /// answered, the last snapshot is taken, the log is closed.
    pub async fn stop(self) -> Result<(), wal::Error> {
        let Self { conversations, log, checkpoints, completing } = self;
        drop(conversations);
        let closing = tokio::task::spawn_blocking(move || {
            checkpoints.stop();
            log.close()
        });
        closing.await.map_err(|_| wal::Error::Panicked)??;
        // Ends because closing the log dropped the sink.
        let _ = completing.await;
        Ok(())
    }
}
