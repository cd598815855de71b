//! What nodes say on the wire, read from outside the engine: which requests for data, and for which block; and, where
//! that is asked for, whether what honest nodes pass on is true.
//!
//! Frames are not encrypted, so that a tap on the wire sees what the receiver sees. A request names its job by the number
//! that one of the two gave it; the OPEN_JOB of whoever did tells which block that is.

use std::collections::BTreeMap;

use super::NodeId;
use super::checks::Broken;
use super::checks::passage::{Passage, Side};
use crate::merkle::hash;
use crate::wire::datagram::Frames;
use crate::wire::{
    ControlDecoder, DATAGRAM_HEADER_LEN, JobRef, MAC_LEN, Message, MessageType, Whose,
};

/// What one node has said so far.
#[derive(Debug, Default)]
pub struct Said {
    /// Requests sent, of any block.
    pub requests: u64,
    /// Requests sent, by block.
    by_block: BTreeMap<[u8; 32], u64>,
    /// The blocks that its job numbers stand for.
    jobs: BTreeMap<u16, [u8; 32]>,
}

impl Said {
    /// Requests sent for a block.
    pub fn requests_for(&self, block: &[u8; 32]) -> u64 {
        self.by_block.get(block).copied().unwrap_or(0)
    }
}

/// What all nodes have said.
#[derive(Debug, Default)]
pub struct Tap {
    said: Vec<Said>,
    /// Compares what honest nodes pass on, if that is asked for.
    pub passage: Option<Passage>,
    /// What was wrong with what was passed on, to be taken by the world.
    pub broken: Vec<Broken>,
}

impl Tap {
    /// What a node has said.
    pub fn said(&self, node: NodeId) -> Option<&Said> {
        self.said.get(node)
    }

    /// Reads a datagram that is on its way.
    pub fn datagram(&mut self, from: NodeId, to: NodeId, datagram: &[u8], is_honest: bool) {
        let end = datagram.len().saturating_sub(MAC_LEN);
        let frames = datagram.get(DATAGRAM_HEADER_LEN..end).unwrap_or_default();
        let sides = match &self.passage {
            Some(passage) => passage.senders(to, datagram),
            None => Vec::new(),
        };
        for (kind, body) in Frames::new(frames).map_while(Result::ok) {
            self.compare(from, &sides, (kind, body), is_honest);
            self.frame(from, to, kind, body);
        }
    }

    fn compare(&mut self, from: NodeId, sides: &[Side], frame: (u8, &[u8]), is_honest: bool) {
        if let Some(passage) = &mut self.passage
            && let Err(broken) = passage.take(from, sides, frame, is_honest)
        {
            self.broken.push(broken);
        }
    }

    /// Reads bytes of a control connection that are on their way.
    pub fn control(
        &mut self,
        (from, to): (NodeId, NodeId),
        side: Side,
        decoder: &mut ControlDecoder,
        bytes: &[u8],
        is_honest: bool,
    ) {
        let mut input = bytes;
        while let Ok(Some((kind, body))) = decoder.read(&mut input) {
            self.compare(from, &[side], (kind, &body), is_honest);
            self.frame(from, to, kind, &body);
        }
    }

    fn frame(&mut self, from: NodeId, to: NodeId, kind: u8, body: &[u8]) {
        let wanted = [
            MessageType::OpenJob,
            MessageType::GetHashes,
            MessageType::GetTxs,
        ];
        if !wanted.iter().any(|wanted| wanted.to_wire() == kind) {
            return;
        }
        match Message::decode(kind, body) {
            Ok(Some(Message::OpenJob(open))) => {
                let block = hash::sha256d(open.header);
                self.of(from).jobs.insert(open.job, block);
            }
            Ok(Some(Message::GetHashes(request))) => self.request(from, to, request.job),
            Ok(Some(Message::GetTxs(request))) => self.request(from, to, request.job),
            _ => {}
        }
    }

    fn request(&mut self, from: NodeId, to: NodeId, job: JobRef) {
        let named_by = match job.whose {
            Whose::Sender => from,
            Whose::Receiver => to,
        };
        let block = self.of(named_by).jobs.get(&job.id).copied();
        let said = self.of(from);
        said.requests += 1;
        if let Some(block) = block {
            *said.by_block.entry(block).or_default() += 1;
        }
    }

    fn of(&mut self, node: NodeId) -> &mut Said {
        if self.said.len() <= node {
            self.said.resize_with(node + 1, Said::default);
        }
        self.said.get_mut(node).expect("it was made longer")
    }
}
