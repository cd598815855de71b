//! Where others reach this node: what the operator says, else the address that is listened on, else what those see
//! whom we have dialled. Nothing here does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::chain::addrbook::{Address, Group, Host, Locality};

/// Addresses of ours that others claim to see, and groups of such claimants for each.
///
/// Reason: two who agree decide; the rest is noise, and whoever makes noise pays with an address of its own each time.
const MAX_CLAIMS: usize = 16;
/// So many of different groups must agree; where all is on one machine one is enough.
const WITNESSES: usize = 2;

/// Where this node is reached, at each of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// TCP port of control connections; 0: none is taken from elsewhere.
    pub control: u16,
    /// UDP port of datagrams.
    pub data: u16,
    /// TCP port of Bitcoin's P2P protocol; 0 likewise.
    pub bitcoin: u16,
}

/// What is known of our own addresses.
#[derive(Clone, Debug)]
pub struct Ourselves {
    locality: Locality,
    /// By the operator's word; then nothing else counts.
    told: Vec<IpAddr>,
    /// Sockets that are bound to an address that others reach.
    bound: Vec<IpAddr>,
    seen: BTreeMap<IpAddr, BTreeSet<Group>>,
}

impl Ourselves {
    /// `told`: by the operator; `bound`: what is listened on, wildcards among it.
    pub fn new(locality: Locality, told: Vec<IpAddr>, bound: &[SocketAddr]) -> Self {
        let mut ourselves = Self {
            locality,
            told,
            bound: Vec::new(),
            seen: BTreeMap::new(),
        };
        for address in bound {
            let ip = address.ip().to_canonical();
            if ourselves.is_fit(ip) && !ourselves.bound.contains(&ip) {
                ourselves.bound.push(ip);
            }
        }
        ourselves
    }

    /// Whether an address is one that others can reach.
    fn is_fit(&self, ip: IpAddr) -> bool {
        match self.locality {
            Locality::Public => Host::from(ip).is_public(),
            Locality::Local => !ip.is_unspecified() && !ip.is_multicast(),
        }
    }

    /// Somebody whom we dialled says where it sees us. Whether our addresses are others by that.
    pub fn seen(&mut self, ip: IpAddr, by: &Address) -> bool {
        let ip = ip.to_canonical();
        if !self.told.is_empty() || !self.bound.is_empty() || !self.is_fit(ip) {
            return false;
        }
        let before = self.addresses();
        let has_room = self.seen.len() < MAX_CLAIMS;
        if !has_room && !self.seen.contains_key(&ip) {
            // Those who stood alone make room.
            self.seen.retain(|_, witnesses| witnesses.len() > 1);
        }
        if self.seen.len() < MAX_CLAIMS || self.seen.contains_key(&ip) {
            let witnesses = self.seen.entry(ip).or_default();
            if witnesses.len() < MAX_CLAIMS {
                witnesses.insert(by.group());
            }
        }
        self.addresses() != before
    }

    /// Where others reach this node: all that the operator said or that is listened on, else at most one address of
    /// IPv4 and one of IPv6.
    pub fn addresses(&self) -> Vec<IpAddr> {
        if !self.told.is_empty() {
            return self.told.clone();
        }
        if !self.bound.is_empty() {
            return self.bound.clone();
        }
        let needed = match self.locality {
            Locality::Public => WITNESSES,
            Locality::Local => 1,
        };
        let believed = |v4: bool| {
            let of_kind = self.seen.iter().filter(|(ip, _)| ip.is_ipv4() == v4);
            of_kind
                .filter(|(_, witnesses)| witnesses.len() >= needed)
                .max_by_key(|(_, witnesses)| witnesses.len())
                .map(|(ip, _)| *ip)
        };
        [true, false].into_iter().filter_map(believed).collect()
    }

    /// The address to tell to somebody: one of its own kind if there is one.
    pub fn address_for(&self, peer: IpAddr) -> Option<IpAddr> {
        let addresses = self.addresses();
        let alike = |ip: &&IpAddr| ip.is_ipv4() == peer.to_canonical().is_ipv4();
        let found = addresses.iter().find(alike).or(addresses.first());
        found.copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn peer(text: &str) -> Address {
        Address::bitcoin(text.parse().unwrap())
    }

    #[test]
    fn two_of_different_groups_are_believed() {
        let wildcard = ["0.0.0.0:8433".parse().unwrap()];
        let mut ourselves = Ourselves::new(Locality::Public, Vec::new(), &wildcard);
        let us = ip("1.2.3.4");
        assert!(!ourselves.seen(us, &peer("5.6.7.8:8333")));
        assert!(!ourselves.seen(us, &peer("5.6.9.9:8333")));
        assert!(!ourselves.seen(ip("10.0.0.1"), &peer("6.6.9.9:8333")));
        assert!(ourselves.addresses().is_empty());
        assert!(ourselves.seen(us, &peer("6.6.9.9:8333")));
        assert_eq!(ourselves.addresses(), [us]);
        assert!(!ourselves.seen(us, &peer("7.6.9.9:8333")));
        assert_eq!(ourselves.address_for(ip("2a01::1")), Some(us));
    }

    #[test]
    fn the_operators_word_and_then_the_sockets_count() {
        let bound = ["9.9.9.9:8433".parse().unwrap()];
        let told = vec![ip("1.1.1.1"), ip("2a01::1")];
        let mut ourselves = Ourselves::new(Locality::Public, told, &bound);
        assert_eq!(ourselves.address_for(ip("2a02::2")), Some(ip("2a01::1")));
        assert_eq!(ourselves.address_for(ip("8.8.8.8")), Some(ip("1.1.1.1")));
        ourselves = Ourselves::new(Locality::Public, Vec::new(), &bound);
        assert_eq!(ourselves.addresses(), [ip("9.9.9.9")]);
        assert!(!ourselves.seen(ip("8.8.8.8"), &peer("6.6.9.9:8333")));
        let loopback = ["127.0.0.1:1".parse().unwrap()];
        ourselves = Ourselves::new(Locality::Public, Vec::new(), &loopback);
        assert!(ourselves.addresses().is_empty());
        ourselves = Ourselves::new(Locality::Local, Vec::new(), &loopback);
        assert_eq!(ourselves.addresses(), [ip("127.0.0.1")]);
    }

    #[test]
    fn lies_are_bounded_and_do_not_keep_the_truth_out() {
        let mut ourselves = Ourselves::new(Locality::Public, Vec::new(), &[]);
        for number in 0..200_u8 {
            let by = peer(&format!("{}.5.0.1:8333", 11 + number / 10));
            ourselves.seen(IpAddr::from([1, 1, 1, number]), &by);
        }
        assert!(ourselves.seen.len() <= MAX_CLAIMS);
        ourselves.seen(ip("2.2.2.2"), &peer("90.1.1.1:8333"));
        assert!(ourselves.seen(ip("2.2.2.2"), &peer("91.1.1.1:8333")));
        assert_eq!(ourselves.addresses(), [ip("2.2.2.2")]);
    }
}
