//! What waits to be written.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::transport::Transport;
use crate::time::Time;

/// While more bytes than this wait to be written, the peer is neither read nor served (Bitcoin Core's
/// `-maxsendbuffer`).
pub const PAUSE_BYTES: usize = 1_000_000;
/// Most bytes that wait to be written; beyond it commands that would add to them are dropped and counted.
///
/// Reason: three of the largest blocks: one being written, one answered, one pushed.
pub const MAX_OUTPUT_BYTES: usize = 12_000_000;

/// What a waiting message is counted for besides its payload: its place in the queue, its header.
const MESSAGE_OVERHEAD: usize = 64;

/// Messages that wait to be encoded, and bytes that were.
pub(super) struct Output {
    messages: VecDeque<(Kind, Bytes)>,
    message_bytes: usize,
    encoded: VecDeque<Bytes>,
    /// When last something was taken, or nothing was there to be taken.
    moved: Time,
}

impl Output {
    pub(super) fn new(now: Time) -> Self {
        Self {
            messages: VecDeque::new(),
            message_bytes: 0,
            encoded: VecDeque::new(),
            moved: now,
        }
    }

    pub(super) fn push(&mut self, kind: Kind, payload: Bytes) {
        self.message_bytes += MESSAGE_OVERHEAD + payload.len();
        self.messages.push_back((kind, payload));
    }

    /// For bytes of the transport's own.
    pub(super) fn raw(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.encoded
    }

    /// The next bytes. Messages wait until the transport is ready for them.
    pub(super) fn next(&mut self, transport: &mut Transport, now: Time) -> Option<Bytes> {
        if self.encoded.is_empty()
            && transport.is_ready()
            && let Some((kind, payload)) = self.messages.pop_front()
        {
            self.message_bytes -= MESSAGE_OVERHEAD + payload.len();
            transport.send(kind, payload, &mut self.encoded);
        }
        self.moved = now;
        self.encoded.pop_front()
    }

    pub(super) fn bytes(&self) -> usize {
        let encoded: usize = self.encoded.iter().map(Bytes::len).sum();
        self.message_bytes + encoded
    }

    pub(super) fn is_long(&self) -> bool {
        self.bytes() > PAUSE_BYTES
    }

    /// Whether there is room for so many bytes more.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes() + bytes <= MAX_OUTPUT_BYTES
    }

    /// Since when nothing was taken though something is there; `None`: nothing is there.
    pub(super) fn stuck_since(&self) -> Option<Time> {
        (self.bytes() > 0).then_some(self.moved)
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.message_bytes = 0;
        self.encoded.clear();
    }
}
