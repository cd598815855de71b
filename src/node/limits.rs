//! How many descriptors the system lets this process have.
//!
//! Whoever connects takes one. When none is left the operator can't call either, so the limit is raised at
//! the start, as far as the system allows; where that is too little, the log says so.

/// Descriptors beside those of peers: 64 peers that are dialled, 64 callers of RPC, the connections of Bitcoin
/// nodes, and some twenty sockets, timers and files of the node itself, with as much again to spare.
const SPARE: u64 = 512;

/// Descriptors of the Electrum index and of the block files that it reads. Reason: the store keeps up to 900 of its tables open.
const INDEX: u64 = 1_024;

/// Raises the limit as far as `max_peers` sessions need it, and `max_wallets` of the Electrum server, which may be none.
#[cfg(target_os = "linux")]
pub fn raise_descriptors(max_peers: u32, max_wallets: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let index = if max_wallets > 0 { INDEX } else { 0 };
    let needed = u64::from(max_peers) + u64::from(max_wallets) + index + SPARE;
    let limit = getrlimit(Resource::Nofile);
    // No limit is `None`.
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = limit.maximum.map_or(needed, |most| most.min(needed));
    let wanted = Rlimit {
        current: Some(raised),
        maximum: limit.maximum,
    };
    let outcome = setrlimit(Resource::Nofile, wanted);
    if outcome.is_err() || raised < needed {
        tracing::warn!(
            needed,
            "the system allows too few open files for max-peers and electrum-max-sessions; raise the limit (ulimit -n) or lower these"
        );
    }
}

/// Elsewhere the limit stays as it is.
#[cfg(not(target_os = "linux"))]
pub fn raise_descriptors(_max_peers: u32, _max_wallets: u32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{Resource, getrlimit};

    use super::*;

    #[test]
    fn the_limit_is_never_lowered_and_goes_as_far_as_is_needed() {
        let before = getrlimit(Resource::Nofile);
        raise_descriptors(1, 0);
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.maximum, before.maximum);
        let at_least = |limit: Option<u64>, least| limit.is_none_or(|limit| limit >= least);
        assert!(at_least(after.current, before.current.unwrap_or(0)));
        let reachable = before.maximum.unwrap_or(u64::MAX).min(SPARE + 1);
        assert!(at_least(after.current, reachable));
    }
}
