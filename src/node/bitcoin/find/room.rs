//! Room for whoever connects: the desk's part of it.

use std::hash::{Hash as _, Hasher as _};

use siphasher::sip::SipHasher24;

use super::evict::{Candidate, choose};
use crate::chain::addrbook::Address;
use crate::chain::p2p::PeerCommand;
use crate::node::bitcoin::desk::Desk;
use crate::node::bitcoin::peers::{Kind, Peer, PeerNumber};
use crate::time::Time;
use std::net::IpAddr;

/// Inbound connections of Bitcoin's protocol.
///
/// Reason: each may hold some megabytes of a message that is not whole, and an ordinary peer is content with few.
pub const MAX_INBOUND: usize = 64;

impl Desk {
    /// Makes room for one more inbound connection; `false`: it has to go itself.
    pub fn make_room(&mut self, newcomer: IpAddr, now: Time) -> bool {
        let stays = |peer: &Peer| peer.kind == Kind::Inbound && !peer.is_leaving;
        let inbound = self.peers.iter().filter(|(_, peer)| stays(peer));
        let candidates: Vec<Candidate<PeerNumber>> = inbound
            .map(|(number, peer)| self.candidate(number, peer, now))
            .collect();
        // As in Bitcoin Core, who broke the rules may come back while there is room for others as well.
        if candidates.len() + 1 >= MAX_INBOUND && self.finder.discouraged.has(newcomer, now) {
            return false;
        }
        if candidates.len() < MAX_INBOUND {
            return true;
        }
        let Some(number) = choose(candidates) else {
            return false;
        };
        if let Some(peer) = self.peers.get_mut(number) {
            peer.is_leaving = true;
            tracing::debug!(remote = %peer.remote, %newcomer, "makes room for another");
        }
        self.finder.evicted += 1;
        let why = "room for another";
        self.peers.send(number, PeerCommand::Disconnect(why));
        true
    }

    fn candidate(&self, number: PeerNumber, peer: &Peer, now: Time) -> Candidate<PeerNumber> {
        let group = Address::bitcoin(peer.remote).group();
        let (first, second) = self.finder.lots;
        let mut hasher = SipHasher24::new_with_keys(first, second);
        group.hash(&mut hasher);
        let advert = peer.info.as_ref().and_then(|info| info.advert);
        Candidate {
            name: number,
            group,
            lot: hasher.finish(),
            since: peer.since,
            greeted_in: peer.greeted_in,
            useful: peer.useful,
            is_relay: advert.is_some(),
            is_discouraged: self.finder.discouraged.has(peer.remote.ip(), now),
        }
    }
}
