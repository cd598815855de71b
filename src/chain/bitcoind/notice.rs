//! What bitcoind's ZMQ notifications say, and whether some were missed.

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Txid};
use bytes::Bytes;

use super::zmtp::PARTS;

/// A topic that is of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Every block that becomes the tip, whole.
    RawBlock,
    /// Its hash.
    HashBlock,
    /// Every transaction that enters the mempool or is in a block that is connected, whole.
    RawTx,
    /// Blocks connected and disconnected, transactions added and removed, in one order.
    Sequence,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::RawBlock, Self::HashBlock, Self::RawTx, Self::Sequence];

    /// Bitcoin Core's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawBlock => "rawblock",
            Self::HashBlock => "hashblock",
            Self::RawTx => "rawtx",
            Self::Sequence => "sequence",
        }
    }

    /// The topic of that name.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|topic| topic.name().as_bytes() == name)
    }
}

/// A message of the topic `sequence`. Numbers count additions and removals and have no gap, since the node started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceEvent {
    /// This block is the tip.
    Connected(BlockHash),
    /// This block no longer is; its parent is.
    Disconnected(BlockHash),
    /// This transaction is in the mempool.
    Added {
        /// Its id.
        txid: Txid,
        /// The number of the event.
        number: u64,
    },
    /// This one no longer is, and no block took it.
    Removed {
        /// Its id.
        txid: Txid,
        /// The number of the event.
        number: u64,
    },
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A block, serialized with its witnesses.
    RawBlock(Bytes),
    /// The hash of a block.
    HashBlock(BlockHash),
    /// A transaction, serialized with its witnesses.
    RawTx(Bytes),
    /// See [`SequenceEvent`].
    Sequence(SequenceEvent),
}

/// Reads a notification and the counter of its topic; `None` if it is not as bitcoind writes it.
pub fn read(parts: [Bytes; PARTS]) -> Option<(Topic, u32, Notice)> {
    let [topic, body, counter] = parts;
    let topic = Topic::of_name(&topic)?;
    let counter = u32::from_le_bytes(counter.as_ref().try_into().ok()?);
    let notice = match topic {
        // 80 bytes of header and a count; the rest is for whoever takes the block apart.
        Topic::RawBlock if body.len() > 80 => Notice::RawBlock(body),
        Topic::HashBlock => Notice::HashBlock(BlockHash::from_byte_array(reversed(&body)?)),
        // Kept for long, while the piece of memory that it came in has other things in it too.
        Topic::RawTx if body.len() >= 60 => Notice::RawTx(Bytes::copy_from_slice(&body)),
        Topic::Sequence => Notice::Sequence(sequence(&body)?),
        Topic::RawBlock | Topic::RawTx => return None,
    };
    Some((topic, counter, notice))
}

/// A hash as bitcoind publishes it: in the order in which it is shown.
fn reversed(bytes: &[u8]) -> Option<[u8; 32]> {
    let mut hash: [u8; 32] = bytes.try_into().ok()?;
    hash.reverse();
    Some(hash)
}

fn sequence(body: &[u8]) -> Option<SequenceEvent> {
    let (hash, rest) = body.split_at_checked(32)?;
    let hash = reversed(hash)?;
    let (label, number) = rest.split_first()?;
    let number = || number.try_into().ok().map(u64::from_le_bytes);
    match label {
        b'C' if rest.len() == 1 => Some(SequenceEvent::Connected(BlockHash::from_byte_array(hash))),
        b'D' if rest.len() == 1 => Some(SequenceEvent::Disconnected(BlockHash::from_byte_array(
            hash,
        ))),
        b'A' => Some(SequenceEvent::Added {
            txid: Txid::from_byte_array(hash),
            number: number()?,
        }),
        b'R' => Some(SequenceEvent::Removed {
            txid: Txid::from_byte_array(hash),
            number: number()?,
        }),
        _ => None,
    }
}

/// A gap in the counter of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many notifications are missing; `None` if the publisher counts anew, as after a restart.
    pub missed: Option<u32>,
}

/// The counters of one publisher, which outlive its connections.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    next: [Option<u32>; Topic::ALL.len()],
}

impl Counters {
    /// Notes that a notification came, and says whether some before it did not.
    pub fn note(&mut self, topic: Topic, counter: u32) -> Option<Gap> {
        let slot = self.next.get_mut(topic as usize)?;
        let expected = slot.replace(counter.wrapping_add(1))?;
        if expected == counter {
            return None;
        }
        let missed = counter.wrapping_sub(expected);
        // A counter that seems to have gone half around has rather begun anew.
        Some(Gap {
            missed: (missed <= u32::MAX / 2).then_some(missed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(topic: &str, body: Vec<u8>, counter: u32) -> [Bytes; PARTS] {
        [
            Bytes::copy_from_slice(topic.as_bytes()),
            body.into(),
            counter.to_le_bytes().to_vec().into(),
        ]
    }

    #[test]
    fn notices_are_read_as_bitcoind_writes_them() {
        let shown: Vec<u8> = (0..32).collect();
        let hash: [u8; 32] = reversed(&shown).unwrap();
        let event = |tail: &[u8]| {
            let body = [&shown[..], tail].concat();
            match read(parts("sequence", body, 9)) {
                Some((Topic::Sequence, 9, Notice::Sequence(event))) => Some(event),
                _ => None,
            }
        };
        let block = BlockHash::from_byte_array(hash);
        let txid = Txid::from_byte_array(hash);
        assert_eq!(event(b"C"), Some(SequenceEvent::Connected(block)));
        assert_eq!(event(b"D"), Some(SequenceEvent::Disconnected(block)));
        let number = 0x0102;
        let added = SequenceEvent::Added { txid, number };
        assert_eq!(event(b"A\x02\x01\0\0\0\0\0\0"), Some(added));
        let removed = SequenceEvent::Removed { txid, number };
        assert_eq!(event(b"R\x02\x01\0\0\0\0\0\0"), Some(removed));
        for wrong in [
            &b""[..],
            b"C1",
            b"A",
            b"A1234567",
            b"A123456789",
            b"X",
            b"R",
        ] {
            assert_eq!(event(wrong), None, "{wrong:?}");
        }
        let read_hash = read(parts("hashblock", shown.clone(), 0));
        assert_eq!(
            read_hash,
            Some((Topic::HashBlock, 0, Notice::HashBlock(block)))
        );
        for (topic, bytes) in [
            ("rawblock", 80),
            ("rawtx", 59),
            ("hashblock", 33),
            ("hashtx", 32),
        ] {
            assert_eq!(read(parts(topic, vec![0; bytes], 0)), None, "{topic}");
        }
        assert!(read(parts("rawblock", vec![0; 81], 0)).is_some());
        assert!(read(parts("rawtx", vec![0; 60], 0)).is_some());
        let mut short = parts("rawtx", vec![0; 60], 0);
        short[2] = Bytes::from_static(b"123");
        assert_eq!(read(short), None);
    }

    #[test]
    fn gaps_are_seen_once_and_per_topic() {
        let mut counters = Counters::default();
        assert_eq!(counters.note(Topic::RawTx, 7), None);
        assert_eq!(counters.note(Topic::RawTx, 8), None);
        assert_eq!(counters.note(Topic::Sequence, 1), None);
        let gap = |missed| Some(Gap { missed });
        assert_eq!(counters.note(Topic::RawTx, 12), gap(Some(3)));
        assert_eq!(counters.note(Topic::RawTx, 13), None);
        assert_eq!(counters.note(Topic::RawTx, 0), gap(None));
        assert_eq!(counters.note(Topic::RawTx, u32::MAX), gap(None));
        assert_eq!(counters.note(Topic::RawTx, 0), None);
    }
}
