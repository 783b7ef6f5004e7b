//! One thread of the load: opens its connections, begins its share of the conversations, and measures.
//!
//! Each thread has a runtime of its own and shares with the others only the schedule and the newest indices. Half of
//! the cores drive load, because the server needs the other half; what each thread used is part of the result.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::super::Error;
use super::cast::{Cast, Request};
use super::client::{Client, Place};
use super::connection::{Answered, Connection, judge, judge_founding};
use super::director::{News, Run, lost_thread};
use super::http::HttpConnection;
use super::http2::Stream;
use super::server::Server;
use super::tally::{Failure, Tally, Verb};
use super::timer::Timer;
use super::websocket::Socket;
use crate::config::{self, Transport};
use crate::tls::{self, Endpoint, Untrusted};

/// How long an answer may take after the end before it counts as none.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a refused message of the preparation waits before the next try, and how often it is tried.
const RETRY: Duration = Duration::from_millis(20);
const TRIES_MAX: u32 = 500;

/// One thread's part.
pub(super) struct Part {
    number: usize,
    threads: usize,
    transport: Transport,
    pub(super) connections: usize,
    pipeline: usize,
    history: usize,
    conversations: usize,
    pub(super) cast: Arc<Cast>,
    pub(super) endpoint: Endpoint,
}

impl Part {
    pub(super) fn new(number: usize, settings: &config::Bench, server: &Server, cast: &Arc<Cast>) -> Self {
        Self {
            number,
            threads: settings.threads,
            transport: settings.transport,
            connections: settings.connections,
            pipeline: settings.pipeline,
            history: settings.history,
            conversations: settings.conversations,
            cast: cast.clone(),
            endpoint: server.endpoint().clone(),
        }
    }

    /// The whole life of a thread.
    pub(super) fn work(self, begun: watch::Receiver<Option<Run>>, tell: &mpsc::Sender<News>) {
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
            preparing.spawn_local(async move { part.prepare(number).await });
        }
        let mut open = Vec::new();
        while let Some(prepared) = preparing.join_next().await {
            open.extend(prepared.map_err(|_| lost_thread())??);
        }
        let _ = tell.send(News::Prepared).await;
        let run = match begun.wait_for(Option::is_some).await {
            Ok(run) => run.clone().expect("it was just waited for"),
            Err(_) => return Err(lost_thread()),
        };
        self.measure(open, run).await
    }

    /// Opens a connection, and sends the first messages of its share of the conversations: over HTTP/1.1, because these
    /// are of many users. Gives everything on which a request can be in flight.
    async fn prepare(&self, number: usize) -> Result<Vec<(Place, Connection)>, Error> {
        let mut connection = self.open().await?;
        for conversation in (number..self.conversations).step_by(self.connections) {
            self.begin_conversation(&mut connection, conversation).await?;
        }
        let user = number % self.cast.users();
        let connections = match self.transport {
            Transport::Http => vec![Connection::Http(connection)],
            Transport::Http2 => {
                let streams = Stream::open(&self.endpoint, self.cast.bearer(user), self.pipeline);
                let streams = streams.await.map_err(cannot_connect)?;
                streams.into_iter().map(Connection::Http2).collect()
            }
            Transport::WebSocket => {
                let socket = Socket::open(&self.endpoint, self.cast.authorization(user), self.pipeline);
                let lanes = socket.await.map_err(cannot_connect)?;
                lanes.into_iter().map(Connection::WebSocket).collect()
            }
        };
        let place = |slot| Place { connection: number, slot };
        Ok(connections.into_iter().enumerate().map(|(slot, open)| (place(slot), open)).collect())
    }

    async fn begin_conversation(
        &self,
        connection: &mut HttpConnection,
        conversation: usize,
    ) -> Result<(), Error> {
        for request in self.cast.founding(conversation) {
            self.insist(connection, &request, judge_founding).await?;
        }
        let mut request = Request::default();
        for party in 0..self.history {
            self.cast.message(conversation, party, &mut request);
            let judge_send = |status, body: &[u8]| judge(Verb::Send, status, body);
            let index = self.insist(connection, &request.bytes, judge_send).await?;
            self.cast.has_grown(conversation, index.unwrap_or(0));
        }
        Ok(())
    }

    /// Asks until the server is not too busy to answer.
    async fn insist(
        &self,
        connection: &mut HttpConnection,
        request: &[u8],
        judge: impl Fn(u16, &[u8]) -> Answered,
    ) -> Result<Option<u32>, Error> {
        let mut last = Failure::Unanswered;
        for _ in 0..TRIES_MAX {
            if connection.is_over() {
                *connection = self.open().await?;
            }
            let asked = timeout(ANSWER_MAX, connection.exchange(request)).await;
            let asked = asked.unwrap_or(Err(Failure::Unanswered));
            let answered = match asked {
                Ok((status, body)) => judge(status, body).map_err(|failure| (failure, words(body))),
                Err(failure) => Err((failure, String::new())),
            };
            match answered {
                Ok(index) => return Ok(index),
                // Overloaded, or too fast.
                Err((failure @ Failure::Refused { status: 503 | 429, .. }, _)) => {
                    last = failure;
                    tokio::time::sleep(RETRY).await;
                }
                Err((failure, words)) => {
                    return Err(Error::Refused(format!("the conversations were refused: {failure}{words}")));
                }
            }
        }
        Err(Error::Refused(format!("the conversations were refused {TRIES_MAX} times: {last}")))
    }

    async fn open(&self) -> Result<HttpConnection, Error> {
        let opened = timeout(ANSWER_MAX, HttpConnection::open(&self.endpoint)).await;
        opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(cannot_connect)
    }

    async fn measure(self: &Rc<Self>, open: Vec<(Place, Connection)>, run: Run) -> Result<News, Error> {
        let tally = Rc::new(RefCell::new(Tally::default()));
        let mut clients = JoinSet::new();
        for (place, connection) in open {
            let timer = run.schedule.is_open().then(Timer::new).transpose();
            let timer = timer.map_err(|error| Error::Refused(format!("cannot make a timer: {error}")))?;
            let client = Client::new(place, connection, timer, self.clone(), run.clone(), tally.clone());
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
        // Who still waits after that is counted as unanswered when its task is dropped.
        timeout(ANSWER_MAX, all_ended(&mut clients)).await.unwrap_or(Ok(()))?;
        clients.shutdown().await;
        let tally = Box::new(tally.take());
        Ok(News::Done { tally, cpu })
    }
}

async fn all_ended(clients: &mut JoinSet<io::Result<()>>) -> Result<(), Error> {
    while let Some(ended) = clients.join_next().await {
        let ended = ended.map_err(|_| lost_thread())?;
        ended.map_err(|error| Error::Refused(format!("cannot wait for a moment: {error}")))?;
    }
    Ok(())
}

fn cannot_connect(error: io::Error) -> Error {
    Error::Refused(match tls::untrusted(&error) {
        Some(Untrusted::Stranger) => format!("the server is not trusted: {error}; --ca FILE names who may"),
        Some(Untrusted::Unfit(why)) => format!("the server is not trusted: {why}"),
        None => format!("cannot connect to the server: {error}"),
    })
}

/// What the server says of a refusal, to be put behind it.
fn words(body: &[u8]) -> String {
    let body: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let words = body.as_ref().and_then(|body| body.get("msg")?.as_str());
    words.map(|words| format!(": {words}")).unwrap_or_default()
}

/// CPU time that this thread has used.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
