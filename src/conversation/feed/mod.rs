//! The feed: everything that was accepted, in the order of the log, from any position that is kept.
//!
//! Promises each durable record once and in order, whoever reads, at positions that are dense; that nobody gets a
//! text that nobody may read any more; and that what cannot be given is an error and never a gap. It reads the segments
//! themselves: a send pays nothing for it, and a batch one look at a counter. How long the log is kept, and how a
//! record looks on the wire, is none of its business.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::cursors::Cursors;
pub use self::entry::{Change, Conversation, Entry};
pub use self::fate::Fate;
pub(super) use self::followers::Followers;
use self::records::Records;
use super::Conversations;
use super::codec;
use super::completion::Ticket;
use super::publisher::Place;
use super::reader::ASKED_AT_A_TIME;
use crate::config::limits::{FEED_BYTES_MAX, FEEDS_MAX};
use crate::disk::{Disk, tells_of_loss};
use crate::message::Rejection;
use crate::wal::{self, Lsn, SegmentFile, StoreId, Wal, follow};

mod cursors;
mod entry;
mod fate;
mod followers;
mod records;

/// Segments that one page is read from at most: a start that nobody writes behind leaves short ones.
const SEGMENTS_MAX: usize = 8;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record that is kept.
    Oldest,
    /// Behind the newest.
    Newest,
    /// With this record.
    At(u64),
}

/// What a feed is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Where to begin.
    pub start: Start,
    /// The epoch that the reader knows, if it wants to be told when that is over.
    pub epoch: Option<u32>,
    /// At most so many records.
    pub count: usize,
    /// How long to wait while there is none.
    pub wait: Duration,
}

/// Where the log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// The oldest record that is kept; one behind `newest` where none is.
    pub first: u64,
    /// The newest durable record; 0 before the first.
    pub newest: u64,
    /// Changes only when a restore took history back.
    pub epoch: u32,
    /// Which store it is.
    pub store: StoreId,
}

/// A page of records.
#[derive(Debug)]
pub struct FeedPage {
    records: Records,
    /// Where to go on.
    pub next: u64,
    /// Where the log stood behind it.
    pub positions: Positions,
    /// Held until it is written out: so many pages are in memory at most.
    _turn: Option<Arc<OwnedSemaphorePermit>>,
}

impl FeedPage {
    /// The records, in the order of the log.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<'_>, codec::Error>> {
        self.records.entries()
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record is not kept any more.
    #[error(
        "offset {asked} is no longer kept: the oldest kept is {first}; `serve --keep-log` keeps the log for longer"
    )]
    Gone {
        /// What was asked for.
        asked: u64,
        /// The oldest there is.
        first: u64,
    },
    /// No record has come so far.
    #[error(
        "offset {asked} lies beyond the next record, {next}: it is of another store, or a restore or a power cut took records back"
    )]
    Beyond {
        /// What was asked for.
        asked: u64,
        /// The next that will come.
        next: u64,
    },
    /// A restore took history back, so positions may mean other records than they did.
    #[error(
        "epoch {asked} is over, this is {epoch}: a restore took history back, and offsets from before may name other records"
    )]
    OtherEpoch {
        /// What the reader knows.
        asked: u32,
        /// What is true.
        epoch: u32,
    },
    /// Too many feeds are read, or wait.
    #[error("too many feeds are read, or wait")]
    TooMany,
    /// The log cannot be read here.
    #[error("the log cannot be read from offset {from} on: {why}")]
    Unreadable {
        /// The first record that was wanted.
        from: u64,
        /// The first record of the next segment, from which on it may be read.
        resume: Option<u64>,
        /// Why.
        why: wal::Error,
    },
    /// A conversation could not say what has become of its messages, the log could not be read now, or something broke.
    #[error("{0:?}")]
    Rejected(Rejection),
}

/// Reads the log for whoever follows it. Cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    conversations: Conversations,
    log: Arc<Wal<Ticket>>,
    disk: Arc<dyn Disk>,
    store: StoreId,
    followers: Arc<Followers>,
    cursors: Mutex<Cursors>,
    /// One for each feed that is read or waits.
    turns: Arc<Semaphore>,
}

impl Feed {
    pub(super) fn new(
        conversations: Conversations,
        log: Arc<Wal<Ticket>>,
        place: &Place,
        followers: Arc<Followers>,
    ) -> Self {
        let (disk, store) = (place.disk.clone(), place.store);
        let (cursors, turns) = (Mutex::default(), Arc::new(Semaphore::new(FEEDS_MAX)));
        Self(Arc::new(Shared { conversations, log, disk, store, followers, cursors, turns }))
    }

    /// Where the log stands now.
    pub fn positions(&self) -> Positions {
        self.0.positions()
    }

    /// A page of records. Where there is none, waits for one to become durable, for the time to pass or for the node to
    /// drain, and then answers with an empty page.
    pub async fn read(&self, wanted: Wanted) -> Result<FeedPage, Error> {
        let turn = Arc::new(self.0.turns.clone().try_acquire_owned().map_err(|_| Error::TooMany)?);
        match self.read_from(self.0.begin(&wanted)?, &wanted, &turn).await {
            // The oldest went while it was looked for: there is another one.
            Err(Error::Gone { .. }) if wanted.start == Start::Oldest => {
                self.read_from(self.0.begin(&wanted)?, &wanted, &turn).await
            }
            read => read,
        }
    }

    async fn read_from(
        &self,
        from: Lsn,
        wanted: &Wanted,
        turn: &Arc<OwnedSemaphorePermit>,
    ) -> Result<FeedPage, Error> {
        if !self.0.has(from) && !wanted.wait.is_zero() {
            // Whoever asks again and again would spin until the end.
            if self.0.is_draining() {
                return Err(Error::Rejected(Rejection::Draining));
            }
            self.0.wait_for(from, wanted.wait).await;
        }
        match self.0.has(from) {
            true => self.page(from, wanted.count, turn.clone()).await,
            false => Ok(FeedPage {
                records: Records::default(),
                next: from.0,
                positions: self.0.positions(),
                _turn: None,
            }),
        }
    }

    async fn page(
        &self,
        from: Lsn,
        count: usize,
        turn: Arc<OwnedSemaphorePermit>,
    ) -> Result<FeedPage, Error> {
        let (shared, of_reading) = (self.0.clone(), turn.clone());
        let read = tokio::task::spawn_blocking(move || {
            // Kept as long as it takes, also when nobody waits for it any more.
            let _turn = of_reading;
            shared.read(from, count)
        });
        let (mut records, next) = read.await.map_err(|why| broken(&why))??;
        self.tell_fates(&mut records).await?;
        Ok(FeedPage { records, next: next.0, positions: self.0.positions(), _turn: Some(turn) })
    }

    /// Asks what has become of the messages whose texts would be given out. It is asked behind the reading, so that
    /// what was recalled before the call is known.
    async fn tell_fates(&self, records: &mut Records) -> Result<(), Error> {
        let sends = records.sends().map_err(|why| broken(&why))?;
        let asking = sends.into_iter().map(|(key, (reader, rows))| async move {
            let messages = rows.iter().map(|(_, msg_index)| *msg_index).collect();
            let fates = self.0.conversations.fates(&key, &reader, messages).await?;
            Ok::<_, Rejection>(rows.into_iter().map(|(row, _)| row).zip(fates).collect::<Vec<_>>())
        });
        let mut answers = stream::iter(asking).buffer_unordered(ASKED_AT_A_TIME);
        let mut told = HashMap::new();
        while let Some(fates) = answers.next().await {
            told.extend(fates.map_err(Error::Rejected)?);
        }
        drop(answers);
        records.tell(told);
        Ok(())
    }
}

impl Shared {
    fn positions(&self) -> Positions {
        // First what is durable: what is removed meanwhile is below it.
        let newest = self.log.durable_lsn();
        let first = self.log.segments_from(newest, 0).map_or(newest.next(), |(oldest, _)| oldest);
        Positions {
            first: first.min(newest.next()).0,
            newest: newest.0,
            epoch: self.conversations.epoch(),
            store: self.store,
        }
    }

    fn is_draining(&self) -> bool {
        *self.conversations.shared.draining.borrow()
    }

    fn has(&self, lsn: Lsn) -> bool {
        self.log.durable_lsn() >= lsn
    }

    /// With which record to begin.
    fn begin(&self, wanted: &Wanted) -> Result<Lsn, Error> {
        let Positions { first, newest, epoch, .. } = self.positions();
        if let Some(asked) = wanted.epoch.filter(|asked| *asked != epoch) {
            return Err(Error::OtherEpoch { asked, epoch });
        }
        match wanted.start {
            Start::Oldest => Ok(Lsn(first)),
            Start::Newest => Ok(Lsn(newest + 1)),
            Start::At(asked) if asked < first => Err(Error::Gone { asked, first }),
            Start::At(asked) if asked > newest + 1 => Err(Error::Beyond { asked, next: newest + 1 }),
            Start::At(asked) => Ok(Lsn(asked)),
        }
    }

    /// Waits for a record, or until there is no more reason to.
    async fn wait_for(&self, lsn: Lsn, wait: Duration) {
        let deadline = Instant::now() + wait;
        let mut draining = self.conversations.shared.draining.clone();
        let following = self.followers.wait();
        loop {
            let arrival = following.armed();
            // A node that is gone drains too.
            let over = Instant::now() >= deadline || *draining.borrow() || draining.has_changed().is_err();
            if self.has(lsn) || over {
                return;
            }
            tokio::select! {
                () = arrival => {}
                () = tokio::time::sleep_until(deadline) => {}
                _ = draining.wait_for(|draining| *draining) => {}
            }
        }
    }

    /// Reads records from `from` on, which is durable, and says with which to go on. Blocks.
    fn read(&self, from: Lsn, count: usize) -> Result<(Records, Lsn), Error> {
        let mut through = self.log.durable_lsn();
        let Some((oldest, mut segments)) = self.log.segments_from(from, SEGMENTS_MAX + 1) else {
            return Err(Error::Gone { asked: from.0, first: through.0 + 1 });
        };
        if from < oldest {
            return Err(Error::Gone { asked: from.0, first: oldest.0 });
        }
        if segments.len() > SEGMENTS_MAX {
            through = segments.pop().map_or(through, |behind| behind.first_lsn.previous());
        }
        let mark = self.cursors().nearest(from);
        let mut records = Records::default();
        let followed = follow(&*self.disk, &segments, self.store, mark, from..=through, &mut |record| {
            records.take(record, count, FEED_BYTES_MAX)
        });
        let followed = followed.map_err(|why| self.unreadable(from, &segments, why))?;
        let next = followed.end.next();
        self.cursors().note(followed, oldest);
        Ok((records, next))
    }

    /// A segment that was removed between the look at the list and the opening is no damage.
    fn unreadable(&self, from: Lsn, segments: &[SegmentFile], why: wal::Error) -> Error {
        let is_absent = matches!(&why, wal::Error::Io { source, path, .. }
            if source.kind() == std::io::ErrorKind::NotFound && segments[0].path == *path);
        let oldest = self.log.segments_from(from, 0).map(|(oldest, _)| oldest);
        let was_oldest = oldest.is_some_and(|oldest| oldest >= segments[0].first_lsn);
        let behind = segments.get(1).map(|segment| segment.first_lsn);
        match behind.filter(|_| is_absent && was_oldest) {
            Some(first) => Error::Gone { asked: from.0, first: first.max(oldest.unwrap_or(first)).0 },
            None if is_passing(&why) => {
                tracing::warn!(from = from.0, %why, "the feed cannot read the log now");
                Error::Rejected(Rejection::CannotRead)
            }
            None => Error::Unreadable { from: from.0, resume: self.resume_behind(from), why },
        }
    }

    fn resume_behind(&self, from: Lsn) -> Option<u64> {
        let (_, segments) = self.log.segments_from(from, 2)?;
        segments.get(1).map(|segment| segment.first_lsn.0)
    }

    fn cursors(&self) -> std::sync::MutexGuard<'_, Cursors> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it says nothing of the log, so that the next try may do.
fn is_passing(why: &wal::Error) -> bool {
    matches!(why, wal::Error::Io { source, .. } if !tells_of_loss(source))
}

fn broken(why: &dyn std::fmt::Display) -> Error {
    Error::Rejected(Rejection::Broken(format!("the feed: {why}")))
}
