//! Waiting until a moment, to within tens of microseconds. The runtime's own timer counts in milliseconds, which is
//! longer than the latencies that are measured.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of the operating system.
pub(super) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Makes one. Has to be called on the runtime that waits for it.
    #[expect(
        deprecated,
        reason = "unsound only for types that lie about their descriptor, which OwnedFd cannot"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Returns at `moment`, at once if that is over.
    pub(super) async fn until(&self, moment: Instant) -> io::Result<()> {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let it_value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        let mut expirations = [0; 8];
        let read = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut expirations)?);
        self.0.async_io(Interest::READABLE, read).await.map(drop)
    }
}
