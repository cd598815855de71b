//! Lines on their way to stderr. Whoever logs waits for no reader, and fails with none.
//!
//! A terminal that was stopped, a pipe that nobody reads, a full disk, a reader that has left: none of them
//! may hold the engine or an answer up. So one thread writes, from a bounded queue; what finds it full is
//! lost, and counted in a line of its own.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written. With some 150 bytes each that is half a megabyte; a block that is relayed
/// makes some ten lines, so only a reader that is stuck meets this bound.
pub const MAX_LINES: usize = 4_096;
/// How long what waits at the end may take to be written: a reader that is there takes it at once.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The queue. Clones are the same queue.
#[derive(Clone, Debug, Default)]
pub struct LineQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Lines that found no room since the last one that did.
    lost: u64,
    /// Whether the thread is writing what it took.
    writing: bool,
}

impl LineQueue {
    /// A queue, and the thread that writes it to `out` for as long as the process lives.
    ///
    /// # Errors
    ///
    /// The system has no thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self::default();
        let lines = queue.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || lines.write_to(out))?;
        Ok(queue)
    }

    fn push(&self, line: Vec<u8>) {
        let mut state = self.state();
        if state.lines.len() >= MAX_LINES {
            state.lost += 1;
            return;
        }
        if state.lost > 0 {
            let lost = mem::take(&mut state.lost);
            let told = format!("{lost} lines of the log were lost, for nobody read them\n");
            state.lines.push_back(told.into_bytes());
        }
        state.lines.push_back(line);
        self.0.filled.notify_one();
    }

    fn write_to(&self, mut out: impl Write) {
        loop {
            let lines = {
                let state = self.state();
                let waited = self
                    .0
                    .filled
                    .wait_while(state, |state| state.lines.is_empty());
                let mut state = waited.unwrap_or_else(PoisonError::into_inner);
                state.writing = true;
                mem::take(&mut state.lines)
            };
            for line in lines {
                // Whoever does not take the log has none; the node goes on.
                let _ = out.write_all(&line);
            }
            let _ = out.flush();
            self.state().writing = false;
            self.0.emptied.notify_all();
        }
    }

    /// Waits until what was logged is written, for a while at most.
    fn flush(&self) {
        let busy = |state: &mut State| state.writing || !state.lines.is_empty();
        let waited = self
            .0
            .emptied
            .wait_timeout_while(self.state(), FLUSH_TIME, busy);
        drop(waited);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every statement leaves the state whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            bytes: Vec::new(),
            queue: self.clone(),
        }
    }
}

/// A line that is being made; dropped, it is queued.
#[derive(Debug)]
pub struct Line {
    bytes: Vec<u8>,
    queue: LineQueue,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.queue.push(mem::take(&mut self.bytes));
        }
    }
}

/// Dropped at the end, it waits for what was logged to be written.
#[derive(Debug)]
#[must_use = "dropped at once, it waits for nothing that comes later"]
pub struct FlushAtEnd(pub LineQueue);

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes a line when it is told to.
    struct Slow {
        turns: mpsc::Receiver<()>,
        taken: mpsc::Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turns.recv().map_err(io::Error::other)?;
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.taken.send(text).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_stuck_and_what_is_lost_is_told() {
        let (turn, turns) = mpsc::channel();
        let (taken, lines) = mpsc::channel();
        let queue = LineQueue::start(Slow { turns, taken }).unwrap();
        let log = |number: usize| writeln!(queue.make_writer(), "{number}").unwrap();
        log(0);
        // The thread has the first and waits with it.
        turn.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), "0\n");
        let settle = || {
            let is_busy = |state: &State| state.writing || !state.lines.is_empty();
            // Each wait ends when all is written, or after a while on a machine that is busy.
            while is_busy(&queue.state()) {
                queue.flush();
            }
        };
        let after = MAX_LINES * 3;
        (1..after).for_each(log);
        for _ in 0..after {
            turn.send(()).unwrap();
        }
        settle();
        log(after);
        settle();
        let told: Vec<String> = lines.try_iter().collect();
        let (last, others) = told.split_last().unwrap();
        assert_eq!(*last, format!("{after}\n"));
        // When the thread took what had waited while more was lost, that was told in between.
        let suffix = " lines of the log were lost, for nobody read them\n";
        let (losses, written): (Vec<_>, Vec<_>) =
            others.iter().partition(|line| line.ends_with(suffix));
        let lost: usize = losses
            .iter()
            .map(|line| line.strip_suffix(suffix).unwrap().parse::<usize>().unwrap())
            .sum();
        assert!(lost > 0);
        assert_eq!(written.len() + lost, after - 1);
        assert!((MAX_LINES..=2 * MAX_LINES).contains(&written.len()));
    }

    #[test]
    fn a_reader_that_has_left_is_no_failure() {
        let (turn, turns) = mpsc::channel();
        let (taken, lines) = mpsc::channel();
        drop((turn, lines));
        let queue = LineQueue::start(Slow { turns, taken }).unwrap();
        for _ in 0..10 {
            writeln!(queue.make_writer(), "lost").unwrap();
        }
        drop(FlushAtEnd(queue));
    }
}
