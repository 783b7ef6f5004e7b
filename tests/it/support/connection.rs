//! One TCP connection and the little HTTP/1.1 a client needs, byte for byte under the test's control.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use super::DEADLINE;

/// A connection with the bytes that have come and nobody has asked for yet.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says that nothing more will be written; replies can still come.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection");
    }

    /// How long a read waits for something, for tests whose subject is time.
    pub(crate) fn wait_at_most(&self, time: std::time::Duration) {
        self.stream.set_read_timeout(Some(time)).expect("a time above zero");
    }

    /// The next reply; those that only say "go on" are passed over.
    pub(crate) fn read_reply(&mut self) -> io::Result<Reply> {
        loop {
            let head = self.read_head()?;
            let mut reply = Reply::parse_head(&head)?;
            if reply.status >= 200 {
                reply.body = self.read_body(&reply)?;
                return Ok(reply);
            }
        }
    }

    /// Waits for the server to say that it wants the body ("100 Continue").
    pub(crate) fn read_continue(&mut self) -> io::Result<()> {
        let head = self.read_head()?;
        if Reply::parse_head(&head)?.status == 100 {
            return Ok(());
        }
        Err(malformed(&format!("not asked to go on: {:?}", String::from_utf8_lossy(&head))))
    }

    /// Everything up to the end of the connection; an error if it does not end.
    pub(crate) fn read_to_close(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Err(error) if is_end(&error) => return Ok(std::mem::take(&mut self.received)),
                other => other?,
            }
        }
    }

    pub(crate) fn read_head(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                return Ok(self.take(at + 4));
            }
            self.fill()?;
        }
    }

    fn read_body(&mut self, reply: &Reply) -> io::Result<Vec<u8>> {
        if reply.header("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks();
        }
        match reply.header("content-length") {
            Some(text) => {
                let length = text.parse().map_err(|_| malformed("content-length is no number"))?;
                self.read_exactly(length)
            }
            None if reply.status == 204 || reply.status == 304 => Ok(Vec::new()),
            None => self.read_to_close(),
        }
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.read_chunk()? {
            body.extend(chunk);
        }
        Ok(body)
    }

    /// The next chunk of a body; `None` at its end.
    pub(crate) fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.read_line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| malformed("chunk size"))?;
        let chunk = self.read_exactly(size)?;
        self.read_line()?;
        Ok((size > 0).then_some(chunk))
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.received, b"\r\n") {
                let line = self.take(at + 2);
                return String::from_utf8(line).map_err(|_| malformed("a line is not UTF-8"));
            }
            self.fill()?;
        }
    }

    pub(crate) fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < length {
            self.fill()?;
        }
        Ok(self.take(length))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.received.split_off(length);
        std::mem::replace(&mut self.received, rest)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                // A read with a time-out is not taken up again by itself when the process was stopped.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.received.extend_from_slice(&buffer[..read]);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A server that closes while bytes are on the way to it makes the kernel answer with a reset.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// A request with a Host and a length; further headers as given.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: chinwag\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn parse_head(head: &[u8]) -> io::Result<Self> {
        let head = str::from_utf8(head).map_err(|_| malformed("the head is not UTF-8"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| malformed(&format!("not an HTTP/1.1 reply: {head:?}")))?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Ok(Self { status, headers, body: Vec::new() })
    }

    /// The first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the server said that it closes the connection after this.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON, which it must say it is.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "JSON with content type {kind:?}: {self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {:?}", self.text()))
    }

    /// The answer of a call that worked.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "refused: {}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Asserts a refusal in the shape of the contract; gives its words.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: u32) -> String {
        let shown = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "status; the body is {shown}");
        let body = self.json();
        assert_eq!(body["code"], code, "code; the body is {shown}");
        let words = body["msg"].as_str().expect("the words of an error").to_owned();
        assert!(!words.is_empty(), "an error without words");
        words
    }

    /// Asserts a refusal whose words contain each of `parts`: the field, the limit.
    #[track_caller]
    pub(crate) fn assert_error_naming(&self, status: u16, code: u32, parts: &[&str]) {
        let words = self.assert_error(status, code);
        for part in parts {
            assert!(words.contains(part), "{words:?} does not name {part:?}");
        }
    }
}
