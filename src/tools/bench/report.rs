//! What was measured, as a table and as JSON.
//!
//! In a closed loop a slow answer keeps its connection from sending: the requests it held back are missing where it
//! hurts. They are counted in as HdrHistogram does it: an answer slower than the pace also stands for the requests that
//! would have been due meanwhile, one pace apart. The pace is what a connection's requests had from one to the next on
//! average, which the server kept up with by definition; so nothing is counted in while answers take alike.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::super::Error;
use super::director::Outcome;
use super::probe::Probe;
use super::tally::{Results, Verb};
use crate::config;

/// From this share of a core on a thread of ours may be what limits the load.
const BUSY: f64 = 0.9;

/// Everything that was measured. Names end in the unit.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    server: String,
    transport: &'static str,
    /// `None`: a closed loop.
    rate_per_s: Option<u64>,
    connections: usize,
    /// Requests in flight on each.
    pipeline: usize,
    conversations: usize,
    users: usize,
    /// In each conversation; `None`: the two of a direct one.
    members: Option<usize>,
    text_bytes: usize,
    mix: BTreeMap<&'static str, u32>,
    duration_s: f64,
    warm_up_s: f64,
    verbs: Vec<Row>,
    all: Row,
    /// Due before the end, and not sent because every connection waited.
    unsent: u64,
    /// From one request of a connection to its next, on average; `None` in an open loop.
    pace_us: Option<f64>,
    disk: Option<Disk>,
    server_cpu_us_per_request: Option<f64>,
    bench_cpu_us_per_request: f64,
    /// Share of a core that the busiest thread of the load used.
    bench_busiest_thread: f64,
}

/// One verb, or all together.
#[derive(Debug, Serialize)]
struct Row {
    verb: &'static str,
    /// Answered with success.
    requests: u64,
    requests_per_s: f64,
    errors: u64,
    errors_by_kind: BTreeMap<String, u64>,
    /// From when each request was due; in a closed loop with what was held back.
    latency_us: Latency,
    /// Only of what was really sent; the same in an open loop.
    uncorrected_latency_us: Latency,
}

#[derive(Debug, PartialEq, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// The disk's own `fdatasync`.
#[derive(Debug, Serialize)]
struct Disk {
    /// Messages in a batch.
    messages: usize,
    fdatasyncs: u64,
    fdatasync_us: Latency,
}

impl Report {
    pub(super) fn of(
        settings: &config::Bench,
        server: String,
        outcome: Outcome,
        probe: Option<&Probe>,
    ) -> Self {
        let mix = settings.mix;
        let Outcome { tally, measured, server_cpu, threads_cpu } = outcome;
        let mut together = Results::default();
        for verb in Verb::ALL {
            together.add(tally.of(verb));
        }
        let pace_ns = pace_ns(settings, &together, measured);
        let called = Verb::ALL.into_iter().filter(|verb| tally.of(*verb).total() > 0);
        let verbs = called.map(|verb| Row::of(verb.as_str(), tally.of(verb), measured, pace_ns)).collect();
        let requests = together.total().max(1) as f64;
        let per_request = |cpu: Duration| cpu.as_secs_f64() * 1e6 / requests;
        let busiest = threads_cpu.iter().max().copied().unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            server,
            transport: settings.transport.as_str(),
            rate_per_s: settings.rate.map(std::num::NonZeroU64::get),
            connections: settings.connections,
            pipeline: settings.pipeline,
            conversations: settings.conversations,
            users: settings.users,
            members: settings.members,
            text_bytes: settings.text_bytes,
            mix: [("send", mix.send), ("pull", mix.pull), ("ack", mix.ack)].into(),
            duration_s: measured.as_secs_f64(),
            warm_up_s: settings.warm_up.as_secs_f64(),
            verbs,
            all: Row::of("all", &together, measured, pace_ns),
            unsent: tally.unsent,
            pace_us: pace_ns.map(micros),
            disk: probe.map(Disk::of),
            server_cpu_us_per_request: server_cpu.map(per_request),
            bench_cpu_us_per_request: per_request(threads_cpu.iter().sum()),
            bench_busiest_thread: busiest.as_secs_f64() / measured.as_secs_f64(),
        }
    }

    /// An error if nothing succeeded: then there is nothing that was measured.
    pub(super) fn into_result(self) -> Result<(), Error> {
        if self.all.requests > 0 {
            return Ok(());
        }
        Err(Error::Refused(
            "not one request was answered with success in the time that was measured".to_owned(),
        ))
    }

    pub(super) fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let pace = match self.rate_per_s {
            Some(rate) => format!("open loop of {rate}/s"),
            None => "closed loop".to_owned(),
        };
        let connections = match (self.transport, self.pipeline) {
            ("h2", 1) => "connections of HTTP/2".to_owned(),
            ("h2", pipeline) => format!("connections of HTTP/2 with {pipeline} requests in flight each"),
            ("ws", 1) => "WebSockets".to_owned(),
            ("ws", pipeline) => format!("WebSockets with {pipeline} requests in flight each"),
            _ => "connections".to_owned(),
        };
        let conversations =
            self.members.map_or("conversations".to_owned(), |members| format!("groups of {members}"));
        writeln!(
            out,
            "{pace}, {} {connections}, {} {conversations} of {} users, {}-byte messages, {:.1} s after {:.1} s of warm-up\n\
             server: {}\n",
            self.connections,
            self.conversations,
            self.users,
            self.text_bytes,
            self.duration_s,
            self.warm_up_s,
            self.server,
        )?;
        write_line(out, ["", "requests/s", "errors", "p50", "p90", "p99", "p99.9", "max"])?;
        for row in self.verbs.iter().chain((self.verbs.len() > 1).then_some(&self.all)) {
            row.write(out)?;
        }
        if let Some(disk) = &self.disk {
            let name = format!("disk's fdatasync of {} such messages", disk.messages);
            let [p50, _, p99, ..] = disk.fdatasync_us.texts();
            writeln!(out, "\n{name}: p50 {p50}, p99 {p99} ({} of them)", disk.fdatasyncs)?;
        }
        self.write_cpu(out)?;
        self.write_remarks(out)
    }

    fn write_cpu(&self, out: &mut dyn Write) -> io::Result<()> {
        let server = self.server_cpu_us_per_request.map(|cpu| format!("server {cpu:.1} us, "));
        writeln!(
            out,
            "CPU per request: {}bench {:.1} us, its busiest thread at {:.0} % of a core",
            server.unwrap_or_default(),
            self.bench_cpu_us_per_request,
            self.bench_busiest_thread * 100.0,
        )
    }

    /// What a reader of the figures has to know.
    fn write_remarks(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in &self.verbs {
            for (kind, count) in &row.errors_by_kind {
                writeln!(out, "errors of {}: {count} x {kind}", row.verb)?;
            }
        }
        if let Some(interval) = self.pace_us {
            let interval = text(interval);
            writeln!(
                out,
                "latencies count what slow answers held back, one request per {interval} and {}",
                if self.pipeline > 1 { "place in flight" } else { "connection" },
            )?;
        }
        if self.unsent > 0 {
            writeln!(
                out,
                "{} requests were due and never sent: the server did not keep up, and true latencies are higher",
                self.unsent
            )?;
        }
        if self.bench_busiest_thread >= BUSY {
            writeln!(out, "the load itself was at its limit: more --threads may find more")?;
        }
        Ok(())
    }
}

impl Row {
    fn of(verb: &'static str, results: &Results, measured: Duration, pace_ns: Option<u64>) -> Self {
        let latencies = &results.latencies_ns;
        let uncorrected_latency_us = Latency::of(latencies);
        let latency_us = match pace_ns {
            Some(pace) => Latency::of(&latencies.clone_correct(pace)),
            None => Latency::of(latencies),
        };
        let seconds = measured.as_secs_f64();
        Self {
            verb,
            requests: latencies.len(),
            requests_per_s: latencies.len() as f64 / seconds,
            errors: results.errors(),
            errors_by_kind: results.failures.iter().map(|(kind, count)| (kind.to_string(), *count)).collect(),
            latency_us,
            uncorrected_latency_us,
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let [p50, p90, p99, p999, max] = self.latency_us.texts();
        let (rate, errors) = (format!("{:.0}", self.requests_per_s), self.errors.to_string());
        write_line(out, [self.verb, &rate, &errors, &p50, &p90, &p99, &p999, &max])
    }
}

impl Latency {
    fn of(nanos: &Histogram<u64>) -> Self {
        let at = |quantile| micros(nanos.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: micros(nanos.max()) }
    }

    fn texts(&self) -> [String; 5] {
        [self.p50, self.p90, self.p99, self.p999, self.max].map(text)
    }
}

impl Disk {
    fn of(probe: &Probe) -> Self {
        let latencies = &probe.latencies_ns;
        Self { messages: probe.messages, fdatasyncs: latencies.len(), fdatasync_us: Latency::of(latencies) }
    }
}

impl Results {
    fn errors(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Requests, however they ended.
    fn total(&self) -> u64 {
        self.latencies_ns.len() + self.errors()
    }
}

/// From one request of a connection, or of a lane of it, to the next, on average, where there is no schedule.
fn pace_ns(settings: &config::Bench, all: &Results, measured: Duration) -> Option<u64> {
    if settings.rate.is_some() || all.total() == 0 {
        return None;
    }
    let pace = measured.as_nanos() * settings.lanes() as u128 / u128::from(all.total());
    u64::try_from(pace).ok().filter(|pace| *pace > 0)
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// Three digits and a unit.
fn text(micros: f64) -> String {
    match micros {
        micros if micros >= 1e6 => format!("{:.2} s", micros / 1e6),
        micros if micros >= 1e5 => format!("{:.0} ms", micros / 1e3),
        micros if micros >= 1e4 => format!("{:.1} ms", micros / 1e3),
        micros if micros >= 1e3 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{micros:.0} us"),
    }
}

fn write_line(
    out: &mut dyn Write,
    [name, rate, errors, p50, p90, p99, p999, max]: [&str; 8],
) -> io::Result<()> {
    writeln!(out, "{name:<6}{rate:>11}{errors:>9}{p50:>10}{p90:>10}{p99:>10}{p999:>10}{max:>10}")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::tally::{Failure, Tally};
    use super::*;
    use crate::config::{Bench, Command, Tool};

    fn settings(arguments: &str) -> Bench {
        let arguments = ["chinwag", "bench"].into_iter().chain(arguments.split_whitespace());
        match Command::read(arguments.map(OsString::from), |_| None) {
            Ok(Command::Tool(Tool::Bench(bench))) => *bench,
            other => panic!("not a bench: {other:?}"),
        }
    }

    fn report(arguments: &str, tally: Tally) -> Report {
        let outcome = Outcome {
            tally,
            measured: Duration::from_secs(10),
            server_cpu: None,
            threads_cpu: vec![Duration::from_secs(1), Duration::from_secs(9)],
        };
        Report::of(&settings(arguments), "h:1".to_owned(), outcome, None)
    }

    /// Ten seconds of one connection: a millisecond per answer, but for two seconds the server stood still.
    fn stalled() -> Tally {
        let mut tally = Tally::default();
        (0..7_999).for_each(|_| tally.success(Verb::Send, Duration::from_millis(1)));
        tally.success(Verb::Send, Duration::from_secs(2));
        tally
    }

    fn table(report: &Report) -> String {
        let mut out = Vec::new();
        report.write_table(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_stall_shows_in_the_percentiles_of_a_closed_loop_and_not_without_the_correction() {
        let Report { all, .. } = report("--connections 1", stalled());
        // A fifth of the time nobody was answered: more than a tenth of all waited for more than half a second.
        assert!(all.latency_us.p90 > 500_000.0, "{all:?}");
        assert!((990.0..1_010.0).contains(&all.latency_us.p50), "{all:?}");
        // The control: as sent, 99.9 % look untouched.
        assert!(all.uncorrected_latency_us.p999 < 1_010.0, "{all:?}");
    }

    #[test]
    fn nothing_is_counted_in_when_answers_take_alike_or_moments_are_fixed() {
        let mut steady = Tally::default();
        (0..10_000).for_each(|_| steady.success(Verb::Pull, Duration::from_millis(1)));
        let closed = report("--connections 1", steady).all;
        assert_eq!(closed.latency_us, closed.uncorrected_latency_us);
        let open = report("--connections 1 --rate 800", stalled()).all;
        assert_eq!(open.latency_us, open.uncorrected_latency_us);
    }

    #[test]
    fn a_table_tells_verbs_errors_and_what_limits_the_figures() {
        let mut tally = stalled();
        tally.success(Verb::Ack, Duration::from_micros(250));
        let overloaded = Failure::Refused { status: 503, code: 10_011 };
        tally.failure(Verb::Ack, overloaded);
        tally.failure(Verb::Ack, overloaded);
        tally.unsent = 5;
        let report = report("--connections 1 --rate 1000", tally);
        let text = table(&report);
        for line in [
            "send          800        0   1.00 ms   1.00 ms   1.00 ms   1.00 ms    2.00 s",
            "ack             0        2    250 us    250 us    250 us    250 us    250 us",
            "all           800        2",
            "errors of ack: 2 x code 10011",
            "5 requests were due and never sent",
            "the load itself was at its limit",
        ] {
            assert!(text.contains(line), "{line:?} is not in:\n{text}");
        }
        assert!(!text.contains("pull"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["verbs"][1]["errors_by_kind"]["code 10011"], 2);
        assert_eq!(json["unsent"], 5);
        assert!(report.into_result().is_ok());
    }

    #[test]
    fn a_run_without_one_success_is_an_error() {
        let mut tally = Tally::default();
        tally.failure(Verb::Send, Failure::Connection);
        let report = report("", tally);
        assert!(table(&report).contains("errors of send: 1 x connection lost"));
        assert!(report.into_result().is_err());
    }
}
