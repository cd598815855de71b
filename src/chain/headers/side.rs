//! What is kept off the active chain, and how a branch becomes the active one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bitcoin::BlockHash;

use super::{
    Headers, MAX_FORK_BELOW_OWN, MAX_FORK_DEPTH, MAX_HEADERS, MAX_RIVAL_HEADERS, MAX_SIDE_HEADERS,
    Place, RECENT, Reorg, Side, Tip, WORK_STEP,
};
use crate::chain::rules::HeaderRefusal;

/// When there are too many headers, one in so many goes at once: to find them takes a pass over all.
const TRIM_SHARE: usize = 8;

/// A branch: its headers, the highest first, and the height at which it leaves the active chain.
type Branch = (Vec<(BlockHash, Side)>, u32);

impl Headers {
    /// A node of the operator holds this block as its best: it is valid, and the active chain is to have it.
    ///
    /// If the block is off the active chain, and leaves that deeper than [`MAX_FORK_BELOW_OWN`], its branch becomes the
    /// active one; until the own node's chain was met at all, if it leaves deeper than [`RECENT`]. Of several such nodes the one with the most work is followed.
    ///
    /// # Errors
    ///
    /// There is no room for so long a chain.
    pub fn vouch(&mut self, hash: BlockHash) -> Result<Option<Reorg>, HeaderRefusal> {
        let Some(place) = self.place(hash) else {
            return Ok(None);
        };
        let before = self.own.and_then(|own| self.place(own));
        let shows_more = |before| match (before, place) {
            (Place::Active(before), Place::Active(height)) => before <= height,
            _ => self.chain_work(before) <= self.chain_work(place),
        };
        if before.is_none_or(shows_more) {
            self.own = Some(hash);
        }
        let Place::Side(_, side) = place else {
            self.is_adopted |= place.height() > self.start.trusted.height;
            return Ok(None);
        };
        let (branch, fork_height) = self.branch_of(hash, side)?;
        let most = match self.is_adopted {
            true => MAX_FORK_BELOW_OWN,
            false => RECENT,
        };
        if branch.len() <= most as usize {
            return Ok(None);
        }
        self.own = Some(hash);
        self.is_adopted = true;
        self.reorganise(branch, fork_height).map(Some)
    }

    /// Height of the own node's best block.
    pub(super) fn own_height(&self) -> Option<u32> {
        Some(self.place(self.own?)?.height())
    }

    /// Whether a block at this height may be of a branch that the own node can still be given.
    pub(super) fn is_near_own(&self, height: u32) -> bool {
        let near = |own: u32| height.saturating_add(MAX_FORK_BELOW_OWN) >= own;
        self.own_height().is_some_and(near)
    }

    /// Whether the active chain shows so much work that nobody can have made it up.
    pub(super) fn is_settled(&self) -> bool {
        self.least_work
            .is_some_and(|least| self.tip.chain_work >= least)
    }

    /// Adds a header off the active chain, and makes its branch the active one if it has more work.
    pub(super) fn branch(
        &mut self,
        hash: BlockHash,
        side: Side,
        is_own: bool,
    ) -> Result<Option<Reorg>, HeaderRefusal> {
        if side.chain_work > self.tip.chain_work {
            let (branch, fork_height) = self.branch_of(hash, side)?;
            if !is_own && self.leaves_own(fork_height) {
                return Err(HeaderRefusal::TooDeep);
            }
            return self.reorganise(branch, fork_height).map(Some);
        }
        self.side.insert(hash, side);
        if self.trim(hash) {
            return Ok(None);
        }
        self.side.remove(&hash);
        Err(HeaderRefusal::Full)
    }

    /// Whether a branch from this height of the active chain leaves that of the own node deep below its best block.
    fn leaves_own(&self, fork_height: u32) -> bool {
        let Some(Place::Active(own)) = self.own.and_then(|own| self.place(own)) else {
            return false;
        };
        fork_height.saturating_add(MAX_FORK_BELOW_OWN) < own
    }

    /// The branch that ends in a side header, which need not be kept yet.
    fn branch_of(&self, hash: BlockHash, top: Side) -> Result<Branch, HeaderRefusal> {
        let mut branch = vec![(hash, top)];
        let mut parent = top.header.prev_blockhash;
        loop {
            match self.place(parent) {
                Some(Place::Side(hash, side)) => {
                    branch.push((hash, side));
                    parent = side.header.prev_blockhash;
                }
                Some(Place::Active(height)) => return Ok((branch, height)),
                None => return Err(HeaderRefusal::UnknownParent),
            }
        }
    }

    /// Makes a branch the active one.
    fn reorganise(
        &mut self,
        branch: Vec<(BlockHash, Side)>,
        fork_height: u32,
    ) -> Result<Reorg, HeaderRefusal> {
        let keep = (fork_height - self.start.trusted.height) as usize;
        if keep + branch.len() > MAX_HEADERS {
            return Err(HeaderRefusal::Full);
        }
        // What is left that deep is not come back to by a header or two.
        let is_kept = self.active.len() - keep <= MAX_FORK_DEPTH as usize;
        let mut disconnected = Vec::new();
        while self.active.len() > keep {
            disconnected.push(self.tip.hash);
            self.retreat(is_kept);
        }
        let mut connected = Vec::with_capacity(branch.len());
        for (hash, side) in branch.into_iter().rev() {
            self.side.remove(&hash);
            self.extend(hash, &side.header)?;
            connected.push(hash);
        }
        if !is_kept {
            self.drop_unconnected();
        }
        Ok(Reorg {
            fork_height,
            disconnected,
            connected,
        })
    }

    /// Moves the tip off the active chain.
    fn retreat(&mut self, is_kept: bool) {
        let Some(header) = self.active.pop() else {
            return;
        };
        self.works.truncate(self.active.len() / WORK_STEP + 1);
        let side = Side {
            header,
            height: self.tip.height,
            chain_work: self.tip.chain_work,
        };
        if is_kept {
            self.side.insert(self.tip.hash, side);
        }
        let height = self.tip.height - 1;
        let time = self
            .active
            .last()
            .map_or(self.start.trusted.time, |header| header.time);
        self.tip = Tip {
            height,
            hash: header.prev_blockhash,
            time,
            chain_work: self.tip.chain_work - header.work(),
        };
    }

    /// Drops the headers off the active chain whose parents are known no more.
    fn drop_unconnected(&mut self) {
        let mut order: Vec<(u32, BlockHash)> = self
            .side
            .iter()
            .map(|(hash, side)| (side.height, *hash))
            .collect();
        order.sort_unstable();
        for (_, hash) in order {
            let parent = self.side.get(&hash).map(|side| side.header.prev_blockhash);
            if parent.is_some_and(|parent| self.place(parent).is_none()) {
                self.side.remove(&hash);
            }
        }
    }

    /// Makes room if there are too many headers off the active chain: of those without a child, and neither `but` nor
    /// the own node's, the ones with the least work go. Whether there is room.
    fn trim(&mut self, but: BlockHash) -> bool {
        let most = match self.is_settled() {
            true => MAX_SIDE_HEADERS,
            false => MAX_RIVAL_HEADERS,
        };
        if self.side.len() <= most {
            return true;
        }
        let mut children: BTreeMap<BlockHash, u32> = BTreeMap::new();
        for side in self.side.values() {
            *children.entry(side.header.prev_blockhash).or_default() += 1;
        }
        let stays: BTreeSet<BlockHash> = self.own.into_iter().chain([but]).collect();
        let mut leaves: BinaryHeap<Reverse<_>> = self
            .side
            .iter()
            .filter(|(hash, _)| !children.contains_key(*hash) && !stays.contains(*hash))
            .map(|(hash, side)| Reverse((side.chain_work, *hash)))
            .collect();
        while self.side.len() > most - most / TRIM_SHARE {
            let Some(Reverse((_, hash))) = leaves.pop() else {
                break;
            };
            let Some(parent) = self
                .side
                .remove(&hash)
                .map(|side| side.header.prev_blockhash)
            else {
                break;
            };
            let left = children.entry(parent).or_default();
            *left = left.saturating_sub(1);
            if *left == 0
                && !stays.contains(&parent)
                && let Some(side) = self.side.get(&parent)
            {
                leaves.push(Reverse((side.chain_work, parent)));
            }
        }
        self.side.len() <= most
    }
}
