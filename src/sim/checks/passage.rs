//! What honest nodes pass on, read on the wire and compared with the blocks as they were made.
//!
//! It sees what a tap sees: frames in the order in which they leave. It knows which connection a datagram belongs to by
//! the connection id that its receiver chose in BTVERSION, and which block a message is about by the OPEN_JOB of whoever
//! gave the job its number. Every hash, short id, transaction, part of one and cell of parity is compared with [`Truth`], which other
//! code made from the block than the engine's. What it is not: a judge of claims (JOB_STATE), which are hints.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::Broken;
use crate::mempool::ShortIdKey;
use crate::relay::Coded;
use crate::sim::NodeId;
use crate::sim::truth::Truth;
use crate::wire::datagram::Header;
use crate::wire::{
    HashEntry, Hashes, JobRef, Message, MessageType, OpenJob, Parity, Tree, TxPart, Txs, Whose,
};

/// A side of a control connection: the connection's number, and 0 for who made it.
pub type Side = (usize, usize);

/// What a side means by a job's number: the block, and the nonce of its short ids.
type Meant = ([u8; 32], u64);

/// A block that may be met.
#[derive(Clone, Debug)]
struct Known {
    truth: Truth,
    /// Whether anything of it may be passed on; of some forged blocks nothing can be verified.
    passable: bool,
    /// Its parity by kind, once some was met.
    coded: [OnceCell<Option<Coded>>; 3],
}

impl Known {
    fn is_parity(&self, parity: &Parity<'_>) -> bool {
        let place = self.coded.get(usize::from(parity.kind.to_wire()));
        let coded =
            place.and_then(|place| place.get_or_init(|| self.truth.coded(parity.kind)).as_ref());
        coded.is_some_and(|coded| {
            let right = coded.cells(parity.first, parity.count.into());
            parity.bytes == coded.bytes && !right.is_empty() && right == parity.cells
        })
    }
}

/// Compares what honest nodes pass on.
#[derive(Debug, Default)]
pub struct Passage {
    blocks: BTreeMap<[u8; 32], Known>,
    /// Sides of connections by the node that receives datagrams and the connection id that it chose there: the side
    /// that sends them. Whoever chooses one id twice has two.
    connections: BTreeMap<(NodeId, u32), Vec<Side>>,
    /// The block and the nonce that each side means by a number, all that it ever meant.
    jobs: BTreeMap<(Side, u16), Vec<Meant>>,
    /// Frames with data that were compared.
    pub compared: u64,
}

impl Passage {
    /// Expects a block to be relayed. Of one that is not passable nothing may be passed on.
    pub fn expect(&mut self, truth: Truth, passable: bool) {
        let known = Known {
            truth,
            passable,
            coded: Default::default(),
        };
        self.blocks.insert(known.truth.hash, known);
    }

    /// The sides that may have sent a datagram to `to`.
    pub fn senders(&self, to: NodeId, datagram: &[u8]) -> Vec<Side> {
        let header = Header::peek(datagram);
        let sides = header.and_then(|header| self.connections.get(&(to, header.conn_id)));
        sides.cloned().unwrap_or_default()
    }

    /// Takes a frame that `from` sends on one of these sides; says what is wrong with it if `from` is honest.
    pub fn take(
        &mut self,
        from: NodeId,
        sides: &[Side],
        (kind, body): (u8, &[u8]),
        is_honest: bool,
    ) -> Result<(), Broken> {
        let known = MessageType::from_wire(kind);
        let matters = matches!(
            known,
            Some(
                MessageType::Version
                    | MessageType::OpenJob
                    | MessageType::Hashes
                    | MessageType::Txs
                    | MessageType::TxPart
                    | MessageType::Parity
            )
        );
        if !matters {
            return Ok(());
        }
        let message = match Message::decode(kind, body) {
            Ok(Some(message)) => message,
            _ if is_honest => return Err(Broken::PassedOn("a frame that is malformed")),
            _ => return Ok(()),
        };
        match message {
            Message::Version(version) => {
                for &(connection, side) in sides {
                    let place = self.connections.entry((from, version.conn_id)).or_default();
                    let sender = (connection, 1 - side);
                    if !place.contains(&sender) {
                        place.push(sender);
                    }
                }
            }
            Message::OpenJob(open) => {
                self.note_job(sides, &open);
                if is_honest {
                    self.compared += 1;
                    return self.check_offer(&open);
                }
            }
            message if is_honest => {
                self.compared += 1;
                return self.check_data(sides, &message);
            }
            _ => {}
        }
        Ok(())
    }

    fn note_job(&mut self, sides: &[Side], open: &OpenJob<'_>) {
        let block = (crate::merkle::hash::sha256d(open.header), open.nonce);
        for &side in sides {
            let meant = self.jobs.entry((side, open.job)).or_default();
            if !meant.contains(&block) {
                meant.push(block);
            }
        }
    }

    fn check_offer(&self, open: &OpenJob<'_>) -> Result<(), Broken> {
        let hash = crate::merkle::hash::sha256d(open.header);
        let Some(known) = self.blocks.get(&hash) else {
            return Err(Broken::PassedOn("a block that nobody made"));
        };
        if !known.passable {
            return Err(Broken::PassedOn("a block that does not prove itself"));
        }
        if open.count != known.truth.count() {
            return Err(Broken::PassedOn("a false count"));
        }
        if open.has_commitment != known.truth.has_commitment {
            return Err(Broken::PassedOn("a false word on its commitment"));
        }
        Ok(())
    }

    /// The blocks, and the nonces of short ids, that a job may mean.
    fn meant(&self, sides: &[Side], job: JobRef) -> Vec<(&Known, u64)> {
        let named = sides.iter().flat_map(|&(connection, side)| {
            let side = match job.whose {
                Whose::Sender => side,
                Whose::Receiver => 1 - side,
            };
            self.jobs
                .get(&((connection, side), job.id))
                .into_iter()
                .flatten()
        });
        named
            .filter_map(|(hash, nonce)| Some((self.blocks.get(hash)?, *nonce)))
            .collect()
    }

    fn check_data(&self, sides: &[Side], message: &Message<'_>) -> Result<(), Broken> {
        let job = match message {
            Message::Hashes(hashes) => hashes.job,
            Message::Txs(txs) => txs.job,
            Message::TxPart(part) => part.job,
            Message::Parity(parity) => parity.job,
            _ => return Ok(()),
        };
        let meant = self.meant(sides, job);
        let mut wrong = Broken::PassedOn("data of a job that is none");
        for (known, nonce) in meant {
            if !known.passable {
                wrong = Broken::PassedOn("data of a block that does not prove itself");
                continue;
            }
            let right = match message {
                Message::Hashes(hashes) => are_hashes(&known.truth, hashes, nonce),
                Message::Txs(txs) => are_transactions(&known.truth, txs),
                Message::TxPart(part) => is_part(&known.truth, part),
                Message::Parity(parity) => known.is_parity(parity),
                _ => true,
            };
            if right {
                return Ok(());
            }
            wrong = Broken::PassedOn(match message {
                Message::Hashes(_) => "hashes that are not the block's",
                Message::Parity(_) => "parity that is not the block's",
                _ => "transactions that are not the block's",
            });
        }
        Err(wrong)
    }
}

fn are_hashes(truth: &Truth, hashes: &Hashes<'_>, nonce: u64) -> bool {
    let (lap, sequences) = hashes.lap.to_lap();
    let Some(nodes) = lap.nodes(&truth.geometry) else {
        return false;
    };
    let key = ShortIdKey::new(&truth.header, nonce);
    let mut entries = sequences.iter().flat_map(|sequence| sequence.iter());
    let same = nodes.into_iter().all(|node| {
        let right = truth.hash_at(hashes.tree, node.level(), node.index());
        match (entries.next(), right) {
            (Some(HashEntry::Full(hash)), Some(right)) => hash == right,
            (Some(HashEntry::Short(id, size)), Some(right)) => {
                let bits = 8 * u32::from(size);
                let mask = u64::MAX >> 64_u32.saturating_sub(bits);
                let is_leaf = node.level() == truth.geometry.depth();
                is_leaf && hashes.tree == Tree::Witness && id == key.short_id(right) & mask
            }
            _ => false,
        }
    });
    same && entries.next().is_none()
}

fn are_transactions(truth: &Truth, txs: &Txs<'_>) -> bool {
    let right = truth.transactions.iter().skip(txs.first as usize);
    let mut right = right.map(bytes::Bytes::as_ref);
    txs.transactions
        .iter()
        .all(|bytes| right.next() == Some(bytes))
}

fn is_part(truth: &Truth, part: &TxPart<'_>) -> bool {
    let Some(right) = truth.transactions.get(part.index as usize) else {
        return false;
    };
    let start = part.offset() as usize;
    right.len() == part.total as usize
        && right.get(start..start + part.bytes.len()) == Some(part.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::workload::{Recipe, Workload};
    use crate::wire::{CELL, TxList};

    struct Scene {
        passage: Passage,
        truth: Truth,
    }

    fn frame(message: &Message<'_>) -> (u8, Vec<u8>) {
        let mut frame = Vec::new();
        message.append_frame(&mut frame);
        let (kind, body) = crate::wire::Frames::new(&frame)
            .next()
            .expect("one")
            .expect("a frame");
        (kind, body.to_vec())
    }

    impl Scene {
        fn new(passable: bool) -> Self {
            let recipe = Recipe {
                transactions: 300,
                giant: 5_000,
                ..Recipe::default()
            };
            let truth = Truth::of(&Workload::new(&recipe, 3).block).expect("a block");
            let mut passage = Passage::default();
            passage.expect(truth.clone(), passable);
            Self { passage, truth }
        }

        fn say(&mut self, message: &Message<'_>) -> Result<(), Broken> {
            let (kind, body) = frame(message);
            self.passage.take(5, &[(0, 0)], (kind, &body), true)
        }

        fn open(&mut self, count: u32) -> Result<(), Broken> {
            let header = self.truth.header;
            self.say(&Message::OpenJob(OpenJob {
                job: 9,
                has_commitment: true,
                sender_has_all: true,
                count,
                block_bytes: 1,
                nonce: 0,
                header: &header,
            }))
        }

        fn transactions(&mut self, first: u32, list: &[&[u8]]) -> Result<(), Broken> {
            self.say(&Message::Txs(Txs {
                job: JobRef::of_sender(9),
                first,
                transactions: TxList::new(list),
            }))
        }
    }

    #[test]
    fn what_is_true_passes_and_each_lie_is_seen() {
        let mut scene = Scene::new(true);
        let truth = scene.truth.clone();
        assert!(scene.transactions(1, &[&truth.transactions[1]]).is_err());
        assert_eq!(scene.open(300), Ok(()));
        let two: [&[u8]; 2] = [&truth.transactions[7], &truth.transactions[8]];
        assert_eq!(scene.transactions(7, &two), Ok(()));
        assert!(scene.transactions(8, &two).is_err());
        let mut other = truth.transactions[7].to_vec();
        other[9] ^= 1;
        assert!(scene.transactions(7, &[&other]).is_err());
        let giant = &truth.transactions[150];
        let part = |bytes, cell| {
            Message::TxPart(TxPart {
                job: JobRef::of_sender(9),
                index: 150,
                total: giant.len() as u32,
                cell,
                bytes,
            })
        };
        let cell = CELL as usize;
        assert_eq!(scene.say(&part(&giant[cell..2 * cell], 1)), Ok(()));
        assert!(scene.say(&part(&giant[cell..2 * cell], 2)).is_err());
        for (tree, level, range) in [(Tree::Witness, 2, 1..2), (Tree::Witness, 9, 128..256)] {
            let above = truth.geometry.node(2, 1).expect("there");
            let lap = truth.geometry.lap(above, level, range).expect("a lap");
            let mut frame = truth
                .hashes_frame(JobRef::of_sender(9), tree, &lap)
                .expect("hashes");
            let (kind, body) = crate::wire::Frames::new(&frame).next().unwrap().unwrap();
            let taken = scene.passage.take(5, &[(0, 0)], (kind, body), true);
            assert_eq!(taken, Ok(()));
            *frame.last_mut().expect("bytes") ^= 1;
            let (kind, body) = crate::wire::Frames::new(&frame).next().unwrap().unwrap();
            assert!(
                scene
                    .passage
                    .take(5, &[(0, 0)], (kind, body), true)
                    .is_err()
            );
            // A liar may say what it wants.
            assert!(
                scene
                    .passage
                    .take(5, &[(0, 0)], (kind, body), false)
                    .is_ok()
            );
        }
        assert!(scene.open(301).is_err());
        assert!(Scene::new(false).open(300).is_err());
    }
}
