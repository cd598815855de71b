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
//!   minimum distribution time", HotWeb 2006), and the least delay. The last term binds the last receiver alone: of those
//!   that have the block at all, the one that has it as the k-th has it no sooner than `k·F/(u_s + Σu_i)`, or the sum of
//!   what the k need that need least ([`ranks`]). Which receiver that is shows in a run ([`ranked`]).
//! - **Links that change**: each with the least delay and the highest rate that it has from the submission on.
//!
//! None of them counts headers of datagrams, acknowledgements, or computing: nobody can have none of these.

mod flow;
mod network;

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

/// How soon, without delays, the first, the second and so on of all receivers can have what they need, whichever they
/// are: so many bytes must have been sent by then, be it by all together. `receivers` are what each needs and its uplink;
/// empty if anyone can send without limit.
pub fn ranks(source_up: Option<u64>, receivers: &[(u64, Option<u64>)]) -> Vec<Duration> {
    let uplinks = receivers.iter().map(|(_, up)| *up).chain([source_up]);
    let Some(together) = uplinks
        .map(|rate| rate.map(|rate| rate as f64))
        .sum::<Option<f64>>()
    else {
        return Vec::new();
    };
    let mut needs: Vec<u64> = receivers.iter().map(|(bytes, _)| *bytes).collect();
    needs.sort_unstable();
    let sent = needs.into_iter().scan(0.0, |sent, bytes| {
        *sent += bytes as f64;
        Some(*sent)
    });
    sent.map(|bytes| transfer(bytes, Some(together))).collect()
}

/// The bounds of receivers in a run: what each could do alone (`own`), and not before so many as were whole before it
/// could be. `whole` says when each was, in any unit; who never was comes after all others. `None`: no receiver.
pub fn ranked(
    own: &[Option<Duration>],
    ranks: &[Duration],
    whole: &[Option<f64>],
) -> Vec<Option<Duration>> {
    let mut bounds = own.to_vec();
    let at = |node: usize| whole.get(node).copied().flatten().unwrap_or(f64::INFINITY);
    let mut receivers: Vec<(usize, Duration)> = own
        .iter()
        .enumerate()
        .filter_map(|(node, own)| Some((node, (*own)?)))
        .collect();
    receivers.sort_by(|one, other| at(one.0).total_cmp(&at(other.0)).then(one.1.cmp(&other.1)));
    for ((node, own), rank) in receivers.into_iter().zip(ranks) {
        if let Some(bound) = bounds.get_mut(node) {
            *bound = Some(own.max(*rank));
        }
    }
    bounds
}

#[cfg(test)]
mod tests;
