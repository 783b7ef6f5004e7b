//! Inboxes: for each user who is looking, where all their conversations stand, and the sessions that
//! are to hear what happens in them.
//!
//! An inbox is in memory while its user is connected or has just asked, and is derived: it is read
//! from the packs' index of people and from the conversations that are in memory, and from then on
//! moved by their events. How conversations are asked is none of its business; [`Inbox::open`] is
//! given what was found.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{Notify, watch};

use self::rows::{Effect, Rows, Standing};
use crate::live::{Event, Session};
use crate::message::{ConversationKey, Rejection, UserId};

pub mod delivery;
pub mod newcomers;
pub mod rows;

/// Sessions of one user at a time: every device of a person many times over, and a bound on what one
/// account can hold.
pub const SESSIONS_PER_USER_MAX: usize = 64;
/// Records whose events wait while an inbox is read, which takes milliseconds; the conversations of
/// further ones are asked where they stand.
const WAITING_MAX: usize = 4_096;

/// The inbox of one user.
#[derive(Debug)]
pub struct Inbox {
    /// Whose it is.
    pub user: UserId,
    inner: Mutex<Inner>,
    /// Notified whenever a row has changed.
    pub changed: Notify,
    /// What became of reading it: `None` until that is known.
    read: watch::Sender<Option<Result<(), Rejection>>>,
    /// Held by whoever asks conversations how they stand: the others wait for the answers.
    asking: tokio::sync::Mutex<()>,
    /// Held by whoever makes its user block somebody, from the count of blocks until one more counts.
    blocking: tokio::sync::Mutex<()>,
    /// When it was last asked for, in seconds of the node's life.
    used_s: AtomicU32,
}

#[derive(Debug)]
struct Inner {
    stage: Stage,
    rows: Rows,
    sessions: Vec<Arc<Session>>,
    /// Conversations that nobody could say how they stand; as the rows, bounded by those of the user.
    unknown: HashSet<Arc<ConversationKey>>,
    /// Conversations being asked, and the events that come meanwhile; at most [`WAITING_MAX`] each.
    asked: HashMap<Arc<ConversationKey>, Waiting>,
    /// Of those, the ones that some session's hello could not name: its first event of them has to say where they
    /// stand.
    untold: HashSet<Arc<ConversationKey>>,
}

/// Events by record of the log.
type Waiting = Vec<(u64, Vec<Arc<Event>>)>;

#[derive(Debug)]
enum Stage {
    /// Being read. Events that come meanwhile wait, by record of the log; at most [`WAITING_MAX`].
    Reading(Waiting),
    /// The rows are true.
    Open,
    /// Not in the directory of inboxes any more: nobody looks at it.
    Closed,
}

impl Inbox {
    fn new(user: UserId, now_s: u32) -> Self {
        let inner = Inner {
            stage: Stage::Reading(Vec::new()),
            rows: Rows::new(user.clone()),
            sessions: Vec::new(),
            unknown: HashSet::new(),
            asked: HashMap::new(),
            untold: HashSet::new(),
        };
        let read = watch::Sender::new(None);
        Self {
            user,
            inner: Mutex::new(inner),
            changed: Notify::new(),
            read,
            asking: tokio::sync::Mutex::new(()),
            blocking: tokio::sync::Mutex::new(()),
            used_s: AtomicU32::new(now_s),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is read; the answer is whether that went well.
    pub async fn is_read(&self) -> Result<(), Rejection> {
        let mut read = self.read.subscribe();
        let outcome = read.wait_for(Option::is_some).await;
        // The sender lives in the inbox itself.
        outcome.map_or(Err(Rejection::Overloaded), |outcome| outcome.clone().unwrap_or(Ok(())))
    }

    /// It has been read: `put` puts in what was found, then the events that came meanwhile count.
    pub fn open(&self, put: impl FnOnce(&mut Rows), unknown: impl IntoIterator<Item = Arc<ConversationKey>>) {
        let mut inner = self.inner();
        put(&mut inner.rows);
        inner.unknown.extend(unknown);
        if let Stage::Reading(waiting) = std::mem::replace(&mut inner.stage, Stage::Open) {
            waiting.iter().for_each(|(lsn, events)| inner.take(*lsn, events));
        }
        // Of those whose events did not all fit, what was read is old.
        let Inner { rows, unknown, .. } = &mut *inner;
        unknown.iter().for_each(|key| rows.remove(key));
        drop(inner);
        self.read.send_replace(Some(Ok(())));
    }

    /// It could not be read.
    fn give_up(&self, why: Rejection) {
        // Nothing was put in yet; its conversations let go of it when the next inbox joins them.
        let _ = self.inner().close();
        self.read.send_replace(Some(Err(why)));
    }

    /// Takes over what one record of the log did to one conversation, and gives it to the sessions.
    pub fn deliver(&self, lsn: u64, events: &[Arc<Event>]) {
        let mut inner = self.inner();
        match &mut inner.stage {
            Stage::Reading(waiting) if waiting.len() < WAITING_MAX => waiting.push((lsn, events.to_vec())),
            Stage::Reading(_) => {
                inner.unknown.extend(events.first().map(|event| event.key.clone()));
            }
            Stage::Open => inner.take(lsn, events),
            Stage::Closed => return,
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Nobody knows what the rows have of a conversation: it is asked again, and the sessions are
    /// behind.
    pub fn mistrust(&self, key: &Arc<ConversationKey>) {
        let mut inner = self.inner();
        inner.rows.remove(key);
        inner.unknown.insert(key.clone());
        inner.sessions.iter().for_each(|session| session.fall_behind());
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Gives the sessions something that no record of the log stands behind.
    pub fn pass_on(&self, event: &Arc<Event>) {
        let inner = self.inner();
        if inner.rows.get(&event.key).is_some() {
            inner.sessions.iter().for_each(|session| session.push(event));
        }
    }

    /// Looks at the rows, or changes them.
    pub fn with_rows<T>(&self, look: impl FnOnce(&mut Rows) -> T) -> T {
        look(&mut self.inner().rows)
    }

    /// From here on `session` gets every event; `look` sees the rows as they are at that moment.
    pub fn attach<T>(
        &self,
        session: &Arc<Session>,
        look: impl FnOnce(&mut Rows) -> T,
    ) -> Result<T, Rejection> {
        let mut inner = self.inner();
        if inner.sessions.len() >= SESSIONS_PER_USER_MAX {
            return Err(Rejection::Invalid(format!(
                "a user may have at most {SESSIONS_PER_USER_MAX} streams at a time"
            )));
        }
        if matches!(inner.stage, Stage::Closed) {
            return Err(Rejection::Overloaded);
        }
        let Inner { sessions, untold, unknown, asked, .. } = &mut *inner;
        if sessions.is_empty() {
            untold.clear();
        }
        sessions.push(session.clone());
        untold.extend(unknown.iter().chain(asked.keys()).cloned());
        Ok(look(&mut inner.rows))
    }

    /// `session` gets nothing any more.
    pub fn detach(&self, session: &Arc<Session>, now_s: u32) {
        self.inner().sessions.retain(|other| !Arc::ptr_eq(other, session));
        self.used_s.store(now_s, Ordering::Relaxed);
    }

    /// Whether its user is connected.
    pub fn is_online(&self) -> bool {
        !self.inner().sessions.is_empty()
    }

    /// Whether it is of no use any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.inner().stage, Stage::Closed)
    }

    /// Whether conversations have to be asked how they stand, or are being asked.
    pub fn has_unknown(&self) -> bool {
        let inner = self.inner();
        !(inner.unknown.is_empty() && inner.asked.is_empty())
    }

    /// The same for groups only.
    pub fn has_unknown_group(&self) -> bool {
        let inner = self.inner();
        let mut keys = inner.unknown.iter().chain(inner.asked.keys());
        keys.any(|key| matches!(&**key, ConversationKey::Group(_)))
    }

    /// The turn to ask: from [`begin_asking`](Self::begin_asking) to [`settle`](Self::settle).
    pub async fn turn_to_ask(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.asking.lock().await
    }

    /// The turn to block somebody: so each who has it finds the blocks before counted.
    pub async fn turn_to_block(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.blocking.lock().await
    }

    /// Conversations that have to be asked how they stand; their events wait from here on.
    pub fn begin_asking(&self) -> Vec<Arc<ConversationKey>> {
        let mut inner = self.inner();
        // Those that whoever had the turn before never settled are asked anew.
        let left = std::mem::take(&mut inner.asked).into_keys();
        let unknown: HashSet<_> = inner.unknown.drain().chain(left).collect();
        unknown.iter().for_each(|key| {
            inner.asked.insert(key.clone(), Vec::new());
        });
        unknown.into_iter().collect()
    }

    /// What a conversation answered: where it stands, or that the user is not in it. Everything up to
    /// that record has been delivered. `Err`: it is to be asked again.
    pub fn settle(&self, key: Arc<ConversationKey>, answer: Result<Option<Standing>, ()>) {
        let mut inner = self.inner();
        let waiting = inner.asked.remove(&key).unwrap_or_default();
        let Ok(standing) = answer else {
            inner.unknown.insert(key);
            return;
        };
        inner.rows.remove(&key);
        if let Some(standing) = standing {
            inner.rows.put(key.clone(), standing);
        }
        // The sessions had them when they came.
        for (lsn, events) in waiting {
            inner.rows.apply(lsn, &events);
        }
        drop(inner);
        self.changed.notify_waiters();
    }
}

impl Inner {
    fn take(&mut self, lsn: u64, events: &[Arc<Event>]) {
        let Some(first) = events.first() else { return };
        match self.asked.get_mut(&first.key) {
            Some(waiting) if waiting.len() < WAITING_MAX => waiting.push((lsn, events.to_vec())),
            Some(_) => {
                // What is being asked is old when it comes.
                self.unknown.insert(first.key.clone());
            }
            None => match self.rows.apply(lsn, events) {
                Effect::Nothing => return,
                Effect::News => {}
                Effect::Unknown => {
                    self.unknown.insert(first.key.clone());
                }
            },
        }
        if !first.is_told() {
            return;
        }
        if !self.untold.is_empty() && self.untold.remove(&first.key) {
            // Some have nothing that these events could follow.
            return self.sessions.iter().for_each(|session| session.push_behind(events));
        }
        for session in &self.sessions {
            events.iter().for_each(|event| session.push(event));
        }
        if let Some(base) = events.iter().find_map(|event| self.rows.base_of(event)) {
            self.sessions.iter().for_each(|session| session.push(&base));
        }
    }

    /// Gives the conversations it knows. The rows stay for whoever is looking at them just now.
    fn close(&mut self) -> Vec<Arc<ConversationKey>> {
        self.stage = Stage::Closed;
        self.sessions.clear();
        let asked = std::mem::take(&mut self.asked).into_keys();
        self.rows.keys().cloned().chain(self.unknown.drain()).chain(asked).collect()
    }
}

/// All inboxes in memory.
#[derive(Debug, Default)]
pub struct Inboxes {
    by_user: DashMap<UserId, Arc<Inbox>>,
}

impl Inboxes {
    /// The inbox of `user` if it is in memory, being read or open.
    pub fn get(&self, user: &str) -> Option<Arc<Inbox>> {
        self.by_user.get(user).map(|inbox| inbox.clone())
    }

    /// Whether nobody is looking at anything.
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// How many are in memory.
    pub fn len(&self) -> usize {
        self.by_user.len()
    }

    /// The inbox of `user`; true if it is new and the caller has to read it.
    pub fn enter(&self, user: &UserId, now_s: u32) -> (Arc<Inbox>, bool) {
        if let Some(inbox) = self.by_user.get(user) {
            inbox.used_s.store(now_s, Ordering::Relaxed);
            return (inbox.clone(), false);
        }
        match self.by_user.entry(user.clone()) {
            Entry::Occupied(inbox) => (inbox.get().clone(), false),
            Entry::Vacant(place) => (place.insert(Arc::new(Inbox::new(user.clone(), now_s))).clone(), true),
        }
    }

    /// An inbox could not be read: the next who asks tries again.
    pub fn give_up(&self, inbox: &Arc<Inbox>, why: Rejection) {
        self.by_user.remove_if(&inbox.user, |_, other| Arc::ptr_eq(other, inbox));
        inbox.give_up(why);
    }

    /// Takes those out of memory that have no session and were not asked for since `oldest_s`, and
    /// beyond `bytes_max` the longest unused ones too. Returns them with their conversations.
    pub fn close_idle(&self, oldest_s: u32, bytes_max: u64) -> Vec<(Arc<Inbox>, Vec<Arc<ConversationKey>>)> {
        let oldest_s = oldest_s.max(self.newest_to_go(bytes_max).unwrap_or(0));
        let mut closed = Vec::new();
        self.by_user.retain(|_, inbox| {
            if inbox.used_s.load(Ordering::Relaxed) >= oldest_s {
                return true;
            }
            let keys = inbox.close_if_alone();
            let stays = keys.is_none();
            closed.extend(keys.map(|keys| (inbox.clone(), keys)));
            stays
        });
        if !closed.is_empty() && self.by_user.len() < self.by_user.capacity() / 4 {
            // Empty slots cost as much as full ones.
            self.by_user.shrink_to_fit();
        }
        closed
    }

    /// Over the limit: those used before this second go.
    fn newest_to_go(&self, bytes_max: u64) -> Option<u32> {
        let all: Vec<_> = self.by_user.iter().map(|inbox| inbox.usage()).collect();
        let total: u64 = all.iter().map(|(.., bytes)| bytes).sum();
        let mut excess = total.checked_sub(bytes_max).filter(|excess| *excess > 0)?;
        // Whoever is connected stays.
        let alone = all.into_iter().filter(|(online, ..)| !online);
        let mut usage: Vec<(u32, u64)> = alone.map(|(_, used_s, bytes)| (used_s, bytes)).collect();
        usage.sort_unstable();
        for (used_s, bytes) in usage {
            excess = excess.saturating_sub(bytes);
            if excess == 0 {
                return Some(used_s.saturating_add(1));
            }
        }
        Some(u32::MAX)
    }
}

impl Inbox {
    /// Whether its user is connected, when it was last asked for, and what it takes.
    fn usage(&self) -> (bool, u32, u64) {
        let inner = self.inner();
        (!inner.sessions.is_empty(), self.used_s.load(Ordering::Relaxed), inner.rows.bytes() as u64)
    }

    /// Closes it unless somebody is connected or waits for it; gives its conversations.
    fn close_if_alone(self: &Arc<Self>) -> Option<Vec<Arc<ConversationKey>>> {
        let mut inner = self.inner();
        let alone = inner.sessions.is_empty() && matches!(inner.stage, Stage::Open);
        let keys = alone.then(|| inner.close());
        drop(inner);
        // Whoever waits for a change looks again, into another inbox.
        self.changed.notify_waiters();
        keys
    }
}

#[cfg(test)]
mod counted;
#[cfg(test)]
mod tests;
