//! What can happen in a world.

use bytes::Bytes;

use super::super::NodeId;

/// Something that happens.
pub(super) enum What {
    /// A datagram has come to the far end of a link.
    Datagram {
        to: NodeId,
        /// Whose address it bears.
        from: NodeId,
        bytes: Bytes,
    },
    /// A datagram has passed the receiver's downlink.
    Taken {
        to: NodeId,
        from: NodeId,
        bytes: Bytes,
    },
    /// A segment of a control connection has arrived, in order.
    Control {
        connection: usize,
        side: usize,
        bytes: Bytes,
    },
    /// A segment has passed the receiver's downlink.
    ControlTaken {
        connection: usize,
        side: usize,
        bytes: Bytes,
    },
    /// The other side has acknowledged a segment.
    Acknowledged {
        connection: usize,
        side: usize,
        length: u64,
    },
    /// A side of a connection learns that it is made.
    Connected { connection: usize, side: usize },
    /// A side of a connection learns that it has ended.
    Closed { connection: usize, side: usize },
    /// Who had dialled a connection that ended dials again.
    Redial { connection: usize },
    /// A node wants to be woken.
    Wake { node: NodeId },
    /// A block is handed in.
    Submit { node: NodeId, block: Bytes },
    /// A transaction comes into a node's cache.
    Transaction { node: NodeId, transaction: Bytes },
    /// Something befalls the network.
    Fault(Box<super::Fault>),
}
