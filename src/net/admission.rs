//! How many inbound connections are taken, and how many of one neighbourhood. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Why an inbound connection is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    Total,
    PerAddress,
}

/// Who holds the places for inbound connections.
#[derive(Debug)]
pub(super) struct Admission {
    max_total: usize,
    max_per_address: usize,
    total: usize,
    per_address: BTreeMap<IpAddr, usize>,
}

impl Admission {
    pub(super) fn new(max_total: usize, max_per_address: usize) -> Self {
        Self {
            max_total,
            max_per_address,
            total: 0,
            per_address: BTreeMap::new(),
        }
    }

    pub(super) fn admit(&mut self, ip: IpAddr) -> Result<(), Refusal> {
        if self.total >= self.max_total {
            return Err(Refusal::Total);
        }
        let key = neighbourhood(ip);
        let held = self.per_address.get(&key).copied().unwrap_or(0);
        if held >= self.max_per_address && !ip.is_loopback() {
            return Err(Refusal::PerAddress);
        }
        self.per_address.insert(key, held + 1);
        self.total += 1;
        Ok(())
    }

    pub(super) fn release(&mut self, ip: IpAddr) {
        let key = neighbourhood(ip);
        if let Some(held) = self.per_address.get_mut(&key) {
            *held -= 1;
            self.total -= 1;
            if *held == 0 {
                self.per_address.remove(&key);
            }
        }
    }
}

/// What one party is likely to hold: an IPv4 address, or an IPv6 /64.
pub(super) fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_counts_by_neighbourhood() {
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let mut admission = Admission::new(100, 2);
        for (address, expected) in [
            ("192.0.2.1", Ok(())),
            ("192.0.2.1", Ok(())),
            ("192.0.2.1", Err(Refusal::PerAddress)),
            ("192.0.2.2", Ok(())),
            ("2001:db8::1", Ok(())),
            ("2001:db8::2", Ok(())),
            ("2001:db8::3:4:5:6", Err(Refusal::PerAddress)),
            ("2001:db8:0:1::1", Ok(())),
        ] {
            assert_eq!(admission.admit(ip(address)), expected, "{address}");
        }
        admission.release(ip("192.0.2.1"));
        assert_eq!(admission.admit(ip("192.0.2.1")), Ok(()));
        for _ in 0..94 {
            assert_eq!(admission.admit(ip("127.0.0.1")), Ok(()));
        }
        assert_eq!(admission.admit(ip("127.0.0.1")), Err(Refusal::Total));
        // Refusals leave nothing behind, and neither do those who have left.
        let mut empty = Admission::new(1, 0);
        assert_eq!(empty.admit(ip("192.0.2.9")), Err(Refusal::PerAddress));
        assert!(empty.per_address.is_empty());
    }
}
