//! What becomes of connections: refusals on the wire, and what whoever dialled is told of the end.

use crate::net::{PrivateLink, Verdict, Writer};
use crate::relay::Initiator;
use crate::wire::{self, Disconnect, DisconnectReason, Message};

/// Closes a connection for which there is no session. An inbound peer is told why.
pub(super) fn refuse(writer: Writer, initiator: Initiator) {
    if initiator == Initiator::Inbound {
        let farewell = Message::Disconnect(Disconnect {
            reason: DisconnectReason::TooManyPeers,
            text: "too many peers",
        });
        let mut bytes = vec![0; farewell.frame_len()];
        if farewell
            .write_frame(&mut wire::Writer::new(&mut bytes))
            .is_ok()
        {
            // An empty queue takes it, unless the connection has ended.
            writer.try_send(bytes.into()).ok();
        }
    }
    writer.close(Verdict::NoRoom(
        "there are as many sessions as max-peers allows; raise it, or end one",
    ));
}

/// Says that a private peer got no slot. Each of them dials once a minute at most while it is refused.
pub(super) fn tell_of_crowd(link: &PrivateLink) {
    tracing::warn!(
        peer = %link.remote(),
        key = %link.key(),
        "no slot for a private peer: all that max-peers allows are held by peers that you named, or that this node dialled; raise it"
    );
}

/// Whether a session that ended for this reason ended by somebody's fault.
pub(super) const fn is_breach(reason: DisconnectReason) -> bool {
    matches!(
        reason,
        DisconnectReason::Misbehaviour
            | DisconnectReason::Malformed
            | DisconnectReason::UnknownMessage
            | DisconnectReason::ProtocolOrder
    )
}

/// What an operator should know of an end before the handshake was done, by the reason on the wire.
pub(super) fn verdict(code: Option<DisconnectReason>) -> Verdict {
    Verdict::Refused(match code {
        Some(DisconnectReason::Oneself) => return Verdict::Never("it is this node itself"),
        // The other connection to that node is the one that is kept.
        Some(DisconnectReason::DuplicateConnection) => return Verdict::Duplicate,
        Some(DisconnectReason::Shutdown) => return Verdict::Ended,
        Some(DisconnectReason::Network) => {
            "it relays another Bitcoin network; check --network on both sides, and the port"
        }
        Some(DisconnectReason::Version) => {
            "it speaks no protocol version that this node does; update the older of the two"
        }
        Some(DisconnectReason::TooManyPeers) => "it has no place for another peer",
        Some(DisconnectReason::None) => "it was disconnected before its handshake was done",
        Some(DisconnectReason::Timeout) => {
            "no handshake in time; check that it is the control port of a blocktorrent node"
        }
        Some(_) => {
            return Verdict::Stranger(
                "what answers there is no control port of a blocktorrent node; check the port",
            );
        }
        None => {
            "closed before the handshake; check that it is the control port of a blocktorrent node, and that it has room for a peer"
        }
    })
}
