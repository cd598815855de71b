//! When to try again: later each time, and never all at the same moment.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Doubles the wait from one failure to the next, between two bounds, with jitter of a quarter.
#[derive(Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
    dice: StdRng,
}

impl Backoff {
    /// Waits of `least` at first and `most` in the end, each up to a quarter shorter or longer.
    pub fn new(least: Duration, most: Duration, seed: u64) -> Self {
        Self {
            least,
            most,
            next: least,
            dice: StdRng::seed_from_u64(seed),
        }
    }

    /// How long to wait after one more failure.
    pub fn failed(&mut self) -> Duration {
        let wait = self.next.min(self.most);
        self.next = (wait * 2).min(self.most);
        let share: f64 = self.dice.random_range(0.75..1.25);
        wait.mul_f64(share)
    }

    /// It worked: the next failure counts as the first.
    pub fn succeeded(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_begin_anew() {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(least, most, 1);
        let mut middle = least;
        for _ in 0..20 {
            let wait = backoff.failed();
            assert!(wait >= middle.mul_f64(0.75) && wait <= middle.mul_f64(1.25));
            middle = (middle * 2).min(most);
        }
        backoff.succeeded();
        assert!(backoff.failed() <= least.mul_f64(1.25));
        let mut other = Backoff::new(least, most, 2);
        assert_ne!(Backoff::new(least, most, 1).failed(), other.failed());
    }
}
