//! Which block a Bitcoin node that has fallen behind is given next. No I/O.

use std::time::Duration;

use bitcoin::BlockHash;

use super::hold::SERVED_DEPTH;
use super::ledger::Verdict;
use crate::chain::Tip;
use crate::node::headers::HeaderBook;
use crate::time::Time;

/// How long a node may be behind before it is fed: usually the block that it lacks is under way to it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to leave a node alone that could not be fed.
const REST: Duration = Duration::from_secs(10);

/// One node's feeding.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    /// Our tip at which the node was seen behind.
    behind: Option<BlockHash>,
    not_before: Option<Time>,
    /// The node has just come up: what it lacks is not under way.
    fresh: bool,
    /// The block that it is given now, with its height.
    current: Option<(u32, BlockHash)>,
    /// The last one for which it has answered.
    answered: Option<(u32, BlockHash)>,
}

impl Feed {
    /// The node has come up: what it lacks is given at once.
    pub fn start(&mut self) {
        *self = Self {
            fresh: true,
            ..Self::default()
        };
    }

    /// It is not to be fed, or can't be now; it is looked at again when the tip moves.
    pub fn stop(&mut self) {
        *self = Self {
            behind: self.behind,
            ..Self::default()
        };
    }

    /// The block to give to a node whose best block is `node`, if it is to be given one.
    pub fn next(
        &mut self,
        node: Option<(BlockHash, u32)>,
        book: &HeaderBook,
        tip: Tip,
        now: Time,
    ) -> Option<BlockHash> {
        let (best, _) = node?;
        if best == tip.hash {
            *self = Self::default();
            return None;
        }
        if self.behind != Some(tip.hash) {
            let patience = match self.fresh {
                true => Duration::ZERO,
                false => PATIENCE,
            };
            self.fresh = false;
            self.behind = Some(tip.hash);
            self.not_before = Some(now + patience);
        }
        if self.not_before.is_none_or(|time| time > now) {
            return None;
        }
        // A block that is not known here is ahead of us, or of a branch that we have not seen.
        let shared = last_shared(book, best)?;
        if tip.height.saturating_sub(shared) > SERVED_DEPTH {
            return None;
        }
        let answered = self
            .answered
            .filter(|(height, hash)| book.hash_at(*height) == Some(*hash))
            .map_or(shared, |(height, _)| height.max(shared));
        let height = answered + 1;
        let hash = book.hash_at(height)?;
        self.current = Some((height, hash));
        Some(hash)
    }

    /// The node has answered for a block.
    pub fn answered(&mut self, hash: &BlockHash, verdict: &Verdict, now: Time) {
        let Some((height, current)) = self.current.filter(|(_, current)| current == hash) else {
            return;
        };
        self.current = None;
        match verdict {
            Verdict::Accepted | Verdict::Duplicate | Verdict::Inconclusive => {
                self.answered = Some((height, current));
            }
            Verdict::Invalid(_) | Verdict::Failed(_) => self.not_before = Some(now + REST),
        }
    }

    /// When to look again.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        self.not_before.filter(|time| *time > now)
    }
}

/// Height of the last block of the active chain that is an ancestor of `hash`, or it.
fn last_shared(book: &HeaderBook, hash: BlockHash) -> Option<u32> {
    let mut hash = hash;
    for _ in 0..=SERVED_DEPTH {
        let (height, active) = book.place(hash)?;
        if active {
            return Some(height);
        }
        hash = book.parent(hash)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Network;
    use crate::node::headers::tests::{bytes, mine};

    fn now() -> Time {
        Time::from_unix_seconds(u64::from(Network::Regtest.genesis().time) + 1_000_000)
    }

    /// A chain of so many blocks with times `step` apart on top of `fork`; hashes by height from there.
    fn grow(
        book: &HeaderBook,
        fork: bitcoin::block::Header,
        count: u32,
        step: u32,
    ) -> Vec<BlockHash> {
        let mut parent = fork;
        let mut hashes = vec![parent.block_hash()];
        for _ in 0..count {
            parent = mine(parent.block_hash(), parent.time + step);
            book.submit(&bytes(&parent), now()).unwrap();
            hashes.push(parent.block_hash());
        }
        hashes
    }

    fn tip(book: &HeaderBook) -> Tip {
        *book.watch_tip().borrow()
    }

    #[test]
    fn a_node_that_comes_up_is_fed_at_once_and_in_order() {
        let book = HeaderBook::new(Network::Regtest, None).unwrap();
        let hashes = grow(&book, Network::Regtest.genesis(), 5, 600);
        let mut feed = Feed::default();
        feed.start();
        let best = Some((hashes[2], 2));
        for hash in &hashes[3..] {
            assert_eq!(feed.next(best, &book, tip(&book), now()), Some(*hash));
            // Until it has answered, it is the same one.
            assert_eq!(feed.next(best, &book, tip(&book), now()), Some(*hash));
            feed.answered(hash, &Verdict::Inconclusive, now());
        }
        assert_eq!(feed.next(best, &book, tip(&book), now()), None);
        assert_eq!(
            feed.next(Some((hashes[5], 5)), &book, tip(&book), now()),
            None
        );
    }

    #[test]
    fn a_node_that_is_up_has_time_to_take_a_block() {
        let book = HeaderBook::new(Network::Regtest, None).unwrap();
        let hashes = grow(&book, Network::Regtest.genesis(), 2, 600);
        let mut feed = Feed::default();
        let best = Some((hashes[1], 1));
        assert_eq!(feed.next(best, &book, tip(&book), now()), None);
        assert_eq!(feed.deadline(now()), Some(now() + PATIENCE));
        let later = now() + PATIENCE;
        assert_eq!(feed.next(best, &book, tip(&book), later), Some(hashes[2]));
        feed.answered(&hashes[2], &Verdict::Failed("gone".to_owned()), later);
        assert_eq!(feed.next(best, &book, tip(&book), later), None);
        assert_eq!(feed.deadline(later), Some(later + REST));
        assert_eq!(
            feed.next(best, &book, tip(&book), later + REST),
            Some(hashes[2])
        );
    }

    #[test]
    fn another_branch_is_fed_from_the_fork() {
        let book = HeaderBook::new(Network::Regtest, None).unwrap();
        let old = grow(&book, Network::Regtest.genesis(), 12, 600);
        let new = grow(&book, book.from_height(2, 1)[0], 11, 601);
        let mut feed = Feed::default();
        feed.start();
        assert_eq!(
            feed.next(Some((old[12], 12)), &book, tip(&book), now()),
            Some(new[1])
        );
        // Nothing is known of a branch that nobody has shown.
        let strange = mine(old[3], 7).block_hash();
        feed.start();
        assert_eq!(
            feed.next(Some((strange, 4)), &book, tip(&book), now()),
            None
        );
    }
}
