//! What was refused, why, and what it costs its sender.
//!
//! One table holds every reason. Bytes that do not decode never reach a job: they are counted, and end a
//! control connection at once. A datum that decodes and contradicts the header's proof of work is a
//! lie that its sender could have known: it costs points, and at [`MAX_SCORE`] the session.

/// Points at which a session is ended with the reason "misbehaviour".
///
/// One hundred, as in Bitcoin Core's early scoring: five plain lies end a session, so that one bad
/// memory cell on an honest machine does not, and a liar can spoil five chunks at the most.
pub const MAX_SCORE: u32 = 100;

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident = $text:literal, $cost:literal;)+) => {
        /// A reason to refuse a datum.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Refusal { $($(#[$doc])+ $name,)+ }

        impl Refusal {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason's name in counters and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Points that it costs the session that sent the datum.
            pub const fn cost(self) -> u32 {
                match self { $(Self::$name => $cost,)+ }
            }
        }
    };
}

refusals! {
    /// A datagram too short or too long to be one.
    Length = "length", 0;
    /// A datagram for no connection of ours.
    ConnectionId = "connection-id", 0;
    /// A datagram from an address that is not the session's.
    Address = "address", 0;
    /// A datagram whose number was seen already, or is too old to tell.
    Replay = "replay", 0;
    /// A datagram whose MAC is wrong.
    Mac = "mac", 0;
    /// Bytes with a right MAC, or on the control connection, that do not decode.
    Malformed = "malformed", 100;
    /// A message where the protocol does not allow it.
    Order = "order", 20;
    /// A receive report about datagrams that were never sent.
    Report = "report", 20;
    /// A message for a job that was never opened or is closed; ordinary after a close.
    UnknownJob = "unknown-job", 0;
    /// A job id that was used for another block already.
    JobReused = "job-reused", 20;
    /// More jobs than a peer may have open.
    TooManyJobs = "too-many-jobs", 5;
    /// A header without the work or form that its context demands.
    Header = "header", 100;
    /// A header that cannot be judged before others have come. It is kept for a while.
    UnknownParent = "unknown-parent", 0;
    /// A block that was found invalid before. Its relayers cannot know.
    InvalidBlock = "invalid-block", 0;
    /// A header that lies too deep, or one more that cannot be judged than a peer may have kept. Whoever is ahead of
    /// us by a burst, or behind, or on another branch offers such in good faith.
    HeaderContext = "header-context", 0;
    /// A transaction count or block size beyond the network's limits.
    Limits = "limits", 20;
    /// A transaction count that was proven false.
    Count = "count", 50;
    /// A branch of the coinbase that does not lead to the header's merkle root.
    Branch = "branch", 20;
    /// A coinbase that is not leaf 0, or is none.
    Coinbase = "coinbase", 20;
    /// Witness hashes that do not lead to the coinbase's commitment.
    Commitment = "commitment", 20;
    /// Hashes that contradict a verified node above them.
    Hashes = "hashes", 20;
    /// Equal siblings in a merkle tree (CVE-2012-2459).
    EqualSiblings = "equal-siblings", 20;
    /// Runs that lie outside the tree, or hashes in a shape that is not asked for.
    Geometry = "geometry", 20;
    /// Short ids that do not belong to the leaves they were given for.
    ShortIds = "short-ids", 20;
    /// A transaction that does not parse.
    Transaction = "transaction", 20;
    /// A transaction that is not the leaf's.
    Leaf = "leaf", 20;
    /// Parts of a transaction that do not fit each other.
    Parts = "parts", 20;
    /// Parity that fits no code of the job, or is not that of the block.
    Parity = "parity", 20;
    /// Data that was neither asked for nor due in a first flight.
    Unsolicited = "unsolicited", 1;
    /// A probe announced sooner after another than probes may be.
    Probe = "probe", 1;
    /// More kept without proof than a peer may have kept.
    Unconnected = "unconnected", 1;
    /// A peer that claims a chunk and does not serve it. No points: the network between may be to blame;
    /// others are asked before it from then on.
    Withheld = "withheld", 0;
    /// A transaction for the cache that does not parse.
    Mempool = "mempool", 0;
    /// BTADDRs above the rate that a peer is allowed; what is beyond is passed over.
    AddressRate = "address-rate", 0;
}

/// Counts of refusals by reason.
#[derive(Clone, Debug)]
pub struct RefusalCounts([u64; Refusal::ALL.len()]);

impl Default for RefusalCounts {
    fn default() -> Self {
        Self([0; Refusal::ALL.len()])
    }
}

impl RefusalCounts {
    /// Counts one.
    pub fn count(&mut self, refusal: Refusal) {
        if let Some(count) = self.0.get_mut(refusal as usize) {
            *count += 1;
        }
    }

    /// The reasons that occurred, with how often.
    pub fn occurred(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Refusal::ALL
            .iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
            .map(|(refusal, count)| (refusal.name(), count))
    }

    /// How often one reason occurred.
    pub fn of(&self, refusal: Refusal) -> u64 {
        self.0.get(refusal as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_counted_apart() {
        let mut names: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Refusal::ALL.len());
        let mut counts = RefusalCounts::default();
        counts.count(Refusal::Leaf);
        counts.count(Refusal::Leaf);
        assert_eq!(counts.of(Refusal::Leaf), 2);
        assert_eq!(counts.occurred().collect::<Vec<_>>(), [("leaf", 2)]);
    }
}
