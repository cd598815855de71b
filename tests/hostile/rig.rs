//! One engine, the victim, between raw peers that say whatever a test wants and, if need be, an honest engine with
//! the block. Virtual time, links of 10 ms, no loss.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blocktorrent::relay::{
    Engine, EngineConfig, Event, HeaderJudge, HeaderRefusal, HeaderVerdict, Initiator, SessionId,
    SubmitRefusal,
};
use blocktorrent::sim::NodeOptions;
use blocktorrent::time::Time;
use blocktorrent::wire::{
    ControlDecoder, DatagramBuilder, Frames, MacKey, Message, Parameter, ParameterList, Ping, Pong,
    RxReport, Version, VersionAck,
};

use super::truth::Truth;

/// One way.
const DELAY: Duration = Duration::from_millis(10);
pub const NETWORK: u32 = 0xdab5_bffa;

/// Knows the work of a header, and no more of its parent than the flag says.
struct Judge(Arc<AtomicBool>);

impl HeaderJudge for Judge {
    fn accept(&mut self, header: &[u8; 80], _: Time) -> Result<HeaderVerdict, HeaderRefusal> {
        let header: bitcoin::block::Header =
            bitcoin::consensus::encode::deserialize(header).expect("80 bytes");
        header
            .validate_pow(header.target())
            .map_err(|_| HeaderRefusal::Invalid("high-hash"))?;
        let known = self.0.load(Ordering::Relaxed);
        if !known || header.prev_blockhash != bitcoin::hashes::Hash::all_zeros() {
            return Err(HeaderRefusal::UnknownParent);
        }
        Ok(HeaderVerdict {
            height: 1,
            in_window: true,
            segwit_active: true,
        })
    }

    fn tip(&self) -> [u8; 32] {
        [0; 32]
    }
}

fn config() -> EngineConfig {
    NodeOptions::default().config
}

enum Parcel {
    Control(SessionId, Vec<u8>),
    Datagram(SocketAddr, Vec<u8>),
    HonestControl(Vec<u8>),
    HonestDatagram(Vec<u8>),
    RawControl(usize, Vec<u8>),
    RawDatagram(usize, Vec<u8>),
}

/// A peer that a test speaks for.
pub struct Raw {
    pub session: SessionId,
    pub address: SocketAddr,
    pub conn_id: u32,
    pub key: MacKey,
    pub theirs: Option<(u32, MacKey)>,
    pub sequence: u64,
    /// Frames that came: by UDP or not, type, body.
    pub heard: Vec<(bool, u8, Vec<u8>)>,
    /// The code of the DISCONNECT that came.
    pub disconnect: Option<u8>,
    pub closed: bool,
    /// Answers PINGs, and so proves the path.
    pub answers_pings: bool,
    /// Reports what it receives.
    pub reports: bool,
    /// Reads its control connection.
    pub reads: bool,
    decoder: ControlDecoder,
    /// Bytes that arrived from it, and bytes of datagrams to it while its path was not proven.
    arrived: u64,
    unproven: u64,
}

pub struct Rig {
    pub seed: u64,
    pub now: Time,
    pub victim: Engine,
    pub raws: Vec<Raw>,
    pub truth: Truth,
    pub completed: Option<Time>,
    pub events: Vec<Event>,
    /// Whether the victim's judge knows any header yet.
    pub parents_known: Arc<AtomicBool>,
    /// Whether the victim has blocks of its own too, so that what it sends is not compared with the truth.
    pub has_others: bool,
    ended: BTreeSet<SessionId>,
    honest: Option<(Engine, SessionId, SessionId)>,
    queue: BTreeMap<(Time, u64), Parcel>,
    parcels: u64,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "failing seed: {}, refused: {:?}",
                self.seed,
                self.victim.totals().refused
            );
        }
    }
}

fn victim_address() -> SocketAddr {
    ([10, 0, 0, 1], 18_433).into()
}

fn honest_address() -> SocketAddr {
    ([10, 0, 2, 1], 18_433).into()
}

impl Rig {
    pub fn new(seed: u64, truth: Truth) -> Self {
        Self::with(seed, truth, config())
    }

    pub fn with(seed: u64, truth: Truth, config: EngineConfig) -> Self {
        let now = Time::from_unix_seconds(1_700_000_000);
        let mut secret = [1; 32];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        let parents_known = Arc::new(AtomicBool::new(true));
        let judge = Judge(parents_known.clone());
        Self {
            seed,
            now,
            victim: Engine::new(config, Box::new(judge), secret, now),
            raws: Vec::new(),
            truth,
            completed: None,
            events: Vec::new(),
            parents_known,
            has_others: false,
            ended: BTreeSet::new(),
            honest: None,
            queue: BTreeMap::new(),
            parcels: 0,
        }
    }

    fn post(&mut self, parcel: Parcel) {
        self.parcels += 1;
        self.queue.insert((self.now + DELAY, self.parcels), parcel);
    }

    /// Joins an honest engine; `submit` hands it the block.
    pub fn add_honest(&mut self) {
        let mut engine = Engine::new(
            config(),
            Box::new(Judge(Arc::new(true.into()))),
            [7; 32],
            self.now,
        );
        let ours = self
            .victim
            .handle_connected(self.now, Initiator::Inbound, ([10, 0, 2, 1], 40_000).into())
            .expect("room");
        let theirs = engine
            .handle_connected(self.now, Initiator::Outbound, victim_address())
            .expect("room");
        self.honest = Some((engine, ours, theirs));
        self.run(Duration::from_millis(500));
    }

    pub fn submit(&mut self) {
        let (now, block) = (self.now, self.truth.work.block.clone());
        let (engine, ..) = self.honest.as_mut().expect("added");
        match engine.submit_block(now, block) {
            // Small blocks may have come from the liars by then.
            Ok(_) | Err(SubmitRefusal::Duplicate) => {}
            Err(refusal) => panic!("a good block: {refusal}"),
        }
    }

    pub fn honest_score(&self) -> u32 {
        let ours = self.honest.as_ref().expect("added").1;
        let peers = self.victim.peers(self.now);
        peers
            .iter()
            .find(|peer| peer.session == ours)
            .map_or(u32::MAX, |peer| peer.score)
    }

    /// A raw peer whose handshake has not begun.
    pub fn add_raw(&mut self) -> usize {
        let index = self.raws.len();
        let ip = [10, 0, 1, index as u8 + 1];
        let session = self
            .victim
            .handle_connected(self.now, Initiator::Inbound, (ip, 50_000).into())
            .expect("room");
        self.raws.push(Raw {
            session,
            address: (ip, 9_000).into(),
            conn_id: 77 + index as u32,
            key: MacKey::new([index as u8; 16]),
            theirs: None,
            sequence: 0,
            heard: Vec::new(),
            disconnect: None,
            closed: false,
            answers_pings: true,
            reports: true,
            reads: true,
            decoder: ControlDecoder::new(),
            arrived: 0,
            unproven: 0,
        });
        index
    }

    /// The BTVERSION of a raw peer, as `change` has it.
    pub fn version(&mut self, raw: usize, change: impl FnOnce(&mut Version<'_>)) {
        let (conn_id, key) = (self.raws[raw].conn_id, self.raws[raw].key);
        let parameters = [Parameter { key: 6, value: 3 }];
        let mut version = Version {
            network: NETWORK,
            version_min: 1,
            version_max: 1,
            features: 0,
            nonce: 1_000 + raw as u64,
            conn_id,
            mac_key: key.as_bytes(),
            udp_port: 9_000,
            max_datagram: 1_472,
            tip: &[0; 32],
            parameters: ParameterList::new(&parameters),
            agent: "/raw/",
        };
        change(&mut version);
        self.send(raw, &Message::Version(version));
    }

    /// A raw peer whose handshake is done and whose path is proven to the victim.
    pub fn connect(&mut self) -> usize {
        let raw = self.add_raw();
        self.version(raw, |_| {});
        self.send(
            raw,
            &Message::VersionAck(VersionAck {
                version: 1,
                features: 0,
            }),
        );
        self.run(Duration::from_millis(300));
        assert!(self.raws[raw].disconnect.is_none());
        raw
    }

    pub fn send(&mut self, raw: usize, message: &Message<'_>) {
        let frame = super::truth::frame(message);
        self.send_bytes(raw, frame);
    }

    pub fn send_bytes(&mut self, raw: usize, bytes: Vec<u8>) {
        let session = self.raws[raw].session;
        self.post(Parcel::Control(session, bytes));
    }

    /// A datagram with these frames under the next number.
    pub fn seal(&mut self, raw: usize, frames: &[u8]) -> Vec<u8> {
        let peer = &mut self.raws[raw];
        peer.sequence += 1;
        let (conn_id, key) = peer.theirs.expect("its BTVERSION came");
        sealed(conn_id, key, peer.sequence, frames)
    }

    pub fn send_udp(&mut self, raw: usize, frames: &[u8]) {
        let datagram = self.seal(raw, frames);
        self.send_datagram(self.raws[raw].address, datagram);
    }

    pub fn send_datagram(&mut self, from: SocketAddr, datagram: Vec<u8>) {
        self.post(Parcel::Datagram(from, datagram));
    }

    pub fn refused(&self, name: &str) -> u64 {
        let refused = self.victim.totals().refused;
        refused
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(0, |(_, count)| *count)
    }

    pub fn score(&self, raw: usize) -> u32 {
        let session = self.raws[raw].session;
        let peers = self.victim.peers(self.now);
        peers
            .iter()
            .find(|peer| peer.session == session)
            .map_or(u32::MAX, |peer| peer.score)
    }

    /// Runs until the victim has the block; panics if that takes longer.
    pub fn completes_within(&mut self, limit: Duration) {
        let (from, end) = (self.now, self.now + limit);
        while self.completed.is_none() {
            assert!(
                self.now < end,
                "no block after {limit:?}: {:?}",
                self.victim.jobs()
            );
            self.run(Duration::from_millis(5));
        }
        println!("seed {}: complete after {:?}", self.seed, self.now - from);
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut stuck = 0;
        self.drain();
        loop {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let victim = self.victim.poll_deadline().map(|(at, _)| at);
            let honest = self
                .honest
                .as_ref()
                .and_then(|(engine, ..)| engine.poll_deadline());
            let next = [queued, victim, honest.map(|(at, _)| at)]
                .into_iter()
                .flatten()
                .min();
            let next = next.unwrap_or(end).max(self.now).min(end);
            stuck = if next > self.now { 0 } else { stuck + 1 };
            assert!(
                stuck < 10_000,
                "time stands still: {:?}",
                self.victim.poll_deadline()
            );
            self.now = next;
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let parcel = entry.remove();
                self.deliver(parcel);
                self.drain();
            }
            self.victim.handle_timeout(self.now);
            if let Some((engine, ..)) = &mut self.honest {
                engine.handle_timeout(self.now);
            }
            self.drain();
            if self.now >= end {
                return;
            }
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        let now = self.now;
        match parcel {
            Parcel::Control(session, bytes) => {
                if let Some(raw) = self.raws.iter_mut().find(|raw| raw.session == session) {
                    raw.arrived += bytes.len() as u64;
                }
                self.victim.handle_control(now, session, &bytes);
            }
            Parcel::Datagram(from, bytes) => {
                if let Some(raw) = self
                    .raws
                    .iter_mut()
                    .find(|raw| raw.address.ip() == from.ip())
                {
                    raw.arrived += bytes.len() as u64;
                }
                self.victim.handle_datagram(now, from, &bytes);
            }
            Parcel::HonestControl(bytes) => {
                if let Some((engine, _, theirs)) = &mut self.honest {
                    engine.handle_control(now, *theirs, &bytes);
                }
            }
            Parcel::HonestDatagram(bytes) => {
                if let Some((engine, ..)) = &mut self.honest {
                    engine.handle_datagram(now, victim_address(), &bytes);
                }
            }
            Parcel::RawControl(raw, bytes) => self.hear_control(raw, &bytes),
            Parcel::RawDatagram(raw, bytes) => self.hear_datagram(raw, &bytes),
        }
    }

    fn hear_control(&mut self, raw: usize, mut bytes: &[u8]) {
        while let Some((kind, body)) = self.raws[raw]
            .decoder
            .read(&mut bytes)
            .expect("well formed")
        {
            let message = Message::decode(kind, &body)
                .expect("well formed")
                .expect("known");
            match message {
                Message::Version(version) => {
                    let theirs = (version.conn_id, MacKey::new(*version.mac_key));
                    self.raws[raw].theirs = Some(theirs);
                }
                Message::Disconnect(end) => self.raws[raw].disconnect = Some(end.reason.to_wire()),
                message => self.check(&message),
            }
            self.raws[raw].heard.push((false, kind, body.to_vec()));
        }
    }

    fn hear_datagram(&mut self, raw: usize, bytes: &[u8]) {
        let number = u32::from_le_bytes(bytes[4..8].try_into().expect("four"));
        let frames = &bytes[8..bytes.len() - 8];
        let mut answers = Vec::new();
        for frame in Frames::new(frames) {
            let (kind, body) = frame.expect("well formed");
            let message = Message::decode(kind, body)
                .expect("well formed")
                .expect("known");
            if let Message::Ping(Ping { nonce, .. }) = message
                && self.raws[raw].answers_pings
            {
                let pong = Pong {
                    nonce,
                    bytes: bytes.len() as u16,
                };
                Message::Pong(pong).append_frame(&mut answers);
            }
            self.check(&message);
            self.raws[raw].heard.push((true, kind, body.to_vec()));
        }
        if self.raws[raw].reports && number > 0 {
            let words = [u64::MAX >> (64 - u64::from(number - 1).min(64)).min(63)];
            let words = if number == 1 { [0] } else { words };
            Message::RxReport(RxReport::new(number, 0, &words)).append_frame(&mut answers);
        }
        if !answers.is_empty() && self.raws[raw].theirs.is_some() {
            self.send_udp(raw, &answers);
        }
    }

    /// Nothing false is forwarded.
    fn check(&self, message: &Message<'_>) {
        if let Message::Txs(txs) = message
            && !self.has_others
        {
            for (index, bytes) in (txs.first as usize..).zip(txs.transactions.iter()) {
                assert_eq!(
                    bytes, self.truth.transactions[index],
                    "a false transaction went out"
                );
            }
        }
    }

    fn drain(&mut self) {
        self.drain_victim();
        let now = self.now;
        let Some((mut engine, ours, theirs)) = self.honest.take() else {
            return;
        };
        while engine.poll_event().is_some() {}
        while let Some(id) = engine.poll_control_ready() {
            while let Some(bytes) = engine.poll_control(now, id) {
                self.post(Parcel::Control(ours, bytes.to_vec()));
            }
        }
        let mut buffer = [0; 2_000];
        while let Some(transmit) = engine.poll_transmit(now, &mut buffer) {
            let bytes = buffer[..transmit.len].to_vec();
            self.post(Parcel::Datagram(honest_address(), bytes));
        }
        self.honest = Some((engine, ours, theirs));
    }

    fn drain_victim(&mut self) {
        let now = self.now;
        let mut ended = Vec::new();
        while let Some(event) = self.victim.poll_event() {
            match &event {
                Event::BlockComplete { whole, .. } => {
                    // A header with a flipped bit may have the work, and then it is another block.
                    let body = self.truth.work.block.slice(80..);
                    assert_eq!(whole.bytes.slice(80..), body, "another block was delivered");
                    self.completed.get_or_insert(now);
                }
                Event::SessionDown { session, .. } => {
                    self.ended.insert(*session);
                    ended.push(*session);
                }
                Event::Refused { session, .. } => {
                    assert!(!self.ended.contains(session), "scored after its end");
                }
                Event::AddressesWanted { session } => {
                    self.victim.send_addresses(now, *session, &[]);
                }
                _ => {}
            }
            self.events.push(event);
        }
        while let Some(id) = self.victim.poll_control_ready() {
            let raw = self.raws.iter().position(|raw| raw.session == id);
            if raw.is_some_and(|raw| !self.raws[raw].reads) {
                continue;
            }
            while let Some(bytes) = self.victim.poll_control(now, id) {
                self.post(match raw {
                    Some(raw) => Parcel::RawControl(raw, bytes.to_vec()),
                    None => Parcel::HonestControl(bytes.to_vec()),
                });
            }
        }
        let mut buffer = [0; 2_000];
        while let Some(transmit) = self.victim.poll_transmit(now, &mut buffer) {
            let bytes = buffer[..transmit.len].to_vec();
            let Some(raw) = self
                .raws
                .iter()
                .position(|raw| raw.address.ip() == transmit.to.ip())
            else {
                self.post(Parcel::HonestDatagram(bytes));
                continue;
            };
            self.count_unproven(raw, bytes.len() as u64);
            self.post(Parcel::RawDatagram(raw, bytes));
        }
        for session in ended {
            if let Some(raw) = self.raws.iter_mut().find(|raw| raw.session == session) {
                raw.closed = true;
            }
            self.victim.handle_disconnected(now, session);
        }
    }

    /// No more goes to a path that is not proven than came from it.
    fn count_unproven(&mut self, raw: usize, bytes: u64) {
        let session = self.raws[raw].session;
        let peers = self.victim.peers(self.now);
        let proven = peers.iter().any(|peer| peer.session == session && peer.udp);
        if !proven {
            let peer = &mut self.raws[raw];
            peer.unproven += bytes;
            assert!(
                peer.unproven <= peer.arrived,
                "{} out, {} in",
                peer.unproven,
                peer.arrived
            );
        }
    }
}

/// A datagram.
pub fn sealed(conn_id: u32, key: MacKey, sequence: u64, frames: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; frames.len() + 16];
    let mut builder = DatagramBuilder::new(&mut buffer, conn_id, sequence);
    let room = builder.write(|writer| writer.bytes(frames));
    assert!(room.is_ok());
    let len = builder.finish(&key);
    buffer.truncate(len);
    buffer
}
