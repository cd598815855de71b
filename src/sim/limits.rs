//! What nobody can beat: how soon a node can have a block at best, whatever the protocol.
//!
//! - **One hop**: the one-way delay and the time that the bytes which have to cross take at the link's rate.
//! - **Bytes that have to cross** to a receiver that holds some of the transactions: the header, the six bytes by which
//!   BIP152 names a transaction for each, and those that it lacks; or the whole block, if that is less.
//! - **Several hops, nothing stored on the way**: the sum of delays, and the bytes at the slowest rate once. This is what
//!   a relay reaches that forwards each byte as it comes.
//! - **Any network**: the least delay of any way from the source, and the bytes at the rate of the narrowest cut between
//!   source and receiver (Ford and Fulkerson, "Maximal flow through a network", 1956). For a line it is the former.
//! - **A swarm**: `max(F/u_s, F/d_min, N·F/(u_s + Σu_i))` for `N` receivers of `F` bytes, an uplink `u_s` of the source,
//!   uplinks `u_i` and a slowest downlink `d_min` of the receivers (Kumar and Ross, "Peer-assisted file distribution: the
//!   minimum distribution time", HotWeb 2006), and the delay of the way. Where receivers need different amounts, it is
//!   taken of those that need no more than the one in question: so many can't have theirs sooner, all of them together.
//!
//! None of them counts headers of datagrams, acknowledgements, or computing: nobody can have none of these.

mod flow;
mod network;

use std::collections::BTreeMap;
use std::time::Duration;

pub use network::{LinkRate, Network};

/// Bytes by which each transaction is named to a receiver that holds it, as in BIP152.
pub const SHORT_ID_BYTES: u64 = 6;
/// Bytes of a block's header.
pub const HEADER_BYTES: u64 = 80;

/// The fewest bytes that must reach a receiver that lacks `missing_bytes` of the block's transactions.
pub fn bytes_to_cross(block_bytes: u64, transactions: u64, missing_bytes: u64) -> u64 {
    let named = HEADER_BYTES + SHORT_ID_BYTES * transactions + missing_bytes;
    named.min(block_bytes)
}

/// How long `bytes` take at a rate in bytes per second; no time without one.
pub fn transfer(bytes: f64, rate_bytes_per_s: Option<f64>) -> Duration {
    match rate_bytes_per_s.filter(|rate| rate.is_finite()) {
        Some(rate) => Duration::try_from_secs_f64(bytes / rate).unwrap_or(Duration::MAX),
        None => Duration::ZERO,
    }
}

/// The bound of one hop.
pub fn hop(delay: Duration, bytes: u64, rate_bytes_per_s: Option<u64>) -> Duration {
    delay + transfer(bytes as f64, rate_bytes_per_s.map(|rate| rate as f64))
}

/// The bound of hops one after the other, if nothing is stored on the way; each with its delay and rate.
pub fn line(hops: &[(Duration, Option<u64>)], bytes: u64) -> Duration {
    let slowest = hops.iter().filter_map(|(_, rate)| *rate).min();
    let delay: Duration = hops.iter().map(|(delay, _)| *delay).sum();
    hop(delay, bytes, slowest)
}

/// The swarm bound without delays: the source and `receivers`, each with the bytes that it needs, its uplink and its
/// downlink in bytes per second (`None`: no limit). With equal bytes it is Kumar and Ross's.
pub fn swarm(source_up: Option<u64>, receivers: &[(u64, Option<u64>, Option<u64>)]) -> Duration {
    let rate = |rate: Option<u64>| rate.map(|rate| rate as f64);
    let most = receivers.iter().map(|(bytes, ..)| *bytes).max();
    let source = transfer(most.unwrap_or(0) as f64, rate(source_up));
    let downlinks = receivers
        .iter()
        .map(|&(bytes, _, down)| transfer(bytes as f64, rate(down)));
    let needed: f64 = receivers.iter().map(|(bytes, ..)| *bytes as f64).sum();
    let uplinks = receivers.iter().map(|(_, up, _)| rate(*up));
    let uplinks = uplinks.chain([rate(source_up)]).sum::<Option<f64>>();
    downlinks
        .chain([source, transfer(needed, uplinks)])
        .max()
        .unwrap_or_default()
}

/// The swarm bound of receivers that need different amounts, by what they need: how soon all can have theirs that need no
/// more. The others help to send.
pub fn swarms(
    source_up: Option<u64>,
    mut receivers: Vec<(u64, Option<u64>, Option<u64>)>,
) -> BTreeMap<u64, Duration> {
    let rate = |rate: Option<u64>| rate.map(|rate| rate as f64);
    let uplinks = receivers.iter().map(|(_, up, _)| rate(*up));
    let uplinks = uplinks.chain([rate(source_up)]).sum::<Option<f64>>();
    receivers.sort_unstable_by_key(|(bytes, ..)| *bytes);
    let (mut needed, mut slowest) = (0.0, Duration::ZERO);
    let mut bounds = BTreeMap::new();
    for (bytes, _, down) in receivers {
        needed += bytes as f64;
        slowest = slowest.max(transfer(bytes as f64, rate(down)));
        let source = transfer(bytes as f64, rate(source_up));
        // Of those that need the same the last one has the sum of all.
        bounds.insert(bytes, slowest.max(source).max(transfer(needed, uplinks)));
    }
    bounds
}

#[cfg(test)]
mod tests;
