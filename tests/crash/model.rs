//! What the log must hold, in memory.

/// The truth about one store.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// What was accepted, by position: the first is record 1.
    pub(crate) appended: Vec<(u8, Vec<u8>)>,
    /// How many of these a power cut must not take.
    pub(crate) on_disk: u64,
    /// How many of these came out of the sink.
    pub(crate) out: u64,
    /// Up to here a snapshot covers the log: older records may be gone.
    pub(crate) covered: u64,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    PowerCut,
    Killed,
}

impl Model {
    /// Checks what a recovery read behind `covered`, and takes it over: history is what is on the disk.
    pub(crate) fn check(
        &mut self,
        read: &[(u64, u8, Vec<u8>)],
        last: u64,
        end: End,
        sync_failed: bool,
    ) -> Result<(), String> {
        let must = if end == End::Killed && !sync_failed { self.out.max(self.on_disk) } else { self.on_disk };
        if last < must {
            return Err(format!("{must} records were safe, {last} came back"));
        }
        if last > self.appended.len() as u64 {
            return Err(format!("{} records were appended, {last} came back", self.appended.len()));
        }
        let expected = self.appended[self.covered as usize..last as usize].iter();
        let numbers = self.covered + 1..;
        let expected: Vec<_> =
            numbers.zip(expected).map(|(lsn, (kind, payload))| (lsn, *kind, payload.clone())).collect();
        if read != expected {
            let (got, wanted) = (read.len(), expected.len());
            return Err(format!("other records came back than were appended ({got} against {wanted})"));
        }
        self.appended.truncate(last as usize);
        (self.on_disk, self.out) = (last, last);
        Ok(())
    }
}
