//! A line of the log that others can cause: told at once, and then once a minute at most, with how many were like it.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long no second line like it is told: short enough to see that it goes on, and 1,440 lines a day at most.
const PAUSE: Duration = Duration::from_secs(60);

/// When such a line was told last, and how many were not told since.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<(Option<Instant>, u64)>);

/// How many lines were not told; shown at the end of the one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More(u64);

impl Quiet {
    /// Whether the line is to be told, and what to add to it.
    pub fn turn(&self) -> Option<More> {
        self.turn_at(Instant::now())
    }

    fn turn_at(&self, now: Instant) -> Option<More> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, missed) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            *missed += 1;
            return None;
        }
        *last = Some(now);
        Some(More(std::mem::take(missed)))
    }
}

impl fmt::Display for More {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(formatter, " (and {count} more like it)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_lines_one_a_minute_is_told_and_the_rest_counted() {
        let quiet = Quiet::default();
        let start = Instant::now();
        assert_eq!(quiet.turn_at(start), Some(More(0)));
        for second in 0..60 {
            assert_eq!(quiet.turn_at(start + Duration::from_secs(second)), None);
        }
        let next = start + PAUSE;
        let more = quiet.turn_at(next).expect("a minute has passed");
        assert_eq!(more.to_string(), " (and 60 more like it)");
        let last = quiet.turn_at(next + PAUSE).expect("and another");
        assert_eq!(last.to_string(), "");
    }
}
