//! Cross-origin calls: which pages' scripts may read our answers, as browsers ask it (Fetch, "CORS protocol").
//!
//! Promises that without `--origin` nothing here is ever said, and that no page is ever trusted with cookies: tokens come in
//! headers that a script sets itself. Whether a page may open a stream is the stream's handshake's business.

use hyper::body::Body as HttpBody;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue,
    ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::pieces::Pieces;
use super::response::{Answer, Body};
use super::routes;
use crate::telemetry::Verb;

/// What scripts of a page may send beside what every page may.
const ALLOWED_HEADERS: &str = "authorization, token, content-type, accept";
/// How long a browser need not ask again, in seconds: two hours, which is the most that Chromium takes.
const MAX_AGE_S: &str = "7200";

/// The origins of an operator's pages.
pub(super) struct Cors {
    origins: Vec<String>,
}

/// A page that may read the answer, by its origin as it wrote it.
pub(super) struct Page(HeaderValue);

impl Cors {
    /// `*` stands for every page.
    pub(super) fn new(origins: &[String]) -> Self {
        Self { origins: origins.to_vec() }
    }

    /// The page that asks, if it is one that may. Boxed, because every request in flight has room for it.
    pub(super) fn page(&self, headers: &HeaderMap) -> Option<Box<Page>> {
        if self.origins.is_empty() {
            return None;
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, None) = (origins.next()?, origins.next()) else { return None };
        self.has(origin.to_str().ok()?).then(|| Box::new(Page(origin.clone())))
    }

    fn has(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
    }
}

/// Answers a page that asks before it calls a verb; the page is still to be named. None if it asks nothing, or what is not
/// there.
pub(super) fn preflight<B: HttpBody>(verb: Verb, request: &Request<B>) -> Option<Answer> {
    let asks = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        // What follows on the connection could not be told from it.
        && request.body().is_end_stream();
    if !asks || matches!(verb, Verb::Unknown | Verb::Resume) {
        return None;
    }
    let mut response = Response::new(Body::Left(Pieces::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let out = response.headers_mut();
    out.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(routes::method(verb)));
    out.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    Some(Answer::success(response))
}

impl Page {
    /// Lets the page read an answer. Caches in between have to tell pages apart.
    pub(super) fn may_read(self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.0);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (hyper::header::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    fn may(allowed: &[&str], origins: &[&str]) -> bool {
        let allowed: Vec<_> = allowed.iter().map(|&origin| origin.to_owned()).collect();
        let pairs: Vec<_> = origins.iter().map(|&origin| ("origin", origin)).collect();
        Cors::new(&allowed).page(&headers(&pairs)).is_some()
    }

    #[test]
    fn a_page_may_read_what_its_origin_is_listed_for() {
        let chat = "https://chat.example.com";
        assert!(may(&[chat], &[chat]) && may(&[chat], &["https://Chat.example.com"]));
        for other in
            ["http://chat.example.com", "https://chat.example.com:8443", "https://example.com", "null"]
        {
            assert!(!may(&[chat], &[other]), "{other}");
            assert!(may(&["*"], &[other]), "{other}");
        }
        assert!(!may(&[], &[chat]), "nothing is listed");
        assert!(!may(&["*"], &[]), "who names no origin is no page");
        assert!(!may(&["*"], &[chat, chat]), "two origins are none");
    }

    fn asks(method: Method, names_method: bool, body: &str, verb: Verb) -> Option<StatusCode> {
        let mut request =
            Request::new(http_body_util::Full::new(bytes::Bytes::copy_from_slice(body.as_bytes())));
        *request.method_mut() = method;
        if names_method {
            request.headers_mut().insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        }
        preflight(verb, &request).map(|answer| answer.response.status())
    }

    #[test]
    fn only_an_options_that_names_a_method_and_has_no_body_asks_before_it_calls() {
        assert_eq!(asks(Method::OPTIONS, true, "", Verb::Send), Some(StatusCode::NO_CONTENT));
        assert_eq!(asks(Method::POST, true, "", Verb::Send), None);
        assert_eq!(asks(Method::OPTIONS, false, "", Verb::Send), None);
        assert_eq!(asks(Method::OPTIONS, true, "{}", Verb::Send), None);
        assert_eq!(asks(Method::OPTIONS, true, "", Verb::Unknown), None);
    }
}
