//! The load: threads of connections, through preparation, warm-up and measurement.
//!
//! Each thread has a runtime of its own and shares with the others only the schedule and the newest indices. Half of
//! the cores drive load, because the server needs the other half; what each thread used is part of the result.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::super::Error;
use super::super::progress::Progress;
use super::cast::{About, Cast, Request, draw};
use super::connection::Connection;
use super::schedule::Schedule;
use super::server::Server;
use super::tally::{Failure, Tally, Verb};
use super::timer::Timer;
use crate::config;

/// How long an answer may take after the end before it counts as none.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a connection that could not be made waits before the next try.
const RECONNECT: Duration = Duration::from_millis(100);
/// How long a refused message of the preparation waits before the next try, and how often it is tried.
const RETRY: Duration = Duration::from_millis(20);
const TRIES_MAX: u32 = 500;
/// A connection speaks for one user so many requests long, then for its next one: a client has one user, and there may
/// be more users than connections.
const TURN_REQUESTS: u64 = 100;
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
struct Run {
    schedule: Schedule,
    measure_from: Instant,
    end: watch::Receiver<Instant>,
    /// Requests answered so far, for the progress.
    answered: Arc<AtomicU64>,
}

/// One thread's part.
struct Part {
    number: usize,
    threads: usize,
    connections: usize,
    history: usize,
    conversations: usize,
    cast: Arc<Cast>,
    authority: String,
}

/// What a thread says to the one that waits for it.
enum News {
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

fn lost_thread() -> Error {
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

impl Part {
    fn new(number: usize, settings: &config::Bench, server: &Server, cast: &Arc<Cast>) -> Self {
        Self {
            number,
            threads: settings.threads,
            connections: settings.connections,
            history: settings.history,
            conversations: settings.conversations,
            cast: cast.clone(),
            authority: server.authority().to_owned(),
        }
    }

    /// The whole life of a thread.
    fn work(self, begun: watch::Receiver<Option<Run>>, tell: &mpsc::Sender<News>) {
        let part = Rc::new(self);
        let worked = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                tokio::task::LocalSet::new().block_on(&runtime, part.prepare_and_measure(begun, tell))
            }
            Err(error) => Err(Error::Refused(format!("cannot start: {error}"))),
        };
        let last = worked.unwrap_or_else(News::Failed);
        // Nobody listens any more when another thread has failed.
        let _ = tell.blocking_send(last);
    }

    async fn prepare_and_measure(
        self: &Rc<Self>,
        mut begun: watch::Receiver<Option<Run>>,
        tell: &mpsc::Sender<News>,
    ) -> Result<News, Error> {
        let mut preparing = JoinSet::new();
        for number in (self.number..self.connections).step_by(self.threads) {
            let part = self.clone();
            preparing.spawn_local(async move { part.prepare(number).await.map(|open| (number, open)) });
        }
        let mut open = Vec::new();
        while let Some(prepared) = preparing.join_next().await {
            open.push(prepared.map_err(|_| lost_thread())??);
        }
        let _ = tell.send(News::Prepared).await;
        let run = match begun.wait_for(Option::is_some).await {
            Ok(run) => run.clone().expect("it was just waited for"),
            Err(_) => return Err(lost_thread()),
        };
        self.measure(open, run).await
    }

    /// Opens a connection, and sends the first messages of its share of the conversations.
    async fn prepare(&self, number: usize) -> Result<Connection, Error> {
        let mut connection = self.open().await?;
        for conversation in (number..self.conversations).step_by(self.connections) {
            for party in 0..self.history {
                self.begin_conversation(&mut connection, conversation, party).await?;
            }
        }
        Ok(connection)
    }

    async fn begin_conversation(
        &self,
        connection: &mut Connection,
        conversation: usize,
        party: usize,
    ) -> Result<(), Error> {
        let mut request = Request::default();
        let About { verb, .. } = self.cast.message(conversation, party, &mut request);
        let mut last = Failure::Unanswered;
        for _ in 0..TRIES_MAX {
            if connection.is_over() {
                *connection = self.open().await?;
            }
            let asked = connection.ask(verb, &request.bytes);
            match timeout(ANSWER_MAX, asked).await.unwrap_or(Err(Failure::Unanswered)) {
                Ok(index) => {
                    self.cast.has_grown(conversation, index.unwrap_or(0));
                    return Ok(());
                }
                // Overloaded, or too fast.
                Err(failure @ Failure::Refused { status: 503 | 429, .. }) => {
                    last = failure;
                    tokio::time::sleep(RETRY).await;
                }
                Err(failure) => {
                    return Err(Error::Refused(format!("the first messages were refused: {failure}")));
                }
            }
        }
        Err(Error::Refused(format!("the first messages were refused {TRIES_MAX} times: {last}")))
    }

    async fn open(&self) -> Result<Connection, Error> {
        let opened = timeout(ANSWER_MAX, Connection::open(&self.authority)).await;
        let opened = opened.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        opened.map_err(|error| Error::Refused(format!("cannot connect to the server: {error}")))
    }

    async fn measure(self: &Rc<Self>, open: Vec<(usize, Connection)>, run: Run) -> Result<News, Error> {
        let tally = Rc::new(RefCell::new(Tally::default()));
        let mut clients = JoinSet::new();
        for (number, connection) in open {
            let timer =
                Timer::new().map_err(|error| Error::Refused(format!("cannot make a timer: {error}")))?;
            let client = Client {
                number,
                connection,
                request: Request::default(),
                timer,
                part: self.clone(),
                run: run.clone(),
                tally: tally.clone(),
            };
            clients.spawn_local(client.drive());
        }
        sleep_until(run.measure_from.into()).await;
        let before = thread_cpu();
        let mut end = run.end.clone();
        loop {
            let until = *end.borrow_and_update();
            tokio::select! {
                () = sleep_until(until.into()) => break,
                Ok(()) = end.changed() => {}
            }
        }
        let cpu = thread_cpu().saturating_sub(before);
        let all = async { while clients.join_next().await.is_some() {} };
        // Who still waits then leaves an answer uncounted as any: `Waiting` counts it when it is dropped.
        let _ = timeout(ANSWER_MAX, all).await;
        clients.abort_all();
        while clients.join_next().await.is_some() {}
        let tally = Box::new(tally.take());
        Ok(News::Done { tally, cpu })
    }
}

/// CPU time that this thread has used.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// One connection during the run.
struct Client {
    number: usize,
    connection: Connection,
    request: Request,
    timer: Timer,
    part: Rc<Part>,
    run: Run,
    tally: Rc<RefCell<Tally>>,
}

impl Client {
    async fn drive(mut self) {
        let mut free = Instant::now();
        for turn in 0.. {
            let due = self.run.schedule.next(free);
            if !self.wait_until(due).await {
                return;
            }
            self.ask(turn, due).await;
            self.stay_connected().await;
            free = Instant::now();
        }
    }

    /// Waits for a due moment; false if the end comes first. What is late is not sent after the end either.
    async fn wait_until(&mut self, due: Instant) -> bool {
        loop {
            let end = *self.run.end.borrow_and_update();
            if due >= end {
                return false;
            }
            let now = Instant::now();
            if now >= end {
                self.tally.borrow_mut().unsent += 1;
                return false;
            }
            if now >= due {
                return true;
            }
            tokio::select! {
                biased;
                waited = self.timer.until(due) => return waited.is_ok(),
                Ok(()) = self.run.end.changed() => {}
            }
        }
    }

    async fn ask(&mut self, turn: u64, due: Instant) {
        let Part { cast, connections, .. } = &*self.part;
        let user = self.number + (turn / TURN_REQUESTS) as usize * connections;
        let drawn = draw(turn << 20 | self.number as u64);
        let About { verb, conversation } = cast.any_request(user % cast.users(), drawn, &mut self.request);
        let counts = due >= self.run.measure_from;
        let waiting = Waiting { tally: &self.tally, verb: counts.then_some(verb) };
        let answered = self.connection.ask(verb, &self.request.bytes).await;
        waiting.over();
        let latency = due.elapsed();
        self.run.answered.fetch_add(1, Ordering::Relaxed);
        if let Ok(Some(index)) = answered {
            cast.has_grown(conversation, index);
        }
        match answered {
            Ok(_) if counts => self.tally.borrow_mut().success(verb, latency),
            Err(failure) if counts => self.tally.borrow_mut().failure(verb, failure),
            Ok(_) | Err(_) => {}
        }
    }

    /// Opens the connection again if it is over. Meanwhile its requests are late, and that is what they are.
    async fn stay_connected(&mut self) {
        while self.connection.is_over() && Instant::now() < *self.run.end.borrow() {
            match Connection::open(&self.part.authority).await {
                Ok(connection) => self.connection = connection,
                Err(_) => tokio::time::sleep(RECONNECT).await,
            }
        }
    }
}

/// A request that has no answer yet; one that is dropped will never have one.
struct Waiting<'a> {
    tally: &'a RefCell<Tally>,
    verb: Option<Verb>,
}

impl Waiting<'_> {
    fn over(mut self) {
        self.verb = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(verb) = self.verb {
            self.tally.borrow_mut().failure(verb, Failure::Unanswered);
        }
    }
}
