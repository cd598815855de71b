//! One private connection, from its handshake's end to its own.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, TransportErrorCode, VarInt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::link::{PrivateDatagrams, PrivateLink};
use crate::net::connection::{read, write};
use crate::net::control::{CloseReason, ConnectionId, Outgoing, Shared};

/// How long a closed connection waits for the peer to acknowledge the farewell before it is gone.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// The codes of QUIC's crypto errors: 256 and a TLS alert (RFC 9001 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// A connection whose handshake is done, and its control stream.
#[derive(Debug)]
pub(in crate::net) struct Opened {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) link: PrivateLink,
    pub(super) datagrams: mpsc::Sender<PrivateDatagrams>,
}

impl Opened {
    /// The link for datagrams.
    pub(in crate::net) fn link(&self) -> PrivateLink {
        self.link.clone()
    }

    /// What tells, after the connection, whether the peer refused our key.
    pub(in crate::net) fn fate(&self) -> Fate {
        Fate(self.connection.clone())
    }
}

/// How a connection ended, in terms of the handshake.
#[derive(Debug)]
pub(in crate::net) struct Fate(Connection);

impl Fate {
    /// What an operator should know: TLS lets the dialling side believe in a handshake that the other side then
    /// refuses.
    pub(in crate::net) fn refusal(&self) -> Option<&'static str> {
        let code = match self.0.close_reason()? {
            ConnectionError::ConnectionClosed(close) => close.error_code,
            ConnectionError::TransportError(error) => error.code,
            _ => return None,
        };
        is_crypto(code).then_some(
            "it refuses this node's key; give its operator the fingerprint that `blocktorrent cli getkey` shows here, for --quic-allow",
        )
    }
}

fn is_crypto(code: TransportErrorCode) -> bool {
    CRYPTO_ERRORS.contains(&u64::from(code))
}

/// Carries control and datagrams until either side ends.
pub(in crate::net) async fn converse(
    shared: &Arc<Shared>,
    id: ConnectionId,
    opened: Opened,
    outgoing: Outgoing,
) -> CloseReason {
    let Opened {
        connection,
        mut send,
        mut receive,
        link,
        datagrams,
    } = opened;
    let reason = tokio::select! {
        reason = read(&mut receive, id, &shared.events) => reason,
        // An emulated link is below: it delays packets, not messages.
        reason = write(&mut send, id, outgoing, shared, None) => reason,
        () = link.receive(id, &datagrams) => CloseReason::PeerClosed,
    };
    if reason == CloseReason::Closed {
        timeout(LINGER_TIME, send.stopped()).await.ok();
    }
    // To close what is lost already would hide why.
    if connection.close_reason().is_none() {
        connection.close(VarInt::from_u32(0), b"");
    }
    reason
}
