//! All nodes of a demo: started together, joined by links, ended together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::block::DemoBlock;
use super::child::{Heard, NodeProcess, Program, datadir};
use super::message::News;
use super::plan::{Links, Plan, warm};
use super::progress::Progress;
use super::rpc::Rpc;
use crate::cli::{DemoOptions, LinkKind};
use crate::config::{Fingerprint, NetworkName};
use crate::node::datadir::network_folder;
use crate::node::keys;

/// Lines of all nodes that wait to be looked at; a node holds 16,384 more of its own.
const MAX_LINES: usize = 4_096;
/// How long nodes may take to start, on a machine that is busy.
const START_TIME: Duration = Duration::from_secs(30);
/// How long nodes may take to end, before they are killed. They hold nothing that is of use later.
const END_TIME: Duration = Duration::from_secs(3);
/// Between two looks at whether the paths have been measured.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that the probes of one path take in each direction, about.
const PROBE_BYTES: f64 = 60_000.0;

/// The nodes. Dropped, they are killed.
#[derive(Debug)]
pub struct Fleet {
    network: NetworkName,
    processes: Vec<NodeProcess>,
    heard: mpsc::Receiver<(usize, Heard)>,
    /// Where others dial each node: an address, with its key before it if links are private.
    doors: Vec<Option<String>>,
    /// The keys of the nodes, if links are private.
    keys: Vec<Fingerprint>,
    rpcs: Vec<Option<Rpc>>,
}

impl Fleet {
    /// Starts the processes; they are not ready yet.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn start(
        folder: &Path,
        options: &DemoOptions,
        plan: &Plan,
        block: &DemoBlock,
    ) -> anyhow::Result<Self> {
        let (sender, heard) = mpsc::channel(MAX_LINES);
        let program = Program::own()?;
        let keys = match options.links {
            LinkKind::Native => Vec::new(),
            LinkKind::Quic => (0..plan.nodes)
                .map(|node| keys::make(&network_folder(&datadir(folder, node), block.network)))
                .collect::<anyhow::Result<_>>()?,
        };
        let processes = (0..plan.nodes)
            .map(|node| {
                let flags = flags(options, plan, block, (node, &keys));
                NodeProcess::start(&program, folder, node, &flags, sender.clone())
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            network: block.network,
            processes,
            heard,
            doors: vec![None; plan.nodes],
            keys,
            rpcs: vec![None; plan.nodes],
        })
    }

    /// The next that a node tells, already put into `progress`.
    ///
    /// # Errors
    ///
    /// A node has ended.
    pub async fn listen(&mut self, progress: &mut Progress) -> anyhow::Result<(usize, News)> {
        let (node, heard) = self
            .heard
            .recv()
            .await
            .ok_or_else(|| anyhow!("all nodes have ended"))?;
        let Heard::Line(line) = heard else {
            bail!("node {node} has ended before its time");
        };
        progress.hear(node, line.t_us, &line.news);
        if let News::Ready { control, rpc, quic } = line.news {
            let folder = self.folder(node)?;
            let rpc = Rpc::new(rpc, &folder)?;
            if let (Some(place), Some(known)) = (self.doors.get_mut(node), self.rpcs.get_mut(node))
            {
                *place = Some(match (self.keys.get(node), quic) {
                    (Some(key), Some(quic)) => format!("{key}@{quic}"),
                    _ => control.to_string(),
                });
                *known = Some(rpc);
            }
        }
        Ok((node, line.news))
    }

    /// Waits until all nodes listen.
    ///
    /// # Errors
    ///
    /// A node has ended, or they take too long.
    pub async fn ready(&mut self, progress: &mut Progress) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME;
        while self.rpcs.iter().any(Option::is_none) {
            timeout_at(deadline, self.listen(progress))
                .await
                .map_err(|_| {
                    anyhow!("the nodes were not ready after {} s", START_TIME.as_secs())
                })??;
        }
        Ok(())
    }

    /// Gives each node but the first its share of the transactions.
    ///
    /// # Errors
    ///
    /// A node does not take one.
    pub async fn warm(&self, shares: &[Vec<usize>], block: &DemoBlock) -> anyhow::Result<()> {
        for (node, share) in shares.iter().enumerate() {
            let transactions = share
                .iter()
                .filter_map(|index| block.transactions.get(*index))
                .map(String::as_str)
                .collect();
            self.rpc(node)?.hold(transactions).await?;
        }
        Ok(())
    }

    /// Joins the nodes, and waits until all sessions are up, their paths proven and measured, and all is quiet.
    ///
    /// Paths are not waited for without end: where most datagrams are lost, nodes do without.
    ///
    /// # Errors
    ///
    /// A node has ended, or a session is not made.
    pub async fn join(
        &mut self,
        plan: &Plan,
        options: &DemoOptions,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        for (one, other) in &plan.links {
            let address = self.doors.get(*other).and_then(Option::as_ref);
            let address = address.with_context(|| format!("node {other} does not listen"))?;
            let parameters = json!([address, "add"]);
            self.rpc(*one)?.call("addnode", parameters).await?;
        }
        let sessions_by = Instant::now() + START_TIME;
        while !(0..plan.nodes).all(|node| is_joined(plan, progress, node)) {
            timeout_at(sessions_by, self.listen(progress))
                .await
                .map_err(|_| {
                    anyhow!("not all sessions were up after {} s", START_TIME.as_secs())
                })??;
        }
        let settled_by = Instant::now() + settling_time(plan, options);
        loop {
            let mut settled = true;
            for node in 0..plan.nodes {
                let peers = self.rpc(node)?.call("getpeerinfo", json!([])).await?;
                settled &= peers.as_array().is_some_and(|peers| {
                    let quiet = |peer: &Value| {
                        (peer["transport"] == "udp" || peer["transport"] == "quic")
                            && peer["probing"] == false
                    };
                    peers.iter().all(quiet)
                });
            }
            while let Ok((node, heard)) = self.heard.try_recv() {
                match heard {
                    Heard::Line(line) => progress.hear(node, line.t_us, &line.news),
                    Heard::End => bail!("node {node} has ended before its time"),
                }
            }
            // What the last probe's end set off is still on its way.
            let delay = Duration::from_secs_f64(options.delay / 1e3);
            if settled || Instant::now() >= settled_by {
                sleep(SETTLE_PAUSE + delay * 2).await;
                return Ok(());
            }
            sleep(SETTLE_PAUSE + delay).await;
        }
    }

    /// Where a node answers.
    ///
    /// # Errors
    ///
    /// It is not ready.
    pub fn rpc(&self, node: usize) -> anyhow::Result<&Rpc> {
        let rpc = self.rpcs.get(node).and_then(Option::as_ref);
        rpc.with_context(|| format!("node {node} is not ready"))
    }

    /// Ends all nodes; none is left when it returns.
    pub async fn end(&mut self) {
        self.processes.iter_mut().for_each(NodeProcess::ask_to_stop);
        // Nobody listens any more, so that no node waits for a reader.
        self.heard.close();
        let deadline = Instant::now() + END_TIME;
        for process in &mut self.processes {
            process
                .end(deadline.saturating_duration_since(Instant::now()))
                .await;
        }
    }

    /// The processes, in the order of the nodes.
    pub fn processes(&self) -> &[NodeProcess] {
        &self.processes
    }

    fn folder(&self, node: usize) -> anyhow::Result<PathBuf> {
        let process = self.processes.get(node);
        let datadir = &process
            .with_context(|| format!("there is no node {node}"))?
            .folder;
        Ok(network_folder(datadir, self.network))
    }
}

/// What each node is given beforehand, by index of transaction.
pub fn shares(options: &DemoOptions, plan: &Plan, block: &DemoBlock) -> Vec<Vec<usize>> {
    let share = |node| match node {
        0 => Vec::new(),
        _ => warm(block.transactions.len(), options.warm, options.seed, node)
            .into_iter()
            .collect(),
    };
    (0..plan.nodes).map(share).collect()
}

fn is_joined(plan: &Plan, progress: &Progress, node: usize) -> bool {
    let up = progress.nodes().get(node).map_or(0, |node| node.up.len());
    up >= plan.neighbours(node).count()
}

/// How long paths may take to be proven and measured: the probes of each come one after another, lost ones
/// are waited for, and all leave through one uplink.
fn settling_time(plan: &Plan, options: &DemoOptions) -> Duration {
    let most = (0..plan.nodes).map(|node| plan.neighbours(node).count());
    let most = most.max().unwrap_or(1) as f64;
    let sending_s = Links::new(options)
        .rate_mbit
        .map_or(0.0, |mbit| most * PROBE_BYTES * 8.0 / mbit / 1e6);
    let losing_s = match options.loss {
        0.0 => 0.0,
        _ => 10.0,
    };
    Duration::from_secs_f64(5.0 + options.delay * 20.0 / 1e3 + sending_s + losing_s)
}

fn flags(
    options: &DemoOptions,
    plan: &Plan,
    block: &DemoBlock,
    (node, keys): (usize, &[Fingerprint]),
) -> Vec<String> {
    let any = "127.0.0.1:0".to_owned();
    let mut flags = Vec::new();
    let mut add = |name: &str, value: String| flags.extend([format!("--{name}"), value]);
    add("network", block.network.to_string());
    add("control-listen", any.clone());
    add("data-listen", any.clone());
    add("rpc-listen", any.clone());
    if !keys.is_empty() {
        add("quic-listen", any);
    }
    for key in keys {
        add("quic-allow", key.to_string());
    }
    add("p2p-listen", "off".to_owned());
    add("find-peers", "off".to_owned());
    add("trusted-start", block.trusted_start.clone());
    add("max-peers", plan.nodes.max(2).to_string());
    // Whoever connects to a node of the demo is meant to.
    add("reserved-outbound", "0".to_owned());
    add("log", "info".to_owned());
    if let Some(level) = options.push {
        add("push-level", level.to_string());
    }
    if options.loss > 0.0 {
        add("emulate-loss", options.loss.to_string());
    }
    if options.delay > 0.0 {
        add("emulate-delay-ms", options.delay.to_string());
    }
    if let Some(rate) = Links::new(options).rate_mbit {
        add("emulate-rate-mbit", rate.to_string());
    }
    let seed = options.seed.wrapping_mul(64).wrapping_add(node as u64);
    add("emulate-seed", seed.to_string());
    if !plan.is_honest(node) {
        flags.push("--test-lie".to_owned());
    }
    flags
}
