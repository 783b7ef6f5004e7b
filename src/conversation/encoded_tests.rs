//! What is found, what is not, and what is let go.

use super::*;
use crate::conversation::admission::{self, Admission};
use crate::conversation::state::Durable;
use crate::conversation::state::tests::user;
use crate::message::{Direction, GroupId, Pull};

const DURABLE: Durable = Durable { messages: 100, recalls: 3 };
const EPOCH: u32 = 7;

fn pages() -> EncodedPages {
    EncodedPages::new(Options::default(), EPOCH)
}

/// The head of a conversation that is durable so far.
fn head(key: ConversationKey) -> Arc<DurableHead> {
    let admission = Arc::new(Admission::new(admission::Options::default()));
    let head = Arc::new(DurableHead::new(Arc::new(key), admission));
    head.load(DURABLE, 1, 0);
    head
}

fn direct(a: &str, b: &str) -> Arc<DurableHead> {
    head(ConversationKey::direct(user(a), user(b)))
}

fn pull(start_msg_index: u32) -> Pull {
    let (direction, wait) = (Direction::After, std::time::Duration::ZERO);
    Pull { direction, start_msg_index, start_recall_index: 1, count: 50, wait }
}

/// What a reader sees from `start_msg_index` on.
fn view(start_msg_index: u32) -> View {
    View::of(&pull(start_msg_index), 1, DURABLE)
}

/// Keeps a page whose rows say whose they are.
fn keep(pages: &EncodedPages, head: &Arc<DurableHead>, by: &str, view: &View) -> Bytes {
    let rows = by.repeat(PAGE_BYTES_MIN).into_bytes();
    pages.keep(&Keep::new(head, view.shown), &user(by), rows)
}

fn found(pages: &EncodedPages, head: &DurableHead, by: &str, view: &View) -> Option<Bytes> {
    pages.find(&head.key, &user(by), view).map(|page| page.rows)
}

#[test]
fn a_page_is_found_by_the_reader_of_the_same_rows_and_shared() {
    let (pages, head) = (pages(), direct("a", "b"));
    assert_eq!(found(&pages, &head, "a", &view(1)), None);
    let kept = keep(&pages, &head, "a", &view(1));
    let rows = found(&pages, &head, "a", &view(1)).expect("it is kept");
    assert_eq!((rows.as_ptr(), rows.len()), (kept.as_ptr(), PAGE_BYTES_MIN));
}

#[test]
fn its_numbers_are_those_of_now() {
    let (pages, head) = (pages(), direct("a", "b"));
    // Messages behind the page, and older ones than the reader's, do not change its rows.
    keep(&pages, &head, "a", &view(20));
    let later = View::of(&pull(20), 5, Durable { messages: 900, ..DURABLE });
    let page = pages.find(&head.key, &user("a"), &later).expect("the same rows");
    assert_eq!((page.max_msg_index, page.max_recall_index), (900, 3));
    assert_eq!((page.min_msg_index, page.epoch), (5, EPOCH));
}

#[test]
fn other_rows_are_not_found() {
    let (pages, head) = (pages(), direct("a", "b"));
    keep(&pages, &head, "a", &view(60));
    let others = [
        ("another start", view(61)),
        ("messages that have come since", View::of(&pull(60), 1, Durable { messages: 101, ..DURABLE })),
        ("a reader who may see less", View::of(&pull(60), 61, DURABLE)),
        ("another count", View::of(&Pull { count: 2, ..pull(60) }, 1, DURABLE)),
        ("another direction", View::of(&Pull { direction: Direction::Before, ..pull(60) }, 1, DURABLE)),
        ("other recalls", View::of(&Pull { start_recall_index: 2, ..pull(60) }, 1, DURABLE)),
        ("a recall since", View::of(&pull(60), 1, Durable { recalls: 4, ..DURABLE })),
    ];
    for (what, other) in others {
        assert_eq!(found(&pages, &head, "a", &other), None, "{what}");
    }
    assert_eq!(found(&pages, &direct("a", "c"), "a", &view(60)), None, "another conversation");
    assert!(found(&pages, &head, "a", &view(60)).is_some());
}

#[test]
fn a_page_is_not_found_after_a_recall_also_by_who_asks_for_no_recalls() {
    let (pages, head, pull) = (pages(), direct("a", "b"), Pull { start_recall_index: 0, ..pull(1) });
    let before = View::of(&pull, 1, DURABLE);
    keep(&pages, &head, "a", &before);
    assert!(found(&pages, &head, "a", &before).is_some());
    let after = View::of(&pull, 1, Durable { recalls: 4, ..DURABLE });
    assert_eq!(found(&pages, &head, "a", &after), None);
}

#[test]
fn each_of_two_has_their_own_and_a_group_has_one_for_all() {
    let (pages, of_two) = (pages(), direct("a", "b"));
    keep(&pages, &of_two, "a", &view(1));
    assert_eq!(found(&pages, &of_two, "b", &view(1)), None);
    keep(&pages, &of_two, "b", &view(1));
    assert!(found(&pages, &of_two, "a", &view(1)).is_some_and(|rows| rows.starts_with(b"a")));
    assert!(found(&pages, &of_two, "b", &view(1)).is_some_and(|rows| rows.starts_with(b"b")));

    let of_one = direct("a", "a");
    keep(&pages, &of_one, "a", &view(1));
    assert!(found(&pages, &of_one, "a", &view(1)).is_some());

    let of_many = head(ConversationKey::Group(GroupId::parse("a").expect("an id")));
    assert_eq!(found(&pages, &of_many, "a", &view(1)), None, "the group's id is a user's as well");
    keep(&pages, &of_many, "c", &view(1));
    assert!(found(&pages, &of_many, "d", &view(1)).is_some());
}

#[test]
fn a_recall_forgets_what_all_readers_of_its_conversation_had() {
    let (pages, head, other) = (pages(), direct("a", "b"), direct("a", "c"));
    for (head, by) in [(&head, "a"), (&head, "b"), (&other, "a")] {
        keep(&pages, head, by, &view(1));
    }
    pages.forget(&head.key);
    assert_eq!(found(&pages, &head, "a", &view(1)), None);
    assert_eq!(found(&pages, &head, "b", &view(1)), None);
    assert!(found(&pages, &other, "a", &view(1)).is_some());
    assert_eq!(pages.kept.len(), 1);
}

#[test]
fn a_page_that_was_encoded_before_a_recall_is_not_kept_after_it() {
    let (pages, head) = (pages(), direct("a", "b"));
    let before = Keep::new(&head, view(1).shown);
    head.advance(Durable { recalls: 4, ..DURABLE }, 2);
    pages.forget(&head.key);
    let rows = pages.keep(&before, &user("a"), vec![b'x'; PAGE_BYTES_MIN]);
    assert_eq!(rows.len(), PAGE_BYTES_MIN, "whoever had asked before gets it");
    assert_eq!(pages.kept.len(), 0);
}

#[test]
fn a_conversation_stays_in_memory_until_its_page_is_kept() {
    let head = direct("a", "b");
    let keep = Keep::new(&head, view(1).shown);
    assert_eq!(head.in_flight(), 1);
    drop(keep);
    assert_eq!(head.in_flight(), 0);
}

#[test]
fn short_pages_are_not_kept() {
    let (pages, head) = (pages(), direct("a", "b"));
    let short = vec![b'x'; PAGE_BYTES_MIN - 1];
    assert_eq!(pages.keep(&Keep::new(&head, view(1).shown), &user("a"), short.clone()), short);
    assert_eq!(found(&pages, &head, "a", &view(1)), None);
}

#[test]
fn however_many_are_kept_they_stay_below_the_bound() {
    for bytes_max in [0, 100_000, 1 << 20] {
        let pages = EncodedPages::new(Options { bytes_max }, EPOCH);
        for number in 0..200 {
            let head = direct("a", &format!("peer-{number}"));
            let rows = vec![b'x'; PAGE_BYTES_MIN + number * 97];
            pages.keep(&Keep::new(&head, view(1).shown), &user("a"), rows);
            assert!(pages.kept.weight() <= bytes_max, "{} of {bytes_max}", pages.kept.weight());
        }
        assert_eq!(pages.kept.is_empty(), bytes_max == 0);
    }
}

#[test]
fn what_the_allocator_takes_is_counted() {
    for (bytes, taken) in [(1024, 1024), (1025, 1280), (15_600, 16_384), (16_384, 16_384), (16_385, 20_480)] {
        assert_eq!(allocated(bytes), taken);
    }
}
