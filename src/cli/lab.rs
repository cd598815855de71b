//! `blocktorrent lab`: what may be asked of real processes over emulated links.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::LinkKind;
use super::sim::{Study, seed};

/// `blocktorrent lab`.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct LabOptions {
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// What the lab can do.
#[derive(Clone, Debug, Subcommand)]
pub enum LabCommand {
    /// Say whether the lab can work here, how much its links carry, and how precisely
    Check(CheckOptions),
    /// Run a scenario with real processes and in the simulator, and print both
    Run(Box<LabRunOptions>),
}

/// `blocktorrent lab check`.
#[derive(Args, Clone, Debug)]
pub struct CheckOptions {
    /// How long each measurement takes
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    pub seconds: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `blocktorrent lab run`.
#[derive(Args, Clone, Debug)]
pub struct LabRunOptions {
    /// What to run.
    #[command(flatten)]
    pub study: Study,
    /// Begin with this seed instead of the scenario's
    #[arg(long, value_name = "SEED", value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Run so many seeds, one after another
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// What the links between the nodes are: public ones over TCP and UDP, or private ones over QUIC
    #[arg(long, value_enum, default_value_t = LinkKind::Native)]
    pub links: LinkKind,
    /// The congestion control of TCP in every namespace, as in cubic [default: the system's]
    #[arg(long, value_name = "NAME", value_parser = word)]
    pub congestion: Option<String>,
    /// Let a TCP connection carry from one node to a neighbour what the links give it, and say what it gets alone and
    /// beside the relay of the nodes; the simulator has none
    #[arg(long, value_name = "FROM-TO", value_parser = way)]
    pub tcp_beside: Option<(usize, usize)>,
    /// The program that runs the nodes [default: this one]
    #[arg(long, value_name = "FILE")]
    pub node_exe: Option<PathBuf>,
    /// Run bitcoinds over the same links too, once joined to each other and once with a relay beside each [default:
    /// BITCOIND_EXE, if it is set]
    #[arg(long, value_name = "FILE")]
    pub bitcoind: Option<PathBuf>,
    /// Only these: nodes, bitcoinds [default: nodes, and bitcoinds if there is a bitcoind]
    #[arg(long, value_name = "WHAT", value_parser = ["nodes", "bitcoinds"])]
    pub only: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Say nothing of progress
    #[arg(long)]
    pub quiet: bool,
    /// Keep the programs' folders and logs
    #[arg(long)]
    pub keep: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.05..=60.0).contains(&number) => Ok(number),
        _ => Err("give a number from 0.05 to 60".to_owned()),
    }
}

fn word(text: &str) -> Result<String, String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    match (1..=15).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("give a name as in cubic or bbr".to_owned()),
    }
}

fn way(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('-');
    let numbers = numbers.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    numbers.ok_or_else(|| "give the numbers of two nodes, as in 0-1".to_owned())
}

/// Below the flags of `lab`.
pub const LAB_HELP: &str = "\
Each node is a process of its own, in a network namespace of its own. Its packets, of UDP and of TCP, cross the links \
of the scenario: a thread of this program takes them from a TUN device and gives them to the neighbour's when they are \
due. The link model is the simulator's; the kernels, the sockets, the clocks and the programs are real. The simulator \
runs the same scenario with the same seeds, and the report has both.

It needs Linux, root, /dev/net/tun, iproute2 (`ip`) and util-linux (`setpriv`, `unshare`). No namespace, device, process \
or folder outlives it, however it ends: each program is the first of a PID namespace, with which all that it starts ends. \
tools/lab is the same, by sudo where that is needed.

Examples:
  blocktorrent lab check
  blocktorrent lab run warm-99-loss-1 --runs 10
  blocktorrent lab run line-4-cold --set link.loss=0.02 --json
  blocktorrent lab run mine.toml
  blocktorrent lab run cold-loss-0 --set block.count=12 --set block.every_ms=170 --tcp-beside 0-1
  BITCOIND_EXE=/usr/local/bin/bitcoind blocktorrent lab run warm-99-loss-1 --congestion cubic

With --links quic the processes talk over private links. The simulator has none: what they carry is the same engine's, so \
that `differs` is then what encryption, acknowledgements and packets of 1,232 bytes add.

What the columns mean:
  bound       how soon the node could have the block at best, as in `blocktorrent sim run --help`
  simulated   when it had it in the simulator, from the submission at the first node: half of runs and blocks
  measured    when the process had it, from just before the call of submitblock at the first
  differs     measured less simulated: what computing, the system and the machine add; `*` marks where a block is submitted

Exit status: 0 if every node that should have every block has it, in both; 1 if not, or if the emulation was not true \
to the scenario; 2 for a command line or a scenario that makes no sense, or one that the lab can't do; 130 after Ctrl-C, \
143 after SIGTERM, 129 after SIGHUP.";
