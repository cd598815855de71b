//! Signs of life: pings, silence, and what takes too long.

use std::time::Duration;

use rand::Rng;

use super::Peer;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::{CloseReason, PeerEvent, Refusal, Role};
use crate::time::Time;

/// How long the handshake may take (Bitcoin Core's `DEFAULT_PEER_CONNECT_TIMEOUT`).
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);

/// Times of what was sent and received.
pub(super) struct KeepAlive {
    opened: Time,
    received: Time,
    next_ping: Time,
    /// The ping that is not answered yet.
    ping: Option<(u64, Time)>,
}

impl KeepAlive {
    pub(super) fn new(now: Time) -> Self {
        Self {
            opened: now,
            received: now,
            next_ping: now,
            ping: None,
        }
    }

    pub(super) fn received(&mut self, now: Time) {
        self.received = now;
    }

    /// The handshake is done: the first ping goes out at once, as Bitcoin Core's does.
    pub(super) fn greeted(&mut self, now: Time) {
        self.next_ping = now;
    }
}

impl Peer {
    /// When something here is due next.
    pub(super) fn keep_alive_deadline(&self) -> Time {
        let patience = self.config.role.patience();
        let mut deadline = match self.greeting.done_at() {
            None => self.keep_alive.opened + HANDSHAKE_TIME,
            Some(done_at) => {
                let mut deadline = self.keep_alive.received + patience;
                if let Role::Feeler { .. } = self.config.role {
                    deadline = deadline.min(done_at + patience);
                }
                match self.keep_alive.ping {
                    Some((_, sent)) => deadline.min(sent + patience),
                    None => deadline.min(self.keep_alive.next_ping),
                }
            }
        };
        if let Some(since) = self.output.stuck_since() {
            deadline = deadline.min(since + patience);
        }
        deadline
    }

    pub(super) fn keep_alive_timeouts(&mut self) {
        let now = self.now;
        let patience = self.config.role.patience();
        let is_over = |since: Time| now >= since + patience;
        let Some(done_at) = self.greeting.done_at() else {
            if now >= self.keep_alive.opened + HANDSHAKE_TIME {
                self.close(match self.transport.was_not_answered() {
                    true => CloseReason::NoV2,
                    false => CloseReason::HandshakeTimeout,
                });
            }
            return;
        };
        if matches!(self.config.role, Role::Feeler { .. }) && is_over(done_at) {
            return self.close(CloseReason::FeelerDone);
        }
        let is_unanswered = self.keep_alive.ping.is_some_and(|(_, sent)| is_over(sent));
        if is_unanswered || is_over(self.keep_alive.received) {
            return self.close(CloseReason::Silent);
        }
        if self.output.stuck_since().is_some_and(is_over) {
            return self.close(CloseReason::NotReading);
        }
        if self.keep_alive.ping.is_none() && now >= self.keep_alive.next_ping {
            let nonce = self.random.next_u64();
            self.keep_alive.ping = Some((nonce, now));
            self.send(Kind::Ping, nonce.to_le_bytes().to_vec());
        }
        if self.requests.give_up(now) {
            self.count(Refusal::Unanswered);
        }
        let overdue = self.fetches.give_up(now);
        if !overdue.is_empty() {
            self.tell(PeerEvent::BlocksNotFound(overdue));
        }
    }

    pub(super) fn handle_pong(&mut self, nonce: u64) {
        let Some((expected, sent)) = self.keep_alive.ping else {
            return self.count(Refusal::Unsolicited);
        };
        if nonce != expected {
            return self.count(Refusal::Unsolicited);
        }
        let ping = self.now.since(sent);
        self.keep_alive.ping = None;
        self.keep_alive.next_ping = self.now + self.config.role.ping_interval();
        self.report.ping = Some(ping);
        self.report.least_ping = Some(self.report.least_ping.map_or(ping, |least| least.min(ping)));
    }
}
