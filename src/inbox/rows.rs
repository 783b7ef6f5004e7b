//! The rows of one inbox: where each of a user's conversations stands for them. Pure, without a clock.
//!
//! A row is taken from the disk or from the conversation's actor at some position of the log, and from
//! then on moved by events, each of which says its own position: so whatever the order in which a row
//! and the events around it arrive, each event counts once. Nothing is ever counted anew: an event
//! costs the same however long the history and however many the conversations.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::live::{Content, Event, GroupAction};
use crate::message::{Chat, ConversationKey, Last, OwnedMessage, UserId};

/// A newest message of more text than this is not kept beside its row: a list reads it again.
const LAST_TEXT_BYTES_MAX: usize = 2 * 1024;

/// Where a conversation stands for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The record of the log up to which this is true.
    pub lsn: u64,
    /// Newest message.
    pub messages: u32,
    /// Newest recall.
    pub recalls: u32,
    /// The user's read cursor.
    pub read_cursor: u32,
    /// Messages behind the read cursor that are not recalled.
    pub unread: u32,
    /// When the newest message was sent, or, when there is none, when the user came in.
    pub timestamp_ns: u64,
    /// Of a pair: whether the user blocks the other one.
    pub blocks: bool,
}

#[derive(Debug)]
struct Row {
    standing: Standing,
    last: Option<Last>,
    /// The place under which the row stands in the order.
    place: Place,
    /// Whether it has moved since, so that the order has to be put right before it is read.
    moved: bool,
}

/// Newest first; the hash of the key tells equal times apart in the same way after every start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    age: std::cmp::Reverse<u64>,
    hash: u64,
    key: Arc<ConversationKey>,
}

impl Place {
    fn of(key: &Arc<ConversationKey>, timestamp_ns: u64) -> Self {
        Self { age: std::cmp::Reverse(timestamp_ns), hash: hash_of(key), key: key.clone() }
    }
}

/// A conversation as a list takes it: its newest message only where that is at hand.
pub type Listed = (Arc<ConversationKey>, Standing, Option<Last>);

/// A place in the list between two conversations: the one behind which to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    timestamp_ns: u64,
    hash: u64,
}

impl Cursor {
    /// As text for a client.
    pub fn to_text(self) -> String {
        format!("{}.{:016x}", self.timestamp_ns, self.hash)
    }

    /// Back from [`to_text`](Self::to_text).
    pub fn parse(text: &str) -> Option<Self> {
        let (timestamp_ns, hash) = text.split_once('.')?;
        Some(Self { timestamp_ns: timestamp_ns.parse().ok()?, hash: u64::from_str_radix(hash, 16).ok()? })
    }
}

/// What events did to the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// They are news: the user's sessions get them.
    News,
    /// The row knew it already, or it is none of the user's business.
    Nothing,
    /// The conversation is not among the rows and has a past: somebody has to ask where it stands.
    Unknown,
}

/// The conversations of one user; and pairs in which nothing was sent but that the user blocks the other, which are in no
/// order and no list.
#[derive(Debug)]
pub struct Rows {
    user: UserId,
    by_key: HashMap<Arc<ConversationKey>, Row>,
    order: BTreeSet<Place>,
    /// Rows that moved since the order was put right, each once.
    moved: Vec<Arc<ConversationKey>>,
    total_unread: u64,
    /// What the newest messages take that are kept beside the rows.
    last_bytes: usize,
}

impl Rows {
    /// No conversations.
    pub fn new(user: UserId) -> Self {
        let (by_key, order) = (HashMap::new(), BTreeSet::new());
        Self { user, by_key, order, moved: Vec::new(), total_unread: 0, last_bytes: 0 }
    }

    /// Unread messages of all conversations together.
    pub fn total_unread(&self) -> u64 {
        self.total_unread
    }

    /// Roughly what it takes in memory.
    pub fn bytes(&self) -> usize {
        /// A row, its place in the order and the key: two short ids.
        const ROW_BYTES: usize = size_of::<Row>() + size_of::<Place>() + 160;
        self.by_key.len() * ROW_BYTES + self.last_bytes
    }

    /// Where a conversation stands.
    pub fn get(&self, key: &ConversationKey) -> Option<&Standing> {
        self.by_key.get(key).map(|row| &row.standing)
    }

    /// The pairs whose other one the user blocks, in no order.
    pub fn blocked(&self) -> impl Iterator<Item = &Arc<ConversationKey>> {
        self.by_key.iter().filter(|(_, row)| row.standing.blocks).map(|(key, _)| key)
    }

    /// The conversations, and the pairs beside them.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<ConversationKey>> {
        self.by_key.keys()
    }

    /// Puts a conversation in as it stood at `standing.lsn`; an older standing than the one known is
    /// passed over.
    pub fn put(&mut self, key: Arc<ConversationKey>, standing: Standing) {
        if self.get(&key).is_some_and(|known| known.lsn >= standing.lsn) {
            return;
        }
        self.remove(&key);
        self.total_unread += u64::from(standing.unread);
        let place = Place::of(&key, standing.timestamp_ns);
        if standing.is_listed(&key) {
            self.order.insert(place.clone());
        }
        self.by_key.insert(key, Row { standing, last: None, place, moved: false });
    }

    /// Takes a conversation out.
    pub fn remove(&mut self, key: &ConversationKey) {
        let Some(row) = self.by_key.remove(key) else { return };
        self.total_unread -= u64::from(row.standing.unread);
        self.last_bytes -= row.last_bytes();
        self.order.remove(&row.place);
    }

    /// Takes over what one record of the log did to one conversation. All its events come together.
    pub fn apply(&mut self, lsn: u64, events: &[Arc<Event>]) -> Effect {
        let Some(first) = events.first() else { return Effect::Nothing };
        let ends = events.iter().any(|event| self.is_my_end(event));
        let Some(row) = self.by_key.get_mut(&*first.key) else {
            return self.begin_row(lsn, events, ends);
        };
        if lsn <= row.standing.lsn {
            return Effect::Nothing;
        }
        let is_continued = row.standing.is_continued_by(first);
        if ends || !is_continued {
            self.remove(&first.key);
            return if is_continued { Effect::News } else { Effect::Unknown };
        }
        let (unread_before, bytes_before, moved_before) = (row.standing.unread, row.last_bytes(), row.moved);
        events.iter().for_each(|event| row.advance(&self.user, lsn, event));
        self.total_unread = self.total_unread - u64::from(unread_before) + u64::from(row.standing.unread);
        self.last_bytes = self.last_bytes - bytes_before + row.last_bytes();
        if row.moved && !moved_before {
            self.moved.push(first.key.clone());
        }
        Effect::News
    }

    /// Of a conversation that has no row. What does not begin it is its end for a user who has left already, or goes on
    /// in one that could not be asked when the inbox was read.
    fn begin_row(&mut self, lsn: u64, events: &[Arc<Event>], ends: bool) -> Effect {
        let Some(first) = events.first() else { return Effect::Nothing };
        let Some(standing) = self.begin(events) else {
            return if ends { Effect::Nothing } else { Effect::Unknown };
        };
        self.put(first.key.clone(), Standing { lsn, ..standing });
        if let Content::Message(message) = &first.content {
            self.set_last(&first.key, keep(Last { message: message.clone(), recall_index: 0 }));
        }
        Effect::News
    }

    /// What the first event that this user gets of a conversation makes of it.
    fn begin(&self, events: &[Arc<Event>]) -> Option<Standing> {
        let event = events.iter().find(|event| self.is_my_beginning(event))?;
        let own = matches!(&event.content, Content::Message(message) if message.sender == self.user);
        let (read_cursor, unread, timestamp_ns) = match &event.content {
            Content::Message(message) if own => (message.msg_index, 0, message.timestamp_ns),
            Content::Message(message) => (0, 1, message.timestamp_ns),
            // Who comes in has nothing unread.
            Content::Group { newest_message_ns, .. } => (event.messages, 0, *newest_message_ns),
            Content::Block { .. } => (0, 0, 0),
            _ => return None,
        };
        let Event { messages, recalls, .. } = **event;
        let blocks = matches!(event.content, Content::Block { .. });
        Some(Standing { lsn: 0, messages, recalls, read_cursor, unread, timestamp_ns, blocks })
    }

    fn is_my_beginning(&self, event: &Event) -> bool {
        match &event.content {
            Content::Message(message) => {
                message.msg_index == 1 && matches!(*event.key, ConversationKey::Direct(..))
            }
            Content::Group { action: GroupAction::Create | GroupAction::Add, user, .. } => *user == self.user,
            // Of a pair that has begun more has to be known.
            Content::Block { blocks, .. } => *blocks && event.messages == 0,
            _ => false,
        }
    }

    /// What the next events follow for a user who came into a group with this one: of what was before they got nothing.
    pub(super) fn base_of(&self, event: &Event) -> Option<Arc<Event>> {
        let Event { messages, recalls, .. } = *event;
        let is_base = (messages, recalls) != (0, 0)
            && matches!(
                &event.content,
                Content::Group { action: GroupAction::Add, user, .. } if *user == self.user
            );
        is_base.then(|| Arc::new(Event::new(event.key.clone(), messages, recalls, Content::Behind)))
    }

    fn is_my_end(&self, event: &Event) -> bool {
        if let Content::Block { blocks: false, .. } = event.content {
            return event.messages == 0;
        }
        let Content::Group { action, user, .. } = &event.content else { return false };
        match action {
            GroupAction::Dismiss => true,
            GroupAction::Kick | GroupAction::Leave => *user == self.user,
            _ => false,
        }
    }

    /// At most `count` conversations behind `cursor`, newest first, and the cursor behind them if
    /// there are more.
    pub fn page(&mut self, cursor: Option<Cursor>, count: usize) -> (Vec<Listed>, Option<Cursor>) {
        self.put_in_order();
        let is_behind = |place: &&Place| {
            let at = (place.age, place.hash);
            cursor.is_none_or(|cursor| at > (std::cmp::Reverse(cursor.timestamp_ns), cursor.hash))
        };
        let from = cursor.map_or(Bound::Unbounded, |cursor| Bound::Included(first_of(cursor.timestamp_ns)));
        let mut behind = self.order.range((from, Bound::Unbounded)).filter(is_behind);
        let rows: Vec<_> = behind
            .by_ref()
            .take(count)
            .filter_map(|place| {
                let row = self.by_key.get(&place.key)?;
                Some((place.key.clone(), row.standing.clone(), row.last.clone()))
            })
            .collect();
        let next = match (behind.next(), rows.last()) {
            (Some(_), Some((key, standing, _))) => {
                Some(Cursor { timestamp_ns: standing.timestamp_ns, hash: hash_of(key) })
            }
            _ => None,
        };
        (rows, next)
    }

    /// Every conversation and where it stands, newest first.
    pub fn newest_first(&mut self) -> impl Iterator<Item = (&Arc<ConversationKey>, &Standing)> {
        self.put_in_order();
        self.order.iter().filter_map(|place| Some((&place.key, &self.by_key.get(&place.key)?.standing)))
    }

    fn put_in_order(&mut self) {
        for key in std::mem::take(&mut self.moved) {
            let Some(row) = self.by_key.get_mut(&key) else { continue };
            self.order.remove(&row.place);
            row.place = Place::of(&key, row.standing.timestamp_ns);
            row.moved = false;
            self.order.insert(row.place.clone());
        }
    }

    /// Keeps the newest message for the next list, unless the row has moved since it stood at `lsn`:
    /// the message may have been recalled since it was read.
    pub fn keep_last(&mut self, key: &ConversationKey, lsn: u64, last: Last) {
        let Some(Standing { lsn: stands_at, messages, .. }) = self.get(key) else { return };
        if *stands_at == lsn && *messages == last.message.msg_index {
            self.set_last(key, keep(last));
        }
    }

    fn set_last(&mut self, key: &ConversationKey, last: Option<Last>) {
        let Some(row) = self.by_key.get_mut(key) else { return };
        self.last_bytes -= row.last_bytes();
        row.last = last;
        self.last_bytes += row.last_bytes();
    }
}

impl Row {
    /// Takes over an event of a record: all but the numbers that the rows have together.
    fn advance(&mut self, owner: &UserId, lsn: u64, event: &Event) {
        let standing = &mut self.standing;
        (standing.lsn, standing.messages, standing.recalls) = (lsn, event.messages, event.recalls);
        match &event.content {
            Content::Message(message) => {
                let own = message.sender == *owner;
                standing.read_cursor = if own { message.msg_index } else { standing.read_cursor };
                standing.unread = if own { 0 } else { standing.unread + 1 };
                standing.timestamp_ns = message.timestamp_ns;
                self.last = keep(Last { message: message.clone(), recall_index: 0 });
                self.moved = true;
            }
            Content::Recall { msg_index, recall_index, .. } => {
                let was_unread = u32::from(*msg_index > standing.read_cursor);
                standing.unread = standing.unread.saturating_sub(was_unread);
                if let Some(last) = &mut self.last
                    && last.message.msg_index == *msg_index
                {
                    last.recall(*recall_index);
                }
            }
            Content::Ack { user, msg_index, unread } if user == owner => {
                (standing.read_cursor, standing.unread) = (*msg_index, *unread);
            }
            Content::Block { blocks, .. } => standing.blocks = *blocks,
            Content::Ack { .. } | Content::Group { .. } | Content::Crowd { .. } | Content::Signal { .. } => {}
            // Not given to inboxes.
            Content::Recalled(_) | Content::Behind => {}
        }
    }

    /// What its newest message takes, if it is kept.
    fn last_bytes(&self) -> usize {
        self.last.as_ref().map_or(0, |last| size_of::<OwnedMessage>() + last.text_bytes())
    }
}

/// The newest message, unless it is too long to be kept beside its row.
fn keep(last: Last) -> Option<Last> {
    (last.text_bytes() <= LAST_TEXT_BYTES_MAX).then_some(last)
}

impl Standing {
    /// Whether it is a conversation of its user's; else all there is to it is that they block the other one.
    pub fn is_listed(&self, key: &ConversationKey) -> bool {
        self.messages > 0 || matches!(key, ConversationKey::Group(_))
    }

    /// Whether no message is missing between: to count across a gap would be wrong for good.
    fn is_continued_by(&self, event: &Event) -> bool {
        match &event.content {
            Content::Message(message) => message.msg_index == self.messages.saturating_add(1),
            _ => true,
        }
    }

    /// As a client sees it.
    pub fn to_chat(&self, key: &ConversationKey, user: &UserId) -> Chat {
        Chat {
            at: key.address_for(user),
            msg_index: self.messages,
            recall_index: self.recalls,
            ack_index: self.read_cursor,
            unread: self.unread,
            timestamp_ns: self.timestamp_ns,
        }
    }
}

/// The place before every conversation of that time.
fn first_of(timestamp_ns: u64) -> Place {
    // Ids are never empty, so no key is smaller. Built once: a list must not allocate two ids a page.
    static SMALLEST: std::sync::LazyLock<Arc<ConversationKey>> = std::sync::LazyLock::new(|| {
        let id = UserId::parse("!").expect("a valid id");
        Arc::new(ConversationKey::Direct(id.clone(), id))
    });
    Place { age: std::cmp::Reverse(timestamp_ns), hash: 0, key: SMALLEST.clone() }
}

/// The same for the same conversation in every life of the process. Two that collide and have the same
/// time may hide one another at the edge of a page, never in a row's own numbers.
fn hash_of(key: &ConversationKey) -> u64 {
    let mut hasher = Xxh3::new();
    let (kind, parts): (u8, [&str; 2]) = match key {
        ConversationKey::Direct(first, second) => (0, [first.as_str(), second.as_str()]),
        ConversationKey::Group(id) => (1, [id.as_str(), ""]),
    };
    hasher.update(&[kind]);
    hasher.update(parts[0].as_bytes());
    // No id has this byte.
    hasher.update(&[0]);
    hasher.update(parts[1].as_bytes());
    // 0 is below every place.
    hasher.digest().max(1)
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
