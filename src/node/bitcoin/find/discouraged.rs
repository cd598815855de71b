//! Who has broken the rules lately: not dialled, and the first to make room. As in Bitcoin Core a peer is
//! discouraged, not banned: while there is room it may come back, for its address may be another's by now.
//! Nothing here does I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::time::Time;

/// Addresses that are remembered; with more, whoever was noted first is forgotten.
///
/// Reason: who has so many addresses is not stopped by a list of them; 64 kB.
const MAX_DISCOURAGED: usize = 1_024;
/// For how long: Bitcoin Core bans for a day, and discourages until it is restarted.
const TIME: Duration = Duration::from_secs(24 * 3600);

/// Addresses of those who broke the rules.
#[derive(Clone, Debug, Default)]
pub struct Discouraged {
    since: BTreeMap<IpAddr, Time>,
    count: u64,
}

impl Discouraged {
    /// Notes somebody. Addresses of this machine and its network are not noted, as in Bitcoin Core: all behind
    /// them would suffer for one.
    pub fn note(&mut self, ip: IpAddr, now: Time) {
        self.count += 1;
        if is_local(ip) {
            return;
        }
        self.since.retain(|_, since| now.since(*since) < TIME);
        if self.since.len() >= MAX_DISCOURAGED
            && let Some(oldest) = self.since.iter().min_by_key(|(_, since)| **since)
        {
            let oldest = *oldest.0;
            self.since.remove(&oldest);
        }
        self.since.insert(place(ip), now);
    }

    /// Whether somebody is discouraged.
    pub fn has(&self, ip: IpAddr, now: Time) -> bool {
        let since = self.since.get(&place(ip));
        since.is_some_and(|since| now.since(*since) < TIME)
    }

    /// How many are.
    pub fn len(&self) -> usize {
        self.since.len()
    }

    /// How often anybody was let go for misbehaviour since the start, local ones among them.
    pub fn count(&self) -> u64 {
        self.count
    }
}

fn is_local(ip: IpAddr) -> bool {
    !crate::chain::addrbook::Host::from(ip).is_public()
}

/// Whoever has one address of IPv6 has the /64 that it is in.
fn place(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) >> 64 << 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> Time {
        Time::from_unix_seconds(1_000_000 + hours * 3600)
    }

    #[test]
    fn for_a_day_and_by_the_network_that_one_has() {
        let mut discouraged = Discouraged::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        discouraged.note(ip("1.2.3.4"), at(0));
        discouraged.note(ip("2a01:0:0:7::1"), at(0));
        discouraged.note(ip("127.0.0.1"), at(0));
        discouraged.note(ip("192.168.3.3"), at(0));
        assert!(discouraged.has(ip("1.2.3.4"), at(23)) && !discouraged.has(ip("1.2.3.4"), at(24)));
        assert!(discouraged.has(ip("2a01:0:0:7::2"), at(1)));
        assert!(!discouraged.has(ip("2a01:0:0:8::2"), at(1)));
        assert!(!discouraged.has(ip("127.0.0.1"), at(0)));
        assert_eq!((discouraged.len(), discouraged.count()), (2, 4));
    }

    #[test]
    fn the_list_is_bounded() {
        let mut discouraged = Discouraged::default();
        for number in 0..3_000_u32 {
            let [_, _, a, b] = number.to_be_bytes();
            discouraged.note(IpAddr::from([9, 9, a, b]), at(0));
        }
        assert_eq!(discouraged.len(), MAX_DISCOURAGED);
    }
}
