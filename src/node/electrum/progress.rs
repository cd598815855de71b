//! How far the index is while it is behind: told to the log, not too often, and to who asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::electrum::store::follow::Progress;
use crate::electrum::store::load::LoadProgress;

/// Between two lines of the log.
const LINE_TIME: Duration = Duration::from_secs(5);

/// How far long work is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Building {
    /// What is counted.
    pub what: &'static str,
    /// Of these, done.
    pub done: u64,
    /// All of them.
    pub of: u64,
    /// How many in a second, since this began.
    pub per_second: f64,
    /// How long the rest of it takes at that rate, once there is one.
    pub seconds_left: Option<f64>,
}

/// The work under way, if there is any that takes long.
#[derive(Clone, Debug, Default)]
pub struct SharedProgress(Arc<Mutex<Option<Building>>>);

impl SharedProgress {
    /// How far it is.
    pub fn current(&self) -> Option<Building> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Building>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of one stretch of work. It is over when this is dropped.
pub struct Lines {
    shared: SharedProgress,
    stretch: Mutex<Stretch>,
}

/// What is counted at present, and where that began.
struct Stretch {
    what: &'static str,
    began: Instant,
    first: u64,
    line: Instant,
}

impl Lines {
    /// Begins.
    pub fn new(shared: SharedProgress) -> Self {
        let now = Instant::now();
        let stretch = Mutex::new(Stretch {
            what: "",
            began: now,
            first: 0,
            line: now,
        });
        Self { shared, stretch }
    }

    /// Takes note of how far it is. Several threads may.
    pub fn tell(&self, progress: Progress) {
        let (what, done, of) = numbers(progress);
        let now = Instant::now();
        let mut stretch = self.stretch.lock().unwrap_or_else(PoisonError::into_inner);
        let building = stretch.measure(what, done, of, now);
        *self.shared.lock() = Some(building);
        if now - stretch.line < LINE_TIME {
            return;
        }
        stretch.line = now;
        let rate = building.per_second;
        let left = building.seconds_left.unwrap_or(f64::INFINITY);
        tracing::info!(
            "Electrum index: {done} of {of} {what}, {rate:.0} a second, about {left:.0} s left of this"
        );
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        *self.shared.lock() = None;
    }
}

impl Stretch {
    /// The rate is that of what is counted now, from where its count began: blocks begin at the height that the index is at.
    fn measure(&mut self, what: &'static str, done: u64, of: u64, now: Instant) -> Building {
        if self.what != what {
            (self.what, self.began, self.first) = (what, now, done);
        }
        let seconds = (now - self.began).as_secs_f64();
        let per_second = done.saturating_sub(self.first) as f64 / seconds.max(0.001);
        Building {
            what,
            done,
            of,
            per_second,
            seconds_left: (per_second > 0.0).then(|| of.saturating_sub(done) as f64 / per_second),
        }
    }
}

fn numbers(progress: Progress) -> (&'static str, u64, u64) {
    match progress {
        Progress::Survey { files, of } => ("block files seen", files as u64, of as u64),
        Progress::Load(LoadProgress::Reading { bytes, of }) => {
            ("MB of blocks read", bytes / 1_000_000, of / 1_000_000)
        }
        Progress::Load(LoadProgress::Writing { buckets, of }) => {
            ("parts of the index written", buckets as u64, of as u64)
        }
        Progress::Blocks { height, of } => ("blocks", height.into(), of.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_what_is_counted_since_its_count_began() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut stretch = Stretch {
            what: "",
            began: now,
            first: 0,
            line: now,
        };
        stretch.measure("block files seen", 5_000, 5_000, now + 10 * second);
        stretch.measure("blocks", 800_000, 800_100, now + 20 * second);
        let building = stretch.measure("blocks", 800_020, 800_100, now + 22 * second);
        assert_eq!(
            (building.per_second, building.seconds_left),
            (10.0, Some(8.0))
        );
    }

    #[test]
    fn what_is_over_is_told_no_more() {
        let shared = SharedProgress::default();
        let lines = Lines::new(shared.clone());
        assert_eq!(shared.current(), None);
        lines.tell(Progress::Survey { files: 1, of: 3 });
        assert_eq!(shared.current().map(|it| (it.done, it.of)), Some((1, 3)));
        drop(lines);
        assert_eq!(shared.current(), None);
    }
}
