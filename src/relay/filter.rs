//! What a datagram has to pass before anything looks inside: cheap checks first, a counter for each.

use std::net::SocketAddr;

use super::Engine;
use super::inbound::Via;
use super::session::Phase;
use super::stats::Refusal;
use crate::wire::datagram::{Header, open};
use crate::wire::{MAX_DATAGRAM, MIN_DATAGRAM, MessageType};

impl Engine {
    /// Lets a datagram in, or counts why not.
    pub(super) fn filter_datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.totals.datagrams_in += 1;
        self.totals.bytes_in += datagram.len() as u64;
        if let Err(refusal) = self.admit_datagram(from, datagram) {
            // Nothing here is held against the session: anybody can send such datagrams in its name.
            self.refused.count(refusal);
        }
    }

    fn admit_datagram(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<(), Refusal> {
        if !(MIN_DATAGRAM..=usize::from(MAX_DATAGRAM)).contains(&datagram.len()) {
            return Err(Refusal::Length);
        }
        let header = Header::peek(datagram).ok_or(Refusal::Length)?;
        let slot = header.conn_id & 0xfff;
        let now = self.now;
        let session = self.session_mut(slot).ok_or(Refusal::ConnectionId)?;
        let open_phase = matches!(session.phase, Phase::AwaitAck | Phase::Established);
        if session.our_connection != header.conn_id || !open_phase {
            return Err(Refusal::ConnectionId);
        }
        // An address is fixed once proven; before that a NAT may show another port than was told.
        let usual = session.path.address == from;
        if !usual && (session.path.proven || from.ip() != session.remote.ip()) {
            return Err(Refusal::Address);
        }
        let sequence = session
            .received
            .check(header.seq_low)
            .ok_or(Refusal::Replay)?;
        let frames = open(datagram, sequence, &session.our_key).map_err(|_| Refusal::Mac)?;
        if !usual {
            session.path.address = from;
            session.path.challenge = None;
            session.path.next_ping = Some(now);
        }
        session.path.bytes_in += datagram.len() as u64;
        session.bytes_in += datagram.len() as u64;
        session.datagrams_in += 1;
        session.arrival.note(now, datagram.len() as u64);
        let mut eliciting = false;
        for frame in frames.clone() {
            match frame {
                Ok((kind, _)) => eliciting |= elicits(kind),
                Err(error) => {
                    session.received.record(sequence, now, false);
                    self.refuse_wire(slot, error);
                    return Ok(());
                }
            }
        }
        session.received.record(sequence, now, eliciting);
        self.wake(slot);
        let via = Via::Udp(datagram.len() as u16);
        for frame in frames {
            let Ok((kind, body)) = frame else { break };
            self.handle_frame(slot, kind, body, via);
            let gone = self
                .session(slot)
                .is_none_or(|session| session.phase == Phase::Closing);
            if gone {
                break;
            }
        }
        Ok(())
    }
}

/// Whether a datagram with such a frame is reported to its sender: all but those that are answers to
/// datagrams themselves, lest two sides report each other's reports for ever.
pub(super) fn elicits(kind: u8) -> bool {
    !matches!(
        MessageType::from_wire(kind),
        Some(MessageType::RxReport | MessageType::Pong | MessageType::JobStateAck)
    )
}
