//! The metrics in Prometheus' own text format (0.0.4), from OpenMetrics.
//!
//! Promises that every sample stands under the name that its type was told for: OpenMetrics calls a counter `x` whose
//! sample is `x_total`, the older format calls both `x_total`. What is measured is none of its business.

use std::collections::HashSet;

/// The same samples in the older format.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let counters: HashSet<&str> = open_metrics.lines().filter_map(counter).collect();
    let mut text = String::with_capacity(open_metrics.len() + 16 * counters.len());
    for line in open_metrics.lines() {
        match described(line) {
            // The older format has neither.
            Some(("EOF" | "UNIT", ..)) => continue,
            Some((what, name, rest)) if counters.contains(name) => {
                text.extend(["# ", what, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The counter whose type a line tells.
fn counter(line: &str) -> Option<&str> {
    match described(line)? {
        ("TYPE", name, "counter") => Some(name),
        _ => None,
    }
}

/// What a line says of a metric, of which, and the rest of it; `None` for a sample.
fn described(line: &str) -> Option<(&str, &str, &str)> {
    let line = line.strip_prefix("# ")?;
    let (what, of) = line.split_once(' ').unwrap_or((line, ""));
    let (name, rest) = of.split_once(' ').unwrap_or((of, ""));
    Some((what, name, rest))
}
