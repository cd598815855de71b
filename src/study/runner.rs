//! Runs of different seeds side by side, and how far they are.

use std::io::{IsTerminal as _, Write as _};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::memory;
use super::source::Material;
use crate::sim::outcome::Outcome;
use crate::sim::protocol::{self, Protocol};
use crate::sim::scenario::ScenarioError;

/// Time between two lines of progress: often enough to see that it goes on, seldom enough for a log.
const EVERY: Duration = Duration::from_secs(2);

/// Tells on stderr which part of all runs begins, and, at most every two seconds, how far they are.
pub struct Progress {
    speaks: bool,
    on_terminal: bool,
    last: Mutex<Instant>,
    /// Which part of all this is, before what is told.
    part: Mutex<String>,
}

impl Progress {
    /// One that speaks, or not.
    pub fn new(speaks: bool) -> Self {
        Self {
            speaks,
            on_terminal: std::io::stderr().is_terminal(),
            last: Mutex::new(Instant::now()),
            part: Mutex::default(),
        }
    }

    /// Says which part of all begins, and what it is called. The part stands before what is told from now on.
    pub fn begin(&self, part: String, name: &str) {
        let line = format!("{part}: {name}");
        *self.part.lock().unwrap_or_else(PoisonError::into_inner) = part + ": ";
        if self.speaks {
            self.put(&line);
        }
    }

    /// Says a line that stays.
    pub fn note(&self, line: &str) {
        if self.speaks {
            self.clear();
            // That nobody reads there is no failure.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Says how far it is, unless that was said just now.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        // Whoever tells at this moment tells for all.
        let Ok(mut last) = self.last.try_lock() else {
            return;
        };
        if self.speaks && last.elapsed() >= EVERY {
            *last = Instant::now();
            let part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
            self.put(&format!("{part}{}", line()));
        }
    }

    /// Writes a line in place of the last.
    fn put(&self, line: &str) {
        // That nobody reads there is no failure.
        let _ = match self.on_terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
    }

    /// Takes the line away, before something else is printed.
    pub fn clear(&self) {
        if self.speaks && self.on_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// What runs may take of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    threads: NonZeroU32,
    memory: Option<u64>,
}

impl Effort {
    /// So many runs at the same time (`None`: one for each processor) in so many GB (`None`: what there is to spare).
    pub fn new(threads: Option<u16>, memory_gb: Option<f64>) -> Self {
        let given = threads.and_then(|threads| NonZeroU32::new(threads.into()));
        let processors = || {
            let processors = thread::available_parallelism().ok();
            processors.and_then(|count| NonZeroU32::try_from(NonZeroUsize::from(count)).ok())
        };
        Self {
            threads: given.or_else(processors).unwrap_or(NonZeroU32::MIN),
            memory: memory::limit(memory_gb),
        }
    }

    /// Runs at the same time.
    ///
    /// # Errors
    ///
    /// When there is not memory enough for one.
    pub fn threads_for(
        self,
        material: &Material,
        protocol: &dyn Protocol,
    ) -> Result<u32, ScenarioError> {
        let wanted = NonZeroU32::new(material.scenario.runs).unwrap_or(NonZeroU32::MIN);
        let wanted = wanted.min(self.threads);
        memory::side_by_side(material, protocol, wanted, self.memory).map(NonZeroU32::get)
    }
}

/// Runs every seed of a scenario with a protocol; the outcomes in order of their seeds.
///
/// # Errors
///
/// What only shows in a trial; too little memory.
pub fn run_all(
    material: &Material,
    protocol: &dyn Protocol,
    effort: Effort,
    progress: &Progress,
) -> Result<Vec<Outcome>, ScenarioError> {
    let count = material.scenario.runs;
    let threads = effort.threads_for(material, protocol)?;
    let next = AtomicU32::new(0);
    let done = AtomicU32::new(0);
    let work = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return results;
            }
            let result = run_one(material, protocol, index, progress, &done);
            let runs = 1 + done.fetch_add(1, Ordering::Relaxed);
            progress.tell(|| {
                let (scenario, protocol) = (&material.scenario.name, protocol.name());
                format!("{scenario}, {protocol}: {runs} of {count} runs done")
            });
            if result.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            results.push((index, result));
        }
    };
    let mut all: Vec<(u32, Result<Outcome, ScenarioError>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

fn run_one(
    material: &Material,
    protocol: &dyn Protocol,
    index: u32,
    progress: &Progress,
    done: &AtomicU32,
) -> Result<Outcome, ScenarioError> {
    let scenario = &material.scenario;
    let seed = scenario.seed.wrapping_add(u64::from(index));
    let trial = material.trial(seed)?;
    let begun = Instant::now();
    let mut watch = |at: &protocol::Progress| {
        progress.tell(|| {
            let speed = at.happenings as f64 / begun.elapsed().as_secs_f64().max(1e-3);
            format!(
                "{}, {}: {} of {} runs done; seed {seed} at {:.0} ms, {} of {} whole, {:.0} thousand happenings a second",
                scenario.name,
                protocol.name(),
                done.load(Ordering::Relaxed),
                scenario.runs,
                at.elapsed.as_secs_f64() * 1_000.0,
                at.whole,
                at.wanted,
                speed / 1_000.0
            )
        });
    };
    Ok(protocol.run(&trial, &mut watch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::protocol::Blocktorrent;

    #[test]
    fn threads_change_nothing_but_the_time() {
        let changes = [
            ("block.bytes", "20000"),
            ("runs", "6"),
            ("link.loss", "0.1"),
        ];
        let changes = changes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let material = Material::read("wild", &changes).expect("standard");
        let quiet = Progress::new(false);
        let alone =
            run_all(&material, &Blocktorrent, Effort::new(Some(1), None), &quiet).expect("runs");
        let together =
            run_all(&material, &Blocktorrent, Effort::new(Some(4), None), &quiet).expect("runs");
        assert_eq!(alone, together);
        let seeds: Vec<u64> = alone.iter().map(|run| run.seed).collect();
        assert_eq!(seeds, [1, 2, 3, 4, 5, 6]);
    }
}
