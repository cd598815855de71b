//! Addresses from elsewhere than peers: DNS seeds, those that come with the program, the operator's own nodes and
//! what the operator named. Each is asked by a task of its own, for a bounded time, for a bounded number.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Found;
use crate::chain::Network;
use crate::chain::addrbook::{Address, Hearsay, Source};
use crate::chain::bitcoind::Rpc;
use crate::chain::bitcoind::answer::NodeAddress;
use crate::chain::p2p::PeerCommand;
use crate::config::PeerAddress;
use crate::node::bitcoin::desk::{Desk, Done};
use crate::node::bitcoin::peers::Kind;
use crate::time::Time;

/// How long one name may take to be looked up.
const LOOK_UP_TIME: Duration = Duration::from_secs(10);
/// Addresses taken of one name.
///
/// Reason: a seed's answer has some 25; an answer of DNS over TCP could have thousands.
const MAX_OF_NAME: usize = 256;
/// Addresses without the flag that are taken of one of the operator's nodes at a time.
///
/// Reason: as many as one answer to `getaddr` has; the rest are as ordinary as these.
const MAX_PLAIN: usize = 1_000;
/// Addresses with the flag that are taken likewise.
///
/// Reason: more than there are relays, for a node that was fed false flags may have as many as addresses.
const MAX_FLAGGED: usize = 4_000;
/// What is told without a time was last seen so long ago (Bitcoin Core: three to seven days).
const SEED_AGE_S: u32 = 5 * 24 * 3600;

/// What a node is taken to serve of which only the address is known.
fn usual_services() -> u64 {
    (ServiceFlags::NETWORK | ServiceFlags::WITNESS).to_u64()
}

fn hearsay(address: SocketAddr, now: Time, age_s: u32) -> Hearsay {
    Hearsay {
        address: Address::bitcoin(address),
        services: usual_services(),
        last_seen: super::unix_seconds(now).saturating_sub(age_s),
    }
}

/// The addresses of a name, or none if that takes too long.
async fn look_up(name: &str, port: u16) -> Vec<SocketAddr> {
    match timeout(LOOK_UP_TIME, lookup_host((name, port))).await {
        Ok(Ok(found)) => found.take(MAX_OF_NAME).collect(),
        Ok(Err(error)) => {
            tracing::debug!(name, %error, "not found in DNS");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!(name, "DNS does not answer");
            Vec::new()
        }
    }
}

impl Desk {
    /// Asks the nodes that the operator named.
    pub fn seed_from_operator(&self) {
        let options = &self.finder.options;
        if !options.is_on {
            if !options.seed_nodes.is_empty() {
                tracing::warn!("with find-peers off no seed-node is asked");
            }
            return;
        }
        for seed in options.seed_nodes.clone() {
            self.spawn(look_up_seed(seed, self.shared.network, self.now()));
        }
    }

    /// Looks up all DNS seeds of the network.
    pub(super) fn seed_from_dns(&self) {
        let seeds = self.shared.network.dns_seeds();
        tracing::info!(
            seeds = seeds.len(),
            "asking DNS seeds for nodes of Bitcoin's network"
        );
        let (port, now) = (self.shared.network.core_p2p_port(), self.now());
        for (number, name) in (0..).zip(seeds) {
            self.spawn(async move {
                let found = look_up(name, port).await;
                let told = found.into_iter().map(|it| hearsay(it, now, SEED_AGE_S));
                let source = Source::DnsSeed(number);
                Done::Find(Found::Heard(source, told.collect()))
            });
        }
    }

    /// Takes the addresses that come with the program.
    pub(super) fn seed_fixed(&mut self, now: Time) {
        let seeds = self.shared.network.fixed_seeds();
        tracing::info!(seeds = seeds.len(), "trying the fixed seeds");
        let parsed = seeds.iter().filter_map(|seed| seed.parse().ok());
        let told = parsed.map(|seed| hearsay(seed, now, SEED_AGE_S));
        self.finder.tell().heard(now, Source::Fixed, told);
    }

    /// Asks the operator's nodes for what they know: by RPC one that answers, else all that are connected.
    pub(super) fn ask_node(&mut self) {
        let up = self.links.iter().filter(|link| link.rpc_is_up());
        let rpc = up.filter_map(|link| link.rpc().cloned()).next();
        if let Some(rpc) = rpc {
            self.finder.asks_node = false;
            let flag = self.dialler.identity.flag;
            self.spawn(ask_by_rpc(rpc, flag));
            return;
        }
        // A node that has RPC but does not answer will; one that has none is asked as any peer.
        if self.links.iter().any(|link| link.rpc().is_some()) {
            return;
        }
        let is_node = |kind| matches!(kind, Kind::Node(_));
        let ready = self.peers.ready().filter(|(_, peer)| is_node(peer.kind));
        for number in ready.map(|(number, _)| number).collect::<Vec<_>>() {
            self.finder.asks_node = false;
            self.peers.send(number, PeerCommand::GetAddresses);
        }
    }
}

async fn look_up_seed(seed: PeerAddress, network: Network, now: Time) -> Done {
    let port = seed.port().unwrap_or(network.core_p2p_port());
    let found = look_up(seed.host(), port).await;
    if found.is_empty() {
        tracing::warn!(%seed, "the seed node has no address that could be looked up");
    }
    let told = found.into_iter().map(|it| hearsay(it, now, 0));
    Done::Find(Found::Heard(Source::Operator, told.collect()))
}

async fn ask_by_rpc(rpc: Rpc, flag: u64) -> Done {
    match rpc.node_addresses().await {
        Ok(known) => {
            let told = worth_keeping(&known, flag);
            let (all, taken) = (known.len(), told.len());
            tracing::info!(all, taken, "the Bitcoin node told of others");
            Done::Find(Found::Heard(Source::OurNode, told))
        }
        Err(error) => {
            tracing::debug!(%error, "getnodeaddresses");
            Done::Find(Found::Heard(Source::OurNode, Vec::new()))
        }
    }
}

/// All that claim the flag, up to a bound, and some of the others; the node gives them in no order.
fn worth_keeping(known: &[NodeAddress], flag: u64) -> Vec<Hearsay> {
    let parsed = |it: &NodeAddress| {
        let ip = it.address.parse().ok()?;
        Some(Hearsay {
            address: Address::bitcoin(SocketAddr::new(ip, it.port)),
            services: it.services,
            last_seen: u32::try_from(it.time).unwrap_or(u32::MAX),
        })
    };
    let is_flagged = |it: &&NodeAddress| it.services & flag != 0;
    let flagged = known.iter().filter(is_flagged).filter_map(parsed);
    let plain = known.iter().filter(|it| !is_flagged(it)).filter_map(parsed);
    flagged
        .take(MAX_FLAGGED)
        .chain(plain.take(MAX_PLAIN))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_with_the_flag_are_kept_and_some_of_the_others() {
        let address = |number: u32, services: u64| NodeAddress {
            time: 1_700_000_000,
            services,
            address: std::net::Ipv4Addr::from(0x0b00_0000 + number).to_string(),
            port: 8333,
            network: "ipv4".to_owned(),
        };
        let mut known: Vec<NodeAddress> = (0..5_000).map(|number| address(number, 9)).collect();
        known.push(address(7_000, 9 | 1 << 30));
        known.push(NodeAddress {
            address: "abcdefghij.onion".to_owned(),
            ..address(7_001, 9 | 1 << 30)
        });
        let kept = worth_keeping(&known, 1 << 30);
        assert_eq!(kept.len(), 1 + MAX_PLAIN);
        assert_eq!(kept[0].services, 9 | 1 << 30);
        let flood: Vec<NodeAddress> = (0..9_000).map(|it| address(it, 1 << 30)).collect();
        assert_eq!(worth_keeping(&flood, 1 << 30).len(), MAX_FLAGGED);
    }
}
