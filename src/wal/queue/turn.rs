//! Whose turn it is to commit: the log's own thread's, or that of a volunteer on a thread of its own.
//!
//! Promises that of whatever waits one of them knows: the thread while it is the thread's turn, else the volunteer,
//! whose bell has rung. Who gets the turn when is the committer's business.

use std::sync::MutexGuard;

use super::{Entry, Queue, Shared};

/// Tells the volunteer that something waits. Called from any thread that appends: it must not wait.
pub(in crate::wal) type Bell = Box<dyn Fn() + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// What comes is for the log's own thread.
    Thread,
    /// What comes is for the volunteer; whether it was told.
    Volunteer { rung: bool },
}

impl<T> Entry<T> {
    /// Making the next segment the current one takes milliseconds: that is for the thread.
    fn begins_segment(&self) -> bool {
        match self {
            Self::Record { body, .. } => body.begins_segment,
            Self::NewSegment => true,
            Self::Barrier { .. } => false,
        }
    }
}

impl<T> Shared<T> {
    /// Takes note of the only volunteer there will be.
    pub(in crate::wal) fn volunteer(&self, bell: Bell) {
        let _ = self.bell.set(bell);
        self.queue().has_volunteer = true;
    }

    /// The volunteer does not come any more.
    pub(in crate::wal) fn retire_volunteer(&self) {
        self.queue().has_volunteer = false;
        self.give_turn_to_thread();
    }

    /// Tells whoever's turn it is. Both ways cost a system call, so only who sleeps is woken.
    pub(super) fn announce(&self, mut queue: MutexGuard<'_, Queue<T>>) {
        match &mut queue.turn {
            Turn::Thread => {
                let wake = std::mem::take(&mut queue.committer_sleeps);
                drop(queue);
                if wake {
                    self.work.notify_one();
                }
            }
            Turn::Volunteer { rung } => {
                let rings = !std::mem::replace(rung, true);
                drop(queue);
                if let Some(ring) = self.bell.get().filter(|_| rings) {
                    ring();
                }
            }
        }
    }

    /// Leaves what waits, and what comes, to the volunteer, if there is one.
    pub(in crate::wal) fn give_turn_to_volunteer(&self) {
        let mut queue = self.queue();
        if !queue.has_volunteer {
            return;
        }
        queue.turn = Turn::Volunteer { rung: false };
        if !queue.waiting.is_empty() {
            self.announce(queue);
        }
    }

    /// Leaves what waits, and what comes, to the thread.
    pub(in crate::wal) fn give_turn_to_thread(&self) {
        let mut queue = self.queue();
        queue.turn = Turn::Thread;
        self.announce(queue);
    }

    /// Makes the thread ask anew until when it may sleep.
    pub(in crate::wal) fn reset_clock(&self) {
        let mut queue = self.queue();
        queue.clock_changed = true;
        let wake = std::mem::take(&mut queue.committer_sleeps);
        drop(queue);
        if wake {
            self.work.notify_one();
        }
    }

    /// Everything that waits, against an empty vector, if it is for the volunteer; false when it is for the thread.
    pub(in crate::wal) fn take_as_volunteer(&self, into: &mut Vec<Entry<T>>) -> bool {
        let mut queue = self.queue();
        let is_ours = matches!(queue.turn, Turn::Volunteer { .. }) && queue.ending.is_none();
        if !is_ours || queue.waiting.iter().any(Entry::begins_segment) {
            return false;
        }
        queue.turn = Turn::Volunteer { rung: false };
        std::mem::swap(&mut queue.waiting, into);
        true
    }
}
