//! BIP324's handshake: keys, garbage, terminators, and the first packets; or the finding that it is none.
//!
//! The library's states borrow the garbage of both sides. Here bytes come piecemeal, so a state that borrows is
//! never kept: it is made anew from our secret and the peer's key, which costs one multiplication on the curve
//! and happens at most three times and once more for each decoy.

use bip324::{
    CipherSession, FillBytes, GarbageResult, Handshake as Keys, Initialized, NUM_LENGTH_BYTES,
    ReceivedKey, Role, SentVersion, VersionResult,
};
use bitcoin::secp256k1::Secp256k1;
use bytes::{Buf, Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::Direction;
use super::plain::Plain;
use super::session::Session;
use crate::chain::Network;

/// Bytes of a public key on the wire.
const KEY_BYTES: usize = 64;
/// How a v1 stream begins after its magic.
const V1_COMMAND: &[u8; 12] = b"version\0\0\0\0\0";
/// Most bytes of garbage that we send (BIP324 allows 4,095).
///
/// Reason: it hides the handshake's length; a few hundred do that as well.
const MAX_OUR_GARBAGE: usize = 512;
/// Most bytes from the peer's garbage to the end of its first packets.
///
/// Reason: 4,095 bytes of garbage and what decoys somebody might send before the first message; everything here is
/// held in memory before the peer has proven anything.
const MAX_HANDSHAKE_BYTES: usize = 32 << 10;

/// What the handshake wants next.
pub(super) enum Step {
    /// More bytes.
    Wait,
    /// These bytes sent.
    Send(Bytes),
    /// It was none: the peer speaks the old transport.
    Plain(Plain),
    /// It is over.
    Session(Box<Session>),
    /// It cannot succeed.
    Failed,
}

/// A handshake under way.
pub(super) struct Handshake {
    network: Network,
    role: Role,
    secret: Secret,
    garbage: Vec<u8>,
    buffer: BytesMut,
    state: State,
}

enum State {
    /// Inbound: nothing is known yet.
    Detect,
    /// Our key is to be sent.
    SendKey,
    /// The peer's key is awaited.
    Key,
    /// The peer's terminator, and its packets up to the first that is no decoy, are awaited.
    Version {
        key: [u8; KEY_BYTES],
        /// Ready to look for the terminator; `None`: to be made anew.
        keys: Option<Box<Keys<SentVersion>>>,
        /// Not worth a look before so many bytes are there.
        needed: usize,
    },
    Over,
}

struct Secret([u8; 32]);

impl FillBytes for &Secret {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        *dest = self.0;
    }
}

impl Handshake {
    pub(super) fn new(network: Network, direction: Direction, random: &mut StdRng) -> Self {
        let mut secret = Secret([0; 32]);
        random.fill_bytes(&mut secret.0);
        let mut garbage = vec![0; random.random_range(0..=MAX_OUR_GARBAGE)];
        random.fill_bytes(&mut garbage);
        let (role, state) = match direction {
            Direction::Outbound => (Role::Initiator, State::SendKey),
            Direction::Inbound => (Role::Responder, State::Detect),
        };
        Self {
            network,
            role,
            secret,
            garbage,
            buffer: BytesMut::new(),
            state,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Whether we dialled and not a byte came.
    pub(super) fn was_not_answered(&self) -> bool {
        self.role == Role::Initiator
            && self.buffer.is_empty()
            && matches!(self.state, State::SendKey | State::Key)
    }

    /// Goes on as far as the bytes reach.
    pub(super) fn step(&mut self) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Detect => self.detect(),
            State::SendKey => self.send_key(),
            State::Key => self.receive_key(),
            State::Version { key, keys, needed } => self.receive_version(key, keys, needed),
            State::Over => Step::Failed,
        }
    }

    fn detect(&mut self) -> Step {
        let v1 = self.network.magic().into_iter().chain(*V1_COMMAND);
        let length = self.network.magic().len() + V1_COMMAND.len();
        if !v1.zip(&self.buffer).all(|(want, &byte)| want == byte) {
            self.state = State::SendKey;
            return self.step();
        }
        if self.buffer.len() < length {
            self.state = State::Detect;
            return Step::Wait;
        }
        let mut plain = Plain::new(self.network);
        plain.push(&self.buffer);
        Step::Plain(plain)
    }

    fn send_key(&mut self) -> Step {
        let Some((_, bytes)) = self.keys() else {
            return Step::Failed;
        };
        self.state = State::Key;
        Step::Send(bytes.into())
    }

    /// Our key, and what of the handshake follows from it alone.
    fn keys(&self) -> Option<(Keys<bip324::SentKey<'_>>, Vec<u8>)> {
        let curve = Secp256k1::signing_only();
        let magic = self.network.magic();
        let keys = Keys::new_with_rng(magic, self.role, &mut &self.secret, &curve).ok()?;
        let mut bytes = vec![0; Keys::<Initialized>::send_key_len(Some(&self.garbage))];
        let keys = keys.send_key(Some(&self.garbage), &mut bytes).ok()?;
        Some((keys, bytes))
    }

    fn receive_key(&mut self) -> Step {
        let Some(&key) = self.buffer.first_chunk::<KEY_BYTES>() else {
            self.state = State::Key;
            return Step::Wait;
        };
        self.buffer.advance(KEY_BYTES);
        let Some((keys, bytes)) = self.shared(key) else {
            return Step::Failed;
        };
        self.state = State::Version {
            key,
            keys: Some(Box::new(keys)),
            needed: 0,
        };
        Step::Send(bytes.into())
    }

    /// What follows from both keys: the state that awaits the peer's terminator, and our own with our packet.
    fn shared(&self, key: [u8; KEY_BYTES]) -> Option<(Keys<SentVersion>, Vec<u8>)> {
        let keys = self.keys()?.0.receive_key(key).ok()?;
        let mut bytes = vec![0; Keys::<ReceivedKey<'_>>::send_version_len(None)];
        let keys = keys.send_version(&mut bytes, None).ok()?;
        Some((keys, bytes))
    }

    fn receive_version(
        &mut self,
        key: [u8; KEY_BYTES],
        keys: Option<Box<Keys<SentVersion>>>,
        needed: usize,
    ) -> Step {
        if self.buffer.len() < needed {
            self.state = State::Version { key, keys, needed };
            return Step::Wait;
        }
        let keys = match keys {
            Some(keys) => *keys,
            None => match self.shared(key) {
                Some((keys, _)) => keys,
                None => return Step::Failed,
            },
        };
        match first_packets(keys, &self.buffer) {
            Progress::Garbage(keys) => {
                self.state = State::Version {
                    key,
                    keys: Some(keys),
                    needed: self.buffer.len() + 1,
                };
                Step::Wait
            }
            Progress::Needs(needed) if needed <= MAX_HANDSHAKE_BYTES => {
                self.state = State::Version {
                    key,
                    keys: None,
                    needed,
                };
                Step::Wait
            }
            Progress::Complete(cipher, used) => {
                self.buffer.advance(used);
                let rest = self.buffer.split();
                Step::Session(Box::new(Session::new(*cipher, rest)))
            }
            Progress::Needs(_) | Progress::Failed => Step::Failed,
        }
    }
}

enum Progress {
    /// No terminator yet.
    Garbage(Box<Keys<SentVersion>>),
    /// So many bytes must be there before the next look.
    Needs(usize),
    /// The keys, and how many bytes were used.
    Complete(Box<CipherSession>, usize),
    Failed,
}

/// Looks for the terminator and reads packets up to the first that is no decoy.
fn first_packets(keys: Keys<SentVersion>, bytes: &[u8]) -> Progress {
    let (mut keys, mut used) = match keys.receive_garbage(bytes) {
        Ok(GarbageResult::NeedMoreData(keys)) => return Progress::Garbage(Box::new(keys)),
        Ok(GarbageResult::FoundGarbage {
            handshake,
            consumed_bytes,
        }) => (handshake, consumed_bytes),
        Err(_) => return Progress::Failed,
    };
    loop {
        let rest = bytes.get(used..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<NUM_LENGTH_BYTES>() else {
            return Progress::Needs(used + NUM_LENGTH_BYTES);
        };
        let Ok(length) = keys.decrypt_packet_len(*length) else {
            return Progress::Failed;
        };
        used += NUM_LENGTH_BYTES + length;
        let Some(packet) = rest.get(..length) else {
            return Progress::Needs(used);
        };
        match keys.receive_version(&mut packet.to_vec()) {
            Ok(VersionResult::Complete { cipher }) => {
                return Progress::Complete(Box::new(cipher), used);
            }
            Ok(VersionResult::Decoy(decoyed)) => keys = decoyed,
            Err(_) => return Progress::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::Kind;
    use super::super::transport::Received;
    use super::*;
    use rand::SeedableRng;

    /// Both ends, once their handshake is done.
    fn joined(seed: u64) -> (Box<Session>, Box<Session>) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut ends = [Direction::Outbound, Direction::Inbound]
            .map(|direction| Handshake::new(Network::Main, direction, &mut random));
        let mut sessions = [None, None];
        while sessions.iter().any(Option::is_none) {
            for index in [0, 1] {
                if sessions[index].is_some() {
                    continue;
                }
                match ends[index].step() {
                    Step::Wait => {}
                    Step::Send(bytes) => ends[1 - index].push(&bytes),
                    Step::Session(session) => sessions[index] = Some(session),
                    Step::Plain(_) | Step::Failed => panic!("no handshake"),
                }
            }
        }
        let [a, b] = sessions.map(|session| session.expect("both are done"));
        (a, b)
    }

    #[test]
    fn decoys_are_passed_over_and_keys_renewed() {
        for seed in 0..4 {
            let (mut a, mut b) = joined(seed);
            for count in 0..500 {
                b.push(&a.encode_decoy(count));
                let payload = vec![count as u8; count * 40];
                b.push(&a.encode(Kind::Block, &payload));
                match b.next() {
                    Received::Message(Kind::Block, received) => assert_eq!(received, payload),
                    other => panic!("{other:?}"),
                }
                assert!(matches!(b.next(), Received::Nothing));
            }
        }
    }

    #[test]
    fn a_changed_bit_ends_the_session() {
        for bit in [3 * 8, 4 * 8 + 1, 12 * 8] {
            let (mut a, mut b) = joined(9);
            let mut packet = a.encode(Kind::Ping, &[1; 8]).to_vec();
            packet[bit / 8] ^= 1 << (bit % 8);
            b.push(&packet);
            assert!(matches!(b.next(), Received::Broken(..)));
        }
    }

    #[test]
    fn named_and_unknown_kinds_are_told_apart() {
        let (mut a, mut b) = joined(3);
        for (kind, payload) in [(Kind::Verack, 0), (Kind::Feature, 9), (Kind::Advert, 6)] {
            b.push(&a.encode(kind, &vec![2; payload]));
            match b.next() {
                Received::Message(read, bytes) => assert_eq!((read, bytes.len()), (kind, payload)),
                other => panic!("{other:?}"),
            }
        }
        b.push(&a.encode(Kind::Ping, &vec![0; 1_025]));
        assert!(matches!(b.next(), Received::Broken(..)));
    }
}
