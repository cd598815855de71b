//! The composition root: the only place where the slices of the crate meet.

pub mod datadir;
pub mod engine;
pub mod files;
pub mod headers;
pub mod store;

use std::process::ExitCode;

use crate::cli::{CallOptions, DemoOptions};
use crate::config::Options;

/// Runs a node until it is told to stop.
///
/// # Errors
///
/// One line that says what to do.
pub fn run(options: Options) -> anyhow::Result<()> {
    let _ = options;
    anyhow::bail!("the node is still being built")
}

/// Calls a running node.
///
/// # Errors
///
/// One line that says what to do.
pub fn call(options: &CallOptions) -> anyhow::Result<ExitCode> {
    let _ = options;
    anyhow::bail!("the client is still being built")
}

/// Runs the demo.
///
/// # Errors
///
/// One line that says what to do.
pub fn demo(options: &DemoOptions) -> anyhow::Result<ExitCode> {
    let _ = options;
    anyhow::bail!("the demo is still being built")
}
