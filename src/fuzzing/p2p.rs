//! A Bitcoin peer fed with a script: messages that are framed right and say anything, raw bytes, time, commands.

use std::time::Duration;

use bitcoin::bip152::HeaderAndShortIds;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::{Hash as _, sha256d};
use bytes::Bytes;

use crate::chain::Network;
use crate::chain::p2p::{
    BlockForm, BlockParts, CloseReason, CompactBlock, Direction, MAX_INPUT_BYTES, MAX_OUTPUT_BYTES,
    Peer, PeerCommand, PeerConfig, PeerEvent, Role, V2, strip_block,
};
use crate::time::Time;

const START: Time = Time::from_unix_seconds(1_700_000_000);
/// What can be said; the last is nobody's.
const COMMANDS: [&str; 26] = [
    "version",
    "verack",
    "wtxidrelay",
    "sendaddrv2",
    "feature",
    "blktorrent",
    "sendheaders",
    "sendcmpct",
    "feefilter",
    "ping",
    "pong",
    "getheaders",
    "headers",
    "inv",
    "getdata",
    "notfound",
    "block",
    "tx",
    "cmpctblock",
    "getblocktxn",
    "blocktxn",
    "addr",
    "addrv2",
    "getaddr",
    "mempool",
    "nonsense",
];

/// A script: how the peer is set up, then operations, each an opcode, a length of two bytes and that many bytes.
///
/// # Panics
/// If the peer holds more than its bounds, speaks after it closed, or reads what the bitcoin crate does not.
pub fn p2p(data: &[u8]) {
    let Some((&setup, mut script)) = data.split_first() else {
        return;
    };
    let mut world = World {
        peer: Peer::new(config(setup), START, [7; 32]),
        now: START,
        is_over: false,
    };
    world.drain(0);
    while let Some((&[opcode, low, high], rest)) = script.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        script = rest;
        world.step(opcode, body);
    }
    world.peer.handle_closed(world.now, None);
    world.drain(0);
    assert!(world.is_over);
}

fn config(setup: u8) -> PeerConfig {
    PeerConfig {
        network: Network::Regtest,
        direction: match setup & 1 {
            0 => Direction::Inbound,
            _ => Direction::Outbound,
        },
        role: match setup >> 1 & 3 {
            0 => Role::OurNode,
            1 => Role::Relay,
            2 => Role::Stranger,
            _ => Role::Feeler {
                ask_addresses: setup & 8 != 0,
            },
        },
        services: 1 << 10 | 1 << 3,
        flag: 1 << 30,
        agent: "/fuzz:1/".into(),
        start_height: 1,
        advert: None,
        nonce: 1,
        v2: match setup >> 4 & 1 {
            0 => V2::Off,
            _ => V2::Accept,
        },
        relay_transactions: setup & 32 == 0,
        remote: ([127, 0, 0, 1], 1).into(),
    }
}

struct World {
    peer: Peer,
    now: Time,
    is_over: bool,
}

impl World {
    fn step(&mut self, opcode: u8, body: &[u8]) {
        match opcode {
            0xff => self.receive(body),
            0xfe => {
                let seconds = body.first().copied().unwrap_or(1);
                self.now = self.now + Duration::from_secs(seconds.into());
                self.peer.handle_timeout(self.now);
            }
            0xfd => self.ask(body),
            opcode => {
                let name = COMMANDS.get(usize::from(opcode) % COMMANDS.len());
                let framed = frame(name.copied().unwrap_or_default(), body);
                self.receive(&framed);
                agree(body);
            }
        }
        self.drain(opcode);
        let bound = MAX_INPUT_BYTES + MAX_OUTPUT_BYTES + (1 << 17);
        assert!(self.peer.held_bytes() <= bound, "it is bounded");
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.peer.wants_input() {
            self.peer.handle_bytes(self.now, bytes);
        }
    }

    /// Commands, so that answers are awaited.
    fn ask(&mut self, body: &[u8]) {
        let Some(hash) = body.first_chunk::<32>() else {
            return;
        };
        let hash = bitcoin::BlockHash::from_byte_array(*hash);
        let form = BlockForm::Witness;
        let indexes = vec![0, 1];
        for command in [
            PeerCommand::GetBlock { hash, form },
            PeerCommand::GetBlockTransactions { hash, indexes },
            PeerCommand::GetAddresses,
            PeerCommand::HeadersConnected(false),
        ] {
            self.peer.handle_command(self.now, command);
        }
    }

    fn drain(&mut self, choice: u8) {
        while let Some(event) = self.peer.poll_event() {
            assert!(!self.is_over, "nothing follows the end");
            let answer = match event {
                PeerEvent::WantsHeaders { .. } => PeerCommand::SendHeaders(vec![]),
                PeerEvent::WantsBlockHashes { .. } => PeerCommand::SendBlockHashes(vec![]),
                PeerEvent::WantsBlock { .. } if choice & 1 == 0 => {
                    PeerCommand::SendBlock(Bytes::from_static(&[0; 100]))
                }
                PeerEvent::WantsBlock { .. } => PeerCommand::SendNothing,
                PeerEvent::WantsAddresses => PeerCommand::SendAddresses(vec![]),
                PeerEvent::Closed(reason) => {
                    self.is_over = true;
                    assert_ne!(reason, CloseReason::NotReading);
                    continue;
                }
                _ => continue,
            };
            self.peer.handle_command(self.now, answer);
        }
        while self.peer.poll_output().is_some() {}
        assert_eq!(self.is_over, self.peer.is_closed());
    }
}

/// A message of the old transport, with the right length and checksum.
fn frame(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Network::Regtest.magic().to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(16, 0);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let digest = sha256d::Hash::hash(payload).to_byte_array();
    bytes.extend(digest.iter().take(4));
    bytes.extend_from_slice(payload);
    bytes
}

/// What is read here is what the bitcoin crate reads.
fn agree(payload: &[u8]) {
    let payload = Bytes::copy_from_slice(payload);
    if let Ok(parts) = BlockParts::read(&payload, 16_666) {
        let block: bitcoin::Block = deserialize(&payload).expect("a block there as well");
        assert_eq!(block.header, parts.header);
        assert_eq!(block.txdata.len(), parts.transactions.len());
        let stripped = strip_block(&payload, 16_666).expect("it was read");
        let stripped: bitcoin::Block = deserialize(&stripped).expect("still a block");
        let ids = |block: &bitcoin::Block| -> Vec<_> {
            block
                .txdata
                .iter()
                .map(|transaction| transaction.compute_txid())
                .collect()
        };
        assert_eq!(ids(&stripped), ids(&block));
    }
    if let Ok(compact) = CompactBlock::read(&payload, 16_666) {
        let theirs: HeaderAndShortIds = deserialize(&payload).expect("compact there as well");
        assert_eq!(theirs.short_ids.len(), compact.short_ids.len());
        assert_eq!(theirs.prefilled_txs.len(), compact.prefilled.len());
        assert_eq!(theirs.nonce, compact.nonce);
    }
}
