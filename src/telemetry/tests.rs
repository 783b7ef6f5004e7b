//! What is counted is what the text says, and what counting costs.

use std::collections::HashSet;

use super::*;

#[test]
fn verbs_are_listed_in_the_order_of_the_enum() {
    for (place, (verb, _)) in VERBS.iter().enumerate() {
        assert_eq!(*verb as usize, place);
    }
}

/// As a strict reader of the older format takes it: a sample whose family has no type is none of a family.
#[test]
fn every_sample_of_prometheus_own_format_belongs_to_a_family_whose_type_and_help_are_told() {
    let metrics = Metrics::new(SyncMode::Always);
    metrics.request(Verb::Send, SUCCESS, Duration::from_micros(300));
    let text = metrics.to_prometheus();
    let told = |what: &str| -> HashSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(&format!("# {what} ")));
        lines.map(|of| of.split_once(' ').expect("a name and more").0.to_owned()).collect()
    };
    let (helps, types) = (told("HELP"), told("TYPE"));
    assert_eq!(helps, types);
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for sample in &samples {
        let name = sample.split(['{', ' ']).next().expect("a name");
        let ends = ["_bucket", "_sum", "_count"];
        let family = ends.iter().find_map(|end| name.strip_suffix(end).filter(|name| types.contains(*name)));
        assert!(types.contains(family.unwrap_or(name)), "{sample}");
    }
    assert!(samples.contains(&"chinwag_requests_total{verb=\"send\",code=\"0\"} 1"));
    assert!(text.contains("\n# TYPE chinwag_requests_total counter\n") && !text.contains("# EOF"), "{text}");
    assert_eq!(samples.len(), metrics.to_text().lines().filter(|line| !line.starts_with('#')).count());
}

#[test]
fn a_request_is_counted_under_its_verb_and_code() {
    let metrics = Metrics::new(SyncMode::Always);
    metrics.request(Verb::Send, SUCCESS, Duration::from_micros(300));
    metrics.request(Verb::Send, 20003, Duration::from_secs(100));
    metrics.request(Verb::Pull, 77, Duration::ZERO);
    let text = metrics.to_text();
    for line in [
        "chinwag_requests_total{verb=\"send\",code=\"0\"} 1",
        "chinwag_requests_total{verb=\"send\",code=\"20003\"} 1",
        "chinwag_requests_total{verb=\"pull\",code=\"other\"} 1",
        "chinwag_request_seconds_count{verb=\"send\"} 2",
        "chinwag_request_seconds_bucket{le=\"0.00025\",verb=\"send\"} 0",
        "chinwag_request_seconds_bucket{le=\"0.0005\",verb=\"send\"} 1",
        "chinwag_request_seconds_bucket{le=\"+Inf\",verb=\"send\"} 2",
        "chinwag_sync_mode{mode=\"always\"} 1",
        "chinwag_checkpoints_total{result=\"failed\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_value_on_a_bound_belongs_under_it() {
    let metrics = Metrics::new(SyncMode::Never);
    for records in [1, 2, 3, 8192, 8193] {
        metrics.commits.records.observe(records);
    }
    let text = metrics.to_text();
    for line in ["le=\"1.0\"} 1", "le=\"2.0\"} 2", "le=\"4.0\"} 3", "le=\"8192.0\"} 4", "le=\"+Inf\"} 5"] {
        assert!(text.contains(&format!("chinwag_commit_records_bucket{{{line}")), "{line} is not in\n{text}");
    }
    assert!(text.contains("chinwag_commit_records_sum 16391.0"));
}

/// `cargo test --release --lib print_what_a_send_costs -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
#[expect(clippy::print_stderr, reason = "its result is what it prints")]
fn print_what_a_send_costs() {
    const SENDS: u32 = 10_000_000;
    let metrics = Metrics::new(SyncMode::Always);
    let started = std::time::Instant::now();
    for nanos in 0..SENDS {
        metrics.in_flight.inc();
        metrics.request(Verb::Send, SUCCESS, Duration::from_nanos(200_000 + u64::from(nanos % 65_536)));
        metrics.in_flight.dec();
    }
    eprintln!("{:?} per send", started.elapsed() / SENDS);
}
