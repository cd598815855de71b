//! What can be wrong with a scenario: where, and what to write instead.

use thiserror::Error;

/// A scenario that makes no sense. Its text is one line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{file}{}: {problem}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct ScenarioError {
    /// The file or the name of the scenario, as it was given.
    pub file: String,
    /// Counted from 1, where the fault has one.
    pub line: Option<usize>,
    /// The key, what is wrong, and what to write instead.
    pub problem: String,
}
