//! Other servers: named by themselves or by others, looked at before anyone is told of them, and again and again.
//!
//! A server that names itself (`server.add_peer`) has to be reachable by the name it gives, to list that name itself, to serve the
//! same chain and to be near our tip; whoever connects to it asks for its features and tip and gives them to [`PeerBook::judge`]. It is
//! believed only from an address that its name stands for, which who resolves names has to see to ([`Candidate::must_be`]).
//! Clients are told of one server per network, so that nobody fills the list from one rack.
//!
//! What this is not: it connects to nobody and resolves no names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::protocol::info::{Peer, Ports};
use crate::time::Time;

/// Servers that are remembered. Reason: there are some hundred public ones; an unknown one is then refused.
pub const MAX_PEERS: usize = 1_000;

/// Servers that clients are told of. Reason: a wallet tries a few; so many are a frame of some 10 kB.
pub const MAX_TOLD: usize = 100;

/// Hosts in one server's features that are looked at. Reason: a name, an onion name, and one to spare.
pub const MAX_HOSTS: usize = 3;

/// Unseen servers that one network (/16 or /32) may have named at a time. Reason: names are free, networks are not.
const UNSEEN_OF_BUCKET: usize = 4;

/// How long a server counts as good after it was seen so.
const FRESH: Duration = Duration::from_secs(24 * 3_600);

/// How often a good one is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(3 * 3_600);

/// How long until a bad one is looked at again, the first time; then twice as long each time.
const RETRY: Duration = Duration::from_secs(600);

/// How often in a row it may be bad before it is forgotten.
const FAILURES: u32 = 6;

/// Blocks by which a server's tip may be away from ours: blocks take a while to come round.
pub const TIP_TOLERANCE: u32 = 5;

/// Why a server is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its features are not as the protocol has them.
    #[error("malformed features")]
    Malformed,
    /// It serves another chain.
    #[error("another genesis block")]
    OtherChain,
    /// That is us.
    #[error("that is this server")]
    Own,
    /// It does not list the name it was reached by.
    #[error("it does not list the name it was reached by")]
    NotListed,
    /// It is far from our tip, or has another block below it.
    #[error("its chain is not ours")]
    Behind,
    /// There are too many already, or too many of that network.
    #[error("too many servers")]
    TooMany,
}

/// A server that is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name or address.
    pub host: String,
    /// Where it says it is.
    pub ports: Ports,
    /// The address that its name has to stand for, if it named itself from there.
    pub must_be: Option<IpAddr>,
}

/// What a server said that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As it lists them itself.
    pub ports: Ports,
    /// The newest version that it speaks.
    pub protocol_max: String,
}

#[derive(Clone, Debug)]
struct Known {
    ports: Ports,
    protocol_max: String,
    named_from: Option<IpAddr>,
    /// Whether it named itself: then its name has to stand for where that came from.
    by_itself: bool,
    address: Option<IpAddr>,
    good: Option<Time>,
    next: Time,
    failures: u32,
}

/// All servers that are known.
#[derive(Debug)]
pub struct PeerBook {
    genesis: String,
    own: BTreeSet<String>,
    is_private: bool,
    known: BTreeMap<String, Known>,
}

impl PeerBook {
    /// None yet. `genesis` is the first block's hash as it is shown; `own` are the names of this server. On a private network any
    /// name will do.
    pub fn new(genesis: String, own: impl IntoIterator<Item = String>, is_private: bool) -> Self {
        Self {
            is_private,
            genesis,
            own: own.into_iter().map(|host| host.to_lowercase()).collect(),
            known: BTreeMap::new(),
        }
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// An operator names a server.
    pub fn add(&mut self, host: &str, ports: Ports, now: Time) -> Result<(), Unfit> {
        self.insert(host.to_lowercase(), ports, None, false, now)
    }

    /// A good server at this address tells of others, as [`Info::peers`](super::protocol::info::Info::peers) has it: each is looked
    /// at before anyone is told of it.
    pub fn told_of(&mut self, peers: &Value, by: IpAddr, now: Time) {
        let peers = peers.as_array().into_iter().flatten().take(MAX_TOLD);
        for peer in peers {
            let host = peer.get(1).and_then(Value::as_str);
            let features = peer.get(2).and_then(Value::as_array);
            if let (Some(host), Some(features)) = (host, features) {
                // What is no good, or too much, is left out.
                self.insert(
                    host.to_lowercase(),
                    told_ports(features),
                    Some(by),
                    false,
                    now,
                )
                .ok();
            }
        }
    }

    /// A server names itself from an address.
    ///
    /// # Errors
    /// If it is not even worth a look.
    pub fn offer(&mut self, features: &Value, from: IpAddr, now: Time) -> Result<(), Unfit> {
        let hosts = hosts(features)?;
        if features.get("genesis_hash").and_then(Value::as_str) != Some(&self.genesis) {
            return Err(Unfit::OtherChain);
        }
        let mut taken = Err(Unfit::Malformed);
        for (host, ports) in hosts.iter().take(MAX_HOSTS) {
            let ports = read_ports(ports)?;
            let one = self.insert(host.to_lowercase(), ports, Some(from), true, now);
            taken = taken.or(one);
            if one == Err(Unfit::Own) {
                return one;
            }
        }
        taken
    }

    fn insert(
        &mut self,
        host: String,
        ports: Ports,
        from: Option<IpAddr>,
        by_itself: bool,
        now: Time,
    ) -> Result<(), Unfit> {
        if self.own.contains(&host) {
            return Err(Unfit::Own);
        }
        let is_fit = is_host(&host) || (self.is_private && is_short(&host));
        if !is_fit || (ports.tcp.is_none() && ports.ssl.is_none()) {
            return Err(Unfit::Malformed);
        }
        // One that is known has its time to be looked at already.
        if self.known.contains_key(&host) {
            return Ok(());
        }
        let bucket = from.map(bucket);
        let unseen =
            |known: &&Known| known.good.is_none() && known.named_from.map(self::bucket) == bucket;
        let crowded =
            bucket.is_some() && self.known.values().filter(unseen).count() >= UNSEEN_OF_BUCKET;
        if crowded || self.known.len() >= MAX_PEERS {
            return Err(Unfit::TooMany);
        }
        let known = Known {
            ports,
            protocol_max: String::new(),
            named_from: from,
            by_itself,
            address: None,
            good: None,
            next: now,
            failures: 0,
        };
        self.known.insert(host, known);
        Ok(())
    }

    /// The next one to be looked at, if it is time; it is not named again before what came of it is said, or an hour has gone by.
    pub fn due(&mut self, now: Time) -> Option<Candidate> {
        let (host, known) = self
            .known
            .iter_mut()
            .filter(|(_, known)| known.next <= now)
            .min_by_key(|(_, known)| known.next)?;
        known.next = now + Duration::from_secs(3_600);
        Some(Candidate {
            host: host.clone(),
            ports: known.ports,
            must_be: known
                .named_from
                .filter(|_| known.by_itself && known.good.is_none()),
        })
    }

    /// It was looked at, at this address, and is good.
    pub fn passed(&mut self, host: &str, address: Option<IpAddr>, seen: Seen, now: Time) {
        if let Some(known) = self.known.get_mut(host) {
            known.ports = seen.ports;
            known.protocol_max = seen.protocol_max;
            known.address = address;
            known.good = Some(now);
            known.next = now + LOOK_AGAIN;
            known.failures = 0;
        }
    }

    /// It could not be reached, or is not good.
    pub fn failed(&mut self, host: &str, now: Time) {
        let Some(known) = self.known.get_mut(host) else {
            return;
        };
        known.failures += 1;
        known.next = now + RETRY * 2_u32.saturating_pow(known.failures - 1);
        let never = known.good.is_none() && known.failures > 1;
        if never || known.failures >= FAILURES {
            self.known.remove(host);
        }
    }

    /// Those that clients are told of: seen good of late, one of each network, by name.
    pub fn told(&self, now: Time) -> Vec<Peer> {
        let mut buckets = BTreeSet::new();
        let fresh = |known: &Known| known.good.is_some_and(|good| now.since(good) < FRESH);
        let peer = |(host, known): (&String, &Known)| Peer {
            address: known
                .address
                .map_or_else(|| host.clone(), |address| address.to_string()),
            host: host.clone(),
            protocol_max: known.protocol_max.clone(),
            ports: known.ports,
        };
        self.known
            .iter()
            .filter(|(_, known)| fresh(known) && known.failures == 0)
            .filter(|(_, known)| {
                known
                    .address
                    .is_none_or(|address| buckets.insert(bucket(address)))
            })
            .take(MAX_TOLD)
            .map(peer)
            .collect()
    }

    /// What a server said that was reached by this name: whether it is good. `same_block` is whether its header some blocks
    /// below both tips is ours.
    ///
    /// # Errors
    /// Why it is not.
    pub fn judge(
        &self,
        host: &str,
        features: &Value,
        heights: (u32, u32),
        same_block: bool,
    ) -> Result<Seen, Unfit> {
        let hosts = hosts(features)?;
        if features.get("genesis_hash").and_then(Value::as_str) != Some(&self.genesis) {
            return Err(Unfit::OtherChain);
        }
        if heights.0.abs_diff(heights.1) > TIP_TOLERANCE || !same_block {
            return Err(Unfit::Behind);
        }
        let listed = hosts.iter().find(|(name, _)| name.to_lowercase() == host);
        let (_, ports) = listed.ok_or(Unfit::NotListed)?;
        let version = features.get("protocol_max").and_then(Value::as_str);
        let version = version.filter(|version| version.len() <= 10);
        Ok(Seen {
            ports: read_ports(ports)?,
            protocol_max: version.ok_or(Unfit::Malformed)?.to_owned(),
        })
    }
}

fn hosts(features: &Value) -> Result<&Map<String, Value>, Unfit> {
    features
        .get("hosts")
        .and_then(Value::as_object)
        .ok_or(Unfit::Malformed)
}

fn read_ports(ports: &Value) -> Result<Ports, Unfit> {
    let port = |name: &str| match ports.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .map(Some)
            .ok_or(Unfit::Malformed),
    };
    Ok(Ports {
        tcp: port("tcp_port")?,
        ssl: port("ssl_port")?,
        ws: port("ws_port")?,
        wss: port("wss_port")?,
    })
}

/// The ports among the features of one that is told of: `s50002`, `t50001`, each with its number.
fn told_ports(features: &[Value]) -> Ports {
    let port = |sign: char| {
        let texts = features.iter().filter_map(Value::as_str);
        let mut numbers = texts.filter_map(|text| text.strip_prefix(sign));
        numbers.find_map(|number| number.parse().ok().filter(|port| *port > 0))
    };
    Ports {
        tcp: port('t'),
        ssl: port('s'),
        ws: None,
        wss: None,
    }
}

/// Whether that may be any name at all.
fn is_short(host: &str) -> bool {
    (1..=253).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether that may be a name of a host on the internet, or an address there.
fn is_host(host: &str) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        return match address.to_canonical() {
            IpAddr::V4(address) => {
                !(address.is_private()
                    || address.is_loopback()
                    || address.is_link_local()
                    || address.is_unspecified()
                    || address.is_multicast()
                    || address.is_broadcast())
            }
            IpAddr::V6(address) => {
                !(address.is_loopback()
                    || address.is_unspecified()
                    || address.is_multicast()
                    || address.is_unique_local()
                    || address.is_unicast_link_local())
            }
        };
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let named = last.bytes().any(|byte| byte.is_ascii_alphabetic())
        && last != "localhost"
        && last != "local";
    host.len() <= 253 && host.contains('.') && named && host.split('.').all(label)
}

/// The network of an address: /16 of IPv4, /32 of IPv6.
fn bucket(address: IpAddr) -> [u8; 5] {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            [4, a, b, 0, 0]
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.octets();
            [6, a, b, c, d]
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(hours: u64) -> Time {
        Time::from_unix_seconds(1_000_000 + hours * 3_600)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn features(host: &str) -> Value {
        json!({
            "hosts": {host: {"tcp_port": 50_001, "ssl_port": null}},
            "genesis_hash": "00", "protocol_max": "1.6",
        })
    }

    fn book() -> PeerBook {
        PeerBook::new("00".into(), ["me.example".to_owned()], false)
    }

    fn pass(book: &mut PeerBook, host: &str, address: &str, now: Time) {
        let seen = book.judge(host, &features(host), (100, 103), true).unwrap();
        book.passed(host, Some(ip(address)), seen, now);
    }

    #[test]
    fn one_that_names_itself_is_looked_at_before_it_is_told() {
        let mut book = book();
        book.offer(&features("A.example"), ip("1.2.3.4"), at(0))
            .unwrap();
        assert_eq!(book.told(at(0)), []);
        let due = book.due(at(0)).unwrap();
        assert_eq!(
            (due.host.as_str(), due.must_be),
            ("a.example", Some(ip("1.2.3.4")))
        );
        assert_eq!(book.due(at(0)), None);
        pass(&mut book, "a.example", "1.2.3.4", at(0));
        let told = book.told(at(1));
        assert_eq!(
            (told[0].address.as_str(), told[0].ports.tcp),
            ("1.2.3.4", Some(50_001))
        );
        assert_eq!(book.due(at(2)), None);
        assert!(book.due(at(3)).is_some());
        book.failed("a.example", at(3));
        assert_eq!(book.told(at(3)), []);
        pass(&mut book, "a.example", "1.2.3.4", at(4));
        assert_eq!(book.told(at(4)).len(), 1);
        assert_eq!(book.told(at(28)), []);
        for _ in 0..FAILURES {
            book.failed("a.example", at(30));
        }
        assert!(book.is_empty());
    }

    #[test]
    fn one_network_does_not_fill_the_book_or_the_list() {
        let mut book = book();
        let mut taken = 0;
        for number in 0..20 {
            let host = format!("h{number}.example");
            taken += usize::from(book.offer(&features(&host), ip("1.2.3.4"), at(0)).is_ok());
        }
        assert_eq!((taken, book.len()), (UNSEEN_OF_BUCKET, UNSEEN_OF_BUCKET));
        for number in 0..4 {
            pass(
                &mut book,
                &format!("h{number}.example"),
                &format!("1.2.{number}.1"),
                at(0),
            );
        }
        assert_eq!(book.told(at(0)).len(), 1);
        for number in 0..2_000_u32 {
            let from = IpAddr::from(std::net::Ipv4Addr::from(number << 16 | 5 << 24));
            book.offer(&features(&format!("n{number}.example")), from, at(0))
                .ok();
        }
        assert!(book.len() <= MAX_PEERS);
    }

    #[test]
    fn those_of_whom_others_tell_are_looked_at_wherever_their_names_lead() {
        let mut book = book();
        let told = json!([
            ["9.9.9.9", "A.example", ["v1.6", "s50002", "t50001"]],
            ["", "b.example", ["s", "t0"]],
            ["", "10.0.0.1", ["t1"]],
            ["", "me.example", ["t1"]],
            7,
            [],
            ["x"],
        ]);
        book.told_of(&told, ip("1.2.3.4"), at(0));
        let due = book.due(at(0)).unwrap();
        assert_eq!((due.host.as_str(), due.must_be), ("a.example", None));
        assert_eq!((due.ports.ssl, due.ports.tcp), (Some(50_002), Some(50_001)));
        assert_eq!(book.due(at(0)), None);
        let many = (0..100).map(|number| json!(["", format!("n{number}.example"), ["t1"]]));
        book.told_of(&many.collect(), ip("1.2.9.9"), at(0));
        assert_eq!(book.len(), UNSEEN_OF_BUCKET);
    }

    #[test]
    fn on_a_private_network_any_name_will_do() {
        let mut book = PeerBook::new("00".into(), [], true);
        book.offer(&features("127.0.0.1"), ip("127.0.0.1"), at(0))
            .unwrap();
        let spaced = book.offer(&features("a b"), ip("127.0.0.1"), at(0));
        assert_eq!(spaced, Err(Unfit::Malformed));
    }

    #[test]
    fn what_is_unfit_is_refused() {
        let mut book = book();
        let offer =
            |book: &mut PeerBook, features: Value| book.offer(&features, ip("1.2.3.4"), at(0));
        assert_eq!(offer(&mut book, features("me.example")), Err(Unfit::Own));
        for host in [
            "",
            "localhost",
            "a.local",
            "127.0.0.1",
            "10.0.0.1",
            "::1",
            "a",
            "a..b",
            "-a.b",
            "a b.c",
            "1.2.3",
        ] {
            assert_eq!(
                offer(&mut book, features(host)),
                Err(Unfit::Malformed),
                "{host}"
            );
        }
        for value in [
            json!(5),
            json!({}),
            json!({"hosts": []}),
            json!({"hosts": {}, "genesis_hash": "00"}),
        ] {
            assert_eq!(offer(&mut book, value), Err(Unfit::Malformed));
        }
        let port = json!({"hosts": {"a.b": {"tcp_port": 99_999}}, "genesis_hash": "00"});
        assert_eq!(offer(&mut book, port), Err(Unfit::Malformed));
        let other = json!({"hosts": {"a.b": {"tcp_port": 1}}, "genesis_hash": "01"});
        assert_eq!(offer(&mut book, other), Err(Unfit::OtherChain));
        let own = features("a.example");
        let judged = |host, heights, same| book.judge(host, &own, heights, same).unwrap_err();
        assert_eq!(judged("b.example", (1, 1), true), Unfit::NotListed);
        assert_eq!(judged("a.example", (1, 7), true), Unfit::Behind);
        assert_eq!(judged("a.example", (1, 1), false), Unfit::Behind);
    }
}
