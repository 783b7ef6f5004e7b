//! Everything that can keep a request from its reply: status, code, words, and how long to wait.
//!
//! The table of the contract's section 3 is here and nowhere else.

use std::time::{Duration, UNIX_EPOCH};

use hyper::StatusCode;

use crate::auth;
use crate::config::limits::{FEEDS_MAX, HEADER_BYTES_MAX, HEADERS_MAX};
use crate::message::Rejection;

/// When to try again after a 503, in milliseconds: the least that a `Retry-After` can say.
const UNAVAILABLE_RETRY_MS: u64 = 1000;

/// Why a request gets an error.
#[derive(Debug)]
pub(super) enum Failure {
    /// The conversations said no.
    Rejected(Rejection),
    /// Nobody knows who calls.
    Unauthenticated(auth::Refusal),
    /// A stream that is neither a WebSocket nor server-sent events.
    NoStream,
    /// A stream over HTTP/2 that is not server-sent events.
    NoWebSocket,
    /// The user has too many streams.
    TooManyStreams { most: usize },
    /// Too many feeds are read, or wait.
    TooManyFeeds,
    /// The user makes too many calls.
    TooFast { wait: Duration },
    /// The path names no verb.
    UnknownPath,
    /// The path takes another method; carries those that it takes.
    WrongMethod { allow: &'static str },
    /// The request cannot be trusted to mean what it says.
    Ambiguous(&'static str),
    /// A head over HTTP/1.1 that is longer, or has more headers, than is read.
    HeadTooLarge,
    /// What should be a head is none; carries the parser's words.
    HeadBroken(String),
    /// Neither JSON, protobuf nor a form.
    UnknownEncoding,
    /// More than `--body-limit`.
    BodyTooLarge { limit_bytes: u64 },
    /// Not whole within `--body-timeout`.
    BodyTooSlow { patience: Duration },
    /// The client stopped in the middle, or its chunks make no sense.
    BodyBroken,
    /// Too many large bodies are being read.
    NoMemoryForBodies,
}

/// What an error's status line and body say.
pub(super) struct Verdict {
    pub(super) status: StatusCode,
    pub(super) code: u32,
    pub(super) msg: String,
    /// Milliseconds after which to try again.
    pub(super) retry_after_ms: Option<u64>,
}

impl Failure {
    /// Methods to name in `Allow`.
    pub(super) fn allow(&self) -> Option<&'static str> {
        match self {
            Self::WrongMethod { allow } => Some(allow),
            _ => None,
        }
    }

    /// Whether the connection has to end whatever became of the body.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Ambiguous(_) | Self::Rejected(Rejection::Draining | Rejection::LogFailed))
    }

    pub(super) fn verdict(self) -> Verdict {
        let invalid = |status, msg: String| Verdict { status, code: 10001, msg, retry_after_ms: None };
        match self {
            Self::Rejected(rejection) => rejected(rejection),
            Self::Unauthenticated(refusal) => no(StatusCode::UNAUTHORIZED, 10004, refusal.to_string()),
            Self::TooFast { wait } => too_fast(wait),
            Self::NoStream => invalid(
                StatusCode::UPGRADE_REQUIRED,
                "ask for a WebSocket (Upgrade: websocket), or for events (Accept: text/event-stream)"
                    .to_owned(),
            ),
            Self::NoWebSocket => invalid(
                StatusCode::BAD_REQUEST,
                "over HTTP/2 a stream is events (Accept: text/event-stream); a WebSocket takes HTTP/1.1"
                    .to_owned(),
            ),
            Self::TooManyStreams { most } => Verdict {
                retry_after_ms: Some(UNAVAILABLE_RETRY_MS),
                ..no(StatusCode::TOO_MANY_REQUESTS, 10009, format!("a user may have at most {most} streams"))
            },
            Self::TooManyFeeds => Verdict {
                retry_after_ms: Some(UNAVAILABLE_RETRY_MS),
                ..no(
                    StatusCode::TOO_MANY_REQUESTS,
                    10009,
                    format!("at most {FEEDS_MAX} feeds may be read or wait at a time"),
                )
            },
            Self::NoMemoryForBodies => rejected(Rejection::Overloaded),
            Self::UnknownPath => invalid(StatusCode::NOT_FOUND, "there is nothing at this path".to_owned()),
            Self::WrongMethod { allow } => {
                invalid(StatusCode::METHOD_NOT_ALLOWED, format!("this path takes {allow} only"))
            }
            Self::Ambiguous(why) => invalid(StatusCode::BAD_REQUEST, why.to_owned()),
            Self::HeadTooLarge => invalid(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                format!(
                    "the head of a request must be at most {HEADER_BYTES_MAX} bytes with {HEADERS_MAX} headers"
                ),
            ),
            Self::HeadBroken(why) => {
                invalid(StatusCode::BAD_REQUEST, format!("the head of the request cannot be read: {why}"))
            }
            Self::UnknownEncoding => invalid(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Type must be application/json, application/x-protobuf or \
                 application/x-www-form-urlencoded, without Content-Encoding"
                    .to_owned(),
            ),
            Self::BodyTooLarge { limit_bytes } => invalid(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body must be at most {limit_bytes} bytes"),
            ),
            Self::BodyTooSlow { patience } => invalid(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body must arrive within {}", humantime::format_duration(patience)),
            ),
            Self::BodyBroken => {
                invalid(StatusCode::BAD_REQUEST, "the body ended early or is badly framed".to_owned())
            }
        }
    }
}

fn no(status: StatusCode, code: u32, msg: impl Into<String>) -> Verdict {
    Verdict { status, code, msg: msg.into(), retry_after_ms: None }
}

fn too_fast(wait: Duration) -> Verdict {
    // Rounded up: whoever waits as long as it says is let through.
    let wait_ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
    Verdict {
        retry_after_ms: Some(wait_ms),
        ..no(StatusCode::TOO_MANY_REQUESTS, 10009, format!("too many calls: wait {wait_ms} ms"))
    }
}

fn unavailable(msg: &str) -> Verdict {
    Verdict { retry_after_ms: Some(UNAVAILABLE_RETRY_MS), ..no(StatusCode::SERVICE_UNAVAILABLE, 10011, msg) }
}

fn rejected(rejection: Rejection) -> Verdict {
    match rejection {
        Rejection::Invalid(why) => no(StatusCode::BAD_REQUEST, 10001, why),
        Rejection::Forbidden(why) => no(StatusCode::FORBIDDEN, 10008, why),
        Rejection::Muted { until_s } => no(StatusCode::FORBIDDEN, 10008, muted_until(until_s)),
        Rejection::NoSuchMessage { asked, newest } => no(
            StatusCode::NOT_FOUND,
            20001,
            format!("msg_index {asked} names no message: the newest is {newest}"),
        ),
        Rejection::NotYourMessage => {
            no(StatusCode::FORBIDDEN, 20002, "msg_index names somebody else's message")
        }
        Rejection::ClientIdReused => {
            no(StatusCode::CONFLICT, 20003, "client_msg_id was used for a message with other content")
        }
        Rejection::RecallWindowPassed { window } => no(
            StatusCode::CONFLICT,
            20004,
            format!("a message can be recalled for {} only", humantime::format_duration(window)),
        ),
        Rejection::NoSuchGroup => no(StatusCode::NOT_FOUND, 22002, "there is no such group"),
        Rejection::GroupExists => no(StatusCode::CONFLICT, 22003, "group_id is in use"),
        Rejection::Overloaded => unavailable("too much is in flight: nothing was stored, try again"),
        Rejection::Draining => unavailable("the server is going down: nothing was stored, try again"),
        Rejection::ReadOnly => unavailable("the disk is full: nothing was stored, reading goes on"),
        Rejection::LogFailed => unavailable(
            "the log has failed: whether this was stored shows after the restart; with a \
             client_msg_id a retry is safe",
        ),
        Rejection::Quarantined => unavailable(
            "the data of this conversation is damaged or could not be read: nothing was stored; the log has the cause",
        ),
        Rejection::CannotRead => unavailable(
            "the disk could not be read this time: nothing was stored, try again; the log has the cause",
        ),
        Rejection::Broken(cause) => broken(&cause),
    }
}

fn muted_until(until_s: u64) -> String {
    // What the calendar of the formatter does not reach stays a number.
    let until =
        UNIX_EPOCH.checked_add(Duration::from_secs(until_s)).filter(|_| until_s <= u64::from(u32::MAX));
    match until {
        Some(until) => {
            let until = humantime::format_rfc3339_seconds(until);
            format!("you are muted in this group until {until} (Unix time {until_s})")
        }
        None => format!("you are muted in this group until Unix time {until_s}"),
    }
}

/// The cause goes to the log; the client gets what to find it by.
fn broken(cause: &str) -> Verdict {
    let mut id = [0; 8];
    // An id that is all zeros is no reason to hide the error behind another one.
    let _ = getrandom::fill(&mut id);
    let id = format!("{:016x}", u64::from_ne_bytes(id));
    tracing::error!(id, cause, "a request broke something");
    let msg = format!("something broke; the server's log has the cause under {id}");
    no(StatusCode::INTERNAL_SERVER_ERROR, 10003, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_has_its_status_and_code() {
        let window = Duration::from_mins(2);
        for (rejection, status, code) in [
            (Rejection::Invalid("msg must not be empty".to_owned()), 400, 10001),
            (Rejection::Forbidden("not a member"), 403, 10008),
            (Rejection::Muted { until_s: 1_800_000_000 }, 403, 10008),
            (Rejection::NoSuchMessage { asked: 9, newest: 5 }, 404, 20001),
            (Rejection::NotYourMessage, 403, 20002),
            (Rejection::ClientIdReused, 409, 20003),
            (Rejection::RecallWindowPassed { window }, 409, 20004),
            (Rejection::NoSuchGroup, 404, 22002),
            (Rejection::GroupExists, 409, 22003),
            (Rejection::Overloaded, 503, 10011),
            (Rejection::Draining, 503, 10011),
            (Rejection::ReadOnly, 503, 10011),
            (Rejection::LogFailed, 503, 10011),
            (Rejection::Quarantined, 503, 10011),
            (Rejection::CannotRead, 503, 10011),
            (Rejection::Broken("an index is missing".to_owned()), 500, 10003),
        ] {
            let verdict = Failure::Rejected(rejection.clone()).verdict();
            assert_eq!((verdict.status.as_u16(), verdict.code), (status, code), "{rejection:?}");
            assert_eq!(verdict.retry_after_ms.is_some(), status == 503, "{rejection:?}");
            assert!(!verdict.msg.contains("an index is missing"), "the cause stays inside");
        }
    }

    #[test]
    fn messages_name_the_field_and_the_limit() {
        let msg = |failure: Failure| failure.verdict().msg;
        assert_eq!(
            msg(Failure::Rejected(Rejection::NoSuchMessage { asked: 9, newest: 5 })),
            "msg_index 9 names no message: the newest is 5"
        );
        assert_eq!(
            msg(Failure::Rejected(Rejection::Muted { until_s: 1_800_000_000 })),
            "you are muted in this group until 2027-01-15T08:00:00Z (Unix time 1800000000)"
        );
        assert_eq!(
            msg(Failure::Rejected(Rejection::Muted { until_s: u64::MAX })),
            "you are muted in this group until Unix time 18446744073709551615"
        );
        assert_eq!(msg(Failure::BodyTooLarge { limit_bytes: 1024 }), "the body must be at most 1024 bytes");
        let patience = Duration::from_secs(10);
        assert_eq!(msg(Failure::BodyTooSlow { patience }), "the body must arrive within 10s");
    }

    #[test]
    fn a_wait_is_rounded_up() {
        let wait = |nanos| Failure::TooFast { wait: Duration::from_nanos(nanos) }.verdict().retry_after_ms;
        assert_eq!(wait(0), Some(1));
        assert_eq!(wait(1_000_000), Some(1));
        assert_eq!(wait(1_000_001), Some(2));
    }
}
