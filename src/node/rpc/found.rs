//! What is told of the search for peers and of the connections of Bitcoin's protocol.

use serde_json::{Value, json};

use super::Context;
use super::arguments::Arguments;
use super::calls::Outcome;
use super::error::{Code, RpcError};
use crate::chain::addrbook::Record;
use crate::chain::p2p::Direction;
use crate::node::bitcoin::{FindCounts, P2pPeer, Query, RelayKnown};

/// The networks that addresses are known of, as Bitcoin Core names them, with their numbers in BIP155.
const NETWORKS: [(u8, &str); 5] = [
    (1, "ipv4"),
    (2, "ipv6"),
    (4, "onion"),
    (5, "i2p"),
    (6, "cjdns"),
];

fn network_name(number: u8) -> &'static str {
    let named = NETWORKS.iter().find(|(known, _)| *known == number);
    named.map_or("not_publicly_routable", |(_, name)| name)
}

/// A count that may not be negative.
fn count(arguments: &Arguments, default: usize) -> Result<usize, RpcError> {
    let refuse = || RpcError::new(Code::InvalidParameter, "Address count out of range");
    match arguments.number_or_bool(0)? {
        None => Ok(default),
        Some(count) => usize::try_from(count).map_err(|_| refuse()),
    }
}

impl Context {
    pub(super) async fn get_node_addresses(&self, arguments: &Arguments) -> Outcome {
        let count = count(arguments, 1)?;
        let network = match arguments.optional_text(1)? {
            None => None,
            Some(name) => {
                let known = NETWORKS.iter().find(|(_, known)| *known == name);
                let refuse = || {
                    let name = super::arguments::shorten(name);
                    let message = format!("Network not recognized: {name}");
                    RpcError::new(Code::InvalidParameter, message)
                };
                Some(known.ok_or_else(refuse)?.0)
            }
        };
        let known = self.bitcoin.ask(|reply| Query::NodeAddresses {
            count,
            network,
            reply,
        });
        Ok(known.await?.iter().map(address_json).collect())
    }

    pub(super) async fn get_addrman_info(&self) -> Outcome {
        let counts = self.bitcoin.ask(Query::Counts).await?;
        let of = |[new, claimed, tried, proven]: [usize; 4]| {
            json!({
                "new": new + claimed,
                "tried": tried + proven,
                "total": new + claimed + tried + proven,
                "claimed": claimed,
                "proven": proven,
            })
        };
        let mut all = [0; 4];
        let mut answer = serde_json::Map::new();
        for (number, name) in NETWORKS {
            let found = counts.networks.iter().find(|(known, _)| *known == number);
            let tables = found.map_or([0; 4], |(_, tables)| *tables);
            for (sum, count) in all.iter_mut().zip(tables) {
                *sum += count;
            }
            answer.insert(name.to_owned(), of(tables));
        }
        answer.insert("all_networks".to_owned(), of(all));
        Ok(answer.into())
    }

    pub(super) async fn get_relay_addresses(&self, arguments: &Arguments) -> Outcome {
        let count = count(arguments, 0)?;
        let known = self.bitcoin.ask(Query::Relays).await?;
        let most = if count == 0 { known.len() } else { count };
        Ok(known.iter().take(most).filter_map(relay_json).collect())
    }

    pub(super) async fn get_bitcoin_peer_info(&self) -> Outcome {
        let peers = self.bitcoin.ask(Query::Peers).await?;
        Ok(peers.iter().map(peer_json).collect())
    }
}

/// As Bitcoin Core's `getnodeaddresses` has it.
fn address_json(record: &Record) -> Value {
    let host = &record.address.host;
    json!({
        "time": record.last_seen,
        "services": record.services,
        "address": host.to_ip().map_or_else(|| host.to_string(), |ip| ip.to_string()),
        "port": record.address.port,
        "network": network_name(host.network()),
    })
}

fn relay_json(known: &RelayKnown) -> Option<Value> {
    let record = &known.record;
    let control = record.control()?;
    let host = control.host;
    Some(json!({
        "address": host.to_ip().map_or_else(|| host.to_string(), |ip| ip.to_string()),
        "port": control.port,
        "data_port": record.advert.map(|advert| advert.data_port),
        "network": network_name(host.network()),
        "services": record.services,
        "time": record.last_seen,
        "met": record.met,
        "connected": known.connected,
    }))
}

/// `localaddresses` of `getnetworkinfo`.
pub(super) fn local_addresses(counts: &FindCounts) -> Value {
    let told = counts.ourselves.iter().flat_map(|(ip, bitcoin, control)| {
        let ports = [(*bitcoin, "bitcoin"), (*control, "control")];
        let told = ports.into_iter().filter(|(port, _)| *port != 0);
        told.map(move |(port, protocol)| {
            json!({ "address": ip.to_string(), "port": port, "score": 1, "protocol": protocol })
        })
    });
    told.collect()
}

/// `finding` of `getnetworkinfo`.
pub(super) fn finding(counts: &FindCounts) -> Value {
    let (crawl, intake) = (counts.crawl, counts.book.intake);
    let (inbound, all) = counts.connections;
    json!({
        "active": counts.is_on,
        "relays_found": crawl.relays,
        "relays_other": crawl.other_relays,
        "nodes_listened_to": crawl.gossip,
        "feelers": crawl.feelers,
        "dialling": crawl.dialling,
        "dials": crawl.dials,
        "flags_refuted": counts.book.refuted,
        "addresses_heard": {
            "added": intake.added,
            "known": intake.known,
            "crowded_out": intake.crowded_out,
            "private": intake.private,
            "port": intake.port,
            "unreachable": intake.unreachable,
            "useless": intake.useless,
        },
        "bitcoin_connections": all,
        "bitcoin_connections_in": inbound,
        "evicted": counts.evicted,
        "misbehaved": counts.misbehaved,
        "discouraged": counts.discouraged,
    })
}

/// As Bitcoin Core's `getpeerinfo` has it; what the handshake tells is absent before it is done.
fn peer_json(peer: &P2pPeer) -> Value {
    let (info, report) = (peer.info.as_ref(), &peer.report);
    let refused = report.refused.iter();
    let refused: serde_json::Map<String, Value> = refused
        .map(|(refusal, count)| (refusal.name().to_owned(), json!(count)))
        .collect();
    let network = crate::chain::addrbook::Host::from(peer.remote.ip());
    let mut answer = json!({
        "id": peer.id,
        "addr": peer.remote.to_string(),
        "network": match network.is_public() {
            true => network_name(network.network()),
            false => "not_publicly_routable",
        },
        "conntime": peer.since.as_unix_seconds(),
        "bytessent": report.bytes_sent,
        "bytesrecv": report.bytes_received,
        "messagessent": report.messages_sent,
        "messagesrecv": report.messages_received,
        "pingtime": report.ping.map(|time| time.as_secs_f64()),
        "minping": report.least_ping.map(|time| time.as_secs_f64()),
        "inbound": peer.direction == Direction::Inbound,
        "connection_type": peer.connection_type,
        "established": info.is_some(),
        "bip152_hb_from": report.wants_high_bandwidth,
        "synced_headers": peer.height.map_or(-1, i64::from),
        "misbehavior_score": report.misbehaviour,
        "refused": refused,
        "node": peer.node,
    });
    if let (Some(info), Value::Object(fields)) = (info, &mut answer) {
        let advert = info.advert.map(|advert| {
            json!({
                "version": advert.version,
                "control_port": advert.control_port,
                "data_port": advert.data_port,
            })
        });
        let told = [
            ("version", json!(info.version)),
            ("subver", json!(info.agent)),
            ("services", json!(format!("{:016x}", info.services))),
            ("servicesnames", json!(peer.services)),
            ("relaytxes", json!(info.relay_transactions)),
            ("timeoffset", json!(info.clock_offset_s)),
            ("startingheight", json!(info.start_height)),
            (
                "transport_protocol_type",
                json!(if info.v2 { "v2" } else { "v1" }),
            ),
            ("blocktorrent", json!(advert)),
        ];
        fields.extend(told.map(|(name, value)| (name.to_owned(), value)));
    }
    answer
}
