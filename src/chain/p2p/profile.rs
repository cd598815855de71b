//! What a peer is to us, decided before the first byte.

use std::net::SocketAddr;
use std::time::Duration;

use super::Advert;
use crate::chain::Network;

/// What must be known of a connection before its first byte.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The network that both must be on.
    pub network: Network,
    /// Who dialled.
    pub direction: Direction,
    /// What the peer is to us.
    pub role: Role,
    /// The services that we claim in `version` (`NODE_WITNESS` and so on).
    pub services: u64,
    /// The service bit of this project, as a mask. A peer that claims it and is too old for `feature` is told
    /// [`PeerConfig::advert`] after `verack`.
    pub flag: u64,
    /// The name that we give ourselves, `/name:version/`, at most 256 bytes.
    pub agent: String,
    /// The height of our best block.
    pub start_height: u32,
    /// What we tell others of us, if anything.
    pub advert: Option<Advert>,
    /// A random number, the same on all connections of this process: whoever sends it back is ourselves.
    pub nonce: u64,
    /// Whether BIP324 is spoken.
    pub v2: V2,
    /// Whether we want transactions. If not, a peer that sends some is closed (as Bitcoin Core does).
    pub relay_transactions: bool,
    /// The other end.
    pub remote: SocketAddr,
}

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// We.
    Outbound,
}

/// What a peer is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The operator's own bitcoind. It is asked for high-bandwidth compact blocks, gets every block of ours as a
    /// compact block, is limited neither in what it asks nor in the addresses that it tells, and is found dead
    /// soonest.
    OurNode,
    /// Another node of this project, spoken to for headers and to catch up.
    Relay,
    /// Anybody.
    Stranger,
    /// Anybody, for a moment: the connection ends once its handshake has told what it told.
    Feeler {
        /// Whether to ask for addresses and wait for the answer first.
        ask_addresses: bool,
    },
}

impl Role {
    /// How often it is asked whether it lives.
    ///
    /// A stranger every two minutes, as Bitcoin Core asks; our own node every 15 seconds, because blocks go
    /// another way at once when it is gone.
    pub const fn ping_interval(self) -> Duration {
        match self {
            Self::OurNode => Duration::from_secs(15),
            Self::Relay | Self::Stranger | Self::Feeler { .. } => Duration::from_secs(120),
        }
    }

    /// How long it may leave a ping unanswered, or stay silent.
    ///
    /// A stranger 20 minutes (Bitcoin Core's `TIMEOUT_INTERVAL`); our own node two, because a bitcoind that
    /// writes its coins to disk may stand still for one.
    pub const fn patience(self) -> Duration {
        match self {
            Self::OurNode => Duration::from_secs(120),
            Self::Relay | Self::Stranger => Duration::from_secs(20 * 60),
            Self::Feeler { .. } => Duration::from_secs(60),
        }
    }
}

/// Whether BIP324 is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V2 {
    /// Only the old, plain transport.
    Off,
    /// Outbound: BIP324. If the peer closes without a word ([`super::CloseReason::NoV2`]), dial again with
    /// [`V2::Off`].
    Try,
    /// Inbound: whichever the first bytes show.
    Accept,
}
