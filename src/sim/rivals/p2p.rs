//! Bitcoin's own P2P protocol: whole blocks, and BIP152's compact blocks in both modes, over [`super::tcp`].
//!
//! Sources: BIP130 (`sendheaders`), BIP152, and Bitcoin Core 31.99 (`net_processing.cpp`, `blockencodings.cpp`).
//!
//! - `msg-block`: a block is announced by `headers`, fetched by `getdata` and comes as `block`.
//! - `bip152-lb`: announced by `headers`; `getdata` brings `cmpctblock`; what is lacking costs `getblocktxn` and
//!   `blocktxn`, another round trip.
//! - `bip152-hb`: each node lets three peers push `cmpctblock`, the last three that were first with a block
//!   (`MaybeSetPeerAsAnnouncingHeaderAndIDs`), and asks up to three of them for what is lacking at the same time
//!   (`MAX_CMPCTBLOCKS_INFLIGHT_PER_BLOCK`); all others announce by `headers`.
//!
//! Only the coinbase is prefilled, as Core does. A node passes a block on when it has it whole and has checked header
//! and merkle trees (`NewPoWValidBlock`), never parts of it.
//!
//! Before the first block counts, some blocks like it are relayed, so that connections have measured their paths, and
//! those push who are first: [`PeerToPeer::rehearsals`].
//!
//! Simplified, in the rival's favour: computing takes no time (Core 31.99 was seen to take some 5 ms for each compact
//! block of 2,501 transactions); nobody else's traffic is in the way; blocks that race are all relayed, where Core
//! fetches only one of them; a node that restarts has kept its blocks and its mempool. Adversaries of a scenario are
//! silent: whatever they sent would only cost.

mod connection;
mod node;
mod run;
mod sizes;

use super::super::outcome::Outcome;
use super::super::protocol::{Progress, Protocol};
use super::super::trial::Trial;
use super::tcp::Control;

pub use node::Mode;

/// Blocks relayed before those that count, with up to [`SMALL`] nodes. Connections learn from them; with four, what comes
/// next is what was measured over fifteen blocks and more.
pub const REHEARSALS: usize = 4;
/// The same with more nodes, where it is the time of whoever waits that counts.
pub const FEW_REHEARSALS: usize = 1;
/// Nodes up to which all rehearsals are held.
pub const SMALL: usize = 16;

/// A way in which Bitcoin nodes relay blocks.
#[derive(Clone, Copy, Debug)]
pub struct PeerToPeer {
    /// How blocks are announced and fetched.
    pub mode: Mode,
    /// The congestion control of its connections.
    pub control: Control,
    /// Blocks relayed before those that count, with up to [`SMALL`] nodes.
    pub rehearsals: usize,
}

impl Protocol for PeerToPeer {
    fn name(&self) -> &'static str {
        match (self.mode, self.control) {
            (Mode::Block, Control::Bbr) => "msg-block",
            (Mode::LowBandwidth, Control::Bbr) => "bip152-lb",
            (Mode::HighBandwidth, Control::Bbr) => "bip152-hb",
            (Mode::Block, Control::Cubic) => "msg-block-cubic",
            (Mode::LowBandwidth, Control::Cubic) => "bip152-lb-cubic",
            (Mode::HighBandwidth, Control::Cubic) => "bip152-hb-cubic",
        }
    }

    fn about(&self) -> &'static str {
        match (self.mode, self.control) {
            (Mode::Block, Control::Bbr) => {
                "whole blocks: headers, getdata, block; over TCP with BBR"
            }
            (Mode::LowBandwidth, Control::Bbr) => {
                "BIP152 in low-bandwidth mode as Bitcoin Core 31.99 has it, over TCP with BBR"
            }
            (Mode::HighBandwidth, Control::Bbr) => {
                "BIP152 in high-bandwidth mode as Bitcoin Core 31.99 has it, over TCP with BBR"
            }
            (_, Control::Cubic) => "as the one without -cubic, over TCP with CUBIC",
        }
    }

    fn run(&self, trial: &Trial, watch: &mut dyn FnMut(&Progress)) -> Outcome {
        run::Run::new(self, trial).play(self.name(), watch)
    }
}

#[cfg(test)]
mod tests;
