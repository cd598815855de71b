//! Time as an argument: a point on a line of nanoseconds, made by whoever drives the code.
//!
//! Nothing in the pure modules reads a clock. The node adds its monotonic clock to the Unix time it
//! started at; the simulator counts from wherever it likes. What this is not: a calendar.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: nanoseconds since the Unix epoch (good until the year 2554).
///
/// It never runs backwards within one run of a program: the node takes it from the monotonic clock,
/// offset once to Unix time, so it may drift from the wall clock by the machine's clock error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);
    /// Later than every other point.
    pub const MAX: Self = Self(u64::MAX);

    /// The point that lies `nanoseconds` after the Unix epoch.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// The point that lies `seconds` after the Unix epoch, at most [`Time::MAX`].
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, as block headers count them.
    pub const fn as_unix_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long after `earlier` this point lies; zero if it does not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanoseconds))
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(Time::MAX + second, Time::MAX);
        assert_eq!(Time::ZERO - second, Time::ZERO);
        assert_eq!(Time::ZERO - Time::MAX, Duration::ZERO);
        assert_eq!(
            Time::from_unix_seconds(7) - Time::from_unix_seconds(5),
            Duration::from_secs(2)
        );
    }

    #[test]
    fn seconds_are_those_of_a_header() {
        assert_eq!(
            Time::from_nanos(1_632_966_999_999_999_999).as_unix_seconds(),
            1_632_966_999
        );
        assert_eq!(Time::from_unix_seconds(3).to_string(), "3.000000000");
    }
}
