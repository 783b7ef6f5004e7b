//! Work that nobody waits for lets calls go first.
//!
//! Merging packs and reading everything once a day take a core for as long as they last. Where cores are few, a send
//! would wait for its turn: on two, its p50 was ten times as long during a merge, with the disk's syncs hardly slower.

use rustix::process::{getpriority_process, setpriority_process};
use tracing::debug;

/// The thread's niceness: its share beside a busy thread of ordinary priority becomes a tenth (`sched_prio_to_weight`
/// of Linux: 110 to 1,024), and an idle core is still all its own.
const NICENESS: i32 = 10;

/// Lowers the priority of the calling thread, for good. On Linux niceness belongs to a thread (getpriority(2)); a
/// system that has only the process' is left as it is.
pub(crate) fn step_back() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let lowered = getpriority_process(None).and_then(|now| match now < NICENESS {
        true => setpriority_process(None, NICENESS),
        // The whole process stands further back already.
        false => Ok(()),
    });
    if let Err(error) = lowered {
        debug!(%error, "the priority of a background thread stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_itself_steps_back() {
        let before = getpriority_process(None).unwrap();
        let own = std::thread::spawn(|| {
            step_back();
            getpriority_process(None).unwrap()
        });
        assert!(own.join().unwrap() >= NICENESS);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
