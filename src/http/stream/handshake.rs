//! What a request for a stream asks for, and whether a page may: before anything is opened.

use hyper::Version;
use hyper::header::{
    ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::request::Parts;
use tungstenite::handshake::derive_accept_key;

use crate::http::failure::Failure;
use crate::message::Rejection;

/// The subprotocol, which names the shape of events and verbs.
const PROTOCOL: &str = "chinwag.v1";
/// What a token is announced with among the subprotocols: a browser can set no header.
const BEARER: &str = "bearer.";
/// Names under which clients of other servers put a token into a URL.
const TOKEN_NAMES: [&str; 5] = ["token", "access_token", "bearer", "jwt", "authorization"];
/// The only version of the protocol that was ever finished (RFC 6455, 4.1).
const VERSION: &str = "13";

/// How events are to come.
#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    /// A WebSocket, with the headers that accept it.
    WebSocket(Acceptance),
    /// Server-sent events.
    EventSource,
}

/// What accepts a WebSocket.
#[derive(Debug, PartialEq)]
pub(super) struct Acceptance {
    key: String,
    protocol: bool,
}

impl Acceptance {
    /// The headers of the 101.
    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let key = HeaderValue::try_from(&self.key).expect("base64 is a header value");
        let mut headers = vec![
            (CONNECTION, HeaderValue::from_static("upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_ACCEPT, key),
        ];
        if self.protocol {
            headers.push((SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL)));
        }
        headers
    }
}

/// What the request asks for.
pub(super) fn kind(head: &Parts) -> Result<Kind, Failure> {
    let headers = &head.headers;
    if has_word(headers, &UPGRADE, "websocket") && has_word(headers, &CONNECTION, "upgrade") {
        return acceptance(headers).map(Kind::WebSocket);
    }
    if accepts_events(headers) {
        return Ok(Kind::EventSource);
    }
    Err(if head.version == Version::HTTP_2 { Failure::NoWebSocket } else { Failure::NoStream })
}

fn acceptance(headers: &HeaderMap) -> Result<Acceptance, Failure> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(invalid("Sec-WebSocket-Version must be 13"));
    }
    // Sixteen bytes in base64 (RFC 6455, 4.2.1).
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if key.len() != 24 || headers.get_all(SEC_WEBSOCKET_KEY).iter().count() != 1 {
        return Err(invalid("Sec-WebSocket-Key must be there once, with 16 bytes in base64"));
    }
    let protocol = words(headers, &SEC_WEBSOCKET_PROTOCOL).any(|word| word == PROTOCOL);
    Ok(Acceptance { key: derive_accept_key(key), protocol })
}

fn accepts_events(headers: &HeaderMap) -> bool {
    words(headers, &ACCEPT).any(|range| {
        let name = range.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("text/event-stream")
    })
}

/// The token among the subprotocols.
pub(in crate::http) fn subprotocol_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    words(headers, &SEC_WEBSOCKET_PROTOCOL).filter_map(|word| word.strip_prefix(BEARER))
}

fn has_word(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted))
}

/// The elements of a header that is a list.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether the page that asks, if it is one, may.
///
/// Browsers send an origin with every request for a stream and let any page open one, so that whoever
/// does not look at it lets every page act as its reader. Who sends none is no browser.
pub(super) fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Failure> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let is_listed = allowed.iter().any(|allowed| allowed == "*" || *allowed == origin);
    if origins.next().is_none() && (is_listed || is_same_host(&origin, headers)) {
        return Ok(());
    }
    let why = "pages of this origin may not open streams here: see --origin";
    Err(Failure::Rejected(Rejection::Forbidden(why)))
}

fn is_same_host(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// URLs end up in logs, histories and referrers: a token there has been given away.
pub(super) fn check_query(head: &Parts) -> Result<(), Failure> {
    if parameters(head).any(|(name, _)| TOKEN_NAMES.iter().any(|token| name.eq_ignore_ascii_case(token))) {
        return Err(invalid("a token must not be in the URL: send it as a header or a subprotocol"));
    }
    Ok(())
}

/// Whether the client says that it will resume.
pub(super) fn will_resume(head: &Parts) -> bool {
    parameters(head).any(|parameter| parameter == ("resume", "1"))
}

fn parameters(head: &Parts) -> impl Iterator<Item = (&str, &str)> {
    let query = head.uri.query().unwrap_or_default();
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn invalid(why: &str) -> Failure {
    Failure::Rejected(Rejection::Invalid(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    const GOOD: [(&str, &str); 5] = [
        ("host", "chat.example.com"),
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// The good request without one header, and with another.
    fn with(out: &str, headers: &[(&str, &str)]) -> Result<Kind, Failure> {
        let kept: Vec<_> = GOOD.iter().filter(|(name, _)| *name != out).chain(headers).copied().collect();
        kind(&head("/im.chat/stream", &kept))
    }

    fn accepted(protocol: bool) -> Kind {
        Kind::WebSocket(Acceptance { key: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(), protocol })
    }

    #[test]
    fn a_websocket_is_told_from_events_and_from_neither() {
        assert_eq!(with("", &[]).expect("a kind"), accepted(false));
        let protocols = [("sec-websocket-protocol", "x, chinwag.v1, bearer.a.b.c")];
        assert_eq!(with("", &protocols).expect("a kind"), accepted(true));
        let events = [("accept", "text/html, Text/Event-Stream;q=0.9")];
        assert_eq!(with("upgrade", &events).expect("a kind"), Kind::EventSource);
        assert!(matches!(with("upgrade", &[]), Err(Failure::NoStream)));
        for (out, header) in [
            ("sec-websocket-version", ("sec-websocket-version", "8")),
            ("sec-websocket-version", ("x", "y")),
            ("sec-websocket-key", ("sec-websocket-key", "short")),
            ("sec-websocket-key", ("x", "y")),
            ("", ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")),
        ] {
            assert!(matches!(with(out, &[header]), Err(Failure::Rejected(_))), "{out} {header:?}");
        }
    }

    #[test]
    fn a_page_needs_the_same_host_or_leave() {
        let may = |origin: &str, allowed: &[&str]| {
            let head = head("/", &[("host", "chat.example.com"), ("origin", origin)]);
            let allowed: Vec<_> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
            check_origin(&head.headers, &allowed).is_ok()
        };
        assert!(may("https://chat.example.com", &[]));
        assert!(may("http://Chat.Example.com", &[]));
        for origin in ["https://example.com", "https://chat.example.com.evil.org", "null", "chat.example.com"]
        {
            assert!(!may(origin, &[]), "{origin}");
            assert!(may(origin, &["*"]), "{origin}");
        }
        assert!(may("https://app.example.com", &["https://app.example.com"]));
        assert!(!may("http://app.example.com", &["https://app.example.com"]));
        assert!(!may("https://app.example.com:8443", &["https://app.example.com"]));
        assert!(check_origin(&head("/", &[("host", "x")]).headers, &[]).is_ok(), "not a browser");
        let two = [("host", "x"), ("origin", "http://x"), ("origin", "http://y")];
        assert!(check_origin(&head("/", &two).headers, &[]).is_err());
    }

    #[test]
    fn a_token_in_the_url_is_refused() {
        for query in ["token=a", "x=1&Access_Token=a", "jwt", "bearer=a&y"] {
            assert!(check_query(&head(&format!("/im.chat/stream?{query}"), &[])).is_err(), "{query}");
        }
        for uri in ["/im.chat/stream", "/im.chat/stream?", "/im.chat/stream?resume=1&tokens=3"] {
            assert!(check_query(&head(uri, &[])).is_ok(), "{uri}");
        }
        assert!(will_resume(&head("/im.chat/stream?a=b&resume=1", &[])));
        assert!(!will_resume(&head("/im.chat/stream?resume=0", &[])));
    }
}
