//! What must hold in every world, whatever its faults; checked outside the code under test.
//!
//! - Towards an address that has not been proven, no more bytes leave over UDP than came from that peer.
//! - A block that a node gives out is, byte for byte, one that was submitted somewhere.
//! - Nobody honest is blamed by anybody honest, whatever the network does to datagrams.
//! - An engine that is asked when to be woken does not say "now" for ever.
//! - Sessions, jobs and whatever waits stay within their bounds ([`bounds`]).
//! - Every hash and transaction that an honest node passes on is the block's ([`passage`]).

pub mod bounds;
pub mod passage;

use std::fmt;

use super::NodeId;
use crate::time::Time;

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Time,
    /// At which node.
    pub node: NodeId,
    /// What.
    pub what: Broken,
}

/// Which rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// More bytes out than in before the path was proven.
    Amplified {
        /// To whom.
        peer: NodeId,
        /// Bytes sent over UDP.
        bytes_out: u64,
        /// Bytes received from it, over UDP and TCP.
        bytes_in: u64,
    },
    /// A block was given out that nobody submitted.
    WrongBlock,
    /// An honest node scored another for something.
    HonestBlamed {
        /// Who was blamed.
        peer: NodeId,
        /// For what.
        refusal: &'static str,
    },
    /// The engine's deadline stayed in the past although it was woken again and again.
    Spins(&'static str),
    /// The engine gave out datagrams without end.
    EndlessTransmit,
    /// A datagram to an address where there is nobody.
    UnknownAddress,
    /// More sessions, jobs, or whatever else is bounded, than the configuration or the protocol allows.
    TooMany(&'static str, usize),
    /// An honest node passed on what is not the block's.
    PassedOn(&'static str),
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "at {}, node {}: {:?}",
            self.at, self.node, self.what
        )
    }
}
