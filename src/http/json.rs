//! JSON written straight into the reply's buffer: no tree, no allocation of its own.

/// How many bytes are looked at together when a text is searched for what needs an escape: a loop of
/// such a length without an early end becomes a few vector instructions. To ask a block whether there was
/// one costs as much as to look at it, so long texts are searched in long blocks.
const BLOCK_BYTES: usize = 64;
const VECTOR_BYTES: usize = 16;
const WORD_BYTES: usize = 8;

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a text in quotes.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Appends what stands between the quotes of a text.
pub(super) fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_bytes(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some((byte, behind)) = rest[plain..].split_first() else { break };
        escape(out, *byte);
        rest = behind;
    }
}

/// How many bytes from the start need no escape.
fn plain_bytes(bytes: &[u8]) -> usize {
    let mut plain = plain_blocks::<BLOCK_BYTES>(bytes);
    plain += plain_blocks::<VECTOR_BYTES>(&bytes[plain..]);
    plain += plain_blocks::<WORD_BYTES>(&bytes[plain..]);
    let rest = &bytes[plain..];
    if rest.is_empty() {
        return plain;
    }
    // Most ids and short messages end here: the last word has all of the rest, and bytes that were looked at before.
    if rest.len() < WORD_BYTES && bytes.last_chunk().is_some_and(|word| !any_needs_escape::<WORD_BYTES>(word))
    {
        return bytes.len();
    }
    rest.iter().position(|byte| byte_needs_escape(*byte)).map_or(bytes.len(), |rest| plain + rest)
}

/// Inlined however it is built: without, a page takes twice the CPU, because no loop around a call becomes vectors.
#[inline(always)]
fn byte_needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[inline(always)]
fn any_needs_escape<const BYTES: usize>(block: &[u8; BYTES]) -> bool {
    block.iter().fold(false, |any, byte| any | byte_needs_escape(*byte))
}

/// The bytes of the whole blocks from the start that need no escape.
fn plain_blocks<const BYTES: usize>(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    blocks.iter().take_while(|block| !any_needs_escape(block)).count() * BYTES
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
    fn every_byte_is_found_at_every_place() {
        let plain = b"abcdefgh\xc3\xa9jklmnop\xc3\xa9".repeat(4);
        for byte in 0..=0x7f_u8 {
            for place in 0..plain.len() {
                let mut bytes = plain.clone();
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
