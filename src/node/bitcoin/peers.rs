//! The connections of the Bitcoin P2P protocol, by number, and what is known of who is at the other end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use bitcoin::BlockHash;
use tokio::sync::mpsc::error::TrySendError;

use super::ledger::NodeNumber;
use crate::chain::p2p::connection::{Connection, ConnectionId};
use crate::chain::p2p::{BlockForm, PeerCommand, PeerInfo, PeerReport};
use crate::time::Time;

/// Names a connection, for as long as the process runs.
pub type PeerNumber = ConnectionId;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of the operator's Bitcoin nodes, dialled by us.
    Node(NodeNumber),
    /// Another node of this project, to which there is a control connection as well.
    Relay,
    /// An ordinary node, dialled for its addresses and served like any other.
    Gossip,
    /// Somebody looked at for a moment.
    Feeler,
    /// Whoever dialled us.
    Inbound,
}

/// Questions for headers that one peer has not answered: one of ours, and one for each block on its way to a node.
const MAX_ASKED: usize = 16;
/// Compact blocks of one peer that the engine works on at once: one, and another of the same height. Whoever makes
/// them costly to work on makes nothing else wait.
const MAX_COMPACTS: usize = 2;
/// How long an answer may take; bitcoind leaves some questions unanswered, while it loads its blocks for example.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How long a peer may take before it is asked the same again: 2,000 headers are 160 kB. Some nodes (bcoin) do not
/// answer at all if they have none to give.
const HEADERS_TIME: Duration = Duration::from_secs(10);

/// A question for headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The block whose fate the answer tells, and its height.
    pub fate: Option<(u32, BlockHash)>,
    /// The block after which headers were asked for.
    pub after: Option<BlockHash>,
    /// When it was asked.
    pub at: Time,
    /// Until when the answer may come.
    pub until: Time,
}

/// What a peer has asked for and not been given yet; one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A block.
    Block(BlockHash, BlockForm),
    /// Transactions of a block, by their places.
    Part(BlockHash, Vec<u32>),
}

impl Want {
    /// The block that it is about.
    pub fn hash(&self) -> BlockHash {
        match self {
            Self::Block(hash, _) | Self::Part(hash, _) => *hash,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    /// Who it is.
    pub kind: Kind,
    /// Its address.
    pub remote: SocketAddr,
    /// When the connection was made, or begun to be.
    pub since: Time,
    /// What its handshake told, once that is done.
    pub info: Option<PeerInfo>,
    /// How long that took.
    pub greeted_in: Option<Duration>,
    /// When it last told of something that was new here.
    pub useful: Option<Time>,
    /// Whether it was told to end.
    pub is_leaving: bool,
    /// What the connection has reported of itself last.
    pub report: PeerReport,
    /// The best block that it has told of, of which the header is known here.
    pub best: Option<(BlockHash, u32)>,
    /// What it waits for.
    pub want: Option<Want>,
    /// The headers that it was asked for, in order.
    pub asked: ArrayVec<Asked, MAX_ASKED>,
    /// Compact blocks of it that the engine is working on.
    compacts: usize,
    /// Whether something for it found no room.
    is_owed: bool,
    connection: Option<Connection>,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<PeerNumber, Peer>,
    next: u64,
    /// Connections that were let go for not reading.
    unheard: Vec<PeerNumber>,
}

impl Peers {
    /// A number for a connection that is going to be made.
    pub fn next_id(&mut self) -> PeerNumber {
        self.next += 1;
        ConnectionId(self.next)
    }

    /// Keeps a connection.
    pub fn add(&mut self, connection: Connection, kind: Kind, remote: SocketAddr, now: Time) {
        let number = connection.id;
        let peer = Peer {
            kind,
            remote,
            since: now,
            info: None,
            greeted_in: None,
            useful: None,
            is_leaving: false,
            report: PeerReport::default(),
            best: None,
            want: None,
            asked: ArrayVec::new(),
            compacts: 0,
            is_owed: false,
            connection: Some(connection),
        };
        self.peers.insert(number, peer);
    }

    /// A compact block of a peer, or what it lacked, goes to the engine. Whether it may: not while others do.
    pub fn begin_compact(&mut self, number: PeerNumber) -> bool {
        let peer = self.peers.get_mut(&number);
        peer.filter(|peer| peer.compacts < MAX_COMPACTS)
            .map(|peer| peer.compacts += 1)
            .is_some()
    }

    /// The engine has answered.
    pub fn end_compact(&mut self, number: PeerNumber) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.compacts = peer.compacts.saturating_sub(1);
        }
    }

    /// Forgets a connection; with the last of its commands it ends, if it has not.
    pub fn remove(&mut self, number: PeerNumber) -> Option<Peer> {
        self.peers.remove(&number)
    }

    /// One connection.
    pub fn get(&self, number: PeerNumber) -> Option<&Peer> {
        self.peers.get(&number)
    }

    /// One connection.
    pub fn get_mut(&mut self, number: PeerNumber) -> Option<&mut Peer> {
        self.peers.get_mut(&number)
    }

    /// All of them, in order of number.
    pub fn iter(&self) -> impl Iterator<Item = (PeerNumber, &Peer)> {
        self.peers.iter().map(|(number, peer)| (*number, peer))
    }

    /// Those whose handshake is done.
    pub fn ready(&self) -> impl Iterator<Item = (PeerNumber, &Peer)> {
        self.iter().filter(|(_, peer)| peer.info.is_some())
    }

    /// The connection to one of the operator's nodes, once its handshake is done.
    pub fn of_node(&self, node: NodeNumber) -> Option<PeerNumber> {
        let found = self.ready().find(|(_, peer)| peer.kind == Kind::Node(node));
        found.map(|(number, _)| number)
    }

    /// Tells a connection what to do. One that takes nothing any more is let go: its end follows as an event.
    pub fn send(&mut self, number: PeerNumber, command: PeerCommand) -> bool {
        let Some(peer) = self.peers.get_mut(&number) else {
            return false;
        };
        let Some(connection) = &peer.connection else {
            return false;
        };
        match connection.commands.try_send(command) {
            Ok(()) => {
                peer.is_owed = false;
                true
            }
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) if matches!(peer.kind, Kind::Node(_)) => {
                // Blocks come faster than it takes them.
                peer.is_owed = true;
                false
            }
            Err(TrySendError::Full(_)) => {
                // So many commands wait only for a peer that does not read.
                peer.connection = None;
                self.unheard.push(number);
                false
            }
        }
    }

    /// Connections that were let go and will say nothing more.
    pub fn take_unheard(&mut self) -> Vec<PeerNumber> {
        std::mem::take(&mut self.unheard)
    }

    /// What found no room is tried again now.
    pub fn forget_owed(&mut self) {
        for peer in self.peers.values_mut() {
            peer.is_owed = false;
        }
    }

    /// Whether something for one of the nodes found no room.
    pub fn any_owed(&self) -> bool {
        self.peers.values().any(|peer| peer.is_owed)
    }

    /// Asks a peer for headers, unless much is asked of it already; `fate`: the block whose fate the answer tells,
    /// with its height. Whether it was asked.
    pub fn ask_headers(
        &mut self,
        number: PeerNumber,
        locator: Vec<BlockHash>,
        fate: Option<(u32, BlockHash)>,
        now: Time,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&number) else {
            return false;
        };
        peer.asked.retain(|asked| asked.until > now);
        let after = locator.first().copied();
        let is_asked = |asked: &Asked| {
            asked.fate == fate
                && (fate.is_some() || asked.after == after && asked.at + HEADERS_TIME > now)
        };
        if peer.asked.iter().any(is_asked) {
            return false;
        }
        // Of questions that are ours one is open: the newest.
        peer.asked
            .retain(|asked| asked.fate.is_some() || fate.is_some());
        if peer.asked.is_full() {
            return false;
        }
        let stop = None;
        let sent = self.send(number, PeerCommand::GetHeaders { locator, stop });
        if let Some(peer) = self.peers.get_mut(&number).filter(|_| sent) {
            peer.asked.push(Asked {
                fate,
                after,
                at: now,
                until: now + ANSWER_TIME,
            });
        }
        sent
    }

    /// When a question is overdue on which a block depends.
    pub fn deadline(&self) -> Option<Time> {
        let asked = self.peers.values().flat_map(|peer| &peer.asked);
        let fates = asked.filter(|asked| asked.fate.is_some());
        fates.map(|asked| asked.until).min()
    }
}

impl Peer {
    /// Headers have come: what was asked, if they are an answer.
    pub fn take_asked(&mut self, now: Time) -> Option<Asked> {
        self.asked.retain(|asked| asked.until > now);
        self.asked.pop_at(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_works_on_two_compact_blocks_of_a_peer() {
        let mut peers = Peers::default();
        let id = peers.next_id();
        let (commands, _taken) = tokio::sync::mpsc::channel(1);
        let remote = ([127, 0, 0, 1], 1).into();
        let now = Time::from_unix_seconds(1);
        peers.add(Connection { id, commands }, Kind::Node(0), remote, now);
        assert!(peers.begin_compact(id) && peers.begin_compact(id));
        assert!(!peers.begin_compact(id));
        peers.end_compact(id);
        assert!(peers.begin_compact(id));
        assert!(!peers.begin_compact(ConnectionId(77)));
    }
}
