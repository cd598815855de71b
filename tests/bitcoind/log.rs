//! The log of a process, read as it comes.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use super::harness::PATIENCE;

/// What a process has logged, and whether it still does.
#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    /// The log that comes out of `output`.
    pub fn of(output: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let shared = log.clone().0;
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                shared.lines.lock().expect("nobody panicked").0.push(line);
                shared.changed.notify_all();
            }
            shared.lines.lock().expect("nobody panicked").1 = true;
            shared.changed.notify_all();
        });
        log
    }

    /// Waits until there is a line with this text, and gives that line.
    pub fn wait(&self, text: &str) -> String {
        self.wait_for(1, text).remove(0)
    }

    /// Waits until there are so many lines with this text, and gives them.
    pub fn wait_for(&self, count: usize, text: &str) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.0.lines.lock().expect("nobody panicked");
        loop {
            let found: Vec<&String> = lines.0.iter().filter(|it| it.contains(text)).collect();
            if found.len() >= count {
                return found.into_iter().cloned().collect();
            }
            let left = until.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                drop(lines);
                panic!("not {count} times {text:?} in the log:\n{}", self.tail());
            }
            (lines, _) = self
                .0
                .changed
                .wait_timeout(lines, left)
                .expect("nobody panicked");
        }
    }

    /// The lines with this text so far.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        let lines = self.0.lines.lock().expect("nobody panicked");
        let found = lines.0.iter().filter(|line| line.contains(text));
        found.cloned().collect()
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        let lines = self.0.lines.lock().expect("nobody panicked");
        let start = lines.0.len().saturating_sub(60);
        lines.0[start..].join("\n")
    }
}
