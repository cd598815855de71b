//! The judge: Bitcoin Core's consensus code, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bitcoin::BlockHash;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The judge's program; `None`, and a loud word, if there is none.
pub fn executable() -> Option<PathBuf> {
    let named = std::env::var_os("KERNEL_JUDGE_EXE").map(PathBuf::from);
    if named.is_none() {
        eprintln!("SKIPPED: no judge: build tests/kernel and set KERNEL_JUDGE_EXE");
    }
    named
}

/// A judge with a chain of its own, from genesis.
pub struct Judge {
    child: Child,
    blocks: ChildStdin,
    verdicts: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Judge {
    /// Starts one for `main` or `regtest`.
    pub fn start(program: &PathBuf, network: &str) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let mut child = Command::new(program)
            .arg(network)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the judge starts");
        Self {
            blocks: child.stdin.take().expect("it is piped"),
            verdicts: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
            _folder: folder,
        }
    }

    /// What it says of a block; `tests/kernel/src/main.rs` says what that means.
    pub fn judge(&mut self, block: &[u8]) -> Value {
        let length = u32::try_from(block.len()).expect("a block is short");
        let told = self
            .blocks
            .write_all(&length.to_le_bytes())
            .and_then(|()| self.blocks.write_all(block))
            .and_then(|()| self.blocks.flush());
        told.expect("the judge listens");
        let mut line = String::new();
        self.verdicts
            .read_line(&mut line)
            .expect("the judge speaks");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// A block that must be valid and the new tip.
    pub fn accepts(&mut self, hash: BlockHash, block: &[u8]) -> Value {
        let verdict = self.judge(block);
        assert_eq!(verdict["hash"], json!(hash), "{verdict}");
        assert_eq!(verdict["taken"], "new", "{verdict}");
        let checked = verdict["checked"].as_array().expect("a list");
        let is_valid = |it: &Value| it["fault"].is_null();
        assert!(
            !checked.is_empty() && checked.iter().all(is_valid),
            "{verdict}"
        );
        assert_eq!(verdict["tip"], json!(hash), "{verdict}");
        verdict
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
