//! Where a request carries its token, and who that was the last time.

use std::sync::{Mutex, PoisonError};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};

use super::stream::handshake::subprotocol_tokens;
use crate::auth::{Refusal, Verified, Verifier};
use crate::message::Caller;

/// Where clients of the API document put it.
const TOKEN: HeaderName = HeaderName::from_static("token");

/// The token of a request.
///
/// `Authorization: Bearer` comes first, then `Token`. Both may be there if they are the same: which
/// of two users a request means must not depend on who reads it. An `Authorization` of another
/// scheme, which a proxy may have put there, is none.
fn token(headers: &HeaderMap) -> Result<&str, Refusal> {
    let bearer = match one(headers, &AUTHORIZATION)? {
        Some(authorization) => bearer(authorization)?,
        None => None,
    };
    match (bearer, one(headers, &TOKEN)?) {
        (Some(bearer), Some(token)) if bearer != token => Err(Refusal::Malformed),
        (Some(token), _) | (None, Some(token)) => Ok(token),
        (None, None) => Err(Refusal::Missing),
    }
}

/// Whom a request for a stream names: a browser can send its token only as a subprotocol.
pub(super) fn of_stream(headers: &HeaderMap, verifier: &Verifier, now_s: u64) -> Result<Verified, Refusal> {
    let mut tokens = subprotocol_tokens(headers);
    let token = match (tokens.next(), tokens.next(), token(headers)) {
        (None, _, token) => token?,
        (Some(offered), None, Err(Refusal::Missing)) => offered,
        (Some(offered), None, Ok(token)) if offered == token => token,
        _ => return Err(Refusal::Malformed),
    };
    verifier.verify(token, now_s)
}

/// The value of a header that may be there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::Malformed);
    }
    value.to_str().map(|value| Some(value.trim())).map_err(|_| Refusal::Malformed)
}

fn bearer(authorization: &str) -> Result<Option<&str>, Refusal> {
    let (scheme, token) = authorization.split_once(' ').unwrap_or((authorization, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = token.trim_start();
    if token.is_empty() { Err(Refusal::Malformed) } else { Ok(Some(token)) }
}

/// The last caller of a connection. Clients keep theirs, so a signature is verified once per
/// connection and not once per request; the time is checked on every one.
#[derive(Default)]
pub(super) struct LastCaller {
    /// Contended by nobody: a connection's heads are looked at one behind the other, also where requests overlap.
    last: Mutex<Option<(Box<str>, Verified)>>,
}

impl LastCaller {
    /// Who makes a request at `now_s` (Unix time in seconds).
    pub(super) fn identify(
        &self,
        headers: &HeaderMap,
        verifier: &Verifier,
        now_s: u64,
    ) -> Result<Caller, Refusal> {
        let token = token(headers)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, verified)) = &*last
            && same(known, token)
        {
            return if verified.is_expired(now_s) {
                Err(Refusal::Expired)
            } else {
                Ok(verified.caller.clone())
            };
        }
        let verified = verifier.verify(token, now_s)?;
        let caller = verified.caller.clone();
        *last = Some((token.into(), verified));
        Ok(caller)
    }
}

/// Compares in a time that says nothing about where two tokens differ: a proxy may send many users'
/// requests over one connection.
fn same(known: &str, given: &str) -> bool {
    let differences = known.bytes().zip(given.bytes()).fold(0, |differences, (a, b)| differences | (a ^ b));
    known.len() == given.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::{LocalKey, PublicKeys};
    use crate::message::UserId;

    const NOW_S: u64 = 1_700_000_000;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().expect("a header name");
            headers.append(name, value.parse().expect("a header value"));
        }
        headers
    }

    #[test]
    fn a_token_is_found_in_either_header() {
        for (pairs, expected) in [
            (&[("authorization", "Bearer a.b.c")][..], Ok("a.b.c")),
            (&[("authorization", "bEARER   a.b.c ")], Ok("a.b.c")),
            (&[("token", "a.b.c")], Ok("a.b.c")),
            (&[("Token", " a.b.c ")], Ok("a.b.c")),
            (&[("token", "a"), ("authorization", "Bearer a")], Ok("a")),
            (&[("token", "a"), ("authorization", "Basic b")], Ok("a")),
            (&[("token", "a"), ("authorization", "Bearer b")], Err(Refusal::Malformed)),
            (&[("token", "a"), ("token", "a")], Err(Refusal::Malformed)),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer a")], Err(Refusal::Malformed)),
            (&[("authorization", "Bearer ")], Err(Refusal::Malformed)),
            (&[("authorization", "Basic b")], Err(Refusal::Missing)),
            (&[("authorization", "a.b.c")], Err(Refusal::Missing)),
            (&[("cookie", "token=a")], Err(Refusal::Missing)),
            (&[], Err(Refusal::Missing)),
        ] {
            assert_eq!(token(&headers(pairs)), expected, "{pairs:?}");
        }
        let mut odd = HeaderMap::new();
        odd.insert("token", hyper::header::HeaderValue::from_bytes(b"\xff").expect("a header value"));
        assert_eq!(token(&odd), Err(Refusal::Malformed));
    }

    #[test]
    fn a_connection_remembers_its_caller_but_not_for_longer_than_the_token_lives() {
        let directory = tempfile::tempdir().expect("a directory");
        let key = LocalKey::open_or_create(directory.path()).expect("a key");
        let verifier = Verifier::new(&key, &PublicKeys::default()).expect("a verifier");
        let caller = |id| Caller { user: UserId::parse(id).expect("an id"), admin: false };
        let sign = |id| key.sign(&caller(id), NOW_S, Duration::from_secs(60));
        let (alice, bob) = (sign("alice"), sign("bob"));
        let last = LastCaller::default();
        let identify = |token: &str, now_s| last.identify(&headers(&[("token", token)]), &verifier, now_s);
        assert_eq!(identify(&alice, NOW_S), Ok(caller("alice")));
        assert_eq!(identify(&alice, NOW_S + 59), Ok(caller("alice")));
        assert_eq!(identify(&bob, NOW_S), Ok(caller("bob")));
        assert_eq!(identify(&alice, NOW_S), Ok(caller("alice")));
        let mut tampered = alice.clone().into_bytes();
        let end = tampered.len() - 1;
        tampered[end] = if tampered[end] == b'A' { b'Q' } else { b'A' };
        let tampered = String::from_utf8(tampered).expect("ASCII");
        assert!(identify(&tampered, NOW_S).is_err());
        assert!(identify(&alice[..alice.len() - 1], NOW_S).is_err());
        assert_eq!(identify(&alice, NOW_S + 120), Err(Refusal::Expired));
    }
}
