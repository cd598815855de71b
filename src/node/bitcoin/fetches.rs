//! Blocks that are wanted from somewhere: each is asked of one source at a time, the best first, and of the next
//! one when that fails or takes too long. Nothing here does I/O; whoever owns it carries the questions out.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::BlockHash;

use super::ledger::NodeNumber;
use super::peers::PeerNumber;
use crate::time::Time;

/// Blocks wanted at once: what a node may serve to others, all of which a reorganisation could want.
const MAX_WANTED: usize = 288;
/// Questions under way at once: each answer has up to 4 MB.
const MAX_UNDER_WAY: usize = 8;
/// Those who wait for one block: every connection that is taken may be one of them.
const MAX_WAITERS: usize = 64;
/// How long a source may take for a block: 4 MB at 1 Mbit/s would take longer, but then another is quicker.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a block is wanted of which nobody knows anything.
const MAX_AGE: Duration = Duration::from_secs(600);
/// When a block that nobody had is asked for again.
const RETRY: Duration = Duration::from_secs(10);
/// How long a peer waits for a block that this node is after itself: as a rule it is on its way.
const SERVE_TIME: Duration = Duration::from_secs(20);

/// Whom a block can be asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The disk.
    Disk,
    /// A Bitcoin node of the operator, by RPC.
    Rpc(NodeNumber),
    /// A peer by P2P, the operator's nodes among them.
    Peer(PeerNumber),
}

/// What a block is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To have it, and to relay it if it is recent.
    Hold,
    /// To answer what a peer asked.
    Serve(PeerNumber),
    /// To submit it to a node that lacks it.
    Feed(NodeNumber),
}

#[derive(Debug)]
struct Fetch {
    /// Of the block, as far as that is known: the lowest is asked for first, since the others follow from it.
    height: u32,
    since: Time,
    not_before: Time,
    /// How often nobody had it.
    rounds: u32,
    tried: Vec<Origin>,
    current: Option<(Origin, Time)>,
    purposes: Vec<Purpose>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Questions to put: each is answered by [`Fetches::got`] or [`Fetches::failed`], or times out.
    pub ask: Vec<(BlockHash, Origin)>,
    /// What nobody could be found for.
    pub give_up: Vec<(BlockHash, Purpose)>,
}

/// The blocks that are wanted.
#[derive(Debug, Default)]
pub struct Fetches {
    wanted: BTreeMap<BlockHash, Fetch>,
}

impl Fetches {
    /// The block at a height is wanted, not before a time at which it may have come anyway. Whether there was room.
    pub fn want(
        &mut self,
        (height, hash): (u32, BlockHash),
        purpose: Purpose,
        not_before: Time,
        now: Time,
    ) -> bool {
        if !self.wanted.contains_key(&hash) && self.wanted.len() >= MAX_WANTED {
            return false;
        }
        let fetch = self.wanted.entry(hash).or_insert_with(|| Fetch {
            height,
            since: now,
            not_before,
            rounds: 0,
            tried: Vec::new(),
            current: None,
            purposes: Vec::new(),
        });
        fetch.not_before = fetch.not_before.min(not_before);
        if fetch.purposes.contains(&purpose) {
            return true;
        }
        if fetch.purposes.len() >= MAX_WAITERS {
            return false;
        }
        fetch.purposes.push(purpose);
        true
    }

    /// Whether a block is wanted.
    pub fn is_wanted(&self, hash: &BlockHash) -> bool {
        self.wanted.contains_key(hash)
    }

    /// Whether there is a block of which nobody knew anything when it was last asked for.
    pub fn is_any_missed(&self) -> bool {
        let mut fetches = self.wanted.values();
        fetches.any(|fetch| fetch.rounds > 0 && fetch.current.is_none())
    }

    /// What to do now. `sources` gives for a block whom to ask, the best first.
    ///
    /// When nobody is left to ask, what is wanted for this node is asked for again later, until it is too old; what
    /// only others want is given up at once, and what they want as well after a while.
    pub fn step(&mut self, now: Time, sources: impl Fn(&BlockHash) -> Vec<Origin>) -> Step {
        let mut under_way = self.under_way();
        let mut step = Step::default();
        let mut in_order: Vec<_> = self.wanted.iter_mut().collect();
        in_order.sort_by_key(|(hash, fetch)| (fetch.height, **hash));
        for (hash, fetch) in in_order {
            if fetch.current.is_some_and(|(_, deadline)| deadline <= now) {
                fetch.current = None;
                under_way -= 1;
            }
            if fetch.current.is_some() || fetch.not_before > now || under_way >= MAX_UNDER_WAY {
                continue;
            }
            let next = sources(hash)
                .into_iter()
                .find(|origin| !fetch.tried.contains(origin));
            if let Some(origin) = next {
                fetch.tried.push(origin);
                fetch.current = Some((origin, now + PATIENCE));
                under_way += 1;
                step.ask.push((*hash, origin));
                continue;
            }
            fetch.tried.clear();
            fetch.rounds += 1;
            fetch.not_before = now + RETRY;
            let too_old = fetch.since + MAX_AGE < now;
            let is_own = |purpose: &Purpose| matches!(purpose, Purpose::Hold | Purpose::Feed(_));
            let serves = fetch.purposes.iter().any(is_own) && fetch.since + SERVE_TIME > now;
            fetch.purposes.retain(|purpose| {
                let stays = !too_old && (serves || is_own(purpose));
                if !stays {
                    step.give_up.push((*hash, *purpose));
                }
                stays
            });
        }
        self.wanted.retain(|_, fetch| !fetch.purposes.is_empty());
        step
    }

    fn under_way(&self) -> usize {
        let asked = self.wanted.values().filter(|it| it.current.is_some());
        asked.count()
    }

    /// The block is here. For whom it was wanted.
    pub fn got(&mut self, hash: &BlockHash) -> Vec<Purpose> {
        self.wanted
            .remove(hash)
            .map_or(Vec::new(), |it| it.purposes)
    }

    /// The block is wanted no longer, whoever wanted it.
    pub fn give_up(&mut self, hash: &BlockHash) {
        self.wanted.remove(hash);
    }

    /// A source has it not, or is gone.
    pub fn failed(&mut self, hash: &BlockHash, origin: Origin) {
        if let Some(fetch) = self.wanted.get_mut(hash)
            && fetch.current.is_some_and(|(current, _)| current == origin)
        {
            fetch.current = None;
        }
    }

    /// A peer has gone: it answers no question, and nobody need answer it.
    pub fn gone(&mut self, peer: PeerNumber) {
        for fetch in self.wanted.values_mut() {
            if fetch
                .current
                .is_some_and(|(it, _)| it == Origin::Peer(peer))
            {
                fetch.current = None;
            }
            fetch.purposes.retain(|purpose| match purpose {
                Purpose::Serve(waits) => *waits != peer,
                Purpose::Hold | Purpose::Feed(_) => true,
            });
        }
        self.wanted.retain(|_, fetch| !fetch.purposes.is_empty());
    }

    /// Somebody new may be asked: what waits for its next round need not.
    pub fn renew(&mut self, now: Time) {
        for fetch in self.wanted.values_mut() {
            if fetch.rounds > 0 && fetch.current.is_none() {
                fetch.not_before = fetch.not_before.min(now);
            }
        }
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Time> {
        let full = self.under_way() >= MAX_UNDER_WAY;
        let times = self
            .wanted
            .values()
            .filter_map(|fetch| match fetch.current {
                Some((_, deadline)) => Some(deadline),
                None if full => None,
                None => Some(fetch.not_before),
            });
        times.min()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;

    use super::*;
    use crate::chain::p2p::connection::ConnectionId;

    fn hash(number: u16) -> BlockHash {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        BlockHash::from_byte_array(bytes)
    }

    fn at(seconds: u64) -> Time {
        Time::from_unix_seconds(1_000 + seconds)
    }

    const SERVE: Purpose = Purpose::Serve(ConnectionId(7));

    #[test]
    fn one_source_after_the_other() {
        let mut fetches = Fetches::default();
        let sources =
            |_: &BlockHash| vec![Origin::Disk, Origin::Rpc(0), Origin::Peer(ConnectionId(3))];
        assert!(fetches.want((1, hash(1)), Purpose::Hold, at(0), at(0)));
        assert!(fetches.want((1, hash(1)), SERVE, at(5), at(0)));
        for origin in sources(&hash(1)) {
            let step = fetches.step(at(0), sources);
            assert_eq!(step.ask, [(hash(1), origin)]);
            assert_eq!(fetches.step(at(0), sources), Step::default());
            // What another one says is no answer.
            fetches.failed(&hash(1), Origin::Rpc(9));
            assert_eq!(fetches.step(at(0), sources), Step::default());
            fetches.failed(&hash(1), origin);
        }
        // It may come by itself meanwhile.
        assert_eq!(fetches.step(at(0), sources), Step::default());
        assert_eq!(fetches.deadline(), Some(at(0) + RETRY));
        fetches.renew(at(1));
        assert_eq!(fetches.step(at(1), sources).ask.len(), 1);
        fetches.failed(&hash(1), Origin::Disk);
        let late = at(0) + SERVE_TIME;
        let nobody = |_: &BlockHash| Vec::new();
        assert_eq!(fetches.step(late, nobody).give_up, [(hash(1), SERVE)]);
        fetches.want((2, hash(2)), SERVE, at(0), at(0));
        assert_eq!(fetches.step(late, nobody).give_up, [(hash(2), SERVE)]);
        assert_eq!(fetches.got(&hash(1)), [Purpose::Hold]);
        assert_eq!(fetches.deadline(), None);
    }

    #[test]
    fn a_source_that_is_slow_or_gone_is_not_waited_for() {
        let mut fetches = Fetches::default();
        let sources = |_: &BlockHash| {
            vec![
                Origin::Peer(ConnectionId(1)),
                Origin::Peer(ConnectionId(2)),
                Origin::Peer(ConnectionId(3)),
            ]
        };
        fetches.want((1, hash(1)), Purpose::Feed(0), at(2), at(0));
        assert_eq!(fetches.step(at(1), sources), Step::default());
        assert_eq!(fetches.deadline(), Some(at(2)));
        assert_eq!(
            fetches.step(at(2), sources).ask,
            [(hash(1), Origin::Peer(ConnectionId(1)))]
        );
        let late = at(2) + PATIENCE;
        assert_eq!(fetches.deadline(), Some(late));
        assert_eq!(
            fetches.step(late, sources).ask,
            [(hash(1), Origin::Peer(ConnectionId(2)))]
        );
        fetches.gone(ConnectionId(2));
        assert_eq!(
            fetches.step(late, sources).ask,
            [(hash(1), Origin::Peer(ConnectionId(3)))]
        );
        let old = at(3) + MAX_AGE;
        fetches.gone(ConnectionId(3));
        assert_eq!(
            fetches.step(old, sources).give_up,
            [(hash(1), Purpose::Feed(0))]
        );
        assert!(!fetches.is_wanted(&hash(1)));
    }

    #[test]
    fn the_lowest_is_asked_for_first() {
        let mut fetches = Fetches::default();
        for number in [9_u16, 3, 7, 1, 8, 2, 6, 5, 4, 0] {
            let block = (u32::from(number), hash(1_000 - number));
            fetches.want(block, Purpose::Hold, at(0), at(0));
        }
        let asked = fetches.step(at(0), |_| vec![Origin::Disk]).ask;
        let lowest = (0..MAX_UNDER_WAY as u16).map(|number| (hash(1_000 - number), Origin::Disk));
        assert!(asked.into_iter().eq(lowest));
    }

    #[test]
    fn bounded_in_every_way() {
        let mut fetches = Fetches::default();
        for number in 0..1_000 {
            for peer in 0..100 {
                fetches.want(
                    (u32::from(number), hash(number)),
                    Purpose::Serve(ConnectionId(peer)),
                    at(0),
                    at(0),
                );
            }
        }
        assert_eq!(fetches.wanted.len(), MAX_WANTED);
        let step = fetches.step(at(0), |_| vec![Origin::Disk]);
        assert_eq!(step.ask.len(), MAX_UNDER_WAY);
        assert_eq!(fetches.got(&hash(0)).len(), MAX_WAITERS);
        for peer in 0..100 {
            fetches.gone(ConnectionId(peer));
        }
        assert!(fetches.wanted.is_empty());
    }
}
