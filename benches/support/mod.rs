//! A node without its edge, on a temporary directory of the real disk.

// Each bench uses its part of it.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chinwag::config;
use chinwag::conversation::{Calls, Conversations, Options, Place, Started, checkpoint, recovery, start};
use chinwag::data_dir::DataDir;
use chinwag::disk::{Disk, Real};
use chinwag::message::{Address, Draft, Rejection, UserId};
use chinwag::telemetry::Metrics;
use chinwag::wal;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    pub(crate) started: Started,
    /// Closing it would begin the drain.
    _draining: watch::Sender<bool>,
}

impl Node {
    /// Recovers and starts what is in `root`.
    pub(crate) fn start(root: &Path, sync: wal::SyncMode) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let disk: Arc<dyn Disk> = Arc::new(Real);
        let mut data = DataDir::open(disk.clone(), root).expect("a data directory");
        let place = Place::of(&data, disk);
        let recovered = recovery::recover(&place, &data.wal_dir()).expect("recovers");
        let options = Options {
            log: wal::Options { sync, ..wal::Options::default() },
            // Only at the stop: what is measured is to be in the log or in packs, not in both.
            checkpoint: checkpoint::Options { interval: Duration::from_hours(24), log_bytes: u64::MAX },
            ..Options::default()
        };
        let metrics = Arc::new(Metrics::new(config::SyncMode::Always));
        let (draining, is_draining) = watch::channel(false);
        let started = {
            let _inside = runtime.enter();
            let calls = Calls {
                before_first_batch: Box::new(|| {}),
                on_log_failure: Box::new(|why| panic!("the log failed: {why}")),
            };
            start(recovered, place, &data.wal_dir(), options, &metrics, is_draining, calls).expect("starts")
        };
        data.mark_started().expect("marked");
        Self { runtime, started, _draining: draining }
    }

    pub(crate) fn stop(self) {
        self.runtime.block_on(self.started.stop()).expect("stops");
    }
}

/// Sends, again and again while the log's next segment is not made yet: a server answers 503 then.
pub(crate) async fn send(conversations: Conversations, to: Address, draft: Draft) {
    let sender = user("sender");
    loop {
        match conversations.send(&sender, &to, draft.clone()).await {
            Ok(_) => return,
            Err(Rejection::Overloaded) => tokio::task::yield_now().await,
            Err(other) => panic!("refused: {other:?}"),
        }
    }
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a valid id")
}

pub(crate) fn draft(bytes: usize) -> Draft {
    Draft { msg: "m".repeat(bytes), extra: String::new(), client_msg_id: String::new() }
}

/// The peers of `sender`, one conversation each.
pub(crate) fn peers(count: usize) -> Vec<Address> {
    (0..count).map(|number| Address::User(user(&format!("peer-{number}")))).collect()
}
