//! `sim swarm`: swarms side by side, and the command that repeats each that failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::runner::Progress;
use crate::cli::{SwarmOptions, print};
use crate::sim::{Swarm, SwarmReport};

/// Runs the swarms of the seeds that were asked for. The exit code says whether all of them held.
///
/// # Errors
///
/// If nothing can be printed.
pub fn swarm(options: &SwarmOptions) -> anyhow::Result<ExitCode> {
    let (from, to) = options.seeds;
    if options.show {
        for seed in from..to {
            print(&Swarm::draw(seed).scenario.to_toml())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let begun = Instant::now();
    let progress = Progress::new(!options.quiet);
    let reports = run_all(options, &progress);
    progress.clear();
    let failed = reports
        .iter()
        .filter(|report| !report.violations.is_empty())
        .count();
    let text = match options.json {
        true => format!("{:#}\n", json!(reports)),
        false => table(&reports, begun.elapsed().as_secs_f64()),
    };
    print(&text)?;
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn run_all(options: &SwarmOptions, progress: &Progress) -> Vec<SwarmReport> {
    let (from, to) = options.seeds;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.map_or(processors, usize::from);
    // Counted from 0: behind the last seeds that there are, a seed would come to be the first one again.
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicU64::new(0);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= to - from {
                return reports;
            }
            let seed = from + index;
            let report = run_one(seed);
            done.fetch_add(1, Ordering::Relaxed);
            if !report.violations.is_empty() {
                failed.fetch_add(1, Ordering::Relaxed);
                let first = report.violations.first().map_or("", String::as_str);
                progress.note(&format!("{}: {first}", command(seed)));
            }
            reports.push(report);
            progress.tell(|| {
                format!(
                    "{} of {} swarms done, {} failed",
                    done.load(Ordering::Relaxed),
                    to - from,
                    failed.load(Ordering::Relaxed)
                )
            });
        }
    };
    let mut reports: Vec<SwarmReport> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(reports) => reports,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    reports.sort_by_key(|report| report.seed);
    reports
}

/// Runs one swarm; a panic is something that must not happen, like others.
fn run_one(seed: u64) -> SwarmReport {
    let run = catch_unwind(AssertUnwindSafe(|| Swarm::draw(seed).run(&mut |_| {})));
    run.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        SwarmReport {
            seed,
            violations: vec![format!("panic: {}", text.unwrap_or("without a word"))],
            ..SwarmReport::default()
        }
    })
}

/// What repeats a swarm.
fn command(seed: u64) -> String {
    format!("blocktorrent sim swarm --seeds {seed}")
}

fn table(reports: &[SwarmReport], seconds: f64) -> String {
    let mut text = String::new();
    let failed: Vec<&SwarmReport> = reports
        .iter()
        .filter(|report| !report.violations.is_empty())
        .collect();
    for report in &failed {
        text.push_str(&format!(
            "failed: {} ({} nodes, adversaries {:?})\n",
            command(report.seed),
            report.nodes,
            report.adversaries
        ));
        for violation in &report.violations {
            text.push_str(&format!("  {violation}\n"));
        }
    }
    let sum = |of: fn(&SwarmReport) -> u64| reports.iter().map(of).sum::<u64>();
    let share = |report: &SwarmReport| report.took_ms / report.deadline_ms.max(1.0);
    let closest = reports
        .iter()
        .max_by(|one, other| share(one).total_cmp(&share(other)));
    text.push_str(&format!(
        "{} swarms of {} nodes, {} of them adversaries; {} happenings, {} frames of data compared, in {seconds:.0} s\n",
        reports.len(),
        sum(|report| report.nodes as u64),
        sum(|report| report.adversaries.len() as u64),
        sum(|report| report.happenings),
        sum(|report| report.compared),
    ));
    if let Some(report) = closest {
        text.push_str(&format!(
            "closest to its deadline: seed {}, {:.1} of {:.1} s\n",
            report.seed,
            report.took_ms / 1_000.0,
            report.deadline_ms / 1_000.0
        ));
    }
    text.push_str(&match failed.len() {
        0 => "all held\n".to_owned(),
        count => format!("{count} failed\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_change_nothing_and_a_failure_names_its_command() {
        let quiet = Progress::new(false);
        let run = |seeds, threads| {
            let options = SwarmOptions {
                seeds,
                threads: Some(threads),
                json: false,
                quiet: true,
                show: false,
            };
            run_all(&options, &quiet)
        };
        let mut reports = run((3, 7), 1);
        assert_eq!(reports, run((3, 7), 3));
        // The last seeds that there are, by more threads than seeds.
        let last: Vec<u64> = run((u64::MAX - 2, u64::MAX), 3)
            .iter()
            .map(|report| report.seed)
            .collect();
        assert_eq!(last, [u64::MAX - 2, u64::MAX - 1]);
        reports[2].violations.push("it burns".to_owned());
        let text = table(&reports, 1.0);
        assert!(text.contains("failed: blocktorrent sim swarm --seeds 5 ("));
        assert!(
            text.contains("  it burns\n") && text.ends_with("1 failed\n"),
            "{text}"
        );
    }
}
