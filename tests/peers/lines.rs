//! What a process writes, line by line, and who waits for a line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take, on a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The lines of one process, from its start.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    lines: Vec<String>,
    is_over: bool,
}

impl Lines {
    /// Reads until the process closes its end.
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                let (state, changed) = &*shared.0;
                state.lock().expect("nobody panicked").lines.push(text);
                changed.notify_all();
            }
            let (state, changed) = &*shared.0;
            state.lock().expect("nobody panicked").is_over = true;
            changed.notify_all();
        });
        lines
    }

    /// Waits for a line from the one with number `from` on of which `pick` makes something, and gives that and the
    /// number of the next line; `None` if none comes.
    pub fn wait<T>(
        &self,
        from: usize,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<(T, usize)> {
        let until = Instant::now() + PATIENCE;
        let (state, changed) = &*self.0;
        let mut state = state.lock().expect("nobody panicked");
        let mut next = from;
        loop {
            while let Some(line) = state.lines.get(next) {
                next += 1;
                if let Some(picked) = pick(line) {
                    return Some((picked, next));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.is_over || left.is_zero() {
                return None;
            }
            let waited = changed.wait_timeout(state, left);
            state = waited.expect("nobody panicked").0;
        }
    }

    /// Shows the lines that there are.
    pub fn show(&self, show: impl FnMut(&str)) {
        let state = self.0.0.lock().expect("nobody panicked");
        state.lines.iter().map(String::as_str).for_each(show);
    }

    /// Waits until the process has closed its end, and gives all lines.
    pub fn all(&self) -> Vec<String> {
        let (state, changed) = &*self.0;
        let mut state = state.lock().expect("nobody panicked");
        while !state.is_over {
            let waited = changed.wait_timeout(state, PATIENCE);
            let (again, timeout) = waited.expect("nobody panicked");
            state = again;
            assert!(!timeout.timed_out(), "the process does not end");
        }
        state.lines.clone()
    }

    /// The last of them.
    pub fn tail(&self) -> String {
        let state = self.0.0.lock().expect("nobody panicked");
        let start = state.lines.len().saturating_sub(60);
        state.lines[start..].join("\n")
    }
}
