//! The `blocktorrent` program: flags, then what the library does with them.

use std::process::ExitCode;

use blocktorrent::cli::{Command, CommandLine, complain, print, sample_config};
use blocktorrent::config::ConfigError;
use blocktorrent::sim::scenario::ScenarioError;
use blocktorrent::{lab, node, study};

/// The exit code for what was said wrongly, as clap has it for flags that it does not know.
const SENSELESS: u8 = 2;

fn main() -> ExitCode {
    let outcome = match CommandLine::of_process().command {
        Command::Node(options) if options.print_config => {
            node::check_print_config(&options.options).and_then(|()| {
                let network = options.options.network.unwrap_or_default();
                print(&sample_config(&node::defaults(network))).map(|()| ExitCode::SUCCESS)
            })
        }
        Command::Node(options) => node::run(options.options).map(|()| ExitCode::SUCCESS),
        Command::Cli(options) => node::call(&options),
        Command::Demo(options) => node::demo(&options),
        Command::Sim(options) => study::sim(&options),
        Command::Lab(options) => lab::lab(&options),
    };
    outcome.unwrap_or_else(|error| {
        complain(&format!("error: {error:#}"));
        let senseless = |cause: &(dyn std::error::Error + 'static)| {
            cause.is::<ConfigError>() || cause.is::<ScenarioError>()
        };
        match error.chain().any(senseless) {
            true => ExitCode::from(SENSELESS),
            false => ExitCode::FAILURE,
        }
    })
}
