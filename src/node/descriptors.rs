//! How many connections the process has descriptors for.
//!
//! Promises that connections, of whoever comes, leave enough of them for the log, snapshots and the operations address.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::config::limits::OPS_CONNECTIONS_MAX;

/// What is open beside public connections: packs, segments and their directories, a reader for each thread that reads,
/// and the operations address.
const OWN_MAX: u64 = 256 + OPS_CONNECTIONS_MAX as u64;

/// How many of the connections that are wanted the system lets us have. Takes as many descriptors as it may for that.
pub(super) fn connections_max(wanted: usize) -> usize {
    let limit = raised_limit();
    let connections = wanted.min(beside_own(limit));
    if connections < wanted {
        warn!(
            wanted,
            connections,
            ?limit,
            "the limit of open files (ulimit -n) leaves fewer connections than are set"
        );
    }
    connections
}

/// The soft limit is for programs that cannot count beyond 1,024; the hard one is the operator's. `None`: there is none.
fn raised_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// Of few descriptors half are ours.
fn beside_own(limit: Option<u64>) -> usize {
    let beside = limit.map(|limit| limit - OWN_MAX.min(limit / 2));
    beside.map_or(usize::MAX, |beside| usize::try_from(beside).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_what_the_server_itself_has_open() {
        let own = OWN_MAX as usize;
        for (limit, connections) in [(0, 1), (64, 32), (1_024, 1_024 - own), (1 << 20, (1 << 20) - own)] {
            assert_eq!(beside_own(Some(limit)), connections, "of {limit}");
        }
        assert_eq!(beside_own(None), usize::MAX);
    }
}
