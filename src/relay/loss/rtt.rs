//! Round-trip time of one session, smoothed, and the timers that follow from it.

use std::time::Duration;

use super::MAX_REPORT_DELAY;

/// The least probe time-out. A busy host answers some 20 ms late now and then; on a path of less than that,
/// every such pause would repeat sixteen datagrams that had arrived. It delays only what is lost at the very
/// end of a flight, and nothing on paths with round trips of 20 ms and more.
const MIN_PROBE_TIMEOUT: Duration = Duration::from_millis(25);

/// Granularity of timers, RFC 9002 section 6.1.2 (kGranularity).
const GRANULARITY: Duration = Duration::from_millis(1);

/// Round-trip time of a session: RFC 9002 section 5.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    smoothed: Duration,
    variation: Duration,
    min: Duration,
    latest: Duration,
    measured: bool,
}

impl Rtt {
    /// Assumed until measured. RFC 9002 takes 333 ms; here the path was validated by a round trip before
    /// anything is pushed, so this stands only between a session's first datagrams.
    const INITIAL: Duration = Duration::from_millis(100);

    pub(super) const fn new() -> Self {
        Self {
            smoothed: Self::INITIAL,
            variation: Duration::from_millis(50),
            min: Self::INITIAL,
            latest: Self::INITIAL,
            measured: false,
        }
    }

    /// Smoothed round-trip time.
    pub(crate) const fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// Mean deviation of the round-trip time.
    pub(crate) const fn variation(&self) -> Duration {
        self.variation
    }

    /// The least round-trip time of the session, the peer's delay included.
    pub(crate) const fn min(&self) -> Duration {
        self.min
    }

    /// The last sample.
    pub(crate) const fn latest(&self) -> Duration {
        self.latest
    }

    /// Whether any sample was taken; until then the values are assumptions.
    pub(crate) const fn is_measured(&self) -> bool {
        self.measured
    }

    /// RFC 9002 section 5.3, with `delay` as the peer reported it. A peer that overstates its delay cannot
    /// push the estimate below the least time ever seen.
    pub(super) fn sample(&mut self, raw: Duration, delay: Duration) {
        if !self.measured {
            self.measured = true;
            self.min = raw;
            self.latest = raw;
            self.smoothed = raw;
            self.variation = raw / 2;
            return;
        }
        self.min = self.min.min(raw);
        let adjusted = match raw.checked_sub(delay) {
            Some(adjusted) if adjusted >= self.min => adjusted,
            _ => raw,
        };
        self.latest = adjusted;
        let deviation = self.smoothed.abs_diff(adjusted);
        self.variation = (self.variation * 3 + deviation) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
    }

    /// RFC 9002 section 6.1.2: how long after it was sent a datagram counts as lost, once a later one
    /// was acknowledged.
    pub(super) fn loss_delay(&self) -> Duration {
        (self.smoothed.max(self.latest) * 9 / 8).max(GRANULARITY)
    }

    /// RFC 9002 section 6.2.1: the probe time-out before backing off.
    pub(crate) fn probe_timeout(&self) -> Duration {
        let timeout = self.smoothed + (self.variation * 4).max(GRANULARITY) + MAX_REPORT_DELAY;
        timeout.max(MIN_PROBE_TIMEOUT)
    }
}
