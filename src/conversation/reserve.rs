//! A worker in reserve, for the time in which another one waits for a disk that hangs.
//!
//! Whoever commits in place keeps a thread of the runtime for as long as a sync takes. Where there is one worker, nobody
//! else would answer reads and health checks meanwhile. So the runtime has a thread more, which a task keeps asleep until a
//! commit takes too long; from then on it serves like the others, for good. Promises that a commit on a quick disk pays
//! a few stores for it, and that nothing waits behind the sleeping task. What is committed, and when, is none of its
//! business.
//!
//! Nothing waits behind it because the thread has never run anything else. Its going back to sleep would not be safe: tasks
//! that yielded, or used up their budget, are woken by the thread that they ran on and by no other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// From so long on a commit hangs: far beyond what a disk that works takes, because two threads that serve on two cores send
/// less than one, and hardly longer than somebody who reads waits gladly.
const HANGS_AFTER: Duration = Duration::from_millis(100);
/// How often the thread looks while there are commits.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After so many looks without a commit the thread sleeps until there is one: an idle node wakes nobody.
const LOOKS_IN_VAIN_MAX: u32 = 50;

/// The thread in reserve, for as long as this or a clone lives.
#[derive(Debug, Clone)]
pub struct Reserve(Arc<Kept>);

/// Dismisses the thread at the end: a runtime waits for its threads.
#[derive(Debug)]
struct Kept(Arc<Post>);

#[derive(Debug)]
struct Post {
    origin: Instant,
    /// When the commit under way began, in microseconds since the origin; 0 while there is none.
    began_us: AtomicU64,
    commits: AtomicU64,
    /// Whether the thread sleeps until it is woken, and does not look by itself.
    dozes: AtomicBool,
    is_dismissed: Mutex<bool>,
    changed: Condvar,
}

impl Reserve {
    /// Takes a thread of this runtime away; none where there is only one. To be called before anything else runs on the
    /// runtime, and not by a task of it: waits until the thread is taken, so that it takes up nothing else before.
    pub fn keep_one() -> Option<Self> {
        if Handle::current().metrics().num_workers() < 2 {
            return None;
        }
        let post = Arc::new(Post {
            origin: Instant::now(),
            began_us: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            dozes: AtomicBool::new(false),
            is_dismissed: Mutex::new(false),
            changed: Condvar::new(),
        });
        let kept = post.clone();
        let (taken, is_taken) = mpsc::channel();
        tokio::spawn(async move {
            let _ = taken.send(());
            kept.keep();
        });
        // It fails when the runtime ends already.
        let _ = is_taken.recv();
        Some(Self(Arc::new(Kept(post))))
    }

    /// Runs `commit`, which blocks; once it hangs, the thread in reserve takes the place of the caller's.
    pub(super) fn cover(&self, commit: impl FnOnce()) {
        let Kept(post) = &*self.0;
        post.begin();
        commit();
        post.began_us.store(0, Ordering::Release);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        *self.0.lock() = true;
        self.0.changed.notify_one();
    }
}

impl Post {
    fn now_us(&self) -> u64 {
        // Never 0, which says that there is none.
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn begin(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        // Before the look at `dozes`, as the thread looks at this after it said that it dozes: one of the two sees it.
        self.began_us.store(self.now_us(), Ordering::SeqCst);
        if self.dozes.load(Ordering::SeqCst) {
            let _lock = self.lock();
            self.dozes.store(false, Ordering::SeqCst);
            self.changed.notify_one();
        }
    }

    /// Keeps the thread that it runs on until a commit hangs or it is dismissed.
    fn keep(&self) {
        let (mut seen, mut looks_in_vain) = (0, 0);
        let mut is_dismissed = self.lock();
        while !*is_dismissed {
            if let Some(since) = self.hangs() {
                tracing::warn!(?since, "the disk hangs: one more thread serves from here on");
                return;
            }
            let commits = self.commits.load(Ordering::Relaxed);
            looks_in_vain = if commits == seen { looks_in_vain + 1 } else { 0 };
            seen = commits;
            is_dismissed = match looks_in_vain {
                LOOKS_IN_VAIN_MAX.. => self.doze(is_dismissed),
                _ => self.wait(is_dismissed),
            };
        }
    }

    /// For how long the commit under way has taken, once that is too long.
    fn hangs(&self) -> Option<Duration> {
        let began_us = self.began_us.load(Ordering::Acquire);
        let since = Duration::from_micros(self.now_us().saturating_sub(began_us));
        (began_us != 0 && since >= HANGS_AFTER).then_some(since)
    }

    fn wait<'a>(&self, lock: MutexGuard<'a, bool>) -> MutexGuard<'a, bool> {
        self.changed.wait_timeout(lock, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0
    }

    fn doze<'a>(&self, mut is_dismissed: MutexGuard<'a, bool>) -> MutexGuard<'a, bool> {
        self.dozes.store(true, Ordering::SeqCst);
        while self.dozes.load(Ordering::SeqCst) && self.began_us.load(Ordering::SeqCst) == 0 && !*is_dismissed
        {
            is_dismissed = self.changed.wait(is_dismissed).unwrap_or_else(PoisonError::into_inner);
        }
        self.dozes.store(false, Ordering::SeqCst);
        is_dismissed
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_dismissed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A thread that serves, and one in reserve.
    fn runtime() -> (tokio::runtime::Runtime, Reserve) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let inside = runtime.enter();
        let reserve = Reserve::keep_one().unwrap();
        drop(inside);
        (runtime, reserve)
    }

    /// A commit that ends only once another task of the runtime has run.
    fn hang(runtime: &tokio::runtime::Runtime, reserve: &Reserve) {
        let (begun, has_begun) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let covering = reserve.clone();
        let commit = runtime.spawn(async move {
            covering.cover(|| {
                begun.send(()).unwrap();
                ends.recv_timeout(PATIENCE).expect("nothing ran beside the commit");
            });
        });
        has_begun.recv_timeout(PATIENCE).unwrap();
        runtime.spawn(async move { end.send(()).unwrap() });
        runtime.block_on(commit).unwrap();
    }

    #[test]
    fn while_commits_hang_everything_else_goes_on() {
        let (runtime, reserve) = runtime();
        hang(&runtime, &reserve);
        hang(&runtime, &reserve);
    }

    #[test]
    fn also_after_it_dozed() {
        let (runtime, reserve) = runtime();
        let began = Instant::now();
        while !reserve.0.0.dozes.load(Ordering::SeqCst) {
            assert!(began.elapsed() < PATIENCE, "it never dozes");
            std::thread::yield_now();
        }
        hang(&runtime, &reserve);
    }

    #[test]
    fn tasks_that_yield_run_on_while_it_sleeps_and_after_it_was_called() {
        let (runtime, reserve) = runtime();
        let yields = || async {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        };
        for _ in 0..2 {
            let tasks: Vec<_> = (0..16).map(|_| runtime.spawn(yields())).collect();
            runtime.block_on(async {
                for task in tasks {
                    tokio::time::timeout(PATIENCE, task).await.expect("it goes on").unwrap();
                }
            });
            hang(&runtime, &reserve);
        }
    }

    #[test]
    fn a_runtime_ends_although_a_thread_of_it_is_kept() {
        let (runtime, reserve) = runtime();
        let owner = runtime.spawn(async move {
            let _reserve = reserve;
            std::future::pending::<()>().await;
        });
        drop(runtime);
        assert!(owner.is_finished());
    }

    #[tokio::test]
    async fn the_only_thread_is_never_kept() {
        assert!(Reserve::keep_one().is_none());
    }
}
