//! Asks a running server to do something, over its operations address: one request, one answer, on this thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Error;

/// Longest answer that is read, in bytes; a server's has less than a thousand.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// How long a server may take to take the connection. For the answer there is no limit: a backup takes its time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Posts `body` to `path` at `ops` with an admin token, and gives the answer.
///
/// # Errors
/// When there is no server, or it says no; then with its words.
pub(super) fn ask_server(ops: SocketAddr, token: &str, path: &str, body: &Value) -> Result<Value, Error> {
    let answer = exchange(ops, token, path, &body.to_string());
    let answer = answer.map_err(|why| {
        Error::Refused(format!(
            "no answer from the server at {ops}: {why}; if it runs, name its operations address with --ops"
        ))
    })?;
    let (status, body) = parse(&answer)
        .ok_or_else(|| Error::Refused(format!("what answers at {ops} is no chinwag server")))?;
    match status {
        200 => Ok(body),
        _ => {
            let why = body.get("msg").and_then(Value::as_str).unwrap_or("no reason given");
            Err(Error::Refused(format!("the server at {ops} refused ({status}): {why}")))
        }
    }
}

fn exchange(ops: SocketAddr, token: &str, path: &str, body: &str) -> io::Result<Vec<u8>> {
    if token.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(io::Error::other("the token is not one"));
    }
    let mut stream = TcpStream::connect_timeout(&ops, CONNECT_TIMEOUT)?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {ops}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and body of an HTTP/1.1 response whose body ends with the connection.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

/// Where a server in another directory has to write: our names mean nothing to it unless they are absolute.
pub(super) fn absolute(path: &Path) -> Result<String, Error> {
    let path = std::path::absolute(path).map_err(Error::io("find", path))?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Error::Refused(format!("{}: not UTF-8, which the server could not be told", path.display()))
    })
}
