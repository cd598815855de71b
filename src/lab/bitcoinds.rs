//! Bitcoin Core over the links of a scenario: once its nodes joined to each other, once with a relay beside each.
//!
//! ```text
//!   bip152         bitcoind ◀── the scenario's link ──▶ bitcoind            compact blocks in high-bandwidth mode
//!   blocktorrent   bitcoind ◀─▶ relay ◀── the link ──▶ relay ◀─▶ bitcoind   a bitcoind and its relay share a namespace
//! ```
//!
//! Blocks are valid on regtest; mempools hold what the scenario says and nothing travels that is not for the block:
//! bitcoinds are joined by connections for blocks alone. Time counts from just before `submitblock` at the first
//! bitcoind, to when `waitforblock` returns at each: the call's own way, a fraction of a millisecond, is in it.
//! Some small blocks pass before, so that bitcoinds know whom to ask for high-bandwidth mode; then all rests for a while,
//! as it does between blocks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash, CompactTarget};
use bytes::Bytes;
use hex::DisplayHex as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use self::program::{Bitcoind, P2P_PORT};
use super::feasible::refusal;
use super::ground::{Ground, Grounded};
use super::net::Net;
use super::nodes::{Nodes, Setup};
use super::run::Emulation;
use super::switch::address_of;
use crate::config::NetworkName;
use crate::net::Clock;
use crate::sim::chain::{ChainMaker, MATURITY, SPACING_S};
use crate::sim::outcome::Outcome;
use crate::sim::protocol;
use crate::sim::scenario::{BlockSpec, Scenario, ScenarioError};
use crate::sim::workload::WORK;
use crate::sim::{Topology, Trial};
use crate::time::Time;

pub use report::Report;

mod program;
mod report;

/// How long anything may take that crosses the links.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether relays have what their bitcoinds have.
const PAUSE: Duration = Duration::from_millis(50);
/// How long all rests before the block: longer than a connection of TCP remembers its window.
const REST: Duration = Duration::from_secs(2);
/// Between the calls that wait for the block and its submission.
const HEAD_START: Duration = Duration::from_millis(100);
/// Small blocks before the one that counts. High-bandwidth mode is asked for after the first that a peer brought.
const PRIMING_BLOCKS: usize = 3;
const PRIMING_TRANSACTIONS: usize = 20;
/// Transactions that make coins, block after block: 16,000 coins at the end, several times what the largest block takes.
const SPLITS: [usize; 3] = [1, 40, 400];
/// Transactions of a block at most: each takes two coins or so of those.
const MAX_TRANSACTIONS: usize = 6_000;
/// Bitcoinds at most: each takes a process with some hundred megabytes.
const MAX_BITCOINDS: usize = 8;
/// Connections for blocks alone that a bitcoind opens at most (`MAX_BLOCK_RELAY_ONLY_CONNECTIONS`).
const MAX_DIALS: usize = 2;

/// How bitcoinds get blocks from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Joined to each other.
    Bip152,
    /// With a relay beside each, and these joined.
    Blocktorrent,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bip152, Self::Blocktorrent];

    /// Its name in folders and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bip152 => "bip152",
            Self::Blocktorrent => "blocktorrent",
        }
    }
}

/// One run, one way.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Which way.
    pub way: Way,
    /// Bytes of the block.
    pub block_bytes: usize,
    /// Its transactions.
    pub transactions: usize,
    /// Where it was submitted.
    pub source: usize,
    /// When each bitcoind had accepted it, from the submission; `None`: not in time.
    pub accepted_ms: Vec<Option<f64>>,
    /// When each relay had it whole and verified; empty without relays.
    pub whole_ms: Vec<Option<f64>>,
    /// How soon each node could have it at best.
    pub bound_ms: Vec<Option<f64>>,
    /// When each node has it in the simulator, by the protocol that goes this way.
    pub simulated_ms: Vec<Option<f64>>,
    /// How true the links were.
    pub emulation: Emulation,
}

/// Says in a line why bitcoinds can't run a scenario, and what to do.
///
/// # Errors
///
/// They can't.
pub fn check(scenario: &Scenario) -> Result<(), ScenarioError> {
    let instead = "or leave bitcoinds out with --only nodes";
    let topology = &scenario.topology;
    let dials = match topology.kind {
        Topology::Line | Topology::Star => 1,
        Topology::Ring => 2,
        _ => topology.nodes.saturating_sub(1),
    };
    let problem = if topology.nodes > MAX_BITCOINDS {
        format!(
            "it runs at most {MAX_BITCOINDS} bitcoinds; give --set topology.nodes={MAX_BITCOINDS}, {instead}"
        )
    } else if dials > MAX_DIALS {
        format!(
            "a bitcoind opens at most {MAX_DIALS} connections for blocks alone; give a line, a ring or a star, {instead}"
        )
    } else if scenario.block.count > 1 || scenario.block.racing > 1 {
        format!(
            "bitcoinds get one block a run; give --set block.count=1 --set block.unmeasured=0 --set block.racing=1, {instead}"
        )
    } else if scenario.block.file.is_some() || scenario.block.real.is_some() {
        format!("bitcoinds take no block whose past they lack; give a synthetic block, {instead}")
    } else if !scenario.event.is_empty() || !scenario.adversary.is_empty() {
        format!("bitcoinds run without events and adversaries; give a scenario without, {instead}")
    } else {
        return Ok(());
    };
    Err(refusal(scenario, &problem))
}

/// The chain of a run, the block that counts apart.
struct Chain {
    base: Vec<Block>,
    priming: Vec<Block>,
    block: Block,
}

impl Chain {
    /// The block is found ten minutes before `now`: to bitcoinds whose tip is old, a compact block is only a header.
    fn new(seed: u64, transactions: usize, now: Time) -> Self {
        let before = MATURITY as usize + SPLITS.len() + PRIMING_BLOCKS + 1;
        let start = now.as_unix_seconds() - before as u64 * u64::from(SPACING_S);
        let mut maker = ChainMaker::starting_at(seed, u32::try_from(start).unwrap_or(u32::MAX));
        let mut base: Vec<Block> = (0..MATURITY).map(|_| maker.block(0)).collect();
        base.extend(SPLITS.map(|count| maker.splitting_block(count)));
        let mut priming = || maker.block_of_earlier_coins(PRIMING_TRANSACTIONS);
        let priming = (0..PRIMING_BLOCKS).map(|_| priming()).collect();
        Self {
            base,
            priming,
            block: maker.block_of_earlier_coins(transactions),
        }
    }
}

/// The scenario with a block that the lab makes.
fn of_the_lab(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    scenario.block = BlockSpec {
        file: Some("of the lab".to_owned()),
        from: scenario.block.from.clone(),
        ..BlockSpec::default()
    };
    scenario
}

/// The block as a simulated world takes it: without a parent, and with more work than regtest demands. Its size stays.
fn with_work(mut block: Block) -> Block {
    block.header.prev_blockhash = BlockHash::all_zeros();
    block.header.bits = CompactTarget::from_consensus(WORK);
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}

/// Runs bitcoinds on a scenario, with a block of as many transactions as it has.
///
/// # Errors
///
/// One line: what the system refuses, or a program that ends before its time.
pub async fn run(
    drawn: &Trial,
    bitcoind: &Path,
    setup: &Setup,
    congestion: &str,
    way: Way,
) -> anyhow::Result<Run> {
    let planned = drawn.blocks.first().context("the scenario has no block")?;
    let (seed, source) = (drawn.seed, planned.source);
    let transactions = planned.workload.transactions.len();
    ensure!(
        transactions <= MAX_TRANSACTIONS,
        "there are coins for {MAX_TRANSACTIONS} transactions; give --set block.transactions={MAX_TRANSACTIONS} or less"
    );
    let clock = Clock::start();
    let chain = move || Chain::new(seed, transactions, clock.now());
    let chain = tokio::task::spawn_blocking(chain);
    let chain = chain.await.context("making blocks was cut short")?;
    let bytes = Bytes::from(serialize(&with_work(chain.block.clone())));
    // The same with the block that bitcoinds get, so that bounds and what nodes lack are of its sizes.
    let scenario = of_the_lab(&drawn.scenario);
    let trial = Trial::new(&scenario, seed, Some(bytes))?;
    let net = Net::new(&trial, congestion, clock)?;
    let stage = Stage::set(&net, &trial, bitcoind, setup, &chain, way).await?;
    let measured = stage.measure(&chain, source, clock).await?;
    let simulated = simulate(trial.clone(), way, congestion).await?;
    let block = trial.blocks.first().context("the scenario has no block")?;
    let bounds = block.bounds_of(&measured.accepted_ms);
    let first = simulated.blocks.first();
    Ok(Run {
        seed,
        way,
        block_bytes: block.workload.block.len(),
        transactions: chain.block.txdata.len(),
        source,
        accepted_ms: measured.accepted_ms,
        whole_ms: measured.whole_ms,
        bound_ms: bounds
            .into_iter()
            .map(|bound| bound.map(|bound| bound.as_secs_f64() * 1e3))
            .collect(),
        simulated_ms: first
            .map(|block| block.nodes.iter().map(|part| part.whole_ms).collect())
            .unwrap_or_default(),
        emulation: measured.emulation,
    })
}

/// The same in the simulator. What is not CUBIC is BBR to it.
async fn simulate(trial: Trial, way: Way, congestion: &str) -> anyhow::Result<Outcome> {
    let name = match (way, congestion) {
        (Way::Blocktorrent, _) => "blocktorrent",
        (Way::Bip152, "cubic") => "bip152-hb-cubic",
        (Way::Bip152, _) => "bip152-hb",
    };
    let protocol =
        protocol::named(name).with_context(|| format!("no protocol is called {name}"))?;
    let simulated = tokio::task::spawn_blocking(move || protocol.run(&trial, &mut |_| {}));
    simulated.await.context("the simulator was cut short")
}

struct Measured {
    accepted_ms: Vec<Option<f64>>,
    whole_ms: Vec<Option<f64>>,
    emulation: Emulation,
}

/// Programs that are ready for the block.
struct Stage<'a> {
    net: &'a Net,
    trial: &'a Trial,
    bitcoinds: Vec<Bitcoind>,
    relays: Option<Nodes<'a>>,
}

impl<'a> Stage<'a> {
    async fn set(
        net: &'a Net,
        trial: &'a Trial,
        executable: &Path,
        setup: &'a Setup,
        chain: &Chain,
        way: Way,
    ) -> anyhow::Result<Self> {
        let mut stage = Self {
            net,
            trial,
            bitcoinds: Vec::new(),
            relays: None,
        };
        for node in 0..trial.plan.nodes {
            let started = Bitcoind::start(net.place(node)?, executable, &setup.folder, node).await;
            stage
                .bitcoinds
                .push(started.with_context(|| format!("bitcoind {node} does not start"))?);
        }
        for node in 0..trial.plan.nodes {
            for block in &chain.base {
                stage
                    .submit(node, &serialize(block).to_lower_hex_string())
                    .await?;
            }
        }
        match way {
            Way::Bip152 => stage.join_bitcoinds().await?,
            Way::Blocktorrent => {
                let ground = Arc::new(Ground {
                    network: NetworkName::Regtest,
                    trusted_start: None,
                    blocks: vec![Grounded {
                        hash: chain.block.block_hash().to_string(),
                        hex: String::new(),
                        transactions: Vec::new(),
                    }],
                });
                let beside = |node: usize| stage.bitcoinds.get(node).map(Bitcoind::spec);
                let flags = (0..trial.plan.nodes).filter_map(beside);
                let flags = flags
                    .map(|spec| vec!["--bitcoind".to_owned(), spec])
                    .collect();
                let mut relays = Nodes::start(net, trial, setup, &ground, flags).await?;
                relays.join().await?;
                let tip = chain.base.last().map(Block::block_hash);
                let tip = json!(tip.map(|hash| hash.to_string()));
                let at_tip = |answer: &Value| *answer == tip;
                all_relays(&relays, trial, "getbestblockhash", at_tip).await?;
                stage.relays = Some(relays);
            }
        }
        Ok(stage)
    }

    /// Lets each node dial those of its neighbours that have lower numbers.
    async fn join_bitcoinds(&self) -> anyhow::Result<()> {
        for &(low, high) in &self.trial.plan.edges {
            let address = format!("{}:{P2P_PORT}", address_of(low));
            let parameters = json!([address, "block-relay-only", false]);
            self.call(high, "addconnection", parameters).await?;
        }
        let joined = async {
            for (node, neighbours) in self.trial.plan.neighbours().iter().enumerate() {
                loop {
                    let peers = self.call(node, "getpeerinfo", json!([])).await?;
                    let peers = peers.as_array().map(Vec::as_slice).unwrap_or_default();
                    let greeted = peers
                        .iter()
                        .filter(|peer| peer["bytesrecv_per_msg"]["verack"].is_number());
                    if greeted.count() >= neighbours.len() {
                        break;
                    }
                    sleep(PAUSE).await;
                }
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, joined)
            .await
            .context("the bitcoinds do not meet")?
    }

    async fn call(
        &self,
        node: usize,
        method: &'static str,
        parameters: Value,
    ) -> anyhow::Result<Value> {
        let bitcoind = self
            .bitcoinds
            .get(node)
            .context("there is no such bitcoind")?;
        bitcoind
            .call(self.net.place(node)?, method, parameters)
            .await
    }

    async fn submit(&self, node: usize, hex: &str) -> anyhow::Result<()> {
        match self.call(node, "submitblock", json!([hex])).await? {
            Value::Null => Ok(()),
            word => bail!("bitcoind {node} does not take a block: {word}"),
        }
    }

    /// Begins to wait for a block at every bitcoind; each answers when it was the tip.
    fn await_block(&self, hash: &str, clock: Clock) -> anyhow::Result<Vec<Acceptance>> {
        let mut waiting = Vec::new();
        for (node, bitcoind) in self.bitcoinds.iter().enumerate() {
            let (rpc, hash) = (bitcoind.rpc.clone(), hash.to_owned());
            let wait = async move {
                let parameters = json!([hash, PATIENCE.as_millis() as u64]);
                let tip = rpc.call("waitforblock", parameters).await?;
                let at = clock.now();
                Ok((tip["hash"] == json!(hash)).then_some(at))
            };
            waiting.push(self.net.place(node)?.spawn(wait));
        }
        Ok(waiting)
    }

    /// Small blocks, and the transactions that each has beforehand; then rest.
    async fn prepare(&mut self, chain: &Chain, source: usize, clock: Clock) -> anyhow::Result<()> {
        for block in &chain.priming {
            let waiting = self.await_block(&block.block_hash().to_string(), clock)?;
            self.submit(source, &serialize(block).to_lower_hex_string())
                .await?;
            for (node, accepted) in waiting.into_iter().enumerate() {
                let accepted = accepted.await.context("a call was cut short")??;
                accepted.with_context(|| format!("bitcoind {node} does not get a small block"))?;
            }
        }
        let hex = |transaction| serialize(transaction).to_lower_hex_string();
        let transactions: Arc<Vec<String>> = Arc::new(chain.block.txdata.iter().map(hex).collect());
        let mut given = Vec::new();
        for node in 0..self.bitcoinds.len() {
            let block = self
                .trial
                .blocks
                .first()
                .context("the scenario has no block")?;
            let lacked = block.lacked.get(node).cloned().unwrap_or_default();
            let held = (1..transactions.len())
                .filter(|place| lacked.binary_search(&(*place as u32)).is_err());
            let held: Vec<usize> = held.collect();
            given.push(held.len() as u64);
            let rpc = self
                .bitcoinds
                .get(node)
                .context("there is no such bitcoind")?
                .rpc
                .clone();
            let transactions = Arc::clone(&transactions);
            let give = async move {
                let at = |place: &usize| transactions.get(*place).map(String::as_str);
                rpc.hold(held.iter().filter_map(at).collect()).await
            };
            self.net.place(node)?.run(give).await?;
        }
        if let Some(relays) = &mut self.relays {
            for (node, given) in given.iter().enumerate() {
                let holds =
                    |answer: &Value| answer["size"].as_u64().is_some_and(|size| size >= *given);
                one_relay(relays, node, "getmempoolinfo", holds).await?;
            }
            relays.catch_up()?;
        }
        sleep(REST).await;
        Ok(())
    }

    async fn measure(
        mut self,
        chain: &Chain,
        source: usize,
        clock: Clock,
    ) -> anyhow::Result<Measured> {
        self.prepare(chain, source, clock).await?;
        let hex = serialize(&chain.block).to_lower_hex_string();
        let waiting = self.await_block(&chain.block.block_hash().to_string(), clock)?;
        sleep(HEAD_START).await;
        self.net.router.take_lateness();
        let rpc = self
            .bitcoinds
            .get(source)
            .context("there is no such bitcoind")?
            .rpc
            .clone();
        let submit = async move {
            let parameters = json!([hex]);
            let at = clock.now();
            match rpc.call("submitblock", parameters).await? {
                Value::Null => Ok(at),
                word => bail!("bitcoind {source} does not take the block: {word}"),
            }
        };
        let submitted = self.net.place(source)?.run(submit).await?;
        let since = |at: crate::time::Time| at.since(submitted).as_secs_f64() * 1e3;
        let mut accepted_ms = Vec::new();
        for accepted in waiting {
            let accepted = accepted.await.context("a call was cut short")??;
            accepted_ms.push(accepted.map(since));
        }
        let late = self.net.router.take_lateness();
        let mut whole_ms = Vec::new();
        let mut lines_lost = 0;
        if let Some(relays) = &mut self.relays {
            relays.catch_up()?;
            let nodes = 0..self.bitcoinds.len();
            whole_ms.extend(nodes.map(|node| relays.whole(node, 0).map(|whole| since(whole.at))));
            lines_lost = relays.dropped();
        }
        let emulation = Emulation {
            late,
            packets: self.net.router.with(|switch| switch.counts()),
            dropped_by_kernel: self.net.dropped_by_kernel().await?,
            lines_lost,
        };
        if let Some(relays) = self.relays.take() {
            relays.end().await;
        }
        for bitcoind in &mut self.bitcoinds {
            bitcoind.end().await;
        }
        Ok(Measured {
            accepted_ms,
            whole_ms,
            emulation,
        })
    }
}

type Acceptance = tokio::task::JoinHandle<anyhow::Result<Option<Time>>>;

/// Waits until every relay answers a call as it should.
async fn all_relays(
    relays: &Nodes<'_>,
    trial: &Trial,
    method: &'static str,
    good: impl Fn(&Value) -> bool,
) -> anyhow::Result<()> {
    for node in 0..trial.plan.nodes {
        one_relay(relays, node, method, &good).await?;
    }
    Ok(())
}

async fn one_relay(
    relays: &Nodes<'_>,
    node: usize,
    method: &'static str,
    good: impl Fn(&Value) -> bool,
) -> anyhow::Result<()> {
    let answered = async {
        while !good(&relays.call(node, method, json!([])).await?) {
            sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    let answered = timeout(PATIENCE, answered).await;
    answered.with_context(|| {
        format!("relay {node} does not come to have what its bitcoind has ({method})")
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str) -> String {
        let scenario = Scenario::with_changes("mine", toml, &[]).expect("a scenario");
        check(&scenario).expect_err(toml).to_string()
    }

    /// The block of the chain is one that the simulator takes too, and crosses there.
    #[test]
    fn the_block_of_a_chain_crosses_in_the_simulator() {
        let now = Time::from_unix_seconds(1_800_000_000);
        let chain = Chain::new(3, 100, now);
        let all = chain
            .base
            .iter()
            .chain(&chain.priming)
            .chain([&chain.block]);
        let times: Vec<u64> = all.map(|block| u64::from(block.header.time)).collect();
        assert!(times.is_sorted() && times.last() == Some(&(now.as_unix_seconds() - 600)));
        let scenario = of_the_lab(&Scenario::default());
        let bytes = Bytes::from(serialize(&with_work(chain.block)));
        let trial = Trial::new(&scenario, 3, Some(bytes)).expect("a trial");
        for protocol in ["blocktorrent", "bip152-hb"] {
            let protocol = protocol::named(protocol).expect("it is one");
            assert!(protocol.run(&trial, &mut |_| {}).is_complete());
        }
    }

    #[test]
    fn what_bitcoinds_cannot_do_is_told_with_what_to_do() {
        for (toml, says) in [
            ("[topology]\nnodes = 9", "topology.nodes=8"),
            (
                "[topology]\nnodes = 5\nkind = 'mesh'",
                "a line, a ring or a star",
            ),
            ("[block]\nracing = 2", "block.racing=1"),
            ("[block]\nreal = 'mainnet-702861'", "a synthetic block"),
            ("[[event]]\nat_ms = 1\nkind = 'heal'", "without events"),
        ] {
            let refused = refused(toml);
            assert!(
                refused.contains(says) && refused.ends_with("--only nodes"),
                "{refused}"
            );
        }
        let ring = "[topology]\nnodes = 5\nkind = 'ring'";
        assert!(check(&Scenario::with_changes("mine", ring, &[]).expect("a scenario")).is_ok());
    }
}
