//! The node's clock: monotonic, offset once to Unix time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::Time;

/// Reads the monotonic clock as a [`Time`].
///
/// Copies agree with one another: make one per process and hand it around. The offset to Unix time
/// is taken when the clock is made, so that later steps of the wall clock do not move [`Time`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    instant: Instant,
    time: Time,
}

impl Clock {
    /// A clock that starts at the wall clock's present time (the epoch, if the wall clock is before
    /// it).
    pub fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            instant: Instant::now(),
            time: Time::ZERO + since_epoch,
        }
    }

    /// The present.
    pub fn now(&self) -> Time {
        self.time + self.instant.elapsed()
    }

    /// The instant of `time`; `None` if the platform cannot represent it (years away).
    pub fn instant_of(&self, time: Time) -> Option<Instant> {
        if time >= self.time {
            self.instant.checked_add(time.since(self.time))
        } else {
            self.instant.checked_sub(self.time.since(time))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn copies_agree_and_never_run_backwards() {
        let clock = Clock::start();
        let copy = clock;
        let first = clock.now();
        let second = copy.now();
        assert!(second >= first);
        let later = first + Duration::from_secs(5);
        let ahead = clock
            .instant_of(later)
            .expect("five seconds are representable");
        assert!(ahead > Instant::now());
        assert_eq!(
            clock.instant_of(Time::MAX).is_some(),
            cfg!(target_os = "linux")
        );
    }
}
