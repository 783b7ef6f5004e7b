//! Work in equal steps on all cores, its results in order.

use std::num::NonZero;
use std::sync::mpsc::sync_channel;
use std::thread;

/// Threads at most: each holds what its step reads in memory, and more of them read no disk quicker.
const THREADS_MAX: usize = 8;
/// Results of a thread that wait for those before them: so many steps may it be ahead of the others.
const RESULTS_MAX: usize = 16;

/// Does `work` for 0 up to below `steps`, and gives the results to `take` on this thread, in that order.
pub(super) fn side_by_side<T: Send>(steps: usize, work: impl Fn(usize) -> T + Sync, take: impl FnMut(T)) {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    on_threads(cores.min(THREADS_MAX).min(steps), steps, work, take);
}

fn on_threads<T: Send>(
    threads: usize,
    steps: usize,
    work: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(T),
) {
    if threads <= 1 {
        return (0..steps).map(work).for_each(take);
    }
    let work = &work;
    thread::scope(|scope| {
        let begin = |first| {
            let (done, results) = sync_channel(RESULTS_MAX);
            // Nobody waits for the rest when `take` panicked.
            let share = move || (first..steps).step_by(threads).all(|step| done.send(work(step)).is_ok());
            thread::Builder::new().spawn_scoped(scope, share).is_ok().then_some(results)
        };
        let results: Vec<_> = (0..threads).map(begin).collect();
        let in_order = (0..steps).map(|step| match &results[step % threads] {
            // One that panicked sends nothing more: the scope passes it on.
            Some(results) => results.recv().ok(),
            // The system has no thread to spare.
            None => Some(work(step)),
        });
        in_order.map_while(|result| result).for_each(&mut take);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_comes_once_and_in_order_on_any_number_of_threads() {
        for (threads, steps) in [(0, 0), (1, 1), (1, 5), (2, 2), (2, 1_000), (3, 100), (8, 9), (8, 500)] {
            let mut taken = Vec::new();
            on_threads(threads, steps, |step| step * 2, |result| taken.push(result));
            assert!(
                taken.into_iter().eq((0..steps).map(|step| step * 2)),
                "{threads} threads, {steps} steps"
            );
        }
    }

    #[test]
    fn a_panic_of_a_step_is_a_panic_of_all() {
        let all = || on_threads(2, 100, |step| assert_ne!(step, 50), |()| ());
        assert!(std::panic::catch_unwind(all).is_err());
        let taken = || on_threads(2, 100, |step| step, |result| assert_ne!(result, 50));
        assert!(std::panic::catch_unwind(taken).is_err());
    }
}
