//! Scenarios by name or from files, and the blocks that they name.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;

use crate::sim::scenario::{Scenario, ScenarioError};
use crate::sim::{Trial, standard};

/// Bytes of a scenario file at most: a thousand events have room.
const MAX_SCENARIO_BYTES: u64 = 1 << 20;
/// Bytes of a block file at most, as of a synthetic block: what a world has room for.
const MAX_BLOCK_FILE: u64 = 256_000_000;

/// Bytes of a transaction, on average.
pub const MEAN_TRANSACTION: u64 = 450;
/// Transactions of a block of which nothing is said, or of the one that is built in, about.
const DEFAULT_TRANSACTIONS: u32 = 3_100;

/// A scenario, and the content of the file that it names.
pub struct Material {
    /// What is to be run.
    pub scenario: Scenario,
    block: Option<Bytes>,
    /// Where the scenario is from, and its text, for complaints.
    origin: (String, String),
}

/// A complaint about what was asked for, not about the machine.
pub fn senseless(problem: String) -> ScenarioError {
    ScenarioError {
        file: String::new(),
        line: None,
        problem,
    }
}

impl Material {
    /// The standard scenario of that name, or the one in that file, with keys set to other values.
    ///
    /// # Errors
    ///
    /// One line: no such scenario, one that makes no sense, or a file that can't be read.
    pub fn read(name: &str, changes: &[(String, String)]) -> anyhow::Result<Self> {
        let (text, folder) = match standard::text(name) {
            Some(text) => (text.to_owned(), PathBuf::new()),
            None => read_scenario(name)?,
        };
        let mut scenario = Scenario::with_changes(name, &text, changes)?;
        if scenario.name == Scenario::default().name
            && let Some(stem) = Path::new(name).file_stem().and_then(|stem| stem.to_str())
        {
            let named = format!("name = {stem:?}");
            scenario.name = Scenario::from_toml(name, &named).map_or(scenario.name, |it| it.name);
        }
        let block = match &scenario.block.file {
            Some(file) => {
                let read = bounded(&folder.join(file), MAX_BLOCK_FILE);
                let complain = |problem: anyhow::Error| {
                    let advice = format!(
                        "{problem:#}; give a raw block, by its path from where the scenario is"
                    );
                    ScenarioError::at_key(name, &text, "block.file", &advice)
                };
                Some(Bytes::from(read.map_err(complain)?))
            }
            None => None,
        };
        Ok(Self {
            scenario,
            block,
            origin: (name.to_owned(), text),
        })
    }

    /// Takes other seeds than the scenario's.
    pub fn seeds(&mut self, seed: Option<u64>, runs: Option<u32>) {
        self.scenario.seed = seed.unwrap_or(self.scenario.seed);
        self.scenario.runs = runs.unwrap_or(self.scenario.runs);
    }

    /// Bytes of a block, about.
    pub fn block_bytes(&self) -> u64 {
        let spec = &self.scenario.block;
        let few = u64::from(spec.transactions.unwrap_or(DEFAULT_TRANSACTIONS)) * MEAN_TRANSACTION;
        match (&self.block, spec.bytes) {
            (Some(file), _) => file.len() as u64,
            (None, Some(bytes)) => bytes,
            (None, None) => few,
        }
    }

    /// The trial of one seed.
    ///
    /// # Errors
    ///
    /// As [`Trial::new`]; a trial in which no node counts.
    pub fn trial(&self, seed: u64) -> Result<Trial, ScenarioError> {
        let (name, text) = &self.origin;
        let trial = Trial::new(&self.scenario, seed, self.block.clone());
        let trial = trial.map_err(|error| match error.problem.split_once(": ") {
            Some((key, advice)) => ScenarioError::at_key(name, text, key, advice),
            None => error,
        })?;
        match trial.counting_each().concat().contains(&true) {
            true => Ok(trial),
            false => Err(ScenarioError::at_key(
                name,
                text,
                "measure",
                "no node is left whose figures count; let one be joined, honest and not crashed for good that is not \
                 the block's source",
            )),
        }
    }
}

/// The text of the scenario in the file `name`, and the folder that it lies in.
fn read_scenario(name: &str) -> anyhow::Result<(String, PathBuf)> {
    let path = Path::new(name);
    if path.is_dir() {
        return Err(senseless(format!("{name} is a folder; give a scenario in it")).into());
    }
    if name.is_empty() || !path.exists() {
        let names = standard::STANDARD.iter().map(|(known, _)| *known);
        let apart = |known: &&str| match known.starts_with(name) {
            true => 0,
            false => strsim::damerau_levenshtein(known, name),
        };
        let nearest = names.min_by_key(apart);
        let near = nearest.filter(|known| apart(known) <= 3 && name.len() > 3);
        let advice = match near {
            Some(known) => format!("did you mean {known}? `blocktorrent sim list` lists them all"),
            None => "`blocktorrent sim list` lists the scenarios".to_owned(),
        };
        let problem = format!("no scenario and no file is called {name:?}; {advice}");
        return Err(senseless(problem).into());
    }
    let bytes = bounded(path, MAX_SCENARIO_BYTES)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| senseless(format!("{name} is no text; give a scenario in TOML")))?;
    Ok((text, path.parent().map(Path::to_owned).unwrap_or_default()))
}

fn bounded(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    // Of what is none one might wait for the end for ever.
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        let problem =
            format!("{shown} is no regular file; give one, or write its content into one");
        return Err(senseless(problem).into());
    }
    let file = File::open(path).with_context(|| format!("can't read {shown}"))?;
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("can't read {shown}"))?;
    match bytes.len() as u64 > most {
        true => Err(senseless(format!("{shown} is larger than {most} bytes")).into()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str) -> String {
        Material::read(name, &[]).err().expect(name).to_string()
    }

    #[test]
    fn scenarios_come_by_name_and_from_files_with_their_blocks() {
        assert_eq!(
            Material::read("wild", &[]).expect("standard").scenario.name,
            "wild"
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mine.toml");
        let block = bitcoin_test_data::blocks::mainnet_702861();
        std::fs::write(folder.path().join("b.raw"), block).expect("written");
        std::fs::write(&path, "[block]\nfile = 'b.raw'").expect("written");
        let material = Material::read(path.to_str().expect("text"), &[]).expect("a scenario");
        let trial = material.trial(1).expect("a trial");
        assert_eq!(trial.blocks[0].workload.block, block);
        std::fs::write(&path, "[block]\nfile = 'c.raw'").expect("written");
        let missing = problem(path.to_str().expect("text"));
        assert!(
            missing.contains("mine.toml, line 2: block.file: can't read ")
                && missing.contains("c.raw"),
            "{missing}"
        );
        std::fs::write(&path, "\n[block]\nfile = 'mine.toml'").expect("written");
        let material = Material::read(path.to_str().expect("text"), &[]).expect("a scenario");
        assert_eq!(material.scenario.name, "mine");
        let no_block = material.trial(1).expect_err("no block").to_string();
        assert!(
            no_block
                .contains("mine.toml, line 3: block.file: \"mine.toml\" is no serialized block"),
            "{no_block}"
        );
        std::fs::write(&path, "[topology]\nnodes = 1").expect("written");
        let alone = Material::read(path.to_str().expect("text"), &[]).expect("a scenario");
        let alone = alone.trial(1).expect_err("nobody counts").to_string();
        assert!(
            alone.contains("no node is left whose figures count"),
            "{alone}"
        );
        std::fs::write(&path, b"\xff").expect("written");
        assert!(problem(path.to_str().expect("text")).contains("is no text"));
        let folder = folder.path().to_str().expect("text");
        assert!(problem(folder).contains("is a folder"));
        std::fs::write(&path, "[blok]").expect("written");
        let unknown = problem(path.to_str().expect("text"));
        assert!(
            unknown.contains("line 1: no key is called `blok` here; did you mean `block`?"),
            "{unknown}"
        );
        assert!(problem("no-such").ends_with("; `blocktorrent sim list` lists the scenarios"));
        for (name, near) in [
            ("warm-99-loss", "warm-99-loss-"),
            ("cold-loss-l", "cold-loss-"),
            ("partitoin", "partition?"),
        ] {
            let problem = problem(name);
            assert!(
                problem.contains(&format!("did you mean {near}")),
                "{problem}"
            );
        }
        assert!(problem("/dev/null").contains("is no regular file"));
    }
}
