//! Bodies as HTML forms send them: `target=bob&target_type=user&msg=hello`, lists by repeated keys.

use super::request::Request;
use crate::config::limits::GROUP_MEMBERS_MAX;
use crate::message::Rejection;

/// Most pairs in a form: the longest list a verb takes and its other fields. Bounds the map that
/// groups them, which takes some twenty times the memory of the shortest pair.
const PAIRS_MAX: usize = GROUP_MEMBERS_MAX + 64;

pub(super) fn decode<'a, R: Request<'a>>(body: &'a [u8]) -> Result<R, Rejection> {
    if body.iter().filter(|byte| **byte == b'&').count() >= PAIRS_MAX {
        return Err(Rejection::Invalid(format!("a form must have at most {PAIRS_MAX} fields")));
    }
    if !is_utf8_behind_escapes(body) {
        return Err(Rejection::Invalid("the form is not UTF-8".to_owned()));
    }
    serde_html_form::from_bytes(body)
        .map_err(|error| Rejection::Invalid(format!("the body is no valid form: {error}")))
}

/// The form parser puts a replacement character where bytes are not UTF-8, which would store another
/// message than was sent.
fn is_utf8_behind_escapes(body: &[u8]) -> bool {
    if !body.contains(&b'%') {
        return str::from_utf8(body).is_ok();
    }
    let digit = |at: usize| body.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(body.len());
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.extend(u8::try_from(high << 4 | low));
                at += 3;
            }
            _ => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    str::from_utf8(&bytes).is_ok()
}
