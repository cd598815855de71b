//! The `blocktorrent` program: flags, then what the library does with them.

use std::process::ExitCode;

use blocktorrent::cli::{Command, CommandLine, complain, print, sample_config};
use blocktorrent::node;

fn main() -> ExitCode {
    let outcome = match CommandLine::of_process().command {
        Command::Node(options) if options.print_config => {
            print(&sample_config()).map(|()| ExitCode::SUCCESS)
        }
        Command::Node(options) => node::run(options.options).map(|()| ExitCode::SUCCESS),
        Command::Cli(options) => node::call(&options),
        Command::Demo(options) => node::demo(&options),
    };
    outcome.unwrap_or_else(|error| {
        complain(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
