//! What can be wrong with a scenario: where, and what to write instead.

use thiserror::Error;

/// A scenario that makes no sense. Its text is one line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}{problem}", place(.file, *.line))]
pub struct ScenarioError {
    /// The file or the name of the scenario, as it was given; empty if the command line is at fault.
    pub file: String,
    /// Counted from 1, where the fault has one.
    pub line: Option<usize>,
    /// The key, what is wrong, and what to write instead.
    pub problem: String,
}

fn place(file: &str, line: Option<usize>) -> String {
    match (file, line) {
        ("", _) => String::new(),
        (file, None) => format!("{file}: "),
        (file, Some(line)) => format!("{file}, line {line}: "),
    }
}
