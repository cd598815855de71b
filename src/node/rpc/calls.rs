//! What each method does.

use std::collections::BTreeMap;

use bytes::Bytes;
use hex::DisplayHex;
use serde_json::{Value, json};

use super::Context;
use super::arguments::Arguments;
use super::blocks::{self, Detail, hash_text};
use super::electrum;
use super::error::{Code, RpcError};
use super::found;
use super::methods::{self, Kind};
use super::private;
use super::request::Parameters;
use crate::chain::HeaderRefusal;
use crate::config::{PeerAddress, PrivatePeer, Role};
use crate::net::dial::KeepError;
use crate::node::bitcoin::{CATCH_UP_ADVICE, Query};
use crate::node::engine::{Command, Hash, PeerName, PeerView};
use crate::node::headers::ChainView;
use crate::node::store::Put;
use crate::relay::{self, Initiator, JobSnapshot, Source, SubmitRefusal};
use crate::time::Time;

/// How far below the tip the newest block that is kept is looked for: as far as blocks are served (BIP159).
const SEARCHED_BLOCKS: u32 = 288;

pub(super) type Outcome = Result<Value, RpcError>;

impl Context {
    /// Calls a method by its name.
    pub(super) async fn call(&self, method: &str, parameters: Parameters) -> Outcome {
        let method = methods::find(method)
            .ok_or_else(|| RpcError::new(Code::MethodNotFound, "Method not found"))?;
        let arguments = Arguments::new(method, parameters)?;
        match method.kind {
            Kind::GetBestBlockHash => {
                let chain = self.engine.ask(Command::Chain).await?;
                Ok(json!(hash_text(&chain.hash)))
            }
            Kind::GetBlock => self.get_block(&arguments).await,
            Kind::GetBlockchainInfo => self.get_blockchain_info().await,
            Kind::GetBlockCount => Ok(json!(self.engine.ask(Command::Chain).await?.height)),
            Kind::GetBlockHash => self.get_block_hash(&arguments).await,
            Kind::GetBlockHeader => self.get_block_header(&arguments).await,
            Kind::GetJobInfo => self.get_job_info().await,
            Kind::GetMempoolInfo => self.get_mempool_info().await,
            Kind::SendRawTransaction => self.send_raw_transaction(&arguments).await,
            Kind::SubmitBlock => self.submit_block(&arguments).await,
            Kind::SubmitHeader => self.submit_header(&arguments).await,
            Kind::AddNode => self.add_node(&arguments),
            Kind::DisconnectNode => self.disconnect_node(&arguments).await,
            Kind::GetNetworkInfo => self.get_network_info().await,
            Kind::GetKey => private::key(self),
            Kind::GetPeerInfo => self.get_peer_info().await,
            Kind::GetNodeAddresses => self.get_node_addresses(&arguments).await,
            Kind::GetAddrmanInfo => self.get_addrman_info().await,
            Kind::GetRelayAddresses => self.get_relay_addresses(&arguments).await,
            Kind::GetBitcoinPeerInfo => self.get_bitcoin_peer_info().await,
            Kind::GetElectrumInfo => electrum::info(self).await,
            Kind::GetElectrumSessions => electrum::sessions(self),
            Kind::GetElectrumGroups => electrum::groups(self, &arguments),
            Kind::DisconnectElectrum => electrum::disconnect(self, &arguments),
            Kind::ElectrumLog => electrum::log(self, &arguments),
            Kind::ElectrumQuery => electrum::query(self, &arguments).await,
            Kind::SetElectrumBanner => electrum::set_banner(self, &arguments),
            Kind::Help => help(&arguments),
            Kind::Stop => {
                self.stop.stop();
                Ok(json!("blocktorrent stopping"))
            }
            Kind::Uptime => Ok(json!(self.started.elapsed().as_secs())),
        }
    }

    async fn get_block(&self, arguments: &Arguments) -> Outcome {
        let hash = arguments.hash(0)?;
        let verbosity = arguments.number_or_bool(1)?.unwrap_or(1);
        let place = self
            .engine
            .ask(|reply| Command::Header { hash, reply })
            .await?;
        let Some(bytes) = self.find_block(hash).await? else {
            return Err(match place {
                Some(_) => RpcError::new(Code::Misc, "Block not available (not kept here)"),
                None => RpcError::new(Code::InvalidAddressOrKey, "Block not found"),
            });
        };
        let detail = match verbosity {
            ..=0 => return Ok(json!(bytes.to_lower_hex_string())),
            1 => Detail::Txids,
            _ => Detail::Transactions,
        };
        blocks::block_json(self.network, &bytes, place.as_ref(), detail)
    }

    /// A block that the disk keeps, or that the engine holds and the disk has not got yet.
    async fn find_block(&self, hash: Hash) -> Result<Option<Bytes>, RpcError> {
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || store.get(&hash)).await;
        match read {
            Ok(Ok(Some(bytes))) => Ok(Some(bytes.into())),
            Ok(Ok(None)) => Ok(self
                .engine
                .ask(|reply| Command::Block { hash, reply })
                .await?),
            Ok(Err(error)) => {
                let message = format!("Can't read block from disk: {error}");
                Err(RpcError::new(Code::Misc, message))
            }
            Err(_) => Err(RpcError::new(Code::InternalError, "the node is stopping")),
        }
    }

    async fn get_block_hash(&self, arguments: &Arguments) -> Outcome {
        let refuse = || RpcError::new(Code::InvalidParameter, "Block height out of range");
        let height = arguments.number_or_bool(0)?.ok_or_else(refuse)?;
        let height = u32::try_from(height).map_err(|_| refuse())?;
        let hash = self
            .engine
            .ask(|reply| Command::HashAt { height, reply })
            .await?;
        Ok(json!(hash_text(&hash.ok_or_else(refuse)?)))
    }

    async fn get_block_header(&self, arguments: &Arguments) -> Outcome {
        let hash = arguments.hash(0)?;
        let verbose = arguments.flag(1)?.unwrap_or(true);
        let place = self
            .engine
            .ask(|reply| Command::Header { hash, reply })
            .await?;
        let place =
            place.ok_or_else(|| RpcError::new(Code::InvalidAddressOrKey, "Block not found"))?;
        Ok(match verbose {
            true => blocks::header_json(&place.header, Some(&place)).into(),
            false => json!(bitcoin::consensus::serialize(&place.header).to_lower_hex_string()),
        })
    }

    /// Height of the newest block of the active chain that is kept, among the last [`SEARCHED_BLOCKS`].
    async fn newest_kept(&self, chain: &ChainView) -> Result<Option<u32>, RpcError> {
        let lowest = chain.height.saturating_sub(SEARCHED_BLOCKS);
        if self.store.is_empty() {
            return Ok(None);
        }
        for height in (lowest.max(chain.start_height)..=chain.height).rev() {
            let hash = self
                .engine
                .ask(|reply| Command::HashAt { height, reply })
                .await?;
            if hash.is_some_and(|hash| self.store.contains(&hash)) {
                return Ok(Some(height));
            }
        }
        Ok(None)
    }

    async fn get_blockchain_info(&self) -> Outcome {
        let chain = self.engine.ask(Command::Chain).await?;
        let blocks = self.newest_kept(&chain).await?;
        let target = bitcoin::Target::from_compact(chain.bits);
        Ok(json!({
            "chain": self.network.name(),
            "blocks": blocks.unwrap_or(chain.start_height),
            "headers": chain.height,
            "bestblockhash": hash_text(&chain.hash),
            "bits": format!("{:08x}", chain.bits.to_consensus()),
            "target": target.to_be_bytes().to_lower_hex_string(),
            "difficulty": target.difficulty_float(),
            // A trusted start need not tell its time.
            "time": (chain.time != 0).then_some(chain.time),
            "mediantime": (chain.median_time != 0).then_some(chain.median_time),
            "chainwork": chain.work.to_be_bytes().to_lower_hex_string(),
            "startheight": chain.start_height,
            "blocks_kept": self.store.len(),
            "size_on_disk": self.store.bytes(),
            "pruned": true,
            "bitcoind": *self.bitcoin.nodes(),
            "warnings": warnings(&chain),
        }))
    }

    async fn get_mempool_info(&self) -> Outcome {
        let mempool = self.engine.ask(Command::Counters).await?.mempool;
        Ok(json!({
            "loaded": true,
            "size": mempool.transactions,
            "bytes": mempool.bytes,
            "maxmempool": mempool.max_bytes,
        }))
    }

    async fn send_raw_transaction(&self, arguments: &Arguments) -> Outcome {
        let refuse =
            |why: &str| RpcError::new(Code::Deserialization, format!("TX decode failed. {why}."));
        let transaction = hex::decode_to_vec(arguments.text(0)?)
            .map_err(|_| refuse("Give a serialized transaction in hex"))?
            .into();
        let txid = self
            .engine
            .ask(|reply| Command::AddTransaction { transaction, reply })
            .await?
            .map_err(refuse)?;
        Ok(json!(hash_text(&txid)))
    }

    async fn submit_block(&self, arguments: &Arguments) -> Outcome {
        let refuse = || RpcError::new(Code::Deserialization, "Block decode failed");
        let block: Bytes = hex::decode_to_vec(arguments.text(0)?)
            .map_err(|_| refuse())?
            .into();
        let bytes = block.clone();
        let submitted = self
            .engine
            .ask(|reply| Command::SubmitBlock { block, reply })
            .await?;
        let hash = match submitted {
            Ok(hash) => hash,
            Err(SubmitRefusal::Malformed(_)) => return Err(refuse()),
            Err(SubmitRefusal::Header(refusal)) => {
                if refusal == relay::HeaderRefusal::UnknownParent {
                    let tip = self.engine.ask(Command::Chain).await?.height;
                    tracing::warn!(
                        tip,
                        "a submitted block's parent is not on the header chain; submit the headers between, or see --trusted-start"
                    );
                }
                return Ok(json!(header_word(refusal)));
            }
            Err(other) => return Ok(json!(other.to_string())),
        };
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || store.put(&hash, &bytes)).await;
        match kept {
            Ok(Ok(Put::Stored | Put::Known)) => Ok(Value::Null),
            Ok(Ok(Put::TooLarge)) => Err(RpcError::new(
                Code::Misc,
                "The block is relayed, but larger than store-mb and not kept",
            )),
            Ok(Err(error)) => Err(RpcError::new(
                Code::Misc,
                format!("The block is relayed, but not kept: {error}"),
            )),
            Err(_) => Err(RpcError::new(Code::InternalError, "the node is stopping")),
        }
    }

    async fn submit_header(&self, arguments: &Arguments) -> Outcome {
        let header: [u8; 80] = hex::decode_to_array(arguments.text(0)?)
            .map_err(|_| RpcError::new(Code::Deserialization, "Block header decode failed"))?;
        let judged = self
            .engine
            .ask(|reply| Command::SubmitHeader { header, reply })
            .await?;
        match judged {
            Ok(_) => Ok(Value::Null),
            Err(HeaderRefusal::UnknownParent) => {
                let header: bitcoin::block::Header =
                    bitcoin::consensus::deserialize(&header).expect("any 80 bytes are a header");
                let parent = header.prev_blockhash;
                let message = format!("Must submit previous header ({parent}) first");
                Err(RpcError::new(Code::Verify, message))
            }
            Err(refusal) => Err(RpcError::new(Code::Verify, refusal.reason())),
        }
    }

    fn add_node(&self, arguments: &Arguments) -> Outcome {
        let text = arguments.text(0)?;
        let senseless = |error: crate::config::ValueError| {
            RpcError::new(Code::InvalidParameter, error.to_string())
        };
        let private = match text.contains('@') {
            true => Some(text.parse::<PrivatePeer>().map_err(senseless)?),
            false => None,
        };
        let target = match &private {
            Some(peer) => peer.to_string(),
            None => {
                let peer: PeerAddress = text.parse().map_err(senseless)?;
                peer.with_port(self.network.control_port())
            }
        };
        match arguments.text(1)? {
            "add" => {
                let kept = match private {
                    Some(peer) => private::hub(self)?.keep_connected(peer),
                    None => self.hub.keep_connected(&target),
                };
                kept.map(|()| Value::Null).map_err(not_kept)
            }
            "remove" if self.hub.forget(&target) => Ok(Value::Null),
            "remove" => Err(RpcError::new(
                Code::NodeNotAdded,
                "Error: Node could not be removed. It has not been added previously.",
            )),
            "onetry" if private.is_some() => Err(RpcError::new(
                Code::InvalidParameter,
                "A private peer is kept connected: use add, and remove",
            )),
            "onetry" => {
                self.hub.try_once(&target);
                Ok(Value::Null)
            }
            other => Err(RpcError::new(
                Code::InvalidParameter,
                format!(
                    "command is '{}'; use add, remove or onetry",
                    super::arguments::shorten(other)
                ),
            )),
        }
    }

    async fn disconnect_node(&self, arguments: &Arguments) -> Outcome {
        let address = arguments.optional_text(0)?.filter(|text| !text.is_empty());
        let number = match arguments.value(1) {
            Some(Value::Bool(_)) | None => None,
            Some(_) => arguments.number_or_bool(1)?,
        };
        let unknown = || RpcError::new(Code::NodeNotConnected, "Node not found in connected nodes");
        let peer = match (address, number) {
            (Some(address), None) => PeerName::Address(address.parse().map_err(|_| unknown())?),
            (None, Some(number)) => PeerName::Number(u64::try_from(number).map_err(|_| unknown())?),
            _ => {
                return Err(RpcError::new(
                    Code::InvalidParams,
                    "Only one of address and nodeid should be provided.",
                ));
            }
        };
        let was_there = self
            .engine
            .ask(|reply| Command::Disconnect { peer, reply })
            .await?;
        let was_there = match peer {
            PeerName::Address(address) if !was_there => {
                let bitcoin = &self.bitcoin;
                bitcoin
                    .ask(|reply| Query::Disconnect(address, reply))
                    .await?
            }
            _ => was_there,
        };
        match was_there {
            true => Ok(Value::Null),
            false => Err(unknown()),
        }
    }

    async fn get_network_info(&self) -> Outcome {
        let peers = self.engine.ask(Command::Peers).await?;
        let counters = self.engine.ask(Command::Counters).await?;
        let chain = self.engine.ask(Command::Chain).await?;
        let find = self.bitcoin.ask(Query::Counts).await?;
        let established = peers.iter().filter(|peer| peer.relay.established);
        let inbound = established
            .clone()
            .filter(|peer| peer.relay.initiator == Initiator::Inbound)
            .count();
        let connections = established.count();
        let (engine, udp, hub) = (counters.engine, counters.udp, self.hub.stats());
        let refused: serde_json::Map<String, Value> = engine
            .refused
            .iter()
            .map(|(reason, count)| ((*reason).to_owned(), json!(count)))
            .collect();
        Ok(json!({
            "version": version_number(),
            "subversion": self.agent,
            "protocolversion": 1,
            "networkactive": true,
            "connections": connections,
            "connections_in": inbound,
            "connections_out": connections - inbound,
            "localaddresses": found::local_addresses(&find),
            "control": self.control.to_string(),
            "data": self.data.to_string(),
            "addednodes": self.hub.kept(),
            "addednode_failures": self.hub.failures().into_iter().collect::<BTreeMap<_, _>>(),
            "bytesrecv": engine.bytes_in,
            "bytessent": engine.bytes_out,
            "datagramsrecv": engine.datagrams_in,
            "datagramssent": engine.datagrams_out,
            "requests": engine.requests,
            "refused": refused,
            "finding": found::finding(&find),
            "udp": {
                "receive_calls": udp.receive_calls,
                "receive_runs": udp.runs_in,
                "receive_errors": udp.receive_errors,
                "send_calls": udp.send_calls,
                "send_blocked": udp.send_blocked,
                "send_errors": udp.too_large + udp.refused + udp.no_buffers + udp.unreachable + udp.other_errors,
                "emulated_drops": udp.emulated_drops,
            },
            "p2p": self.p2p_json(),
            "private": private::totals(self, counters.pretended),
            "refused_connections": hub.refused_total + hub.refused_per_address,
            "warnings": warnings(&chain),
        }))
    }

    /// The connections of Bitcoin's own protocol.
    fn p2p_json(&self) -> Value {
        let tally = self.bitcoin.tally();
        let refused = tally.refused();
        let refused: serde_json::Map<String, Value> = refused
            .map(|(refusal, times)| (refusal.name().to_owned(), json!(times)))
            .collect();
        json!({
            "connections": tally.connections(),
            "refused": refused,
            "refused_headers": tally.refused_headers(),
            "refused_connections": self.bitcoin.refused_connections(),
        })
    }

    async fn get_peer_info(&self) -> Outcome {
        let peers = self.engine.ask(Command::Peers).await?;
        let chosen = self.bitcoin.ask(Query::Counts).await?.chosen;
        let is_chosen = |peer: &PeerView| chosen.contains(&peer.relay.session.as_number());
        let peers = peers.iter();
        Ok(peers.map(|peer| peer_json(peer, is_chosen(peer))).collect())
    }

    async fn get_job_info(&self) -> Outcome {
        let jobs = self.engine.ask(Command::Jobs).await?;
        let peers = self.engine.ask(Command::Peers).await?;
        Ok(jobs.iter().map(|job| job_json(job, &peers)).collect())
    }
}

fn not_kept(error: KeepError) -> RpcError {
    match error {
        KeepError::Already(_) => RpcError::new(Code::NodeAlreadyAdded, "Error: Node already added"),
        KeepError::TooMany => RpcError::new(Code::NodeCapacityReached, error.to_string()),
        error => RpcError::new(Code::Misc, error.to_string()),
    }
}

fn help(arguments: &Arguments) -> Outcome {
    let Some(name) = arguments.optional_text(0)? else {
        return Ok(json!(methods::overview()));
    };
    match methods::find(name) {
        Some(method) => Ok(json!(method.usage())),
        None => {
            let name = super::arguments::shorten(name);
            let message = format!("help: unknown command: {name}");
            Err(RpcError::new(Code::MethodNotFound, message))
        }
    }
}

/// The version as Bitcoin Core counts: 10,000 a major, 100 a minor.
fn version_number() -> u32 {
    env!("CARGO_PKG_VERSION")
        .split('.')
        .filter_map(|part| part.parse::<u32>().ok())
        .fold(0, |number, part| number * 100 + part)
}

/// The word of BIP22, or Bitcoin Core's, for a header that is not accepted.
fn header_word(refusal: relay::HeaderRefusal) -> &'static str {
    match refusal {
        relay::HeaderRefusal::UnknownParent => "prev-blk-not-found",
        relay::HeaderRefusal::Invalid(rule) => rule,
        relay::HeaderRefusal::TooOld => "stale-prevblk",
        relay::HeaderRefusal::TooEarly => "time-too-new",
    }
}

fn microseconds(time: Option<Time>) -> Value {
    json!(time.map(|time| time.as_nanos() / 1_000))
}

fn peer_json(view: &PeerView, is_chosen: bool) -> Value {
    let peer = &view.relay;
    let network = match view.address.is_ipv4() {
        true => "ipv4",
        false => "ipv6",
    };
    let inbound = peer.initiator == Initiator::Inbound;
    json!({
        "id": peer.session.as_number(),
        "addr": view.address.to_string(),
        "network": network,
        "bytessent": peer.bytes_out,
        "bytesrecv": peer.bytes_in,
        "conntime": peer.connected.as_unix_seconds(),
        "pingtime": peer.round_trip.map(|time| time.as_secs_f64()),
        "subver": peer.agent,
        "inbound": inbound,
        "connection_type": match (inbound, is_chosen) {
            _ if view.key.is_some() => "private",
            (true, _) => "inbound",
            (false, true) => "outbound-full-relay",
            (false, false) => "manual",
        },
        "established": peer.established,
        "transport": match (peer.udp, view.key) {
            (true, None) => "udp",
            (false, None) => "tcp",
            (true, Some(_)) => "quic",
            (false, Some(_)) => "quic-stream",
        },
        "key": view.key.map(|key| key.to_string()),
        "probing": peer.probing,
        "datagramssent": peer.datagrams_out,
        "datagramsrecv": peer.datagrams_in,
        "datagramslost": peer.datagrams_lost,
        "rate_bytes_per_s": peer.rate_bytes_per_s,
        "max_datagram": peer.max_datagram,
        "push_level": peer.push_level,
        "role": peer.role.map(role_name),
        "preference": peer.preference,
        "eager": peer.eager,
        "score": peer.score,
    })
}

/// The name of a role that a peer claims, as `--role` takes it; a number that has none stays one.
fn role_name(code: u8) -> Value {
    Role::from_code(code).map_or_else(|| json!(code), |role| json!(role.as_str()))
}

fn job_json(job: &JobSnapshot, peers: &[PeerView]) -> Value {
    let sources: Vec<Value> = job
        .sources
        .iter()
        .map(|(source, chunks)| {
            let (kind, session) = match source {
                Source::Local => ("local", None),
                Source::Mempool(session) => ("mempool", Some(session)),
                Source::Peer(session) => ("peer", Some(session)),
            };
            let peer = peers
                .iter()
                .find(|peer| Some(&peer.relay.session) == session);
            json!({
                "from": kind,
                "id": session.map(|session| session.as_number()),
                "addr": peer.map(|peer| peer.address.to_string()),
                "chunks": chunks,
            })
        })
        .collect();
    json!({
        "hash": hash_text(&job.block),
        "height": job.height,
        "size": job.bytes,
        "nTx": job.transactions,
        "verified_transactions": job.verified_transactions,
        "chunks": job.chunks,
        "verified_chunks": job.verified_chunks,
        "chunks_forwarded_before_complete": job.chunks_forwarded_before_complete,
        "complete": job.complete,
        "opened_us": microseconds(Some(job.opened)),
        "first_chunk_us": microseconds(job.first_chunk),
        "completed_us": microseconds(job.completed),
        "requests": job.requests,
        "sources": sources,
    })
}

/// What an operator should know, a sentence each.
fn warnings(chain: &ChainView) -> Vec<String> {
    let behind = chain.is_behind.then(|| {
        format!("Peers relay blocks on headers that are not known here; if this stays, {CATCH_UP_ADVICE}")
    });
    behind.into_iter().collect()
}
