//! What is on its way through an emulated link: a bounded first-in first-out line of due times.

use std::collections::VecDeque;

use crate::time::Time;

/// Items that wait for their time, in order. An item never overtakes one that entered before it.
#[derive(Debug)]
pub(super) struct Held<T> {
    items: VecDeque<(Time, usize, T)>,
    bytes: usize,
    max_bytes: usize,
}

impl<T> Held<T> {
    /// An empty line that takes `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Whether `bytes` more fit.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.max_bytes
    }

    /// Puts an item of `bytes` behind the others; the caller has asked for room.
    pub(super) fn push(&mut self, due: Time, bytes: usize, item: T) {
        self.bytes += bytes;
        self.items.push_back((due, bytes, item));
    }

    /// When the first item is due.
    pub(super) fn due(&self) -> Option<Time> {
        self.items.front().map(|(due, ..)| *due)
    }

    /// The first item, if it is due at `now`.
    pub(super) fn pop(&mut self, now: Time) -> Option<T> {
        if self.due()? > now {
            return None;
        }
        let (_, bytes, item) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some(item)
    }

    /// The first item that is due at `now`, left in its place.
    pub(super) fn peek(&self, now: Time) -> Option<&T> {
        self.items
            .front()
            .filter(|(due, ..)| *due <= now)
            .map(|(.., item)| item)
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn gives_back_in_order_when_due_and_keeps_its_bound() {
        let start = Time::from_unix_seconds(1);
        let second = Duration::from_secs(1);
        let mut held = Held::new(10);
        assert!(held.has_room(10) && !held.has_room(11) && !held.has_room(usize::MAX));
        held.push(start + second, 6, 'a');
        held.push(start, 4, 'b');
        assert!(!held.has_room(1));
        assert_eq!((held.pop(start), held.peek(start)), (None, None));
        assert_eq!(held.due(), Some(start + second));
        assert_eq!(held.peek(start + second), Some(&'a'));
        assert_eq!(held.pop(start + second), Some('a'));
        assert_eq!(held.pop(start + second), Some('b'));
        assert!(held.is_empty() && held.has_room(10) && held.due().is_none());
    }
}
