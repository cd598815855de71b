//! The node processes of a lab: started in their places, told what they hold, joined, crashed and ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::ground::Ground;
use super::net::Net;
use super::switch::address_of;
use crate::cli::LinkKind;
use crate::config::Fingerprint;
use crate::net::Clock;
use crate::node::demo::child::{Heard, NodeProcess, Program};
use crate::node::demo::message::News;
use crate::node::demo::rpc::Rpc;
use crate::node::keys;
use crate::sim::Trial;
use crate::sim::workload::Workload;
use crate::time::Time;

/// Lines of all nodes that wait to be looked at; a node holds 16,384 more of its own.
const MAX_LINES: usize = 4_096;
/// How long nodes may take to start and to meet, on a machine that is busy.
const START_TIME: Duration = Duration::from_secs(30);
/// How long nodes may take to end, before they are killed. They hold nothing that is of use later.
const END_TIME: Duration = Duration::from_secs(3);
/// Between two looks at whether the paths have been measured.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// How long a call may take, on a machine that is busy: a node answers within milliseconds.
const CALL_TIME: Duration = Duration::from_secs(20);
/// How much longer a node may take for each transaction that it is given.
const HOLD_TIME: Duration = Duration::from_millis(1);
/// Lines of each log that are told after a failure.
const LOG_LINES: usize = 3;
/// The ports of every node for its peers, each in a namespace of its own.
const CONTROL_PORT: u16 = 18_432;
const DATA_PORT: u16 = 18_433;
const QUIC_PORT: u16 = 18_434;

/// What runs the nodes, and where.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program; it is told to end when the lab does.
    pub program: Program,
    /// The folder of datadirs and logs.
    pub folder: PathBuf,
    /// What links between nodes are.
    pub links: LinkKind,
}

impl Setup {
    /// With this program, or with another.
    ///
    /// # Errors
    ///
    /// The system does not say where this one is.
    pub fn new(node_exe: Option<&Path>, folder: &Path, links: LinkKind) -> anyhow::Result<Self> {
        let mut program = Program::own()?;
        program.before = dies_with_lab();
        if let Some(file) = node_exe {
            program.file = file.to_owned();
        }
        Ok(Self {
            program,
            folder: folder.to_owned(),
            links,
        })
    }
}

/// What is put before a command line so that the program, and all that it starts, is killed when the lab ends or ends it,
/// however that comes: it is the first process of a PID namespace, whose end the kernel makes the end of all in it, be it
/// a script that waits for the program proper. `unshare` dies with the lab's thread, and takes it along.
pub fn dies_with_lab() -> Vec<String> {
    let words = "setpriv --pdeathsig KILL -- unshare --pid --fork --kill-child=KILL --";
    words.split(' ').map(str::to_owned).collect()
}

/// A block that a node had whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// When.
    pub at: Time,
    /// Requests for it that the node had sent.
    pub requests: u64,
}

/// What became of a block that was to be handed in.
pub struct Answer {
    /// Its number.
    pub number: usize,
    /// When it was handed in, or would have been.
    pub at: Time,
    /// Why it was not taken, unless it was, or the node had crashed.
    pub taken: anyhow::Result<()>,
}

/// The nodes of one run. Dropped, they are killed.
pub struct Nodes<'a> {
    net: &'a Net,
    trial: &'a Trial,
    setup: &'a Setup,
    ground: Arc<Ground>,
    /// Flags that only one node has, by its number.
    flags: Vec<Vec<String>>,
    /// The keys of the nodes, if links are private.
    keys: Vec<Fingerprint>,
    slots: Vec<Slot>,
    sender: mpsc::Sender<(usize, Heard)>,
    heard: mpsc::Receiver<(usize, Heard)>,
    whole: BTreeMap<(usize, String), Whole>,
    /// Nodes that have crashed, be they up again.
    crashed: BTreeSet<usize>,
    /// One at a time hands blocks to a node, which has room for a few calls alone.
    turns: Vec<Arc<Semaphore>>,
    dropped: u64,
}

#[derive(Default)]
struct Slot {
    process: Option<NodeProcess>,
    rpc: Option<Rpc>,
    /// Sessions whose handshake is done.
    up: usize,
}

impl<'a> Nodes<'a> {
    /// Starts the processes, and waits until all listen. `flags` are those that only one node has, by its number.
    ///
    /// # Errors
    ///
    /// The system refuses, or a node ends.
    pub async fn start(
        net: &'a Net,
        trial: &'a Trial,
        setup: &'a Setup,
        ground: &Arc<Ground>,
        flags: Vec<Vec<String>>,
    ) -> anyhow::Result<Self> {
        let (sender, heard) = mpsc::channel(MAX_LINES);
        let mut nodes = Self {
            net,
            trial,
            setup,
            ground: Arc::clone(ground),
            flags,
            keys: Vec::new(),
            slots: (0..trial.plan.nodes).map(|_| Slot::default()).collect(),
            sender,
            heard,
            whole: BTreeMap::new(),
            crashed: BTreeSet::new(),
            turns: (0..trial.plan.nodes)
                .map(|_| Arc::new(Semaphore::new(1)))
                .collect(),
            dropped: 0,
        };
        if setup.links == LinkKind::Quic {
            let folders = (0..trial.plan.nodes).map(|node| nodes.folder(node));
            nodes.keys = folders
                .map(|folder| keys::make(&folder))
                .collect::<anyhow::Result<_>>()?;
        }
        for node in 0..trial.plan.nodes {
            nodes.launch(node).await?;
        }
        let deadline = Instant::now() + START_TIME;
        let listens = |slot: &Slot| slot.rpc.is_some();
        nodes
            .listen_until(deadline, |nodes| nodes.slots.iter().all(listens))
            .await?;
        Ok(nodes)
    }

    async fn launch(&mut self, node: usize) -> anyhow::Result<()> {
        let (setup, sender) = (self.setup.clone(), self.sender.clone());
        let mut flags = flags(self.trial, &self.ground, node);
        flags.extend(self.flags.get(node).into_iter().flatten().cloned());
        if !self.keys.is_empty() {
            let own = SocketAddr::from((address_of(node), QUIC_PORT));
            flags.extend(["--quic-listen".to_owned(), own.to_string()]);
        }
        for key in &self.keys {
            flags.extend(["--quic-allow".to_owned(), key.to_string()]);
        }
        let place = self.net.place(node)?;
        let process =
            place
                .run(async move {
                    NodeProcess::start(&setup.program, &setup.folder, node, &flags, sender)
                })
                .await?;
        *self.slot(node)? = Slot {
            process: Some(process),
            ..Slot::default()
        };
        Ok(())
    }

    fn slot(&mut self, node: usize) -> anyhow::Result<&mut Slot> {
        self.slots
            .get_mut(node)
            .with_context(|| format!("there is no node {node}"))
    }

    /// Listens to what nodes tell until something holds.
    async fn listen_until(
        &mut self,
        deadline: Instant,
        holds: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        while !holds(self) {
            let heard = timeout_at(deadline, self.listen()).await;
            heard.map_err(|_| {
                anyhow!("the nodes were not ready after {} s", START_TIME.as_secs())
            })??;
        }
        Ok(())
    }

    /// Takes in the next that a node tells.
    ///
    /// # Errors
    ///
    /// A node has ended that was not to.
    pub async fn listen(&mut self) -> anyhow::Result<()> {
        let heard = self.heard.recv().await;
        let (node, heard) = heard.context("all nodes have ended")?;
        self.hear(node, heard)
    }

    fn hear(&mut self, node: usize, heard: Heard) -> anyhow::Result<()> {
        let Heard::Line(line) = heard else {
            return match self.slot(node)?.process.take() {
                // It was crashed.
                None => Ok(()),
                Some(process) => {
                    let said = process.last_lines(LOG_LINES).join(" | ");
                    bail!("node {node} has ended before its time; it says: {said}")
                }
            };
        };
        match line.news {
            News::Ready { rpc, .. } => {
                let folder = self.folder(node);
                let slot = self.slot(node)?;
                slot.rpc = Some(Rpc::new(rpc, &folder)?);
            }
            News::Session { .. } => self.slot(node)?.up += 1,
            News::SessionDown { .. } => {
                let slot = self.slot(node)?;
                slot.up = slot.up.saturating_sub(1);
            }
            News::Complete { job, requests } => {
                let at = Time::from_nanos(line.t_us * 1_000);
                self.whole
                    .entry((node, job))
                    .or_insert(Whole { at, requests });
            }
            News::Dropped { count } => self.dropped += count,
            _ => {}
        }
        Ok(())
    }

    fn folder(&self, node: usize) -> PathBuf {
        let datadir = self.setup.folder.join(format!("node-{node}"));
        match self.ground.network.folder() {
            Some(folder) => datadir.join(folder),
            None => datadir,
        }
    }

    /// Calls a node, from inside its place.
    ///
    /// # Errors
    ///
    /// It is not there, or answers with an error.
    pub async fn call(
        &self,
        node: usize,
        method: &'static str,
        parameters: Value,
    ) -> anyhow::Result<Value> {
        let rpc = self.rpc(node)?;
        let call = async move { rpc.call(method, parameters).await };
        answered(node, CALL_TIME, self.net.place(node)?.run(call)).await
    }

    fn rpc(&self, node: usize) -> anyhow::Result<Rpc> {
        let rpc = self.slots.get(node).and_then(|slot| slot.rpc.clone());
        rpc.with_context(|| format!("node {node} is not ready"))
    }

    /// Gives each node the transactions that it has beforehand.
    ///
    /// # Errors
    ///
    /// A node does not take one.
    pub async fn fill_mempools(&self) -> anyhow::Result<()> {
        for node in 0..self.slots.len() {
            self.fill_mempool(node).await?;
        }
        Ok(())
    }

    async fn fill_mempool(&self, node: usize) -> anyhow::Result<()> {
        let (ground, rpc) = (Arc::clone(&self.ground), self.rpc(node)?);
        let mut held = Vec::new();
        for (number, block) in self.trial.blocks.iter().enumerate() {
            let mut lacked = block.lacked.get(node).into_iter().flatten().peekable();
            let places = 1..=block.workload.transactions.len() as u32;
            let has = places.filter(|place| lacked.next_if(|lacked| *lacked == place).is_none());
            held.push((number, has.collect::<Vec<u32>>()));
        }
        let others = self.trial.scenario.mempool.others as usize;
        // The seed is that of the simulator's.
        let seed = self.trial.seed ^ 0x6f74_6865_7273;
        let others = match others {
            0 => Vec::new(),
            count => Workload::of_sizes(&vec![250; count], seed).transactions,
        };
        let count = others.len() + held.iter().map(|(_, places)| places.len()).sum::<usize>();
        let patience = CALL_TIME + HOLD_TIME * u32::try_from(count).unwrap_or(u32::MAX);
        let give = async move {
            use hex::DisplayHex as _;
            let others: Vec<String> = others.iter().map(|it| it.to_lower_hex_string()).collect();
            let mut all: Vec<&str> = others.iter().map(String::as_str).collect();
            for (number, places) in &held {
                let block = ground
                    .blocks
                    .get(*number)
                    .context("there is no such block")?;
                let at = |place: &u32| block.transactions.get(*place as usize - 1);
                all.extend(places.iter().filter_map(at).map(String::as_str));
            }
            match all.is_empty() {
                true => Ok(()),
                false => rpc.hold(all).await,
            }
        };
        answered(node, patience, self.net.place(node)?.run(give)).await
    }

    /// Joins the nodes, and waits until all sessions are up, and their paths proven and measured.
    ///
    /// Paths are not waited for without end: where most datagrams are lost, nodes do without.
    ///
    /// # Errors
    ///
    /// A node has ended, or a session is not made.
    pub async fn join(&mut self) -> anyhow::Result<()> {
        for &(low, high) in &self.trial.plan.edges {
            self.dial(high, low).await?;
        }
        let neighbours: Vec<usize> = self.trial.plan.neighbours().iter().map(Vec::len).collect();
        let deadline = Instant::now() + START_TIME;
        let met = |nodes: &Self| {
            nodes
                .slots
                .iter()
                .zip(&neighbours)
                .all(|(slot, count)| slot.up >= *count)
        };
        self.listen_until(deadline, met)
            .await
            .context("not all sessions came up")?;
        let least =
            Instant::now() + Duration::from_secs_f64(self.trial.scenario.limit.settle_ms / 1e3);
        let most = least + self.settling_time();
        loop {
            let mut settled = true;
            for node in 0..self.slots.len() {
                let peers = self.call(node, "getpeerinfo", json!([])).await?;
                let quiet = |peer: &Value| {
                    (peer["transport"] == "udp" || peer["transport"] == "quic")
                        && peer["probing"] == false
                };
                settled &= peers
                    .as_array()
                    .is_some_and(|peers| peers.iter().all(quiet));
            }
            self.catch_up()?;
            let now = Instant::now();
            if now >= least && (settled || now >= most || !self.trial.scenario.link.udp) {
                return Ok(());
            }
            sleep(SETTLE_PAUSE).await;
        }
    }

    /// How much longer than the scenario says paths may take: a path of the slowest delay is probed in tens of round
    /// trips, and a probe that is lost is waited for.
    fn settling_time(&self) -> Duration {
        let links = self.trial.links.iter().flatten();
        let delay = links
            .map(|link| link.delay + link.jitter)
            .max()
            .unwrap_or_default();
        Duration::from_secs(10) + delay * 20
    }

    async fn dial(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let at = |port| SocketAddr::from((address_of(to), port));
        let target = match self.keys.get(to) {
            Some(key) => format!("{key}@{}", at(QUIC_PORT)),
            None => at(CONTROL_PORT).to_string(),
        };
        let parameters = json!([target, "add"]);
        self.call(from, "addnode", parameters).await?;
        Ok(())
    }

    /// Takes in what nodes have told already.
    ///
    /// # Errors
    ///
    /// A node has ended that was not to.
    pub fn catch_up(&mut self) -> anyhow::Result<()> {
        while let Ok((node, heard)) = self.heard.try_recv() {
            self.hear(node, heard)?;
        }
        Ok(())
    }

    /// Hands a block in, once those before it were. `answers` gets when that was, just before the call; of a node that
    /// has crashed, when it would have been.
    ///
    /// # Errors
    ///
    /// There is no such block or node.
    pub fn submit(
        &self,
        number: usize,
        clock: Clock,
        answers: mpsc::Sender<Answer>,
    ) -> anyhow::Result<()> {
        let block = self.trial.blocks.get(number);
        let source = block.context("there is no such block")?.source;
        let turn = Arc::clone(self.turns.get(source).context("there is no such node")?);
        let ground = Arc::clone(&self.ground);
        let rpc = self.rpc(source);
        let submit = async move {
            let _turn = turn.acquire_owned().await;
            let at = clock.now();
            let call = async {
                let block = ground.blocks.get(number);
                let parameters = json!([block.context("there is no such block")?.hex]);
                match rpc?.call("submitblock", parameters).await? {
                    Value::Null => Ok(()),
                    word => bail!("node {source} does not take block {number}: {word}"),
                }
            };
            let taken = answered(source, CALL_TIME, call).await;
            // Whoever does not listen any more has given up.
            answers.send(Answer { number, at, taken }).await.ok();
        };
        self.net.place(source)?.spawn(submit);
        Ok(())
    }

    /// Whether a node has crashed, be it up again.
    pub fn has_crashed(&self, node: usize) -> bool {
        self.crashed.contains(&node)
    }

    /// Ends a node as a loss of power would, and takes what it held.
    ///
    /// # Errors
    ///
    /// Its folder can't be removed.
    pub async fn crash(&mut self, node: usize) -> anyhow::Result<()> {
        let slot = self.slot(node)?;
        let Some(mut process) = slot.process.take() else {
            return Ok(());
        };
        *slot = Slot::default();
        self.crashed.insert(node);
        process.kill().await;
        // Its last word, so that it is not taken for that of the next one.
        loop {
            let (from, heard) = self.heard.recv().await.context("all nodes have ended")?;
            let last = from == node && matches!(heard, Heard::End);
            self.hear(from, heard)?;
            if last {
                break;
            }
        }
        self.slot(node)?.rpc = None;
        let folder = process.folder.clone();
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("can't remove {}", folder.display()))
    }

    /// Starts a node that crashed anew, and lets it dial those it had dialled.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        if self.slot(node)?.process.is_some() {
            return Ok(());
        }
        self.launch(node).await?;
        let deadline = Instant::now() + START_TIME;
        let listens = |nodes: &Self| nodes.slots.get(node).is_some_and(|slot| slot.rpc.is_some());
        self.listen_until(deadline, listens).await?;
        for &(low, high) in &self.trial.plan.edges {
            if high == node {
                self.dial(high, low).await?;
            }
        }
        Ok(())
    }

    /// When a node had a block whole.
    pub fn whole(&self, node: usize, number: usize) -> Option<Whole> {
        let block = self.ground.blocks.get(number)?;
        self.whole.get(&(node, block.hash.clone())).copied()
    }

    /// Lines that nodes lost on the way here: what they told may be incomplete.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Ends all nodes; none is left when it returns.
    pub async fn end(mut self) {
        let processes: Vec<_> = self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.process.take())
            .collect();
        self.heard.close();
        let deadline = Instant::now() + END_TIME;
        let mut asked = processes;
        asked.iter_mut().for_each(NodeProcess::ask_to_stop);
        for process in &mut asked {
            process
                .end(deadline.saturating_duration_since(Instant::now()))
                .await;
        }
    }
}

/// What a node answers, or that it does not.
async fn answered<T>(
    node: usize,
    patience: Duration,
    call: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let answer = timeout(patience, call).await;
    answer.map_err(|_| {
        let seconds = patience.as_secs();
        anyhow!("node {node} does not answer: it was given {seconds} s")
    })?
}

fn flags(trial: &Trial, ground: &Ground, node: usize) -> Vec<String> {
    let spec = &trial.scenario.node;
    let own = address_of(node);
    let mut flags = Vec::new();
    let mut add = |name: &str, value: String| flags.extend([format!("--{name}"), value]);
    add("network", ground.network.to_string());
    add("control-listen", format!("{own}:{CONTROL_PORT}"));
    add("data-listen", format!("{own}:{DATA_PORT}"));
    add("rpc-listen", "127.0.0.1:0".to_owned());
    add("p2p-listen", "off".to_owned());
    add("find-peers", "off".to_owned());
    if let Some(start) = &ground.trusted_start {
        add("trusted-start", start.clone());
    }
    let peers = spec.max_peers.unwrap_or(64);
    add("max-peers", peers.to_string());
    // Whoever connects to a node of the lab is meant to.
    add("reserved-outbound", "0".to_owned());
    add("max-per-group", peers.to_string());
    add("push-level", spec.push_level.to_string());
    add("preference", spec.preference.to_string());
    for (name, mbit) in [
        ("max-up-mbit", spec.max_up_mbit),
        ("max-down-mbit", spec.max_down_mbit),
    ] {
        if mbit > 0.0 {
            add(name, format!("{mbit:.0}"));
        }
    }
    add("log", "info".to_owned());
    if !trial.is_honest(node) {
        flags.push("--test-lie".to_owned());
    }
    flags
}
