//! The links of a lab, as a pure core: which packet of a kernel goes where, and when.
//!
//! ```text
//!   packet of node A ─▶ A's uplink ─▶ the simulator's Link (rate, queue, loss, delay) ─▶ held until due
//!                                                                                        │
//!                        packet to node B ◀─ B's downlink, held again if that is busy ◀──┘
//! ```
//!
//! It is the simulator's one link model under another clock: [`Link`] decides about every packet, in the same order of
//! uplink, link and downlink as in a world of the simulator. What differs is what comes in: packets of real kernels,
//! TCP's segments and acknowledgements among them, so that TCP is not modelled here.
//! What it is not: a network stack. It joins neighbours, answers nothing, and fragments nothing.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;

use arrayvec::ArrayVec;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::sim::link::{Arrival, Drop, Link, UDP_OVERHEAD};
use crate::sim::outcome::NodeTraffic;
use crate::sim::queue::RateQueue;
use crate::sim::scenario::LinkChange;
use crate::sim::trial::{Access, Trial};
use crate::time::Time;

/// Bytes of packets that are held at once at most: a second of a gigabit and more, so that no link that a scenario of
/// the lab has is cut short by it; what comes beyond it is dropped and counted as the lab's own fault.
const MAX_HELD_BYTES: usize = 256 << 20;
/// Buffers that are kept for the next packets at most, as many as a full queue of the reference link needs.
const MAX_SPARE: usize = 1_024;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// Bytes of the header of UDP.
const UDP_HEADER: usize = 8;
/// Where a UDP header has its checksum.
const UDP_CHECKSUM: std::ops::Range<usize> = 6..8;

/// The address of a node: each in a /16 of its own, as relays of different networks would be.
pub fn address_of(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, (node + 1) as u8, 0, 1)
}

/// The node that has an address.
fn node_at(address: [u8; 4]) -> Option<usize> {
    match address {
        [10, node, 0, 1] => usize::from(node).checked_sub(1),
        _ => None,
    }
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Came from nodes, to neighbours.
    pub taken: u64,
    /// Were given to nodes.
    pub given: u64,
    /// Bytes given, headers included.
    pub given_bytes: u64,
    /// Lost at random, as the scenario wants it.
    pub lost: u64,
    /// Did not fit into a queue of the scenario.
    pub overflowed: u64,
    /// Came to a link that was down, lets no UDP through, or led to another side of a partition.
    pub closed: u64,
    /// Were longer than the link's largest.
    pub too_long: u64,
    /// Did not fit into the lab's memory: what was measured is not what the scenario says.
    pub no_room: u64,
    /// Were for nobody, such as the kernel's own broadcasts.
    pub stray: u64,
}

/// A packet that is due.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To which node.
    pub to: usize,
    /// When it should be there.
    pub due: Time,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// All links of a lab.
#[derive(Debug)]
pub struct Switch {
    stations: Vec<Station>,
    links: BTreeMap<(usize, usize), Link>,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    order: u64,
    groups: u64,
    random: StdRng,
    spare: Vec<Vec<u8>>,
    counts: Counts,
}

/// A node, as the links see it.
#[derive(Debug)]
struct Station {
    access: Access,
    up: RateQueue,
    down: RateQueue,
    /// Nodes of different groups are cut off from each other.
    group: u64,
    traffic: NodeTraffic,
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    at: Time,
    order: u64,
    to: usize,
    /// Whether it has passed the receiver's downlink.
    came_down: bool,
    bytes: Vec<u8>,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What the links need to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    to: usize,
    protocol: u8,
    /// Bytes of the headers of IP, and of UDP or TCP.
    headers: usize,
    ip_header: usize,
}

impl Packet {
    /// `None` if it is not IPv4, or not for a node.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (first, to) = (bytes.first()?, bytes.get(16..20)?);
        let ip_header = usize::from(first & 15) * 4;
        let to = node_at(to.try_into().ok()?)?;
        let protocol = *bytes.get(9)?;
        let whole = bytes
            .get(6..8)
            .is_some_and(|at| at[0] & 0x3f == 0 && at[1] == 0);
        let own = match protocol {
            UDP if whole => UDP_HEADER,
            TCP if whole => bytes
                .get(ip_header + 12)
                .map_or(0, |at| usize::from(at >> 4) * 4),
            _ => 0,
        };
        let sensible = first >> 4 == 4 && ip_header >= 20 && ip_header + own <= bytes.len();
        sensible.then_some(Self {
            to,
            protocol: if whole { protocol } else { 0 },
            headers: ip_header + own,
            ip_header,
        })
    }
}

impl Switch {
    /// The links of a trial; what they draw comes from its seed.
    pub fn new(trial: &Trial) -> Self {
        let station = |access: &Access| Station {
            access: *access,
            up: RateQueue::default(),
            down: RateQueue::default(),
            group: 0,
            traffic: NodeTraffic::default(),
        };
        let mut links = BTreeMap::new();
        for (&(low, high), [forth, back]) in trial.plan.edges.iter().zip(&trial.links) {
            links.insert((low, high), Link::new(forth.clone()));
            links.insert((high, low), Link::new(back.clone()));
        }
        Self {
            stations: trial.access.iter().map(station).collect(),
            links,
            held: BinaryHeap::new(),
            held_bytes: 0,
            order: 0,
            groups: 0,
            random: StdRng::seed_from_u64(trial.seed ^ 0x6c61_6200),
            spare: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// A node's kernel sends a packet.
    pub fn take(&mut self, now: Time, from: usize, bytes: &[u8]) {
        let Some(packet) = Packet::parse(bytes) else {
            self.counts.stray += 1;
            return;
        };
        let (Some(near), Some(far)) = (self.stations.get(from), self.stations.get(packet.to))
        else {
            self.counts.stray += 1;
            return;
        };
        let same_side = near.group == far.group;
        if !self.links.contains_key(&(from, packet.to)) {
            self.counts.stray += 1;
            return;
        }
        self.counts.taken += 1;
        match self.pass(now, from, packet, bytes.len(), same_side) {
            Ok(arrivals) => {
                for arrival in arrivals {
                    self.hold(arrival, packet, bytes);
                }
            }
            Err(Drop::Lost) => self.counts.lost += 1,
            Err(Drop::Overflow) => self.counts.overflowed += 1,
            Err(Drop::TooLong) => self.counts.too_long += 1,
            Err(Drop::Closed) => self.counts.closed += 1,
        }
    }

    /// When the packet arrives, at most twice.
    fn pass(
        &mut self,
        now: Time,
        from: usize,
        packet: Packet,
        length: usize,
        same_side: bool,
    ) -> Result<ArrayVec<Arrival, 2>, Drop> {
        let station = self.stations.get_mut(from).ok_or(Drop::Closed)?;
        let link = self.links.get_mut(&(from, packet.to)).ok_or(Drop::Closed)?;
        station.traffic.bytes_out += (length - packet.headers) as u64;
        station.traffic.packets_out += 1;
        let access = station.access;
        let rate = access.up_bytes_per_s;
        let left = station.up.pass(now, length, rate, access.room(rate));
        let left = left.ok_or(Drop::Overflow)?;
        if !same_side {
            return Err(Drop::Closed);
        }
        if length > link.options.mtu {
            return Err(Drop::TooLong);
        }
        if packet.protocol == UDP {
            return link.datagram(left, length - UDP_OVERHEAD, &mut self.random);
        }
        let at = link.packet(left, length, &mut self.random)?;
        let arrival = Arrival { at, flipped: None };
        Ok([arrival].into_iter().collect())
    }

    fn hold(&mut self, arrival: Arrival, packet: Packet, bytes: &[u8]) {
        if self.held_bytes + bytes.len() > MAX_HELD_BYTES {
            self.counts.no_room += 1;
            return;
        }
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        if let Some(bit) = arrival.flipped {
            corrupt(&mut copy, packet, bit);
        }
        self.held_bytes += copy.len();
        self.push(arrival.at, packet.to, false, copy);
    }

    fn push(&mut self, at: Time, to: usize, came_down: bool, bytes: Vec<u8>) {
        self.order += 1;
        self.held.push(Reverse(Held {
            at,
            order: self.order,
            to,
            came_down,
            bytes,
        }));
    }

    /// When the next packet is due, or comes to a downlink.
    pub fn next_due(&self) -> Option<Time> {
        self.held.peek().map(|Reverse(held)| held.at)
    }

    /// The next packet that is due at `now`.
    pub fn give(&mut self, now: Time) -> Option<Delivery> {
        while self.held.peek().is_some_and(|Reverse(held)| held.at <= now) {
            let Reverse(held) = self.held.pop()?;
            self.held_bytes -= held.bytes.len();
            let Some(station) = self.stations.get_mut(held.to) else {
                continue;
            };
            let rate = station.access.down_bytes_per_s;
            if !held.came_down && rate.is_some() {
                let room = station.access.room(rate);
                match station.down.pass(held.at, held.bytes.len(), rate, room) {
                    Some(at) => {
                        self.held_bytes += held.bytes.len();
                        self.push(at, held.to, true, held.bytes);
                    }
                    None => {
                        self.counts.overflowed += 1;
                        self.recycle(held.bytes);
                    }
                }
                continue;
            }
            let headers = Packet::parse(&held.bytes).map_or(0, |packet| packet.headers);
            station.traffic.bytes_in += (held.bytes.len() - headers) as u64;
            station.traffic.packets_in += 1;
            self.counts.given += 1;
            self.counts.given_bytes += held.bytes.len() as u64;
            return Some(Delivery {
                to: held.to,
                due: held.at,
                bytes: held.bytes,
            });
        }
        None
    }

    /// Takes the buffer of a delivery back.
    pub fn recycle(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(bytes);
        }
    }

    /// Cuts nodes off from all others.
    pub fn partition(&mut self, nodes: &[usize]) {
        self.groups += 1;
        for node in nodes {
            if let Some(station) = self.stations.get_mut(*node) {
                station.group = self.groups;
            }
        }
    }

    /// Ends all partitions, and brings all links up.
    pub fn heal(&mut self) {
        self.stations.iter_mut().for_each(|it| it.group = 0);
        self.links.values_mut().for_each(|link| link.up = true);
    }

    /// Takes a link down or brings it up, both ways.
    pub fn set_up(&mut self, one: usize, other: usize, up: bool) {
        for way in [(one, other), (other, one)] {
            if let Some(link) = self.links.get_mut(&way) {
                link.up = up;
            }
        }
    }

    /// Changes one direction of a link.
    pub fn change(&mut self, way: (usize, usize), change: &LinkChange) {
        if let Some(link) = self.links.get_mut(&way) {
            change.apply(&mut link.options);
        }
    }

    /// Everything that passed at each node since the beginning; requests are not told apart.
    pub fn traffic(&self) -> Vec<NodeTraffic> {
        self.stations.iter().map(|it| it.traffic).collect()
    }

    /// What became of packets since the beginning.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Flips a bit of a datagram's payload. Its checksum is taken away with it, as if it had been right: otherwise the
/// receiver's kernel would drop it, and the node would never be tried.
fn corrupt(bytes: &mut [u8], packet: Packet, bit: usize) {
    if let Some(byte) = bytes.get_mut(packet.headers + bit / 8) {
        *byte ^= 1 << (bit % 8);
        let header = bytes.get_mut(packet.ip_header..packet.headers);
        let checksum = header.and_then(|header| header.get_mut(UDP_CHECKSUM));
        checksum.into_iter().for_each(|at| at.fill(0));
    }
}

#[cfg(test)]
mod tests;
