//! JSON written straight into the reply's buffer: no tree, no allocation of its own.

/// How many bytes are looked at together when a text is searched for what needs an escape.
const WORD_BYTES: usize = 8;
const ONES: u64 = u64::from_ne_bytes([0x01; WORD_BYTES]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; WORD_BYTES]);

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, number: u64) {
    // Twenty digits hold every u64.
    let mut digits = [0; 20];
    let mut from = digits.len();
    let mut rest = number;
    loop {
        from -= 1;
        digits[from] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

/// Appends a text in quotes.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_bytes(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some((byte, behind)) = rest[plain..].split_first() else { break };
        escape(out, *byte);
        rest = behind;
    }
    out.push(b'"');
}

/// How many bytes from the start need no escape.
fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<WORD_BYTES>();
    let whole = words.iter().take_while(|word| !word_needs_escape(**word)).count() * WORD_BYTES;
    let rest = bytes[whole..].iter().position(|byte| byte_needs_escape(*byte));
    rest.map_or(bytes.len(), |rest| whole + rest)
}

fn byte_needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Whether any byte needs an escape. The high bit of `x - n` is set where a byte without high bit was
/// below `n`; a borrow can reach into the next byte, but only from one that was below itself
/// (S. E. Anderson, Bit Twiddling Hacks, "hasless" and "haszero").
fn word_needs_escape(word: [u8; WORD_BYTES]) -> bool {
    let word = u64::from_ne_bytes(word);
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & HIGHS != 0
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_their_digits() {
        for value in [0, 1, 9, 10, 4_294_967_295, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, value.to_string().into_bytes());
        }
    }

    #[test]
    fn every_byte_is_found_at_every_place_of_a_word() {
        for byte in 0..=0x7f_u8 {
            for place in 0..19 {
                let mut bytes = *b"abcdefgh\xc3\xa9jklmnop\xc3\xa9";
                bytes[place] = byte;
                let expected = bytes.iter().position(|byte| byte_needs_escape(*byte)).unwrap_or(bytes.len());
                assert_eq!(plain_bytes(&bytes), expected, "{byte} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_parser_reads_back_what_was_written(texts in prop::collection::vec(any::<char>(), 0..64)) {
            let original: String = texts.into_iter().collect();
            let mut out = Vec::new();
            text(&mut out, &original);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), original);
        }
    }
}
