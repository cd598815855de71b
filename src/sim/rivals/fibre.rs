//! FIBRE's design: whole blocks in erasure-coded chunks over UDP, at a rate set by hand.
//!
//! Source: github.com/bitcoinfibre/bitcoinfibre, branch v30.0 (c879b092), `udprelay.cpp`, `udpnet.cpp`, `fec.h`,
//! `blockencodings.cpp`. As there:
//!
//! - A block is two objects of 1,152-byte chunks: its *header* (a compact block with the lengths of transactions) and its
//!   *body* (all transactions but the coinbase, one after the other, in the block's order). Each is coded as a whole; as
//!   many different chunks as it has data chunks are enough to decode it.
//! - What is sent, in two queues: at first the header's data, three of its code chunks, three of the body's data and ten
//!   of its code; then the rest of the code (as many as there are data chunks, and ten), then the data. About 2.3 MB for
//!   a block of 1.06 MB, whatever the receiver holds.
//! - A receiver drops body chunks until it has the header. Then it lays out the body, fills in what it holds, and gives
//!   these chunks to its decoder as well.
//! - **Trusted**: all trusted peers share a decoder, and a chunk that helped is sent on to all peers at once; one that
//!   did not, behind the others. **Untrusted**: each peer has a decoder of its own, and nothing is sent on before the
//!   block is whole and checked. Who has the block says so in each chunk, and is sent no more.
//! - No request, no acknowledgement, no congestion control; 1,233 bytes of the rate for each chunk.
//!
//! Simplified, in the rival's favour: computing takes no time (coding a block, decoding it and matching a mempool were
//! seen to take some 5 to 40 ms at each hop, in which chunks that arrive are dropped); the code is a perfect one; queues
//! are never full; the rate is set to 96% of the link's, or of a node's uplink for all its peers together; links never
//! take time to come up. Adversaries of a scenario are silent, though one among trusted peers could spoil a block.

mod coding;
mod node;
mod run;

use super::super::outcome::Outcome;
use super::super::protocol::{Progress, Protocol};
use super::super::trial::Trial;

/// Nodes that relay as FIBRE's do.
#[derive(Clone, Copy, Debug)]
pub struct Fibre {
    /// Whether all trust all.
    pub trusted: bool,
}

impl Protocol for Fibre {
    fn name(&self) -> &'static str {
        match self.trusted {
            true => "fibre-trusted",
            false => "fibre-untrusted",
        }
    }

    fn about(&self) -> &'static str {
        match self.trusted {
            true => "FIBRE v30.0 between nodes of one owner: chunks are passed on unverified",
            false => "FIBRE v30.0 between strangers: a block is passed on when it is whole",
        }
    }

    fn run(&self, trial: &Trial, watch: &mut dyn FnMut(&Progress)) -> Outcome {
        run::Run::new(self, trial).play(self.name(), watch)
    }
}

#[cfg(test)]
mod tests;
