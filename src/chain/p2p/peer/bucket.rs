//! An allowance that refills with time.

use std::time::Duration;

use crate::time::Time;

/// Tokens that come at a rate, up to a capacity. It may be overdrawn once: what costs more than is left is
/// granted, and paid off before the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Thousandths of a token.
    level: i128,
    capacity: i128,
    /// Tokens a second, in thousandths.
    rate: i128,
    at: Time,
}

impl Bucket {
    /// A bucket with `level` tokens of at most `capacity`, which `per_1000_s` refill in 1,000 seconds.
    pub(super) fn new(level: u64, capacity: u64, per_1000_s: u64, now: Time) -> Self {
        Self {
            level: i128::from(level) * 1_000,
            capacity: i128::from(capacity) * 1_000,
            rate: i128::from(per_1000_s),
            at: now,
        }
    }

    pub(super) fn refill(&mut self, now: Time) {
        let nanos = now.since(self.at).as_nanos();
        self.at = self.at.max(now);
        if self.level < self.capacity {
            let gained = i128::try_from(nanos).unwrap_or(i128::MAX / self.rate.max(1)) * self.rate;
            self.level = (self.level + gained / 1_000_000_000).min(self.capacity);
        }
    }

    /// Whether anything is left.
    pub(super) fn is_open(&self) -> bool {
        self.level > 0
    }

    /// When something will be left again.
    pub(super) fn opens_at(&self) -> Time {
        if self.is_open() || self.rate == 0 {
            return self.at;
        }
        let millis = (1 - self.level) * 1_000 / self.rate + 1;
        self.at + Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Takes `tokens`, even if fewer are left.
    pub(super) fn draw(&mut self, tokens: u64) {
        self.level -= i128::from(tokens) * 1_000;
    }

    /// Takes as many of `tokens` as are whole and left, and says how many.
    pub(super) fn take(&mut self, tokens: u64) -> u64 {
        let left = u64::try_from(self.level / 1_000).unwrap_or(0);
        let taken = tokens.min(left);
        self.draw(taken);
        taken
    }

    /// Adds tokens, beyond the capacity too.
    pub(super) fn add(&mut self, tokens: u64) {
        self.level += i128::from(tokens) * 1_000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refills_at_its_rate_and_pays_off_what_was_overdrawn() {
        let start = Time::from_unix_seconds(1_000);
        let mut bucket = Bucket::new(10, 10, 2_000, start);
        bucket.draw(14);
        assert!(!bucket.is_open());
        let opens = bucket.opens_at();
        assert!(opens > start + Duration::from_secs(2));
        bucket.refill(opens);
        assert!(bucket.is_open());
        bucket.refill(start + Duration::from_secs(100));
        assert_eq!(bucket.take(99), 10);
        assert_eq!(bucket.take(99), 0);
        bucket.add(1_000);
        bucket.refill(start + Duration::from_secs(200));
        assert_eq!(bucket.take(2_000), 1_000);
    }
}
