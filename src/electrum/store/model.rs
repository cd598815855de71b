//! The server against a slow model of the protocol: random histories of chain and mempool, every question in every version.
//!
//! - [`oracle`]: the protocol's sentences as loops
//! - [`node`]: a small bitcoind, which makes blocks and tells of its mempool
//! - here: both sides are told what happened, the real one late and in disorder as it comes, and asked the same

mod node;
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bitcoin::OutPoint;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash as _;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use self::node::{Done, News, Node, SCRIPTS, script};
use self::oracle::{Oracle, script_hash};
use super::Store;
use super::answer::Data;
use super::follow::Follower;
use super::lookup::Lookup;
use super::settle::Settler;
use crate::chain::Network;
use crate::electrum::mempool::Touched;
use crate::electrum::protocol::info::Info;
use crate::electrum::query::{Change, Told};
use crate::electrum::session::{Limits, Output, Session, World};
use crate::electrum::subscriptions::{SessionId, Subscriptions};
use crate::merkle::Hash;
use crate::time::Time;

const VERSIONS: [(&str, oracle::Version); 4] = [
    ("1.4", (1, 4, 0)),
    ("1.4.2", (1, 4, 2)),
    ("1.6", (1, 6, 0)),
    ("1.7", (1, 7, 0)),
];

#[derive(Clone, Debug)]
enum Operation {
    Receive {
        rival: bool,
        count: usize,
    },
    Forget(usize),
    Mine {
        taken: usize,
        unknown: usize,
    },
    Reorganise {
        depth: usize,
        more: usize,
        taken: usize,
    },
}

/// How the real side hears of it.
#[derive(Clone, Copy, Debug)]
struct Noise {
    /// News of the mempool wait until the next operation that does not hold them back.
    late: bool,
    /// Transactions come children first.
    reversed: bool,
    /// The node publishes a block's transactions before the block is indexed, or behind.
    before: bool,
    behind: bool,
    /// The mempool is listed when the node has the block already and we have not.
    listed_early: bool,
}

const QUIET: Noise = Noise {
    late: false,
    reversed: false,
    before: false,
    behind: false,
    listed_early: false,
};

/// The real thing: what the indexer's thread has, without the thread.
struct Real {
    _folder: tempfile::TempDir,
    follower: Follower,
    settler: Settler,
    touched: Touched,
    held: Vec<News>,
    was_reorganised: bool,
}

impl Real {
    fn new(node: &Node) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index");
        let writer = Store::open(&index, Network::Regtest, 8 << 20).unwrap();
        let lookup = Lookup::new(writer.store().clone(), node.files(), 8 << 20);
        let buckets = folder.path().join("buckets");
        let stop = Arc::new(AtomicBool::new(false));
        Self {
            follower: Follower::new(writer, node.files(), buckets, 1 << 30, stop),
            _folder: folder,
            settler: Settler::new(Arc::new(Data::new(lookup))),
            touched: Touched::default(),
            held: Vec::new(),
            was_reorganised: false,
        }
    }

    fn follow(&mut self, tip: Hash) {
        let Self {
            follower,
            settler,
            touched,
            ..
        } = self;
        let store = follower.store().clone();
        let told = follower.follow(tip, &|_| (), |step| {
            settler.step(store.view(), &step, touched);
        });
        told.unwrap();
        settler.data().change().view = store.view();
        settler.add_waiting(touched);
    }

    fn add<'a>(&mut self, all: impl Iterator<Item = &'a bitcoin::Transaction>) {
        let all = all.map(|one| Bytes::from(serialize(one))).collect();
        self.settler.add(all, &mut self.touched);
    }

    fn list(&mut self, node: &Node) {
        let ids = node
            .mempool
            .iter()
            .map(|one| one.compute_txid().to_byte_array());
        self.settler.keep(&ids.collect(), &mut self.touched);
        let here = self.settler.data().state().mempool.txids();
        let mut missing = node.mempool.clone();
        missing.retain(|one| !here.contains(&one.compute_txid().to_byte_array()));
        self.add(missing.iter());
    }

    /// Takes what happened, in the way of `noise`.
    fn take(&mut self, node: &Node, done: Done, noise: Noise) {
        let published: Vec<_> = done
            .disconnected
            .iter()
            .chain(&done.connected)
            .flat_map(|block| block.txdata.clone())
            .collect();
        if let Some(tip) = done.blocks {
            if noise.before {
                self.add(published.iter());
            }
            if noise.listed_early {
                let ids = node
                    .mempool
                    .iter()
                    .map(|one| one.compute_txid().to_byte_array());
                self.settler.keep(&ids.collect(), &mut self.touched);
            }
            self.follow(tip);
            if noise.behind {
                self.add(published.iter());
            }
            self.was_reorganised |= !done.disconnected.is_empty();
        }
        self.held.extend(done.news);
        if noise.late {
            return;
        }
        let mut added = Vec::new();
        for news in std::mem::take(&mut self.held) {
            match news {
                News::Added(transaction) => added.push(transaction),
                News::Removed(txid) => {
                    self.flush(&mut added, noise.reversed);
                    let ids = BTreeSet::from([txid.to_byte_array()]);
                    self.settler.demote(&ids, &mut self.touched);
                }
            }
        }
        self.flush(&mut added, noise.reversed);
        if std::mem::take(&mut self.was_reorganised) {
            self.list(node);
        }
    }

    fn flush(&mut self, added: &mut Vec<bitcoin::Transaction>, reversed: bool) {
        if reversed {
            added.reverse();
        }
        let added = std::mem::take(added);
        self.add(added.iter());
    }
}

/// One client of the real side.
struct Client<'a> {
    data: &'a Data,
    session: Session,
    subscriptions: Subscriptions,
}

impl<'a> Client<'a> {
    fn new(data: &'a Data, version: &str) -> Self {
        let session = Session::new(SessionId(1), Limits::default(), Time::ZERO);
        let subscriptions = Subscriptions::default();
        let mut client = Self {
            data,
            session,
            subscriptions,
        };
        let told = client.ask("server.version", &json!(["model", version]));
        assert_eq!(told.unwrap()[1], version);
        client
    }

    fn ask(&mut self, method: &str, params: &Value) -> Result<Value, i64> {
        let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        self.session
            .receive(message.to_string().as_bytes(), Time::ZERO);
        let tip = self.data.tip().unwrap();
        self.session.advance(&mut World {
            info: &Info::default(),
            tip: tip.as_ref(),
            subscriptions: &mut self.subscriptions,
        });
        while let Some(output) = self.session.poll() {
            match output {
                Output::Ask(request, query) => {
                    let mut work = self.data.begin(query);
                    let answer = loop {
                        if let Some(answer) = self.data.run(&mut work) {
                            break answer;
                        }
                    };
                    let looked_at = work.looked_at();
                    self.session.answered(request, &Told { answer, looked_at });
                }
                Output::Send(text) => {
                    let mut frame: Value = serde_json::from_slice(&text).unwrap();
                    assert_eq!(frame["id"], 7, "{frame}");
                    return match frame["error"]["code"].as_i64() {
                        Some(code) => Err(code),
                        None => Ok(frame["result"].take()),
                    };
                }
                other => panic!("{method} {params}: {other:?}"),
            }
        }
        panic!("{method} {params}: no answer")
    }
}

/// What stands in no order, or in one that the real side can't know, is put in one.
fn plain(method: &str, told: Result<Value, i64>) -> Result<Value, i64> {
    let mut told = told?;
    let list = match method.ends_with("listunspent") && told.is_object() {
        true => &mut told["utxos"],
        false => &mut told,
    };
    if let Some(list) = list
        .as_array_mut()
        .filter(|_| method.ends_with("listunspent"))
    {
        let confirmed = list.iter().filter(|item| item["height"] != 0).count();
        list[confirmed..].sort_by_key(Value::to_string);
    }
    Ok(told)
}

/// Every method with parameters as they come, at the edges too.
fn questions(oracle: &Oracle) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut ask = |method: &str, params: Value| all.push((format!("blockchain.{method}"), params));
    let scripts = (0..=SCRIPTS + 1).map(script).chain([vec![0x6a, 1].into()]);
    for script in scripts {
        for what in [
            "get_balance",
            "get_history",
            "get_mempool",
            "listunspent",
            "subscribe",
        ] {
            ask(&format!("scripthash.{what}"), json!([script_hash(&script)]));
            ask(
                &format!("scriptpubkey.{what}"),
                json!([script.to_hex_string()]),
            );
        }
    }
    let tip = oracle.height() as u64;
    let huge = [u64::from(u32::MAX), u64::from(u32::MAX) + 1, 1 << 40];
    let heights = [0, 1, tip / 2, tip.saturating_sub(1), tip, tip + 1];
    for height in heights.into_iter().chain(huge) {
        ask("block.header", json!([height]));
        for other in [0, 1, tip / 2, tip, tip + 1, 2_016, 1 << 40] {
            ask("block.header", json!([height, other]));
            ask("block.headers", json!([height, other]));
            ask("block.headers", json!([height, other, tip]));
            ask("block.headers", json!([height, 2, other]));
            ask("transaction.id_from_pos", json!([height, other]));
            ask("transaction.id_from_pos", json!([height, other, true]));
        }
    }
    let unknown = "11".repeat(32);
    let blocks = (0..=oracle.height()).rev().take(4).chain([0]);
    for height in blocks {
        let block = oracle.block(height).unwrap();
        for (position, one) in block.iter().enumerate() {
            let txid = one.id.to_string();
            ask("transaction.get", json!([txid]));
            ask("transaction.get_merkle", json!([txid, height]));
            ask("transaction.get_merkle", json!([txid, height + 1]));
            ask("transaction.id_from_pos", json!([height, position, true]));
            ask("outpoint.get_status", json!([txid, 0, "51"]));
            ask(
                "outpoint.get_status",
                json!([txid, one.body.output.len(), ""]),
            );
        }
    }
    for one in oracle.mempool() {
        let txid = one.id.to_string();
        ask("transaction.get", json!([txid, false]));
        ask("transaction.get_merkle", json!([txid, tip]));
        for vout in 0..=one.body.output.len() {
            ask("outpoint.get_status", json!([txid, vout, "51"]));
        }
    }
    ask("transaction.get", json!([unknown]));
    ask("transaction.get_merkle", json!([unknown, 1]));
    ask("outpoint.subscribe", json!([unknown, 0, "51"]));
    ask("outpoint.subscribe", json!([unknown, -1, "51"]));
    ask("outpoint.get_status", json!([unknown, 0]));
    ask("headers.subscribe", json!([]));
    all.push(("mempool.get_fee_histogram".into(), json!([])));
    all
}

/// All questions in one version.
fn compare(
    oracle: &Oracle,
    data: &Data,
    version: usize,
    is_ordered: bool,
    faults: &mut Vec<String>,
) {
    let (name, number) = VERSIONS[version];
    let mut client = Client::new(data, name);
    let mut questions = questions(oracle);
    if is_ordered {
        questions.push(("mempool.recent".into(), json!([])));
    }
    for (method, params) in questions {
        let expected = oracle.answer(&method, params.as_array().unwrap(), number);
        let told = plain(&method, client.ask(&method, &params));
        let expected = plain(&method, expected);
        if told != expected {
            faults.push(format!(
                "{name}: {method} {params}\n  told {told:?}\n  expected {expected:?}"
            ));
        }
    }
}

/// Everything whose changes are told.
type Statuses = (BTreeMap<String, Value>, BTreeMap<OutPoint, Value>);

fn statuses(oracle: &Oracle, known: &Statuses) -> Statuses {
    let scripts = (1..=SCRIPTS).map(|number| script_hash(&script(number)));
    let outpoints = oracle
        .outpoints()
        .into_iter()
        .chain(known.1.keys().copied());
    (
        scripts
            .map(|script| (script.clone(), oracle.status(&script)))
            .collect(),
        outpoints.map(|one| (one, oracle.outpoint(&one))).collect(),
    )
}

/// Whatever has another status is among what was touched.
fn check_told(before: &Statuses, after: &Statuses, change: &Change, faults: &mut Vec<String>) {
    let told: BTreeSet<String> = change.scripts.iter().map(ToString::to_string).collect();
    for (script, status) in &after.0 {
        let changed = before.0.get(script).unwrap_or(&Value::Null) != status;
        if changed && !told.contains(script) {
            faults.push(format!("nobody is told of script {script}"));
        }
    }
    for (outpoint, status) in &after.1 {
        let changed = before.1.get(outpoint).unwrap_or(&json!({})) != status;
        let key = (outpoint.txid.to_byte_array(), outpoint.vout);
        if changed && !change.outpoints.contains(&key) {
            faults.push(format!("nobody is told of outpoint {outpoint}: {status}"));
        }
    }
}

/// Says what differed, not all of it, and after which operation.
fn fail_on(faults: &[String], operations: &[String]) {
    let some: Vec<String> = faults
        .iter()
        .take(12)
        .map(|fault| fault.chars().take(1_500).collect())
        .collect();
    assert!(
        faults.is_empty(),
        "{} faults after {operations:#?}\n{}",
        faults.len(),
        some.join("\n")
    );
}

fn run(seed: u64, operations: Vec<(Operation, Noise, usize)>) {
    let mut node = Node::new(seed);
    let mut real = Real::new(&node);
    let mut oracle = Oracle::default();
    oracle.connect(node.tip());
    let mut known = Statuses::default();
    let mut is_ordered = true;
    let mut faults = Vec::new();
    let mut past = Vec::new();
    let beginning = (0..4).map(|unknown| Operation::Mine { taken: 0, unknown });
    let beginning = beginning.map(|operation| (operation, QUIET, 3));
    let last = Operation::Receive {
        rival: false,
        count: 1,
    };
    let ending = (last, QUIET, 3);
    for (operation, noise, version) in beginning.chain(operations).chain([ending]) {
        past.push(format!("{operation:?} {noise:?}"));
        let done = match operation {
            Operation::Receive { rival, count } => {
                let mut done = Done::default();
                (0..count).for_each(|_| node.receive(rival, &mut done));
                done
            }
            Operation::Forget(which) => node.forget(which),
            Operation::Mine { taken, unknown } => {
                let mut done = Done::default();
                node.mine(taken, unknown, &mut done);
                done
            }
            Operation::Reorganise { depth, more, taken } => node.reorganise(depth, more, taken),
        };
        // What comes in another order, or again, is the latest at another time.
        is_ordered &= done.disconnected.is_empty();
        is_ordered &= !(noise.late || noise.reversed || noise.before || noise.listed_early);
        done.disconnected.iter().for_each(|_| oracle.disconnect());
        done.connected
            .iter()
            .for_each(|block| oracle.connect(block));
        real.take(&node, done, noise);
        renew(&mut oracle, &node);
        if noise.late {
            continue;
        }
        is_ordered |= node.mempool.is_empty();
        let data = Arc::clone(real.settler.data());
        let after = statuses(&oracle, &known);
        let change = real.settler.change(std::mem::take(&mut real.touched), true);
        check_told(&known, &after, &change.unwrap(), &mut faults);
        known = after;
        compare(&oracle, &data, version, is_ordered, &mut faults);
        fail_on(&faults, &past);
    }
    for version in 0..VERSIONS.len() {
        let data = real.settler.data();
        compare(&oracle, data, version, is_ordered, &mut faults);
    }
    fail_on(&faults, &past);
}

/// The oracle's mempool becomes the node's.
fn renew(oracle: &mut Oracle, node: &Node) {
    let there: Vec<_> = oracle.mempool().map(|one| one.id).collect();
    let ids: Vec<_> = node
        .mempool
        .iter()
        .map(bitcoin::Transaction::compute_txid)
        .collect();
    for gone in there.iter().filter(|id| !ids.contains(id)) {
        oracle.drop(*gone);
    }
    for (transaction, id) in node.mempool.iter().zip(&ids) {
        if !there.contains(id) {
            oracle.add(transaction);
        }
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (any::<bool>(), 1..4usize).prop_map(|(rival, count)| Operation::Receive { rival, count }),
        1 => any::<usize>().prop_map(Operation::Forget),
        3 => (0..6usize, 0..4usize).prop_map(|(taken, unknown)| Operation::Mine { taken, unknown }),
        2 => (1..=6usize, 0..3usize, 0..3usize)
            .prop_map(|(depth, more, taken)| Operation::Reorganise { depth, more, taken }),
    ]
}

fn noise() -> impl Strategy<Value = Noise> {
    let rare = || prop::bool::weighted(0.25);
    (rare(), rare(), rare(), rare(), rare()).prop_map(
        |(late, reversed, before, behind, listed_early)| Noise {
            late,
            reversed,
            before,
            behind,
            listed_early,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5, max_shrink_iters: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_slow_model_says_the_same(
        seed in any::<u64>(),
        operations in prop::collection::vec((operation(), noise(), 0..4usize), 10..25),
    ) {
        run(seed, operations);
    }
}

/// What chance brings too rarely: many in the mempool, of which blocks take the parents while it is listed.
#[test]
fn children_stay_when_their_parents_are_taken_before_the_block_is_here() {
    for seed in 0..3 {
        let receive = Operation::Receive {
            rival: false,
            count: 8,
        };
        let mine = Operation::Mine {
            taken: 3,
            unknown: 1,
        };
        let early = Noise {
            listed_early: true,
            ..QUIET
        };
        let operations = [
            (receive.clone(), QUIET),
            (mine.clone(), early),
            (receive, QUIET),
            (mine, early),
        ];
        run(
            seed,
            operations
                .map(|(operation, noise)| (operation, noise, 2))
                .to_vec(),
        );
    }
}
