//! What differs from network to network: magic numbers, ports, limits, and the rules that headers obey.
//!
//! The values are those of Bitcoin Core's `kernel/chainparams.cpp` (version 30); the ports are our own.

mod seeds;

use std::fmt;
use std::str::FromStr;

use bitcoin::block::Header;
use bitcoin::consensus::Params;
use bitcoin::{CompactTarget, Target, Work};

/// Blocks between two retargets, on every network that retargets.
pub const RETARGET_INTERVAL: u32 = 2016;
/// Seconds that a block is meant to take.
pub const TARGET_SPACING_S: u32 = 600;
/// How far ahead of our clock a header's time may lie, in seconds (Bitcoin Core's `MAX_FUTURE_BLOCK_TIME`).
///
/// Reason: a header from further ahead may be valid one day but cannot be told from a mistake now.
pub const MAX_FUTURE_S: u32 = 2 * 60 * 60;
/// How far before its parent the first block of a period may lie, in seconds (BIP94, testnet4).
///
/// Reason: BIP94 sets it, against the time-warp attack.
pub const MAX_TIMEWARP_S: u32 = 600;

/// One of Bitcoin's networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// The one with money on it.
    #[default]
    Main,
    /// The third test network, where a block may be easy 20 minutes after its parent.
    Testnet3,
    /// The fourth one (BIP94).
    Testnet4,
    /// The default signet (BIP325). The signatures of its blocks are in the coinbases, so headers cannot prove
    /// them: here a signet header counts by its work alone, which is small.
    Signet,
    /// Blocks at will, for tests on one machine.
    Regtest,
}

/// A name that is no network's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown network {0:?}: use main, test, testnet4, signet or regtest")]
pub struct UnknownNetwork(pub String);

impl Network {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Main,
        Self::Testnet3,
        Self::Testnet4,
        Self::Signet,
        Self::Regtest,
    ];

    /// The name that Bitcoin Core gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Testnet3 => "test",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }

    /// The same network as the bitcoin crate names it.
    pub const fn to_bitcoin(self) -> bitcoin::Network {
        match self {
            Self::Main => bitcoin::Network::Bitcoin,
            Self::Testnet3 => bitcoin::Network::Testnet,
            Self::Testnet4 => bitcoin::Network::Testnet4,
            Self::Signet => bitcoin::Network::Signet,
            Self::Regtest => bitcoin::Network::Regtest,
        }
    }

    /// The four bytes that start a message of the Bitcoin P2P protocol, in their order on the wire.
    pub const fn magic(self) -> [u8; 4] {
        match self {
            Self::Main => [0xf9, 0xbe, 0xb4, 0xd9],
            Self::Testnet3 => [0x0b, 0x11, 0x09, 0x07],
            Self::Testnet4 => [0x1c, 0x16, 0x3f, 0x28],
            Self::Signet => [0x0a, 0x03, 0xcf, 0x40],
            Self::Regtest => [0xfa, 0xbf, 0xb5, 0xda],
        }
    }

    /// [`Network::magic`] as a number whose little-endian form it is, as BTVERSION has it.
    pub const fn magic_number(self) -> u32 {
        u32::from_le_bytes(self.magic())
    }

    /// Default port of the control connection (TCP).
    ///
    /// Bitcoin Core's P2P port and 100. Not the one after Core's: from 28.1 on, Core binds that on loopback for
    /// its onion service (8334, 18334, 48334, 38334, 18445).
    pub const fn control_port(self) -> u16 {
        match self {
            Self::Main => 8433,
            Self::Testnet3 => 18433,
            Self::Testnet4 => 48433,
            Self::Signet => 38433,
            Self::Regtest => 18544,
        }
    }

    /// Default port of the datagrams (UDP): the same number as [`Network::control_port`], so that one line in
    /// a firewall's configuration speaks of both.
    pub const fn data_port(self) -> u16 {
        self.control_port()
    }

    /// Default port where we speak Bitcoin's P2P protocol (TCP): the one after [`Network::control_port`].
    pub const fn p2p_port(self) -> u16 {
        self.control_port() + 1
    }

    /// Default port of Bitcoin Core's P2P protocol.
    pub const fn core_p2p_port(self) -> u16 {
        match self {
            Self::Main => 8333,
            Self::Testnet3 => 18333,
            Self::Testnet4 => 48333,
            Self::Signet => 38333,
            Self::Regtest => 18444,
        }
    }

    /// Default port of Bitcoin Core's JSON-RPC.
    pub const fn core_rpc_port(self) -> u16 {
        self.core_p2p_port() - 1
    }

    /// Default port of our JSON-RPC: Bitcoin Core's RPC port and 100.
    pub const fn rpc_port(self) -> u16 {
        self.control_port() - 1
    }

    /// Most bytes in a serialized block.
    ///
    /// Reason: a block's weight is at most 4,000,000 (BIP141) and no byte weighs less than one.
    pub const fn max_block_bytes(self) -> usize {
        4_000_000
    }

    /// Most transactions in a block.
    ///
    /// Reason: no valid transaction weighs less than 240 (60 bytes without witness), so 4,000,000 / 240.
    pub const fn max_transactions(self) -> usize {
        16_666
    }

    /// The first height at which witnesses count (BIP141): from there on a witness commitment without a reserved
    /// value makes a block invalid, below it means nothing.
    pub const fn segwit_height(self) -> u32 {
        match self {
            Self::Main => 481_824,
            Self::Testnet3 => 834_624,
            Self::Testnet4 | Self::Signet => 1,
            Self::Regtest => 0,
        }
    }

    /// Header of the first block.
    pub fn genesis(self) -> Header {
        bitcoin::constants::genesis_block(self.to_bitcoin()).header
    }

    /// The work that the best chain shows at least: what shows less was made up, or is not all that there is. It is
    /// Bitcoin Core's `nMinimumChainWork`. On regtest, where headers cost nothing, no amount of it tells anything.
    pub fn minimum_work(self) -> Option<Work> {
        let least: u128 = match self {
            Self::Main => 0x0001_1287_50f8_2f4c_3661_53a3_a030,
            Self::Testnet3 => 0x17dd_e1c6_49f3_708d_14b6,
            Self::Testnet4 => 0x09a0_fe15_d017_7d08_6304,
            Self::Signet => 0x0b46_3ea0_a4b8,
            Self::Regtest => return None,
        };
        let mut bytes = [0; 32];
        bytes[16..].copy_from_slice(&least.to_be_bytes());
        Some(Work::from_be_bytes(bytes))
    }

    /// The easiest target that a header may have.
    pub fn pow_limit(self) -> Target {
        let Params {
            max_attainable_target,
            ..
        } = self.consensus();
        *max_attainable_target
    }

    /// [`Network::pow_limit`] as headers state it.
    pub fn pow_limit_bits(self) -> CompactTarget {
        self.pow_limit().to_compact_lossy()
    }

    pub(super) fn consensus(self) -> &'static Params {
        self.to_bitcoin().params()
    }

    /// Whether a block more than 20 minutes after its parent may have the easiest target.
    pub(super) const fn allows_min_difficulty(self) -> bool {
        matches!(self, Self::Testnet3 | Self::Testnet4)
    }

    /// Whether BIP94's rules on retargets hold.
    pub(super) const fn enforces_bip94(self) -> bool {
        matches!(self, Self::Testnet4)
    }

    /// The height of the first block after `height`'s child that has a target of its own and not its parent's:
    /// to judge it one must know when the period before it began. None where targets stay, or where the child
    /// itself begins a period.
    pub fn first_retarget_after(self, height: u32) -> Option<u32> {
        let period = self.consensus().difficulty_adjustment_interval() as u32;
        let child = height.saturating_add(1);
        (!self.never_retargets() && !child.is_multiple_of(period))
            .then(|| child.next_multiple_of(period))
    }

    /// Whether the target never changes.
    pub(super) const fn never_retargets(self) -> bool {
        matches!(self, Self::Regtest)
    }

    /// The least version of a header at this height (BIP34, BIP66, BIP65; heights by BIP90).
    pub(super) const fn least_version(self, height: u32) -> i32 {
        let [bip34, bip66, bip65] = match self {
            Self::Main => [227_931, 363_725, 388_381],
            Self::Testnet3 => [21_111, 330_776, 581_885],
            Self::Testnet4 | Self::Signet | Self::Regtest => [1, 1, 1],
        };
        if height >= bip65 {
            4
        } else if height >= bip66 {
            3
        } else if height >= bip34 {
            2
        } else {
            i32::MIN
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Network {
    type Err = UnknownNetwork;

    /// Bitcoin Core's names, and `mainnet` and `testnet3` besides.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "main" | "mainnet" => Ok(Self::Main),
            "test" | "testnet3" => Ok(Self::Testnet3),
            "testnet4" => Ok(Self::Testnet4),
            "signet" => Ok(Self::Signet),
            "regtest" => Ok(Self::Regtest),
            _ => Err(UnknownNetwork(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for network in Network::ALL {
            assert_eq!(network.to_string().parse(), Ok(network));
        }
        assert_eq!("mainnet".parse(), Ok(Network::Main));
        assert_eq!("testnet3".parse(), Ok(Network::Testnet3));
        assert!("Main".parse::<Network>().is_err());
    }

    #[test]
    fn agrees_with_the_bitcoin_crate() {
        for network in Network::ALL {
            let theirs = network.to_bitcoin();
            assert_eq!(network.magic(), theirs.magic().to_bytes());
            assert_eq!(network.name(), theirs.to_core_arg());
            let params = network.consensus();
            assert_eq!(
                params.difficulty_adjustment_interval(),
                u64::from(RETARGET_INTERVAL)
            );
            if network != Network::Regtest {
                assert_eq!(
                    params.allow_min_difficulty_blocks,
                    network.allows_min_difficulty()
                );
                // They state no heights for regtest but those of old tests.
                for (height, version) in [
                    (params.bip34_height, 2),
                    (params.bip66_height, 3),
                    (params.bip65_height, 4),
                ] {
                    assert!(network.least_version(height) >= version);
                    assert!(network.least_version(height - 1) < version);
                }
            }
            assert_eq!(params.no_pow_retargeting, network.never_retargets());
            let genesis = network.genesis();
            assert!(genesis.target().is_met_by(genesis.block_hash()));
            assert_eq!(genesis.bits, network.pow_limit_bits());
        }
    }

    #[test]
    fn no_port_is_one_of_core_and_none_is_used_twice() {
        let mut ports: Vec<u16> = Vec::new();
        for network in Network::ALL {
            let core = network.core_rpc_port();
            ports.extend([core, core + 1, core + 2]);
            ports.extend([
                network.control_port(),
                network.rpc_port(),
                network.p2p_port(),
            ]);
            assert_eq!(network.core_p2p_port(), core + 1);
        }
        let all = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), all);
    }
}
