//! The directory: which conversations there are, and the way to each one's actor.
//!
//! ractor's registry is not used: its names are global and free again while an actor still stops.
//! A conversation's actor is started when it is first touched.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ractor::{ActorRef, ActorRuntime};
use tracing::error;

use super::actor::{Context, Conversation, Message, Residence};
use super::chunk::Chunk;
use super::durable::DurableHead;
use super::resident::Resident;
use super::state::{Durable, State};
use crate::message::ConversationKey;

/// The way to a running actor.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) actor: ActorRef<Message>,
    pub(crate) head: Arc<DurableHead>,
}

enum Slot {
    /// In memory, but no actor runs yet.
    Cold(Box<Resident>),
    /// An actor owns it.
    Hot(Running),
    /// Its actor died: what it had is on disk, but not in memory. Refused until a restart.
    Quarantined,
}

/// Why a conversation cannot be reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Quarantined,
}

/// What [`Directory::collect`] found.
pub(crate) enum Collected {
    Chunks(Vec<Chunk>),
    /// Ask its actor.
    Ask(Running),
    /// Nothing to be had.
    Nothing,
}

/// All conversations of a node.
pub(crate) struct Directory {
    context: Arc<Context>,
    slots: DashMap<ConversationKey, Slot>,
}

impl Directory {
    /// The directory of what recovery found.
    pub(crate) fn new(context: Arc<Context>, recovered: Vec<Resident>) -> Self {
        let slots = DashMap::with_capacity(recovered.len());
        for resident in recovered {
            slots.insert((*resident.state.key).clone(), Slot::Cold(Box::new(resident)));
        }
        Self { context, slots }
    }

    /// How many conversations there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every key there is now.
    pub(crate) fn keys(&self) -> Vec<ConversationKey> {
        self.slots.iter().map(|slot| slot.key().clone()).collect()
    }

    /// The actor of a conversation that exists; `None` when nothing ever happened in it.
    pub(crate) fn find(&self, key: &ConversationKey) -> Option<Result<Running, Unreachable>> {
        match &*self.slots.get(key)? {
            Slot::Hot(running) => return Some(Ok(running.clone())),
            Slot::Quarantined => return Some(Err(Unreachable::Quarantined)),
            Slot::Cold(_) => {}
        }
        Some(self.activate(key.clone()))
    }

    /// The actor of a conversation, which begins if it does not exist.
    pub(crate) fn find_or_begin(&self, key: ConversationKey) -> Result<Running, Unreachable> {
        self.find(&key).unwrap_or_else(|| self.activate(key))
    }

    /// Starts the actor. Nothing here waits, so the map's guard is held over all of it, and a
    /// conversation never has two actors.
    fn activate(&self, key: ConversationKey) -> Result<Running, Unreachable> {
        match self.slots.entry(key) {
            Entry::Vacant(slot) => {
                let running = self.start(Resident::new(State::new(slot.key().clone())));
                slot.insert(Slot::Hot(running.clone()));
                Ok(running)
            }
            Entry::Occupied(mut slot) => match std::mem::replace(slot.get_mut(), Slot::Quarantined) {
                Slot::Cold(resident) => {
                    let running = self.start(*resident);
                    slot.insert(Slot::Hot(running.clone()));
                    Ok(running)
                }
                Slot::Hot(running) => {
                    slot.insert(Slot::Hot(running.clone()));
                    Ok(running)
                }
                Slot::Quarantined => Err(Unreachable::Quarantined),
            },
        }
    }

    fn start(&self, resident: Resident) -> Running {
        let state = &resident.state;
        let durable =
            Durable { messages: state.history.newest_message(), recalls: state.history.newest_recall() };
        // What recovery read from the disk is durable, all of it.
        let head = Arc::new(DurableHead::new(state.key.clone(), durable, state.applied_lsn));
        let residence = Residence { context: self.context.clone(), head: head.clone(), resident };
        let (actor, _join) = ActorRuntime::spawn_instant(None, Conversation, residence)
            .expect("an actor without a name cannot collide with another");
        Running { actor, head }
    }

    /// Called when an actor did not take a message: it has died, and its memory with it.
    pub(crate) fn quarantine(&self, key: &ConversationKey) {
        if let Some(mut slot) = self.slots.get_mut(key)
            && !matches!(*slot, Slot::Quarantined)
        {
            *slot = Slot::Quarantined;
            error!(conversation = %key, "its actor died; refusing it until a restart reads it from disk again");
        }
    }

    /// The next chunk of a conversation for the snapshot, or whom to ask for it. A conversation
    /// without an actor is not given one for this.
    pub(crate) fn collect(&self, key: &ConversationKey, restart: bool) -> Collected {
        match self.slots.get_mut(key).as_deref_mut() {
            Some(Slot::Cold(resident)) => Collected::Chunks(resident.collect(restart)),
            Some(Slot::Hot(running)) => Collected::Ask(running.clone()),
            Some(Slot::Quarantined) | None => Collected::Nothing,
        }
    }
}
