//! Where there is no lab: any system but Linux.

use std::process::ExitCode;

use crate::cli::LabOptions;

/// Says that there is no lab here.
///
/// # Errors
///
/// Always.
pub fn lab(_: &LabOptions) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "the lab needs Linux's network namespaces; `blocktorrent sim run` runs the same scenarios anywhere"
    )
}
