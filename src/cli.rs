//! The command line: `node`, `cli`, `demo`, `sim` and `lab`, and what `--help` says of them.

mod habits;
mod help;
mod lab;
mod sample;
mod sim;

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::error::ErrorKind as Usage;
use clap::{Args, Parser, Subcommand, ValueEnum};

use self::help::{CLI_HELP, DEMO_HELP, NODE_HELP};
use self::lab::LAB_HELP;
pub use self::lab::{CheckOptions, LabCommand, LabOptions, LabRunOptions};
pub use self::sample::{Defaults, sample_config};
use self::sim::SIM_HELP;
pub use self::sim::{
    CompareOptions, PlotOptions, RunOptions, Runs, SimCommand, SimOptions, Study, SwarmOptions,
};
use crate::config::{NetworkName, Options};

/// Characters of a complaint that are shown: some lines of a terminal, more than any that makes sense has.
const MAX_COMPLAINT: usize = 1_000;

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "blocktorrent",
    version,
    about = "Relays Bitcoin blocks in chunks that prove themselves, over UDP",
    long_about = "Relays Bitcoin blocks in chunks that prove themselves, over UDP.\n\n\
        A block's header commits to every transaction. A node that has checked the header's work can \
        therefore verify one chunk of the block alone, take different chunks from peers that it does \
        not trust, and pass each on before it holds the whole block.",
    after_help = "Try `blocktorrent demo`: a real block crosses five processes on this machine.",
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl CommandLine {
    /// The command line of this process. Where it makes no sense, says so in one line and exits with 2; prints help
    /// and exits where that is asked for.
    pub fn of_process() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            if error.use_stderr() && error.kind() != Usage::DisplayHelpOnMissingArgumentOrSubcommand
            {
                let arguments: Vec<String> = std::env::args_os()
                    .skip(1)
                    .map(|argument| argument.to_string_lossy().into_owned())
                    .collect();
                complain(&habits::explain(&error, &arguments));
                std::process::exit(error.exit_code());
            }
            error.exit()
        })
    }
}

/// Prints what was asked for. A reader that has seen enough, such as `head`, is no failure.
///
/// # Errors
///
/// Stdout takes nothing for another reason, such as a full disk.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("can't write to stdout")
        }
        _ => Ok(()),
    }
}

/// Writes one line to stderr, whatever is in it: what an operator or a file said may have line breaks, and be as
/// long as they like. That nobody reads there is no failure.
pub fn complain(line: &str) {
    let clean = |character: char| match character.is_control() {
        true => ' ',
        false => character,
    };
    let shown: String = line.chars().map(clean).take(MAX_COMPLAINT).collect();
    let more = match line.chars().nth(MAX_COMPLAINT) {
        Some(_) => "...",
        None => "",
    };
    let _ = writeln!(std::io::stderr(), "{shown}{more}");
}

/// The commands of the program.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a node until SIGINT, SIGTERM or `blocktorrent cli stop`
    #[command(after_long_help = NODE_HELP)]
    Node(Box<NodeOptions>),
    /// Call a running node and print its answer as JSON
    #[command(after_long_help = CLI_HELP)]
    Cli(CallOptions),
    /// Relay a real block through several node processes on this machine, and show how each one fills
    #[command(after_long_help = DEMO_HELP)]
    Demo(DemoOptions),
    /// Let nodes relay blocks in a world with virtual time, faults and rivals, and measure
    #[command(after_long_help = SIM_HELP, after_help = "`blocktorrent sim --help` has examples, and says what the columns mean.")]
    Sim(SimOptions),
    /// Let real node processes relay blocks over emulated links, beside the simulator (Linux, root)
    #[command(after_long_help = LAB_HELP, after_help = "`blocktorrent lab --help` has examples, and says what the columns mean.")]
    Lab(LabOptions),
}

/// `blocktorrent node`.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeOptions {
    /// Print a configuration file with every option, its meaning and its default, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Everything that the file may say too.
    #[command(flatten)]
    pub options: Options,
}

/// `blocktorrent cli`.
#[derive(Args, Clone, Debug)]
pub struct CallOptions {
    /// The configuration file of the node [default: DATADIR/blocktorrent.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The datadir of the node [default: ~/.blocktorrent]
    #[arg(long, value_name = "DIR")]
    pub datadir: Option<PathBuf>,
    /// The network of the node [default: main]
    #[arg(long, value_name = "NAME")]
    pub network: Option<NetworkName>,
    /// Log in with this user instead of the cookie file; needs rpc-password
    #[arg(long, value_name = "NAME", requires = "rpc_password")]
    pub rpc_user: Option<String>,
    /// The password of rpc-user
    #[arg(long, value_name = "PASSWORD", requires = "rpc_user")]
    pub rpc_password: Option<String>,
    /// The method to call; `blocktorrent cli help` lists them
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// Its arguments; `-` takes one from stdin
    #[arg(
        value_name = "ARG",
        allow_hyphen_values = true,
        trailing_var_arg = true
    )]
    pub arguments: Vec<String>,
}

/// `blocktorrent demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoOptions {
    /// How many nodes to start
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub nodes: u16,
    /// Who is connected to whom
    #[arg(long, value_enum, default_value_t = Topology::Line)]
    pub topology: Topology,
    /// What the links are: public ones over TCP and UDP, or private ones over QUIC
    #[arg(long, value_enum, default_value_t = LinkKind::Native)]
    pub links: LinkKind,
    /// The block to relay, as raw bytes [default: mainnet block 702861, built in]
    #[arg(long, value_name = "FILE")]
    pub block: Option<PathBuf>,
    /// Give each node this share of the block's transactions beforehand
    #[arg(long, value_name = "PCT", default_value_t = 0.0, value_parser = percentage, allow_negative_numbers = true)]
    pub warm: f64,
    /// Lose this share of the datagrams
    #[arg(long, value_name = "PCT", default_value_t = 0.0, value_parser = percentage, allow_negative_numbers = true)]
    pub loss: f64,
    /// One-way delay of every link; 0: none but the machine's own
    #[arg(long, value_name = "MS", default_value_t = 10.0, value_parser = delay_ms, allow_negative_numbers = true)]
    pub delay: f64,
    /// What each node can send; 0: no limit
    #[arg(long, value_name = "MBIT", default_value_t = 20.0, value_parser = rate_mbit, allow_negative_numbers = true)]
    pub rate: f64,
    /// How many of the nodes alter what they forward (never the first)
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub liars: u16,
    /// What nodes may send unasked: 0 announcement, 1 tree, 2 short ids, 3 missing transactions
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub push: Option<u8>,
    /// The seed of what is lost and who lies
    #[arg(long, value_name = "SEED", default_value_t = 1, value_parser = sim::seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// Print one JSON object at the end instead of the live view
    #[arg(long)]
    pub json: bool,
    /// Keep the nodes' folders and logs, as is done anyway if the demo fails
    #[arg(long)]
    pub keep: bool,
}

/// What links between nodes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LinkKind {
    /// TCP for control, UDP for data
    #[default]
    Native,
    /// QUIC between nodes that pinned each other's keys
    Quic,
}

/// How the demo connects its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// Each to the next
    Line,
    /// Each to the next, and the last to the first
    Ring,
    /// All to the first
    Star,
    /// Everyone to everyone
    Mesh,
}

fn percentage(text: &str) -> Result<f64, String> {
    let share: f64 = text
        .parse()
        .map_err(|_| "give a percentage from 0 to 100".to_owned())?;
    if (0.0..=100.0).contains(&share) {
        Ok(share)
    } else {
        Err("give a percentage from 0 to 100".to_owned())
    }
}

/// A handshake takes two one-way delays, and nodes give it 10 s.
fn delay_ms(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=4_000.0).contains(&number) => Ok(number),
        _ => Err("give a number from 0 to 4000".to_owned()),
    }
}

fn rate_mbit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number == 0.0 || (0.01..=100_000.0).contains(&number) => Ok(number),
        _ => Err("give a number from 0.01 to 100000, or 0 for no limit".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::habits::one_line;
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("blocktorrent").chain(line.split_whitespace());
        CommandLine::try_parse_from(words).map(|parsed| parsed.command)
    }

    #[test]
    fn the_definitions_hold_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn flags_mean_what_the_file_means() {
        let key = "0f".repeat(32);
        let line = format!(
            "node --datadir /d --network test --control-listen 0.0.0.0:1 --data-listen 0.0.0.0:2 \
            --rpc-listen 127.0.0.1:3 --connect a:4 --connect b --quic-listen 0.0.0.0:5 --quic-peer {key}@c:6 --quic-allow {key} \
            --p2p-listen 0.0.0.0:4 --bitcoind auto --bitcoind rpc=c:5,zmq=tcp://c:6,p2p=off --service-bit 29 --rpc-user u --rpc-password p \
            --max-mempool-mb 5 --store-mb 6 --max-peers 7 --push-level 2 --max-up-mbit 8 \
            --max-down-mbit 9 --uacomment hi --role operator --preference 10 --log warn --log-format compact"
        );
        let file = format!(
            "datadir = '/d'\nnetwork = 'test'\ncontrol-listen = '0.0.0.0:1'\ndata-listen = '0.0.0.0:2'\n\
            rpc-listen = '127.0.0.1:3'\nconnect = ['a:4', 'b']\n\
            quic-listen = '0.0.0.0:5'\nquic-peer = ['{key}@c:6']\nquic-allow = ['{key}']\n\
            p2p-listen = '0.0.0.0:4'\nbitcoind = ['auto', {{rpc = 'c:5', zmq = ['tcp://c:6'], p2p = 'off'}}]\n\
            service-bit = 29\nrpc-user = 'u'\nrpc-password = 'p'\n\
            max-mempool-mb = 5\nstore-mb = 6\nmax-peers = 7\npush-level = 2\nmax-up-mbit = 8\n\
            max-down-mbit = 9\nuacomment = 'hi'\nrole = 'operator'\npreference = 10\nlog = 'warn'\nlog-format = 'compact'"
        );
        let Ok(Command::Node(node)) = parse(&line) else {
            panic!("not a node");
        };
        assert_eq!(node.options, Options::from_toml("f", &file).unwrap());
    }

    #[test]
    fn hidden_options_are_flags_that_help_keeps_to_itself() {
        let Ok(Command::Node(node)) = parse(
            "node --emulate-loss 10 --emulate-delay-ms 25 --emulate-rate-mbit 50 --emulate-seed 7 --test-lie --events-stdout",
        ) else {
            panic!("not a node");
        };
        assert_eq!(node.options.test.emulate_loss, Some(10.0));
        assert!(node.options.test.test_lie && node.options.test.events_stdout);
        let mut command = CommandLine::command();
        let node = command.find_subcommand_mut("node").unwrap();
        let help = node.render_long_help().to_string();
        assert!(help.contains("--push-level") && !help.contains("emulate"));
    }

    #[test]
    fn a_call_takes_arguments_as_they_are() {
        let Ok(Command::Cli(call)) =
            parse("cli --network regtest addnode 127.0.0.1:1 add -5 --x {\"a\":1}")
        else {
            panic!("not a call");
        };
        assert_eq!(call.method, "addnode");
        assert_eq!(
            call.arguments,
            ["127.0.0.1:1", "add", "-5", "--x", "{\"a\":1}"]
        );
        assert!(parse("cli").is_err());
        assert!(parse("cli --rpc-user a getpeerinfo").is_err());
    }

    #[test]
    fn errors_are_told_in_one_line() {
        let error = |line| one_line(&parse(line).unwrap_err().render().to_string());
        assert_eq!(
            error("demo --topology knot"),
            "error: invalid value 'knot' for '--topology <TOPOLOGY>' [possible values: line, ring, star, mesh]"
        );
        for (line, says) in [
            (
                "demo --loss -5",
                "'-5' for '--loss <PCT>': give a percentage from 0 to 100",
            ),
            (
                "demo --rate -1",
                "'-1' for '--rate <MBIT>': give a number from 0.01",
            ),
            (
                "demo --delay -1",
                "'-1' for '--delay <MS>': give a number from 0 to 4000",
            ),
            (
                "sim run wild --seed -1",
                "'-1' for '--seed <SEED>': give a whole number from 0 to",
            ),
            (
                "sim run wild --runs -1",
                "'-1' for '--runs <COUNT>': -1 is not in 1..=1000000",
            ),
            (
                "sim run wild --runs 1000001",
                "1000001 is not in 1..=1000000",
            ),
            (
                "lab run wild --seed x",
                "'x' for '--seed <SEED>': give a whole number from 0 to",
            ),
        ] {
            assert!(error(line).contains(says), "{}", error(line));
        }
        assert!(
            error("node --nonsense").starts_with("error: unexpected argument '--nonsense' found")
        );
    }

    #[test]
    fn senseless_flags_are_usage_errors() {
        for line in [
            "",
            "nod",
            "node --nonsense",
            "node --network moon",
            "node --connect a:b:c",
            "node --bitcoind rpc",
            "node --p2p-listen on",
            "node --preference 256",
            "demo --nodes 1",
            "demo --loss 101",
            "demo --warm x",
            "demo --rate 0.001",
            "demo --delay 4001",
            "demo --push 4",
            "demo --topology knot",
            "sim swarm",
            "sim swarm --seeds 5..5",
            "sim swarm --seeds 1..many",
            "sim swarm --seeds 0..20000000",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        let Ok(Command::Demo(demo)) = parse("demo") else {
            panic!("not a demo");
        };
        // As its help says: links on which one sees nodes fill.
        assert_eq!((demo.nodes, demo.delay, demo.rate), (5, 10.0, 20.0));
        assert!(matches!(parse("demo --rate 0"), Ok(Command::Demo(demo)) if demo.rate == 0.0));
        for (line, wanted) in [("7", (7, 8)), ("3..9", (3, 9))] {
            let Ok(Command::Sim(sim)) = parse(&format!("sim swarm --seeds {line}")) else {
                panic!("{line}");
            };
            assert!(matches!(sim.command, SimCommand::Swarm(swarm) if swarm.seeds == wanted));
        }
    }
}
