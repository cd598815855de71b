//! One bitcoind as a process: started, called, and ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::nodes::dies_with_lab;
use super::super::place::Place;
use super::super::switch::address_of;
use crate::node::demo::rpc::Rpc;

/// How long a bitcoind may take to start, on a machine that is busy.
const START_TIME: Duration = Duration::from_secs(60);
/// How long one that is killed may take to be gone.
const END_TIME: Duration = Duration::from_secs(5);
/// Ports of every bitcoind, each in a namespace of its own.
pub const P2P_PORT: u16 = 18_444;
const RPC_PORT: u16 = 18_443;
const ZMQ_PORT: u16 = 28_332;

/// A bitcoind on regtest. Dropped, it is killed.
pub struct Bitcoind {
    child: Child,
    /// Where it answers; from inside its place alone.
    pub rpc: Rpc,
    folder: PathBuf,
    /// Reads its log until it, and all that it started, has ended.
    ended: JoinHandle<()>,
}

impl Bitcoind {
    /// Starts one below `root`, in the place of node number `node`, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// It does not start, and what it says.
    pub async fn start(
        place: &Place,
        executable: &Path,
        root: &Path,
        node: usize,
    ) -> anyhow::Result<Self> {
        let folder = root.join(format!("bitcoind-{node}"));
        std::fs::create_dir(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let errors = root.join(format!("bitcoind-{node}.err"));
        let stderr =
            File::create(&errors).with_context(|| format!("can't write {}", errors.display()))?;
        let (executable, theirs) = (executable.to_owned(), folder.clone());
        let started = async move {
            let mut words = dies_with_lab().into_iter();
            let mut command = Command::new(words.next().unwrap_or_default());
            command
                .args(words)
                .arg(executable)
                .args(arguments(&theirs, node))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(stderr)
                .process_group(0)
                .kill_on_drop(true);
            let mut child = command.spawn().context("can't start it")?;
            let stdout = child.stdout.take().context("it has no stdout")?;
            let mut lines = BufReader::new(stdout).lines();
            let mut last = String::new();
            loop {
                match timeout(START_TIME, lines.next_line())
                    .await
                    .context("it takes too long")??
                {
                    Some(line) if line.contains("Done loading") => break,
                    Some(line) => last = line,
                    None => {
                        let said = std::fs::read_to_string(&errors).unwrap_or_default();
                        let said = said.lines().rfind(|line| !line.trim().is_empty());
                        bail!("it has ended; it says: {}", said.unwrap_or(&last))
                    }
                }
            }
            // Its log goes on, and must be read; the file has it, too.
            let ended =
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            Ok((child, ended))
        };
        let (child, ended) = place.run(started).await?;
        let rpc = Rpc::new(([127, 0, 0, 1], RPC_PORT).into(), &folder.join("regtest"))?;
        Ok(Self {
            child,
            rpc,
            folder,
            ended,
        })
    }

    /// Calls a method, from inside its place.
    ///
    /// # Errors
    ///
    /// It is not there, or answers with an error.
    pub async fn call(
        &self,
        place: &Place,
        method: &'static str,
        parameters: Value,
    ) -> anyhow::Result<Value> {
        let rpc = self.rpc.clone();
        place
            .run(async move { rpc.call(method, parameters).await })
            .await
    }

    /// Ends it at once: there is nothing to be saved.
    pub async fn end(&mut self) {
        self.child.kill().await.ok();
        // What is killed is what holds it; it follows at once.
        let _ = timeout(END_TIME, &mut self.ended).await;
    }

    /// How its relay reaches it, as `--bitcoind` takes it.
    pub fn spec(&self) -> String {
        format!(
            "rpc=127.0.0.1:{RPC_PORT},cookie={},p2p=127.0.0.1:{P2P_PORT},zmq=tcp://127.0.0.1:{ZMQ_PORT}",
            self.folder.join("regtest").join(".cookie").display()
        )
    }
}

/// What README says of a bitcoind beside a relay, and what a chain of regtest needs.
fn arguments(folder: &Path, node: usize) -> Vec<String> {
    let zmq = format!("tcp://127.0.0.1:{ZMQ_PORT}");
    let mut arguments: Vec<String> = [
        "-regtest",
        "-server",
        "-printtoconsole=1",
        "-dnsseed=0",
        "-fixedseeds=0",
        "-discover=0",
        "-listenonion=0",
        "-natpmp=0",
        "-acceptnonstdtxn=1",
        "-whitelist=noban@127.0.0.1",
        "-debug=cmpctblock",
        // Regtest looks at everything again after each change, which takes longer than what is measured.
        "-checkmempool=0",
        "-checkblockindex=0",
        "-logtimemicros=1",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("-datadir={}", folder.display()));
    arguments.push(format!("-rpcport={RPC_PORT}"));
    for address in ["127.0.0.1".to_owned(), address_of(node).to_string()] {
        arguments.push(format!("-bind={address}:{P2P_PORT}"));
    }
    for topic in ["rawblock", "hashblock", "rawtx", "sequence"] {
        arguments.push(format!("-zmqpub{topic}={zmq}"));
    }
    arguments
}
