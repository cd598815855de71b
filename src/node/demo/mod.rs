//! `blocktorrent demo`: a real block crosses several nodes of this program, as processes on this machine.
//!
//! ```text
//!   plan, block ──▶ fleet: start ─▶ ready ─▶ warm ─▶ join ─▶ quiet ─▶ hand the block over
//!                     │ a pipe from each node: lines of JSON                │
//!                     ▼                                                     ▼
//!                   progress ──▶ screen (rows that fill)      report ──▶ table or JSON, exit code
//! ```
//!
//! - [`plan`]: who is connected to whom, who lies, the bound; [`block`]: the block, and what makes nodes take it
//! - [`folder`], [`child`], [`fleet`]: files and processes; [`rpc`]: calls; [`message`]: lines that nodes write
//! - [`interrupts`]: the signals that end it
//! - [`progress`]: how far each node is; [`paint`], [`screen`]: how that looks; [`report`], [`table`]: what came of it
//!
//! Progress is told by the nodes, never asked for. Whatever way the demo ends, its nodes end: they are asked to,
//! killed after a while, and stop by themselves once the pipe to their stdin is gone.
//! What this is not: a simulation. Clocks, sockets and processes are real, and share this machine's processors.

pub mod block;
pub mod child;
pub mod fleet;
pub mod folder;
pub mod interrupts;
pub mod message;
pub mod paint;
pub mod plan;
pub mod progress;
pub mod report;
pub mod rpc;
pub mod screen;
pub mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::block::DemoBlock;
use self::fleet::Fleet;
use self::folder::Folder;
use self::interrupts::Interrupts;
use self::paint::grouped;
use self::plan::{Links, Plan};
use self::progress::Progress;
use self::report::Report;
use self::screen::Screen;
use crate::cli::{DemoOptions, LinkKind, Topology, complain, print};
use crate::net::Clock;

/// The least time that the block is given to reach all.
const LEAST_TIME: Duration = Duration::from_secs(30);
/// How much longer than the bound the block is given.
const PATIENCE: f64 = 10.0;
/// How long all nodes together may take to say what they hold, at the end.
const GATHER_TIME: Duration = Duration::from_secs(30);
/// Lines of each log that are shown after a failure.
const LOG_LINES: usize = 3;

/// Runs the demo. The exit code says whether every honest node holds the identical block.
///
/// # Errors
///
/// One line that says what to do.
pub fn run(options: &DemoOptions) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(options)?;
    let block = DemoBlock::load(options.block.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("can't start threads")?;
    let mut interrupts = {
        let _context = runtime.enter();
        Interrupts::watch()?
    };
    let mut folder = Folder::new("demo", options.keep)?;
    let outcome = runtime.block_on(async {
        let mut screen = Screen::new(&plan, options.json);
        let mut fleet = Fleet::start(folder.path(), options, &plan, &block)?;
        let demo = Demo {
            options,
            plan: &plan,
            block: &block,
        };
        let outcome = tokio::select! {
            outcome = demo.play(&mut fleet, &mut screen) => Ok(outcome),
            code = interrupts.first() => Err(code),
        };
        fleet.end().await;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(code) => {
                screen.print("\ninterrupted\n");
                return Ok(ExitCode::from(code));
            }
        };
        if !outcome.as_ref().is_ok_and(|report| report.all_complete) {
            folder.keep();
            show_logs(&fleet);
        }
        if folder.is_kept() {
            complain(&format!(
                "the nodes' folders and logs are in {}",
                folder.path().display()
            ));
        }
        let report = outcome?;
        match options.json {
            true => print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
            false => screen.print(&table::table(&report, screen.paint())),
        }
        Ok(match report.all_complete {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    });
    // A call to a node that hung may still be waiting.
    runtime.shutdown_background();
    outcome
}

/// What one demo is made of.
struct Demo<'a> {
    options: &'a DemoOptions,
    plan: &'a Plan,
    block: &'a DemoBlock,
}

impl Demo<'_> {
    /// The whole of it, from nodes that have just been started to what came of it.
    async fn play(&self, fleet: &mut Fleet, screen: &mut Screen) -> anyhow::Result<Report> {
        let Self {
            options,
            plan,
            block,
        } = *self;
        let mut progress = Progress::new(plan.nodes, &block.hash);
        screen.print(&self.title(screen));
        screen.say("starting the nodes", &progress);
        fleet.ready(&mut progress).await?;
        let shares = fleet::shares(options, plan, block);
        if options.warm > 0.0 {
            screen.say("giving them transactions", &progress);
            fleet.warm(&shares, block).await?;
        }
        screen.say("joining them, and measuring the paths", &progress);
        fleet.join(plan, options, &mut progress).await?;
        let links = Links::new(options);
        let bound_ms = report::bound_of_all(plan, links, block, &shares);
        let before = report::read_counters(fleet, plan.nodes).await?;
        screen.say("relaying", &progress);
        let limit = Duration::from_secs_f64(bound_ms * PATIENCE / 1e3).max(LEAST_TIME);
        let status = match self.relay(fleet, screen, &mut progress, limit).await? {
            true if progress.has_refused() => "done: ✗ counts what was refused".to_owned(),
            true => "done".to_owned(),
            false => format!("given up after {} s", limit.as_secs()),
        };
        screen.finish(&status, &progress);
        let gathered = report::gather(fleet, plan, block, &shares, &progress, &before, links);
        timeout(GATHER_TIME, gathered)
            .await
            .context("a node did not say what it holds")?
    }

    /// Hands the block over, and watches until all honest nodes have it, or the time is up.
    async fn relay(
        &self,
        fleet: &mut Fleet,
        screen: &mut Screen,
        progress: &mut Progress,
        limit: Duration,
    ) -> anyhow::Result<bool> {
        let rpc = fleet.rpc(0)?.clone();
        let parameters = json!([self.block.hex]);
        let started = Instant::now();
        let until = started + limit;
        progress.handed_us = Some(Clock::start().now().as_nanos() / 1_000);
        let submitted = rpc.call("submitblock", parameters);
        tokio::pin!(submitted);
        let mut taken = false;
        while !(taken && self.is_done(progress)) {
            let picture = screen.next_picture();
            tokio::select! {
                answer = &mut submitted, if !taken => {
                    taken = true;
                    match answer? {
                        Value::Null => {}
                        word => bail!("node 0 does not take the block: {word}"),
                    }
                }
                heard = fleet.listen(progress) => drop(heard?),
                () = sleep(picture.unwrap_or_default()), if picture.is_some() => {}
                () = sleep_until(until) => return Ok(false),
            }
            let elapsed = started.elapsed().as_secs_f64();
            screen.update(&format!("relaying: {elapsed:.1} s"), progress);
        }
        Ok(true)
    }

    fn is_done(&self, progress: &Progress) -> bool {
        let mut nodes = progress.nodes().iter().enumerate();
        nodes.all(|(node, here)| here.complete_us.is_some() || !self.plan.is_honest(node))
    }

    /// The lines above the picture.
    fn title(&self, screen: &Screen) -> String {
        let Self {
            options,
            plan,
            block,
        } = *self;
        let paint = screen.paint();
        let shape = match options.topology {
            Topology::Line => "in a line",
            Topology::Ring => "in a ring",
            Topology::Star => "around the first",
            Topology::Mesh => "all joined to all",
        };
        let mut links = vec![format!("{} nodes {shape}", plan.nodes)];
        if options.links == LinkKind::Quic {
            links.push("private links (QUIC)".to_owned());
        }
        if options.delay > 0.0 {
            links.push(format!("{} ms one way", options.delay));
        }
        if let Some(rate) = Links::new(options).rate_mbit {
            links.push(format!("{rate} Mbit/s"));
        }
        if options.loss > 0.0 {
            links.push(format!("{}% lost", options.loss));
        }
        if options.warm > 0.0 {
            links.push(format!("{}% warm", options.warm));
        }
        if !plan.liars.is_empty() {
            links.push(format!("{} lying", plan.liars.len()));
        }
        let hint = match paint.colours {
            true => "Each chunk has the colour of the node that it came from.",
            false => "Each chunk shows the node that it came from.",
        };
        format!(
            "{}  {} bytes, {} transactions\n{}\n{}\n{}\n\n",
            paint.bold(&format!("Block {}", block.height)),
            grouped(block.bytes as u64),
            grouped(block.transactions.len() as u64),
            paint.faint(&block.hash),
            links.join(", "),
            paint.faint(hint),
        )
    }
}

fn show_logs(fleet: &Fleet) {
    for process in fleet.processes() {
        let lines = process.last_lines(LOG_LINES);
        if !lines.is_empty() {
            complain(&format!("{}:", process.log().display()));
        }
        for line in lines {
            complain(&format!("  {line}"));
        }
    }
}
