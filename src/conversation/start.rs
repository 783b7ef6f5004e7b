//! Starting and stopping: the log, the completing task, the directory, checkpoints and compaction,
//! in the order in which they need each other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::actor::Context;
use super::admission::{self, Admission};
use super::arrivals::Arrivals;
use super::checkpoint::{self, Checkpointer, Checkpoints, Desk, DirtyList, Growth};
use super::compaction::{self, Compaction};
use super::completion::{self, Batches, Deliveries, Ticket};
use super::directory::Directory;
use super::encoded::{self, EncodedPages};
use super::feed::{Feed, Followers};
use super::history;
use super::in_place::Offer;
use super::paging::Paging;
use super::passivation;
use super::publisher::{LogEnds, Place, Publisher};
use super::reader;
use super::recovery::Recovered;
use super::reload::{self, Dead, Deaths, Reloading};
use super::reserve::Reserve;
use super::retention;
use super::scrub::{self, Scrub, Scrubber};
use super::{Conversations, Shared};
use crate::inbox::Inboxes;
use crate::inbox::newcomers::Newcomers;
use crate::snapshot;
use crate::telemetry::Metrics;
use crate::wal::{self, Batch, Lsn, SegmentFile, Wal};

/// Settings of the conversations of a node.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bounds on work in flight.
    pub admission: admission::Options,
    /// The log's own.
    pub log: wal::Options,
    /// Whether a thread of the runtime commits while the disk is quick. Right where there are few of them.
    pub commits_in_place: bool,
    /// Who serves while such a commit hangs. Given up with the last conversation, or at once where none is needed.
    pub reserve: Option<Reserve>,
    /// When to take a checkpoint.
    pub checkpoint: checkpoint::Options,
    /// How long the log is kept after no manifest needs it any more, for restores to a moment.
    pub keep_log: Duration,
    /// How packs are merged.
    pub compaction: compaction::Options,
    /// When conversations leave memory.
    pub passivation: passivation::Options,
    /// When everything on the disk is read.
    pub scrub: scrub::Options,
    /// When conversations whose actor died are read again.
    pub reload: reload::Options,
    /// How long a message may be recalled; `None` for ever.
    pub recall_window: Option<Duration>,
    /// How much of a long conversation is in memory.
    pub history: history::Options,
    /// How much of a conversation is kept.
    pub retention: retention::Options,
    /// How many pages are kept as the edge wrote them.
    pub pages: encoded::Options,
}

/// Why the conversations do not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error(transparent)]
    Log(#[from] wal::Error),
    /// The snapshot directory.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a checkpoint on request failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It was not taken.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// It was taken, but the packs were not merged.
    #[error(transparent)]
    Compaction(#[from] compaction::Error),
    /// The packs were merged, but the log could not go on in a new segment.
    #[error("the packs are merged, but the log's current segment stays: {0}")]
    Rotation(#[from] wal::Reason),
    /// The packs were merged, but older segments are still needed.
    #[error("the packs are merged, but the log is kept from record {0} on: no pack has all of it")]
    LogKept(Lsn),
}

/// Orders of an operator to running conversations. Cheap to clone; everything blocks.
#[derive(Clone)]
pub struct Operator {
    checkpoints: checkpoint::Caller,
    compaction: compaction::Nudge,
    pub(super) publisher: Arc<Publisher>,
    pub(super) directory: Arc<Directory>,
    pub(super) log: Arc<Wal<Ticket>>,
    /// Whether the log is to stay longer than it is needed.
    keeps_log: bool,
}

impl Operator {
    /// Takes a checkpoint now; with `compact`, also merges all packs into one and leaves the log's current segment. No
    /// file has a text then that was recalled before, unless the log is kept; where that fails it is an error.
    pub fn checkpoint(&self, compact: bool) -> Result<(), CheckpointError> {
        if !compact {
            return Ok(self.checkpoints.take_now()?);
        }
        // On a full disk the rest may make room, so it is not left out.
        let begun = self.log.begin_segment();
        self.checkpoints.take_now()?;
        self.compaction.merge_all()?;
        let (begun, oldest) = (begun?, self.log.segments().first().map(|oldest| oldest.first_lsn));
        match oldest {
            Some(oldest) if oldest < begun && !self.keeps_log => Err(CheckpointError::LogKept(oldest)),
            _ => Ok(()),
        }
    }

    /// Calls `take` while no file of the store is removed: with the log's segments, of which the last is being written,
    /// and the newest record in them that is on the disk. Sends go on meanwhile.
    pub fn hold_still<T>(&self, take: impl FnOnce(&[SegmentFile], Lsn) -> T) -> Result<T, wal::Error> {
        self.publisher.hold_still(take)
    }
}

/// Running conversations, and what ends them.
pub struct Started {
    /// The handle for the edge.
    pub conversations: Conversations,
    log: Arc<Wal<Ticket>>,
    /// Who waits for the log to grow.
    followers: Arc<Followers>,
    pub(super) publisher: Arc<Publisher>,
    checkpoints: Checkpoints,
    compaction: Compaction,
    /// `None` when it is off.
    scrub: Option<Scrub>,
    completing: JoinHandle<()>,
    passivating: JoinHandle<()>,
    reloading: JoinHandle<()>,
    keeps_log: bool,
}

/// What the log calls on its own thread.
pub struct Calls {
    /// Before the first batch is let out: nothing is acknowledged until it returns.
    pub before_first_batch: Box<dyn FnOnce() + Send>,
    /// When the log cannot go on; once.
    pub on_log_failure: Box<dyn FnOnce(wal::Error) + Send>,
}

/// Starts what `recovered` found. `draining` becomes true when the node begins to drain.
pub fn start(
    recovered: Recovered,
    place: Place,
    wal_dir: &Path,
    options: Options,
    metrics: &Arc<Metrics>,
    draining: watch::Receiver<bool>,
    calls: Calls,
) -> Result<Started, Error> {
    let (arrivals, followers) = (Arc::new(Arrivals::default()), Arc::new(Followers::default()));
    let deliveries = Deliveries::start();
    let offer = Offer::default();
    let pages = Arc::new(EncodedPages::new(options.pages, place.epoch));
    let (batches, completing) = completion::start(
        offer.clone(),
        arrivals.clone(),
        followers.clone(),
        deliveries.clone(),
        pages.clone(),
        metrics.clone(),
    );
    let desk = Desk::new();
    let growth = desk.growth(&options.checkpoint);
    let sink = sink(batches, growth.clone(), metrics.clone(), calls.before_first_batch);
    let log = options.log.clone();
    let log = Arc::new(start_log(&recovered, &place, wal_dir, log, sink, calls.on_log_failure)?);
    if options.commits_in_place {
        offer.make(&log, options.reserve.clone());
    }
    let (deaths, dead) = mpsc::unbounded_channel();
    let ways = Ways { log: log.clone(), deliveries, pages };
    let common = Common::of(recovered, place, ways, &options, metrics, deaths.clone())?;
    let compaction = common.start_compaction(options.compaction)?;
    let reloading = common.start_reloading(options.reload, deaths, dead);
    let checkpoints = common.start_checkpoints(desk, options.checkpoint, compaction.nudge())?;
    let passivating = common.start_passivating(options.passivation, growth);
    let scrub = common.start_scrub(options.scrub)?;
    Ok(Started {
        publisher: common.publisher.clone(),
        conversations: common.into_conversations(arrivals, draining),
        log,
        followers,
        checkpoints,
        compaction,
        scrub,
        completing,
        passivating,
        reloading,
        keeps_log: !options.keep_log.is_zero(),
    })
}

/// Where conversations leave what they have decided.
struct Ways {
    log: Arc<Wal<Ticket>>,
    deliveries: Deliveries,
    pages: Arc<EncodedPages>,
}

/// What the running parts have in common.
struct Common {
    context: Arc<Context>,
    admission: Arc<Admission>,
    directory: Arc<Directory>,
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
}

impl Common {
    fn of(
        recovered: Recovered,
        place: Place,
        ways: Ways,
        options: &Options,
        metrics: &Arc<Metrics>,
        deaths: Deaths,
    ) -> Result<Self, Error> {
        let (epoch, replay_after, log_ends) = (place.epoch, recovered.replay_after, LogEnds::of(&ways.log));
        let context = Arc::new(context_of(recovered, ways, options, epoch));
        let admission = Arc::new(Admission::new(options.admission));
        let directory = Arc::new(Directory::new(context.clone(), admission.clone(), deaths));
        let archive = context.archive.clone();
        let publisher = Publisher::new(place, archive, log_ends, replay_after, options.keep_log)?;
        let (publisher, metrics) = (Arc::new(publisher), metrics.clone());
        Ok(Self { context, admission, directory, publisher, metrics })
    }

    fn start_compaction(&self, options: compaction::Options) -> std::io::Result<Compaction> {
        let (archive, retention) = (self.context.archive.clone(), self.context.retention);
        Compaction::start(options, retention, archive, self.publisher.clone(), self.metrics.clone())
    }

    fn start_reloading(&self, options: reload::Options, deaths: Deaths, dead: Dead) -> JoinHandle<()> {
        let reloading = Reloading {
            publisher: self.publisher.clone(),
            directory: self.directory.clone(),
            dirty: self.context.dirty.clone(),
            metrics: self.metrics.clone(),
            deaths,
        };
        tokio::spawn(reload::run(options, dead, reloading))
    }

    fn start_checkpoints(
        &self,
        desk: Desk,
        options: checkpoint::Options,
        compaction: compaction::Nudge,
    ) -> std::io::Result<Checkpoints> {
        let Context { archive, log, dirty, .. } = &*self.context;
        desk.open(Checkpointer {
            options,
            publisher: self.publisher.clone(),
            archive: archive.clone(),
            directory: self.directory.clone(),
            log: log.clone(),
            dirty: dirty.clone(),
            metrics: self.metrics.clone(),
            on_published: Box::new(move || compaction.look()),
        })
    }

    fn start_passivating(&self, options: passivation::Options, growth: Growth) -> JoinHandle<()> {
        let (directory, inboxes) = (self.directory.clone(), self.context.inboxes.clone());
        let (admission, metrics) = (self.admission.clone(), self.metrics.clone());
        tokio::spawn(passivation::run(options, directory, inboxes, admission, growth, metrics))
    }

    fn start_scrub(&self, options: scrub::Options) -> std::io::Result<Option<Scrub>> {
        let scrubber = Scrubber {
            options,
            publisher: self.publisher.clone(),
            directory: self.directory.clone(),
            log: self.context.log.clone(),
            metrics: self.metrics.clone(),
        };
        scrubber.start()
    }

    fn into_conversations(self, arrivals: Arc<Arrivals>, draining: watch::Receiver<bool>) -> Conversations {
        let Self { context, admission, directory, .. } = self;
        let (reading, paging) = (Semaphore::new(reader::READS_MAX), Paging::new(context.archive.clone()));
        let epoch = context.epoch;
        let shared = Shared { context, directory, admission, arrivals, reading, paging, draining, epoch };
        Conversations { shared: Arc::new(shared) }
    }
}

/// What every actor is given.
fn context_of(recovered: Recovered, ways: Ways, options: &Options, epoch: u32) -> Context {
    let Ways { log, deliveries, pages } = ways;
    let Recovered { mut archive, dirty: changed, conversations, .. } = recovered;
    archive.history = options.history;
    let dirty = DirtyList::default();
    changed.into_iter().for_each(|key| dirty.add(key));
    Context {
        log,
        archive: Arc::new(archive),
        dirty: Arc::new(dirty),
        recall_window: options.recall_window,
        history: options.history,
        retention: options.retention,
        epoch,
        count: conversations.into(),
        inboxes: Arc::new(Inboxes::default()),
        newcomers: Newcomers::default(),
        deliveries,
        pages,
    }
}

fn start_log(
    recovered: &Recovered,
    place: &Place,
    wal_dir: &Path,
    options: wal::Options,
    sink: wal::Sink<Ticket>,
    on_failure: Box<dyn FnOnce(wal::Error) + Send>,
) -> Result<Wal<Ticket>, wal::Error> {
    let Place { disk, tmp_dir, store, .. } = place;
    Wal::start(disk.clone(), wal_dir, tmp_dir, *store, &recovered.log, options, sink, on_failure)
}

/// What the committer does with a batch: count it, and pass it on.
fn sink(
    batches: Batches,
    mut growth: Growth,
    metrics: Arc<Metrics>,
    before_first_batch: Box<dyn FnOnce() + Send>,
) -> wal::Sink<Ticket> {
    let mut before_first_batch = Some(before_first_batch);
    Box::new(move |batch: Batch<Ticket>| {
        if let Some(call) = before_first_batch.take() {
            call();
        }
        metrics.observe_commit(batch.records, batch.bytes, batch.sync);
        growth.add(batch.bytes as u64);
        // The completing task ends after the log: nobody misses this batch.
        let _ = batches.send(batch);
    })
}

impl Started {
    /// Asks the log whether it takes records.
    pub fn log_probe(&self) -> impl Fn() -> wal::State + Send + Sync + use<> {
        let log = self.log.clone();
        move || log.state()
    }

    /// Whether the log has a segment. It has none when the disk was full at the very first start.
    pub fn log_has_begun(&self) -> bool {
        !self.log.segments().is_empty()
    }

    /// The way for an operator's orders.
    pub fn operator(&self) -> Operator {
        let (checkpoints, compaction) = (self.checkpoints.caller(), self.compaction.nudge());
        let (publisher, log) = (self.publisher.clone(), self.log.clone());
        let directory = self.conversations.shared.directory.clone();
        Operator { checkpoints, compaction, publisher, directory, log, keeps_log: self.keeps_log }
    }

    /// The way to read the log as it grows. The feeds of one node share their limit, so it is asked for once.
    pub fn feed(&self) -> Feed {
        let (conversations, log) = (self.conversations.clone(), self.log.clone());
        Feed::new(conversations, log, &self.publisher.place, self.followers.clone())
    }

    /// Ends everything once no more calls come: what was accepted becomes durable and is
    /// answered, the last checkpoint is taken, the log is closed.
    pub async fn stop(self) -> Result<(), wal::Error> {
        let Self {
            conversations,
            log,
            checkpoints,
            compaction,
            scrub,
            completing,
            passivating,
            reloading,
            ..
        } = self;
        passivating.abort();
        reloading.abort();
        drop(conversations);
        let closing = tokio::task::spawn_blocking(move || {
            scrub.into_iter().for_each(Scrub::stop);
            compaction.stop();
            checkpoints.stop();
            log.close()
        });
        closing.await.map_err(|_| wal::Error::Panicked)??;
        // Ends because closing the log dropped the sink.
        let _ = completing.await;
        Ok(())
    }
}
