//! One step at a time, and a whole network ([`meeting`]).

mod meeting;
mod world;

use super::*;
use crate::chain::Network;
use crate::chain::addrbook::{BookRules, Door, Networks};
use world::{FLAG, PLAIN, hearsay, start};

fn at(text: &str) -> Address {
    Address::bitcoin(text.parse().unwrap())
}

fn crawl(network: Network, config: CrawlConfig) -> Crawl {
    let locality = match network {
        Network::Regtest => Locality::Local,
        _ => Locality::Public,
    };
    let rules = BookRules {
        flag: FLAG,
        locality,
        reachable: Networks::IP,
    };
    Crawl::new(start(), config, Book::new(rules, [1; 32]), [2; 32])
}

fn quiet(network: Network) -> CrawlConfig {
    CrawlConfig {
        dns_seeds: false,
        fixed_seeds: false,
        announce: false,
        ..CrawlConfig::new(network)
    }
}

fn drain(crawl: &mut Crawl, now: Time) -> Vec<Action> {
    std::iter::from_fn(|| crawl.poll(now)).collect()
}

fn later(seconds: u64) -> Time {
    start() + Duration::from_secs(seconds)
}

const RELAY: Advert = Advert {
    version: 1,
    control_port: 8433,
    data_port: 8433,
};

#[test]
fn an_empty_book_is_filled_from_the_node_then_dns_then_fixed_seeds() {
    let config = CrawlConfig {
        own_node: true,
        ..CrawlConfig::new(Network::Main)
    };
    let mut one = crawl(Network::Main, config);
    assert_eq!(
        drain(&mut one, start()),
        [Action::AskNode, Action::SeedFromDns]
    );
    assert_eq!(one.deadline(), Some(later(60)));
    assert_eq!(drain(&mut one, later(60)), [Action::SeedFixed]);
    assert_eq!(drain(&mut one, later(600)), [Action::SeedFromDns]);
    assert!(drain(&mut one, later(1000)).is_empty());

    let mut cautious = crawl(Network::Main, CrawlConfig::new(Network::Main));
    let node = at("20.1.1.1:8333");
    cautious.heard(start(), Source::Operator, [hearsay(node, PLAIN, start())]);
    let dial = |purpose| Action::Dial {
        address: node,
        purpose,
    };
    assert_eq!(drain(&mut cautious, start()), [dial(Purpose::Gossip)]);
    cautious.p2p_ready(later(1), 1, &node, PLAIN, None);
    let expected = [Action::AskAddresses(1), Action::AnnounceSelf(1)];
    assert_eq!(drain(&mut cautious, later(1)), expected);
    assert!(!drain(&mut cautious, later(3600)).contains(&Action::SeedFromDns));

    let mut regtest = crawl(Network::Regtest, CrawlConfig::new(Network::Regtest));
    assert!(drain(&mut regtest, start()).is_empty());
}

#[test]
fn a_claim_is_looked_at_and_a_proven_relay_dialled() {
    let mut one = crawl(Network::Main, quiet(Network::Main));
    let node = at("20.1.1.1:8333");
    one.heard(
        start(),
        Source::OurNode,
        [hearsay(node, PLAIN | FLAG, start())],
    );
    let look = Purpose::Feeler {
        ask_addresses: true,
    };
    let dial = Action::Dial {
        address: node,
        purpose: look,
    };
    assert_eq!(drain(&mut one, start()), [dial]);
    assert_eq!(one.counts().dialling, 1);
    one.p2p_ready(later(1), 7, &node, PLAIN | FLAG, Some(RELAY));
    let control = Address {
        port: 8433,
        door: Door::Control,
        ..node
    };
    let dial = Action::Dial {
        address: control,
        purpose: Purpose::Relay,
    };
    assert_eq!(drain(&mut one, later(1)), [dial]);
    assert_eq!(drain(&mut one, later(2)), []);
    one.closed(later(2), 7);
    one.relay_ready(later(3), 8, &control, 1, 8433);
    assert_eq!(drain(&mut one, later(3)), [Action::AskAddresses(8)]);
    assert_eq!(one.counts().relays, 1);
    assert!(
        one.deadline().is_some_and(|at| at <= later(13)),
        "soon saved"
    );
    assert!(drain(&mut one, later(13)).contains(&Action::Save));
    one.closed(later(20), 8);
    assert_eq!(drain(&mut one, later(21)), [], "not at once");
    assert!(drain(&mut one, later(50)).contains(&dial));
}

#[test]
fn a_flag_without_a_handshake_is_disproved_when_the_connection_ends() {
    let mut one = crawl(Network::Main, quiet(Network::Main));
    let [liar, late] = [at("20.1.1.1:8333"), at("20.2.1.1:8333")];
    one.heard(
        start(),
        Source::OurNode,
        [liar, late].map(|node| hearsay(node, PLAIN | FLAG, start())),
    );
    drain(&mut one, start());
    drain(&mut one, later(1));
    one.p2p_ready(later(2), 1, &liar, PLAIN | FLAG, None);
    one.p2p_ready(later(2), 2, &late, PLAIN | FLAG, None);
    one.advertised(later(3), 2, RELAY);
    one.closed(later(4), 1);
    one.closed(later(4), 2);
    assert_eq!(one.book().record(&liar).unwrap().services, PLAIN);
    assert!(one.book().record(&late).unwrap().advert.is_some());
    assert_eq!(one.book().counts().refuted, 1);
}

#[test]
fn ourselves_and_whoever_is_here_already_are_not_dialled() {
    let mut one = crawl(Network::Main, quiet(Network::Main));
    let [own, inbound, manual] = [
        at("20.1.1.1:8333"),
        at("20.2.1.1:8333"),
        at("20.3.1.1:8333"),
    ];
    one.relay_joined(start(), 1, Origin::Inbound, at("20.2.1.1:50000"));
    let control = Address {
        port: 8433,
        door: Door::Control,
        ..manual
    };
    one.relay_joined(start(), 2, Origin::Manual, control);
    assert_eq!(drain(&mut one, start()), [Action::AskAddresses(2)]);
    let told = [own, inbound, manual].map(|node| hearsay(node, PLAIN | FLAG, start()));
    one.heard(start(), Source::OurNode, told);
    let dials = drain(&mut one, later(1));
    assert!(
        matches!(dials[..], [Action::Dial { address, .. }] if address == own),
        "{dials:?}"
    );
    one.ourself(later(2), &own);
    assert!(
        drain(&mut one, later(50))
            .iter()
            .all(|action| *action == Action::Save)
    );
    assert_eq!(one.counts().other_relays, 2);
    one.closed(later(51), 1);
    let dials = drain(&mut one, later(53));
    assert!(
        matches!(dials[..], [Action::Dial { address, .. }, ..] if address == inbound),
        "{dials:?}"
    );
}

#[test]
fn ordinary_peers_are_exchanged_while_relays_are_lacking_and_one_stays() {
    let config = CrawlConfig {
        relay_slots: 1,
        ..quiet(Network::Main)
    };
    let mut one = crawl(Network::Main, config);
    let nodes: Vec<Address> = (1..=9)
        .map(|group| at(&format!("20.{group}.1.1:8333")))
        .collect();
    one.heard(
        start(),
        Source::OurNode,
        nodes.iter().map(|node| hearsay(*node, PLAIN, start())),
    );
    let mut key = 0;
    let mut dropped = Vec::new();
    let mut step = |one: &mut Crawl, now: Time| {
        for action in drain(one, now) {
            match action {
                Action::Dial { address, purpose } => {
                    key += 1;
                    one.p2p_ready(now, key, &address, PLAIN, None);
                    if purpose != Purpose::Gossip {
                        one.closed(now, key);
                    }
                }
                Action::Drop(key, reason) => dropped.push((key, reason)),
                _ => {}
            }
        }
        dropped.clone()
    };
    (0..5).for_each(|second| drop(step(&mut one, later(second))));
    assert_eq!(one.counts().gossip, 2);
    assert_eq!(step(&mut one, later(115)), []);
    let dropped = step(&mut one, later(125));
    assert!(
        matches!(dropped[..], [(_, DropReason::Exchanged)]),
        "{dropped:?}"
    );
    assert_eq!(one.counts().gossip, 2);

    let relay = Address {
        port: 8433,
        door: Door::Control,
        ..at("30.1.1.1:8433")
    };
    one.heard(later(130), Source::OurNode, [hearsay(relay, 0, later(130))]);
    let dial = Action::Dial {
        address: relay,
        purpose: Purpose::Relay,
    };
    assert!(drain(&mut one, later(135)).contains(&dial));
    one.relay_ready(later(136), 100, &relay, 1, 0);
    let dropped = step(&mut one, later(137));
    assert!(
        dropped
            .iter()
            .any(|(_, reason)| *reason == DropReason::NotNeeded)
    );
    assert_eq!(one.counts().gossip, 1);
}

#[test]
fn relays_are_told_of_one_another_once() {
    let mut one = crawl(Network::Main, quiet(Network::Main));
    let control = |group: u8| Address::control(([20, group, 1, 1], 8433).into());
    one.relay_joined(start(), 1, Origin::Inbound, at("40.1.1.1:50000"));
    let told = [1, 2].map(|group| hearsay(control(group), 0, start()));
    one.heard(start(), Source::OurNode, told);
    drain(&mut one, start());
    drain(&mut one, later(1));
    let heard_of = |actions: Vec<Action>| -> Vec<(ConnectionKey, u16)> {
        let told = actions.into_iter().filter_map(|action| match action {
            Action::TellOf { to, relay } => Some((to, relay.data_port)),
            _ => None,
        });
        told.collect()
    };
    one.relay_ready(later(2), 2, &control(1), 1, 41);
    assert_eq!(heard_of(drain(&mut one, later(2))), [(1, 41)]);
    one.relay_ready(later(3), 3, &control(2), 1, 42);
    assert_eq!(heard_of(drain(&mut one, later(3))), [(1, 42), (2, 42)]);
    one.closed(later(4), 2);
    assert!(
        !drain(&mut one, later(40)).is_empty(),
        "it is dialled again"
    );
    one.relay_ready(later(41), 4, &control(1), 1, 41);
    assert_eq!(heard_of(drain(&mut one, later(41))), [], "they know");
}

#[test]
fn looks_at_claims_are_few_at_a_time() {
    let mut one = crawl(Network::Main, quiet(Network::Main));
    let nodes = (1..=50).map(|group| at(&format!("20.{group}.1.1:8333")));
    one.heard(
        start(),
        Source::OurNode,
        nodes.map(|node| hearsay(node, PLAIN | FLAG, start())),
    );
    for second in 0..40 {
        drain(&mut one, later(second));
    }
    assert_eq!(one.counts().dialling, 4);
}

#[test]
fn whoever_has_no_flag_after_all_holds_up_no_look_at_others() {
    let mut one = crawl(Network::Main, quiet(Network::Main));
    let nodes = (1..=50).map(|group| at(&format!("20.{group}.1.1:8333")));
    let told: Vec<_> = nodes.map(|it| hearsay(it, PLAIN | FLAG, start())).collect();
    one.heard(start(), Source::OurNode, told);
    for second in 0..60 {
        for action in drain(&mut one, later(second)) {
            if let Action::Dial { address, .. } = action {
                // An ordinary node: it stays until it has told addresses.
                one.p2p_ready(later(second), second, &address, PLAIN, None);
            }
        }
        let counts = one.counts();
        assert!(counts.feelers <= 16, "{counts:?}");
    }
    assert_eq!(one.counts().feelers, 16);
}

/// One that was told of two hundred who claim the flag.
fn flooded() -> Crawl {
    let mut one = crawl(Network::Main, quiet(Network::Main));
    let claims = (0..200_u8).map(|it| at(&format!("{}.1.1.{it}:8333", 30 + it % 100)));
    let told: Vec<_> = claims
        .map(|it| hearsay(it, PLAIN | FLAG, start()))
        .collect();
    one.heard(start(), Source::OurNode, told);
    one
}

#[test]
fn claims_that_are_refused_at_once_keep_nobody_from_asking_ordinary_nodes() {
    let mut one = flooded();
    let nodes = [at("20.1.1.1:8333"), at("21.1.1.1:8333")];
    let told = nodes.map(|it| hearsay(it, PLAIN, start()));
    one.heard(start(), Source::Operator, told);
    let mut asked = Vec::new();
    let mut looks = 0;
    for second in 0..10 {
        for action in drain(&mut one, later(second)) {
            match action {
                Action::Dial {
                    address,
                    purpose: Purpose::Gossip,
                } => asked.push(address),
                Action::Dial { address, .. } => {
                    looks += 1;
                    one.dial_failed(later(second), &address);
                }
                _ => {}
            }
        }
    }
    asked.sort();
    assert_eq!(asked, nodes);
    assert_eq!(looks, 8, "and the others are looked at meanwhile");
}

#[test]
fn nodes_that_the_operator_named_are_asked_before_a_flood_has_its_turn() {
    let mut one = flooded();
    // Of one group, too: that is the operator's business.
    let named: Vec<Address> = (1..=5).map(|it| at(&format!("20.1.1.{it}:8333"))).collect();
    let told: Vec<_> = named
        .iter()
        .map(|it| hearsay(*it, PLAIN, start()))
        .collect();
    one.heard(start(), Source::Operator, told.clone());
    one.heard(start(), Source::Operator, told);
    let mut dialled = Vec::new();
    for second in 0..10 {
        for action in drain(&mut one, later(second)) {
            if let Action::Dial { address, purpose } = action {
                dialled.push((address, purpose));
            }
        }
    }
    let asks = Purpose::Feeler {
        ask_addresses: true,
    };
    let expected = [Purpose::Gossip, Purpose::Gossip, asks, asks, asks];
    let expected: Vec<_> = named.iter().copied().zip(expected).collect();
    assert_eq!(dialled[..5], expected);
    let again = dialled[5..].iter().filter(|(it, _)| named.contains(it));
    assert_eq!(again.count(), 0, "{dialled:?}");
}

#[test]
fn on_one_machine_all_is_quick() {
    let mut one = crawl(Network::Regtest, CrawlConfig::new(Network::Regtest));
    let node = at("127.0.0.1:18545");
    one.heard(
        start(),
        Source::Operator,
        [hearsay(node, PLAIN | FLAG, start())],
    );
    assert!(!drain(&mut one, start()).is_empty());
    one.dial_failed(start(), &node);
    drain(&mut one, start());
    let again = one.deadline().unwrap();
    assert!(again <= later(3));
}
