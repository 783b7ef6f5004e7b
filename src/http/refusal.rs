//! What hyper's parser refuses by itself, answered like everything else: with a code and words.
//!
//! A head that is no HTTP/1.1 never becomes a request, so no handler sees it: hyper answers it with a head of its own and
//! no body, and closes. Here is how such an answer is told from any other by its bytes, and what it becomes. Who holds it
//! back, and until hyper has said that it was its own, is [`wire`](super::wire)'s and [`connection`](super::connection)'s.

use std::mem;

use super::failure::Failure;
use super::response::error_json;

/// How hyper says that nothing follows.
const NO_BODY: &str = "content-length: 0";

/// Whether these bytes have the form of such an answer: a refusal that ends its connection, and says no more than that.
/// Answers of handlers have a type, even the empty ones; one that had none would be of this form too.
pub(super) fn may_be(bytes: &[u8]) -> bool {
    if !bytes.starts_with(b"HTTP/1.1 4") {
        return false;
    }
    let head = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix("\r\n\r\n"));
    head.is_some_and(|head| {
        let (mut closes, mut is_empty) = (false, false);
        let says_no_more = head.split("\r\n").skip(1).all(|line| match line {
            "connection: close" => !mem::replace(&mut closes, true),
            NO_BODY => !mem::replace(&mut is_empty, true),
            line => line.starts_with("date: "),
        });
        closes && is_empty && says_no_more
    })
}

/// The same answer with the words that every other refusal has; `head` has the form above.
pub(super) fn with_words(head: &[u8], why: &hyper::Error) -> Vec<u8> {
    let failure = match why.is_parse_too_large() {
        true => Failure::HeadTooLarge,
        false => Failure::HeadBroken(why.to_string()),
    };
    let mut body = Vec::new();
    error_json(&mut body, &failure.verdict());
    let length = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    let mut answer = String::from_utf8_lossy(head).replacen(NO_BODY, &length, 1).into_bytes();
    answer.extend_from_slice(&body);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                       content-length: 0\r\ndate: Sat, 28 Nov 2026 04:00:00 GMT\r\n\r\n";

    #[test]
    fn only_a_bare_refusal_that_ends_its_connection_has_the_form() {
        assert!(may_be(OWN.as_bytes()));
        for (from, to) in [
            ("431", "200"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("connection: close\r\n", ""),
            ("connection: close", "connection: keep-alive"),
            ("content-length: 0\r\n", ""),
            ("content-length: 0", "content-length: 10"),
            ("content-length: 0", "content-length: 0\r\ncontent-length: 0"),
            ("date: ", "content-type: application/json\r\ndate: "),
            ("GMT\r\n\r\n", "GMT\r\n"),
            ("GMT\r\n\r\n", "GMT\r\n\r\n{}"),
        ] {
            assert!(!may_be(OWN.replacen(from, to, 1).as_bytes()), "{from:?} as {to:?}");
        }
        assert!(!may_be(b"") && !may_be(b"\x81\x02{}") && !may_be(b"HTTP/1.1 4\xff\r\n\r\n"));
    }
}
