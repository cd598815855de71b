//! Which peer is asked for a leaf.

use super::*;

/// The first peer that opened the job to us, the fastest if several did in the same moment.
pub(super) fn parent(peers: &JobPeers, views: &[PeerView]) -> Option<PeerView> {
    views
        .iter()
        .filter_map(|view| {
            let opened = peers.get(&view.slot)?.opened_at;
            Some((opened.unwrap_or(Time::MAX), view.round_trip, *view))
        })
        .min_by_key(|(opened, round_trip, view)| (*opened, *round_trip, view.slot))
        .map(|(_, _, view)| view)
}

/// The slot after this one, in a circle.
pub(super) fn next_view(views: &[PeerView], slot: u32) -> u32 {
    views
        .iter()
        .map(|view| view.slot)
        .find(|other| *other > slot || slot == NOBODY)
        .or_else(|| views.first().map(|view| view.slot))
        .unwrap_or(slot)
}

/// Who should be asked for a leaf that `asked` is asked for now; `None` if nothing should change.
pub(super) fn choose(
    job: &Job,
    peers: &JobPeers,
    views: &[PeerView],
    parent: &PeerView,
    sole: bool,
    leaf: u32,
    asked: u32,
) -> Option<u32> {
    if sole {
        return (asked == NOBODY).then_some(parent.slot);
    }
    let expected = u64::from(job.expected_transaction_bytes());
    let finish = |view: &PeerView, peer: &JobPeer| {
        let queue = u64::from(peer.outstanding + 1) * expected * 1_000_000;
        (queue / view.rate_bytes_per_s.max(1) + view.round_trip.as_micros() as u64 / 2)
            << peer.stalls.min(8)
    };
    let best = views
        .iter()
        .filter_map(|view| {
            let peer = peers.get(&view.slot)?;
            let open = u64::from(peer.outstanding) * expected < view.window_bytes();
            let idle = asked == NOBODY || view.slot == asked || {
                // To take over from another, a peer must have time to spare.
                u64::from(peer.outstanding) * expected * 2 < view.window_bytes()
            };
            (peer.has_leaf(leaf) && open && idle).then(|| (finish(view, peer), view))
        })
        .min_by_key(|(finish, view)| (*finish, view.slot));
    if asked == NOBODY {
        let somebody = views.iter().any(|view| {
            peers
                .get(&view.slot)
                .is_some_and(|peer| peer.has_leaf(leaf))
        });
        return match best {
            Some((_, view)) => Some(view.slot),
            None if somebody => None,
            None => Some(parent.slot),
        };
    }
    let (best_finish, best) = best?;
    if best.slot == asked {
        return None;
    }
    let current = views.iter().find(|view| view.slot == asked)?;
    let holder = peers.get(&asked)?;
    let current_finish = if holder.has_leaf(leaf) {
        finish(current, holder)
    } else {
        // It waits for the transaction itself; what is known to lie elsewhere comes sooner from there
        // unless its own announcement is under way, which half a round trip allows for.
        u64::MAX / 4
    };
    // The request costs the new peer's half round trip; what is nearly here is not asked again.
    let arrival = best_finish * 2 + best.round_trip.as_micros() as u64;
    (arrival < current_finish).then_some(best.slot)
}
