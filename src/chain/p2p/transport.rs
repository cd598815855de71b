//! How messages become bytes and bytes messages: the old, plain transport, or BIP324.

use std::collections::VecDeque;

use bytes::Bytes;
use rand::rngs::StdRng;

use super::handshake::{Handshake, Step};
use super::kind::{COMMAND_BYTES, Kind, MAX_PAYLOAD_BYTES};
use super::plain::Plain;
use super::session::Session;
use super::{CloseReason, Direction, Refusal, V2};
use crate::chain::Network;

/// Most bytes of a packet of BIP324 without its tag: flags, a named kind, the longest payload.
///
/// Reason: BIP324 does not say the kind before the packet is whole, so the limit is that of the longest kind.
pub(super) const MAX_PACKET_BYTES: usize = 1 + 1 + COMMAND_BYTES + MAX_PAYLOAD_BYTES;

/// The next thing that was received.
#[derive(Debug)]
pub(super) enum Received {
    /// Nothing whole.
    Nothing,
    /// A message within its kind's limit.
    Message(Kind, Bytes),
    /// Something that is passed over.
    Refused(Refusal),
    /// The stream is no stream of messages, and ends here.
    Broken(Refusal, CloseReason),
}

impl Received {
    /// A breach that ends the connection.
    pub(super) fn breach(refusal: Refusal) -> Self {
        Self::Broken(refusal, CloseReason::Misbehaved(refusal.name()))
    }
}

/// One connection's transport.
pub(super) enum Transport {
    /// BIP324, until both have the keys; inbound also until it is known whether it is BIP324 at all.
    Handshake(Box<Handshake>),
    /// BIP324.
    Session(Box<Session>),
    /// The old one.
    Plain(Plain),
}

impl Transport {
    pub(super) fn new(network: Network, direction: Direction, v2: V2, random: &mut StdRng) -> Self {
        match v2 {
            V2::Off => Self::Plain(Plain::new(network)),
            V2::Try | V2::Accept => {
                Self::Handshake(Box::new(Handshake::new(network, direction, random)))
            }
        }
    }

    /// Takes what was received.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Handshake(handshake) => handshake.push(bytes),
            Self::Session(session) => session.push(bytes),
            Self::Plain(plain) => plain.push(bytes),
        }
    }

    /// The next message. What the handshake has to say goes to `out`.
    pub(super) fn next(&mut self, out: &mut VecDeque<Bytes>) -> Received {
        loop {
            let step = match self {
                Self::Session(session) => return session.next(),
                Self::Plain(plain) => return plain.next(),
                Self::Handshake(handshake) => handshake.step(),
            };
            match step {
                Step::Wait => return Received::Nothing,
                Step::Send(bytes) => out.push_back(bytes),
                Step::Plain(plain) => *self = Self::Plain(plain),
                Step::Session(session) => *self = Self::Session(session),
                Step::Failed => return Received::breach(Refusal::Encryption),
            }
        }
    }

    /// Whether messages can be sent.
    pub(super) fn is_ready(&self) -> bool {
        !matches!(self, Self::Handshake(_))
    }

    /// Whether it is BIP324's.
    pub(super) fn is_v2(&self) -> bool {
        matches!(self, Self::Session(_))
    }

    /// Whether we dialled, spoke BIP324 and got no answer.
    pub(super) fn was_not_answered(&self) -> bool {
        match self {
            Self::Handshake(handshake) => handshake.was_not_answered(),
            Self::Session(_) | Self::Plain(_) => false,
        }
    }

    /// Bytes received that are no whole message yet.
    pub(super) fn buffered(&self) -> usize {
        match self {
            Self::Handshake(handshake) => handshake.buffered(),
            Self::Session(session) => session.buffered(),
            Self::Plain(plain) => plain.buffered(),
        }
    }

    /// Encodes a message. Nothing before [`Transport::is_ready`].
    pub(super) fn send(&mut self, kind: Kind, payload: Bytes, out: &mut VecDeque<Bytes>) {
        match self {
            Self::Handshake(_) => {}
            Self::Session(session) => out.push_back(session.encode(kind, &payload)),
            Self::Plain(plain) => plain.encode(kind, payload, out),
        }
    }
}
