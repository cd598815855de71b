//! What is known of one node: whether it can be used, since when, and why not, in one line.

use std::fmt;

use super::answer::BlockchainInfo;
use super::error::RpcError;
use crate::time::Time;

/// Blocks that a node may be behind what others know before it counts as behind. Reason: a block or two are under way
/// at any moment; three are not.
pub const MAX_LAG: u32 = 2;

/// Whether a node can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing was heard of it yet.
    #[default]
    NeverReached,
    /// No connection.
    Unreachable,
    /// It refuses our login or our address, or what listens there is no bitcoind.
    Refused,
    /// Its chain begins with another block, or is one that this node can't follow.
    WrongNetwork,
    /// It starts up.
    WarmingUp,
    /// It answers, but does not have the newest blocks.
    Behind,
    /// It has them.
    Live,
}

impl State {
    /// Its name, as RPC gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverReached => "never-reached",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::WrongNetwork => "wrong-network",
            Self::WarmingUp => "warming-up",
            Self::Behind => "behind",
            Self::Live => "live",
        }
    }

    /// Whether it answers calls.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Behind | Self::Live)
    }

    /// What a failed call says of the node; `None` if nothing, since it answered.
    pub fn of_error(error: &RpcError) -> Option<Self> {
        match error {
            RpcError::Unreachable { .. } | RpcError::Timeout(_) => Some(Self::Unreachable),
            RpcError::NoCookie { .. }
            | RpcError::Unauthorized { .. }
            | RpcError::Forbidden { .. }
            | RpcError::Garbage(_) => Some(Self::Refused),
            RpcError::WarmingUp(_) => Some(Self::WarmingUp),
            RpcError::WrongNetwork { .. } => Some(Self::WrongNetwork),
            RpcError::Busy { .. } | RpcError::Node { .. } | RpcError::TooLarge(_) => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Whether it can be used.
    pub state: State,
    /// Why it is in this state, in one line.
    pub reason: String,
    /// Since when it is in this state.
    pub since: Time,
    /// The height of its tip, by whatever way it was heard last.
    pub height: Option<u32>,
    /// What it said last of its chain, if it has RPC.
    pub info: Option<BlockchainInfo>,
    /// Failures since it last answered.
    pub failures: u32,
    /// Why its chain can't be followed here, if so.
    pub foreign: Option<String>,
}

impl Status {
    /// The state that follows from what was heard while the best block that anyone knows has height `best`, and why;
    /// `None` if nothing was heard.
    pub fn judge(&self, best: u32) -> Option<(State, String)> {
        if let Some(reason) = &self.foreign {
            return Some((State::WrongNetwork, reason.clone()));
        }
        let height = self.height?;
        let info = self.info.as_ref();
        let best = best.max(info.map_or(0, |info| info.headers)).max(height);
        // On regtest a node that has all there is calls itself behind for the age of its last block.
        let has_all = |info: &BlockchainInfo| info.chain == "regtest" && best - height <= MAX_LAG;
        let is_behind = |info: &&BlockchainInfo| info.initial_block_download && !has_all(info);
        if let Some(info) = info.filter(is_behind) {
            let percent = info.verification_progress.clamp(0.0, 1.0) * 100.0;
            let reason =
                format!("catches up with the network: block {height} of {best}, {percent:.1}%");
            return Some((State::Behind, reason));
        }
        if best - height > MAX_LAG {
            let reason = format!("has block {height} while block {best} is known");
            return Some((State::Behind, reason));
        }
        Some((State::Live, format!("at block {height}")))
    }
}
