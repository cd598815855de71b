//! Two engines without sockets: one passes a block to the other, and what the other was given can be played again.
//!
//! Not a bench: `benches/relay.rs` times what is here, `benches/counts.rs` counts its instructions.

use std::net::SocketAddr;
use std::time::Duration;

use blocktorrent::mempool::{BlockLimits, Transaction, split_block};
use blocktorrent::relay::{
    Engine, EngineConfig, Event, HeaderJudge, HeaderRefusal, HeaderVerdict, Initiator, SessionId,
};
use blocktorrent::time::Time;
use bytes::Bytes;

/// Takes every header: its work is not what is measured.
struct AnyHeader;

impl HeaderJudge for AnyHeader {
    fn accept(&mut self, _: &[u8; 80], _: Time) -> Result<HeaderVerdict, HeaderRefusal> {
        Ok(HeaderVerdict {
            height: 702_861,
            in_window: true,
            segwit_active: true,
        })
    }

    fn tip(&self) -> [u8; 32] {
        [0; 32]
    }
}

fn engine(seed: u8, now: Time) -> Engine {
    let config = EngineConfig {
        network_magic: 0xd9b4_bef9,
        max_block_bytes: 4_000_000,
        max_transactions: 16_666,
        udp_port: 8_433,
        control_port: 0,
        bitcoin_port: 0,
        push_level: 3,
        preference: 255,
        role: 0,
        max_up_bytes_per_s: None,
        max_down_bytes_per_s: None,
        max_datagram: 1_200,
        max_peers: 8,
        reserved_outbound: 0,
        max_inbound_per_group: 8,
        max_mempool_bytes: 300_000_000,
        agent: "/bench/".to_owned(),
        lie: false,
    };
    Engine::new(config, Box::new(AnyHeader), [seed; 32], now)
}

/// What the receiver was given, in order.
pub enum Given {
    Control(Time, Bytes),
    Datagram(Time, Vec<u8>),
    Timeout(Time),
}

/// Two engines that are connected, the second without the block.
pub struct Pair {
    pub ends: [Engine; 2],
    sessions: [SessionId; 2],
    given: Vec<Given>,
    pub now: Time,
    block: Option<Bytes>,
    pub buffer: Vec<u8>,
    /// How many datagrams the receiver is still given before one is lost.
    until_lost: Option<usize>,
}

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1 + end as u8], 8_433))
}

impl Pair {
    /// Two engines whose handshake and path are done; the receiver has these transactions.
    pub fn new(held: &[Transaction]) -> Self {
        let now = Time::from_unix_seconds(1_632_967_000);
        let mut ends = [engine(1, now), engine(2, now)];
        for transaction in held {
            let taken = ends[1].add_transaction(now, transaction.bytes().clone());
            taken.expect("a transaction of a real block");
        }
        let first = ends[0].handle_connected(now, Initiator::Outbound, address(1));
        let second = ends[1].handle_connected(now, Initiator::Inbound, address(0));
        let sessions = [first.expect("room"), second.expect("room")];
        let mut pair = Self {
            ends,
            sessions,
            given: Vec::new(),
            now,
            block: None,
            buffer: vec![0; 65_507],
            until_lost: None,
        };
        pair.run(Duration::from_secs(2));
        pair
    }

    /// Passes on everything for a while, or until the receiver has a block.
    fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.now < until && self.block.is_none() {
            while self.pass_on() {}
            self.now = self.now + Duration::from_micros(50);
            for end in 0..2 {
                let due = self.ends[end]
                    .poll_deadline()
                    .is_some_and(|(at, _)| at <= self.now);
                if due {
                    if end == 1 {
                        self.given.push(Given::Timeout(self.now));
                    }
                    self.ends[end].handle_timeout(self.now);
                }
            }
        }
    }

    fn pass_on(&mut self) -> bool {
        let mut moved = false;
        for end in 0..2 {
            let other = 1 - end;
            let (now, session) = (self.now, self.sessions[other]);
            while let Some(ready) = self.ends[end].poll_control_ready() {
                while let Some(bytes) = self.ends[end].poll_control(now, ready) {
                    moved = true;
                    self.ends[other].handle_control(now, session, &bytes);
                    if other == 1 {
                        self.given.push(Given::Control(now, bytes));
                    }
                }
            }
            while let Some(transmit) = self.ends[end].poll_transmit(now, &mut self.buffer) {
                moved = true;
                if other == 1 && self.is_lost() {
                    continue;
                }
                let datagram = self.buffer[..transmit.len].to_vec();
                self.ends[other].handle_datagram(now, address(end), &datagram);
                if other == 1 {
                    self.given.push(Given::Datagram(now, datagram));
                }
            }
            while let Some(event) = self.ends[end].poll_event() {
                if let (1, Event::BlockComplete { whole, .. }) = (end, event) {
                    self.block = Some(whole.bytes.clone());
                }
            }
        }
        moved
    }

    fn is_lost(&mut self) -> bool {
        let left = self.until_lost;
        self.until_lost = left.and_then(|left| left.checked_sub(1));
        left == Some(0)
    }
}

/// Records how the receiver, which holds `held` of the block, gets the rest; the datagram with the number `lost` does not
/// reach it.
pub fn record(block: &Bytes, held: &[Transaction], lost: Option<usize>) -> (Vec<Given>, Pair) {
    let mut pair = Pair::new(held);
    let now = pair.now;
    pair.given.clear();
    pair.until_lost = lost;
    pair.ends[0]
        .submit_block(now, block.clone())
        .expect("valid");
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.block.as_ref(), Some(block), "the block came whole");
    let given = std::mem::take(&mut pair.given);
    (given, pair)
}

/// Plays what was recorded to a receiver in the same state.
pub fn play(mut receiver: Pair, given: &[Given]) -> Pair {
    let session = receiver.sessions[1];
    let end = &mut receiver.ends[1];
    for item in given {
        let now = match item {
            Given::Control(now, bytes) => {
                end.handle_control(*now, session, bytes);
                *now
            }
            Given::Datagram(now, datagram) => {
                end.handle_datagram(*now, address(0), datagram);
                *now
            }
            Given::Timeout(now) => {
                end.handle_timeout(*now);
                *now
            }
        };
        while let Some(ready) = end.poll_control_ready() {
            while end.poll_control(now, ready).is_some() {}
        }
        while end.poll_transmit(now, &mut receiver.buffer).is_some() {}
        while let Some(event) = end.poll_event() {
            if let Event::BlockComplete { whole, .. } = event {
                receiver.block = Some(whole.bytes.clone());
            }
        }
    }
    assert!(
        receiver.block.is_some(),
        "a replay behaves as the recording"
    );
    receiver
}

/// The transactions of a block.
pub fn transactions_of(block: &Bytes) -> Vec<Transaction> {
    let limits = BlockLimits {
        max_bytes: 4_000_000,
        max_transactions: 16_666,
    };
    split_block(block.clone(), limits).expect("a real block").1
}
