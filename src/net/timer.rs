//! Waiting for a deadline to within tens of microseconds.
//!
//! The timers of `tokio` count milliseconds and round up, which would add up to one millisecond to
//! every deadline: to the pacing of a flight, to every hop of an emulated link. On Linux this timer
//! is a `timerfd` in the same epoll set as the sockets; elsewhere it is a `tokio` timer.

use std::io;

use super::clock::Clock;
use crate::time::Time;

/// A timer that is set to a deadline, or to none, and waited for.
///
/// Setting it to what it is set to already costs no system call.
#[derive(Debug)]
pub struct Timer {
    clock: Clock,
    deadline: Option<Time>,
    inner: imp::Inner,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// Those of the system when it has no descriptor to give.
    ///
    /// # Panics
    /// Outside of a `tokio` runtime with I/O and time enabled.
    pub fn new(clock: Clock) -> io::Result<Self> {
        Ok(Self {
            clock,
            deadline: None,
            inner: imp::Inner::new()?,
        })
    }

    /// Replaces the deadline; `None` waits forever.
    ///
    /// # Errors
    /// Those of the system, none of which is expected of a valid timer.
    pub fn set(&mut self, deadline: Option<Time>) -> io::Result<()> {
        if self.deadline != deadline {
            self.deadline = deadline;
            self.inner.set(&self.clock, deadline)?;
        }
        Ok(())
    }

    /// Waits until the deadline has passed, and unsets it. Returns at once if it lies in the past;
    /// never returns while none is set. Cancel-safe.
    ///
    /// # Errors
    /// Those of the system, none of which is expected of a valid timer.
    pub async fn expired(&mut self) -> io::Result<()> {
        match self.deadline {
            None => std::future::pending().await,
            Some(deadline) => {
                if deadline > self.clock.now() {
                    self.inner.expired().await?;
                }
                self.set(None)
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use crate::net::clock::Clock;
    use crate::time::Time;

    #[derive(Debug)]
    pub(super) struct Inner(AsyncFd<OwnedFd>);

    impl Inner {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "sound with an OwnedFd, which lives as long as its registration; the \
                          replacement is unsafe"
            )]
            AsyncFd::new(descriptor).map(Self)
        }

        /// Arms the timer relative to now; a zero would disarm it, so one nanosecond is the least.
        pub(super) fn set(&mut self, clock: &Clock, deadline: Option<Time>) -> io::Result<()> {
            let wait = deadline.map_or(Duration::ZERO, |deadline| {
                deadline.since(clock.now()).max(Duration::from_nanos(1))
            });
            let value = Itimerspec {
                it_interval: timespec(Duration::ZERO),
                it_value: timespec(wait),
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &value)?;
            Ok(())
        }

        pub(super) async fn expired(&mut self) -> io::Result<()> {
            loop {
                let mut ready = self.0.readable().await?;
                let mut expirations = [0; 8];
                let read = ready.try_io(|descriptor| {
                    Ok(rustix::io::read(descriptor.get_ref(), &mut expirations)?)
                });
                match read {
                    Ok(read) => return read.map(drop),
                    Err(_would_block) => {}
                }
            }
        }
    }

    fn timespec(duration: Duration) -> Timespec {
        Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::pin::Pin;
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep_until};

    use crate::net::clock::Clock;
    use crate::time::Time;

    /// How far a deadline beyond what the platform can represent is put off: it is unset or replaced
    /// long before.
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

    #[derive(Debug)]
    pub(super) struct Inner(Pin<Box<Sleep>>);

    impl Inner {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(Box::pin(sleep_until(Instant::now()))))
        }

        pub(super) fn set(&mut self, clock: &Clock, deadline: Option<Time>) -> io::Result<()> {
            if let Some(deadline) = deadline {
                let instant = clock
                    .instant_of(deadline)
                    .map_or_else(|| Instant::now() + FAR, Instant::from_std);
                self.0.as_mut().reset(instant);
            }
            Ok(())
        }

        pub(super) async fn expired(&mut self) -> io::Result<()> {
            self.0.as_mut().await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn waits_for_the_deadline_and_not_before() {
        let clock = Clock::start();
        let mut timer = Timer::new(clock).expect("a descriptor is free");
        for microseconds in [0, 50, 300, 2_500] {
            let deadline = clock.now() + Duration::from_micros(microseconds);
            timer.set(Some(deadline)).expect("the timer is valid");
            timer.expired().await.expect("the timer is valid");
            assert!(clock.now() >= deadline);
        }
    }

    #[tokio::test]
    async fn is_silent_unless_set_and_can_be_moved() {
        let clock = Clock::start();
        let mut timer = Timer::new(clock).expect("a descriptor is free");
        let silence = Duration::from_millis(5);
        assert!(
            tokio::time::timeout(silence, timer.expired())
                .await
                .is_err()
        );
        timer.set(Some(clock.now())).expect("the timer is valid");
        timer.set(Some(Time::MAX)).expect("the timer is valid");
        assert!(
            tokio::time::timeout(silence, timer.expired())
                .await
                .is_err()
        );
        let deadline = clock.now() + Duration::from_millis(1);
        timer.set(Some(deadline)).expect("the timer is valid");
        timer.expired().await.expect("the timer is valid");
        assert!(clock.now() >= deadline);
        assert!(
            tokio::time::timeout(silence, timer.expired())
                .await
                .is_err()
        );
    }
}
