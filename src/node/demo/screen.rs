//! What is to be seen while the demo runs: rows that fill, lines where stdout is no terminal, or nothing.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::paint::{Paint, letter};
use super::plan::Plan;
use super::progress::Progress;

/// Between two pictures: what the eye takes for motion.
const PICTURE_TIME: Duration = Duration::from_millis(33);
/// Columns beside the bar: node, frame, share, time, and a word.
const BESIDE: usize = 30;
/// The widest bar: the whole view then has 80 columns.
const WIDEST_BAR: usize = 50;

/// How the demo is shown.
#[derive(Debug)]
pub struct Screen {
    form: Form,
    paint: Paint,
    liars: Vec<bool>,
    status: String,
}

#[derive(Debug)]
enum Form {
    /// Rows that are drawn again and again.
    Live {
        drawn: usize,
        last: Option<Instant>,
        bar: usize,
    },
    /// A line for each step of a node: whether it has begun, and whether it is done.
    Lines { told: Vec<(bool, bool)> },
    /// Nothing.
    Silent,
}

impl Screen {
    /// The form that suits stdout, or none if there is to be JSON alone.
    pub fn new(plan: &Plan, json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        let form = if json {
            Form::Silent
        } else if terminal && rows > plan.nodes + 2 && columns > BESIDE + 10 {
            let bar = (columns - BESIDE).min(WIDEST_BAR);
            hide_cursor(true);
            Form::Live {
                drawn: 0,
                last: None,
                bar,
            }
        } else {
            Form::Lines {
                told: vec![(false, false); plan.nodes],
            }
        };
        Self {
            form,
            paint: Paint {
                colours: terminal
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            },
            liars: (0..plan.nodes).map(|node| !plan.is_honest(node)).collect(),
            status: String::new(),
        }
    }

    /// How to paint what stands below.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// Prints lines above or below the picture, which stays as it is.
    pub fn print(&mut self, text: &str) {
        if let Form::Live { drawn, .. } = &mut self.form {
            *drawn = 0;
        }
        if !matches!(self.form, Form::Silent) {
            print(text);
        }
    }

    /// Says what is being done.
    pub fn say(&mut self, status: &str, progress: &Progress) {
        status.clone_into(&mut self.status);
        match self.form {
            Form::Live { .. } => self.draw(progress),
            Form::Lines { .. } => print(&format!("{status}\n")),
            Form::Silent => {}
        }
    }

    /// When the next picture is due, if one is.
    pub fn next_picture(&self) -> Option<Duration> {
        match self.form {
            Form::Live { .. } => Some(PICTURE_TIME),
            _ => None,
        }
    }

    /// Shows how far the nodes are, and the status below rows, unless that was done just now.
    pub fn update(&mut self, status: &str, progress: &Progress) {
        match &mut self.form {
            Form::Live { last, .. } => {
                if last.is_none_or(|last| last.elapsed() >= PICTURE_TIME) {
                    status.clone_into(&mut self.status);
                    self.draw(progress);
                }
            }
            Form::Lines { told } => {
                let lines: String = told
                    .iter_mut()
                    .enumerate()
                    .map(|(node, told)| step(progress, node, told))
                    .collect();
                print(&lines);
            }
            Form::Silent => {}
        }
    }

    /// Shows how far the nodes are, for the last time.
    pub fn finish(&mut self, status: &str, progress: &Progress) {
        self.update(status, progress);
        status.clone_into(&mut self.status);
        match self.form {
            Form::Live { .. } => self.draw(progress),
            Form::Lines { .. } => print(&format!("{status}\n")),
            Form::Silent => {}
        }
    }

    fn draw(&mut self, progress: &Progress) {
        let Form::Live { drawn, last, bar } = &mut self.form else {
            return;
        };
        let mut picture = String::new();
        if *drawn > 0 {
            let _ = write!(picture, "\x1b[{drawn}A\r");
        }
        let nodes = progress.nodes().len();
        for node in 0..nodes {
            let lies = self.liars.get(node).copied().unwrap_or(false);
            picture.push_str(&row(self.paint, progress, node, lies, *bar));
            picture.push_str("\x1b[K\n");
        }
        let _ = writeln!(picture, "{}\x1b[K", self.paint.faint(&self.status));
        *drawn = nodes + 1;
        *last = Some(Instant::now());
        print(&picture);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if matches!(self.form, Form::Live { .. }) {
            hide_cursor(false);
        }
    }
}

/// A row of the live view.
fn row(paint: Paint, progress: &Progress, node: usize, lies: bool, bar: usize) -> String {
    let Some(here) = progress.nodes().get(node) else {
        return String::new();
    };
    let sign = match paint.colours {
        true => '●',
        false => letter(node),
    };
    let name = paint.node(node, &format!("{sign} {node:<2}"));
    let share = match here.chunks.len() {
        0 => "    ".to_owned(),
        chunks => format!("{:>3}%", here.filled() * 100 / chunks),
    };
    let time = match progress.since_handed_ms(here.complete_us) {
        Some(ms) if node > 0 => format!("{ms:>8.1} ms"),
        _ => " ".repeat(11),
    };
    let refused: u32 = here.refused.values().sum();
    let word = match (node, lies, refused) {
        (0, ..) => paint.faint("source"),
        (_, true, _) => paint.alarming("liar"),
        (_, _, 0) if !here.by_tcp().is_empty() => paint.faint("by TCP"),
        (_, _, 0) => String::new(),
        (_, _, refused) => paint.alarming(&format!("✗{refused}")),
    };
    format!(" {name} ▕{}▏{share}{time} {word}", paint.bar(here, bar))
}

/// The lines for what a node has done since it was last looked at.
fn step(progress: &Progress, node: usize, told: &mut (bool, bool)) -> String {
    let mut lines = String::new();
    let Some(here) = progress.nodes().get(node).filter(|_| node > 0) else {
        return lines;
    };
    if let (false, Some(ms)) = (told.0, progress.since_handed_ms(here.first_chunk_us)) {
        told.0 = true;
        let _ = writeln!(lines, "node {node}: first chunk after {ms:.1} ms");
    }
    if let (false, Some(ms)) = (told.1, progress.since_handed_ms(here.complete_us)) {
        told.1 = true;
        let _ = writeln!(lines, "node {node}: whole block after {ms:.1} ms");
    }
    lines
}

fn hide_cursor(hidden: bool) {
    print(if hidden { "\x1b[?25l" } else { "\x1b[?25h" });
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever watched may have left; the nodes are ended all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::super::message::News;
    use super::*;

    #[test]
    fn a_row_has_eighty_columns_at_most() {
        let mut progress = Progress::new(64, "ab");
        progress.handed_us = Some(0);
        let job = "ab".to_owned();
        progress.hear(63, 1, &News::Job { job, chunks: 20 });
        let job = "ab".to_owned();
        progress.hear(63, 99_999_900, &News::Complete { job, requests: 0 });
        let plain = Paint { colours: false };
        for (node, lies) in [(0, false), (5, false), (63, true)] {
            let row = row(plain, &progress, node, lies, WIDEST_BAR);
            assert!(row.chars().count() <= 80, "{row}");
        }
        let mut told = (false, false);
        let lines = step(&progress, 63, &mut told);
        assert_eq!(lines, "node 63: whole block after 99999.9 ms\n");
        assert_eq!(step(&progress, 63, &mut told), "");
    }
}
