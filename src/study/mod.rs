//! `blocktorrent sim`: the simulator with what it must not have itself: files, threads, a clock for progress, stdout.
//!
//! - `source`: scenarios by name or from files, and the blocks they name
//! - `runner`: seeds in parallel, and progress on stderr
//! - `swarm`: swarms in parallel
//! - `memory`: what runs take of it, so that there is room for each
//! - `picture`: a file that can be written before it is known what to write
//! - `print`: tables and comma-separated values
//!
//! What it is not: a simulator. It decides nothing that a run depends on; [`crate::sim`] does, from scenario and seed.

mod memory;
mod picture;
mod print;
mod runner;
pub mod source;
mod swarm;

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use self::picture::begin;
use self::print::{compare_csv, compare_table, run_csv, run_table};
use self::runner::{Effort, Progress, run_all};
use self::source::{Material, senseless};
use crate::cli::{
    CompareOptions, PlotOptions, RunOptions, Runs, SimCommand, SimOptions, Study, print,
};
use crate::sim::outcome::{Outcome, Row};
use crate::sim::protocol::{self, Protocol};
use crate::sim::scenario::{Scenario, ScenarioError};
use crate::sim::{plot, standard};

/// Nodes up to which a standard scenario is part of `compare` without being named: the larger ones take minutes.
const COMPARED_NODES: usize = 20;

/// Does what the command line asks of the simulator. The exit code says whether every run was complete and clean.
///
/// # Errors
///
/// One line: a scenario that makes no sense, a file that can't be read or written.
pub fn sim(options: &SimOptions) -> anyhow::Result<ExitCode> {
    match &options.command {
        SimCommand::List { json } => list(*json),
        SimCommand::Show(study) => {
            let material = Material::read(&study.scenario, &study.set)?;
            print(&material.scenario.spelled_out().to_toml()).map(|()| ExitCode::SUCCESS)
        }
        SimCommand::Run(options) => run(options),
        SimCommand::Compare(options) => compare(options),
        SimCommand::Plot(options) => draw(options),
        SimCommand::Swarm(options) => swarm::swarm(options),
    }
}

fn list(as_json: bool) -> anyhow::Result<ExitCode> {
    let scenarios = standard::all();
    if as_json {
        let scenarios: Vec<_> = scenarios
            .iter()
            .map(|scenario| {
                json!({
                    "scenario": scenario.name,
                    "about": scenario.about,
                    "nodes": scenario.topology.nodes,
                    "runs": scenario.runs,
                })
            })
            .collect();
        let protocols: Vec<_> = protocol::every()
            .map(|protocol| json!({ "protocol": protocol.name(), "about": protocol.about() }))
            .collect();
        let all = json!({ "scenarios": scenarios, "protocols": protocols });
        print(&format!("{all:#}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let protocols: Vec<_> = protocol::every().collect();
    print(&print::list(&scenarios, &protocols))?;
    Ok(ExitCode::SUCCESS)
}

/// The scenario that was asked for, with its seeds.
fn material(study: &Study, runs: &Runs) -> anyhow::Result<Material> {
    let mut material = Material::read(&study.scenario, &study.set)?;
    material.seeds(runs.seed, runs.runs);
    Ok(material)
}

fn effort(runs: &Runs) -> Effort {
    Effort::new(runs.threads, runs.memory_gb)
}

fn protocol_named(name: &str) -> anyhow::Result<&'static dyn Protocol> {
    let names: Vec<&str> = protocol::every().map(Protocol::name).collect();
    let unknown = || {
        let known = names.join(", ");
        senseless(format!(
            "no protocol is called {name:?}; give one of {known}"
        ))
    };
    Ok(protocol::named(name).ok_or_else(unknown)?)
}

fn protocols(names: &[String]) -> anyhow::Result<Vec<&'static dyn Protocol>> {
    match names.is_empty() {
        true => Ok(protocol::ALL.to_vec()),
        false => names.iter().map(|name| protocol_named(name)).collect(),
    }
}

fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    let material = material(&options.study, &options.runs)?;
    let protocol = protocol_named(&options.protocol)?;
    let progress = Progress::new(!options.runs.quiet);
    let mut runs = run_all(&material, protocol, effort(&options.runs), &progress)?;
    progress.clear();
    let code = verdict(&runs);
    if !options.pieces {
        let blocks = runs.iter_mut().flat_map(|run| &mut run.blocks);
        blocks
            .flat_map(|block| &mut block.nodes)
            .for_each(|part| part.pieces = Vec::new());
    }
    let row = Row::of(&runs).context("there was no run")?;
    let text = if options.runs.json {
        let all = json!({ "options": material.scenario, "row": row, "runs": runs });
        format!("{all:#}\n")
    } else if options.runs.csv {
        run_csv(&runs)
    } else {
        run_table(&material.scenario, &row, &runs, options.runs.quiet)
    };
    print(&text)?;
    Ok(code)
}

fn compare(options: &CompareOptions) -> anyhow::Result<ExitCode> {
    let named: Vec<String> = match options.scenarios.is_empty() {
        false => options.scenarios.clone(),
        true => standard::all()
            .into_iter()
            .filter(|scenario| scenario.topology.nodes <= COMPARED_NODES)
            .map(|scenario: Scenario| scenario.name)
            .collect(),
    };
    let protocols = protocols(&options.protocol)?;
    let effort = effort(&options.runs);
    let progress = Progress::new(!options.runs.quiet);
    // All of them first: the last makes as much sense as the first, or nothing is run.
    let mut materials = Vec::new();
    for name in &named {
        let mut material = Material::read(name, &options.set)?;
        material.seeds(options.runs.seed, options.runs.runs);
        for protocol in &protocols {
            effort.threads_for(&material, *protocol)?;
        }
        materials.push(material);
    }
    let mut rows = Vec::new();
    let mut clean = true;
    for (number, material) in materials.iter().enumerate() {
        for (place, protocol) in protocols.iter().enumerate() {
            let part = format!(
                "scenario {} of {}, protocol {} of {}",
                number + 1,
                materials.len(),
                place + 1,
                protocols.len()
            );
            let name = format!("{}, {}", material.scenario.name, protocol.name());
            progress.begin(part, &name);
            let runs = run_all(material, *protocol, effort, &progress)?;
            clean &= runs.iter().all(|run| run.violations.is_empty());
            rows.extend(Row::of(&runs));
        }
    }
    progress.clear();
    let text = if options.runs.json {
        format!("{:#}\n", json!(rows))
    } else if options.runs.csv {
        compare_csv(&rows)
    } else {
        compare_table(&rows)
    };
    print(&text)?;
    // A rival that is not complete is a result, no failure.
    Ok(match clean {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn draw(options: &PlotOptions) -> anyhow::Result<ExitCode> {
    let mut material = Material::read(&options.study.scenario, &options.study.set)?;
    material.seeds(options.seed, Some(1));
    let nodes = material.scenario.topology.nodes;
    if let Some(node) = &options.node {
        node_of(node, nodes)?;
    }
    let effort = Effort::new(Some(1), options.memory_gb);
    let begun = begin(&options.output)?;
    let progress = Progress::new(!options.quiet);
    let names = match (&options.node, options.protocol.is_empty()) {
        (Some(_), true) => vec!["blocktorrent".to_owned()],
        _ => options.protocol.clone(),
    };
    let mut runs = Vec::new();
    for protocol in protocols(&names)? {
        runs.extend(run_all(&material, protocol, effort, &progress)?);
    }
    progress.clear();
    let svg = match &options.node {
        None => shares(&material.scenario, &runs),
        Some(node) => waterfall(&material.scenario, &runs, node)?,
    };
    begun.end(&svg)?;
    progress.note(&format!("the picture is in {}", options.output.display()));
    Ok(verdict(&runs))
}

/// A number of a node, or `None` for the last one.
fn node_of(node: &str, nodes: usize) -> Result<Option<usize>, ScenarioError> {
    let advice = || {
        let most = nodes.saturating_sub(1);
        senseless(format!(
            "--node {node}: give a number from 0 to {most}, or last"
        ))
    };
    match node {
        "last" => Ok(None),
        number => match number.parse::<usize>() {
            Ok(number) if number < nodes => Ok(Some(number)),
            _ => Err(advice()),
        },
    }
}

fn shares(scenario: &Scenario, runs: &[Outcome]) -> String {
    let first = |run: &Outcome| {
        let block = run.blocks.first()?;
        Some(plot::curve(&run.protocol, block))
    };
    let curves: Vec<plot::Curve> = runs.iter().filter_map(first).collect();
    let bounds = runs
        .iter()
        .flat_map(Outcome::parts)
        .filter_map(|part| part.bound_ms);
    let bound = bounds.reduce(f64::max);
    let title = format!(
        "{}, {} nodes, seed {}",
        scenario.name, scenario.topology.nodes, scenario.seed
    );
    plot::shares(&title, &curves, bound)
}

fn waterfall(scenario: &Scenario, runs: &[Outcome], node: &str) -> anyhow::Result<String> {
    let run = runs.first().context("there was no run")?;
    let number = node_of(node, scenario.topology.nodes)?.or_else(|| plot::last_node(run));
    let block = run.blocks.first().context("there was no block")?;
    let number = number.context("no node has the block")?;
    let part = block.nodes.get(number).context("there is no such node")?;
    let title = format!(
        "{}: pieces at node {number}, {}, seed {}",
        scenario.name, run.protocol, run.seed
    );
    Ok(plot::waterfall(&title, part))
}

/// Whether every run was complete and clean.
fn verdict(runs: &[Outcome]) -> ExitCode {
    match runs
        .iter()
        .all(|run| run.is_complete() && run.violations.is_empty())
    {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
