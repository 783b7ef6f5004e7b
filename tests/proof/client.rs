//! A client on one keep-alive connection: blocking, and no cleverer than needed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than any fault here delays an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) has_retry_after: bool,
    pub(crate) body: Value,
}

impl Answer {
    /// A number of the reply.
    pub(crate) fn number(&self, field: &str) -> u32 {
        number(&self.body, field)
    }

    /// Whether an error's message has these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        self.body["msg"].as_str().is_some_and(|msg| msg.contains(words))
    }

    pub(crate) fn code(&self) -> u32 {
        if self.status == 200 { 0 } else { self.number("code") }
    }
}

/// A number of an object.
pub(crate) fn number(object: &Value, field: &str) -> u32 {
    let number = object[field].as_u64().and_then(|number| u32::try_from(number).ok());
    number.unwrap_or_else(|| panic!("no {field} in {object}"))
}

pub(crate) struct Client {
    address: SocketAddr,
    token: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, token: String) -> Self {
        Self { address, token, stream: None }
    }

    /// One call. After an error nobody knows whether it was carried out.
    pub(crate) fn call(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nToken: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        let answer = self.exchange(&(head + &body));
        if answer.is_err() {
            self.stream = None;
        }
        let (status, head, body) = answer?;
        let body = serde_json::from_str(&body).map_err(io::Error::other)?;
        Ok(Answer { status, has_retry_after: has_header(&head, "retry-after"), body })
    }

    fn exchange(&mut self, request: &str) -> io::Result<(u16, String, String)> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address)?,
        };
        let stream = self.stream.insert(stream);
        stream.get_mut().write_all(request.as_bytes())?;
        let (status, head, body) = read_answer(stream)?;
        if has_header(&head, "connection: close") {
            self.stream = None;
        }
        Ok((status, head, body))
    }
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    Ok(BufReader::new(stream))
}

fn has_header(head: &str, start: &str) -> bool {
    head.lines().any(|line| line.to_ascii_lowercase().starts_with(start))
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let odd = || io::Error::other(format!("not an answer: {head}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(odd)?;
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:").map(|length| length.trim().parse::<usize>())
    });
    let length = length.ok_or_else(odd)?.map_err(io::Error::other)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, head, String::from_utf8(body).map_err(io::Error::other)?))
}

/// A page of the operations address.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = connect(address)?;
    stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    read_answer(&mut stream).map(|(status, _, body)| (status, body))
}
