//! A WebSocket of one user, and a stream of server-sent events.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::{Error, Message, WebSocket};

use super::DEADLINE;
use super::client::Client;
use super::connection::{Connection, find, request};

const PATH: &str = "/im.chat/stream";

/// A connection on which a read goes on after the process was stopped: one with a time-out does not by itself.
pub(crate) struct Unbroken(TcpStream);

impl Unbroken {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }
}

impl Read for Unbroken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (started, most) = (Instant::now(), self.0.read_timeout()?);
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    // Its time-out has begun anew.
                    if most.is_some_and(|most| started.elapsed() >= most) {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
                read => return read,
            }
        }
    }
}

impl Write for Unbroken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A WebSocket with what has come and nobody has asked for yet.
pub(crate) struct Stream {
    socket: WebSocket<Unbroken>,
    /// The first event.
    pub(crate) hello: Value,
    /// The subprotocol that the server chose.
    pub(crate) protocol: Option<String>,
    events: VecDeque<Value>,
    results: VecDeque<Value>,
    next_id: u64,
}

impl Client {
    /// A WebSocket that has said hello.
    #[track_caller]
    pub(crate) fn stream(&self) -> Stream {
        self.stream_at("").expect("a stream")
    }

    /// The same with a query; the status if it is refused.
    pub(crate) fn stream_at(&self, query: &str) -> Result<Stream, u16> {
        let bearer = format!("Bearer {}", self.token());
        self.stream_with(query, &[("Authorization", &bearer)])
    }

    /// The same with the headers given and no token.
    pub(crate) fn stream_with(&self, query: &str, headers: &[(&str, &str)]) -> Result<Stream, u16> {
        let mut stream = self.try_stream_with(query, headers)?;
        stream.hello = stream.event();
        assert_eq!(stream.hello["type"], "hello", "{}", stream.hello);
        Ok(stream)
    }

    fn try_stream_with(&self, query: &str, headers: &[(&str, &str)]) -> Result<Stream, u16> {
        let url = format!("ws://{}{PATH}{query}", self.address());
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a header value");
            request.headers_mut().insert(HeaderName::try_from(*name).expect("a header name"), value);
        }
        let stream = Unbroken::connect(self.address()).expect("the server accepts connections");
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                let protocol = protocol.map(|name| name.to_str().expect("ASCII").to_owned());
                Ok(Stream::new(socket, protocol))
            }
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(why) => panic!("no handshake: {why}"),
        }
    }

    /// A WebSocket whose server may be gone.
    pub(crate) fn try_stream(&self, query: &str) -> io::Result<Stream> {
        let url = format!("ws://{}{PATH}{query}", self.address());
        let mut request = url.into_client_request().expect("a request");
        let token = HeaderValue::from_str(self.token()).expect("a header value");
        request.headers_mut().insert("Token", token);
        let stream = Unbroken::connect(self.address())?;
        let (socket, _) =
            tungstenite::client(request, stream).map_err(|why| io::Error::other(why.to_string()))?;
        let mut stream = Stream::new(socket, None);
        stream.hello = stream.try_event()?;
        Ok(stream)
    }

    /// Server-sent events: the connection behind the head of the answer.
    #[track_caller]
    pub(crate) fn event_source(&self) -> EventSource {
        let bearer = format!("Bearer {}", self.token());
        let headers = [("Authorization", bearer.as_str()), ("Accept", "text/event-stream")];
        let mut connection = Connection::open(self.address()).expect("the server accepts connections");
        connection.write(request("GET", PATH, &headers, b"")).expect("the server reads");
        let head = connection.read_head().expect("a head");
        EventSource { connection, head: String::from_utf8(head).expect("UTF-8"), text: String::new() }
    }
}

impl Stream {
    fn new(socket: WebSocket<Unbroken>, protocol: Option<String>) -> Self {
        Self {
            socket,
            hello: Value::Null,
            protocol,
            events: VecDeque::new(),
            results: VecDeque::new(),
            next_id: 1,
        }
    }

    /// The library's socket, for tests that break its rules.
    pub(crate) fn socket(&mut self) -> &mut WebSocket<Unbroken> {
        &mut self.socket
    }

    /// The bare connection.
    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        &mut self.socket.get_mut().0
    }

    /// Takes in one object.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let value: Value = serde_json::from_str(&text).expect("JSON");
                    let is_event = value.get("type").is_some();
                    if is_event {
                        self.events.push_back(value)
                    } else {
                        self.results.push_back(value)
                    }
                    return Ok(());
                }
                Ok(Message::Close(close)) => {
                    let code = close.map_or(1005, |close| close.code.into());
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, format!("closed {code}")));
                }
                Ok(_) => {}
                Err(Error::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error.to_string())),
            }
        }
    }

    /// The next event, if the stream lives so long.
    pub(crate) fn try_event(&mut self) -> io::Result<Value> {
        while self.events.is_empty() {
            self.receive()?;
        }
        Ok(self.events.pop_front().expect("not empty"))
    }

    /// The next event.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Value {
        self.try_event().expect("an event")
    }

    /// The next event, of this type.
    #[track_caller]
    pub(crate) fn event_of(&mut self, kind: &str) -> Value {
        let event = self.event();
        assert_eq!(event["type"], kind, "{event}");
        event
    }

    /// The next answer of a call.
    #[track_caller]
    pub(crate) fn result(&mut self) -> Value {
        self.try_result().expect("a result")
    }

    pub(crate) fn try_result(&mut self) -> io::Result<Value> {
        while self.results.is_empty() {
            self.receive()?;
        }
        Ok(self.results.pop_front().expect("not empty"))
    }

    /// Asks for something and does not wait; gives the id.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> u64 {
        self.try_ask(method, params).expect("the server reads")
    }

    pub(crate) fn try_ask(&mut self, method: &str, params: &Value) -> io::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        self.write(&json!({"id": id, "method": method, "params": params}).to_string())?;
        Ok(id)
    }

    /// Asks without writing yet, for whoever asks much at a time.
    pub(crate) fn ask_unflushed(&mut self, method: &str, params: &Value) {
        let text = json!({"id": self.next_id, "method": method, "params": params}).to_string();
        self.next_id += 1;
        self.socket.write(Message::text(text)).expect("the server reads");
    }

    /// Writes what was asked.
    pub(crate) fn flush(&mut self) {
        self.socket.flush().expect("the server reads");
    }

    /// A text frame.
    pub(crate) fn write(&mut self, text: &str) -> io::Result<()> {
        self.socket.send(Message::text(text)).map_err(|why| io::Error::other(why.to_string()))
    }

    /// Calls a verb with nothing else in flight: its result.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        let answer = self.answer(method, params);
        assert!(answer.get("error").is_none(), "refused: {answer}");
        answer["result"].clone()
    }

    /// Calls a verb that is refused: the code.
    #[track_caller]
    pub(crate) fn refused(&mut self, method: &str, params: &Value) -> u64 {
        let answer = self.answer(method, params);
        assert!(answer["error"]["msg"].as_str().is_some_and(|words| !words.is_empty()), "{answer}");
        answer["error"]["code"].as_u64().unwrap_or_else(|| panic!("not refused: {answer}"))
    }

    #[track_caller]
    fn answer(&mut self, method: &str, params: &Value) -> Value {
        let id = self.ask(method, params);
        let answer = self.result();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// Reads to the end; the code of the close frame, or `None` if there was none.
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        loop {
            if let Err(why) = self.receive() {
                return why.to_string().strip_prefix("closed ").map(|code| code.parse().expect("a code"));
            }
        }
    }

    /// Everything that has come and nobody asked for.
    pub(crate) fn events_so_far(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    /// Waits for the answer of a call made now, in front of which the call `waiting` has no answer.
    #[track_caller]
    pub(crate) fn assert_quiet_but_for(&mut self, waiting: u64) {
        let id = self.ask("online", &json!({"user_ids": []}));
        let answer = self.result();
        assert_eq!(answer["id"], id, "{waiting} was answered: {answer}");
    }

    /// Takes in what comes within a time, answering pings.
    pub(crate) fn read_for(&mut self, time: Duration) {
        self.tcp().set_read_timeout(Some(time)).expect("a time above zero");
        while self.receive().is_ok() {}
        self.tcp().set_read_timeout(Some(DEADLINE)).expect("a time above zero");
    }

    /// Asserts that no event comes before the answer of a call made now.
    #[track_caller]
    pub(crate) fn assert_quiet(&mut self) {
        self.call("online", &json!({"user_ids": []}));
        assert_eq!(self.events, [] as [Value; 0]);
    }
}

/// Server-sent events.
pub(crate) struct EventSource {
    connection: Connection,
    pub(crate) head: String,
    text: String,
}

impl EventSource {
    /// The next event; `None` at the end.
    pub(crate) fn event(&mut self) -> Option<Value> {
        loop {
            let block = self.block()?;
            if let Some(json) = block.strip_prefix("data: ") {
                assert!(!json.contains('\n'), "{json}");
                return Some(serde_json::from_str(json).expect("JSON"));
            }
        }
    }

    /// What stands between two empty lines.
    fn block(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(self.text.as_bytes(), b"\n\n") {
                let block = self.text[..at].to_owned();
                self.text.drain(..at + 2);
                return Some(block);
            }
            let chunk = self.connection.read_chunk().expect("a chunk")?;
            self.text.push_str(str::from_utf8(&chunk).expect("UTF-8"));
        }
    }
}
