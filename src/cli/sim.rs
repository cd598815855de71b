//! `blocktorrent sim`: what may be asked of the simulator.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `blocktorrent sim`.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct SimOptions {
    /// What to do.
    #[command(subcommand)]
    pub command: SimCommand,
}

/// What the simulator can do.
#[derive(Clone, Debug, Subcommand)]
pub enum SimCommand {
    /// List the standard scenarios and the protocols
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a scenario as TOML, every key with its value but for empty lists: the start of a study of your own
    Show(Study),
    /// Run a scenario and print what came of it
    Run(RunOptions),
    /// Run scenarios with every protocol, and print them side by side
    Compare(CompareOptions),
    /// Run a scenario once and draw how the block spreads
    Plot(PlotOptions),
    /// Run swarms whose faults and adversaries come from their seeds, and demand safety and liveness of each
    Swarm(SwarmOptions),
}

/// One scenario, perhaps with changes.
#[derive(Args, Clone, Debug)]
pub struct Study {
    /// A standard scenario (`sim list` names them) or a TOML file
    #[arg(value_name = "SCENARIO|FILE")]
    pub scenario: String,
    /// Set a key to another value, as in link.loss=0.05; may be given many times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

/// Seeds, and how results are printed.
#[derive(Args, Clone, Debug)]
pub struct Runs {
    /// Begin with this seed instead of the scenario's
    #[arg(long, value_name = "SEED", value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Run so many seeds instead of the scenario's
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000), allow_negative_numbers = true)]
    pub runs: Option<u32>,
    /// Runs at the same time [default: one for each processor]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Memory that runs may take, in GB; fewer run at the same time, or none [default: what the machine has to spare]
    #[arg(long, value_name = "GB", value_parser = gigabytes)]
    pub memory_gb: Option<f64>,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print comma-separated values
    #[arg(long)]
    pub csv: bool,
    /// Say nothing of progress, nor how the scenario is
    #[arg(long)]
    pub quiet: bool,
}

/// `blocktorrent sim run`.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// What to run.
    #[command(flatten)]
    pub study: Study,
    /// The protocol
    #[arg(long, value_name = "NAME", default_value = "blocktorrent")]
    pub protocol: String,
    /// With --json: tell of each piece of the block when it was whole where, and from whom
    #[arg(long, requires = "json")]
    pub pieces: bool,
    /// How.
    #[command(flatten)]
    pub runs: Runs,
}

/// `blocktorrent sim compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareOptions {
    /// Standard scenarios or TOML files [default: every standard scenario of at most 20 nodes]
    #[arg(value_name = "SCENARIO|FILE")]
    pub scenarios: Vec<String>,
    /// Only this protocol; may be given many times [default: all but those over CUBIC]
    #[arg(long, value_name = "NAME")]
    pub protocol: Vec<String>,
    /// Set a key of every scenario to another value, as in link.loss=0.05; may be given many times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// How.
    #[command(flatten)]
    pub runs: Runs,
}

/// `blocktorrent sim plot`.
#[derive(Args, Clone, Debug)]
pub struct PlotOptions {
    /// What to run.
    #[command(flatten)]
    pub study: Study,
    /// Write the picture here, as SVG
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Draw when each piece was whole at this node and who gave it, instead of the share of nodes; `last` is the node
    /// that had the block last
    #[arg(long, value_name = "NODE|last")]
    pub node: Option<String>,
    /// A protocol to draw; may be given many times [default: all for shares, blocktorrent for a node]
    #[arg(long, value_name = "NAME")]
    pub protocol: Vec<String>,
    /// The seed instead of the scenario's
    #[arg(long, value_name = "SEED", value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Memory that it may take, in GB [default: what the machine has to spare]
    #[arg(long, value_name = "GB", value_parser = gigabytes)]
    pub memory_gb: Option<f64>,
    /// Say nothing of progress
    #[arg(long)]
    pub quiet: bool,
}

/// `blocktorrent sim swarm`.
#[derive(Args, Clone, Debug)]
pub struct SwarmOptions {
    /// The seeds, the second one not included; or one seed
    #[arg(long, value_name = "A..B", value_parser = range)]
    pub seeds: (u64, u64),
    /// Swarms at the same time [default: one for each processor]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print the scenarios as TOML instead of running them
    #[arg(long, conflicts_with = "json")]
    pub show: bool,
    /// Say nothing of progress
    #[arg(long)]
    pub quiet: bool,
}

/// Swarms of one command line: days of them.
const MAX_SWARMS: u64 = 10_000_000;

fn range(text: &str) -> Result<(u64, u64), String> {
    let advice = || "give two numbers as in 0..1000, the smaller one first, or one".to_owned();
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| advice());
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (number(from)?, number(to)?),
        None => {
            let seed = number(text)?;
            (seed, seed.checked_add(1).ok_or_else(advice)?)
        }
    };
    match from < to {
        false => Err(advice()),
        true if to - from > MAX_SWARMS => Err(format!("give at most {MAX_SWARMS} seeds at a time")),
        true => Ok((from, to)),
    }
}

/// A seed; all that 64 bits hold are some.
pub(super) fn seed(text: &str) -> Result<u64, String> {
    let advice = || format!("give a whole number from 0 to {}", u64::MAX);
    text.parse().map_err(|_| advice())
}

fn gigabytes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("give a number of GB above 0, as in 8 or 0.5".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("give KEY=VALUE, as in link.loss=0.05".to_owned()),
    }
}

/// Below the flags of `sim`.
pub const SIM_HELP: &str = "\
The engine of the node, unchanged, in a world with virtual time: links with delay, rate, queue, loss and worse; nodes \
that crash, lie or are cut off. A run is decided by its scenario and its seed, and replays exactly.

Examples:
  blocktorrent sim list
  blocktorrent sim run warm-99-loss-1
  blocktorrent sim run cold-loss-5 --set link.delay_ms=100 --set block.bytes=4000000 --json
  blocktorrent sim compare warm-100-loss-1 cold-loss-1 --runs 20
  blocktorrent sim run liars-flood
  blocktorrent sim swarm --seeds 0..1000
  blocktorrent sim plot swarm-100-cold -o swarm.svg
  blocktorrent sim plot swarm-100-cold --node last -o last.svg
  blocktorrent sim show cold-loss-1 > mine.toml   # then edit, and: blocktorrent sim run mine.toml

What the columns mean:
  bound     how soon a node could have the block at best: delay, and the bytes that have to cross at the link's rate;
            with uplinks of the nodes, for the k-th that has it no sooner than all can send it k times
  added     how much later than that it had it, for half of the nodes (p50) and for 95% of them (p95)
  x bound   how long half of the nodes waited, as a multiple of the bound
  complete  share of nodes that had it at all
  no ask    share of nodes that had it without asking anyone for any of it
  bytes     bytes that came to a node for a block, headers of IP, UDP and TCP not counted
  x needed  the same as a multiple of the bytes that had to cross

Exit status: 0 if every node that should have every block has it and nothing happened that must not; 1 if not; 2 for \
a command line or a scenario that makes no sense.";
