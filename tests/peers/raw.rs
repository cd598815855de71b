//! Somebody at the other end of our P2P port who says anything, in either transport, with no library but the ciphers.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bip324::{
    CipherSession, FillBytes, GarbageResult, Handshake, Initialized, NUM_LENGTH_BYTES, PacketType,
    ReceivedKey, Role, VersionResult,
};
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::secp256k1::Secp256k1;

use super::lines::PATIENCE;

/// Regtest's.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// One connection.
pub struct Raw {
    stream: TcpStream,
    cipher: Option<Box<CipherSession>>,
    /// Received and not looked at.
    rest: Vec<u8>,
}

/// A message: its command, or its number in BIP324, and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub name: String,
    pub payload: Vec<u8>,
}

struct Secret([u8; 32]);

impl FillBytes for Secret {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        *dest = self.0;
    }
}

impl Raw {
    /// A connection in which nothing was said.
    pub fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("it is a socket");
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).expect("it is a socket");
        }
        Self {
            stream,
            cipher: None,
            rest: Vec::new(),
        }
    }

    /// One after the handshake, in the old transport.
    pub fn greeted(address: SocketAddr) -> Self {
        let mut raw = Self::dial(address);
        raw.greet();
        raw
    }

    /// One after both handshakes, encrypted; `seed` makes the key.
    pub fn greeted_v2(address: SocketAddr, seed: u8) -> Self {
        let mut raw = Self::dial(address);
        raw.encrypt(seed).expect("it speaks BIP324");
        raw.greet();
        raw
    }

    /// One in either transport.
    pub fn greeted_in(address: SocketAddr, v2: bool) -> Self {
        match v2 {
            true => Self::greeted_v2(address, 9),
            false => Self::greeted(address),
        }
    }

    /// Exchanges keys.
    pub fn encrypt(&mut self, seed: u8) -> std::io::Result<()> {
        let none = || std::io::Error::from(ErrorKind::InvalidData);
        let curve = Secp256k1::signing_only();
        let mut secret = Secret([seed.max(1); 32]);
        let keys = Handshake::new_with_rng(MAGIC, Role::Initiator, &mut secret, &curve)
            .map_err(|_| none())?;
        let mut bytes = vec![0; Handshake::<Initialized>::send_key_len(None)];
        let keys = keys.send_key(None, &mut bytes).map_err(|_| none())?;
        self.stream.write_all(&bytes)?;
        let mut key = [0; 64];
        self.stream.read_exact(&mut key)?;
        let keys = keys.receive_key(key).map_err(|_| none())?;
        let mut bytes = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(None)];
        let mut keys = keys.send_version(&mut bytes, None).map_err(|_| none())?;
        self.stream.write_all(&bytes)?;
        // Its garbage ends at a terminator that only the keys tell.
        let mut garbage = Vec::new();
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            garbage.extend(byte);
            let copy = garbage.clone();
            match keys.receive_garbage(&copy).map_err(|_| none())? {
                GarbageResult::NeedMoreData(again) => keys = again,
                GarbageResult::FoundGarbage { handshake, .. } => {
                    let mut keys = handshake;
                    loop {
                        let mut length = [0; NUM_LENGTH_BYTES];
                        self.stream.read_exact(&mut length)?;
                        let length = keys.decrypt_packet_len(length).map_err(|_| none())?;
                        let mut packet = vec![0; length];
                        self.stream.read_exact(&mut packet)?;
                        match keys.receive_version(&mut packet).map_err(|_| none())? {
                            VersionResult::Complete { cipher } => {
                                self.cipher = Some(Box::new(cipher));
                                return Ok(());
                            }
                            VersionResult::Decoy(again) => keys = again,
                        }
                    }
                }
            }
        }
    }

    /// `version` and `verack`, and theirs.
    fn greet(&mut self) {
        assert!(self.send("version", &version(70_016, "/raw:1/")));
        self.wait("verack");
        assert!(self.send("verack", &[]));
        assert!(self.is_alive(), "the handshake fails");
    }

    /// Sends a message. `false`: the connection is closed.
    pub fn send(&mut self, name: &str, payload: &[u8]) -> bool {
        let bytes = self.frame(name, payload);
        self.send_bytes(&bytes)
    }

    /// A message as it goes over the wire.
    pub fn frame(&mut self, name: &str, payload: &[u8]) -> Vec<u8> {
        let mut command = [0; 12];
        command[..name.len()].copy_from_slice(name.as_bytes());
        match &mut self.cipher {
            None => {
                let checksum = sha256d::Hash::hash(payload).to_byte_array();
                let length = (payload.len() as u32).to_le_bytes();
                [&MAGIC[..], &command, &length, &checksum[..4], payload].concat()
            }
            Some(cipher) => {
                let contents = [&[0][..], &command, payload].concat();
                let outbound = cipher.outbound();
                let length = bip324::OutboundCipher::encryption_buffer_len(contents.len());
                let mut packet = vec![0; length];
                outbound
                    .encrypt(&contents, &mut packet, PacketType::Genuine, None)
                    .expect("the buffer has the length that the cipher asks for");
                packet
            }
        }
    }

    /// Sends bytes as they are. `false`: the connection is closed.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// From here on [`Raw::push`] looks up now and then.
    pub fn do_not_wait(&self) {
        let pause = Some(Duration::from_millis(50));
        self.stream
            .set_write_timeout(pause)
            .expect("it is a socket");
    }

    /// Sends bytes as far as they are taken until `over` is set. `false`: the connection is closed.
    pub fn push(&mut self, mut bytes: &[u8], over: &AtomicBool) -> bool {
        while !bytes.is_empty() && !over.load(Ordering::SeqCst) {
            match self.stream.write(bytes) {
                Ok(0) => return false,
                Ok(written) => bytes = &bytes[written..],
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Says that nothing more will come.
    pub fn shut(&self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// The next message; `None`: the connection is closed.
    pub fn hear(&mut self) -> Option<Heard> {
        if self.cipher.is_none() {
            let header = self.take(24)?;
            assert_eq!(header[..4], MAGIC, "it spoke of another network");
            let name = header[4..16].split(|byte| *byte == 0).next()?;
            let name = String::from_utf8(name.to_vec()).expect("a command");
            let length = u32::from_le_bytes(header[16..20].try_into().expect("four"));
            let payload = self.take(length as usize)?;
            return Some(Heard { name, payload });
        }
        let length = self.take(NUM_LENGTH_BYTES)?;
        let length = length.try_into().expect("three");
        let length = self.cipher.as_mut()?.inbound().decrypt_packet_len(length);
        let mut packet = self.take(length)?;
        let cipher = self.cipher.as_mut()?.inbound();
        cipher
            .decrypt_in_place(&mut packet, None)
            .expect("what it encrypts can be decrypted");
        packet.truncate(length - 16);
        let (name, payload) = match packet.get(1) {
            Some(0) => {
                let name = packet[2..14].split(|byte| *byte == 0).next()?;
                let name = String::from_utf8(name.to_vec()).expect("a command");
                (name, packet[14..].to_vec())
            }
            Some(id) => (short_name(*id), packet[2..].to_vec()),
            None => return self.hear(),
        };
        Some(Heard { name, payload })
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut buffer = [0; 1 << 16];
        while self.rest.len() < count {
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.rest.extend(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("it neither speaks nor closes: {error}"),
            }
        }
        let after = self.rest.split_off(count);
        Some(std::mem::replace(&mut self.rest, after))
    }

    /// Waits for a message of that name, and gives its payload.
    ///
    /// # Panics
    /// If the connection is closed before.
    pub fn wait(&mut self, name: &str) -> Vec<u8> {
        loop {
            let heard = self.hear();
            let heard = heard.unwrap_or_else(|| panic!("closed before `{name}`"));
            if heard.name == name {
                return heard.payload;
            }
        }
    }

    /// Whether it still answers, after everything that was sent before.
    pub fn is_alive(&mut self) -> bool {
        if !self.send("ping", &[7; 8]) {
            return false;
        }
        while let Some(heard) = self.hear() {
            if heard.name == "pong" {
                return true;
            }
        }
        false
    }

    /// Waits until the other end has closed, whatever it says until then.
    pub fn wait_for_end(&mut self) {
        let mut buffer = [0; 1 << 16];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("it does not close: {error}"),
            }
        }
    }

    /// Asks for a block, whole.
    pub fn block(&mut self, hash: bitcoin::BlockHash) -> Vec<u8> {
        let entry = serialize(&Inventory::WitnessBlock(hash));
        assert!(self.send("getdata", &[&[1][..], &entry].concat()));
        self.wait("block")
    }
}

/// The name of a number of BIP324, of those that matter here.
fn short_name(id: u8) -> String {
    let known = [
        (2, "block"),
        (4, "cmpctblock"),
        (12, "getheaders"),
        (13, "headers"),
        (14, "inv"),
        (18, "ping"),
        (19, "pong"),
    ];
    let found = known.iter().find(|(number, _)| *number == id);
    found.map_or_else(|| format!("#{id}"), |(_, name)| (*name).to_owned())
}

/// The payload of a `version`.
pub fn version(version: u32, agent: &str) -> Vec<u8> {
    let mut payload = version.to_le_bytes().to_vec();
    payload.extend(1_u64.to_le_bytes());
    payload.extend(1_700_000_000_i64.to_le_bytes());
    payload.extend([0; 52]);
    payload.extend([3; 8]);
    payload.push(agent.len() as u8);
    payload.extend(agent.as_bytes());
    payload.extend([0; 4]);
    payload.push(0);
    payload
}
