//! What peers tell each other of other nodes: BTGETADDR and BTADDR.
//!
//! The engine knows only its sessions. What to answer, and what to make of what is told, is for whoever keeps an
//! address book; here it is seen to that nobody asks twice (DSC-2) or tells more than a little.

use std::time::Duration;

use super::Engine;
use super::event::{Event, SessionId};
use super::stats::Refusal;
use crate::time::Time;
use crate::wire::{AddressList, MAX_ADDRESSES, Message, PeerAddress};

/// Addresses that a peer may tell unasked at once: a few of those that it has met lately.
const FREE_ADDRESSES: u32 = 20;
/// After so long it may tell one more, as in Bitcoin Core.
const ADDRESS_PAUSE: Duration = Duration::from_secs(10);

/// What has been asked and told on one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressTalk {
    /// We have asked.
    asked: bool,
    /// The peer has asked.
    was_asked: bool,
    /// How many addresses the peer may still tell.
    allowed: u32,
    /// Until when that was reckoned.
    since: Time,
}

impl AddressTalk {
    pub(super) const fn new(now: Time) -> Self {
        Self {
            asked: false,
            was_asked: false,
            allowed: FREE_ADDRESSES,
            since: now,
        }
    }

    /// How many of `count` addresses may be taken now.
    fn take(&mut self, count: usize, now: Time) -> usize {
        let pauses = now.since(self.since).as_secs() / ADDRESS_PAUSE.as_secs();
        if pauses > 0 {
            let earned = u32::try_from(pauses).unwrap_or(u32::MAX);
            self.since = now;
            // What an answer may hold is not lost to the bound of what comes unasked.
            let most = self.allowed.max(FREE_ADDRESSES);
            self.allowed = self.allowed.saturating_add(earned).min(most);
        }
        let taken = count.min(self.allowed as usize);
        self.allowed -= taken as u32;
        taken
    }
}

impl Engine {
    /// Asks a peer for other nodes, once in a session; whatever it tells comes as [`Event::Addresses`].
    pub fn ask_addresses(&mut self, now: Time, session: SessionId) {
        self.now = now;
        let Some(slot) = self.slot_of_established(session) else {
            return;
        };
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if std::mem::replace(&mut session.addresses.asked, true) {
            return;
        }
        session.addresses.allowed += MAX_ADDRESSES;
        let sent = session.push_control(&Message::GetAddr);
        self.control_sent(slot, sent);
    }

    /// Tells a peer of other nodes, as an answer or unasked (DSC-2): of the first [`MAX_ADDRESSES`].
    pub fn send_addresses(&mut self, now: Time, session: SessionId, addresses: &[PeerAddress]) {
        self.now = now;
        let Some(slot) = self.slot_of_established(session) else {
            return;
        };
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let most = addresses.len().min(MAX_ADDRESSES as usize);
        let addresses = addresses.get(..most).unwrap_or_default();
        let sent = session.push_control(&Message::Addr(AddressList::new(addresses)));
        self.control_sent(slot, sent);
    }

    fn slot_of_established(&self, session: SessionId) -> Option<u32> {
        let known = self.session(session.slot)?;
        (known.id == session && known.is_established()).then_some(session.slot)
    }

    /// BTGETADDR of a peer.
    pub(super) fn want_addresses(&mut self, slot: u32) {
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if !std::mem::replace(&mut session.addresses.was_asked, true) {
            let session = session.id;
            self.events.push_back(Event::AddressesWanted { session });
        }
    }

    /// BTADDR of a peer: what is above its rate is passed over.
    pub(super) fn take_addresses(&mut self, slot: u32, list: &AddressList<'_>) {
        let now = self.now;
        let count = list.len() as usize;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let taken = session.addresses.take(count, now);
        let session = session.id;
        if taken < count {
            self.refused.count(Refusal::AddressRate);
        }
        if taken > 0 {
            let addresses = list.iter().take(taken).collect();
            self.events
                .push_back(Event::Addresses { session, addresses });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_is_taken_unasked_and_more_with_time() {
        let at = |seconds: u64| Time::from_unix_seconds(1_000 + seconds);
        let mut talk = AddressTalk::new(at(0));
        assert_eq!(talk.take(100, at(0)), 20);
        assert_eq!(talk.take(1, at(9)), 0);
        assert_eq!(talk.take(5, at(10)), 1);
        assert_eq!(talk.take(100, at(100_000)), 20);
        talk.allowed += MAX_ADDRESSES;
        // Waiting takes nothing from an answer that is on its way.
        assert_eq!(talk.take(120, at(200_000)), 100);
    }
}
