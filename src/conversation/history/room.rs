//! How much room is made for texts and rows: in the sizes that the allocator gives, and little more than is used.

/// Room is made for this part of what is there already, so that slack stays near an eighth. Growing
/// copies rows eight times over their life, 67 instructions a message; texts are never copied.
pub(super) const GROWTH: usize = 8;
/// A block is made about so large at least and at most, but a longer message gets a block of its own. A page of fifty
/// messages of 200 bytes lies in one or two of the largest.
const BLOCK_BYTES_MIN: usize = 256;
const BLOCK_BYTES_MAX: usize = 16 << 10;
/// Fewest rows that room is made for.
const ROWS_MIN: usize = 4;

/// The size of a block that a message of `bytes` begins behind `text_bytes` of others: for whole messages like this one,
/// one more or less, whichever leaves the smaller part unused. The messages of a conversation resemble each other.
pub(super) fn block_bytes(text_bytes: usize, bytes: usize) -> usize {
    let (grown, bytes) = ((text_bytes / GROWTH).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX), bytes.max(1));
    let messages = (grown / bytes).max(1);
    let (less, more) = (allocated_bytes(messages * bytes), allocated_bytes((messages + 1) * bytes));
    if messages * more >= (messages + 1) * less { less } else { more }
}

/// For how many rows of `row_bytes` there is to be room once `rows` fill it.
pub(super) fn rows_with_room(rows: usize, row_bytes: usize) -> usize {
    let grown = rows + (rows / GROWTH).max(ROWS_MIN);
    allocated_bytes(grown * row_bytes) / row_bytes
}

/// Where so many bytes begin in a block that has room for them.
pub(super) fn place_in(block: &String, bytes: usize) -> Option<u16> {
    let at = u16::try_from(block.len()).ok()?;
    (block.capacity() - block.len() >= bytes).then_some(at)
}

/// What an allocator that keeps four sizes to a doubling, as jemalloc does, gives for so many bytes (its size classes,
/// jemalloc(3)): asking for less would waste the rest.
fn allocated_bytes(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 8).max(1);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_the_allocator_gives() {
        let sizes =
            [(1, 1), (256, 256), (257, 320), (320, 320), (1000, 1024), (1025, 1280), (25_000, 28_672)];
        for (asked, given) in sizes {
            assert_eq!(allocated_bytes(asked), given);
        }
    }

    #[test]
    fn a_block_holds_whole_messages_like_its_first_one() {
        // The first message, its size, what is made for it, and how many such fit.
        for (text_bytes, bytes, made, fit) in [
            (0, 0, 256, 256),
            (0, 200, 224, 1),
            (0, 100, 320, 3),
            (8_000, 200, 1_024, 5),
            (1 << 20, 200, 16_384, 81),
            (1 << 20, 60_000, 65_536, 1),
        ] {
            assert_eq!(block_bytes(text_bytes, bytes), made, "{bytes} behind {text_bytes}");
            assert_eq!(made / bytes.max(1), fit);
        }
    }

    #[test]
    fn little_is_left_unused_of_a_long_history_of_like_messages() {
        for bytes in [20, 60, 100, 200, 333, 1_000] {
            let (mut text_bytes, mut made) = (0, 0);
            while text_bytes < 200_000 {
                let block = block_bytes(text_bytes, bytes);
                (text_bytes, made) = (text_bytes + block / bytes * bytes, made + block);
            }
            assert!(made - text_bytes < text_bytes / 25, "{made} for {text_bytes}, {bytes} each");
        }
    }

    #[test]
    fn nothing_is_placed_where_a_row_cannot_point_to() {
        let (mut full, empty) = (String::with_capacity(100_000), String::with_capacity(10));
        full.push_str(&"f".repeat(65_536));
        assert_eq!((place_in(&full, 1), place_in(&empty, 10), place_in(&empty, 11)), (None, Some(0), None));
    }
}
