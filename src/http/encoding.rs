//! In which encoding a body came, and in which one the reply goes: `Content-Type` and `Accept`.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};

/// How a request body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyEncoding {
    Json,
    Protobuf,
    Form,
}

/// How a reply is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyEncoding {
    Json,
    Protobuf,
}

/// The encoding of the body: JSON where the request does not say. `None`: one we do not speak.
pub(super) fn of_body(headers: &HeaderMap) -> Option<BodyEncoding> {
    let compressed = headers.get_all(CONTENT_ENCODING).iter().any(|name| name.as_bytes() != b"identity");
    if compressed {
        return None;
    }
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Some(BodyEncoding::Json) };
    let content_type = content_type.to_str().ok()?;
    // What every client of the API document sends, letter for letter.
    if content_type == "application/json" {
        return Some(BodyEncoding::Json);
    }
    body_encoding(media_type(content_type))
}

fn body_encoding(media_type: &str) -> Option<BodyEncoding> {
    let is = |name: &str| media_type.eq_ignore_ascii_case(name);
    if is("application/json") {
        Some(BodyEncoding::Json)
    } else if is_protobuf(media_type) {
        Some(BodyEncoding::Protobuf)
    } else if is("application/x-www-form-urlencoded") {
        Some(BodyEncoding::Form)
    } else {
        None
    }
}

/// The name registered later is as good as the one the contract gives.
fn is_protobuf(media_type: &str) -> bool {
    ["application/x-protobuf", "application/protobuf"]
        .iter()
        .any(|name| media_type.eq_ignore_ascii_case(name))
}

/// The encoding of the reply: protobuf where the client names it and does not like JSON better.
///
/// A wildcard names nothing. Of two equals the first wins. What we do not speak is passed over: the
/// reply is JSON then, since a client that gets *something* knows more than one that gets a 406.
pub(super) fn of_reply(headers: &HeaderMap) -> ReplyEncoding {
    let mut best = (0, ReplyEncoding::Json);
    for header in headers.get_all(ACCEPT) {
        for range in header.to_str().unwrap_or_default().split(',') {
            let encoding = match media_type(range) {
                name if is_protobuf(name) => ReplyEncoding::Protobuf,
                name if name.eq_ignore_ascii_case("application/json") => ReplyEncoding::Json,
                _ => continue,
            };
            let weight = weight_permille(range);
            if weight > best.0 {
                best = (weight, encoding);
            }
        }
    }
    best.1
}

/// What stands before the parameters.
fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// The `q` of a media range, 1000 for none or a broken one (RFC 9110, 12.4.2: at most three decimals).
fn weight_permille(range: &str) -> u32 {
    let mut parameters = range.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let weight = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let weight = weight.and_then(|(_, value)| value.trim().parse::<f32>().ok());
    weight.filter(|weight| (0.0..=1.0).contains(weight)).map_or(1000, |weight| (weight * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(hyper::header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header value"))).collect()
    }

    #[test]
    fn a_body_is_json_unless_it_says_otherwise() {
        for (content_type, expected) in [
            ("application/json", Some(BodyEncoding::Json)),
            ("Application/JSON ; charset=utf-8", Some(BodyEncoding::Json)),
            ("application/x-protobuf", Some(BodyEncoding::Protobuf)),
            ("application/protobuf", Some(BodyEncoding::Protobuf)),
            ("application/x-www-form-urlencoded", Some(BodyEncoding::Form)),
            ("text/plain", None),
            ("application/jsonp", None),
            ("multipart/form-data; boundary=x", None),
            ("", None),
        ] {
            assert_eq!(of_body(&headers(&[(CONTENT_TYPE, content_type)])), expected, "{content_type}");
        }
        assert_eq!(of_body(&HeaderMap::new()), Some(BodyEncoding::Json));
    }

    #[test]
    fn a_compressed_body_is_none_we_speak() {
        assert_eq!(of_body(&headers(&[(CONTENT_ENCODING, "gzip")])), None);
        assert_eq!(of_body(&headers(&[(CONTENT_ENCODING, "identity")])), Some(BodyEncoding::Json));
    }

    #[test]
    fn a_reply_is_protobuf_only_for_who_asks_for_it() {
        for (accept, expected) in [
            ("*/*", ReplyEncoding::Json),
            ("text/html", ReplyEncoding::Json),
            ("application/x-protobuf", ReplyEncoding::Protobuf),
            ("application/x-protobuf, */*", ReplyEncoding::Protobuf),
            ("*/*, application/x-protobuf;q=0.1", ReplyEncoding::Protobuf),
            ("application/json, application/x-protobuf", ReplyEncoding::Json),
            ("application/x-protobuf, application/json", ReplyEncoding::Protobuf),
            ("application/json;q=0.5, application/x-protobuf;q=0.6", ReplyEncoding::Protobuf),
            ("application/x-protobuf;q=0", ReplyEncoding::Json),
            ("application/x-protobuf ; Q=0.2 , application/json ; q=0.1", ReplyEncoding::Protobuf),
            ("application/x-protobuf;q=banana", ReplyEncoding::Protobuf),
        ] {
            assert_eq!(of_reply(&headers(&[(ACCEPT, accept)])), expected, "{accept}");
        }
        assert_eq!(of_reply(&HeaderMap::new()), ReplyEncoding::Json);
    }
}
