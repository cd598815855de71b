//! Who may have one of the session slots, and who has to make room.
//!
//! Whoever connects to us costs nothing to make, so inbound sessions get neither all slots nor all eager
//! places. When their slots are full, a newcomer takes the place of one that nothing speaks for, chosen as
//! Bitcoin Core does (`SelectNodeToEvict`): sessions are protected by what an attacker cannot fake or can
//! fake only at a cost (unpredictable choice of networks, short round trips, verified chunks, age), and
//! among the rest the largest network group gives up its youngest.
//!
//! A peer that the operator named (a private link, whose key is pinned) comes before strangers, whichever side connected:
//! if there is no room, the stranger with the least to say for itself goes, protected or not. No newcomer takes a named
//! peer's slot. The bound stays `max_peers`: with more named peers than that the last to come are refused.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use super::event::{Initiator, SessionId};
use super::session::{Phase, Session};
use super::{Engine, MAX_EAGER, MAX_SESSIONS};
use crate::time::Time;
use crate::wire::DisconnectReason;

/// Sessions beyond the limit that may wait for their last bytes to be taken: one for each newcomer of a few
/// hundred milliseconds. With more of them newcomers are refused.
const MAX_ENDING: usize = 16;

/// Inbound sessions protected as those whose network groups a secret draw prefers (as in Bitcoin Core).
const PROTECTED_BY_GROUP: usize = 4;

/// Inbound sessions protected for their short round trips (as in Bitcoin Core).
const PROTECTED_BY_ROUND_TRIP: usize = 8;

/// Inbound sessions protected for the verified chunks that they delivered: twice Bitcoin Core's number for
/// blocks, since to deliver is all that a peer is for here.
const PROTECTED_BY_CHUNKS: usize = 8;

/// Eager places that inbound sessions cannot keep from an outbound one, as one of three high-bandwidth
/// places of BIP152 is kept in Bitcoin Core.
const EAGER_OUTBOUND: usize = 1;

/// Addresses that one operator is likely to hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// The first 16 bits of an IPv4 address.
    V4([u8; 2]),
    /// The first 32 bits of an IPv6 address.
    V6([u8; 4]),
}

/// The network group of an address; none for a loopback address, which only this machine's own processes have.
fn group_of(address: IpAddr) -> Option<Group> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return None;
    }
    Some(match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            Group::V4([a, b])
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.octets();
            Group::V6([a, b, c, d])
        }
    })
}

/// What the operator has said of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing.
    Stranger,
    /// It is to be let in.
    Named,
}

/// What is weighed of an inbound session.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: SessionId,
    group: Group,
    /// The secret draw of its group.
    draw: u64,
    round_trip: Option<std::time::Duration>,
    chunks: u64,
    connected: Time,
}

/// Takes the `count` greatest by `key` out of the candidates.
fn protect<K: Ord>(list: &mut Vec<Candidate>, count: usize, key: impl Fn(&Candidate) -> Option<K>) {
    let mut order: Vec<(K, SessionId)> = list
        .iter()
        .filter_map(|candidate| Some((key(candidate)?, candidate.id)))
        .collect();
    order.sort_unstable();
    let kept: Vec<SessionId> = order
        .into_iter()
        .rev()
        .take(count)
        .map(|(_, id)| id)
        .collect();
    list.retain(|candidate| !kept.contains(&candidate.id));
}

/// The session that has to go, if any is not protected.
fn select(mut list: Vec<Candidate>) -> Option<SessionId> {
    use std::cmp::Reverse;
    protect(&mut list, PROTECTED_BY_GROUP, |one| Some(one.draw));
    protect(&mut list, PROTECTED_BY_ROUND_TRIP, |one| {
        one.round_trip.map(Reverse)
    });
    protect(&mut list, PROTECTED_BY_CHUNKS, |one| {
        (one.chunks > 0).then_some(one.chunks)
    });
    let half = list.len() / 2;
    protect(&mut list, half, |one| Some(Reverse(one.connected)));
    let mut sizes: BTreeMap<Group, usize> = BTreeMap::new();
    for one in &list {
        *sizes.entry(one.group).or_default() += 1;
    }
    list.iter()
        .max_by_key(|one| (sizes.get(&one.group), one.connected, one.id))
        .map(|one| one.id)
}

impl Engine {
    /// Whether a new connection gets a slot; another may have to make room for it.
    pub(super) fn admit(
        &mut self,
        initiator: Initiator,
        address: IpAddr,
        standing: Standing,
    ) -> bool {
        let most = self.config.max_peers.min(MAX_SESSIONS);
        let occupied = self.sessions.iter().flatten().count();
        let live = self.live_sessions(|_| true);
        let slots_left = MAX_SESSIONS.min(most + MAX_ENDING) - occupied.min(most + MAX_ENDING);
        if slots_left == 0 {
            return false;
        }
        if standing == Standing::Named {
            return self.admit_named(initiator, most, live);
        }
        if initiator == Initiator::Outbound {
            return live < most;
        }
        let inbound = self.live_sessions(|session| session.initiator == Initiator::Inbound);
        let group = group_of(address);
        let in_group = self.live_sessions(|session| {
            session.initiator == Initiator::Inbound && group_of(session.remote.ip()) == group
        });
        let crowded = group.is_some() && in_group >= self.config.max_inbound_per_group;
        // However few peers there may be, both kinds have room.
        let reserved = self.config.reserved_outbound.min(most / 2);
        if !crowded && inbound < most - reserved && live < most {
            return true;
        }
        let candidates = self.candidates(|one| !crowded || Some(one) == group);
        let Some(evicted) = select(candidates).and_then(|id| self.live(id)) else {
            return false;
        };
        self.end_session(evicted, DisconnectReason::TooManyPeers, "made room");
        true
    }

    /// Whether a peer that the operator named gets a slot: a free one that its kind may have, else that of an inbound
    /// stranger, else one that is kept for others.
    fn admit_named(&mut self, initiator: Initiator, most: usize, live: usize) -> bool {
        let inbound = self.live_sessions(|session| session.initiator == Initiator::Inbound);
        let reserved = self.config.reserved_outbound.min(most / 2);
        let is_open = initiator == Initiator::Outbound || inbound < most - reserved;
        if is_open && live < most {
            return true;
        }
        let Some(evicted) = self.least_stranger() else {
            return live < most;
        };
        self.end_session(evicted, DisconnectReason::TooManyPeers, "made room");
        true
    }

    /// The inbound stranger that goes first: one that nothing protects, else whoever delivered least, the youngest of them.
    fn least_stranger(&self) -> Option<u32> {
        if let Some(id) = select(self.candidates(|_| true)) {
            return self.live(id);
        }
        let strangers = self.sessions.iter().flatten().filter(|session| {
            session.phase != Phase::Closing
                && session.initiator == Initiator::Inbound
                && session.standing == Standing::Stranger
        });
        strangers
            .min_by_key(|session| {
                let youngest = std::cmp::Reverse((session.connected, session.id));
                (session.chunks_delivered, youngest)
            })
            .map(|session| session.id.slot)
    }

    fn live_sessions(&self, which: impl Fn(&Session) -> bool) -> usize {
        let sessions = self.sessions.iter().flatten();
        sessions
            .filter(|session| session.phase != Phase::Closing && which(session))
            .count()
    }

    /// The inbound strangers of some groups.
    fn candidates(&self, which: impl Fn(Group) -> bool) -> Vec<Candidate> {
        let sessions = self.sessions.iter().flatten();
        sessions
            .filter(|session| session.phase != Phase::Closing)
            .filter(|session| session.initiator == Initiator::Inbound)
            .filter(|session| session.standing == Standing::Stranger)
            .filter_map(|session| {
                let group = group_of(session.remote.ip()).filter(|group| which(*group))?;
                let round_trip = session.sent.rtt();
                Some(Candidate {
                    id: session.id,
                    group,
                    draw: self.draw_of(group),
                    round_trip: round_trip.is_measured().then(|| round_trip.smoothed()),
                    chunks: session.chunks_delivered,
                    connected: session.connected,
                })
            })
            .collect()
    }

    /// A number that only this node can tell from a group.
    fn draw_of(&self, group: Group) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.group_keys[0], self.group_keys[1]);
        match group {
            Group::V4(bits) => hasher.write(&bits),
            Group::V6(bits) => hasher.write(&bits),
        }
        hasher.finish()
    }

    /// Gives a session whose parameters are about to be told an eager place, if there is one for it.
    pub(super) fn take_eager_place(&mut self, slot: u32) {
        let outbound = self
            .session(slot)
            .is_some_and(|session| session.initiator == Initiator::Outbound);
        if self.eager(|_| true) >= MAX_EAGER {
            let kept = self.eager(|session| session.initiator == Initiator::Outbound);
            if !outbound || kept >= EAGER_OUTBOUND || !self.vacate_eager_place() {
                return;
            }
        }
        if let Some(session) = self.session_mut(slot) {
            session.eager = true;
        }
    }

    fn eager(&self, which: impl Fn(&Session) -> bool) -> usize {
        self.live_sessions(|session| session.eager && which(session))
    }

    /// Takes the eager place of the inbound session that delivered least.
    fn vacate_eager_place(&mut self) -> bool {
        let sessions = self.sessions.iter().flatten();
        let least = sessions
            .filter(|session| session.eager && session.initiator == Initiator::Inbound)
            .filter(|session| session.phase != Phase::Closing)
            .min_by_key(|session| (session.chunks_delivered, session.id))
            .map(|session| session.id.slot);
        let Some(slot) = least else {
            return false;
        };
        self.set_eager(slot, false);
        true
    }

    /// Changes whether a peer is asked for full first flights, and tells it if its handshake is done.
    pub(super) fn set_eager(&mut self, slot: u32, eager: bool) {
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        session.eager = eager;
        if matches!(session.phase, Phase::AwaitAck | Phase::Established) {
            self.send_parameters(slot);
        }
    }

    /// Whether taking this session's eager place for the other would leave none to outbound ones.
    pub(super) fn keeps_eager_place(&self, slot: u32, other: u32) -> bool {
        let is_outbound = |slot| {
            let session = self.session(slot);
            session.is_some_and(|session| session.initiator == Initiator::Outbound)
        };
        let kept = self.eager(|session| session.initiator == Initiator::Outbound);
        is_outbound(slot) && !is_outbound(other) && kept <= EAGER_OUTBOUND
    }

    /// Gives free eager places to sessions that have none: outbound ones first, then whoever delivered most.
    pub(super) fn fill_eager_places(&mut self) {
        let free = MAX_EAGER.saturating_sub(self.eager(|_| true));
        for _ in 0..free {
            let sessions = self.sessions.iter().flatten();
            let best = sessions
                .filter(|session| session.is_established() && !session.eager)
                .max_by_key(|session| {
                    let outbound = session.initiator == Initiator::Outbound;
                    let oldest = std::cmp::Reverse(session.id);
                    (outbound, session.chunks_delivered, oldest)
                })
                .map(|session| session.id.slot);
            let Some(best) = best else { return };
            self.set_eager(best, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn candidate(number: u32, group: u8) -> Candidate {
        Candidate {
            id: SessionId {
                slot: number,
                generation: number,
            },
            group: Group::V4([10, group]),
            draw: u64::from(group),
            round_trip: None,
            chunks: 0,
            connected: Time::from_unix_seconds(1_000 + u64::from(number)),
        }
    }

    #[test]
    fn groups_are_16_bits_of_ipv4_and_32_of_ipv6() {
        let group = |text: &str| group_of(text.parse().unwrap());
        assert_eq!(group("10.1.2.3"), group("10.1.200.3"));
        assert_ne!(group("10.1.2.3"), group("10.2.2.3"));
        assert_eq!(group("::ffff:10.1.2.3"), group("10.1.9.9"));
        assert_eq!(group("2001:db8:1::1"), group("2001:db8:2::1"));
        assert_ne!(group("2001:db8::1"), group("2001:db9::1"));
        assert_eq!((group("127.0.0.1"), group("::1")), (None, None));
    }

    #[test]
    fn the_youngest_of_the_largest_group_goes() {
        // Group 1 floods; it is also the last in the secret order.
        let mut list: Vec<Candidate> = (0..20).map(|n| candidate(n, 10 + n as u8)).collect();
        list.extend((20..60).map(|n| candidate(n, 1)));
        assert_eq!(select(list).map(|id| id.slot), Some(59));
        assert_eq!(select(Vec::new()), None);
        assert_eq!(
            select((0..4).map(|n| candidate(n, n as u8)).collect()),
            None
        );
    }

    #[test]
    fn whoever_is_close_useful_or_old_is_protected() {
        let mut list: Vec<Candidate> = (0..60).map(|n| candidate(n, 1)).collect();
        for one in &mut list[52..] {
            one.round_trip = Some(Duration::from_millis(1));
        }
        for one in &mut list[44..52] {
            one.chunks = 3;
            one.round_trip = Some(Duration::from_millis(90));
        }
        // 56 to 59 are kept by the draw, 44 to 55 as close or useful, 0 to 21 as old.
        let gone = select(list).map(|id| id.slot);
        assert_eq!(gone, Some(43));
    }
}
