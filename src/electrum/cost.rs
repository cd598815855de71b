//! What clients cost, and how those who cost much are slowed, and at last cut.
//!
//! ElectrumX's model: each call has a price, each byte in either direction too, and cost decays with time. Above the soft limit
//! a session waits before its next call is looked at, the longer the nearer it is to the hard limit; there it is cut. Sessions from
//! the same network (/24 of IPv4, /48 of IPv6) weigh on each other with a quarter of what they cost, and what a session had
//! cost stays with its network when it ends, so that connecting anew washes nothing off.
//!
//! All amounts are in thousandths of a unit; a unit is a transaction told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::subscriptions::SessionId;
use crate::time::Time;

/// Networks whose cost is remembered. Reason: at some 60 bytes each that is 4 MB; beyond, those that are owed least are
/// forgotten first.
pub const MAX_GROUPS: usize = 65_536;

/// The share of a network's cost that weighs on each session in it: one in so many.
const GROUP_SHARE: u64 = 4;

/// Bytes, in either direction, for a thousandth of a unit (ElectrumX: `bandwidth_unit_cost` 5000 per unit).
const BYTES_PER_MILLI: u64 = 5;

/// What is held of cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From here on a session waits, in thousandths. 0 for no limits at all.
    pub soft_milli: u64,
    /// Here it is cut.
    pub hard_milli: u64,
    /// How long it waits just below the hard limit.
    pub longest_wait: Duration,
    /// What a session has less with each second.
    pub decay_milli_per_s: u64,
}

impl Default for Limits {
    /// ElectrumX's: `COST_SOFT_LIMIT` 1,000, `COST_HARD_LIMIT` 10,000, `REQUEST_SLEEP` 2,500 ms.
    fn default() -> Self {
        Self {
            soft_milli: 1_000_000,
            hard_milli: 10_000_000,
            longest_wait: Duration::from_millis(2_500),
            decay_milli_per_s: 1_000,
        }
    }
}

/// A network, or `None` for this machine itself, behind which Tor or a proxy may be with anyone at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(Option<[u8; 7]>);

impl Group {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self(None),
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self(Some([4, a, b, c, 0, 0, 0]))
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Self(Some([6, a, b, c, d, e, f]))
            }
        }
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => formatter.write_str("loopback"),
            Some([4, a, b, c, ..]) => write!(formatter, "{a}.{b}.{c}.0/24"),
            Some([_, a, b, c, d, e, f]) => {
                write!(
                    formatter,
                    "{a:02x}{b:02x}:{c:02x}{d:02x}:{e:02x}{f:02x}::/48"
                )
            }
        }
    }
}

/// What a cost comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// So long nothing more of it is looked at.
    Wait(Duration),
    /// It is cut.
    Cut,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    milli: u64,
    at: Time,
}

impl Account {
    fn decay(&mut self, per_second: u64, now: Time) {
        let elapsed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.milli = self
            .milli
            .saturating_sub(per_second.saturating_mul(elapsed) / 1_000);
        self.at = self.at.max(now);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct OfGroup {
    account: Account,
    sessions: u32,
}

/// What a network costs, for those who operate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Which.
    pub group: Group,
    /// In thousandths, of its sessions and those that have ended.
    pub milli: u64,
    /// How many of its sessions are there.
    pub sessions: u32,
}

/// The accounts of all sessions and networks.
#[derive(Debug)]
pub struct Costs {
    limits: Limits,
    sessions: BTreeMap<SessionId, (Account, Group)>,
    groups: BTreeMap<Group, OfGroup>,
}

impl Costs {
    /// No accounts yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            sessions: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    /// A session begins.
    pub fn open(&mut self, session: SessionId, group: Group, now: Time) {
        let account = Account { milli: 0, at: now };
        self.sessions.insert(session, (account, group));
        if !self.groups.contains_key(&group) {
            self.make_room(now);
        }
        let fresh = || OfGroup {
            account,
            sessions: 0,
        };
        self.groups.entry(group).or_insert_with(fresh).sessions += 1;
    }

    /// A session ends. What it cost stays with its network.
    pub fn close(&mut self, session: SessionId) {
        let Some((_, group)) = self.sessions.remove(&session) else {
            return;
        };
        if let Some(of_group) = self.groups.get_mut(&group) {
            of_group.sessions = of_group.sessions.saturating_sub(1);
        }
    }

    /// Adds to what a session cost, 0 to see only how it stands.
    pub fn charge(&mut self, session: SessionId, milli: u64, now: Time) -> Verdict {
        let limits = self.limits;
        let Some((account, group)) = self.sessions.get_mut(&session) else {
            return Verdict::Fine;
        };
        account.decay(limits.decay_milli_per_s, now);
        account.milli = account.milli.saturating_add(milli);
        let own = account.milli;
        let mut others = 0;
        if let Some(of_group) = self.groups.get_mut(group) {
            let rate = limits.decay_milli_per_s * u64::from(of_group.sessions.max(1));
            of_group.account.decay(rate, now);
            of_group.account.milli = of_group.account.milli.saturating_add(milli);
            if group.0.is_some() {
                others = of_group.account.milli.saturating_sub(own) / GROUP_SHARE;
            }
        }
        limits.judge(own.saturating_add(others))
    }

    /// The price of bytes, in thousandths.
    pub fn of_bytes(bytes: usize) -> u64 {
        bytes as u64 / BYTES_PER_MILLI
    }

    /// What a session costs by now, in thousandths.
    pub fn of_session(&self, session: SessionId, now: Time) -> u64 {
        let Some((mut account, _)) = self.sessions.get(&session).copied() else {
            return 0;
        };
        account.decay(self.limits.decay_milli_per_s, now);
        account.milli
    }

    /// All networks that are remembered, and what they cost by now.
    pub fn groups(&self, now: Time) -> impl Iterator<Item = GroupView> + '_ {
        self.groups.iter().map(move |(group, of_group)| {
            let OfGroup {
                mut account,
                sessions,
            } = *of_group;
            let rate = self.limits.decay_milli_per_s * u64::from(sessions.max(1));
            account.decay(rate, now);
            GroupView {
                group: *group,
                milli: account.milli,
                sessions,
            }
        })
    }

    /// Forgets networks without sessions: those that owe nothing any more and, if that is too few, the ones that owe least.
    fn make_room(&mut self, now: Time) {
        if self.groups.len() < MAX_GROUPS {
            return;
        }
        let rate = self.limits.decay_milli_per_s;
        let mut idle: Vec<(u64, Group)> = Vec::new();
        for (group, of_group) in &mut self.groups {
            if of_group.sessions == 0 {
                of_group.account.decay(rate, now);
                idle.push((of_group.account.milli, *group));
            }
        }
        idle.sort_unstable();
        // A sixteenth at a time, so that the next ones need no search.
        for (_, group) in idle.iter().take(MAX_GROUPS / 16) {
            self.groups.remove(group);
        }
    }
}

impl Limits {
    fn judge(&self, milli: u64) -> Verdict {
        if self.soft_milli == 0 || milli < self.soft_milli {
            return Verdict::Fine;
        }
        if milli >= self.hard_milli {
            return Verdict::Cut;
        }
        let (over, span) = (milli - self.soft_milli, self.hard_milli - self.soft_milli);
        Verdict::Wait(self.longest_wait.mul_f64(over as f64 / span as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId(1);
    const TWO: SessionId = SessionId(2);

    fn at(seconds: u64) -> Time {
        Time::from_unix_seconds(1_000 + seconds)
    }

    fn group(text: &str) -> Group {
        Group::of(text.parse().unwrap())
    }

    #[test]
    fn networks() {
        assert_eq!(group("1.2.3.4"), group("1.2.3.200"));
        assert_eq!(group("1.2.3.4"), group("::ffff:1.2.3.9"));
        assert_ne!(group("1.2.3.4"), group("1.2.4.4"));
        assert_eq!(group("2001:db8:1::1"), group("2001:db8:1:2::1"));
        assert_ne!(group("2001:db8:1::1"), group("2001:db8:2::1"));
        assert_eq!(group("1.2.3.4").to_string(), "1.2.3.0/24");
        assert_eq!(group("2001:db8:1::1").to_string(), "2001:0db8:0001::/48");
        assert_eq!(group("127.0.0.1").to_string(), "loopback");
    }

    #[test]
    fn it_slows_then_cuts_then_decays() {
        let mut costs = Costs::new(Limits::default());
        costs.open(ONE, group("1.2.3.4"), at(0));
        assert_eq!(costs.charge(ONE, 999_000, at(0)), Verdict::Fine);
        assert_eq!(
            costs.charge(ONE, 1_000, at(0)),
            Verdict::Wait(Duration::ZERO)
        );
        let half = Verdict::Wait(Duration::from_millis(1_250));
        assert_eq!(costs.charge(ONE, 4_500_000, at(0)), half);
        assert_eq!(costs.charge(ONE, 4_500_000, at(0)), Verdict::Cut);
        assert_eq!(costs.charge(ONE, 0, at(4_500)), half);
        assert_eq!(costs.charge(ONE, 0, at(9_001)), Verdict::Fine);
        // Time that runs back changes nothing.
        assert_eq!(costs.charge(ONE, 0, at(0)), Verdict::Fine);
    }

    #[test]
    fn connecting_anew_washes_nothing_off() {
        let mut costs = Costs::new(Limits::default());
        costs.open(ONE, group("1.2.3.4"), at(0));
        assert_eq!(costs.charge(ONE, 10_000_000, at(0)), Verdict::Cut);
        costs.close(ONE);
        costs.open(TWO, group("1.2.3.5"), at(1));
        assert!(matches!(costs.charge(TWO, 0, at(1)), Verdict::Wait(_)));
        let far = SessionId(3);
        costs.open(far, group("1.2.4.5"), at(1));
        assert_eq!(costs.charge(far, 0, at(1)), Verdict::Fine);
        costs.close(TWO);
        for number in 10..13 {
            let session = SessionId(number);
            costs.open(session, group("1.2.3.9"), at(2));
            costs.charge(session, 10_000_000, at(2));
            costs.close(session);
        }
        costs.open(TWO, group("1.2.3.5"), at(3));
        // Four that were cut weigh as much as one: the fifth waits long, or is cut at once.
        let verdict = costs.charge(TWO, 0, at(3));
        assert!(
            matches!(verdict, Verdict::Wait(wait) if wait.as_secs() >= 2)
                || verdict == Verdict::Cut
        );
    }

    #[test]
    fn those_on_this_machine_do_not_weigh_on_each_other() {
        let mut costs = Costs::new(Limits::default());
        costs.open(ONE, group("127.0.0.1"), at(0));
        costs.open(TWO, group("::1"), at(0));
        assert_eq!(costs.charge(ONE, 50_000_000, at(0)), Verdict::Cut);
        assert_eq!(costs.charge(TWO, 1, at(0)), Verdict::Fine);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_owes_least() {
        let mut costs = Costs::new(Limits::default());
        for number in 0..MAX_GROUPS as u32 + 100 {
            let session = SessionId(number);
            let address = std::net::Ipv4Addr::from((16 << 24) + (number << 8));
            costs.open(session, Group::of(address.into()), at(0));
            costs.charge(session, if number == 0 { 50_000 } else { 100 }, at(0));
            costs.close(session);
        }
        assert!(costs.groups.len() <= MAX_GROUPS);
        assert!(costs.groups.contains_key(&group("16.0.0.1")));
        assert!(!costs.groups.contains_key(&group("16.0.1.1")));
    }
}
