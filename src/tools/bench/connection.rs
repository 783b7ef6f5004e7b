//! A connection of either kind as who asks sees it, and what is to be thought of an answer.

use std::io;

use super::cast::Request;
use super::http::HttpConnection;
use super::http2::Stream;
use super::tally::{Failure, Verb};
use super::websocket::Lane;
use crate::tls::Endpoint;

/// Largest answer that is read, in bytes: fifty messages of the largest size.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The code of a refusal to make a group that is there.
const GROUP_EXISTS: u32 = 22_003;

/// What came of a request; of a send, the index of the message.
pub(super) type Answered = Result<Option<u32>, Failure>;

/// What one request at a time travels on.
pub(super) enum Connection {
    Http(HttpConnection),
    Http2(Stream),
    WebSocket(Lane),
}

impl Connection {
    /// Whether no request can follow.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Http(connection) => connection.is_over(),
            Self::Http2(stream) => stream.is_over(),
            Self::WebSocket(lane) => lane.is_over(),
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(&mut self, verb: Verb, request: &Request) -> Answered {
        match self {
            Self::Http(connection) => connection.ask(verb, &request.bytes).await,
            Self::Http2(stream) => stream.ask(verb, &request.body).await,
            Self::WebSocket(lane) => lane.ask(verb, &request.body).await,
        }
    }

    /// Opens it again when it is over.
    pub(super) async fn reopen(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        match self {
            Self::Http(connection) => *connection = HttpConnection::open(endpoint).await?,
            Self::Http2(stream) => stream.reopen(endpoint).await?,
            Self::WebSocket(lane) => lane.reopen().await?,
        }
        Ok(())
    }
}

/// As much of a check as costs nothing: a body that answers something else is noticed, a wrong one need not be.
pub(super) fn judge(verb: Verb, status: u16, body: &[u8]) -> Answered {
    if status != 200 {
        return Err(refusal(status, body));
    }
    let is_object = body.first() == Some(&b'{') && body.last() == Some(&b'}');
    match verb {
        Verb::Send if is_object => match number_behind(body, b"\"msg_index\":") {
            Some(index) => Ok(Some(index)),
            None => Err(Failure::WrongBody),
        },
        Verb::Pull if is_object && body.windows(7).take(64).any(|window| window == b"\"msgs\":") => Ok(None),
        Verb::Ack if is_object => Ok(None),
        Verb::Send | Verb::Pull | Verb::Ack => Err(Failure::WrongBody),
    }
}

/// What is to be thought of an answer to a request that makes a group, or adds to it. One that is there already will do.
pub(super) fn judge_founding(status: u16, body: &[u8]) -> Answered {
    match status {
        200 => Ok(None),
        _ => match refusal(status, body) {
            Failure::Refused { code: GROUP_EXISTS, .. } => Ok(None),
            other => Err(other),
        },
    }
}

fn refusal(status: u16, body: &[u8]) -> Failure {
    let code = number_behind(body, b"\"code\":").unwrap_or(0);
    Failure::Refused { status, code }
}

pub(super) fn number_behind(body: &[u8], name: &[u8]) -> Option<u32> {
    let from = body.windows(name.len()).position(|window| window == name)? + name.len();
    let digits = body[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[from..from + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_as_what_it_is() {
        let ok = |verb, body: &str| judge(verb, 200, body.as_bytes());
        assert_eq!(ok(Verb::Send, r#"{"msg_index":17,"timestamp":1}"#), Ok(Some(17)));
        assert_eq!(ok(Verb::Pull, r#"{"msgs":[],"recalls":{}}"#), Ok(None));
        assert_eq!(ok(Verb::Ack, "{}"), Ok(None));
        for (verb, body) in
            [(Verb::Send, "{}"), (Verb::Send, r#"{"msg_index":17"#), (Verb::Pull, "{}"), (Verb::Ack, "")]
        {
            assert_eq!(ok(verb, body), Err(Failure::WrongBody), "{verb:?} {body}");
        }
    }

    #[test]
    fn a_refusal_is_counted_by_its_code() {
        let refused = |body: &str| judge(Verb::Ack, 503, body.as_bytes());
        let ours = Failure::Refused { status: 503, code: 10_011 };
        assert_eq!(refused(r#"{"code":10011,"msg":"overloaded"}"#), Err(ours));
        assert_eq!(refused("<html>"), Err(Failure::Refused { status: 503, code: 0 }));
    }

    #[test]
    fn a_group_may_be_there_already_and_nothing_else_may_be_wrong() {
        assert_eq!(judge_founding(200, b"{}"), Ok(None));
        assert_eq!(judge_founding(409, br#"{"code":22003,"msg":"taken"}"#), Ok(None));
        let forbidden = Failure::Refused { status: 403, code: 10_008 };
        assert_eq!(judge_founding(403, br#"{"code":10008,"msg":"no"}"#), Err(forbidden));
    }
}
