//! How peers are found.

use std::net::IpAddr;

use super::error::ConfigError;
use super::options::Options;
use super::values::{NetworkName, OnOff, PeerAddress};
use super::{distinct, in_range};

/// Nodes asked at the start: each is a name to look up and a dial.
const MAX_SEED_NODES: usize = 64;
/// Addresses of this node: a machine has one or two of each kind.
const MAX_EXTERNAL_IPS: usize = 8;
/// As many slots as the crawler fills at most; each is a connection to somebody who did not ask for it.
const MAX_OUTBOUND: u8 = 64;
/// As many as Bitcoin Core's outbound connections that relay everything.
const OUTBOUND_RELAYS: u8 = 8;
/// As many as Bitcoin Core's outbound connections that relay blocks alone: one may know nothing, or lie.
const OUTBOUND_NODES: u8 = 2;

/// How peers are found, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindOptions {
    /// Whether this node looks for others, and tells them of itself.
    pub is_on: bool,
    /// Whether DNS seeds may be asked.
    pub dns_seed: bool,
    /// Whether the addresses that come with the program may be used.
    pub fixed_seeds: bool,
    /// Nodes of Bitcoin's network to be asked at the start.
    pub seed_nodes: Vec<PeerAddress>,
    /// Where others reach this node; if empty, it is to be learnt from them.
    pub external_ips: Vec<IpAddr>,
    /// Sessions with relays of this node's own choice.
    pub outbound_relays: u8,
    /// Connections to ordinary nodes for their addresses.
    pub outbound_nodes: u8,
    /// Whether addresses that are not public are taken and dialled.
    pub private_addresses: bool,
}

impl FindOptions {
    /// Fills in the defaults: on regtest all is on one machine, and there are no seeds.
    ///
    /// Of `max_peers` sessions the found ones get half at most, so that others find a place as well.
    pub(super) fn resolve(options: &Options, max_peers: u32) -> Result<Self, ConfigError> {
        let is_regtest = options.network == Some(NetworkName::Regtest);
        let or = |given: Option<OnOff>, default: bool| given.map_or(default, |given| given.0);
        let count = |name, given, default| in_range(name, given, default, 0, MAX_OUTBOUND);
        let ips = options.external_ip.iter().map(|ip| ip.0).collect();
        let seeds = options.seed_node.clone();
        Ok(Self {
            is_on: or(options.find_peers, true),
            dns_seed: or(options.dns_seed, !is_regtest),
            fixed_seeds: or(options.fixed_seeds, !is_regtest),
            seed_nodes: distinct("seed-node", seeds, MAX_SEED_NODES)?,
            external_ips: distinct("external-ip", ips, MAX_EXTERNAL_IPS)?,
            outbound_relays: count("outbound-relays", options.outbound_relays, OUTBOUND_RELAYS)?
                .min(u8::try_from(max_peers / 2).unwrap_or(u8::MAX)),
            outbound_nodes: count("outbound-nodes", options.outbound_nodes, OUTBOUND_NODES)?,
            private_addresses: or(options.private_addresses, is_regtest),
        })
    }
}
