//! What clients were told, and whether it can all be true.
//!
//! Every answer is compared with the ones before, while the load runs: an index never changes its text, nothing that was
//! shown goes away, nothing that was recalled comes back, nothing that was refused is there. What cannot be true becomes a
//! violation. Because the answer to a send names its place in the order, checking is linear and needs no search.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use serde_json::Value;

use crate::client::number;
use crate::world::{self, Room};

/// What is remembered of all conversations.
pub(crate) struct Ledger {
    pub(crate) rooms: Vec<Room>,
    known: Vec<Mutex<Known>>,
    violations: Mutex<Vec<String>>,
}

/// What is known of one conversation.
#[derive(Default, Clone)]
pub(crate) struct Known {
    /// Whether it is a group whose creation was acknowledged.
    pub(crate) is_founded: bool,
    /// By text, which is also the `client_msg_id`.
    sends: HashMap<String, Attempt>,
    /// Acknowledged or shown: index to text.
    pub(crate) messages: BTreeMap<u32, String>,
    /// Acknowledged or shown: message to recall.
    recalls: BTreeMap<u32, u32>,
    recall_attempts: HashSet<u32>,
    newest_recall: u32,
    /// What each user has read, as far as acknowledged.
    pub(crate) cursors: HashMap<usize, u32>,
}

#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) sender: usize,
    began: Instant,
    answered: Option<Instant>,
    pub(crate) index: Option<u32>,
    refused: bool,
}

/// What a pull that begins now must show.
pub(crate) struct Floor {
    messages: u32,
    recalls: u32,
    recalled: HashMap<u32, u32>,
}

impl Ledger {
    pub(crate) fn new(rooms: Vec<Room>) -> Self {
        let known = rooms.iter().map(|_| Mutex::default()).collect();
        Self { rooms, known, violations: Mutex::default() }
    }

    /// The same past, for two futures that must not be mixed up.
    pub(crate) fn fork(&self) -> Self {
        let known =
            self.known.iter().map(|known| Mutex::new(known.lock().expect("no panics under it").clone()));
        Self { rooms: self.rooms.clone(), known: known.collect(), violations: Mutex::new(self.violations()) }
    }

    pub(crate) fn known(&self, room: usize) -> MutexGuard<'_, Known> {
        self.known[room].lock().expect("no panics under it")
    }

    pub(crate) fn violation(&self, room: usize, what: impl std::fmt::Display) {
        let mut violations = self.violations.lock().expect("no panics under it");
        violations.push(format!("{:?}: {what}", self.rooms[room]));
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("no panics under it").clone()
    }

    /// Sends that were answered.
    pub(crate) fn acknowledged(&self) -> usize {
        let answered =
            |room| self.known(room).sends.values().filter(|attempt| attempt.answered.is_some()).count();
        (0..self.rooms.len()).map(answered).sum()
    }

    pub(crate) fn recalls(&self) -> usize {
        (0..self.rooms.len()).map(|room| self.known(room).recalls.len()).sum()
    }

    pub(crate) fn begin_send(&self, room: usize, sender: usize, text: &str) {
        let attempt = Attempt { sender, began: Instant::now(), answered: None, index: None, refused: false };
        // A retry began when the first try did.
        self.known(room).sends.entry(text.to_owned()).or_insert(attempt).refused = false;
    }

    pub(crate) fn refused(&self, room: usize, text: &str) {
        self.attempt(room, text, |attempt| attempt.refused = true);
    }

    fn attempt(&self, room: usize, text: &str, change: impl FnOnce(&mut Attempt)) {
        change(self.known(room).sends.get_mut(text).expect("it was begun"));
    }

    pub(crate) fn sent(&self, room: usize, text: &str, index: u32) {
        let told = self.known(room).learn(index, text, None);
        self.attempt(room, text, |attempt| attempt.answered = Some(Instant::now()));
        told.unwrap_or_else(|why| self.violation(room, format!("answer to a send: {why}")));
    }

    pub(crate) fn begin_recall(&self, room: usize, index: u32) {
        self.known(room).recall_attempts.insert(index);
    }

    pub(crate) fn recalled(&self, room: usize, index: u32, recall: u32) {
        let told = self.known(room).learn_recall(index, recall);
        told.unwrap_or_else(|why| self.violation(room, format!("answer to a recall: {why}")));
    }

    pub(crate) fn acked(&self, room: usize, user: usize, index: u32) {
        let mut known = self.known(room);
        let cursor = known.cursors.entry(user).or_default();
        *cursor = (*cursor).max(index);
    }

    pub(crate) fn floor(&self, room: usize) -> Floor {
        let known = self.known(room);
        Floor {
            messages: known.newest(),
            recalls: known.newest_recall,
            recalled: known.recalls.iter().map(|(index, recall)| (*index, *recall)).collect(),
        }
    }

    /// Compares the answer to an `after` pull from `start` (both halves) with all that is known.
    pub(crate) fn shown(&self, room: usize, floor: &Floor, start: u32, count: u32, page: &Value) {
        let checked = self.check_page(room, floor, start, count, page);
        checked.unwrap_or_else(|why| self.violation(room, format!("a pull from {start}: {why}")));
    }

    fn check_page(
        &self,
        room: usize,
        floor: &Floor,
        start: u32,
        count: u32,
        page: &Value,
    ) -> Result<(), String> {
        let (newest, newest_recall) = (number(page, "max_msg_index"), number(page, "max_recall_index"));
        if newest < floor.messages || newest_recall < floor.recalls {
            let had = (floor.messages, floor.recalls);
            return Err(format!("{:?} where {had:?} had been shown", (newest, newest_recall)));
        }
        let msgs = page["msgs"].as_array().ok_or("no msgs")?;
        let indices: Vec<_> = msgs.iter().map(|msg| number(msg, "msg_index")).collect();
        let expected: Vec<_> = (start..=newest).take(count as usize).collect();
        if indices != expected {
            return Err(format!("messages {indices:?}, expected {expected:?}"));
        }
        if !msgs.is_sorted_by_key(|msg| number(msg, "timestamp")) {
            return Err("time runs backwards".into());
        }
        msgs.iter().try_for_each(|msg| self.check_message(room, floor, msg))?;
        self.check_recalls(room, start, newest_recall.min((start - 1).saturating_add(count)), page)
    }

    fn check_message(&self, room: usize, floor: &Floor, msg: &Value) -> Result<(), String> {
        let (index, recall) = (number(msg, "msg_index"), number(msg, "recall_index"));
        let text = msg["msg"].as_str().ok_or("no msg")?;
        let mut known = self.known(room);
        if recall != 0 {
            known.learn_recall(index, recall)?;
            return if text.is_empty() { Ok(()) } else { Err(format!("recalled {index} has a text")) };
        }
        if floor.recalled.contains_key(&index) {
            return Err(format!("{index} had been shown as recalled and is back"));
        }
        known.learn(index, text, msg["sender"].as_str())
    }

    fn check_recalls(&self, room: usize, start: u32, last: u32, page: &Value) -> Result<(), String> {
        let recalls = page["recalls"].as_object().ok_or("no recalls")?;
        let mut indices: Vec<u32> = recalls.keys().filter_map(|index| index.parse().ok()).collect();
        indices.sort_unstable();
        if indices != (start..=last).collect::<Vec<_>>() {
            return Err(format!("recalls {indices:?}, expected {start} to {last}"));
        }
        let mut known = self.known(room);
        for (recall, message) in recalls {
            let message = message.as_u64().ok_or("no number")?;
            known.learn_recall(message as u32, recall.parse().expect("parsed above"))?;
        }
        Ok(())
    }

    /// Whoever was answered before another one began comes first.
    pub(crate) fn check_real_time(&self) {
        for room in 0..self.rooms.len() {
            let late = self.known(room).first_out_of_order();
            if let Some((index, text)) = late {
                self.violation(room, format!("{text:?} at {index} began after a later one was answered"));
            }
        }
    }
}

impl Known {
    pub(crate) fn newest(&self) -> u32 {
        self.messages.last_key_value().map_or(0, |(index, _)| *index)
    }

    pub(crate) fn recalls(&self) -> impl Iterator<Item = (u32, u32)> {
        self.recalls.iter().map(|(index, recall)| (*index, *recall))
    }

    pub(crate) fn sender_of(&self, index: u32) -> Option<usize> {
        self.sends.get(self.messages.get(&index)?).map(|attempt| attempt.sender)
    }

    /// Takes note that `text` stands at `index`.
    fn learn(&mut self, index: u32, text: &str, sender: Option<&str>) -> Result<(), String> {
        let attempt =
            self.sends.get_mut(text).ok_or_else(|| format!("{text:?} at {index} was never sent"))?;
        if attempt.refused {
            return Err(format!("{text:?} at {index} had been refused"));
        }
        if sender.is_some_and(|sender| sender != world::user(attempt.sender)) {
            return Err(format!("{text:?} at {index} is said to be {sender:?}'s"));
        }
        if attempt.index.is_some_and(|first| first != index) {
            return Err(format!("{text:?} is at {index} and at {:?}", attempt.index));
        }
        attempt.index = Some(index);
        match self.messages.insert(index, text.to_owned()) {
            Some(before) if before != text => Err(format!("{index} was {before:?} and is {text:?}")),
            _ => Ok(()),
        }
    }

    fn learn_recall(&mut self, index: u32, recall: u32) -> Result<(), String> {
        if !self.recall_attempts.contains(&index) {
            return Err(format!("nobody recalled {index}"));
        }
        self.newest_recall = self.newest_recall.max(recall);
        match self.recalls.insert(index, recall) {
            Some(before) if before != recall => Err(format!("{index} has recalls {before} and {recall}")),
            _ => Ok(()),
        }
    }

    fn first_out_of_order(&self) -> Option<(u32, String)> {
        let mut answered: Option<Instant> = None;
        for (index, text) in self.messages.iter().rev() {
            let attempt = &self.sends[text];
            if answered.is_some_and(|answered| answered < attempt.began) {
                return Some((*index, text.clone()));
            }
            answered = answered.into_iter().chain(attempt.answered).min();
        }
        None
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
