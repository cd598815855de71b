//! The composition root: the only place where the slices of the crate meet.
//!
//! ```text
//!                       ┌──────────────── thread "engine" ───────────────┐
//!   UDP ◀──────────────▶│ driver: Engine, HeaderBook, UdpPort, Timer      │
//!   TCP ◀── net::hub ──▶│ one select, one turn, all output before waiting │
//!                       └───▲─────────────┬───────────────┬──────────────┘
//!               commands    │             │ news          │ whole blocks    (all queues bounded)
//!   HTTP ◀─▶ rpc ───────────┘     thread "events"   thread "store"
//!             │                    log, stdout        BlockStore
//!             └── getblock ◀──────────────────────────────┘
//! ```
//!
//! - [`settings`]: flags and file to what holds; [`datadir`]: lock, cookie, addresses; [`logs`], by [`lines`]
//! - [`run`](mod@run): starts and ends all of it in order; `sockets`; [`stop`]: the word to end, [`signals`] and [`limits`]: the system's
//! - [`driver`]: the engine's thread; [`engine`]: the commands it answers; [`headers`]: its judge, [`headerfile`]: on disk
//! - [`mod@demo`]: several nodes as processes, and a block that crosses them
//! - [`router`] and [`events`]: what happened, told; [`store`]: blocks on disk; [`files`]: whole or absent
//! - [`rpc`]: JSON-RPC over HTTP; [`client`]: `blocktorrent cli`

pub mod bitcoin;
pub mod client;
pub mod datadir;
pub mod demo;
pub mod driver;
mod electrum;
pub mod engine;
pub mod events;
pub mod files;
pub mod headerfile;
pub mod headers;
pub mod keys;
pub mod limits;
pub mod lines;
pub mod logs;
pub mod private;
pub mod quiet;
pub mod router;
pub mod rpc;
pub mod run;
pub mod sessions;
pub mod settings;
pub mod signals;
mod sockets;
pub mod stop;
pub mod store;
pub mod verdicts;

use std::process::ExitCode;

use crate::cli::{CallOptions, Defaults, DemoOptions};
use crate::config::{ConfigError, NetworkName, Options};

/// Runs a node until it is told to stop.
///
/// # Errors
///
/// One line that says what to do.
pub fn run(flags: Options) -> anyhow::Result<()> {
    let settings = settings::Settings::load(flags)?;
    let _flush = logs::start(&settings.config.log, settings.config.log_format)?;
    run::run(&settings)
}

/// Whether `--print-config` can do what other flags ask of it: it prints the defaults, which are those of a network.
///
/// # Errors
///
/// One line.
pub fn check_print_config(flags: &Options) -> anyhow::Result<()> {
    let network_alone = Options {
        network: flags.network,
        ..Options::default()
    };
    if *flags != network_alone {
        let text = "--print-config prints the defaults; of other flags it takes --network alone";
        return Err(ConfigError::Senseless(text.to_owned()).into());
    }
    Ok(())
}

/// What holds on a network where nothing is said.
pub fn defaults(network: NetworkName) -> Defaults {
    settings::defaults(network)
}

/// Calls a running node and prints its answer.
///
/// # Errors
///
/// One line that says what to do.
pub fn call(options: &CallOptions) -> anyhow::Result<ExitCode> {
    client::call(options)
}

/// Runs the demo.
///
/// # Errors
///
/// One line that says what to do.
pub fn demo(options: &DemoOptions) -> anyhow::Result<ExitCode> {
    demo::run(options)
}
