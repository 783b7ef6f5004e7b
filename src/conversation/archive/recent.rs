//! Loading what memory is to have of a conversation: of a long one, not all of it.
//!
//! Read are the chunks of the recent part with the participants and the head, every chunk that has
//! recalls, and those with messages of which a retry is to be recognized. The indexes tell which
//! those are. A short conversation is recent as a whole.

use std::sync::Arc;

use super::{Archive, Error, chunk_error, load_chunk};
use crate::conversation::chunk::{self, Loader, Summary};
use crate::conversation::history::{self, is_remembered};
use crate::conversation::record::encode_key;
use crate::conversation::state::State;
use crate::message::ConversationKey;
use crate::snapshot::{IndexEntry, PackReader};

/// A chunk of the conversation.
struct Place {
    pack: Arc<PackReader>,
    entry: IndexEntry,
    summary: Summary,
}

impl Place {
    fn messages(&self) -> u32 {
        self.summary.messages.1.saturating_sub(self.summary.messages.0)
    }
}

impl Archive {
    /// What the packs have of a conversation, as far as memory is to have it at `now_ns`.
    pub(super) fn load_recent_chunks(
        &self,
        key: &ConversationKey,
        now_ns: u64,
    ) -> Result<Option<State>, Error> {
        let bytes = encode_key(key);
        let mut places = self.places_of(&bytes);
        if !is_one_series(&places) {
            // Two keys may share a hash, or it is damaged, which the loader finds.
            places = those_of(places, &bytes)?;
        }
        match load_places(key, &bytes, &places, &self.history, now_ns)? {
            Loaded::Nothing => Ok(None),
            Loaded::State(state) => Ok(Some(*state)),
            Loaded::Mixed => {
                let places = those_of(places, &bytes)?;
                match load_places(key, &bytes, &places, &self.history, now_ns)? {
                    Loaded::State(state) => Ok(Some(*state)),
                    Loaded::Nothing | Loaded::Mixed => Ok(None),
                }
            }
        }
    }

    fn places_of(&self, key: &[u8]) -> Vec<Place> {
        let mut places = Vec::new();
        for pack in self.packs().iter() {
            let of_key = pack.entries_of(key).iter().filter(|entry| entry.kind == chunk::KIND);
            places.extend(of_key.map(|entry| Place {
                pack: pack.clone(),
                entry: *entry,
                summary: Summary::from_numbers(entry.summary),
            }));
        }
        places
    }
}

enum Loaded {
    State(Box<State>),
    Nothing,
    /// Some chunks are another conversation's.
    Mixed,
}

fn is_one_series(places: &[Place]) -> bool {
    places.is_sorted_by(|one, next| {
        let (one, next) = (one.summary, next.summary);
        (one.messages.1, one.recalls.1) == (next.messages.0, next.recalls.0)
    })
}

fn those_of(places: Vec<Place>, key: &[u8]) -> Result<Vec<Place>, Error> {
    let mut those = Vec::new();
    for place in places {
        if place.pack.key(&place.entry)? == key {
            those.push(place);
        }
    }
    Ok(those)
}

fn load_places(
    key: &ConversationKey,
    bytes: &[u8],
    places: &[Place],
    options: &history::Options,
    now_ns: u64,
) -> Result<Loaded, Error> {
    let Some(last) = places.last() else { return Ok(Loaded::Nothing) };
    let newest = last.summary.messages.1;
    let newest_ns = places.iter().map(|place| place.summary.newest_message_ns).max().unwrap_or(0);
    let now_ns = now_ns.max(newest_ns);
    let remembered = |index, ns| is_remembered(options, newest, now_ns, index, ns);
    let recent_from = first_recent(places, options);
    let mut loader = Loader::new(key.clone());
    for (place, number) in places.iter().zip(0..) {
        let Place { pack, entry, summary } = place;
        let is_recent = number >= recent_from;
        if !is_recent && !is_needed(place, remembered) {
            loader.pass_over(summary).map_err(|why| chunk_error(pack, entry, why))?;
            continue;
        }
        let chunk = pack.chunk(entry)?;
        if chunk.meta.key != bytes {
            return Ok(Loaded::Mixed);
        }
        match is_recent {
            true => load_chunk(&mut loader, pack, entry, &chunk)?,
            false => {
                let loaded = loader.load_old(&chunk.payload, remembered);
                loaded.map_err(|why| chunk_error(pack, entry, why))?;
            }
        }
        if summary.hollow {
            loader.keep_behind(summary.messages.1);
        }
    }
    Ok(Loaded::State(Box::new(loader.finish()?)))
}

/// From which chunk on everything is taken into memory.
fn first_recent(places: &[Place], options: &history::Options) -> usize {
    let (mut messages, mut bytes) = (0, 0);
    for (number, place) in places.iter().enumerate().rev() {
        messages += place.messages();
        bytes += place.entry.bytes as usize;
        // Participants of a series stand behind its messages, never before.
        let is_full = messages >= options.recent_messages || bytes >= options.recent_text_bytes;
        if is_full && place.messages() > 0 {
            return number;
        }
    }
    0
}

/// Whether memory is to have something of a chunk that is not recent.
fn is_needed(place: &Place, remembered: impl Fn(u32, u64) -> bool) -> bool {
    let Summary { messages, recalls, newest_message_ns, .. } = place.summary;
    // An old version did not say when its messages were sent.
    let may_be_young = newest_message_ns == 0 || remembered(messages.1, newest_message_ns);
    recalls.1 > recalls.0 || place.messages() > 0 && may_be_young
}
