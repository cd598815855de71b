//! A connection between two nodes: a stream each way, and the messages in them.

use std::collections::VecDeque;

use super::super::network::Way;
use super::super::tcp::{Receiver, Sender};
use super::node::Message;
use crate::time::Time;

/// One direction.
#[derive(Debug)]
pub(super) struct Flow {
    pub way: Way,
    pub sender: Sender,
    pub receiver: Receiver,
    /// Messages in the stream that were not delivered yet, and where each ends.
    messages: VecDeque<(u64, Message)>,
    /// When the sender is woken next.
    pub wakes_at: Option<Time>,
}

impl Flow {
    pub(super) fn new(way: Way, sender: Sender) -> Self {
        Self {
            way,
            sender,
            receiver: Receiver::default(),
            messages: VecDeque::new(),
            wakes_at: None,
        }
    }

    pub(super) fn write(&mut self, message: Message, bytes: u64) {
        let end = self.sender.write(bytes);
        self.messages.push_back((end, message));
    }

    /// The next message that is there whole.
    pub(super) fn read(&mut self) -> Option<Message> {
        let delivered = self.receiver.delivered();
        let (_, message) = *self.messages.front().filter(|(end, _)| *end <= delivered)?;
        self.messages.pop_front();
        Some(message)
    }
}

/// Both directions of a connection; the first is from its edge's lower number to the higher.
#[derive(Debug)]
pub(super) struct Connection {
    pub flows: [Flow; 2],
    pub open: bool,
    /// The place of the other end among each end's peers: of the lower number's, and the higher's.
    pub places: [usize; 2],
}
