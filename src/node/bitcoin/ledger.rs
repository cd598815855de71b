//! What is remembered of each recent block: who brought it, when it was whole, to whom it was given and what
//! they said. From it comes one line of log for each block, and the rule that nothing is given twice.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::time::Duration;

use bitcoin::BlockHash;

use crate::time::Time;

/// Blocks remembered: two days of them, some hundred bytes each, more than any reorganisation undoes.
const MAX_RECORDS: usize = 288;
/// Times remembered at which a block was heard of: four Bitcoin nodes by four ways each.
const MAX_HEARD: usize = 16;

/// How long a node may take from telling of a block to having it as its best one: the largest ones take a second.
const DOUBT_TIME: Duration = Duration::from_secs(5);

/// Names one of the configured Bitcoin nodes, in order of preference from 0.
pub type NodeNumber = usize;

/// The way on which a block came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// A Bitcoin node's `cmpctblock`.
    Compact(NodeNumber),
    /// A Bitcoin node's `block`.
    Block(NodeNumber),
    /// A Bitcoin node's ZMQ `rawblock`.
    Zmq(NodeNumber),
    /// A Bitcoin node's RPC.
    Rpc(NodeNumber),
    /// Peers of the relay.
    Relay,
    /// A peer of the Bitcoin P2P network.
    Peer,
    /// `submitblock` of our own RPC.
    Submitted,
}

impl Via {
    /// The Bitcoin node that it came from, if it is one of the operator's.
    pub fn node(self) -> Option<NodeNumber> {
        match self {
            Self::Compact(node) | Self::Block(node) | Self::Zmq(node) | Self::Rpc(node) => {
                Some(node)
            }
            Self::Relay | Self::Peer | Self::Submitted => None,
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compact(node) => write!(formatter, "bitcoind {node} cmpctblock"),
            Self::Block(node) => write!(formatter, "bitcoind {node} block"),
            Self::Zmq(node) => write!(formatter, "bitcoind {node} zmq"),
            Self::Rpc(node) => write!(formatter, "bitcoind {node} rpc"),
            Self::Relay => formatter.write_str("relay"),
            Self::Peer => formatter.write_str("p2p peer"),
            Self::Submitted => formatter.write_str("submitblock"),
        }
    }
}

/// What a Bitcoin node made of a block that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken; if it was submitted, `submitblock` was the first to bring it.
    Accepted,
    /// It had it, by P2P or from elsewhere.
    Duplicate,
    /// Taken, but not as its best block, or it was busy with it.
    Inconclusive,
    /// It breaks a rule; which, in the node's word.
    Invalid(String),
    /// It could not be asked; why.
    Failed(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => formatter.write_str("accepted"),
            Self::Duplicate => formatter.write_str("had it"),
            Self::Inconclusive => formatter.write_str("inconclusive"),
            Self::Invalid(reason) => write!(formatter, "INVALID: {reason}"),
            Self::Failed(reason) => write!(formatter, "failed: {reason}"),
        }
    }
}

/// How a block was given to one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// It was heard of from there.
    pub has: bool,
    /// It seemed to have it, and did not come to have it as its best one.
    pub is_doubted: bool,
    /// When it went out by P2P.
    pub p2p: Option<Time>,
    /// When `submitblock` was called.
    pub submitted: Option<Time>,
    /// When that was answered, and how.
    pub verdict: Option<(Time, Verdict)>,
}

/// How it stands with a block and one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was not given, or in vain.
    NotGiven,
    /// It is on the way there.
    Given,
    /// The node has it, or has said what it makes of it.
    Answered(Verdict),
}

/// What is known of one block.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its height, once its header is on the chain.
    pub height: Option<u32>,
    /// Ways and times, in order.
    pub heard: Vec<(Via, Time)>,
    /// When it was whole here, and by which way.
    pub whole: Option<(Via, Time)>,
    /// Requests that the relay sent for it.
    pub requests: u64,
    /// Its size, bytes.
    pub bytes: usize,
    /// Its transactions, and how many of them were not in the cache.
    pub transactions: (usize, usize),
    /// To whom it was given.
    pub given: BTreeMap<NodeNumber, Given>,
    /// The rule that it breaks, as a node says.
    pub invalid: Option<String>,
}

impl Record {
    /// The first that was heard of it.
    pub fn first(&self) -> Option<(Via, Time)> {
        self.heard.first().copied()
    }

    /// One line: where it came from, how long what took, who won.
    pub fn line(&self) -> String {
        let mut line = String::new();
        let Some((first, start)) = self.first() else {
            return line;
        };
        let ms = |time: Time| time.since(start).as_secs_f64() * 1e3;
        // Writing to a string can't fail.
        let _ = write!(line, "first by {first}");
        if let Some((via, time)) = self.whole {
            let (all, lacked) = self.transactions;
            let _ = write!(
                line,
                ", whole by {via} after {:.1} ms, {} bytes, {lacked} of {all} transactions not in the cache, {} requests",
                ms(time),
                self.bytes,
                self.requests
            );
        }
        for (via, time) in self.heard.iter().skip(1) {
            let _ = write!(line, "; {via} +{:.1} ms", ms(*time));
        }
        for (node, given) in &self.given {
            if given.p2p.is_none() && given.verdict.is_none() {
                continue;
            }
            let _ = write!(line, "; to bitcoind {node}:");
            if let Some(time) = given.p2p {
                let _ = write!(line, " p2p +{:.1} ms", ms(time));
            }
            if let Some((time, verdict)) = &given.verdict {
                let how = match given.submitted {
                    Some(_) => " submitblock",
                    None => "",
                };
                let _ = write!(line, "{how} +{:.1} ms {verdict}", ms(*time));
            }
        }
        line
    }
}

/// The recent blocks.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    records: BTreeMap<BlockHash, Record>,
    order: VecDeque<BlockHash>,
}

impl Ledger {
    /// The record of a block, begun if need be; then the oldest one goes.
    pub fn record(&mut self, hash: BlockHash) -> &mut Record {
        if !self.records.contains_key(&hash) {
            if self.order.len() >= MAX_RECORDS
                && let Some(oldest) = self.order.pop_front()
            {
                self.records.remove(&oldest);
            }
            self.order.push_back(hash);
        }
        self.records.entry(hash).or_default()
    }

    /// The record of a block, if there is one.
    pub fn get(&self, hash: &BlockHash) -> Option<&Record> {
        self.records.get(hash)
    }

    /// A block was heard of at a time, of which may be told later. Whether that is the first time.
    pub fn heard(&mut self, hash: BlockHash, via: Via, time: Time) -> bool {
        let record = self.record(hash);
        let first = record.heard.is_empty();
        let known = record.heard.iter().any(|(known, _)| *known == via);
        if !known && record.heard.len() < MAX_HEARD {
            let place = record.heard.partition_point(|(_, known)| *known <= time);
            record.heard.insert(place, (via, time));
        }
        if let Some(node) = via.node() {
            let given = record.given.entry(node).or_default();
            given.has = !given.is_doubted;
        }
        first
    }

    /// The rule that a block breaks, if a node said so.
    pub fn invalid(&self, hash: &BlockHash) -> Option<&str> {
        self.get(hash)?.invalid.as_deref()
    }

    /// How it stands with a block and a node that is given it by `submitblock`, or by P2P alone.
    pub fn standing(&self, hash: &BlockHash, node: NodeNumber, by_rpc: bool) -> Standing {
        let record = self.get(hash);
        if let Some(reason) = record.and_then(|it| it.invalid.clone()) {
            return Standing::Answered(Verdict::Invalid(reason));
        }
        match record.and_then(|it| it.given.get(&node)) {
            Some(Given { has: true, .. }) => Standing::Answered(Verdict::Duplicate),
            Some(Given {
                verdict: Some((_, verdict)),
                ..
            }) if !matches!(verdict, Verdict::Failed(_)) => Standing::Answered(verdict.clone()),
            Some(given) if by_rpc && given.submitted.is_some() => Standing::Given,
            Some(given) if !by_rpc && given.p2p.is_some() => Standing::Given,
            _ => Standing::NotGiven,
        }
    }

    /// Until when a node may take to have a block as its best one that it has told of and was not given, or that it
    /// called known without a word on whether it is valid: `submitblock` says so too of one that is being validated.
    pub fn doubt_at(&self, hash: &BlockHash, node: NodeNumber) -> Option<Time> {
        let record = self.get(hash)?;
        let given = record.given.get(&node)?;
        if given.is_doubted {
            return None;
        }
        let since = match given.verdict {
            Some((answered, Verdict::Duplicate | Verdict::Inconclusive)) => answered,
            None if given.has && given.submitted.is_none() => {
                let mut heard = record.heard.iter();
                heard.find(|(via, _)| via.node() == Some(node))?.1
            }
            _ => return None,
        };
        Some(since + DOUBT_TIME)
    }

    /// A node has not taken a block that it seemed to have: it is given it once more. What told of it may be of another
    /// node, or the block may be invalid.
    pub fn doubt(&mut self, hash: &BlockHash, node: NodeNumber) {
        let record = self.records.get_mut(hash);
        if let Some(given) = record.and_then(|record| record.given.get_mut(&node)) {
            *given = Given {
                is_doubted: true,
                p2p: given.p2p,
                ..Given::default()
            };
        }
    }

    /// Whether a node was given a block that it seemed to have.
    pub fn is_doubted(&self, hash: &BlockHash, node: NodeNumber) -> bool {
        let given = self.get(hash).and_then(|record| record.given.get(&node));
        given.is_some_and(|given| given.is_doubted)
    }

    /// Whether a block may be given to a node: it is neither known to be invalid nor from that node, and was
    /// not given before by this way.
    pub fn may_give(&self, hash: &BlockHash, node: NodeNumber, by_rpc: bool) -> bool {
        let Some(record) = self.get(hash) else {
            return true;
        };
        let is_free = |given: &Given| match by_rpc {
            true => !given.has && given.submitted.is_none(),
            false => !given.has && given.p2p.is_none(),
        };
        record.invalid.is_none() && record.given.get(&node).is_none_or(is_free)
    }

    /// Notes that a block is given to a node, if it may be. Whether it may.
    pub fn give(&mut self, hash: BlockHash, node: NodeNumber, by_rpc: bool, now: Time) -> bool {
        if !self.may_give(&hash, node, by_rpc) {
            return false;
        }
        let given = self.record(hash).given.entry(node).or_default();
        match by_rpc {
            true => given.submitted = Some(now),
            false => given.p2p = Some(now),
        }
        true
    }

    /// What a node said of a block. Whether nothing is awaited of it any longer, so that its line can be told.
    pub fn verdict(
        &mut self,
        hash: BlockHash,
        node: NodeNumber,
        verdict: Verdict,
        now: Time,
    ) -> bool {
        let record = self.record(hash);
        if let Verdict::Invalid(reason) = &verdict {
            record.invalid = Some(reason.clone());
        }
        let given = record.given.entry(node).or_default();
        if matches!(verdict, Verdict::Failed(_)) {
            // It may be given again, by either way.
            (given.submitted, given.p2p) = (None, None);
        }
        given.verdict = Some((now, verdict));
        record
            .given
            .values()
            .all(|given| given.submitted.is_none() || given.verdict.is_some())
    }

    /// A node has restarted, or was away: it may have lost what it had, if it was killed, and be given all again.
    pub fn returned(&mut self, node: NodeNumber) {
        for record in self.records.values_mut() {
            record.given.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;

    use super::*;

    fn hash(number: u16) -> BlockHash {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        BlockHash::from_byte_array(bytes)
    }

    fn at(ms: u64) -> Time {
        Time::from_unix_seconds(1_000) + std::time::Duration::from_millis(ms)
    }

    #[test]
    fn what_was_called_known_is_given_once_more_if_it_is_not_taken() {
        for vague in [Verdict::Duplicate, Verdict::Inconclusive] {
            let mut ledger = Ledger::default();
            ledger.heard(hash(1), Via::Relay, at(0));
            assert!(ledger.give(hash(1), 0, false, at(1)));
            assert!(ledger.give(hash(1), 0, true, at(1)));
            assert_eq!(ledger.doubt_at(&hash(1), 0), None);
            ledger.verdict(hash(1), 0, vague.clone(), at(10));
            // Its own announcement, from before it was validated, changes nothing.
            ledger.heard(hash(1), Via::Compact(0), at(20));
            assert_eq!(ledger.doubt_at(&hash(1), 0), Some(at(10) + DOUBT_TIME));
            ledger.doubt(&hash(1), 0);
            assert!(!ledger.give(hash(1), 0, false, at(6_000)));
            assert!(ledger.give(hash(1), 0, true, at(6_000)));
            ledger.verdict(hash(1), 0, vague, at(6_001));
            assert_eq!(ledger.doubt_at(&hash(1), 0), None);
        }
        let mut ledger = Ledger::default();
        ledger.give(hash(1), 0, true, at(1));
        ledger.verdict(hash(1), 0, Verdict::Accepted, at(10));
        assert_eq!(ledger.doubt_at(&hash(1), 0), None);
    }

    #[test]
    fn nothing_is_given_twice_or_back_or_when_it_is_invalid() {
        let mut ledger = Ledger::default();
        assert!(ledger.heard(hash(1), Via::Compact(0), at(0)));
        assert!(!ledger.heard(hash(1), Via::Zmq(0), at(50)));
        assert!(!ledger.give(hash(1), 0, true, at(60)));
        assert!(ledger.give(hash(1), 1, true, at(60)));
        assert!(!ledger.give(hash(1), 1, true, at(61)));
        assert!(ledger.give(hash(1), 1, false, at(61)));
        assert!(!ledger.give(hash(1), 1, false, at(62)));
        let invalid = Verdict::Invalid("bad-cb-amount".to_owned());
        assert!(ledger.verdict(hash(1), 1, invalid, at(70)));
        assert!(!ledger.give(hash(1), 2, true, at(80)));
        assert_eq!(ledger.invalid(&hash(1)), Some("bad-cb-amount"));
        let line = ledger.get(&hash(1)).unwrap().line();
        assert!(line.starts_with("first by bitcoind 0 cmpctblock"), "{line}");
        assert!(line.contains("INVALID: bad-cb-amount"), "{line}");
    }

    #[test]
    fn what_failed_is_given_again_and_what_a_node_lost() {
        let mut ledger = Ledger::default();
        ledger.heard(hash(1), Via::Relay, at(0));
        assert_eq!(ledger.standing(&hash(1), 0, true), Standing::NotGiven);
        assert!(ledger.give(hash(1), 0, true, at(1)));
        assert_eq!(ledger.standing(&hash(1), 0, true), Standing::Given);
        assert_eq!(ledger.standing(&hash(1), 0, false), Standing::NotGiven);
        assert!(ledger.verdict(hash(1), 0, Verdict::Failed("gone".to_owned()), at(2)));
        assert_eq!(ledger.standing(&hash(1), 0, true), Standing::NotGiven);
        assert!(ledger.give(hash(1), 0, true, at(3)));
        assert!(ledger.give(hash(1), 0, false, at(3)));
        ledger.verdict(hash(1), 0, Verdict::Accepted, at(5));
        let answered = Standing::Answered(Verdict::Accepted);
        assert_eq!(ledger.standing(&hash(1), 0, true), answered);
        assert!(!ledger.give(hash(1), 0, true, at(6)));
        // One that it mined itself, and lost when it was killed.
        ledger.heard(hash(2), Via::Zmq(0), at(7));
        let has = Standing::Answered(Verdict::Duplicate);
        assert_eq!(ledger.standing(&hash(2), 0, true), has);
        assert!(!ledger.give(hash(2), 0, true, at(8)));
        ledger.returned(0);
        for number in [1, 2] {
            assert_eq!(ledger.standing(&hash(number), 0, true), Standing::NotGiven);
            assert!(ledger.give(hash(number), 0, true, at(9)));
        }
        let invalid = Verdict::Invalid("bad-cb-amount".to_owned());
        ledger.verdict(hash(2), 0, invalid.clone(), at(10));
        ledger.returned(0);
        assert_eq!(
            ledger.standing(&hash(2), 0, true),
            Standing::Answered(invalid)
        );
        assert!(!ledger.give(hash(2), 0, true, at(11)));
    }

    #[test]
    fn what_a_node_told_of_and_does_not_have_is_given_to_it() {
        let mut ledger = Ledger::default();
        ledger.heard(hash(1), Via::Relay, at(0));
        ledger.heard(hash(1), Via::Zmq(0), at(100));
        assert!(!ledger.give(hash(1), 0, true, at(200)));
        assert_eq!(ledger.doubt_at(&hash(1), 0), Some(at(5_100)));
        assert_eq!(ledger.doubt_at(&hash(1), 1), None);
        ledger.doubt(&hash(1), 0);
        assert_eq!(ledger.standing(&hash(1), 0, true), Standing::NotGiven);
        // It may tell of it again.
        ledger.heard(hash(1), Via::Zmq(0), at(6_000));
        assert!(ledger.give(hash(1), 0, true, at(6_000)));
        assert!(ledger.is_doubted(&hash(1), 0));
        assert_eq!(ledger.doubt_at(&hash(1), 0), None);
    }

    #[test]
    fn the_ledger_is_bounded() {
        let mut ledger = Ledger::default();
        for number in 0..1_000 {
            for way in 0..40 {
                ledger.heard(hash(number), Via::Rpc(way), at(0));
            }
        }
        assert_eq!(ledger.records.len(), MAX_RECORDS);
        assert_eq!(ledger.order.len(), MAX_RECORDS);
        assert_eq!(ledger.get(&hash(999)).unwrap().heard.len(), MAX_HEARD);
        assert!(ledger.get(&hash(0)).is_none());
    }
}
