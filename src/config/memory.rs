//! How much memory there is to use: the machine's, or the control group's when that is less.

use std::fs;

/// What is assumed where nothing can be read: enough to work, little enough to fit anywhere.
const UNKNOWN_BYTES: u64 = 1 << 30;

/// The memory of the machine or of the control group (version 2, then 1), in bytes.
pub(super) fn available_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = groups.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => u64::min(machine, group),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => UNKNOWN_BYTES,
    }
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_the_machine_is_read_in_bytes() {
        assert_eq!(total_of("MemTotal:       24651776 kB\nMemFree: 1 kB\n"), Some(24_651_776 * 1024));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        assert_eq!(total_of("MemTotal: many kB\n"), None);
    }

    #[test]
    fn there_is_some_memory_here() {
        assert!(available_bytes() > 1 << 20);
    }
}
