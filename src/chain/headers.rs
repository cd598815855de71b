//! Headers accepted one by one, and the branch of them with the most work.
//!
//! The active chain is an array by height: 80 bytes a header, and 6 to 16 more to find it by hash (twice that
//! right after the array has grown; 100 MB for all of mainnet's million). Headers off it are kept, bounded in number,
//! so that a branch that comes to have more work can take over. Of two branches with equal work the one seen first
//! stays.
//!
//! # Whom to believe
//!
//! Where work is cheap, or little of it has been seen yet, whoever speaks first must not decide:
//!
//! - Until the chain shows [`Network::minimum_work`] a branch may leave it at any depth, and enough of it is kept to
//!   outgrow whatever can be made up. From there on none may leave it more than [`MAX_FORK_DEPTH`] below the tip.
//! - What the operator's own node holds ([`Headers::vouch`]) is valid, and not only work: a stranger's branch that
//!   leaves the own node's chain more than [`MAX_FORK_BELOW_OWN`] below that node's tip is not followed, whatever
//!   its work, and the own node's chain is, however much work was seen elsewhere. Up to that depth work decides, for
//!   a node of ours that was cut off is to be brought to the branch that the others are on; but what was heard before
//!   the own node spoke for the first time gives way to it but for the last [`RECENT`] blocks. What is recent to the
//!   own node is recent here: its new blocks are relayed even while a longer row of headers claims otherwise.

mod side;
mod view;

use std::collections::BTreeMap;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::{BlockHash, CompactTarget, Work};

use super::heights::Heights;
use super::params::Network;
use super::rules::{self, HeaderRefusal};
use super::start::{StartError, TrustedStart};
use view::View;

/// How many blocks below the tip still count as recent: only those are taken as jobs.
pub const RECENT: u32 = 6;
/// How far below the tip a branch may leave a chain that shows the network's minimum of work, in blocks.
///
/// Reason: a week of blocks, far more than any reorganisation of mainnet; a node that is on the wrong side of a
/// deeper one must be given a newer trusted start. It refuses old, easy headers before they cost anything.
pub const MAX_FORK_DEPTH: u32 = 1008;
/// How far below the own node's tip a stranger's branch may leave that node's chain, in blocks.
///
/// Reason: as deep as blocks are held, so that the own node can be given the branch; two days.
pub const MAX_FORK_BELOW_OWN: u32 = 288;
/// Most headers kept off a chain that shows the network's minimum of work, but for those that a reorganisation has
/// just put there (at most [`MAX_FORK_DEPTH`] more).
///
/// Reason: on test networks an easy header costs its sender little; this many are 400 kB.
pub const MAX_SIDE_HEADERS: usize = 2048;
/// Most headers kept off a chain with less work than that.
///
/// Reason: mainnet's first so many show a thousand times the work of [`MAX_HEADERS`] of the easiest ones, so that the
/// real chain outgrows one that was made up; 30 MB, gone when they no longer are needed.
pub const MAX_RIVAL_HEADERS: usize = 1 << 17;
/// Blocks of the active chain between two whose work is remembered: 32 bytes for so many headers.
const WORK_STEP: usize = 1024;
/// Most headers on the active chain.
///
/// Reason: on regtest they cost nothing; this many are 380 MB, and mainnet's in eighty years.
pub const MAX_HEADERS: usize = 1 << 22;

/// The best block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: BlockHash,
    /// Its time, in Unix seconds.
    pub time: u32,
    /// Work of the chain up to it; from a trusted start that does not tell the work before it, since that start.
    pub chain_work: Work,
}

/// What an accepted header is to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Hash of the header.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// Whether it was known before; nothing has changed then.
    pub known: bool,
    /// Whether it is the tip now.
    pub is_tip: bool,
    /// Present if it became the tip of another branch than was active.
    pub reorg: Option<Reorg>,
}

/// A change of the active branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reorg {
    /// Height of the last block that both branches share.
    pub fork_height: u32,
    /// The blocks that left the active chain, the highest first.
    pub disconnected: Vec<BlockHash>,
    /// The blocks that came, the lowest first.
    pub connected: Vec<BlockHash>,
}

/// A header that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The header.
    pub header: Header,
    /// Its height.
    pub height: u32,
    /// Whether it is on the active chain.
    pub active: bool,
}

/// Where the chain begins.
#[derive(Clone, Debug)]
struct Start {
    trusted: TrustedStart,
    /// Known if it is the genesis block.
    header: Option<Header>,
}

/// A header off the active chain.
#[derive(Clone, Copy, Debug)]
struct Side {
    header: Header,
    height: u32,
    chain_work: Work,
}

/// A block of which something is known.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// On the active chain.
    Active(u32),
    /// Off it.
    Side(BlockHash, Side),
}

impl Place {
    fn height(&self) -> u32 {
        match self {
            Self::Active(height) => *height,
            Self::Side(_, side) => side.height,
        }
    }
}

/// The header chain. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Headers {
    network: Network,
    start: Start,
    /// The active chain after the start.
    active: Vec<Header>,
    heights: Heights,
    tip: Tip,
    /// The work up to the start, and up to every [`WORK_STEP`]th block of the active chain after it.
    works: Vec<Work>,
    side: BTreeMap<BlockHash, Side>,
    /// The best block that a node of the operator has told.
    own: Option<BlockHash>,
    /// Whether the active chain has had a block that such a node told.
    is_adopted: bool,
    /// The work from which on nobody can have made the chain up; none, if that can't be said.
    least_work: Option<Work>,
}

impl Headers {
    /// A chain of the genesis block alone.
    pub fn genesis(network: Network) -> Self {
        let header = network.genesis();
        let trusted = TrustedStart {
            height: 0,
            hash: header.block_hash(),
            time: header.time,
            child_bits: header.bits,
            period_start_time: Some(header.time),
            earlier_times: Vec::new(),
            chain_work: header.work(),
        };
        Self::starting(network, trusted, Some(header))
    }

    /// A chain that starts at a block that the operator vouches for.
    pub fn from_trusted(network: Network, start: TrustedStart) -> Result<Self, StartError> {
        start.check(network)?;
        Ok(Self::starting(network, start, None))
    }

    fn starting(network: Network, trusted: TrustedStart, header: Option<Header>) -> Self {
        let tip = Tip {
            height: trusted.height,
            hash: trusted.hash,
            time: trusted.time,
            chain_work: trusted.chain_work,
        };
        // Who vouches for a block of mainnet vouches for every row that shows as much work as it takes to follow it.
        let least_work = match (network, &header) {
            (Network::Main, None) => Some(tip.chain_work),
            _ => network.minimum_work(),
        };
        Self {
            network,
            least_work,
            heights: Heights::build([(tip.height, tip.hash)].into_iter()),
            start: Start { trusted, header },
            active: Vec::new(),
            works: vec![tip.chain_work],
            tip,
            side: BTreeMap::new(),
            own: None,
            is_adopted: false,
        }
    }

    /// The same chain, believed from this much work on.
    #[cfg(test)]
    pub(super) fn believed_from(mut self, least: Work) -> Self {
        self.least_work = Some(least);
        self
    }

    /// Where the chain begins.
    pub fn start(&self) -> Tip {
        let start = &self.start.trusted;
        Tip {
            height: start.height,
            hash: start.hash,
            time: start.time,
            chain_work: start.chain_work,
        }
    }

    /// Height of a block that is known, the start included, and whether it is on the active chain.
    pub fn place_of(&self, hash: BlockHash) -> Option<(u32, bool)> {
        let place = self.place(hash)?;
        Some((place.height(), matches!(place, Place::Active(_))))
    }

    /// The network whose rules hold.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The best block.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// Height of the block at which the chain starts.
    pub fn start_height(&self) -> u32 {
        self.start.trusted.height
    }

    /// Judges a header, as [`Headers::accept`] does, from its 80 bytes.
    pub fn accept_bytes(
        &mut self,
        header: &[u8; 80],
        now_unix_s: u32,
    ) -> Result<Accepted, HeaderRefusal> {
        let header = deserialize::<Header>(header).expect("any 80 bytes are a header");
        self.accept(&header, now_unix_s)
    }

    /// Judges a stranger's header at the time `now_unix_s`, in Unix seconds, and keeps it if it obeys the rules.
    pub fn accept(&mut self, header: &Header, now_unix_s: u32) -> Result<Accepted, HeaderRefusal> {
        self.judge(header, now_unix_s, false)
    }

    /// Judges a header that a node of the operator has told, whose chain that of this node follows.
    pub fn accept_own(
        &mut self,
        header: &Header,
        now_unix_s: u32,
    ) -> Result<Accepted, HeaderRefusal> {
        let mut accepted = self.judge(header, now_unix_s, true)?;
        if let Some(reorg) = self.vouch(accepted.hash)? {
            accepted.reorg = Some(reorg);
            accepted.is_tip = true;
        }
        Ok(accepted)
    }

    fn judge(
        &mut self,
        header: &Header,
        now_unix_s: u32,
        is_own: bool,
    ) -> Result<Accepted, HeaderRefusal> {
        let hash = header.block_hash();
        if let Some(place) = self.place(hash) {
            return Ok(Accepted {
                hash,
                height: place.height(),
                known: true,
                is_tip: hash == self.tip.hash,
                reorg: None,
            });
        }
        let parent = self
            .place(header.prev_blockhash)
            .ok_or(HeaderRefusal::UnknownParent)?;
        if parent.height().saturating_add(MAX_FORK_DEPTH) < self.tip.height
            && self.is_settled()
            && !is_own
            && !self.is_near_own(parent.height())
        {
            return Err(HeaderRefusal::TooDeep);
        }
        let view = View {
            headers: self,
            place: parent,
        };
        rules::check(self.network, &view, header, now_unix_s)?;
        let height = parent.height() + 1;
        let reorg = match parent {
            Place::Active(parent) if parent == self.tip.height => {
                self.extend(hash, header)?;
                None
            }
            _ => {
                let chain_work = self.chain_work(parent) + header.work();
                let side = Side {
                    header: *header,
                    height,
                    chain_work,
                };
                self.branch(hash, side, is_own)?
            }
        };
        Ok(Accepted {
            hash,
            height,
            known: false,
            is_tip: hash == self.tip.hash,
            reorg,
        })
    }

    /// Whether a block at this height is recent enough for a job: among the last [`RECENT`] or above the tip, or, where
    /// the tip may be made up, as near to the own node's best block. On mainnet that one may lie years back, where
    /// headers are easy.
    pub fn in_window(&self, height: u32) -> bool {
        let recent = |tip: u32| height.saturating_add(RECENT) > tip;
        let is_next = |own: u32| recent(own) && height <= own.saturating_add(RECENT);
        let is_costly = self.network == Network::Main && self.is_settled();
        recent(self.tip.height) || !is_costly && self.own_height().is_some_and(is_next)
    }

    /// The header with this hash, on the active chain or off it. A trusted start's own header is not known.
    pub fn by_hash(&self, hash: BlockHash) -> Option<Found> {
        match self.place(hash)? {
            Place::Active(height) => Some(Found {
                header: self.by_height(height)?,
                height,
                active: true,
            }),
            Place::Side(_, side) => Some(Found {
                header: side.header,
                height: side.height,
                active: false,
            }),
        }
    }

    /// The header at this height of the active chain. A trusted start's own header is not known.
    pub fn by_height(&self, height: u32) -> Option<Header> {
        match height.checked_sub(self.start.trusted.height)? {
            0 => self.start.header,
            above => self.active.get(above as usize - 1).copied(),
        }
    }

    /// The hash at this height of the active chain, the start included.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        if height == self.tip.height {
            return Some(self.tip.hash);
        }
        let above = height.checked_sub(self.start.trusted.height)?;
        let child = self.active.get(above as usize)?;
        Some(child.prev_blockhash)
    }

    /// The median time of the tip and the ten blocks before it, in Unix seconds: a child must be later.
    pub fn median_time(&self) -> u32 {
        rules::median_time(&self.tip_view())
    }

    /// The target that a child of the tip with this time must state.
    pub fn next_bits(&self, time: u32) -> Result<CompactTarget, HeaderRefusal> {
        let view = self.tip_view();
        let parent = view.point(view.place).ok_or(HeaderRefusal::UnknownParent)?;
        rules::required_bits(self.network, &view, parent, time)
    }

    /// Hashes of the active chain, the tip first, dense at first and then at doubling distances down to the
    /// start: what `getheaders` of the Bitcoin P2P protocol asks with.
    pub fn locator(&self) -> Vec<BlockHash> {
        let mut hashes = Vec::new();
        let mut height = self.tip.height;
        let mut step = 1;
        while height > self.start.trusted.height {
            hashes.extend(self.hash_at(height));
            if hashes.len() >= 10 {
                step *= 2;
            }
            height = height.saturating_sub(step);
        }
        hashes.push(self.start.trusted.hash);
        hashes
    }

    /// How many headers are kept off the active chain.
    pub fn side_headers(&self) -> usize {
        self.side.len()
    }

    /// Memory held, in bytes, about.
    pub fn memory(&self) -> usize {
        self.active.capacity() * size_of::<Header>()
            + self.heights.memory()
            + self.side.len() * (size_of::<Side>() + size_of::<BlockHash>()) * 3 / 2
    }

    fn place(&self, hash: BlockHash) -> Option<Place> {
        if hash == self.tip.hash {
            return Some(Place::Active(self.tip.height));
        }
        let active = self
            .heights
            .find(hash, |height| self.hash_at(height) == Some(hash));
        if let Some(height) = active {
            return Some(Place::Active(height));
        }
        let side = self.side.get(&hash)?;
        Some(Place::Side(hash, *side))
    }

    fn tip_view(&self) -> View<'_> {
        View {
            headers: self,
            place: Place::Active(self.tip.height),
        }
    }

    /// Work of the chain up to a block.
    fn chain_work(&self, place: Place) -> Work {
        let height = match place {
            Place::Side(_, side) => return side.chain_work,
            Place::Active(height) => height,
        };
        let above = height.saturating_sub(self.start.trusted.height) as usize;
        let step = (above / WORK_STEP).min(self.works.len() - 1);
        let rest = self.active.get(step * WORK_STEP..above);
        let work = self.works.get(step).copied().unwrap_or(self.tip.chain_work);
        rest.unwrap_or_default()
            .iter()
            .fold(work, |work, header| work + header.work())
    }

    /// Adds a child of the tip.
    fn extend(&mut self, hash: BlockHash, header: &Header) -> Result<(), HeaderRefusal> {
        if self.active.len() >= MAX_HEADERS {
            return Err(HeaderRefusal::Full);
        }
        self.active.push(*header);
        self.tip = Tip {
            height: self.tip.height + 1,
            hash,
            time: header.time,
            chain_work: self.tip.chain_work + header.work(),
        };
        if self.active.len().is_multiple_of(WORK_STEP) {
            self.works.push(self.tip.chain_work);
        }
        if self.heights.is_full() {
            let start = self.start.trusted.height;
            let blocks = (0..self.active.len() + 1).map(|above| {
                let height = start + above as u32;
                (height, self.hash_at(height).unwrap_or(hash))
            });
            self.heights = Heights::build(blocks);
        } else {
            self.heights.insert(self.tip.height, hash);
        }
        Ok(())
    }
}
