//! Which peer comes first, and which next.

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
