//! Peers of the relay, found on the Bitcoin P2P network.

use super::desk::Desk;
use super::peers::{Peer, PeerNumber};
use crate::chain::p2p::{CloseReason, PeerCommand, PeerEvent};

impl Desk {
    /// What a peer says about addresses and about itself.
    pub fn on_discovery(&mut self, number: PeerNumber, event: PeerEvent) {
        if event == PeerEvent::WantsAddresses {
            self.peers.send(number, PeerCommand::SendNothing);
        }
    }

    pub fn on_discovery_ready(&mut self, _number: PeerNumber) {}

    pub fn on_discovery_closed(
        &mut self,
        _number: PeerNumber,
        _peer: &Peer,
        _reason: &CloseReason,
    ) {
    }
}
