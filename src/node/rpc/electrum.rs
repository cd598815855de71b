//! What is told and asked of the Electrum server.

use std::cmp::Reverse;

use bitcoin::Address;
use bitcoin::address::NetworkUnchecked;
use serde_json::{Value, json};

use super::Context;
use super::arguments::{Arguments, shorten};
use super::blocks::hash_text;
use super::calls::Outcome;
use super::error::{Code, RpcError};
use crate::chain::Network;
use crate::electrum::query::{Answer, HistoryItem, Place, Refusal};
use crate::electrum::script_hash::ScriptHash;
use crate::electrum::server::Counts;
use crate::electrum::subscriptions::SessionId;
use crate::node::electrum::ElectrumHandle;

/// Networks that are listed unless more are asked for.
const GROUPS: usize = 100;
/// Transactions of a history that are listed unless more are asked for.
const ROWS: usize = 10;

/// The server, if there is one.
fn handle(context: &Context) -> Result<&ElectrumHandle, RpcError> {
    let message = "No Electrum server here: set electrum-listen, as in electrum-listen = [\"tcp://127.0.0.1:50001\"], and restart";
    let handle = context.electrum.as_ref();
    handle.ok_or_else(|| RpcError::new(Code::Misc, message))
}

/// `getelectruminfo`.
pub(super) async fn info(context: &Context) -> Outcome {
    let handle = handle(context)?;
    let state = handle.state().await;
    let counts = handle.admin.counts();
    let costs = handle.admin.sessions().into_iter();
    let highest = costs.map(|session| session.cost_milli).max();
    let options = handle.admin.options();
    let said = handle.admin.info();
    let listen: Vec<String> = handle.addresses.iter().map(ToString::to_string).collect();
    let mut answer = json!({
        "state": state.word,
        "height": state.tip.map(|(height, _)| height),
        "bestblockhash": state.tip.map(|(_, hash)| hash_text(&hash)),
        "size_on_disk": state.disk_bytes,
        "building": state.building,
        "mempool": state.unconfirmed,
        "listen": listen,
        "hosts": said.hosts.keys().collect::<Vec<_>>(),
        "peers": said.peers.iter().map(|peer| &peer.host).collect::<Vec<_>>(),
        "cost": {
            "soft": units(options.cost.soft_milli),
            "hard": units(options.cost.hard_milli),
            "highest": units(highest.unwrap_or(0)),
        },
        "max_sessions": options.max_sessions,
        "max_subscriptions": options.max_subscriptions_total,
    });
    if let (Value::Object(answer), Value::Object(counted)) = (&mut answer, counted(&counts)) {
        answer.extend(counted);
    }
    Ok(answer)
}

fn counted(counts: &Counts) -> Value {
    json!({
        "sessions": counts.sessions,
        "groups": counts.groups,
        "subscriptions": counts.subscriptions,
        "accepted": counts.accepted,
        "requests": counts.calls,
        "notifications": counts.notices,
        "bytesrecv": counts.bytes_in,
        "bytessent": counts.bytes_out,
        "refused": {
            "full": counts.refused_full,
            "group": counts.refused_group,
            "cost": counts.refused_cost,
        },
        "failed": { "tls": counts.failed_tls, "websocket": counts.failed_web_socket },
        "cut": {
            "slow": counts.cut_slow,
            "idle": counts.cut_idle,
            "cost": counts.cut_cost,
            "long": counts.cut_long,
            "version": counts.cut_version,
        },
    })
}

/// As the options count it.
fn units(milli: u64) -> f64 {
    milli as f64 / 1e3
}

/// `getelectrumsessions`.
pub(super) fn sessions(context: &Context) -> Outcome {
    let sessions = handle(context)?.admin.sessions();
    let view = sessions.into_iter().map(|session| {
        json!({
            "id": session.id.0,
            "addr": session.address.to_string(),
            "transport": session.transport.name(),
            "client": session.client,
            "version": session.version,
            "conntime": session.since.as_unix_seconds(),
            "cost": units(session.cost_milli),
            "requests": session.calls,
            "subscriptions": session.subscriptions,
            "logged": session.logged,
        })
    });
    Ok(view.collect())
}

/// `getelectrumgroups`.
pub(super) fn groups(context: &Context, arguments: &Arguments) -> Outcome {
    let mut groups = handle(context)?.admin.groups();
    let most = match count(arguments, 0, GROUPS)? {
        0 => groups.len(),
        most => most,
    };
    groups.sort_unstable_by_key(|group| (Reverse(group.milli), group.group));
    let view = groups.into_iter().take(most).map(|group| {
        json!({
            "group": group.group.to_string(),
            "cost": units(group.milli),
            "sessions": group.sessions,
        })
    });
    Ok(view.collect())
}

fn count(arguments: &Arguments, place: usize, default: usize) -> Result<usize, RpcError> {
    let refuse = |_| RpcError::new(Code::InvalidParameter, "count can't be negative");
    let given = arguments.number_or_bool(place)?;
    given.map_or(Ok(default), |count| usize::try_from(count).map_err(refuse))
}

/// `disconnectelectrum`.
pub(super) fn disconnect(context: &Context, arguments: &Arguments) -> Outcome {
    let handle = handle(context)?;
    was_there(session(arguments)?.is_some_and(|id| handle.admin.disconnect(id)))
}

/// `electrumlog`.
pub(super) fn log(context: &Context, arguments: &Arguments) -> Outcome {
    let handle = handle(context)?;
    let on = match arguments.text(1)? {
        "on" => true,
        "off" => false,
        other => {
            let message = format!("state is '{}'; use on or off", shorten(other));
            return Err(RpcError::new(Code::InvalidParameter, message));
        }
    };
    was_there(session(arguments)?.is_some_and(|id| handle.admin.log(id, on)))
}

/// The session that is named, if there can be one of that number.
fn session(arguments: &Arguments) -> Result<Option<SessionId>, RpcError> {
    let number = arguments.number_or_bool(0)?;
    Ok(number.and_then(|number| u32::try_from(number).ok().map(SessionId)))
}

fn was_there(was_there: bool) -> Outcome {
    match was_there {
        true => Ok(Value::Null),
        false => Err(RpcError::new(
            Code::NodeNotConnected,
            "No such session: see getelectrumsessions",
        )),
    }
}

/// `electrumquery`.
pub(super) async fn query(context: &Context, arguments: &Arguments) -> Outcome {
    let handle = handle(context)?;
    let script = script(arguments.text(0)?, handle.network)?;
    let most = count(arguments, 1, ROWS)?;
    let (balance, history) = handle.look_up(script).await.map_err(refused)?;
    let (
        Answer::History(history),
        Answer::Balance {
            confirmed,
            unconfirmed,
        },
    ) = (history, balance)
    else {
        return Err(refused(Refusal::Internal));
    };
    let last = history.len().saturating_sub(most);
    let rows: Vec<Value> = history.iter().skip(last).map(row).collect();
    Ok(json!({
        "scripthash": script.to_string(),
        "confirmed": confirmed,
        "unconfirmed": unconfirmed,
        "transactions": history.len(),
        "history": rows,
    }))
}

/// The script of an address of this network, or one that is named by its hash.
fn script(text: &str, network: Network) -> Result<ScriptHash, RpcError> {
    let refuse = |what: &str| RpcError::new(Code::InvalidAddressOrKey, what);
    if let Ok(hash) = text.parse() {
        return Ok(hash);
    }
    let address: Address<NetworkUnchecked> = text
        .parse()
        .map_err(|_| refuse("That is neither an address nor a script hash of 64 hex digits"))?;
    let address = address
        .require_network(network.to_bitcoin())
        .map_err(|_| refuse("That is an address of another network"))?;
    Ok(ScriptHash::of(address.script_pubkey().as_bytes()))
}

fn row(item: &HistoryItem) -> Value {
    let height = match item.place {
        Place::Block(height) => i64::from(height),
        Place::Mempool(unconfirmed) => i64::from(unconfirmed.height()),
    };
    json!({ "tx_hash": hash_text(&item.txid), "height": height, "fee": item.fee })
}

fn refused(refusal: Refusal) -> RpcError {
    RpcError::new(Code::Misc, refusal.to_string())
}

/// `setelectrumbanner`.
pub(super) fn set_banner(context: &Context, arguments: &Arguments) -> Outcome {
    let handle = handle(context)?;
    let seen = handle.set_banner(arguments.optional_text(0)?);
    let seen = seen.map_err(|error| RpcError::new(Code::Misc, format!("{error:#}")))?;
    Ok(json!(seen))
}
