//! Fixed work whose instructions are counted, so that CI sees what got more expensive without looking at a clock.
//!
//! The cases stand beside what they measure, as tests named `counted::...`; each prepares, and calls [`measured`] once.
//! `.ci/instructions` runs them under valgrind, which counts what happens inside that function, and compares with
//! `benches/instructions.txt`. As plain tests they check that the work is done at all.

/// Makes the work so many per cent longer: the control that must be noticed.
const MORE_PERCENT: &str = "CHINWAG_COUNTED_MORE_PERCENT";

/// How often a case does its work.
pub(crate) fn rounds(count: usize) -> usize {
    let more = std::env::var(MORE_PERCENT).ok();
    let percent: usize = more.map_or(0, |text| text.parse().expect("a number of per cent"));
    count + count * percent / 100
}

/// Does the work that is counted. A function of its own, by whose name the counter is switched on and off.
#[inline(never)]
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}
