//! Which of several nodes is asked: the first in the operator's order that can be, with failover and return.
//!
//! Blocks and transactions are taken from every node that offers them, so nothing is lost while this changes its mind;
//! what it decides is whom to *ask*: for the mempool, for a block that only was announced, for addresses.
//!
//! - away from a node: at once, when it fails or falls behind while another has not;
//! - back to a more preferred node: once it has been live for [`RETURN_TIME`], so that a node that comes and goes does
//!   not take the mempool's load with it each time. A node that never failed is preferred at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::answer::BlockchainInfo;
use super::backoff::Backoff;
use super::error::RpcError;
use super::status::{State, Status};
use crate::time::Time;

/// How long a node must have been live without a break before it is returned to.
pub const RETURN_TIME: Duration = Duration::from_secs(30);
/// How often a node that answers is asked how it does, if nothing else was heard of it.
pub const PROBE_TIME: Duration = Duration::from_secs(60);
/// How often a node that catches up with the network is asked, while it tells of new blocks.
pub const CATCH_UP_TIME: Duration = Duration::from_secs(1);
/// The first wait after a failure: a restart of bitcoind takes a few seconds.
const LEAST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait: trying costs one connection.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// What changed. Each is a line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodesEvent {
    /// A node's state is another now.
    State {
        /// Its place in the operator's order.
        node: usize,
        /// What it was.
        from: State,
        /// What it is.
        to: State,
        /// Why.
        reason: String,
    },
    /// Another node is asked from now on, or none: whoever follows a mempool lists it anew, whoever waits for an answer
    /// of the old one asks the new one.
    Preferred {
        /// Who was asked.
        from: Option<usize>,
        /// Who is asked.
        to: Option<usize>,
    },
}

#[derive(Debug)]
struct Node {
    status: Status,
    backoff: Backoff,
    /// When to ask it how it does; none while it is being asked.
    probe_at: Option<Time>,
    /// Whether it can be asked how it does: it has RPC. One without is judged by what is heard of it.
    has_rpc: bool,
    /// Whether it ever failed since it was first live.
    has_failed: bool,
}

/// All nodes, in the operator's order.
#[derive(Debug)]
pub struct Nodes {
    nodes: Vec<Node>,
    preferred: Option<usize>,
    events: VecDeque<NodesEvent>,
}

impl Nodes {
    /// Nodes of which nothing is known, and whether each has RPC: those are due to be asked. `seed` spreads the tries.
    pub fn new(have_rpc: &[bool], now: Time, seed: u64) -> Self {
        let node = |(place, has_rpc): (usize, &bool)| Node {
            status: Status {
                reason: "not reached yet".into(),
                since: now,
                ..Status::default()
            },
            backoff: Backoff::new(LEAST_WAIT, MOST_WAIT, seed.wrapping_add(place as u64)),
            probe_at: has_rpc.then_some(now),
            has_rpc: *has_rpc,
            has_failed: false,
        };
        Self {
            nodes: have_rpc.iter().enumerate().map(node).collect(),
            preferred: None,
            events: VecDeque::new(),
        }
    }

    /// Who is to be asked.
    pub fn preferred(&self) -> Option<usize> {
        self.preferred
    }

    /// What is known of one.
    pub fn status(&self, node: usize) -> Option<&Status> {
        self.nodes.get(node).map(|node| &node.status)
    }

    /// What is known of each.
    pub fn statuses(&self) -> impl Iterator<Item = &Status> {
        self.nodes.iter().map(|node| &node.status)
    }

    /// A node answered how its chain does, to [`Nodes::poll_probe`] or otherwise; its network has been checked.
    pub fn handle_info(&mut self, now: Time, node: usize, info: BlockchainInfo) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.status.height = Some(info.blocks);
            node.status.info = Some(info);
            node.status.failures = 0;
            node.backoff.succeeded();
            node.probe_at = Some(now + PROBE_TIME);
        }
        self.judge_all(now, node);
    }

    /// A block of this height is a node's tip, as was heard by ZMQ or P2P.
    ///
    /// A node without RPC is live by that; one with RPC must answer calls too.
    pub fn handle_tip(&mut self, now: Time, node: usize, height: u32) {
        let Some(heard) = self.nodes.get_mut(node) else {
            return;
        };
        heard.status.height = Some(height);
        if !heard.has_rpc {
            heard.status.failures = 0;
        }
        // Whether it has caught up only its answer tells.
        let catches_up = |info: &BlockchainInfo| info.initial_block_download;
        if heard.status.info.as_ref().is_some_and(catches_up) {
            heard.probe_at = heard.probe_at.map(|at| at.min(now + CATCH_UP_TIME));
        }
        if !heard.has_rpc || heard.status.state.is_usable() {
            self.judge_all(now, node);
        }
    }

    /// A call failed, or a connection. What only refused one call changes nothing for a node that answers others.
    pub fn handle_failure(&mut self, now: Time, node: usize, error: &RpcError) {
        let Some(failed) = self.nodes.get_mut(node) else {
            return;
        };
        let state = match State::of_error(error) {
            Some(state) => state,
            None if failed.status.state.is_usable() => {
                if failed.has_rpc {
                    failed.probe_at = failed.probe_at.or(Some(now + PROBE_TIME));
                }
                return;
            }
            // It listens, and can't be used.
            None => State::Refused,
        };
        failed.status.failures = failed.status.failures.saturating_add(1);
        failed.has_failed |= failed.status.height.is_some();
        if failed.has_rpc {
            failed.probe_at = Some(now + failed.backoff.failed());
        }
        self.set_state(now, node, state, error.to_string());
        self.choose(now);
    }

    /// A node is connected by P2P or ZMQ. One without RPC: until more is heard of it, nothing speaks against it. One
    /// with RPC that did not answer: it is asked at once, for it has come back.
    pub fn handle_reached(&mut self, now: Time, node: usize) {
        if let Some(node) = self.nodes.get_mut(node)
            && node.has_rpc
            && !node.status.state.is_usable()
        {
            node.probe_at = node.probe_at.map(|at| at.min(now));
        }
        let is_new = |node: &&Node| !node.has_rpc && !node.status.state.is_usable();
        if self.nodes.get(node).filter(is_new).is_some() {
            let reason = "connected, and has told no block yet".into();
            self.set_state(now, node, State::Live, reason);
            self.judge_all(now, node);
        }
    }

    /// A node without RPC is reached by no way any more.
    pub fn handle_lost(&mut self, now: Time, node: usize, reason: String) {
        let Some(lost) = self.nodes.get_mut(node).filter(|node| !node.has_rpc) else {
            return;
        };
        lost.status.failures = lost.status.failures.saturating_add(1);
        lost.has_failed |= lost.status.state.is_usable();
        self.set_state(now, node, State::Unreachable, reason);
        self.choose(now);
    }

    /// A node's headers are refused here for this reason, or are not any more. Whether that is new.
    pub fn handle_foreign(&mut self, now: Time, node: usize, reason: Option<String>) -> bool {
        let Some(judged) = self.nodes.get_mut(node) else {
            return false;
        };
        let is_new = judged.status.foreign != reason;
        judged.status.foreign = reason;
        // One that does not answer is not judged by its chain.
        let is_judged =
            judged.status.state.is_usable() || judged.status.state == State::WrongNetwork;
        if is_new && is_judged {
            self.judge_all(now, node);
        }
        is_new
    }

    /// Something that was thought to work did not, such as a closed connection: the node is asked now.
    pub fn handle_doubt(&mut self, now: Time, node: usize) {
        if let Some(node) = self.nodes.get_mut(node)
            && node.status.state.is_usable()
            && node.probe_at.is_some()
        {
            node.probe_at = Some(now);
        }
    }

    /// A node that is due to be asked how it does; an answer or a failure is expected for it.
    pub fn poll_probe(&mut self, now: Time) -> Option<usize> {
        let is_due = |node: &Node| node.probe_at.is_some_and(|at| at <= now);
        let place = self.nodes.iter().position(is_due)?;
        self.nodes.get_mut(place)?.probe_at = None;
        Some(place)
    }

    /// What changed.
    pub fn poll_event(&mut self) -> Option<NodesEvent> {
        self.events.pop_front()
    }

    /// When to call [`Nodes::handle_timeout`] and [`Nodes::poll_probe`] again.
    pub fn poll_deadline(&self) -> Option<Time> {
        let probes = self.nodes.iter().filter_map(|node| node.probe_at);
        let returns = self
            .nodes
            .iter()
            .take(self.preferred.unwrap_or(0))
            .filter(|node| node.status.state == State::Live)
            .map(|node| node.status.since + RETURN_TIME);
        probes.chain(returns).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.choose(now);
    }

    /// Judges `heard` by what it said, and the others by what that means for them.
    fn judge_all(&mut self, now: Time, heard: usize) {
        let best = self
            .nodes
            .iter()
            .filter(|node| node.status.state != State::WrongNetwork)
            .filter_map(|node| node.status.height)
            .max()
            .unwrap_or(0);
        for place in 0..self.nodes.len() {
            let judged = self.nodes.get(place).and_then(|node| {
                let is_judged = place == heard || node.status.state.is_usable();
                node.status.judge(best).filter(|_| is_judged)
            });
            if let Some((state, reason)) = judged {
                self.set_state(now, place, state, reason);
            }
        }
        self.choose(now);
    }

    fn set_state(&mut self, now: Time, place: usize, to: State, reason: String) {
        let Some(node) = self.nodes.get_mut(place) else {
            return;
        };
        let from = std::mem::replace(&mut node.status.state, to);
        node.status.reason = reason;
        if from != to {
            node.status.since = now;
            self.events.push_back(NodesEvent::State {
                node: place,
                from,
                to,
                reason: node.status.reason.clone(),
            });
        }
    }

    fn choose(&mut self, now: Time) {
        let to = self.choice(now);
        if to != self.preferred {
            let from = std::mem::replace(&mut self.preferred, to);
            self.events.push_back(NodesEvent::Preferred { from, to });
        }
    }

    fn choice(&self, now: Time) -> Option<usize> {
        let state = |place: usize| self.nodes.get(place).map(|node| node.status.state);
        let first = |wanted: State| {
            let is_wanted = |node: &Node| node.status.state == wanted;
            self.nodes.iter().position(is_wanted)
        };
        let current = self.preferred;
        match current.and_then(state) {
            Some(State::Live) => {
                let may_return = |node: &Node| {
                    node.status.state == State::Live
                        && (!node.has_failed || now.since(node.status.since) >= RETURN_TIME)
                };
                let better = self
                    .nodes
                    .iter()
                    .take(current.unwrap_or(0))
                    .position(may_return);
                better.or(current)
            }
            Some(State::Behind) => first(State::Live).or(current),
            _ => first(State::Live).or_else(|| first(State::Behind)),
        }
    }
}

#[cfg(test)]
mod tests;
