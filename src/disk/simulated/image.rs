//! The bytes of one simulated file: as its readers see them, and as a power cut would leave them.

use std::collections::BTreeSet;
use std::io;

use super::random::Random;

/// What a disk writes whole, mostly; a power cut may also tear one.
const SECTOR_BYTES: usize = 512;
/// Of the sectors that a power cut let through, how many it tore.
const TORN_PERCENT: usize = 10;

#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    /// The memory of the operating system.
    live: Vec<u8>,
    /// The platter.
    stable: Vec<u8>,
    /// Sectors in which `live` waits to be written.
    dirty: BTreeSet<usize>,
    /// Sectors that a failed sync forgot: `live` and `stable` differ, and no later sync will mend it.
    forgotten: BTreeSet<usize>,
    /// End of what was ever written: the space the file takes.
    pub(super) allocated: usize,
}

impl Image {
    pub(super) fn durable(bytes: &[u8]) -> Self {
        Self { live: bytes.to_vec(), stable: bytes.to_vec(), allocated: bytes.len(), ..Self::default() }
    }

    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: usize) -> io::Result<()> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.live.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(&self.live[offset..end]);
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.live.len() {
            self.set_len(end);
        }
        self.live[offset..end].copy_from_slice(bytes);
        self.touch(offset, end);
        self.allocated = self.allocated.max(end);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let old = self.live.len();
        self.live.resize(len, 0);
        if len > old {
            self.touch(old, len);
        } else {
            let sectors = len.div_ceil(SECTOR_BYTES);
            self.dirty.split_off(&sectors);
            self.forgotten.split_off(&sectors);
            self.allocated = self.allocated.min(len);
        }
    }

    fn touch(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) {
            self.dirty.insert(sector);
            self.forgotten.remove(&sector);
        }
    }

    pub(super) fn sync(&mut self) {
        self.stable.resize(self.live.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let (from, to) = self.bounds(sector);
            self.stable[from..to].copy_from_slice(&self.live[from..to]);
        }
    }

    /// Some sectors reach the platter, and all of them count as written from now on: what Linux does after
    /// a failed write-back.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.stable.resize(self.live.len(), 0);
        let percent = random.below(100);
        for sector in std::mem::take(&mut self.dirty) {
            if random.chance(percent) {
                let (from, to) = self.bounds(sector);
                self.stable[from..to].copy_from_slice(&self.live[from..to]);
            } else {
                self.forgotten.insert(sector);
            }
        }
    }

    /// Clean sectors are read from the platter from now on; dirty ones stay in memory.
    pub(super) fn drop_cache(&mut self) {
        for sector in std::mem::take(&mut self.forgotten) {
            let (from, to) = self.bounds(sector);
            self.live[from..to].copy_from_slice(&self.stable[from..to]);
        }
    }

    /// Flips bits in memory and on the platter: rot.
    pub(super) fn flip(&mut self, offset: usize, mask: u8) {
        self.live[offset] ^= mask;
        if let Some(byte) = self.stable.get_mut(offset) {
            *byte ^= mask;
        }
    }

    /// The file as a power cut leaves it, when about `percent` of its dirty sectors got through.
    pub(super) fn after_power_cut(&self, random: &mut Random, percent: usize) -> Self {
        let (short, long) = (self.stable.len().min(self.live.len()), self.stable.len().max(self.live.len()));
        let len = match random.below(4) {
            0 => short + random.below(long - short + 1),
            1 => self.live.len(),
            _ => self.stable.len(),
        };
        let mut left = self.stable.clone();
        left.resize(len, 0);
        for &sector in &self.dirty {
            if random.chance(percent) {
                self.let_through(sector, &mut left, random);
            }
        }
        Self::durable(&left)
    }

    fn let_through(&self, sector: usize, left: &mut [u8], random: &mut Random) {
        let (mut from, mut to) = self.bounds(sector);
        if random.chance(TORN_PERCENT) {
            let tear = from + random.below(to - from);
            if random.chance(50) { to = tear } else { from = tear }
        }
        let to = to.min(left.len());
        if from < to {
            left[from..to].copy_from_slice(&self.live[from..to]);
        }
    }

    fn bounds(&self, sector: usize) -> (usize, usize) {
        (sector * SECTOR_BYTES, ((sector + 1) * SECTOR_BYTES).min(self.live.len()))
    }
}
