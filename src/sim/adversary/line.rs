//! One session as an adversary sees it: keys, counters, and where the other end is.

use std::net::{IpAddr, SocketAddr};

use crate::relay::Initiator;
use crate::time::Time;
use crate::wire::{ControlDecoder, DatagramBuilder, MacKey, RxReport, Version, expand_sequence};

/// What is known of one session.
#[derive(Debug)]
pub struct Line {
    /// Who connected.
    pub initiator: Initiator,
    /// The other end of the control connection.
    pub remote: IpAddr,
    /// What comes on the control connection.
    pub incoming: ControlDecoder,
    /// What goes out on it, where an engine makes it.
    pub outgoing: ControlDecoder,
    /// Connection id, key and address of datagrams to the peer, from its BTVERSION.
    pub theirs: Option<(u32, MacKey, SocketAddr)>,
    /// Number of the last datagram sent.
    pub sent: u64,
    /// The highest number received, and which of the 64 before it were.
    pub received: (u64, u64),
    /// Whether both have acknowledged.
    pub established: bool,
    /// Since when.
    pub since: Time,
}

impl Line {
    /// A session that has just been connected.
    pub fn new(initiator: Initiator, remote: IpAddr, now: Time) -> Self {
        Self {
            initiator,
            remote,
            incoming: ControlDecoder::new(),
            outgoing: ControlDecoder::new(),
            theirs: None,
            sent: 0,
            received: (0, 0),
            established: false,
            since: now,
        }
    }

    /// Takes what the peer's BTVERSION says of datagrams.
    pub fn learn(&mut self, version: &Version<'_>) {
        let address = SocketAddr::new(self.remote, version.udp_port);
        self.theirs = Some((version.conn_id, MacKey::new(*version.mac_key), address));
    }

    /// A datagram to the peer with these frames, under the next number; `None` before its BTVERSION came.
    pub fn sealed(&mut self, frames: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let (connection, key, address) = self.theirs?;
        self.sent += 1;
        Some((address, sealed(connection, &key, self.sent, frames)))
    }

    /// Notes the number of a datagram that came, and gives the report on it.
    pub fn note_received(&mut self, low: u32) -> RxReport {
        let (highest, word) = self.received;
        let number = expand_sequence(low, highest);
        self.received = match number.checked_sub(highest) {
            Some(0) => (highest, word),
            Some(ahead) => {
                let moved = word.checked_shl(ahead as u32).unwrap_or(0);
                // The one that was the highest is among those before it now.
                let before = match (highest, ahead) {
                    (1.., ..=64) => 1 << (ahead - 1),
                    _ => 0,
                };
                (number, moved | before)
            }
            None => {
                let behind = highest - number;
                let bit = 1_u64.checked_shl(behind as u32 - 1).unwrap_or(0);
                (highest, word | bit)
            }
        };
        RxReport::new(self.received.0 as u32, 0, &[self.received.1])
    }
}

/// A datagram.
pub fn sealed(connection: u32, key: &MacKey, sequence: u64, frames: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; frames.len() + crate::wire::DATAGRAM_OVERHEAD];
    let mut builder = DatagramBuilder::new(&mut buffer, connection, sequence);
    // Longer than any datagram: then it goes out empty, and is refused for that.
    let _ = builder.write(|writer| writer.bytes(frames));
    let len = builder.finish(key);
    buffer.truncate(len);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_say_what_came() {
        let mut line = Line::new(Initiator::Inbound, [10, 0, 0, 1].into(), Time::ZERO);
        let mut report = |low| {
            let report = line.note_received(low);
            (report.highest, report.received()[0])
        };
        assert_eq!(report(1), (1, 0));
        assert_eq!(report(2), (2, 0b1));
        assert_eq!(report(5), (5, 0b1100));
        assert_eq!(report(4), (5, 0b1101));
        assert_eq!(report(5), (5, 0b1101));
        assert_eq!(report(200), (200, 0));
    }
}
