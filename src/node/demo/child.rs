//! One node as a process: started, listened to, and ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::message::{self, Line};

/// Bytes of the end of a log that are looked at for its last lines.
const TAIL_BYTES: usize = 4_096;

/// What a node's stdout brings.
#[derive(Debug)]
pub enum Heard {
    /// A line.
    Line(Line),
    /// It has ended: so has the node.
    End,
}

/// The program that runs a node.
#[derive(Clone, Debug)]
pub struct Program {
    /// What is put before it on its command line, such as `setpriv` with its flags.
    pub before: Vec<String>,
    /// Its file.
    pub file: PathBuf,
}

impl Program {
    /// This program itself.
    ///
    /// # Errors
    ///
    /// The system does not say where it is.
    pub fn own() -> anyhow::Result<Self> {
        let file = std::env::current_exe().context("can't find this program's own file")?;
        let before = Vec::new();
        Ok(Self { before, file })
    }

    /// A command that starts it.
    pub fn command(&self) -> Command {
        let mut words = self.before.iter();
        match words.next() {
            None => Command::new(&self.file),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.file);
                command
            }
        }
    }
}

/// The datadir of node number `node` below `root`.
pub fn datadir(root: &Path, node: usize) -> PathBuf {
    root.join(format!("node-{node}"))
}

/// A running node. Dropped, it is killed.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    /// While it is open, the node runs (`--stop-at-eof`).
    stdin: Option<ChildStdin>,
    /// Its datadir.
    pub folder: PathBuf,
    log: PathBuf,
}

impl NodeProcess {
    /// Starts node number `node` below `root`, with `flags`; what it tells goes to `heard`.
    ///
    /// # Errors
    ///
    /// The system refuses a process or a file.
    pub fn start(
        program: &Program,
        root: &Path,
        node: usize,
        flags: &[String],
        heard: mpsc::Sender<(usize, Heard)>,
    ) -> anyhow::Result<Self> {
        let folder = datadir(root, node);
        let log = root.join(format!("node-{node}.log"));
        let stderr =
            File::create(&log).with_context(|| format!("can't write the log {}", log.display()))?;
        let mut command = program.command();
        command
            .args(["node", "--events-stdout", "--stop-at-eof", "--datadir"])
            .arg(&folder)
            .args(["--uacomment", &message::comment(node)])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true);
        // Ctrl-C is for the demo alone, which then ends its nodes.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("can't start {}", program.file.display()))?;
        let stdin = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(text)) = lines.next_line().await {
                    let Ok(line) = serde_json::from_str(&text) else {
                        continue;
                    };
                    if heard.send((node, Heard::Line(line))).await.is_err() {
                        return;
                    }
                }
                heard.send((node, Heard::End)).await.ok();
            });
        }
        Ok(Self {
            child,
            stdin,
            folder,
            log,
        })
    }

    /// Asks the node to stop.
    pub fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Ends the node at once, as a loss of power would.
    pub async fn kill(&mut self) {
        self.child.kill().await.ok();
    }

    /// Waits for the node to end, and kills it if that takes longer than `patience`.
    pub async fn end(&mut self, patience: Duration) {
        if tokio::time::timeout(patience, self.child.wait())
            .await
            .is_err()
        {
            self.child.kill().await.ok();
        }
    }

    /// The file with the node's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the node's log.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let tail = bytes.split_at(bytes.len().saturating_sub(TAIL_BYTES)).1;
        let text = String::from_utf8_lossy(tail);
        let lines: Vec<&str> = text.lines().collect();
        let skip = lines.len().saturating_sub(count);
        lines.into_iter().skip(skip).map(str::to_owned).collect()
    }
}
