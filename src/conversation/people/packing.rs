//! Writing a pack of conversations together with its people.

use super::{Block, Rows, Span, rows_in, user_hash};
use crate::conversation::checkpoint::meta_of;
use crate::conversation::chunk::Chunk;
use crate::snapshot::{self, PackInfo, PackWriter, StoreId};

/// A pack in the making, and who is in the conversations that were added to it.
pub(crate) struct ConversationPack {
    pack: PackWriter,
    store: StoreId,
    /// Not yet written.
    rows: Rows,
    blocks: u32,
}

impl ConversationPack {
    /// Goes on with a pack to which nothing was added yet.
    pub(crate) fn new(pack: PackWriter, store: StoreId) -> Self {
        Self { pack, store, rows: Rows::default(), blocks: 0 }
    }

    /// Appends a chunk of the conversation whose encoded key is `key`. A series has to be added whole.
    pub(crate) fn add(&mut self, key: &[u8], chunk: &Chunk) -> Result<(), snapshot::Error> {
        self.pack.add(&meta_of(chunk, key.to_vec()), &chunk.payload)?;
        // Only a key can be none: the payload was encoded just now. What names no conversation has no people.
        for row in rows_in(key, &chunk.payload).unwrap_or_default() {
            self.rows.push(user_hash(&self.store, row.user), &row);
            if self.rows.is_full() {
                self.write_people()?;
            }
        }
        Ok(())
    }

    /// How long the pack is so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.pack.bytes()
    }

    /// How many chunks were added, people blocks among them.
    pub(crate) fn chunks(&self) -> usize {
        self.pack.chunks()
    }

    /// Writes and syncs all but the index, so that [`finish`](Self::finish) has little to do.
    pub(crate) fn settle(&mut self) -> Result<(), snapshot::Error> {
        self.write_last_people()?;
        self.pack.sync()
    }

    /// See [`PackWriter::finish`].
    pub(crate) fn finish(mut self) -> Result<PackInfo, snapshot::Error> {
        self.write_last_people()?;
        self.pack.finish()
    }

    /// A pack in whose conversations nobody is gets a block without rows: one without a block is older than blocks.
    fn write_last_people(&mut self) -> Result<(), snapshot::Error> {
        self.write_people()?;
        if self.blocks == 0 && self.pack.chunks() > 0 {
            let mut payload = Vec::new();
            crate::conversation::codec::encode_into(&0u64, &mut payload);
            self.write(&Block { span: Span { first: 0, last: 0, rows: 0 }, payload })?;
        }
        Ok(())
    }

    /// Writes the rows held so far as one run of blocks.
    fn write_people(&mut self) -> Result<(), snapshot::Error> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort();
        for block in rows.blocks() {
            self.write(&block)?;
        }
        rows.clear();
        self.rows = rows;
        Ok(())
    }

    fn write(&mut self, block: &Block) -> Result<(), snapshot::Error> {
        self.pack.add(&block.meta(self.blocks), &block.payload)?;
        self.blocks += 1;
        Ok(())
    }
}
