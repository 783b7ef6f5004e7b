//! Encoded pages: what the edge made of a page, kept for whoever pulls the same page next.
//!
//! Everybody in a conversation pulls its newest page, and whoever opens it again pulls that once more; writing a page
//! costs four times as much as collecting it, and finding one that is written costs next to nothing.
//!
//! Promises that a page is found only by a reader of the same rows: which messages and recalls they are, and which
//! recalls were durable, is compared each time. So nothing has to be taken back when something new is stored, and a
//! text is not found again once its recall is durable. A recall also forgets the conversation's pages, because no text
//! may stay in memory for nobody. Who may read what is decided before anybody looks here, and what the bytes mean is the
//! edge's.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::admission::Permit;
use super::durable::DurableHead;
use super::shown::{Shown, View};
use crate::message::{Address, ConversationKey, Page, UserId};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most bytes of pages on the whole node. 0 keeps none.
    pub bytes_max: u64,
}

impl Default for Options {
    /// Six thousand full pages of 200-byte messages. Whoever opens a conversation again does so soon, and each of these
    /// bytes is in memory as a text already: so there are few of them beside what conversations take.
    fn default() -> Self {
        Self { bytes_max: 128 << 20 }
    }
}

/// Full pages are about so long, for the size of the table.
const PAGE_BYTES: u64 = 16 << 10;
/// A shorter page is written as quickly as it is found.
const PAGE_BYTES_MIN: usize = 1024;
/// What a kept page takes beside its rows at most: its places in the table, and its conversation's key, which may
/// outlive the conversation in memory.
const BESIDE_BYTES: usize = 512;

/// Writes the rows of a page as the reader sees them who addresses the conversation so.
pub type EncodeRows = fn(&Page, &Address) -> Vec<u8>;

/// A page whose rows are written already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPage {
    /// What the [`EncodeRows`] wrote.
    pub rows: Bytes,
    /// As in [`Page`].
    pub max_msg_index: u32,
    /// As in [`Page`].
    pub max_recall_index: u32,
    /// As in [`Page`].
    pub min_msg_index: u32,
    /// As in [`Page`].
    pub epoch: u32,
}

impl EncodedPage {
    /// A page with its rows as they were written.
    pub fn of(rows: Bytes, page: &Page) -> Self {
        let Page { max_msg_index, max_recall_index, min_msg_index, epoch, .. } = *page;
        Self { rows, max_msg_index, max_recall_index, min_msg_index, epoch }
    }
}

/// A page that is worth keeping, once it is encoded.
#[derive(Debug)]
pub(crate) struct Keep {
    head: Arc<DurableHead>,
    shown: Shown,
    /// Until it is kept the conversation stays in memory: a recall moves this head and no other.
    _permit: Permit,
}

impl Keep {
    /// What is shown of a conversation is worth keeping.
    pub(super) fn new(head: &Arc<DurableHead>, shown: Shown) -> Self {
        Self { head: head.clone(), shown, _permit: head.admission.escort(head) }
    }
}

/// Who reads: the two of a direct conversation address it differently, members of a group alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reader {
    First,
    Second,
    Member,
}

impl Reader {
    fn of(key: &ConversationKey, user: &UserId) -> Self {
        match key {
            ConversationKey::Direct(first, _) if first == user => Self::First,
            ConversationKey::Direct(..) => Self::Second,
            ConversationKey::Group(_) => Self::Member,
        }
    }

    /// Everybody who may read a conversation.
    fn all(key: &ConversationKey) -> &'static [Self] {
        match key {
            ConversationKey::Direct(..) => &[Self::First, Self::Second],
            ConversationKey::Group(_) => &[Self::Member],
        }
    }
}

type PageKey = (Arc<ConversationKey>, Reader);

/// The page that such a reader saw last.
#[derive(Debug, Clone)]
struct Kept {
    shown: Shown,
    rows: Bytes,
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<PageKey, Kept> for Weigh {
    fn weight(&self, _: &PageKey, kept: &Kept) -> u64 {
        (allocated(kept.rows.len()) + BESIDE_BYTES) as u64
    }
}

/// What the allocator takes for so many bytes: it has four sizes between one power of two and the next.
fn allocated(bytes: usize) -> usize {
    bytes.next_multiple_of(bytes.next_power_of_two() / 8)
}

/// The pages of a node.
#[derive(Debug)]
pub(crate) struct EncodedPages {
    kept: Cache<PageKey, Kept, Weigh>,
    epoch: u32,
}

impl EncodedPages {
    pub(super) fn new(options: Options, epoch: u32) -> Self {
        let pages = (options.bytes_max / PAGE_BYTES) as usize;
        Self { kept: Cache::with_weighter(pages, options.bytes_max, Weigh), epoch }
    }

    /// The page that `user` sees, if its rows are here.
    pub(super) fn find(&self, key: &Arc<ConversationKey>, user: &UserId, view: &View) -> Option<EncodedPage> {
        let kept = self.kept.get(&(key.clone(), Reader::of(key, user)))?;
        (kept.shown == view.shown).then_some(EncodedPage {
            rows: kept.rows,
            max_msg_index: view.durable.messages,
            max_recall_index: view.durable.recalls,
            min_msg_index: view.oldest,
            epoch: self.epoch,
        })
    }

    /// Keeps the rows that `user` sees, in the place of those before; gives them back.
    pub(super) fn keep(&self, keep: &Keep, user: &UserId, rows: Vec<u8>) -> Bytes {
        if rows.len() < PAGE_BYTES_MIN {
            return rows.into();
        }
        // The edge's vector has room behind its end; a box has none.
        let rows = Bytes::from(rows.into_boxed_slice());
        let Keep { head, shown, .. } = keep;
        let key = (head.key.clone(), Reader::of(&head.key, user));
        self.kept.insert(key.clone(), Kept { shown: *shown, rows: rows.clone() });
        // Whoever moves the head over a recall forgets the pages then. If that was before this one was here, the head
        // has moved by now.
        if head.durable().recalls != shown.recalls {
            self.kept.remove(&key);
        }
        rows
    }

    /// Lets go of a conversation's pages: a text in them was recalled. Its head has moved over the recall.
    pub(super) fn forget(&self, key: &Arc<ConversationKey>) {
        for reader in Reader::all(key) {
            self.kept.remove(&(key.clone(), *reader));
        }
    }
}

#[cfg(test)]
#[path = "encoded_tests.rs"]
mod tests;
