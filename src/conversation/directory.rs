//! The directory: which conversations are in memory, and the way to each one's actor.
//!
//! ractor's registry is not used: its names are global and free again while an actor still stops.
//! A conversation's actor is started when it is first touched, and it reads its state from the
//! archive before it takes its first call; calls wait in its mailbox meanwhile, so there is never
//! more than one load. Passivation takes an actor out again once a pack has all it knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ractor::{ActorRef, ActorRuntime};
use tracing::error;

use super::actor::{Context, Conversation, Message, Origin, Start};
use super::admission::{Admission, Permit};
use super::archive::Archive;
use super::census::Permits;
use super::durable::DurableHead;
use super::reload::Deaths;
use crate::inbox::Inbox;
use crate::inbox::newcomers::Newcomers;
use crate::message::ConversationKey;
use crate::wal;

/// The way to a running actor.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) actor: ActorRef<Message>,
    pub(crate) head: Arc<DurableHead>,
}

enum Slot {
    /// An actor owns it.
    Hot(Running),
    /// Its data is damaged, or its actor died: what it had is on disk, but not in memory. Refused
    /// until it is released, see [`super::reload`], or a restart.
    Quarantined(Arc<DurableHead>),
}

/// Why a conversation cannot be entered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Quarantined,
    Overloaded,
}

/// A running actor and the permit for a call to it.
pub(crate) type Entered = (Running, Permit);

/// All conversations of a node.
pub(crate) struct Directory {
    context: Arc<Context>,
    admission: Arc<Admission>,
    slots: DashMap<ConversationKey, Slot>,
    /// How many of them are quarantined.
    refused: AtomicUsize,
    /// Who is to be brought back.
    deaths: Deaths,
    /// Where actors run; the checkpoint thread starts some too.
    runtime: tokio::runtime::Handle,
    #[cfg(test)]
    pub(super) meanwhile: Meanwhile,
}

/// For tests: what others do between two looks of [`Directory::enter`].
#[cfg(test)]
#[derive(Default)]
pub(super) struct Meanwhile(std::sync::Mutex<std::collections::VecDeque<Box<dyn FnOnce() + Send>>>);

#[cfg(test)]
impl Meanwhile {
    /// Makes it happen after the next look for which nothing is planned yet.
    pub(super) fn plan(&self, happening: impl FnOnce() + Send + 'static) {
        self.0.lock().expect("not poisoned").push_back(Box::new(happening));
    }

    pub(super) fn happen(&self) {
        let happening = self.0.lock().expect("not poisoned").pop_front();
        happening.into_iter().for_each(|happening| happening());
    }
}

impl Directory {
    /// A directory with nothing in memory. Has to be called inside the runtime in which the actors
    /// are to run.
    pub(crate) fn new(context: Arc<Context>, admission: Arc<Admission>, deaths: Deaths) -> Self {
        Self {
            context,
            admission,
            slots: DashMap::new(),
            refused: AtomicUsize::new(0),
            deaths,
            runtime: tokio::runtime::Handle::current(),
            #[cfg(test)]
            meanwhile: Meanwhile::default(),
        }
    }

    /// How many conversations there are.
    pub(crate) fn count(&self) -> usize {
        self.context.count.load(Ordering::Relaxed)
    }

    /// How many of them are in memory.
    pub(crate) fn resident(&self) -> usize {
        self.slots.len().saturating_sub(self.refused())
    }

    /// How many of them are refused, because they are damaged or their actor died.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// What is in flight in all of them.
    pub(crate) fn permits(&self) -> Permits {
        self.admission.permits()
    }

    /// Whether the log takes records.
    pub(crate) fn log_state(&self) -> wal::State {
        self.context.log.state()
    }

    /// Who came into which conversation since the last checkpoint.
    pub(crate) fn newcomers(&self) -> &Newcomers {
        &self.context.newcomers
    }

    /// Whether the conversation is in memory, or refused.
    pub(crate) fn is_resident(&self, key: &ConversationKey) -> bool {
        self.slots.contains_key(key)
    }

    /// Tells a conversation that an inbox is closed. One that is not in memory has no listeners.
    pub(crate) fn part(&self, key: &ConversationKey, inbox: &Arc<Inbox>) {
        if let Some(slot) = self.slots.get(key)
            && let Slot::Hot(running) = &*slot
        {
            // One that ends just now has none either.
            let _ = running.actor.cast(Message::Part(inbox.clone()));
        }
    }

    /// What is on disk and not in memory.
    pub(crate) fn archive(&self) -> &Arc<Archive> {
        &self.context.archive
    }

    /// Enters a conversation that exists; `None` when nothing ever happened in it.
    pub(crate) fn enter(&self, key: &ConversationKey, bytes: usize) -> Option<Result<Entered, Refusal>> {
        // Loading takes a conversation out of the archive's tail, but only once it has a slot, and
        // passivation takes the slot, but only once a pack has it. So whoever misses it on one of
        // these ways finds it at the second look.
        for _look in 0..2 {
            if let Some(slot) = self.slots.get(key) {
                return Some(self.admit(&slot, bytes));
            }
            #[cfg(test)]
            self.meanwhile.happen();
            if self.archive().has(key) {
                return Some(self.enter_or_begin(key, bytes));
            }
            #[cfg(test)]
            self.meanwhile.happen();
        }
        None
    }

    /// Enters a conversation, which begins if it does not exist.
    pub(crate) fn enter_or_begin(&self, key: &ConversationKey, bytes: usize) -> Result<Entered, Refusal> {
        if let Some(slot) = self.slots.get(key) {
            return self.admit(&slot, bytes);
        }
        // Nothing here waits, so the guard is held over all of it: a conversation never has two
        // actors, and one that is passivated meanwhile is found in the archive, not begun anew.
        match self.slots.entry(key.clone()) {
            Entry::Occupied(slot) => self.admit(slot.get(), bytes),
            Entry::Vacant(slot) => {
                let running = self.start(key);
                self.admit(&slot.insert(Slot::Hot(running)), bytes)
            }
        }
    }

    /// Enters for the node's own work, past the limits.
    pub(crate) fn escort(&self, key: &ConversationKey) -> Result<Entered, Refusal> {
        match &*self.slots.entry(key.clone()).or_insert_with(|| Slot::Hot(self.start(key))) {
            Slot::Hot(running) => Ok((running.clone(), self.admission.escort(&running.head))),
            Slot::Quarantined(_) => Err(Refusal::Quarantined),
        }
    }

    /// What a conversation shares that is in memory, or refused.
    pub(crate) fn head_of(&self, key: &ConversationKey) -> Option<Arc<DurableHead>> {
        self.slots.get(key).map(|slot| match &*slot {
            Slot::Hot(running) => running.head.clone(),
            Slot::Quarantined(head) => head.clone(),
        })
    }

    /// Whether the conversation is refused because its actor died, and is being brought back.
    pub(crate) fn is_coming_back(&self, key: &ConversationKey) -> bool {
        self.slots.get(key).is_some_and(|slot| matches!(&*slot, Slot::Quarantined(head) if !head.is_lost()))
    }

    /// Up to which record the packs have a conversation that gives no chunks; 0 when nobody knows.
    pub(crate) fn saved_through(&self, key: &ConversationKey) -> u64 {
        match self.head_of(key) {
            Some(head) if head.is_loaded() => head.saved_lsn(),
            _ => self.archive().tail_begins_at(key).map_or(0, |lsn| lsn.saturating_sub(1)),
        }
    }

    fn admit(&self, slot: &Slot, bytes: usize) -> Result<Entered, Refusal> {
        let Slot::Hot(running) = slot else { return Err(Refusal::Quarantined) };
        let permit = self.admission.admit(&running.head, bytes).ok_or(Refusal::Overloaded)?;
        Ok((running.clone(), permit))
    }

    fn start(&self, key: &ConversationKey) -> Running {
        let origin = match self.archive().has(key) {
            true => Origin::Archive,
            false => Origin::New,
        };
        let head = Arc::new(DurableHead::new(Arc::new(key.clone()), self.admission.clone()));
        let start = Start { context: self.context.clone(), head: head.clone(), origin };
        let _inside = self.runtime.enter();
        let (actor, _join) = ActorRuntime::spawn_instant(None, Conversation, start)
            .expect("an actor without a name cannot collide with another");
        Running { actor, head }
    }

    /// Called when an actor did not take or answer a call and is not running any more.
    pub(crate) fn quarantine(&self, dead: &DurableHead) {
        let Some(mut slot) = self.slots.get_mut(&*dead.key) else { return };
        // Another actor may own the conversation by now.
        if let Slot::Hot(running) = &*slot
            && std::ptr::eq(&*running.head, dead)
        {
            let (running, head) = (running.clone(), running.head.clone());
            let is_damaged = head.is_damaged();
            *slot = Slot::Quarantined(head);
            self.refused.fetch_add(1, Ordering::Relaxed);
            if is_damaged {
                error!(conversation = %dead.key, "damaged on the disk: refused until a restart finds it mended");
            } else {
                // Nobody listens only while the node stops.
                let _ = self.deaths.send(running);
            }
        }
    }

    /// Refuses a conversation whose data is damaged, unless it is in memory; whether it is refused now.
    pub(crate) fn refuse_cold(&self, key: &ConversationKey) -> bool {
        match self.slots.entry(key.clone()) {
            Entry::Occupied(slot) => matches!(slot.get(), Slot::Quarantined(_)),
            Entry::Vacant(slot) => {
                let head = DurableHead::new(Arc::new(key.clone()), self.admission.clone());
                head.mark_damaged();
                slot.insert(Slot::Quarantined(Arc::new(head)));
                self.refused.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// Lets a conversation be loaded again whose actor was this one; the archive has all of it.
    pub(super) fn release(&self, dead: &DurableHead) {
        self.slots.remove_if(&*dead.key, |_, slot| {
            let is_it = matches!(slot, Slot::Quarantined(head) if std::ptr::eq(&**head, dead));
            // Under the guard: whoever gets in again finds it counted out.
            self.refused.fetch_sub(usize::from(is_it), Ordering::Relaxed);
            is_it
        });
    }

    /// Takes the conversations out of memory that nobody uses, that a pack has whole, and that
    /// `choose` wants out. Returns how many went.
    pub(crate) fn passivate(&self, choose: impl Fn(&DurableHead) -> bool) -> usize {
        let (before, mut leaving) = (self.slots.len(), Vec::new());
        self.slots.retain(|_, slot| match slot {
            // Under this guard nobody can take a permit, and without one nobody can reach the
            // actor: what it knows is what the pack knows, for ever.
            Slot::Hot(running) => {
                let head = &running.head;
                let goes = head.in_flight() == 0 && head.is_saved() && choose(head);
                if goes {
                    leaving.push(running.actor.clone());
                }
                !goes
            }
            Slot::Quarantined(_) => true,
        });
        stop_in_order_of_start(leaving);
        let left = self.slots.len();
        // Empty slots cost as much as full ones, 120 B. Where that is most of the table, it is made anew.
        if left < before && left < self.slots.capacity() / 4 {
            self.slots.shrink_to_fit();
        }
        before.saturating_sub(left)
    }

    /// When each conversation in memory was last used (seconds of the node's life), and what it
    /// takes in bytes.
    pub(crate) fn usage(&self) -> Vec<(u32, u64)> {
        let usage = self.slots.iter().filter_map(|slot| match slot.value() {
            Slot::Hot(running) => Some((running.head.used_s.load(Ordering::Relaxed), running.head.bytes())),
            Slot::Quarantined(_) => None,
        });
        usage.collect()
    }
}

/// What was allocated side by side is freed side by side, so that the allocator gets whole pages back. It keeps what a
/// thread freed last for that thread, and in the order of a map nearly every piece of that would hold pages of its own.
fn stop_in_order_of_start(mut actors: Vec<ActorRef<Message>>) {
    // ractor numbers its actors.
    actors.sort_unstable_by_key(|actor| actor.get_id().pid());
    actors.iter().for_each(|actor| actor.stop(None));
}
