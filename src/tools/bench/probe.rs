//! How long the disk alone takes for what a batch of the log asks of it: the floor under a durable send.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::super::Error;
use super::tally::latencies;
use crate::config;

/// Most syncs in one round: what two digits of a p99 need.
const SYNCS_MAX: usize = 500;
/// Longest a round takes on a slow disk.
pub(super) const ROUND_MAX: Duration = Duration::from_secs(1);
/// What a message takes in the log beside its text: frame, key, ids, numbers.
const RECORD_BYTES: usize = 128;
/// Most messages in a batch; larger ones are rare, and then bytes count more than the sync.
const BATCH_MAX: usize = 256;

/// Times `fdatasync` of batches that are appended to a zero-filled file, as the log does it.
pub(super) struct Probe {
    dir: PathBuf,
    batch: Vec<u8>,
    pub(super) messages: usize,
    pub(super) latencies_ns: Histogram<u64>,
}

impl Probe {
    /// For the file system of `dir`, with batches of one message of each request in flight.
    pub(super) fn new(dir: &Path, settings: &config::Bench) -> Result<Self, Error> {
        let messages = settings.lanes().min(BATCH_MAX);
        let batch = vec![1; messages * (settings.text_bytes + RECORD_BYTES)];
        Ok(Self { dir: dir.to_path_buf(), batch, messages, latencies_ns: latencies() })
    }

    /// Adds a round. The file has no name, so nothing finds it in the directory, and nothing is left of it.
    pub(super) fn sample(&mut self, shown: impl Fn(Duration)) -> Result<(), Error> {
        let failed = || Error::io("measure fdatasync in", &self.dir);
        let file = tempfile::tempfile_in(&self.dir).map_err(failed())?;
        let syncs = SYNCS_MAX.min((64 << 20) / self.batch.len()).max(1);
        fill(&file, syncs * self.batch.len()).map_err(failed())?;
        let begin = Instant::now();
        for number in 0..syncs {
            let sent = Instant::now();
            if sent - begin > ROUND_MAX {
                break;
            }
            file.write_all_at(&self.batch, (number * self.batch.len()) as u64).map_err(failed())?;
            file.sync_data().map_err(failed())?;
            self.latencies_ns.saturating_record(sent.elapsed().as_nanos() as u64);
            shown(begin.elapsed());
        }
        Ok(())
    }
}

fn fill(file: &File, bytes: usize) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    for from in (0..bytes).step_by(zeros.len()) {
        file.write_all_at(&zeros[..zeros.len().min(bytes - from)], from as u64)?;
    }
    file.sync_all()
}
