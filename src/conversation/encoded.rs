//! Encoded pages: what the edge made of a page, kept for whoever pulls the same page next.
//!
//! Everybody in a conversation pulls its newest page, and pollers pull theirs again and again; writing a page costs ten
//! times as much as finding it. Promises that a page is found only by a reader of the same rows: which messages and
//! recalls they are, and which of them are shown as recalled, is compared, so nothing has to be taken back when something
//! new is stored. Who may read what is decided before anybody looks here, and what the bytes mean is the edge's.
//!
//! A recall forgets the conversation's pages, because no text may outlive it.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::durable::DurableHead;
use super::state::{Durable, Shown};
use crate::message::{Address, ConversationKey, Page, Pull, UserId};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most bytes of pages on the whole node.
    pub bytes_max: u64,
}

impl Default for Options {
    /// Two thousand full pages of 200-byte messages.
    fn default() -> Self {
        Self { bytes_max: 32 << 20 }
    }
}

/// Full pages are about so long, for the size of the table.
const PAGE_BYTES: u64 = 16 << 10;
/// A shorter page is written as quickly as it is found.
const PAGE_BYTES_MIN: usize = 1024;
/// What a kept page takes beside its bytes.
const BESIDE_BYTES: usize = 192;

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
    pub(super) head: Arc<DurableHead>,
    pub(super) shown: Shown,
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
        (kept.rows.len() + BESIDE_BYTES) as u64
    }
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
        let kept = Cache::with_weighter(pages, options.bytes_max, Weigh);
        Self { kept, epoch }
    }

    /// The page of these rows.
    pub(super) fn find(
        &self,
        key: &Arc<ConversationKey>,
        user: &UserId,
        shown: Shown,
        durable: Durable,
    ) -> Option<EncodedPage> {
        let kept = self.kept.get(&(key.clone(), Reader::of(key, user)))?;
        (kept.shown == shown).then(|| self.page(kept, durable))
    }

    /// The page that `pull` gets in a direct conversation of which nothing is ever taken away: there nobody has to be
    /// asked which messages `user` may read.
    pub(super) fn find_direct(&self, head: &DurableHead, user: &UserId, pull: &Pull) -> Option<EncodedPage> {
        let durable = head.durable();
        let kept = self.kept.get(&(head.key.clone(), Reader::of(&head.key, user)))?;
        (kept.shown == Shown::by(pull, kept.shown.oldest, durable)).then(|| self.page(kept, durable))
    }

    fn page(&self, kept: Kept, durable: Durable) -> EncodedPage {
        EncodedPage {
            rows: kept.rows,
            max_msg_index: durable.messages,
            max_recall_index: durable.recalls,
            min_msg_index: kept.shown.oldest,
            epoch: self.epoch,
        }
    }

    /// Keeps a page in the place of the one before.
    pub(super) fn keep(&self, keep: &Keep, user: &UserId, rows: &[u8]) {
        if rows.len() < PAGE_BYTES_MIN {
            return;
        }
        let Keep { head, shown } = keep;
        let key = (head.key.clone(), Reader::of(&head.key, user));
        // Copied: the edge's has room behind its end.
        self.kept.insert(key.clone(), Kept { shown: *shown, rows: Bytes::copy_from_slice(rows) });
        // Whoever moves the head over a recall forgets the pages then; if that was before this one was there, it is
        // seen here.
        if head.durable().recalls != shown.recalls {
            self.kept.remove(&key);
        }
    }

    /// Lets go of a conversation's pages: a text in them was recalled.
    pub(super) fn forget(&self, key: &Arc<ConversationKey>) {
        let readers: &[Reader] = match **key {
            ConversationKey::Direct(..) => &[Reader::First, Reader::Second],
            ConversationKey::Group(_) => &[Reader::Member],
        };
        for reader in readers {
            self.kept.remove(&(key.clone(), *reader));
        }
    }
}
