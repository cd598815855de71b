//! The table of all methods: in which versions they are, what they take and what they cost; and what a call asks for.

use bytes::Bytes;
use serde_json::Value;

use super::super::jsonrpc::{Call, Failure, code};
use super::super::query::{Answer, MAX_HEADERS, Query};
use super::super::script_hash::ScriptHash;
use super::params::{Bound, Param, bind, optional, required};
use super::version::Version;
use crate::merkle::Hash;

/// A method of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the protocol names them")]
pub enum Name {
    BlockHeader,
    BlockHeaders,
    EstimateFee,
    RelayFee,
    HeadersSubscribe,
    Balance,
    History,
    Mempool,
    Unspent,
    Subscribe,
    Unsubscribe,
    OutpointStatus,
    OutpointSubscribe,
    OutpointUnsubscribe,
    Broadcast,
    BroadcastPackage,
    TestAccept,
    Transaction,
    Merkle,
    IdAt,
    FeeHistogram,
    MempoolInfo,
    Recent,
    AddPeer,
    Banner,
    DonationAddress,
    Features,
    Peers,
    Ping,
    Version,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// As it is called.
    pub name: &'static str,
    /// What it is.
    pub kind: Name,
    /// The first version that has it.
    pub since: Version,
    /// The first version that has it no more.
    pub until: Option<Version>,
    /// What it takes.
    pub params: &'static [Param],
    /// What it costs whatever comes of it, in thousandths of ElectrumX's unit (`session.py`, `bump_cost`).
    pub price_milli: u64,
}

const fn row(name: &'static str, kind: Name, price_milli: u64, params: &'static [Param]) -> Method {
    Method {
        name,
        kind,
        since: Version::MIN,
        until: None,
        params,
        price_milli,
    }
}

impl Method {
    const fn since(mut self, version: Version) -> Self {
        self.since = version;
        self
    }

    const fn until(mut self, version: Version) -> Self {
        self.until = Some(version);
        self
    }

    /// Whether this version has it.
    pub fn is_in(&self, version: Version) -> bool {
        self.since <= version && self.until.is_none_or(|until| version < until)
    }
}

const SCRIPT_HASH: &[Param] = &[required("scripthash")];
const SCRIPT: &[Param] = &[required("scriptpubkey")];
const OUTPOINT: &[Param] = &[required("tx_hash"), required("txout_idx")];
const HINTED: &[Param] = &[
    required("tx_hash"),
    required("txout_idx"),
    required("spk_hint"),
];
const RAW: &[Param] = &[required("raw_txs")];
const PING: &[Param] = &[optional("pong_len"), optional("data")];
const V1_7: Version = Version::V1_7;

/// Every method, by name. Prices are ElectrumX's; those that depend on the answer are [`price_of_answer`]'s.
#[rustfmt::skip] // one row each
pub const METHODS: &[Method] = &[
    row("blockchain.block.header", Name::BlockHeader, 250, &[required("height"), optional("cp_height")]),
    row("blockchain.block.headers", Name::BlockHeaders, 0, &[required("start_height"), required("count"), optional("cp_height")]),
    row("blockchain.estimatefee", Name::EstimateFee, 100, &[required("number"), optional("mode")]),
    row("blockchain.headers.subscribe", Name::HeadersSubscribe, 250, &[]),
    row("blockchain.outpoint.get_status", Name::OutpointStatus, 200, HINTED).since(V1_7),
    row("blockchain.outpoint.subscribe", Name::OutpointSubscribe, 200, HINTED).since(V1_7),
    row("blockchain.outpoint.unsubscribe", Name::OutpointUnsubscribe, 100, OUTPOINT).since(V1_7),
    row("blockchain.relayfee", Name::RelayFee, 1_000, &[]).until(Version::V1_6),
    row("blockchain.scripthash.get_balance", Name::Balance, 1_000, SCRIPT_HASH).until(V1_7),
    row("blockchain.scripthash.get_history", Name::History, 100, SCRIPT_HASH).until(V1_7),
    row("blockchain.scripthash.get_mempool", Name::Mempool, 250, SCRIPT_HASH).until(V1_7),
    row("blockchain.scripthash.listunspent", Name::Unspent, 1_000, SCRIPT_HASH).until(V1_7),
    row("blockchain.scripthash.subscribe", Name::Subscribe, 200, SCRIPT_HASH).until(V1_7),
    row("blockchain.scripthash.unsubscribe", Name::Unsubscribe, 100, SCRIPT_HASH).since(Version::V1_4_2).until(V1_7),
    row("blockchain.scriptpubkey.get_balance", Name::Balance, 1_000, SCRIPT).since(V1_7),
    row("blockchain.scriptpubkey.get_history", Name::History, 100, SCRIPT).since(V1_7),
    row("blockchain.scriptpubkey.get_mempool", Name::Mempool, 250, SCRIPT).since(V1_7),
    row("blockchain.scriptpubkey.listunspent", Name::Unspent, 1_000, SCRIPT).since(V1_7),
    row("blockchain.scriptpubkey.subscribe", Name::Subscribe, 200, SCRIPT).since(V1_7),
    row("blockchain.scriptpubkey.unsubscribe", Name::Unsubscribe, 100, SCRIPT).since(V1_7),
    row("blockchain.transaction.broadcast", Name::Broadcast, 250, &[required("raw_tx")]),
    row("blockchain.transaction.broadcast_package", Name::BroadcastPackage, 250, &[required("raw_txs"), optional("verbose")]).since(Version::V1_6),
    row("blockchain.transaction.get", Name::Transaction, 1_000, &[required("tx_hash"), optional("verbose")]),
    row("blockchain.transaction.get_merkle", Name::Merkle, 250, &[required("tx_hash"), required("height")]),
    row("blockchain.transaction.id_from_pos", Name::IdAt, 250, &[required("height"), required("tx_pos"), optional("merkle")]),
    row("blockchain.transaction.testmempoolaccept", Name::TestAccept, 250, RAW).since(V1_7),
    row("mempool.get_fee_histogram", Name::FeeHistogram, 1_000, &[]),
    row("mempool.get_info", Name::MempoolInfo, 1_000, &[]).since(Version::V1_6),
    row("mempool.recent", Name::Recent, 1_000, &[]).since(V1_7),
    row("server.add_peer", Name::AddPeer, 100_000, &[required("features")]),
    row("server.banner", Name::Banner, 500, &[]),
    row("server.donation_address", Name::DonationAddress, 100, &[]),
    row("server.features", Name::Features, 200, &[]),
    row("server.peers.subscribe", Name::Peers, 1_000, &[]),
    row("server.ping", Name::Ping, 100, &[]).until(V1_7),
    row("server.ping", Name::Ping, 100, PING).since(V1_7),
    row("server.version", Name::Version, 500, &[optional("client_name"), optional("protocol_version")]),
];

/// An output: the transaction's id in internal byte order, and the output's number.
pub type Outpoint = (Hash, u32);

/// How the answer to a question is to be written, where the answer alone does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As its kind is.
    Plain,
    /// Of what the mempool asks for only the relay fee.
    RelayFee,
    /// What became of this transaction; the protocol's text has it in a refusal.
    Broadcast(Bytes),
    /// What became of a package, in the protocol's words or, if verbose, in the node's.
    Package {
        /// All that the node said.
        verbose: bool,
    },
}

/// What a call asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A question to the data.
    Ask(Query, Shape),
    /// To be told of new headers; the answer is the tip.
    SubscribeHeaders,
    /// To be told of a script; the answer is its status.
    SubscribeScript(ScriptHash),
    /// Not to be told of it any more.
    UnsubscribeScript(ScriptHash),
    /// To be told of an output.
    SubscribeOutpoint(Outpoint, ScriptHash),
    /// Not to be told of it any more.
    UnsubscribeOutpoint(Outpoint),
    /// To agree on a version: the client's name and what it named.
    Version(String, Value),
    /// A sign of life, with so many digits in return in 1.7.
    Ping(usize),
    /// What the server calls itself.
    Features,
    /// A text for people.
    Banner,
    /// Where thanks go.
    DonationAddress,
    /// Other servers.
    Peers,
    /// Another server names itself.
    AddPeer(Value),
}

/// What a call asks for, and what that costs beforehand, in thousandths.
///
/// # Errors
/// What the protocol says to calls that this version does not have, or that are not sound.
pub fn read(call: &mut Call, version: Version) -> Result<(Action, u64), Failure> {
    let known = |row: &&Method| row.name == call.method && row.is_in(version);
    let Some(method) = METHODS.iter().find(known) else {
        let name: String = call.method.chars().take(60).collect();
        return Err(Failure::new(
            code::NO_METHOD,
            format!("unknown method {name:?}"),
        ));
    };
    let given = std::mem::replace(
        &mut call.params,
        super::super::jsonrpc::Params::Listed(Vec::new()),
    );
    let mut bound = bind(method.params, given, method.kind == Name::Version)?;
    let action = action(method.kind, version, &mut bound)?;
    let price = method.price_milli + extra(&action);
    Ok((action, price))
}

/// What is known before the answer to cost more: headers one by one, proofs, bytes to give to the node.
fn extra(action: &Action) -> u64 {
    let bytes = |raw: &[Bytes]| raw.iter().map(|one| 2 * one.len() as u64 / 5).sum();
    match action {
        Action::Ask(
            Query::Header {
                checkpoint: Some(_),
                ..
            },
            _,
        ) => 1_000,
        Action::Ask(
            Query::Headers {
                count, checkpoint, ..
            },
            _,
        ) => u64::from(*count) * 20 + if checkpoint.is_some() { 1_000 } else { 0 },
        Action::Ask(Query::Broadcast(raw), _) => bytes(std::slice::from_ref(raw)),
        Action::Ask(Query::BroadcastPackage(raw) | Query::TestAccept(raw), _) => bytes(raw),
        _ => 0,
    }
}

/// What an answer costs beyond, in thousandths: what had to be looked at, and what it tells.
pub fn price_of_answer(answer: Option<&Answer>, looked_at: u32) -> u64 {
    let told = match answer {
        Some(Answer::Unspent(items)) => 20 * items.len() as u64,
        Some(Answer::Balance { .. }) => 20 * u64::from(looked_at),
        Some(Answer::Merkle { .. } | Answer::IdAt { .. }) => return u64::from(looked_at) / 10,
        _ => 0,
    };
    told + u64::from(looked_at)
}

/// The height of a checkpoint, if one is named, and that it is not below what it is to prove.
fn checkpoint(bound: &Bound, index: usize, last: u64) -> Result<Option<u32>, Failure> {
    match bound.number_or_zero(index)? {
        0 => Ok(None),
        height if last <= u64::from(height) => Ok(Some(height)),
        height => {
            let message = format!("header height {last} must be <= cp_height {height}");
            Err(Failure::new(code::BAD_REQUEST, message))
        }
    }
}

fn action(kind: Name, version: Version, bound: &mut Bound) -> Result<Action, Failure> {
    let script = |bound: &Bound| match version < Version::V1_7 {
        true => bound.script_hash(0),
        false => bound.script(0),
    };
    let plain = |query| Ok(Action::Ask(query, Shape::Plain));
    match kind {
        Name::BlockHeader | Name::BlockHeaders | Name::EstimateFee => chain(kind, bound),
        Name::RelayFee => Ok(Action::Ask(Query::MempoolInfo, Shape::RelayFee)),
        Name::HeadersSubscribe => Ok(Action::SubscribeHeaders),
        Name::Balance => plain(Query::Balance(script(bound)?)),
        Name::History => plain(Query::History(script(bound)?)),
        Name::Mempool => plain(Query::Mempool(script(bound)?)),
        Name::Unspent => plain(Query::Unspent(script(bound)?)),
        Name::Subscribe => Ok(Action::SubscribeScript(script(bound)?)),
        Name::Unsubscribe => Ok(Action::UnsubscribeScript(script(bound)?)),
        Name::OutpointStatus | Name::OutpointSubscribe | Name::OutpointUnsubscribe => {
            outpoint(kind, bound)
        }
        Name::Broadcast
        | Name::BroadcastPackage
        | Name::TestAccept
        | Name::Transaction
        | Name::Merkle
        | Name::IdAt => transaction(kind, bound),
        Name::FeeHistogram => plain(Query::FeeHistogram),
        Name::MempoolInfo => plain(Query::MempoolInfo),
        Name::Recent => plain(Query::Recent),
        Name::AddPeer => Ok(Action::AddPeer(bound.take(0))),
        Name::Banner => Ok(Action::Banner),
        Name::DonationAddress => Ok(Action::DonationAddress),
        Name::Features => Ok(Action::Features),
        Name::Peers => Ok(Action::Peers),
        Name::Ping if version < Version::V1_7 => Ok(Action::Ping(0)),
        Name::Ping => {
            bound.digits(1)?;
            Ok(Action::Ping(bound.number_or_zero(0)? as usize))
        }
        Name::Version => {
            let name = bound.take(0);
            let name = name.as_str().unwrap_or_default();
            Ok(Action::Version(name.to_owned(), bound.take(1)))
        }
    }
}

fn chain(kind: Name, bound: &Bound) -> Result<Action, Failure> {
    let query = match kind {
        Name::BlockHeader => {
            let height = bound.number(0)?;
            let checkpoint = checkpoint(bound, 1, height.into())?;
            Query::Header { height, checkpoint }
        }
        Name::BlockHeaders => {
            let start = bound.number_or_more(0)?;
            let count = bound.number_or_more(1)?.min(MAX_HEADERS);
            // It is to cover the last header that there is, which may be earlier than the last one asked for (ElectrumX).
            let checkpoint = Some(bound.number_or_more(2)?).filter(|height| *height > 0);
            Query::Headers {
                start,
                count,
                checkpoint,
            }
        }
        _ => Query::EstimateFee {
            blocks: bound.number(0)?,
            mode: bound.mode(1)?,
        },
    };
    Ok(Action::Ask(query, Shape::Plain))
}

fn outpoint(kind: Name, bound: &Bound) -> Result<Action, Failure> {
    let (txid, index) = (bound.txid(0)?, bound.number(1)?);
    Ok(match kind {
        Name::OutpointStatus => {
            let script = bound.script(2)?;
            Action::Ask(
                Query::Outpoint {
                    txid,
                    index,
                    script,
                },
                Shape::Plain,
            )
        }
        Name::OutpointSubscribe => Action::SubscribeOutpoint((txid, index), bound.script(2)?),
        _ => Action::UnsubscribeOutpoint((txid, index)),
    })
}

fn transaction(kind: Name, bound: &Bound) -> Result<Action, Failure> {
    let (query, shape) = match kind {
        Name::Broadcast => {
            let raw = bound.bytes(0)?;
            (Query::Broadcast(raw.clone()), Shape::Broadcast(raw))
        }
        Name::BroadcastPackage => {
            let verbose = bound.boolean(1)?;
            (
                Query::BroadcastPackage(bound.transactions(0)?),
                Shape::Package { verbose },
            )
        }
        Name::TestAccept => (Query::TestAccept(bound.transactions(0)?), Shape::Plain),
        Name::Transaction => {
            let txid = bound.txid(0)?;
            match bound.boolean(1)? {
                true => (Query::VerboseTransaction(txid), Shape::Plain),
                false => (Query::Transaction(txid), Shape::Plain),
            }
        }
        Name::Merkle => {
            let height = Some(bound.number(1)?);
            (
                Query::Merkle {
                    txid: bound.txid(0)?,
                    height,
                },
                Shape::Plain,
            )
        }
        _ => {
            let (height, position) = (bound.number(0)?, bound.number(1)?);
            let merkle = bound.boolean(2)?;
            (
                Query::IdAt {
                    height,
                    position,
                    merkle,
                },
                Shape::Plain,
            )
        }
    };
    Ok(Action::Ask(query, shape))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::electrum::jsonrpc::{Dialect, Params};
    use crate::electrum::query::FeeMode;

    fn given(method: &str, params: Value, version: Version) -> Result<Action, Failure> {
        let params = match params {
            Value::Object(named) => Params::Named(named),
            Value::Array(listed) => Params::Listed(listed),
            _ => unreachable!("params"),
        };
        let mut call = Call {
            dialect: Dialect::Two,
            id: Some(json!(1)),
            method: method.to_owned(),
            params,
        };
        read(&mut call, version).map(|(action, _)| action)
    }

    const HASH: &str = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";

    fn asked(method: &str, params: Value) -> Query {
        match given(method, params, Version::V1_6) {
            Ok(Action::Ask(query, _)) => query,
            other => panic!("{method}: {other:?}"),
        }
    }

    fn refused(method: &str, params: Value) -> i64 {
        let version = match method.contains("scriptpubkey") || method.contains("outpoint") {
            true => Version::V1_7,
            false => Version::V1_6,
        };
        given(method, params, version).unwrap_err().code
    }

    #[test]
    fn by_place_or_by_name_with_defaults() {
        let header = Query::Header {
            height: 5,
            checkpoint: Some(8),
        };
        assert_eq!(asked("blockchain.block.header", json!([5, 8])), header);
        assert_eq!(
            asked(
                "blockchain.block.header",
                json!({"cp_height": 8, "height": 5})
            ),
            header
        );
        assert_eq!(asked("blockchain.block.header", json!(["5", 8.0])), header);
        let header = Query::Header {
            height: 5,
            checkpoint: None,
        };
        assert_eq!(asked("blockchain.block.header", json!([5])), header);
        assert_eq!(asked("blockchain.block.header", json!([5, 0])), header);
        let headers = Query::Headers {
            start: 0,
            count: MAX_HEADERS,
            checkpoint: None,
        };
        assert_eq!(
            asked("blockchain.block.headers", json!([0, 5_000])),
            headers
        );
        let headers = Query::Headers {
            start: u32::MAX,
            count: MAX_HEADERS,
            checkpoint: Some(8),
        };
        assert_eq!(
            asked(
                "blockchain.block.headers",
                json!([1u64 << 40, 1u64 << 50, 8])
            ),
            headers
        );
        let fee = Query::EstimateFee {
            blocks: 2,
            mode: Some(FeeMode::Economical),
        };
        assert_eq!(
            asked(
                "blockchain.estimatefee",
                json!({"number": 2, "mode": "economical"})
            ),
            fee
        );
        let script = Query::Balance(HASH.parse().unwrap());
        assert_eq!(
            asked("blockchain.scripthash.get_balance", json!([HASH])),
            script
        );
        let bytes = "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac";
        let by_script = given("blockchain.scriptpubkey.get_balance", json!([bytes]), V1_7);
        assert_eq!(by_script, Ok(Action::Ask(script, Shape::Plain)));
    }

    #[test]
    fn what_is_not_sound_is_refused_with_the_right_code() {
        for (method, params, expected) in [
            ("no.such", json!([]), code::NO_METHOD),
            ("mempool.recent", json!([]), code::NO_METHOD),
            ("blockchain.relayfee", json!([]), code::NO_METHOD),
            ("server.banner", json!([1]), code::INVALID_PARAMS),
            ("blockchain.block.header", json!([]), code::INVALID_PARAMS),
            (
                "blockchain.block.header",
                json!([1, 2, 3]),
                code::INVALID_PARAMS,
            ),
            (
                "blockchain.block.header",
                json!({"height": 1, "x": 2}),
                code::INVALID_PARAMS,
            ),
            ("blockchain.block.header", json!([-1]), code::BAD_REQUEST),
            ("blockchain.block.header", json!([1.5]), code::BAD_REQUEST),
            ("blockchain.block.header", json!([1e300]), code::BAD_REQUEST),
            (
                "blockchain.block.header",
                json!([4_294_967_296_u64]),
                code::BAD_REQUEST,
            ),
            ("blockchain.block.header", json!([null]), code::BAD_REQUEST),
            ("blockchain.block.header", json!([true]), code::BAD_REQUEST),
            ("blockchain.block.header", json!([""]), code::BAD_REQUEST),
            ("blockchain.block.header", json!([9, 8]), code::BAD_REQUEST),
            (
                "blockchain.block.headers",
                json!([0, -1, 8]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.scripthash.subscribe",
                json!([&HASH[1..]]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.scripthash.subscribe",
                json!([{}]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.scriptpubkey.subscribe",
                json!(["0"]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.outpoint.subscribe",
                json!([HASH, 0]),
                code::INVALID_PARAMS,
            ),
            (
                "blockchain.outpoint.subscribe",
                json!([HASH, 0, null]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.transaction.get",
                json!([HASH, "yes"]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.transaction.broadcast",
                json!(["xyz"]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.transaction.broadcast_package",
                json!(["00"]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.transaction.broadcast_package",
                json!([[]]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.transaction.broadcast_package",
                json!([vec!["00"; 26]]),
                code::BAD_REQUEST,
            ),
            (
                "blockchain.estimatefee",
                json!([2, "careful"]),
                code::BAD_REQUEST,
            ),
        ] {
            assert_eq!(
                refused(method, params.clone()),
                expected,
                "{method} {params}"
            );
        }
    }

    #[test]
    fn further_arguments_of_the_version_are_ignored() {
        let expected = Ok(Action::Version("x".into(), json!(["1.4", "1.6"])));
        let listed = json!(["x", ["1.4", "1.6"], "more", 9999.9]);
        assert_eq!(given("server.version", listed, Version::MIN), expected);
        let named = json!({"client_name": "x", "protocol_version": ["1.4", "1.6"], "dd": {}});
        assert_eq!(given("server.version", named, Version::MIN), expected);
    }

    #[test]
    fn versions_have_their_methods() {
        let names = |version: &str| {
            let version = version.parse().unwrap();
            METHODS.iter().filter(|row| row.is_in(version)).count()
        };
        // Counted in the texts: 1.4 without and with unsubscribing, 1.6, 1.7.
        let counts = ["1.4", "1.4.1", "1.4.2", "1.4.3", "1.6", "1.7"].map(names);
        assert_eq!(counts, [22, 22, 23, 23, 24, 29]);
        for (index, row) in METHODS.iter().enumerate() {
            let later = &METHODS[index + 1..];
            let doubled = |other: &Method| {
                other.name == row.name && other.is_in(row.since) && row.is_in(other.since)
            };
            assert!(!later.iter().any(doubled), "{}", row.name);
        }
    }
}
