//! The engine, with a liar at its edge.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::actor::{Actor, Outgoing};
use super::super::node;
use super::super::scenario::AdversaryKind;
use super::Casting;
use super::alter::altered;
use super::line::{Line, sealed};
use crate::relay::{Event, Initiator, SessionId, WakeReason};
use crate::time::Time;
use crate::wire::datagram::{Frames, Header};
use crate::wire::{DATAGRAM_HEADER_LEN, MAC_LEN, Message, expand_sequence};

/// Between two datagrams of one that trickles.
const TRICKLE: Duration = Duration::from_secs(1);

/// An engine whose every frame passes a liar, who signs anew what it has changed.
pub struct Forger {
    engine: Box<dyn Actor>,
    kind: AdversaryKind,
    random: StdRng,
    lines: BTreeMap<SessionId, Line>,
    /// When the next datagram may go, of one that trickles.
    opens_at: Time,
    /// One waits for that.
    waits: bool,
}

impl Forger {
    /// One that tells the lies of `casting.kind`.
    pub fn new(casting: Casting, now: Time) -> Self {
        let mut random = StdRng::from_seed(casting.seed);
        Self {
            engine: node::engine(&casting.options, random.random(), now),
            kind: casting.kind,
            random,
            lines: BTreeMap::new(),
            opens_at: now,
            waits: false,
        }
    }

    fn trickles(&self) -> bool {
        self.kind == AdversaryKind::Trickles
    }

    /// The frames of `frames`, those that are lied about changed; `None` if none was.
    fn lie(&mut self, frames: &[u8], most: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(frames.len());
        let mut lied = false;
        for (kind, body) in Frames::new(frames).map_while(Result::ok) {
            match altered(self.kind, (kind, body), &mut self.random) {
                Some(frame) => {
                    out.extend(frame);
                    lied = true;
                }
                None => append_frame(kind, body, &mut out),
            }
        }
        (lied && out.len() <= most).then_some(out)
    }

    /// Alters the datagram in `buffer`; gives its length.
    fn alter_datagram(&mut self, to: SocketAddr, len: usize, buffer: &mut [u8]) -> usize {
        let datagram = buffer.get(..len).unwrap_or_default();
        let Some(header) = Header::peek(datagram) else {
            return len;
        };
        let found = self.lines.values_mut().find(|line| {
            line.remote == to.ip()
                && line
                    .theirs
                    .is_some_and(|(connection, ..)| connection == header.conn_id)
        });
        let Some((line, (connection, key, _))) =
            found.and_then(|line| line.theirs.map(|theirs| (line, theirs)))
        else {
            return len;
        };
        let sequence = expand_sequence(header.seq_low, line.sent);
        line.sent = line.sent.max(sequence);
        let frames = datagram
            .get(DATAGRAM_HEADER_LEN..len - MAC_LEN)
            .unwrap_or_default()
            .to_vec();
        let most = buffer.len() - DATAGRAM_HEADER_LEN - MAC_LEN;
        let Some(frames) = self.lie(&frames, most) else {
            return len;
        };
        let datagram = sealed(connection, &key, sequence, &frames);
        match buffer.get_mut(..datagram.len()) {
            Some(place) => {
                place.copy_from_slice(&datagram);
                datagram.len()
            }
            None => len,
        }
    }
}

/// A frame of any type.
pub fn append_frame(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    match body.len() {
        few @ ..0xfd => out.push(few as u8),
        many @ ..=0xffff => {
            out.push(0xfd);
            out.extend((many as u16).to_le_bytes());
        }
        more => {
            out.push(0xfe);
            out.extend((more as u32).to_le_bytes());
        }
    }
    out.extend(body);
}

impl Actor for Forger {
    fn handle_connected(
        &mut self,
        now: Time,
        initiator: Initiator,
        remote: SocketAddr,
    ) -> Option<SessionId> {
        let session = self.engine.handle_connected(now, initiator, remote)?;
        let line = Line::new(initiator, remote.ip(), now);
        self.lines.insert(session, line);
        Some(session)
    }

    fn handle_control(&mut self, now: Time, session: SessionId, bytes: &[u8]) {
        if let Some(line) = self.lines.get_mut(&session) {
            let mut rest = bytes;
            while let Ok(Some((kind, body))) = line.incoming.read(&mut rest) {
                if let Ok(Some(Message::Version(version))) = Message::decode(kind, &body) {
                    line.learn(&version);
                }
            }
        }
        self.engine.handle_control(now, session, bytes);
    }

    fn handle_disconnected(&mut self, now: Time, session: SessionId) {
        self.lines.remove(&session);
        self.engine.handle_disconnected(now, session);
    }

    fn handle_datagram(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) {
        self.engine.handle_datagram(now, from, datagram);
    }

    fn handle_timeout(&mut self, now: Time) {
        self.engine.handle_timeout(now);
    }

    fn submit_block(&mut self, now: Time, block: Bytes) -> bool {
        self.engine.submit_block(now, block)
    }

    fn add_transaction(&mut self, now: Time, transaction: Bytes) {
        self.engine.add_transaction(now, transaction);
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.engine.poll_event()
    }

    fn poll_control_ready(&mut self) -> Option<SessionId> {
        self.engine.poll_control_ready()
    }

    fn poll_control(&mut self, now: Time, session: SessionId) -> Option<Bytes> {
        let bytes = self.engine.poll_control(now, session)?;
        let Some(line) = self.lines.get_mut(&session) else {
            return Some(bytes);
        };
        let mut frames = Vec::new();
        let mut rest = &bytes[..];
        while let Ok(Some((kind, body))) = line.outgoing.read(&mut rest) {
            append_frame(kind, &body, &mut frames);
        }
        let lies = self.lie(&frames, usize::MAX);
        Some(Bytes::from(lies.unwrap_or(frames)))
    }

    fn poll_transmit(&mut self, now: Time, buffer: &mut [u8]) -> Option<Outgoing> {
        self.waits = self.trickles() && now < self.opens_at;
        if self.waits {
            return None;
        }
        let outgoing = self.engine.poll_transmit(now, buffer)?;
        self.opens_at = now + TRICKLE;
        let len = self.alter_datagram(outgoing.to, outgoing.len, buffer);
        Some(Outgoing { len, ..outgoing })
    }

    fn poll_deadline(&self) -> Option<(Time, WakeReason)> {
        let deadline = self.engine.poll_deadline();
        match self.waits {
            // What is due and may not go waits for its second.
            true => Some((self.opens_at, WakeReason::Pacing)),
            false => deadline,
        }
    }
}
