//! What adversaries do, by name.

use serde::{Deserialize, Serialize};

/// What an adversary does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdversaryKind {
    /// Runs the engine, and alters hashes that it passes on.
    AltersHashes,
    /// Runs the engine, and alters transactions that it passes on.
    AltersTransactions,
    /// Runs the engine, and alters witnesses that it passes on: the txids stay.
    AltersWitnesses,
    /// Runs the engine, and opens jobs with a false count of transactions or size of the block.
    FalseCount,
    /// Runs the engine, and gives short ids that are not the block's.
    FalseShortIds,
    /// Runs the engine, and spoils its parity, of all of a block or of a little.
    SpoilsParity,
    /// Works for a block of its own that is invalid: its trees contradict each other, or a Bitcoin node refuses it.
    #[serde(rename = "valid-work-invalid-block")]
    InvalidBlock,
    /// Claims to have every block of which it hears, and serves nothing.
    Withholds,
    /// Runs the engine, and sends one datagram a second.
    Trickles,
    /// Floods with messages of each kind, well formed and broken, over UDP and TCP.
    Floods,
    /// Stands at the wires around it, and sends again what it saw: to whom it was for and to others, under its own
    /// address and under its sender's.
    Replays,
    /// Sends datagrams in the names of others, with guessed connection ids and keys, and its own from elsewhere.
    Spoofs,
    /// Opens jobs without end: known headers under other numbers, headers without work, headers without parents.
    #[serde(rename = "opens-jobs-without-end")]
    OpensJobs,
    /// Claims impossible parameters: in its handshake, in SET_PARAMS, BTADDR, probes and OPEN_JOB.
    ClaimsImpossible,
    /// Eight identities towards each neighbour, all of which withhold.
    ManyIdentities,
}

impl AdversaryKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::AltersHashes,
        Self::AltersTransactions,
        Self::AltersWitnesses,
        Self::FalseCount,
        Self::FalseShortIds,
        Self::SpoilsParity,
        Self::InvalidBlock,
        Self::Withholds,
        Self::Trickles,
        Self::Floods,
        Self::Replays,
        Self::Spoofs,
        Self::OpensJobs,
        Self::ClaimsImpossible,
        Self::ManyIdentities,
    ];
}
