//! The engine under sequences of operations: three scripted peers that know keys and counters and say what
//! the script wants, around one engine, with one block at stake.

use std::net::SocketAddr;
use std::time::Duration;

use super::Script;
use super::block::{Block, Judge};
use super::frames::encode;
use crate::relay::{Engine, EngineConfig, Event, Initiator, SessionId};
use crate::time::Time;
use crate::wire::{
    ControlDecoder, DatagramBuilder, MAX_DATAGRAM, MacKey, Message, Parameter, ParameterList, Ping,
    Pong, RxReport, TestMtu, Version, VersionAck, datagram,
};

/// Operations that one script may have: enough for a handshake and a block of three peers; a run stays in
/// the milliseconds.
const MAX_OPERATIONS: usize = 400;

const NETWORK: u32 = 0xd9b4_bef9;
const PEERS: usize = 3;

/// Operations on an engine, its clock and its peers.
///
/// # Panics
/// If the engine panics, says something malformed, completes another block than the one there is, sends to
/// an unproven path more than came from it, or does not come to rest.
pub fn engine(script: &[u8]) {
    play(script);
}

/// Plays a script and gives how often the engine had a block whole.
fn play(script: &[u8]) -> u32 {
    let mut script = Script::new(script);
    let mut stage = Stage::new(&mut script);
    for _ in 0..MAX_OPERATIONS {
        if script.is_over() {
            break;
        }
        stage.step(&mut script);
        stage.drain();
    }
    stage.engine.shut_down(stage.now);
    stage.drain();
    stage.completed
}

/// A scripted peer, connected.
struct Peer {
    session: SessionId,
    /// What the engine gave in its BTVERSION.
    connection: Option<(u32, MacKey)>,
    decoder: ControlDecoder,
    seq: u64,
    last_ping: u64,
    ponged: bool,
    bytes_in: u64,
    bytes_out: u64,
}

struct Stage {
    engine: Engine,
    now: Time,
    block: Block,
    peers: [Option<Peer>; PEERS],
    buffer: Vec<u8>,
    completed: u32,
}

impl Stage {
    fn new(script: &mut Script<'_>) -> Self {
        let block = Block::new(1 + script.below(300));
        let now = Time::from_unix_seconds(1_700_000_000);
        let config = EngineConfig {
            network_magic: NETWORK,
            max_block_bytes: 4_000_000,
            max_transactions: 16_666,
            udp_port: 1,
            control_port: 0,
            bitcoin_port: 0,
            push_level: script.byte() % 4,
            preference: 255,
            role: 0,
            max_up_bytes_per_s: None,
            max_down_bytes_per_s: None,
            max_datagram: 1_472,
            max_peers: PEERS,
            reserved_outbound: 0,
            max_inbound_per_group: 8,
            max_mempool_bytes: 1_000_000,
            agent: "fuzzing".to_owned(),
            lie: false,
        };
        let judge = Box::new(Judge(block.header));
        Self {
            engine: Engine::new(config, judge, [script.byte(); 32], now),
            now,
            block,
            peers: [const { None }; PEERS],
            buffer: vec![0; usize::from(MAX_DATAGRAM)],
            completed: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.byte();
        let who = usize::from(operation >> 6) % PEERS;
        match operation & 15 {
            0 | 1 => self.connect(who, operation & 16 == 0),
            2 => self.send_control(who, &handshake(who)),
            3 => {
                let bytes = script.bytes();
                self.send_control(who, bytes);
            }
            4 => {
                let bytes = script.bytes();
                self.send_datagram(who, bytes);
            }
            5..=9 => {
                let frame = self.frame(who, script);
                self.send_datagram(who, &frame);
            }
            10 | 11 => {
                let frame = self.frame(who, script);
                self.send_control(who, &frame);
            }
            12 | 13 => {
                self.now = self.now + Duration::from_nanos(1 << (script.byte() % 38));
                self.engine.handle_timeout(self.now);
            }
            14 => {
                let index = script.below(self.block.geometry.count()) as usize;
                if let Some(known) = self.block.transactions.get(index) {
                    let _ = self.engine.add_transaction(self.now, known.bytes().clone());
                }
            }
            _ if operation & 16 == 0 => {
                let _ = self.engine.submit_block(self.now, self.block.bytes.clone());
            }
            _ => {
                if let Some(peer) = self.peers.get_mut(who).and_then(Option::take) {
                    self.engine.handle_disconnected(self.now, peer.session);
                }
            }
        }
    }

    fn connect(&mut self, who: usize, inbound: bool) {
        let initiator = match inbound {
            true => Initiator::Inbound,
            false => Initiator::Outbound,
        };
        let Some(place @ None) = self.peers.get_mut(who) else {
            return;
        };
        let session = self
            .engine
            .handle_connected(self.now, initiator, address(who));
        *place = session.map(|session| Peer {
            session,
            connection: None,
            decoder: ControlDecoder::new(),
            seq: 1,
            last_ping: 0,
            ponged: false,
            bytes_in: 0,
            bytes_out: 0,
        });
    }

    fn send_control(&mut self, who: usize, bytes: &[u8]) {
        if let Some(Some(peer)) = self.peers.get_mut(who) {
            peer.bytes_in += bytes.len() as u64;
            self.engine.handle_control(self.now, peer.session, bytes);
        }
    }

    fn send_datagram(&mut self, who: usize, frames: &[u8]) {
        let Some(Some(peer)) = self.peers.get_mut(who) else {
            return;
        };
        let Some((conn_id, key)) = peer.connection else {
            return;
        };
        let mut buffer = vec![0; frames.len() + 16];
        let mut builder = DatagramBuilder::new(&mut buffer, conn_id, peer.seq);
        peer.seq += 1;
        let copied = builder.write(|writer| writer.bytes(frames));
        let len = builder.finish(&key);
        if let (Ok(()), Some(bytes)) = (copied, buffer.get(..len)) {
            peer.bytes_in += len as u64;
            self.engine.handle_datagram(self.now, address(who), bytes);
        }
    }

    /// Takes all that the engine has to give, and holds it against what it promises.
    fn drain(&mut self) {
        for _ in 0..100_000 {
            if !self.drain_once() {
                return;
            }
        }
        panic!("the engine does not come to rest");
    }

    fn drain_once(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.engine.poll_event() {
            any = true;
            match event {
                Event::BlockComplete { whole, .. } => {
                    assert_eq!(whole.bytes, self.block.bytes);
                    self.completed += 1;
                }
                Event::SessionDown { session, .. } => self.forget(session),
                _ => {}
            }
        }
        while let Some(session) = self.engine.poll_control_ready() {
            while let Some(bytes) = self.engine.poll_control(self.now, session) {
                any = true;
                self.read_control(session, &bytes);
            }
        }
        if let Some(transmit) = self.engine.poll_transmit(self.now, &mut self.buffer) {
            any = true;
            self.read_datagram(transmit.to, transmit.len);
        }
        any
    }

    /// The engine has ended a session; its last control bytes may still be under way.
    fn forget(&mut self, session: SessionId) {
        while let Some(bytes) = self.engine.poll_control(self.now, session) {
            self.read_control(session, &bytes);
        }
        for place in &mut self.peers {
            if place.as_ref().is_some_and(|peer| peer.session == session) {
                *place = None;
            }
        }
        self.engine.handle_disconnected(self.now, session);
    }

    fn read_control(&mut self, session: SessionId, bytes: &[u8]) {
        let mut peers = self.peers.iter_mut().flatten();
        let Some(peer) = peers.find(|peer| peer.session == session) else {
            return;
        };
        let mut input = bytes;
        while let Some((kind, body)) = peer.decoder.read(&mut input).expect("it is framed") {
            let message = Message::decode(kind, &body).expect("it is well formed");
            if let Some(Message::Version(version)) = message {
                peer.connection = Some((version.conn_id, MacKey::new(*version.mac_key)));
            }
        }
    }

    fn read_datagram(&mut self, to: SocketAddr, len: usize) {
        let who = usize::from(to.port()) - 1;
        let Some(Some(peer)) = self.peers.get_mut(who) else {
            return;
        };
        let bytes = self.buffer.get(..len).expect("it lies in the buffer");
        peer.bytes_out += len as u64;
        assert!(
            peer.ponged || peer.bytes_out <= peer.bytes_in,
            "PTH-3: an unproven path gets no more than it gave"
        );
        let header = datagram::Header::peek(bytes).expect("it has a header");
        assert_eq!(header.conn_id as usize, who + 100);
        let opened = datagram::open(bytes, u64::from(header.seq_low), &peer_key(who));
        for frame in opened.expect("its MAC is right") {
            let (kind, body) = frame.expect("it is framed");
            let message = Message::decode(kind, body).expect("it is well formed");
            if let Some(Message::Ping(ping)) = message {
                peer.last_ping = ping.nonce;
            }
        }
    }

    fn frame(&mut self, who: usize, script: &mut Script<'_>) -> Vec<u8> {
        match self.block.frame(script) {
            Some(frame) => frame,
            None => self.link(who, script),
        }
    }

    /// What concerns the path and not a job.
    fn link(&mut self, who: usize, script: &mut Script<'_>) -> Vec<u8> {
        let nonce = match self.peers.get_mut(who) {
            Some(Some(peer)) => {
                peer.ponged = true;
                peer.last_ping
            }
            _ => 0,
        };
        match script.byte() % 6 {
            0 | 1 => encode(&Message::Pong(Pong { nonce, bytes: 28 })),
            2 => encode(&Message::Ping(Ping {
                nonce: 5,
                padding: 2,
            })),
            3 => {
                let highest = u32::from(script.byte());
                encode(&Message::RxReport(RxReport::new(
                    highest,
                    10,
                    &[script.word()],
                )))
            }
            4 => encode(&Message::TestMtu(TestMtu {
                nonce: 6,
                size: 1_300,
                count: 2,
            })),
            _ => {
                let pair = [Parameter {
                    key: 6,
                    value: u64::from(script.byte() % 4),
                }];
                encode(&Message::SetParams(ParameterList::new(&pair)))
            }
        }
    }
}

fn handshake(who: usize) -> Vec<u8> {
    let pairs = [
        Parameter { key: 6, value: 3 },
        Parameter { key: 8, value: 10 },
    ];
    let mut bytes = encode(&Message::Version(Version {
        network: NETWORK,
        version_min: 1,
        version_max: 1,
        features: 0,
        nonce: who as u64 + 1,
        conn_id: who as u32 + 100,
        mac_key: peer_key(who).as_bytes(),
        udp_port: who as u16 + 1,
        max_datagram: 1_472,
        tip: &[0; 32],
        parameters: ParameterList::new(&pairs),
        agent: "script",
    }));
    bytes.extend(encode(&Message::VersionAck(VersionAck {
        version: 1,
        features: 0,
    })));
    bytes
}

fn peer_key(who: usize) -> MacKey {
    MacKey::new([who as u8; 16])
}

fn address(who: usize) -> SocketAddr {
    ([127, 0, 0, who as u8 + 1], who as u16 + 1).into()
}

#[cfg(test)]
mod tests {
    use super::play;

    #[test]
    fn scripts_reach_a_whole_block() {
        assert_eq!(
            play(include_bytes!("../../fuzz/corpus/engine/receive_130")),
            1
        );
        assert_eq!(play(include_bytes!("../../fuzz/corpus/engine/liar")), 1);
        assert_eq!(play(include_bytes!("../../fuzz/corpus/engine/warm")), 1);
        assert_eq!(play(&[]), 0);
    }
}
