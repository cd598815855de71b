//! Two full nodes that are not connected to each other, with a relay beside each: all that passes is P2P.

use std::path::PathBuf;

use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompressedPublicKey, OutPoint, PubkeyHash, ScriptBuf, Sequence,
    Transaction, TxIn, TxOut, Witness,
};
use serde_json::json;

use super::raw::Raw;
use super::relay::Relay;
use super::second::{Second, executable};

/// The height at which bcoin's regtest has witnesses, by its old rules, and coins that are mature.
const WITNESSES_FROM: usize = 432;
/// What a transaction leaves to the miner, satoshi.
const FEE_SAT: u64 = 20_000;

/// Two full nodes, two relays.
struct Pair {
    seconds: [Second; 2],
    relays: [Relay; 2],
    purse: Purse,
}

impl Pair {
    fn start(program: &PathBuf) -> Self {
        let seconds = [Second::start(program), Second::start(program)];
        let mut relays = seconds
            .each_ref()
            .map(|second| Relay::start(&["--bitcoind", &second.spec(), "--log", "debug"]));
        let [first, second] = &mut relays;
        first.join(second);
        for relay in &relays {
            wait_for_p2p(relay, 0);
        }
        Self {
            seconds,
            relays,
            purse: Purse::new(),
        }
    }

    /// Mines blocks at one, one by one; the other must have each, byte for byte.
    fn mine(&mut self, at: usize, count: usize) -> Vec<BlockHash> {
        (0..count).map(|_| self.mine_one(at)).collect()
    }

    fn mine_one(&mut self, at: usize) -> BlockHash {
        let hash = self.seconds[at].mine(1, self.purse.hash())[0];
        self.seconds[1 - at].wait_for_block(hash);
        let [here, there] = self.seconds.each_ref().map(|second| second.block(hash));
        assert!(here == there, "{hash} differs");
        hash
    }

    /// Mines a branch at the first that is longer than its chain was by one; the other must follow.
    fn mine_branch(&mut self, count: usize) -> Vec<BlockHash> {
        let hashes: Vec<BlockHash> = (0..count)
            .map(|_| {
                let hash = self.seconds[0].mine(1, self.purse.hash())[0];
                self.relays[1].complete(hash);
                hash
            })
            .collect();
        self.seconds[1].wait_for_block(hashes[count - 1]);
        hashes
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (second, relay) in self.seconds.iter().zip(&self.relays) {
                eprintln!("a full node's log:\n{}", second.tail());
                eprintln!("its relay's log:\n{}", relay.log.tail());
            }
        }
    }
}

/// Waits until a node of ours has greeted its full node by P2P, from a line of its log on.
fn wait_for_p2p(relay: &Relay, from: usize) -> usize {
    let text = "connected to the Bitcoin node by P2P";
    let found = relay
        .log
        .wait(from, |line| line.contains(text).then_some(()));
    found.unwrap_or_else(|| panic!("{}", relay.log.tail())).1
}

/// A key, and what it can spend.
struct Purse {
    secp: Secp256k1<All>,
    secret: SecretKey,
}

impl Purse {
    fn new() -> Self {
        Self {
            secp: Secp256k1::new(),
            secret: SecretKey::from_slice(&[5; 32]).expect("a key"),
        }
    }

    fn key(&self) -> CompressedPublicKey {
        CompressedPublicKey(self.secret.public_key(&self.secp))
    }

    fn hash(&self) -> PubkeyHash {
        PubkeyHash::from(self.key())
    }

    /// Spends the first output of a transaction, to so many outputs that want a witness.
    fn spend(&self, spent: &Transaction, outputs: usize) -> Transaction {
        let coin = &spent.output[0];
        let each = (coin.value.to_sat() - FEE_SAT) / outputs as u64;
        let output = TxOut {
            value: Amount::from_sat(each),
            script_pubkey: ScriptBuf::new_p2wpkh(&self.key().wpubkey_hash()),
        };
        self.sign(
            OutPoint::new(spent.compute_txid(), 0),
            coin,
            vec![output; outputs],
        )
    }

    /// Spends one output, to `outputs`.
    fn sign(&self, outpoint: OutPoint, coin: &TxOut, outputs: Vec<TxOut>) -> Transaction {
        let mut transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: outputs,
        };
        let kind = EcdsaSighashType::All;
        let mut cache = SighashCache::new(&transaction);
        let script = &coin.script_pubkey;
        let digest = if script.is_p2wpkh() {
            let digest = cache.p2wpkh_signature_hash(0, script, coin.value, kind);
            digest.expect("it is of its kind").to_byte_array()
        } else {
            let digest = cache.legacy_signature_hash(0, script, kind.to_u32());
            digest.expect("it has that input").to_byte_array()
        };
        let digest = Message::from_digest(digest);
        let signature = bitcoin::ecdsa::Signature::sighash_all(
            self.secp.sign_ecdsa_low_r(&digest, &self.secret),
        );
        let input = &mut transaction.input[0];
        if script.is_p2wpkh() {
            input.witness = Witness::p2wpkh(&signature, &self.key().0);
        } else {
            input.script_sig = Builder::new()
                .push_slice(PushBytesBuf::try_from(signature.to_vec()).expect("it is short"))
                .push_slice(self.key().to_bytes())
                .into_script();
        }
        transaction
    }

    /// So many transactions with witnesses that spend the outputs of one.
    fn fan(&self, spent: &Transaction) -> Vec<Transaction> {
        let txid = spent.compute_txid();
        let spend = |(index, coin): (usize, &TxOut)| {
            let mut output = coin.clone();
            output.value -= Amount::from_sat(FEE_SAT);
            self.sign(OutPoint::new(txid, index as u32), coin, vec![output])
        };
        spent.output.iter().enumerate().map(spend).collect()
    }
}

#[test]
fn what_one_full_node_mines_another_has_by_two_relays() {
    let Some(program) = executable() else { return };
    let mut pair = Pair::start(&program);
    // From either side in turn.
    let mut chain = Vec::new();
    while chain.len() < WITNESSES_FROM {
        chain.extend(pair.mine(chain.len() % 2, 1));
        chain.extend(pair.mine(chain.len() % 3 % 2, 10));
    }
    let first = pair.seconds[0].block(chain[0]);
    let first: Block = deserialize(&first).expect("a block");
    let split = pair.purse.spend(&first.txdata[0], 200);
    pair.seconds[0].send(&split);
    chain.extend(pair.mine(0, 1));
    // Full blocks, of which the other side knows all, half and no transactions.
    for (round, known) in [200, 100, 0].into_iter().enumerate() {
        let at = round % 2;
        let spent = pair.seconds[0].block(chain[round + 1]);
        let spent: Block = deserialize(&spent).expect("a block");
        let split = pair.purse.spend(&spent.txdata[0], 200);
        pair.seconds[at].send(&split);
        chain.extend(pair.mine(at, 1));
        let transactions = pair.purse.fan(&split);
        for (index, transaction) in transactions.iter().enumerate() {
            pair.seconds[at].send(transaction);
            if index < known {
                pair.seconds[1 - at].send(transaction);
            }
        }
        let hash = pair.mine(at, 1)[0];
        chain.push(hash);
        let block: Block = deserialize(&pair.seconds[1 - at].block(hash)).expect("a block");
        assert_eq!(block.txdata.len(), 201);
        assert!(block.check_merkle_root() && block.check_witness_commitment());
        for relay in &pair.relays {
            assert!(relay.block(hash) == serialize(&block));
        }
    }
    // Compact blocks both ways, and none that was not asked for.
    for (second, relay) in pair.seconds.iter().zip(&pair.relays) {
        let full = second.logged("Received full compact block");
        let filled = second.logged("Filled compact block");
        println!("bcoin: {full} compact blocks complete, {filled} filled");
        assert!(full > 0 && filled > 0);
        assert_eq!(second.logged("unrequested"), 0);
        assert_eq!(second.logged("unsolicited"), 0);
        let mut compact = 0;
        let from_compact = "whole by bitcoind 0 cmpctblock";
        relay
            .log
            .show(|line| compact += usize::from(line.contains(from_compact)));
        println!("relay: {compact} blocks by bcoin's compact blocks");
        assert!(compact > 0);
    }
    // A stranger gets headers and blocks of long ago.
    for v2 in [false, true] {
        let mut stranger = Raw::greeted_in(pair.relays[1].p2p, v2);
        headers_are(&mut stranger, &chain);
        for back in [0, 5, 100, 280] {
            let hash = chain[chain.len() - 1 - back];
            assert!(
                stranger.block(hash) == pair.seconds[0].block(hash),
                "{back}"
            );
        }
    }
}

/// A peer's headers from genesis on are those of this chain.
fn headers_are(peer: &mut Raw, chain: &[BlockHash]) {
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
    let mut payload = 70_016_u32.to_le_bytes().to_vec();
    payload.push(1);
    payload.extend(genesis.to_byte_array());
    payload.extend([0; 32]);
    assert!(peer.send("getheaders", &payload));
    let payload = loop {
        let payload = peer.wait("headers");
        // The tip's header alone was told before.
        if payload.len() > 82 {
            break payload;
        }
    };
    let entries = payload[3..].chunks_exact(81);
    let header = |entry: &[u8]| deserialize::<Header>(&entry[..80]).expect("a header");
    let hashes: Vec<BlockHash> = entries.map(|entry| header(entry).block_hash()).collect();
    assert!(
        hashes == chain,
        "{} headers of {}",
        hashes.len(),
        chain.len()
    );
}

#[test]
fn reorganisations_of_one_and_of_five_blocks_cross() {
    let Some(program) = executable() else { return };
    let mut pair = Pair::start(&program);
    let mut chain = pair.mine(0, 20);
    for (round, depth) in [1, 5].into_iter().enumerate() {
        let fork = chain.len() - depth;
        pair.seconds[0].disown(chain[fork]);
        chain.truncate(fork);
        assert_eq!(pair.seconds[0].tip(), chain[fork - 1]);
        chain.extend(pair.mine_branch(depth + 1));
        for relay in &pair.relays {
            let tip = relay.call("getbestblockhash", json!([]));
            assert_eq!(tip, json!(chain[chain.len() - 1]), "{depth}");
        }
        let reorganised = pair.seconds[1].logged("Chain reorganization");
        assert_eq!(reorganised, round + 1, "{depth}");
        // And on.
        chain.extend(pair.mine(1, 1));
    }
}

#[test]
fn a_full_node_that_was_killed_gets_the_chain_again() {
    let Some(program) = executable() else { return };
    let mut pair = Pair::start(&program);
    let mut chain = pair.mine(0, 120);
    chain.extend(pair.mine(1, 1));
    // It has forgotten all: its relay tells it of the tip, and it asks for the rest.
    for at in [1, 0, 1] {
        pair.seconds[at].restart();
        pair.seconds[at].wait_for_block(chain[chain.len() - 1]);
        chain.extend(pair.mine(at, 1));
        chain.extend(pair.mine(1 - at, 1));
    }
}
