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

/// A scenario, and the content of the file that it names.
pub struct Material {
    /// What is to be run.
    pub scenario: Scenario,
    block: Option<Bytes>,
}

/// A complaint about what was asked for, not about the machine.
pub fn senseless(problem: String) -> ScenarioError {
    ScenarioError {
        file: "sim".to_owned(),
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
        let path = Path::new(name);
        let (text, folder) = match standard::text(name) {
            Some(text) => (text.to_owned(), PathBuf::new()),
            None if path.is_file() => {
                let bytes = bounded(path, MAX_SCENARIO_BYTES)?;
                let text = String::from_utf8(bytes).map_err(|_| {
                    senseless(format!("{name} is no text; give a scenario in TOML"))
                })?;
                (text, path.parent().map(Path::to_owned).unwrap_or_default())
            }
            None => {
                let problem = format!(
                    "no scenario and no file is called {name:?}; `blocktorrent sim list` lists the scenarios"
                );
                return Err(senseless(problem).into());
            }
        };
        let scenario = Scenario::with_changes(name, &text, changes)?;
        let block = match &scenario.block.file {
            Some(file) => Some(Bytes::from(bounded(&folder.join(file), MAX_BLOCK_FILE)?)),
            None => None,
        };
        Ok(Self { scenario, block })
    }

    /// Takes other seeds than the scenario's.
    pub fn seeds(&mut self, seed: Option<u64>, runs: Option<u32>) {
        self.scenario.seed = seed.unwrap_or(self.scenario.seed);
        self.scenario.runs = runs.unwrap_or(self.scenario.runs);
    }

    /// The trial of one seed.
    ///
    /// # Errors
    ///
    /// As [`Trial::new`].
    pub fn trial(&self, seed: u64) -> Result<Trial, ScenarioError> {
        Trial::new(&self.scenario, seed, self.block.clone())
    }
}

fn bounded(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
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
            missing.starts_with("can't read ") && missing.contains("c.raw"),
            "{missing}"
        );
        std::fs::write(&path, "[blok]").expect("written");
        let unknown = problem(path.to_str().expect("text"));
        assert!(
            unknown.contains("line 1: no key is called `blok` here; did you mean `block`?"),
            "{unknown}"
        );
        assert!(problem("no-such").contains("`blocktorrent sim list`"));
    }
}
