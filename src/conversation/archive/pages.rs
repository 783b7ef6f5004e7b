//! Old pages: messages of a long conversation, read from packs when a call needs them.
//!
//! The indexes alone tell which chunks hold them. A pack that a merge has replaced is still open
//! to whoever found it before, so nothing here can be gone in the middle.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Archive, Error, chunk_error};
use crate::conversation::chunk::{self, Summary, messages_of};
use crate::conversation::history::History;
use crate::conversation::old::Old;
use crate::conversation::record::encode_key;
use crate::message::ConversationKey;
use crate::snapshot::{IndexEntry, PackReader};

/// Decoded chunks are kept up to this together, in bytes: whoever walks through old pages comes back
/// to the same chunk up to eighty times.
const CACHE_BYTES: usize = 16 << 20;
/// Smaller ones are not kept: they are read again as fast, and would be many.
const CACHED_CHUNK_BYTES_MIN: u32 = 16 << 10;

/// A chunk: its pack's number, and where in it.
type Place = (u64, u64);

/// A decoded chunk, as it is kept.
struct Kept {
    place: Place,
    key: Vec<u8>,
    messages: Arc<History>,
}

/// The chunks that were used last, the last one in front. At most a few hundred.
#[derive(Default)]
pub(super) struct Cache {
    kept: Mutex<(VecDeque<Kept>, usize)>,
}

impl Cache {
    fn lock(&self) -> std::sync::MutexGuard<'_, (VecDeque<Kept>, usize)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, place: Place, key: &[u8]) -> Option<Arc<History>> {
        let (kept, _) = &mut *self.lock();
        let at = kept.iter().position(|it| it.place == place && it.key == key)?;
        let found = kept.remove(at)?;
        let messages = found.messages.clone();
        kept.push_front(found);
        Some(messages)
    }

    fn keep(&self, new: Kept) {
        let (kept, bytes) = &mut *self.lock();
        // Two may have read it at the same time.
        if kept.iter().any(|it| it.place == new.place) {
            return;
        }
        *bytes += new.messages.bytes();
        kept.push_front(new);
        while *bytes > CACHE_BYTES
            && let Some(oldest) = kept.pop_back()
        {
            *bytes -= oldest.messages.bytes();
        }
    }

    fn forget(&self, key: &[u8]) {
        let (kept, bytes) = &mut *self.lock();
        if *bytes == 0 {
            return;
        }
        kept.retain(|it| it.key != key);
        *bytes = kept.iter().map(|it| it.messages.bytes()).sum();
    }
}

impl Archive {
    /// Reads messages of a conversation, as far as packs have them. Blocks.
    pub(crate) fn read_old(&self, key: &ConversationKey, span: &RangeInclusive<u32>) -> Result<Old, Error> {
        let bytes = encode_key(key);
        let mut old = Old::default();
        let mut first = None;
        for pack in self.packs().iter() {
            for entry in pack.entries_of(&bytes).iter().filter(|entry| entry.kind == chunk::KIND) {
                let Summary { messages: (before, last), hollow, .. } = Summary::from_numbers(entry.summary);
                let gone = *first.get_or_insert(before);
                old.note_gone(gone, if hollow { last } else { 0 });
                if before < *span.end() && last >= *span.start() && before < last {
                    old.extend(self.read_chunk(pack, entry, &bytes)?);
                }
            }
        }
        Ok(old)
    }

    /// Lets go of what was read of a conversation: one of its messages was recalled.
    pub(crate) fn forget_old(&self, key: &ConversationKey) {
        self.cache.forget(&encode_key(key));
    }

    fn read_chunk(&self, pack: &PackReader, entry: &IndexEntry, key: &[u8]) -> Result<Old, Error> {
        let mut old = Old::default();
        let place = (pack.info().number, entry.offset);
        if let Some(messages) = self.cache.get(place, key) {
            old.add(messages);
            return Ok(old);
        }
        let chunk = pack.chunk(entry)?;
        // Two keys may share a hash; the key inside decides.
        if chunk.meta.key == key {
            let messages = messages_of(&chunk.payload).map_err(|why| chunk_error(pack, entry, why))?;
            let messages = Arc::new(messages);
            if entry.bytes >= CACHED_CHUNK_BYTES_MIN {
                self.cache.keep(Kept { place, key: key.to_vec(), messages: messages.clone() });
            }
            old.add(messages);
        }
        Ok(old)
    }
}
