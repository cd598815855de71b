//! What is told of private links.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Context;
use super::calls::Outcome;
use super::error::{Code, RpcError};
use crate::net::PrivateHub;

/// The private links, if there are any.
pub(super) fn hub(context: &Context) -> Result<&PrivateHub, RpcError> {
    let message = "No private links here: set quic-listen, or quic-peer to dial only, and restart";
    let hub = context.private.as_ref();
    hub.ok_or_else(|| RpcError::new(Code::Misc, message))
}

/// `getkey`.
pub(super) fn key(context: &Context) -> Outcome {
    let hub = hub(context)?;
    let key = hub.fingerprint().to_string();
    let listens = hub.accepts().then(|| hub.local_addr());
    let named = |at: SocketAddr| match context.named.first() {
        Some(ip) => SocketAddr::new(*ip, at.port()).to_string(),
        None if at.ip().is_unspecified() => format!("HOST:{}", at.port()),
        None => at.to_string(),
    };
    Ok(json!({
        "fingerprint": key,
        "quic-allow": key,
        "quic-peer": listens.map(|at| format!("{key}@{}", named(at))),
        "listen": listens.map(|at| at.to_string()),
    }))
}

/// Of `getnetworkinfo`; so many datagrams of the ordinary socket pretended to be of a private link.
pub(super) fn totals(context: &Context, pretended: u64) -> Value {
    let Some(hub) = &context.private else {
        return Value::Null;
    };
    let stats = hub.stats();
    json!({
        "listen": hub.accepts().then(|| hub.local_addr().to_string()),
        "fingerprint": hub.fingerprint().to_string(),
        "accepted": stats.accepted,
        "refused_keys": stats.refused_keys,
        "last_refused_key": stats.last_refused_key.map(|key| key.to_string()),
        "failed_handshakes": stats.failed_handshakes,
        "refused_full": stats.refused_full,
        "retries": stats.retries,
        "datagramsrecv": stats.datagrams_in,
        "datagramssent": stats.datagrams_out,
        "too_large": stats.too_large,
        "no_room": stats.no_room,
        "pretended": pretended,
    })
}
