//! What the command line asks of the lab.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::bitcoinds;
use super::broom::SweptFolder;
use super::feasible::{check, check_beside, check_blocks, refusal};
use super::ground::Ground;
use super::net::check_system;
use super::nodes::Setup;
use super::place::default_congestion;
use super::report::{Pair, Report};
use super::run::{self, Tcp};
use super::speed;
use crate::cli::{LabCommand, LabOptions, LabRunOptions, complain, print};
use crate::node::demo::interrupts::Interrupts;
use crate::sim::protocol::{Blocktorrent, Protocol as _};
use crate::study::source::{Material, senseless};

/// The variable that names a bitcoind, as for the tests.
const BITCOIND: &str = "BITCOIND_EXE";

/// Does what the command line asks. The exit code says whether all was complete and true to the scenario.
///
/// # Errors
///
/// One line: what the system lacks, or a scenario that makes no sense or can't be done.
pub fn lab(options: &LabOptions) -> anyhow::Result<ExitCode> {
    match &options.command {
        LabCommand::Check(options) => until_interrupted(speed::check(options)),
        LabCommand::Run(options) => {
            let work = Work::new(options)?;
            until_interrupted(work.all())
        }
    }
}

/// Runs to the end, or to SIGINT, SIGTERM or SIGHUP; what was begun is dropped then.
fn until_interrupted(
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("can't start threads")?;
    let outcome = runtime.block_on(async {
        let mut interrupts = Interrupts::watch()?;
        tokio::select! {
            outcome = work => outcome,
            code = interrupts.first() => {
                complain("interrupted");
                Ok(ExitCode::from(code))
            }
        }
    });
    runtime.shutdown_background();
    outcome
}

/// What is to be run.
struct Work<'a> {
    options: &'a LabRunOptions,
    material: Material,
    /// The congestion control of TCP.
    congestion: String,
    /// Between which nodes it carries what it can beside the relay.
    beside: Option<(usize, usize)>,
    nodes: bool,
    bitcoind: Option<PathBuf>,
}

impl<'a> Work<'a> {
    fn new(options: &'a LabRunOptions) -> anyhow::Result<Self> {
        let mut material = Material::read(&options.study.scenario, &options.study.set)?;
        material.seeds(options.seed, Some(options.runs));
        check(&material.scenario)?;
        let only = options.only.as_deref();
        let named = || {
            std::env::var_os(BITCOIND)
                .filter(|file| !file.is_empty())
                .map(PathBuf::from)
        };
        let bitcoind = options.bitcoind.clone().or_else(named);
        let bitcoind = bitcoind.filter(|_| only != Some("nodes"));
        if only == Some("bitcoinds") && bitcoind.is_none() {
            return Err(senseless(format!(
                "there is no bitcoind to run: give --bitcoind FILE, or set {BITCOIND}"
            ))
            .into());
        }
        if only == Some("bitcoinds") && options.tcp_beside.is_some() {
            let text = "--tcp-beside is for the relay's nodes, which --only bitcoinds leaves out";
            return Err(senseless(text.to_owned()).into());
        }
        for file in [&bitcoind, &options.node_exe].into_iter().flatten() {
            let about = file.metadata();
            let is_program = |about: &std::fs::Metadata| {
                use std::os::unix::fs::PermissionsExt as _;
                about.is_file() && about.permissions().mode() & 0o111 != 0
            };
            if !about.as_ref().is_ok_and(is_program) {
                let there = if about.is_ok() {
                    "is no program"
                } else {
                    "is not there"
                };
                return Err(senseless(format!(
                    "{} {there}; name one that can be started",
                    file.display()
                ))
                .into());
            }
        }
        if bitcoind.is_some() {
            bitcoinds::check(&material.scenario)?;
        }
        let trial = material.trial(material.scenario.seed)?;
        check_blocks(&trial)?;
        if let Some(way) = options.tcp_beside {
            check_beside(&trial, way)?;
        }
        check_system()?;
        let congestion = match &options.congestion {
            Some(name) => name.clone(),
            None => default_congestion()?,
        };
        Ok(Self {
            options,
            material,
            congestion,
            beside: options.tcp_beside,
            nodes: only != Some("bitcoinds"),
            bitcoind,
        })
    }

    async fn all(&self) -> anyhow::Result<ExitCode> {
        let mut folder = SweptFolder::new()?;
        if self.options.keep {
            folder.keep();
            complain(&format!(
                "folders and logs are in {}",
                folder.path().display()
            ));
        }
        let mut good = true;
        let mut text = String::new();
        let mut all = json!({});
        if self.nodes {
            let report = self.run_nodes(folder.path()).await?;
            good &= report.is_good();
            text.push_str(&report.table());
            all = json!(report);
        }
        if let Some(bitcoind) = &self.bitcoind {
            let report = self.run_bitcoinds(bitcoind, folder.path()).await?;
            good &= report.is_good();
            text.push_str(&report.table());
            if let Value::Object(members) = &mut all {
                members.insert("bitcoinds".to_owned(), json!(report));
            }
        }
        let text = match self.options.json {
            true => format!("{all:#}\n"),
            false => text,
        };
        print(&text)?;
        Ok(match good {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    async fn run_nodes(&self, folder: &Path) -> anyhow::Result<Report> {
        let options = self.options;
        let scenario = &self.material.scenario;
        let tcp = Tcp {
            congestion: &self.congestion,
            beside: self.beside,
        };
        let mut runs = Vec::new();
        for (index, seed) in self.seeds().enumerate() {
            let tell = |what: &str| {
                self.tell(&format!(
                    "nodes, run {} of {}: {what}",
                    index + 1,
                    options.runs
                ));
            };
            let trial = self.material.trial(seed)?;
            check_blocks(&trial)?;
            let workloads: Vec<_> = trial.blocks.iter().map(|block| &block.workload).collect();
            let ground =
                Ground::of(&workloads).map_err(|error| refusal(scenario, &format!("{error:#}")))?;
            let folder = folder.join(format!("nodes-{index}"));
            std::fs::create_dir(&folder)
                .with_context(|| format!("can't make {}", folder.display()))?;
            let setup = Setup::new(options.node_exe.as_deref(), &folder, options.links)?;
            let run = run::run(&trial, &Arc::new(ground), &setup, &tcp, &tell).await?;
            if !options.keep {
                std::fs::remove_dir_all(&folder)
                    .with_context(|| format!("can't remove {}", folder.display()))?;
            }
            runs.push(Pair {
                seed,
                liars: trial.adversaries.keys().copied().collect(),
                simulated: simulate(trial).await?,
                measured: run.outcome,
                emulation: run.emulation,
                beside: run.beside,
            });
        }
        self.quiet();
        Report::new(scenario, &self.congestion, runs)
    }

    async fn run_bitcoinds(
        &self,
        bitcoind: &Path,
        folder: &Path,
    ) -> anyhow::Result<bitcoinds::Report> {
        let options = self.options;
        let mut report = bitcoinds::Report::new(&self.material.scenario, &self.congestion);
        for (index, seed) in self.seeds().enumerate() {
            let trial = self.material.trial(seed)?;
            for way in bitcoinds::Way::ALL {
                self.tell(&format!(
                    "bitcoinds, {}: run {} of {}",
                    way.name(),
                    index + 1,
                    options.runs
                ));
                let folder = folder.join(format!("bitcoinds-{index}-{}", way.name()));
                std::fs::create_dir(&folder)
                    .with_context(|| format!("can't make {}", folder.display()))?;
                let setup = Setup::new(options.node_exe.as_deref(), &folder, options.links)?;
                let run = bitcoinds::run(&trial, bitcoind, &setup, &self.congestion, way).await?;
                report.add(run);
                if !options.keep {
                    std::fs::remove_dir_all(&folder)
                        .with_context(|| format!("can't remove {}", folder.display()))?;
                }
            }
        }
        self.quiet();
        Ok(report)
    }

    fn seeds(&self) -> impl Iterator<Item = u64> {
        let first = self.material.scenario.seed;
        (0..u64::from(self.options.runs)).map(move |index| first.wrapping_add(index))
    }

    /// Tells on stderr how far it is. That nobody reads there is no failure.
    fn tell(&self, line: &str) {
        if !self.options.quiet {
            let _ = match std::io::stderr().is_terminal() {
                true => write!(std::io::stderr(), "\r\x1b[K{line}"),
                false => writeln!(std::io::stderr(), "{line}"),
            };
        }
    }

    /// Takes the line away, before something else is printed.
    fn quiet(&self) {
        if !self.options.quiet && std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// The same trial in the simulator, off the threads that wait for signals.
async fn simulate(trial: crate::sim::Trial) -> anyhow::Result<crate::sim::Outcome> {
    let simulated = tokio::task::spawn_blocking(move || Blocktorrent.run(&trial, &mut |_| {}));
    let mut simulated = simulated.await.context("the simulator was cut short")?;
    let nodes = simulated
        .blocks
        .iter_mut()
        .flat_map(|block| &mut block.nodes);
    nodes.for_each(|part| part.pieces = Vec::new());
    Ok(simulated)
}
