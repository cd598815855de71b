//! What the peer asked of us: kept in order, handed to the owner one by one, within an allowance of bytes.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::BlockHash;

use super::Peer;
use super::bucket::Bucket;
use crate::chain::p2p::{BlockForm, PeerEvent, Refusal, Role};
use crate::time::Time;

/// Most requests that wait.
///
/// Reason: a node that limits itself serves the last 288 blocks (BIP159), and an honest peer asks 16 at a time; more
/// than all of them at once is not meant to be answered.
pub const MAX_REQUESTS: usize = 512;
/// Requests beyond which nothing more is read until some were answered.
const PAUSE_REQUESTS: usize = 64;
/// How long the owner has for an answer.
///
/// Reason: it reads a block from disk; whoever takes longer has forgotten.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Bytes a stranger is served at once: the 16 blocks that Bitcoin Core has under way, at today's usual size.
const STRANGER_BURST_BYTES: u64 = 32_000_000;
/// Bytes a stranger is served a second after that: the last 288 blocks take twenty minutes.
const STRANGER_BYTES_PER_S: u64 = 500_000;
/// The same for other nodes of this project, whose catching up helps us all.
const RELAY_BURST_BYTES: u64 = 64_000_000;
/// As above.
const RELAY_BYTES_PER_S: u64 = 5_000_000;

/// Something that the peer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Headers {
        locator: Vec<BlockHash>,
        stop: Option<BlockHash>,
    },
    Hashes {
        locator: Vec<BlockHash>,
        stop: Option<BlockHash>,
    },
    Block {
        hash: BlockHash,
        form: BlockForm,
    },
    Parts {
        hash: BlockHash,
        indexes: Vec<u32>,
    },
}

/// What waits, and what the owner was asked.
pub(super) struct Requests {
    waiting: VecDeque<Request>,
    /// Handed to the owner, and until when it may answer.
    asked: Option<(Request, Time)>,
    /// `None`: no limit.
    allowance: Option<Bucket>,
    pub(super) answered_addresses: bool,
}

impl Requests {
    pub(super) fn new(role: Role, now: Time) -> Self {
        let allowance = match role {
            Role::OurNode => None,
            Role::Relay => Some((RELAY_BURST_BYTES, RELAY_BYTES_PER_S)),
            Role::Stranger | Role::Feeler { .. } => {
                Some((STRANGER_BURST_BYTES, STRANGER_BYTES_PER_S))
            }
        };
        Self {
            waiting: VecDeque::new(),
            asked: None,
            allowance: allowance.map(|(burst, rate)| Bucket::new(burst, burst, rate * 1_000, now)),
            answered_addresses: false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= PAUSE_REQUESTS
    }

    pub(super) fn refill(&mut self, now: Time) {
        if let Some(allowance) = &mut self.allowance {
            allowance.refill(now);
        }
    }

    /// When an answer is overdue, or the next request may go to the owner.
    pub(super) fn deadline(&self) -> Option<Time> {
        match (&self.asked, &self.allowance) {
            (Some((_, until)), _) => Some(*until),
            (None, Some(allowance)) if !self.waiting.is_empty() && !allowance.is_open() => {
                Some(allowance.opens_at())
            }
            _ => None,
        }
    }

    /// Gives up on an answer that is overdue. `true`: there was one.
    pub(super) fn give_up(&mut self, now: Time) -> bool {
        self.asked.take_if(|(_, until)| now >= *until).is_some()
    }

    /// What the owner was asked, if `is_answer` says that this is the answer; it counts `bytes`.
    pub(super) fn answer(&mut self, bytes: usize, is_answer: impl Fn(&Request) -> bool) -> bool {
        if self
            .asked
            .take_if(|(request, _)| is_answer(request))
            .is_none()
        {
            return false;
        }
        if let Some(allowance) = &mut self.allowance {
            allowance.draw(bytes as u64);
        }
        true
    }

    fn next(&mut self, now: Time) -> Option<Request> {
        let may = self.allowance.is_none_or(|allowance| allowance.is_open());
        if self.asked.is_some() || !may {
            return None;
        }
        let request = self.waiting.pop_front()?;
        self.asked = Some((request.clone(), now + ANSWER_TIME));
        Some(request)
    }
}

impl Peer {
    /// Notes what the peer wants. Of questions for headers, or hashes, only the last waits: it answers the others.
    pub(super) fn request(&mut self, request: Request) {
        let waiting = &mut self.requests.waiting;
        if let Request::Headers { .. } | Request::Hashes { .. } = request {
            let kind = std::mem::discriminant(&request);
            waiting.retain(|other| std::mem::discriminant(other) != kind);
        }
        if waiting.len() >= MAX_REQUESTS {
            return self.refuse(Refusal::TooManyRequests);
        }
        waiting.push_back(request);
    }

    /// Hands the next request to the owner. `false`: none may go now.
    pub(super) fn serve_next(&mut self) -> bool {
        if self.is_closed || self.output.is_long() {
            return false;
        }
        let Some(request) = self.requests.next(self.now) else {
            return false;
        };
        self.tell(match request {
            Request::Headers { locator, stop } => PeerEvent::WantsHeaders { locator, stop },
            Request::Hashes { locator, stop } => PeerEvent::WantsBlockHashes { locator, stop },
            Request::Block { hash, form } => PeerEvent::WantsBlock { hash, form },
            Request::Parts { hash, indexes } => PeerEvent::WantsBlockTransactions { hash, indexes },
        });
        true
    }
}
