//! One connection during the run, or one lane of it: waits until a request is due, sends it, counts what came of it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::cast::{About, Request, draw};
use super::connection::Connection;
use super::director::Run;
use super::part::Part;
use super::tally::{Failure, Tally, Verb};
use super::timer::Timer;

/// How long a connection that could not be made waits before the next try.
const RECONNECT: Duration = Duration::from_millis(100);
/// An HTTP connection speaks for one user so many requests long, then for its next one: a client has one user, and there
/// may be more users than connections. A WebSocket has its user for life, and so has a connection of HTTP/2.
const TURN_REQUESTS: u64 = 100;

/// How many bits number everything that is in flight: `limits::BENCH_CONNECTIONS` times `limits::BENCH_PIPELINE`.
const LANE_BITS: u32 = 23;

/// One request at a time during the run.
pub(super) struct Client {
    place: Place,
    connection: Connection,
    request: Request,
    /// Only in an open loop: in a closed one nothing is waited for, and a descriptor more for each connection would halve
    /// how many there can be.
    timer: Option<Timer>,
    part: Rc<Part>,
    run: Run,
    tally: Rc<RefCell<Tally>>,
}

/// Which of all it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its connection.
    pub(super) connection: usize,
    /// Which of the requests in flight there.
    pub(super) slot: usize,
}

impl Client {
    pub(super) fn new(
        place: Place,
        connection: Connection,
        timer: Option<Timer>,
        part: Rc<Part>,
        run: Run,
        tally: Rc<RefCell<Tally>>,
    ) -> Self {
        Self { place, connection, request: Request::default(), timer, part, run, tally }
    }

    /// Sends until the end. Fails when it cannot wait for a moment.
    pub(super) async fn drive(mut self) -> io::Result<()> {
        let mut free = Instant::now();
        for turn in 0.. {
            let due = self.run.schedule.next(free);
            if !self.wait_until(due).await? {
                break;
            }
            self.ask(turn, due).await;
            self.stay_connected().await;
            free = Instant::now();
        }
        Ok(())
    }

    /// Waits for a due moment; false if the end comes first. What is late is not sent after the end either.
    async fn wait_until(&mut self, due: Instant) -> io::Result<bool> {
        loop {
            let end = *self.run.end.borrow_and_update();
            let now = Instant::now();
            if due >= end || now >= end {
                self.tally.borrow_mut().unsent += u64::from(due < end && self.run.schedule.is_open());
                return Ok(false);
            }
            let timer = match &self.timer {
                Some(timer) if now < due => timer,
                _ => return Ok(true),
            };
            tokio::select! {
                biased;
                waited = timer.until(due) => return waited.map(|()| true),
                Ok(()) = self.run.end.changed() => {}
            }
        }
    }

    async fn ask(&mut self, turn: u64, due: Instant) {
        let Part { cast, connections, .. } = &*self.part;
        let Place { connection, slot } = self.place;
        let turns = match self.connection {
            Connection::Http(_) => turn / TURN_REQUESTS,
            Connection::Http2(_) | Connection::WebSocket(_) => 0,
        };
        let user = connection + turns as usize * connections;
        let drawn = draw(turn << LANE_BITS | (slot * connections + connection) as u64);
        let About { verb, conversation } = cast.any_request(user % cast.users(), drawn, &mut self.request);
        let counts = due >= self.run.measure_from;
        let waiting = Waiting { tally: &self.tally, verb: counts.then_some(verb) };
        let answered = self.connection.ask(verb, &self.request).await;
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
            if self.connection.reopen(&self.part.endpoint).await.is_err() {
                tokio::time::sleep(RECONNECT).await;
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
