//! One connection over a WebSocket: requests that are in flight together, and their answers by id.
//!
//! A [`Lane`] has one request in flight; the lanes of a socket share it. What they say in one turn of the runtime goes
//! out with one write, and one read answers as many as it has. Requests are frames written by hand, whose mask of
//! zeros leaves the bytes as they are: masks protect proxies from pages (RFC 6455, 10.3), and there is neither here.
//! What comes is read by a library; the events of the conversations of the socket's user are looked at no further
//! than that they are events.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

use super::cast::write_number;
use super::connection::{ANSWER_BYTES_MAX, Answered, judge, number_behind};
use super::tally::{Failure, Verb};
use crate::tls::{self, Endpoint, Protocol};

/// How long the server may take to open a socket.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// Longest head of its answer, in bytes, and most headers in it.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 32;
/// What one read takes, in bytes: some hundred answers to sends, or a page of twenty messages.
const READ_BYTES: usize = 8 << 10;
/// The status of what was understood; errors of calls have none of their own.
const OK: u16 = 200;
/// The first byte of a frame that is a whole text, and the bit of the second that says that a mask follows
/// (RFC 6455, 5.2).
const WHOLE_TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0; 4];

/// A WebSocket, opened again whenever it is over and somebody has something to say.
pub(super) struct Socket {
    endpoint: Endpoint,
    /// The header with the token.
    authorization: String,
    lanes: usize,
    line: RefCell<Line>,
    /// Who holds it opens the socket; the other lanes wait.
    opening: Mutex<()>,
}

/// Room for one request in flight.
pub(super) struct Lane {
    socket: Rc<Socket>,
    slot: usize,
    /// Counts in steps of all lanes, so that an id tells its slot and comes once.
    id: usize,
}

/// One opening of the socket. Its two tasks end with it.
struct Line {
    desk: Rc<Desk>,
    _tasks: JoinSet<()>,
}

/// Where the lanes meet the tasks that write and read.
struct Desk {
    state: RefCell<State>,
    /// There is something to write.
    outgoing: Notify,
}

struct State {
    /// Frames to be written: at most one of each lane, and pongs.
    out: Vec<u8>,
    slots: Vec<Slot>,
    is_over: bool,
}

enum Slot {
    Free,
    Waiting { id: usize, verb: Verb, waker: Option<Waker> },
    Answered(Answered),
}

/// The connection cannot be used further.
#[derive(Debug, PartialEq)]
struct Broken;

impl Socket {
    /// Opens a socket for the user of `authorization`, with room for so many requests in flight.
    pub(super) async fn open(
        endpoint: &Endpoint,
        authorization: &str,
        lanes: usize,
    ) -> io::Result<Vec<Lane>> {
        let socket = Rc::new(Self {
            endpoint: endpoint.clone(),
            authorization: authorization.to_owned(),
            lanes,
            line: RefCell::new(Line::open(endpoint, authorization, lanes).await?),
            opening: Mutex::new(()),
        });
        Ok((0..lanes).map(|slot| Lane { socket: socket.clone(), slot, id: slot }).collect())
    }

    fn desk(&self) -> Rc<Desk> {
        self.line.borrow().desk.clone()
    }

    async fn reopen(&self) -> io::Result<()> {
        let _turn = self.opening.lock().await;
        // Another lane may have done it.
        if self.desk().is_over() {
            let line = Line::open(&self.endpoint, &self.authorization, self.lanes).await?;
            *self.line.borrow_mut() = line;
        }
        Ok(())
    }
}

impl Lane {
    pub(super) fn is_over(&self) -> bool {
        self.socket.line.borrow().desk.is_over()
    }

    pub(super) async fn reopen(&self) -> io::Result<()> {
        self.socket.reopen().await
    }

    /// Makes a call and waits for its answer.
    pub(super) async fn ask(&mut self, verb: Verb, params: &[u8]) -> Answered {
        let desk = self.socket.desk();
        self.id += self.socket.lanes;
        desk.say(self.slot, self.id, verb, params)?;
        std::future::poll_fn(|cx| desk.poll_answer(self.slot, cx)).await
    }
}

impl Line {
    async fn open(endpoint: &Endpoint, authorization: &str, lanes: usize) -> io::Result<Self> {
        let opening = shake_hands(endpoint, authorization);
        let (stream, early) = timeout(OPEN_MAX, opening).await.map_err(|_| ErrorKind::TimedOut)??;
        let (read_half, write_half) = split(stream);
        let desk = Rc::new(Desk::new(lanes));
        let mut tasks = JoinSet::new();
        tasks.spawn_local(read(desk.clone(), read_half, early));
        tasks.spawn_local(write(desk.clone(), write_half));
        Ok(Self { desk, _tasks: tasks })
    }
}

impl Desk {
    fn new(lanes: usize) -> Self {
        let slots = (0..lanes).map(|_| Slot::Free).collect();
        Self {
            state: RefCell::new(State { out: Vec::new(), slots, is_over: false }),
            outgoing: Notify::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.state.borrow().is_over
    }

    fn say(&self, slot: usize, id: usize, verb: Verb, params: &[u8]) -> Result<(), Failure> {
        let mut state = self.state.borrow_mut();
        if state.is_over {
            return Err(Failure::Connection);
        }
        state.slots[slot] = Slot::Waiting { id, verb, waker: None };
        write_call(&mut state.out, id, verb, params);
        self.outgoing.notify_one();
        Ok(())
    }

    fn poll_answer(&self, slot: usize, cx: &Context<'_>) -> Poll<Answered> {
        let slot = &mut self.state.borrow_mut().slots[slot];
        if let Slot::Waiting { waker, .. } = slot {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match mem::replace(slot, Slot::Free) {
            Slot::Answered(answered) => Poll::Ready(answered),
            Slot::Free | Slot::Waiting { .. } => Poll::Ready(Err(Failure::Unanswered)),
        }
    }

    /// Hands everything in `bytes` to whom it is for; pings are answered.
    fn take(&self, protocol: &mut WebSocketContext, bytes: &[u8]) -> Result<(), Broken> {
        let mut arrived = Arrived { bytes, desk: self };
        loop {
            match protocol.read(&mut arrived) {
                Ok(Message::Text(text)) => self.hear(text.as_bytes())?,
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Ok(_) | Err(_) => return Err(Broken),
            }
        }
    }

    fn hear(&self, text: &[u8]) -> Result<(), Broken> {
        if is_event(text) {
            return Ok(());
        }
        let (id, outcome) = outcome_of(text).ok_or(Broken)?;
        let mut state = self.state.borrow_mut();
        let slots = state.slots.len();
        let slot = &mut state.slots[id % slots];
        match slot {
            Slot::Waiting { id: waiting, verb, waker } if *waiting == id => {
                let (answered, waker) = (outcome.judge(*verb), waker.take());
                *slot = Slot::Answered(answered);
                waker.into_iter().for_each(Waker::wake);
                Ok(())
            }
            // Nobody asked this.
            Slot::Free | Slot::Answered(_) | Slot::Waiting { .. } => Err(Broken),
        }
    }

    /// Nothing comes any more.
    fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.is_over = true;
        for slot in &mut state.slots {
            if let Slot::Waiting { waker, .. } = slot {
                let waker = waker.take();
                *slot = Slot::Answered(Err(Failure::Connection));
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }
}

/// What came, as the library reads it: then it would block. What the library writes goes out with the rest.
struct Arrived<'a> {
    bytes: &'a [u8],
    desk: &'a Desk,
}

impl Read for Arrived<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match Read::read(&mut self.bytes, to)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Arrived<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.desk.state.borrow_mut().out.extend_from_slice(bytes);
        self.desk.outgoing.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads until the socket is over. `early` came right behind the handshake.
async fn read(desk: Rc<Desk>, mut half: ReadHalf<tls::Socket>, early: Vec<u8>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(ANSWER_BYTES_MAX))
        .max_frame_size(Some(ANSWER_BYTES_MAX));
    let mut protocol = WebSocketContext::new(Role::Client, Some(config));
    let mut bytes = early;
    while desk.take(&mut protocol, &bytes).is_ok() {
        bytes.clear();
        bytes.reserve(READ_BYTES);
        match half.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    desk.end();
}

/// Writes what there is until the socket is over.
async fn write(desk: Rc<Desk>, mut half: WriteHalf<tls::Socket>) {
    let mut batch = Vec::new();
    loop {
        mem::swap(&mut batch, &mut desk.state.borrow_mut().out);
        if batch.is_empty() {
            desk.outgoing.notified().await;
        } else if half.write_all(&batch).await.is_err() || half.flush().await.is_err() {
            return desk.end();
        } else {
            batch.clear();
        }
    }
}

/// Opens a stream; also gives what came behind the handshake already.
async fn shake_hands(endpoint: &Endpoint, authorization: &str) -> io::Result<(tls::Socket, Vec<u8>)> {
    let mut stream = endpoint.open(Protocol::Http1).await?;
    let (key, authority) = (generate_key(), endpoint.authority());
    let request = format!(
        "GET /im.chat/stream HTTP/1.1\r\nHost: {authority}\r\n{authorization}Connection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let accept = derive_accept_key(key.as_bytes());
    let mut received = Vec::with_capacity(READ_BYTES);
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(head_bytes) = accepted(&received, &accept)? {
            return Ok((stream, received.split_off(head_bytes)));
        }
        if received.len() > HEAD_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
    }
}

/// The length of the head that opens a WebSocket, if it is whole already.
fn accepted(received: &[u8], accept: &str) -> io::Result<Option<usize>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(received) {
        Ok(Status::Complete(head_bytes)) => head_bytes,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
    };
    let status = response.code.unwrap_or(0);
    if status != 101 {
        return Err(io::Error::other(format!("it opens no WebSocket, with status {status}")));
    }
    let name = "sec-websocket-accept";
    let mut answers = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    match answers.next() {
        Some(header) if header.value == accept.as_bytes() => Ok(Some(head_bytes)),
        _ => Err(io::Error::other("it opens a WebSocket for somebody else")),
    }
}

/// Appends the frame of a call.
fn write_call(out: &mut Vec<u8>, id: usize, verb: Verb, params: &[u8]) {
    const AROUND: [&[u8]; 4] = [b"{\"id\":", b",\"method\":\"", b"\",\"params\":", b"}"];
    let digits = id.checked_ilog10().unwrap_or(0) as usize + 1;
    let around: usize = AROUND.iter().map(|part| part.len()).sum();
    write_header(out, around + digits + verb.as_str().len() + params.len());
    out.extend_from_slice(AROUND[0]);
    write_number(out, id);
    for part in [AROUND[1], verb.as_str().as_bytes(), AROUND[2], params, AROUND[3]] {
        out.extend_from_slice(part);
    }
}

/// Appends the header of a masked text frame with so many bytes of payload (RFC 6455, 5.2).
fn write_header(out: &mut Vec<u8>, payload_bytes: usize) {
    out.push(WHOLE_TEXT);
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(short @ ..126), _) => out.push(MASKED | short),
        (_, Ok(middle)) => {
            out.push(MASKED | 126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
}

/// What became of a call.
#[derive(Debug, PartialEq)]
enum Outcome<'a> {
    Result(&'a [u8]),
    Error(&'a [u8]),
}

impl Outcome<'_> {
    fn judge(&self, verb: Verb) -> Answered {
        match self {
            Self::Result(result) => judge(verb, OK, result),
            Self::Error(error) => match number_behind(error, b"\"code\":") {
                Some(code) => Err(Failure::Refused { status: OK, code }),
                None => Err(Failure::WrongBody),
            },
        }
    }
}

/// Whether a text is pushed and answers nothing.
fn is_event(text: &[u8]) -> bool {
    text.starts_with(b"{\"type\":")
}

/// The id and outcome in a text that answers a call.
fn outcome_of(text: &[u8]) -> Option<(usize, Outcome<'_>)> {
    let behind = text.strip_prefix(b"{\"id\":")?;
    let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (id, behind) = behind.split_at(digits);
    let id = std::str::from_utf8(id).ok()?.parse().ok()?;
    let behind = behind.strip_suffix(b"}")?;
    let result = behind.strip_prefix(b",\"result\":").map(Outcome::Result);
    let outcome = result.or_else(|| behind.strip_prefix(b",\"error\":").map(Outcome::Error))?;
    Some((id, outcome))
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
