//! How much is dialled, and how often.

use std::time::Duration;

use crate::chain::Network;

/// Most slots of a kind.
///
/// Reason: each is a connection of some memory to somebody who did not ask for it; Bitcoin Core makes 11 in all.
pub const MAX_SLOTS: usize = 64;

/// How much is dialled, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrawlConfig {
    /// Connections to relays that we choose, at most [`MAX_SLOTS`].
    pub relay_slots: usize,
    /// Connections to ordinary peers, for their gossip, while relays are lacking; one of them stays in any case.
    pub gossip_slots: usize,
    /// Time between feelers, on average.
    pub feeler_interval: Duration,
    /// Least time between two dials.
    pub dial_interval: Duration,
    /// How long an ordinary peer is kept before another is asked, at first.
    pub exchange_interval: Duration,
    /// After how long what is new in the book is written to disk.
    pub save_interval: Duration,
    /// The same for a relay that was found.
    pub save_soon: Duration,
    /// Whether we take connections, so that our address is told to peers.
    pub announce: bool,
    /// Whether DNS seeds may be asked.
    pub dns_seeds: bool,
    /// Whether fixed seeds may be used.
    pub fixed_seeds: bool,
    /// Whether a Bitcoin node of our own can be asked for addresses.
    pub own_node: bool,
}

impl CrawlConfig {
    /// The defaults of a network: 8 slots for relays, 2 for gossip, a feeler every two minutes (Bitcoin Core's
    /// `FEELER_INTERVAL`), a dial a second, the book saved every 15 minutes (Bitcoin Core's too). On regtest there
    /// are no seeds, and everything is faster: the network is one machine.
    pub const fn new(network: Network) -> Self {
        let public = Self {
            relay_slots: 8,
            gossip_slots: 2,
            feeler_interval: Duration::from_secs(120),
            dial_interval: Duration::from_secs(1),
            exchange_interval: Duration::from_secs(120),
            save_interval: Duration::from_secs(15 * 60),
            save_soon: Duration::from_secs(10),
            announce: true,
            dns_seeds: true,
            fixed_seeds: true,
            own_node: false,
        };
        match network {
            Network::Regtest => Self {
                feeler_interval: Duration::from_secs(5),
                dial_interval: Duration::from_millis(50),
                exchange_interval: Duration::from_secs(5),
                save_soon: Duration::from_secs(1),
                dns_seeds: false,
                fixed_seeds: false,
                ..public
            },
            Network::Main | Network::Testnet3 | Network::Testnet4 | Network::Signet => public,
        }
    }
}
