//! Outcomes to responses: the only place where a status and a body are put together.

use bytes::Bytes;
use http_body_util::Either;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use super::encoding::ReplyEncoding;
use super::failure::{Failure, Verdict};
use super::json;
use super::pieces::Pieces;
use super::reply::Reply;
use super::stream::Events;
use crate::telemetry::SUCCESS;

/// A whole body, or events as they happen.
pub(super) type Body = Either<Pieces, Events>;

/// A response, and the code it is counted under.
pub(super) struct Answer {
    pub(super) code: u32,
    pub(super) response: Response<Body>,
}

impl Answer {
    /// The reply of a verb.
    pub(super) fn reply(reply: Reply, encoding: ReplyEncoding) -> Self {
        let content_type = match encoding {
            ReplyEncoding::Json => HeaderValue::from_static("application/json"),
            ReplyEncoding::Protobuf => HeaderValue::from_static("application/x-protobuf"),
        };
        Self { code: SUCCESS, response: response(StatusCode::OK, content_type, reply.encode(encoding)) }
    }

    /// A success that is no reply of a verb.
    pub(super) fn success(response: Response<Body>) -> Self {
        Self { code: SUCCESS, response }
    }

    /// An error: JSON whatever the request asked for, because that is what existing clients parse.
    pub(super) fn failure(failure: Failure) -> Self {
        let allow = failure.allow();
        let verdict = failure.verdict();
        let mut response =
            response(verdict.status, HeaderValue::from_static("application/json"), error(&verdict));
        let headers = response.headers_mut();
        if let Some(milliseconds) = verdict.retry_after_ms {
            headers.insert(RETRY_AFTER, HeaderValue::from(milliseconds.div_ceil(1000).max(1)));
        }
        if let Some(allow) = allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if verdict.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        if verdict.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Self { code: verdict.code, response }
    }

    /// Text for a person or a scraper.
    pub(super) fn text(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Self {
        let body = Pieces::of(text.into(), Bytes::new());
        let response = response(status, HeaderValue::from_static(content_type), body);
        Self { code: SUCCESS, response }
    }

    /// The same, as the last one of its connection.
    pub(super) fn closing(mut self) -> Self {
        self.response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        self
    }
}

fn response(status: StatusCode, content_type: HeaderValue, body: impl Into<Pieces>) -> Response<Body> {
    let mut response = Response::new(Body::Left(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn error(verdict: &Verdict) -> Vec<u8> {
    let mut out = Vec::with_capacity(verdict.msg.len() + 64);
    error_json(&mut out, verdict);
    out
}

/// Appends an error as every client parses it.
pub(super) fn error_json(out: &mut Vec<u8>, verdict: &Verdict) {
    out.extend_from_slice(b"{\"code\":");
    json::number(out, verdict.code.into());
    out.extend_from_slice(b",\"msg\":");
    json::text(out, &verdict.msg);
    if let Some(milliseconds) = verdict.retry_after_ms {
        out.extend_from_slice(b",\"retry_after_ms\":");
        json::number(out, milliseconds);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;
    use crate::auth::Refusal;
    use crate::message::Rejection;

    async fn body(answer: Answer) -> String {
        let bytes = answer.response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    fn header(answer: &Answer, name: hyper::header::HeaderName) -> Option<&str> {
        answer.response.headers().get(name).map(|value| value.to_str().expect("ASCII"))
    }

    #[tokio::test]
    async fn an_error_is_json_with_a_code_and_words() {
        let answer = Answer::failure(Failure::Rejected(Rejection::Invalid("no \"x\"".to_owned())));
        assert_eq!(answer.code, 10001);
        assert_eq!(header(&answer, CONTENT_TYPE), Some("application/json"));
        assert_eq!(body(answer).await, r#"{"code":10001,"msg":"no \"x\""}"#);
    }

    #[tokio::test]
    async fn whoever_may_come_again_is_told_when() {
        let answer = Answer::failure(Failure::TooFast { wait: Duration::from_millis(1500) });
        assert_eq!((answer.response.status().as_u16(), header(&answer, RETRY_AFTER)), (429, Some("2")));
        assert!(body(answer).await.ends_with(r#","retry_after_ms":1500}"#));
        let answer = Answer::failure(Failure::Rejected(Rejection::Overloaded));
        assert_eq!((answer.response.status().as_u16(), header(&answer, RETRY_AFTER)), (503, Some("1")));
    }

    #[test]
    fn a_wrong_method_and_a_missing_token_name_what_would_do() {
        let answer = Answer::failure(Failure::WrongMethod { allow: "POST" });
        assert_eq!((answer.response.status().as_u16(), header(&answer, ALLOW)), (405, Some("POST")));
        let answer = Answer::failure(Failure::Unauthenticated(Refusal::Missing));
        assert_eq!((answer.code, header(&answer, WWW_AUTHENTICATE)), (10004, Some("Bearer")));
    }
}
