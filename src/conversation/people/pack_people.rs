//! Reading the people of packs: which block to look into, and what to do where a pack has none.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tracing::{info, warn};

use super::{RowV1, Rows, Span, UserHash, is_block, rows_in, rows_of_block};
use crate::conversation::codec;
use crate::message::{ConversationKey, UserId};
use crate::snapshot::{self, IndexEntry, PackReader};

/// Why it cannot be told whose conversations a pack holds. It may hold some of the user who was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// A people block cannot be read, or is damaged.
    #[error(transparent)]
    Snapshot(Arc<snapshot::Error>),
    /// A people block is whole, but not what this version wrote.
    #[error("{}, people block at byte {offset}: {why}", pack.display())]
    Block {
        /// The file.
        pack: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        why: Arc<codec::Error>,
    },
    /// A chunk of a pack that is older than people blocks makes no sense. Nobody can say whose it is.
    #[error("{} has no people blocks, and its chunk at byte {offset}: {why}", pack.display())]
    Chunk {
        /// The file.
        pack: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        why: Arc<codec::Error>,
    },
}

impl From<snapshot::Error> for Error {
    fn from(why: snapshot::Error) -> Self {
        Self::Snapshot(Arc::new(why))
    }
}

/// A conversation that a user is in, as one pack says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) key: ConversationKey,
    pub(crate) read_cursor: u32,
    pub(crate) readable_from: u32,
}

/// Whether a pack has its people. One that has conversations and no block is older than blocks.
pub(crate) fn has_blocks(pack: &PackReader) -> bool {
    pack.entries().is_empty() || pack.entries().iter().any(is_block)
}

/// Where the people of packs are, noted when they are first asked for and for as long as a pack is open.
#[derive(Default)]
pub(crate) struct People(Mutex<Vec<(Weak<PackReader>, Arc<PackPeople>)>>);

impl People {
    /// The conversations of `user` in this pack. Reads one block of each of its runs; of a pack without blocks all of
    /// it, once.
    pub(crate) fn in_pack(
        &self,
        pack: &Arc<PackReader>,
        user: &UserId,
        hash: UserHash<'_>,
    ) -> Result<Vec<Found>, Error> {
        self.of(pack).rows_of(pack, user, hash)
    }

    fn of(&self, pack: &Arc<PackReader>) -> Arc<PackPeople> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, people)) = known.iter().find(|(of, _)| of.as_ptr() == Arc::as_ptr(pack)) {
            return people.clone();
        }
        known.retain(|(of, _)| of.strong_count() > 0);
        let people = Arc::new(PackPeople::default());
        known.push((Arc::downgrade(pack), people.clone()));
        people
    }
}

/// Where the people of one pack are.
#[derive(Default)]
struct PackPeople(OnceLock<Result<Source, Error>>);

enum Source {
    /// In its blocks.
    Blocks(Vec<Run>),
    /// In memory: the pack is older than blocks. Merging it ends that.
    Derived(Vec<Rows>),
}

/// Blocks whose rows are sorted from the first block to the last.
pub(super) type Run = Vec<InIndex>;

/// A block with rows, as the index knows it.
pub(super) struct InIndex {
    span: Span,
    /// Its place among the pack's entries.
    entry: u32,
}

impl PackPeople {
    fn rows_of(&self, pack: &PackReader, user: &UserId, hash: UserHash<'_>) -> Result<Vec<Found>, Error> {
        // A pack that could not be derived stays so until it is merged or the node starts again, as a damaged
        // conversation does: each try would read all of it.
        let source = self.0.get_or_init(|| Source::of(pack, hash).inspect_err(|why| warn!(%why)));
        match source.as_ref().map_err(Clone::clone)? {
            Source::Blocks(runs) => {
                let mut found = Vec::new();
                for run in runs {
                    for block in blocks_with(run, hash(user.as_str())) {
                        read_block(pack, &pack.entries()[block.entry as usize], user, hash, &mut found)?;
                    }
                }
                Ok(found)
            }
            Source::Derived(runs) => {
                let rows = runs.iter().flat_map(|rows| rows.under(hash(user.as_str())));
                let found = rows.filter(|row| row.user == user.as_str()).map(|row| found_of(&row));
                // What was derived came from the chunks, whose keys were parsed.
                Ok(found.filter_map(Result::ok).collect())
            }
        }
    }
}

impl Source {
    fn of(pack: &PackReader, hash: UserHash<'_>) -> Result<Self, Error> {
        match has_blocks(pack) {
            true => Ok(Self::Blocks(runs_of(pack.entries()))),
            false => derive(pack, hash).map(Self::Derived),
        }
    }
}

/// The blocks of a pack in their order, divided where one does not continue the one before.
pub(super) fn runs_of(entries: &[IndexEntry]) -> Vec<Run> {
    let all = entries.iter().zip(0u32..).filter(|(entry, _)| is_block(entry));
    let mut blocks: Vec<_> =
        all.map(|(it, entry)| (it.offset, Span::from_numbers(it.summary), entry)).collect();
    blocks.retain(|(_, span, _)| span.rows > 0);
    blocks.sort_unstable_by_key(|(offset, ..)| *offset);
    let mut runs: Vec<Run> = Vec::new();
    for (_, span, entry) in blocks {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|before| before.span.last <= span.first) => {
                run.push(InIndex { span, entry });
            }
            _ => runs.push(vec![InIndex { span, entry }]),
        }
    }
    runs
}

/// The blocks of a run that may have rows under this hash.
fn blocks_with(run: &[InIndex], hash: u64) -> impl Iterator<Item = &InIndex> {
    let start = run.partition_point(|block| block.span.last < hash);
    run[start..].iter().take_while(move |block| block.span.first <= hash)
}

fn read_block(
    pack: &PackReader,
    entry: &IndexEntry,
    user: &UserId,
    hash: UserHash<'_>,
    found: &mut Vec<Found>,
) -> Result<(), Error> {
    let chunk = pack.chunk(entry)?;
    let damaged = |why| Error::Block { pack: pack.path().into(), offset: entry.offset, why: Arc::new(why) };
    let rows = rows_of_block(entry, &chunk.payload, hash).map_err(damaged)?;
    // Two users may share a hash; the id decides.
    for row in rows.iter().filter(|row| row.user == user.as_str()) {
        found.push(found_of(row).map_err(damaged)?);
    }
    Ok(())
}

fn found_of(row: &RowV1<'_>) -> Result<Found, codec::Error> {
    let RowV1 { key, read_cursor, readable_from, .. } = row;
    Ok(Found { key: key.parse()?, read_cursor: *read_cursor, readable_from: *readable_from })
}

/// The rows that a pack without blocks would have: about 60 bytes of memory for each.
fn derive(pack: &PackReader, hash: UserHash<'_>) -> Result<Vec<Rows>, Error> {
    let mut runs = vec![Rows::default()];
    for (entry, chunk) in pack.chunks_in_order() {
        let chunk = chunk?;
        let rows = rows_in(&chunk.meta.key, &chunk.payload).and_then(|rows| {
            rows.first().map(|row| row.key.parse()).transpose()?;
            Ok(rows)
        });
        let damaged =
            |why| Error::Chunk { pack: pack.path().into(), offset: entry.offset, why: Arc::new(why) };
        for row in rows.map_err(damaged)? {
            if runs.last().is_some_and(Rows::is_full) {
                runs.push(Rows::default());
            }
            let run = runs.last_mut().expect("there is always one");
            run.push(hash(row.user), &row);
        }
    }
    runs.iter_mut().for_each(Rows::sort);
    let rows: usize = runs.iter().map(|run| run.order.len()).sum();
    info!(pack = %pack.path().display(), rows, "a pack without people blocks was read through");
    Ok(runs)
}
