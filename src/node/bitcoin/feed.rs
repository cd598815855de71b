//! Which block a Bitcoin node that has fallen behind is given next. No I/O.
//!
//! It is given one block at a time, each after it has answered for the one before: so they come in order, however
//! fast they were mined, and a node that takes its time is not swamped.

use std::time::Duration;

use bitcoin::BlockHash;

use super::hold::SERVED_DEPTH;
use super::ledger::Verdict;
use crate::chain::Tip;
use crate::node::headers::HeaderBook;
use crate::time::Time;

/// How long to leave a node alone that could not be fed, at first: a parent that it lacked may be there soon.
const LEAST_REST: Duration = Duration::from_millis(500);
/// The longest rest.
const MOST_REST: Duration = Duration::from_secs(30);

/// One node's feeding.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    not_before: Option<Time>,
    /// How long the last rest was.
    rest: Duration,
    /// The last block for which it has answered, with its height.
    answered: Option<(u32, BlockHash)>,
}

impl Feed {
    /// The node has come up, maybe with another chain than before.
    pub fn start(&mut self) {
        *self = Self::default();
    }

    /// The block to give to a node whose best block is `best`, with its height, if there is one.
    pub fn next(
        &mut self,
        best: BlockHash,
        book: &HeaderBook,
        tip: Tip,
        now: Time,
    ) -> Option<(u32, BlockHash)> {
        if best == tip.hash {
            self.start();
            return None;
        }
        if self.not_before.is_some_and(|time| time > now) {
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
        Some((height, book.hash_at(height)?))
    }

    /// The node has answered for a block.
    pub fn answered(&mut self, height: u32, hash: BlockHash, verdict: &Verdict, now: Time) {
        match verdict {
            Verdict::Accepted | Verdict::Duplicate | Verdict::Inconclusive => {
                self.answered = Some((height, hash));
                self.not_before = None;
                self.rest = Duration::ZERO;
            }
            Verdict::Invalid(_) | Verdict::Failed(_) => {
                // From its best block on again: it may have lost what it had taken.
                self.answered = None;
                self.rest = (self.rest * 2).clamp(LEAST_REST, MOST_REST);
                self.not_before = Some(now + self.rest);
            }
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

/// Whether a block is `tip` or one of its ancestors, as far as can be told with the blocks that are served.
pub(super) fn is_below(book: &HeaderBook, block: BlockHash, tip: BlockHash) -> bool {
    if block == tip {
        return true;
    }
    let (Some((height, active)), Some(shared)) = (book.place(block), last_shared(book, tip)) else {
        return false;
    };
    if active {
        return height <= shared;
    }
    let mut hash = tip;
    for _ in 0..=SERVED_DEPTH {
        match book.place(hash) {
            Some((above, false)) if above > height => {}
            Some(_) => return hash == block,
            None => return false,
        }
        let Some(parent) = book.parent(hash) else {
            return false;
        };
        hash = parent;
    }
    false
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
    fn a_node_is_fed_in_order_and_each_block_once() {
        let book = HeaderBook::new(Network::Regtest, None).unwrap();
        let hashes = grow(&book, Network::Regtest.genesis(), 5, 600);
        let mut feed = Feed::default();
        for (height, hash) in (3..).zip(&hashes[3..]) {
            let next = Some((height, *hash));
            assert_eq!(feed.next(hashes[2], &book, tip(&book), now()), next);
            // Until it has answered, it is the same one.
            assert_eq!(feed.next(hashes[2], &book, tip(&book), now()), next);
            feed.answered(height, *hash, &Verdict::Inconclusive, now());
        }
        assert_eq!(feed.next(hashes[2], &book, tip(&book), now()), None);
        assert_eq!(feed.next(hashes[5], &book, tip(&book), now()), None);
        // It has lost some of them.
        let next = Some((4, hashes[4]));
        assert_eq!(feed.next(hashes[3], &book, tip(&book), now()), next);
    }

    #[test]
    fn a_node_that_refuses_is_left_alone_longer_each_time() {
        let book = HeaderBook::new(Network::Regtest, None).unwrap();
        let hashes = grow(&book, Network::Regtest.genesis(), 3, 600);
        let mut feed = Feed::default();
        feed.answered(2, hashes[2], &Verdict::Accepted, now());
        let (mut time, mut rests) = (now(), Vec::new());
        for _ in 0..10 {
            feed.answered(3, hashes[3], &Verdict::Failed("gone".to_owned()), time);
            assert_eq!(feed.next(hashes[1], &book, tip(&book), time), None);
            let later = feed.deadline(time).unwrap();
            rests.push(later.since(time));
            time = later;
            // What it said to have taken it has not: that comes again first.
            let next = Some((2, hashes[2]));
            assert_eq!(feed.next(hashes[1], &book, tip(&book), time), next);
        }
        assert_eq!(rests[0], LEAST_REST);
        assert_eq!(rests[1], 2 * LEAST_REST);
        assert_eq!(rests[9], MOST_REST);
        assert!(rests.is_sorted());
        feed.answered(2, hashes[2], &Verdict::Accepted, time);
        assert_eq!(feed.deadline(time), None);
    }

    #[test]
    fn another_branch_is_fed_from_the_fork() {
        let book = HeaderBook::new(Network::Regtest, None).unwrap();
        let old = grow(&book, Network::Regtest.genesis(), 12, 600);
        let new = grow(&book, book.from_height(2, 1)[0], 11, 601);
        let mut feed = Feed::default();
        let next = Some((3, new[1]));
        assert_eq!(feed.next(old[12], &book, tip(&book), now()), next);
        let old_below = |block: BlockHash| is_below(&book, block, old[12]);
        assert!(old.iter().all(|block| old_below(*block)));
        assert!(!new.iter().skip(1).any(|block| old_below(*block)));
        assert!(new.iter().all(|block| is_below(&book, *block, new[11])));
        assert!(is_below(&book, old[2], new[11]) && !is_below(&book, old[3], new[11]));
        assert!(!is_below(&book, old[12], old[11]) && !is_below(&book, new[9], new[8]));
        // Nothing is known of a branch that nobody has shown.
        let strange = mine(old[3], 7).block_hash();
        assert_eq!(feed.next(strange, &book, tip(&book), now()), None);
    }
}
