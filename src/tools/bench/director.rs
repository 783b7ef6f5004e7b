//! From the first thread to the result: starts the threads of the load, gives them their moments, watches over them and
//! collects what they did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::super::Error;
use super::super::progress::Progress;
use super::cast::Cast;
use super::part::Part;
use super::schedule::Schedule;
use super::server::Server;
use super::tally::Tally;
use crate::config;

/// How often the progress is shown.
const SHOW: Duration = Duration::from_millis(100);

/// What a load came to.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// How long was measured; less than asked for when it was interrupted.
    pub(super) measured: Duration,
    /// CPU time of the server while it was measured, if that is known.
    pub(super) server_cpu: Option<Duration>,
    /// CPU time of each of our threads while it was measured.
    pub(super) threads_cpu: Vec<Duration>,
}

/// When what happens. The end can only come nearer.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) schedule: Schedule,
    pub(super) measure_from: Instant,
    pub(super) end: watch::Receiver<Instant>,
    /// Requests answered so far, for the progress.
    pub(super) answered: Arc<AtomicU64>,
}

/// What a thread says to the one that waits for it.
pub(super) enum News {
    /// Its connections are open and its conversations begun.
    Prepared,
    /// It is done.
    Done {
        tally: Box<Tally>,
        cpu: Duration,
    },
    Failed(Error),
}

/// Directs the threads. Made before anything that an interrupt must not leave behind.
pub(super) struct Director {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
}

impl Director {
    pub(super) fn new() -> Result<Self, Error> {
        let cannot_start = |error| Error::Refused(format!("cannot start: {error}"));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
        let (interrupt, terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        };
        let (interrupt, terminate) = (interrupt.map_err(cannot_start)?, terminate.map_err(cannot_start)?);
        Ok(Self { runtime, interrupt, terminate })
    }

    /// Drives the load of `settings` at `server`. An interrupt ends it early, with what there is.
    pub(super) fn run(
        self,
        settings: &config::Bench,
        server: &Server,
        cast: &Arc<Cast>,
    ) -> Result<Outcome, Error> {
        let Self { runtime, interrupt, terminate } = self;
        runtime.block_on(direct(settings, server, cast, Interrupts { interrupt, terminate }))
    }
}

struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Starts the threads, gives them their moments, and collects what they did.
async fn direct(
    settings: &config::Bench,
    server: &Server,
    cast: &Arc<Cast>,
    mut interrupts: Interrupts,
) -> Result<Outcome, Error> {
    let (begin, begun) = watch::channel(None::<Run>);
    let (tell, mut news) = mpsc::channel(settings.threads);
    for number in 0..settings.threads {
        let part = Part::new(number, settings, server, cast);
        let (begun, tell) = (begun.clone(), tell.clone());
        let started = thread::Builder::new().spawn(move || part.work(begun, &tell));
        started.map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))?;
    }
    drop(tell);
    tokio::select! {
        prepared = all_prepared(&mut news, settings.threads) => prepared?,
        () = interrupts.come() => return Err(Error::Refused("interrupted before the load began".to_owned())),
    }
    let now = Instant::now();
    let measure_from = now + settings.warm_up;
    let (stop, end) = watch::channel(measure_from + settings.duration);
    let run =
        Run { schedule: Schedule::new(now, settings.rate), measure_from, end, answered: Arc::default() };
    // The threads are there: they wait for exactly this.
    let _ = begin.send(Some(run.clone()));
    let server_cpu = watch_over(&run, &stop, server, &mut interrupts).await;
    let mut outcome = collect(&mut news, settings.threads).await?;
    let end = *run.end.borrow();
    if end <= measure_from {
        return Err(Error::Refused("interrupted before anything was measured".to_owned()));
    }
    outcome.measured = end - measure_from;
    outcome.server_cpu = server_cpu;
    outcome.tally.unsent += run.schedule.never_taken(end);
    Ok(outcome)
}

async fn all_prepared(news: &mut mpsc::Receiver<News>, threads: usize) -> Result<(), Error> {
    for _ in 0..threads {
        match news.recv().await {
            Some(News::Prepared) => {}
            Some(News::Failed(error)) => return Err(error),
            Some(News::Done { .. }) | None => return Err(lost_thread()),
        }
    }
    Ok(())
}

async fn collect(news: &mut mpsc::Receiver<News>, threads: usize) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    for _ in 0..threads {
        match news.recv().await {
            Some(News::Done { tally, cpu }) => {
                outcome.tally.add(&tally);
                outcome.threads_cpu.push(cpu);
            }
            Some(News::Failed(error)) => return Err(error),
            Some(News::Prepared) | None => return Err(lost_thread()),
        }
    }
    Ok(outcome)
}

pub(super) fn lost_thread() -> Error {
    Error::Refused("a thread of the load ended before its time".to_owned())
}

/// Shows how far it is until the end, or until an interrupt, which becomes the end. Gives the server's CPU time.
async fn watch_over(
    run: &Run,
    stop: &watch::Sender<Instant>,
    server: &Server,
    interrupts: &mut Interrupts,
) -> Option<Duration> {
    let begin = Instant::now();
    let end = *run.end.borrow();
    let progress = Progress::moments("load", end - begin);
    let mut cpu_before = None;
    let mut shown = (begin, 0);
    while shown.0 < end {
        // Exactly at the borders of what is measured, and in between as often as somebody may want to look.
        let border = if cpu_before.is_some() { end } else { run.measure_from };
        tokio::select! {
            () = sleep_until(border.min(shown.0 + SHOW).into()) => {}
            () = interrupts.come() => break,
        }
        let (now, answered) = (Instant::now(), run.answered.load(Ordering::Relaxed));
        if cpu_before.is_none() && now >= run.measure_from {
            cpu_before = Some(server.cpu());
        }
        let per_second = (answered - shown.1) as f64 / (now - shown.0).as_secs_f64();
        progress.reach(now - begin, format!("{per_second:.0}/s"));
        shown = (now, answered);
    }
    stop.send_modify(|end| *end = (*end).min(Instant::now()));
    Some(server.cpu()?.saturating_sub(cpu_before??))
}
