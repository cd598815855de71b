//! A queue in front of something with a rate: what waits, and what no longer fits.

use std::time::Duration;

use crate::time::Time;

/// When the last byte that was let in will have left.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateQueue {
    free_at: Time,
}

impl RateQueue {
    /// When `bytes` that come at `now` have left at `rate` bytes per second, `None` if they do not fit into `room` bytes
    /// beside those that wait. Without a rate they leave at once.
    pub fn pass(
        &mut self,
        now: Time,
        bytes: usize,
        rate: Option<u64>,
        room: Option<u64>,
    ) -> Option<Time> {
        let Some(rate) = rate.filter(|&rate| rate > 0) else {
            return Some(now);
        };
        let waits = (self.free_at - now).as_nanos() as u64;
        // In 64 bits as long as nothing waits for more than seconds; the rare rest in 128.
        let waiting = match waits.checked_mul(rate) {
            Some(product) => product / 1_000_000_000,
            None => (u128::from(waits) * u128::from(rate) / 1_000_000_000) as u64,
        };
        if room.is_some_and(|room| waiting.saturating_add(bytes as u64) > room) {
            return None;
        }
        let takes = (bytes as u64).saturating_mul(1_000_000_000).div_ceil(rate);
        self.free_at = self.free_at.max(now) + Duration::from_nanos(takes);
        Some(self.free_at)
    }
}
