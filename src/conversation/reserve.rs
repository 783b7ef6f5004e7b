//! A worker in reserve, for the time in which another one waits for a disk that hangs.
//!
//! Whoever commits in place keeps a thread of the runtime for as long as a sync takes. Where there is one worker, nobody
//! else would answer reads and health checks meanwhile. So the runtime has a thread more, which a task keeps asleep until a
//! commit takes too long. Promises that a commit on a quick disk pays a few stores for it, that a thread that was
//! called sleeps again only once there is little to do, and that nothing waits behind the sleeping task.
//! What is committed, and when, is none of its business.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// From so long on a commit hangs. Ten times what the log calls quick, and less than anybody notices who reads.
const HANGS_AFTER: Duration = Duration::from_millis(10);
/// After so many looks without a commit the thread sleeps until there is one: an idle node wakes nobody.
const LOOKS_IN_VAIN_MAX: u32 = 100;
/// Over so long all workers together were busy for less than half of it, when one is sent back: then the others run out
/// of work all the time, and take what it had still to do.
const CALM_PERIOD: Duration = Duration::from_secs(1);

/// The thread in reserve, for as long as this lives.
pub(super) struct Reserve(Arc<Post>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stance {
    /// The thread sleeps, or soon does.
    Kept,
    /// It serves like the others.
    Called,
    Dismissed,
}

struct Post {
    origin: Instant,
    /// When the commit under way began, in microseconds since the origin; 0 while there is none.
    began_us: AtomicU64,
    commits: AtomicU64,
    /// Whether the thread sleeps until it is woken, and does not look by itself.
    dozes: AtomicBool,
    stance: Mutex<Stance>,
    changed: Condvar,
}

impl Reserve {
    /// Takes a thread of this runtime away; none where there is only one.
    pub(super) fn keep_one() -> Option<Self> {
        if Handle::current().metrics().num_workers() < 2 {
            return None;
        }
        let post = Arc::new(Post {
            origin: Instant::now(),
            began_us: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            dozes: AtomicBool::new(false),
            stance: Mutex::new(Stance::Kept),
            changed: Condvar::new(),
        });
        let kept = post.clone();
        tokio::spawn(async move { kept.keep() });
        Some(Self(post))
    }

    /// Runs `commit`, which blocks; while it hangs, the thread in reserve takes the place of the caller's.
    pub(super) fn cover(&self, commit: impl FnOnce()) {
        let post = &self.0;
        post.begin();
        commit();
        post.began_us.store(0, Ordering::Release);
        // The lock is the thread's while it looks, which is no reason to wait for it: the next commit finds it then.
        if let Ok(mut stance) = post.stance.try_lock()
            && *stance == Stance::Called
        {
            *stance = Stance::Kept;
            let kept = post.clone();
            tokio::spawn(async move {
                until_calm().await;
                kept.keep();
            });
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        *self.0.lock() = Stance::Dismissed;
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
            let _stance = self.lock();
            self.dozes.store(false, Ordering::SeqCst);
            self.changed.notify_one();
        }
    }

    /// Keeps the thread that it runs on until it is called or dismissed.
    fn keep(&self) {
        leave_nothing_behind();
        let (mut seen, mut looks_in_vain) = (0, 0);
        let mut stance = self.lock();
        while *stance == Stance::Kept {
            if self.hangs() {
                *stance = Stance::Called;
                return;
            }
            let commits = self.commits.load(Ordering::Relaxed);
            looks_in_vain = if commits == seen { looks_in_vain + 1 } else { 0 };
            seen = commits;
            stance = match looks_in_vain {
                LOOKS_IN_VAIN_MAX.. => self.doze(stance),
                _ => self.wait(stance),
            };
        }
    }

    fn hangs(&self) -> bool {
        let began_us = self.began_us.load(Ordering::Acquire);
        began_us != 0 && u128::from(self.now_us().saturating_sub(began_us)) >= HANGS_AFTER.as_micros()
    }

    fn wait<'a>(&self, stance: MutexGuard<'a, Stance>) -> MutexGuard<'a, Stance> {
        self.changed.wait_timeout(stance, HANGS_AFTER).unwrap_or_else(PoisonError::into_inner).0
    }

    fn doze<'a>(&self, mut stance: MutexGuard<'a, Stance>) -> MutexGuard<'a, Stance> {
        self.dozes.store(true, Ordering::SeqCst);
        while self.dozes.load(Ordering::SeqCst)
            && self.began_us.load(Ordering::SeqCst) == 0
            && *stance == Stance::Kept
        {
            stance = self.changed.wait(stance).unwrap_or_else(PoisonError::into_inner);
        }
        self.dozes.store(false, Ordering::SeqCst);
        stance
    }

    fn lock(&self) -> MutexGuard<'_, Stance> {
        self.stance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes another thread of the runtime, from outside of it: that one takes what waits on this thread, and waits for the
/// network in its place, before it sleeps again.
fn leave_nothing_behind() {
    let runtime = Handle::current();
    // Of its end nobody needs to know.
    drop(runtime.clone().spawn_blocking(move || drop(runtime.spawn(async {}))));
}

async fn until_calm() {
    let metrics = Handle::current().metrics();
    let busy = || (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum();
    let mut before: Duration = busy();
    loop {
        tokio::time::sleep(CALM_PERIOD).await;
        let now = busy();
        if now.saturating_sub(before) < CALM_PERIOD / 2 {
            return;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A thread that serves, and one in reserve.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn keep_one(runtime: &tokio::runtime::Runtime) -> Reserve {
        let _inside = runtime.enter();
        Reserve::keep_one().unwrap()
    }

    /// A commit that ends only once another task of the runtime has run.
    fn hang(runtime: &tokio::runtime::Runtime, reserve: &Arc<Reserve>) {
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

    fn wait_for(reserve: &Reserve, wanted: Stance) {
        let began = Instant::now();
        while *reserve.0.lock() != wanted {
            assert!(began.elapsed() < PATIENCE, "never {wanted:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn while_a_commit_hangs_everything_else_goes_on() {
        let runtime = runtime();
        let reserve = Arc::new(keep_one(&runtime));
        hang(&runtime, &reserve);
    }

    #[test]
    fn it_does_so_each_time_also_after_it_dozed() {
        let runtime = runtime();
        let reserve = Arc::new(keep_one(&runtime));
        for _ in 0..2 {
            let began = Instant::now();
            while !reserve.0.dozes.load(Ordering::SeqCst) {
                assert!(began.elapsed() < PATIENCE, "it never dozes");
                std::thread::yield_now();
            }
            hang(&runtime, &reserve);
        }
    }

    #[test]
    fn quick_commits_call_nobody() {
        let runtime = runtime();
        let reserve = Arc::new(keep_one(&runtime));
        let covering = reserve.clone();
        let commits = runtime.spawn(async move {
            for _ in 0..1000 {
                covering.cover(|| ());
                tokio::task::yield_now().await;
            }
        });
        runtime.block_on(commits).unwrap();
        assert_eq!(*reserve.0.lock(), Stance::Kept);
        assert_eq!(reserve.0.commits.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn a_runtime_ends_although_a_thread_of_it_is_kept() {
        let runtime = runtime();
        let reserve = keep_one(&runtime);
        let owner = runtime.spawn(async move {
            let _reserve = reserve;
            std::future::pending::<()>().await;
        });
        drop(runtime);
        assert!(owner.is_finished());
    }

    #[test]
    fn whoever_was_called_and_dismissed_stays_dismissed() {
        let runtime = runtime();
        let reserve = Arc::new(keep_one(&runtime));
        hang(&runtime, &reserve);
        let post = reserve.0.clone();
        wait_for(&reserve, Stance::Kept);
        drop(reserve);
        assert_eq!(*post.lock(), Stance::Dismissed);
    }

    #[tokio::test]
    async fn the_only_thread_is_never_kept() {
        assert!(Reserve::keep_one().is_none());
    }
}
