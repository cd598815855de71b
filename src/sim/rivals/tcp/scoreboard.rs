//! What was sent and is not acknowledged: what became of each segment, as far as the sender knows.

use std::collections::VecDeque;
use std::time::Duration;

use arrayvec::ArrayVec;

use super::rate::{Meter, Snapshot};
use super::{Ack, Segment};
use crate::time::Time;

/// What the sender believes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// On its way.
    InFlight,
    /// There, says a selective acknowledgement.
    There,
    /// Lost, and not sent again yet.
    Lost,
    /// Lost, and sent again.
    Repeated,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    segment: Segment,
    snapshot: Snapshot,
    was_repeated: bool,
    fate: Fate,
}

/// What an acknowledgement brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct News {
    /// Segments that are there now.
    pub acked: u32,
    /// Whether there is more in order.
    pub advanced: bool,
    /// The round-trip time of the newest segment that was sent once.
    pub round_trip: Option<Duration>,
    /// Whether one of them had been sent again.
    pub repeated: bool,
}

/// The newest segment that is there, RFC 8985's `RACK.xmit_ts`, `RACK.end_seq` and `RACK.rtt`.
#[derive(Clone, Copy, Debug)]
struct Newest {
    at: Time,
    end: u64,
    round_trip: Duration,
}

/// All segments in flight, in order.
#[derive(Debug, Default)]
pub struct Scoreboard {
    sent: VecDeque<Sent>,
    there: usize,
    lost: usize,
    newest: Option<Newest>,
    acknowledged: u64,
    /// What was sent when, by the place where it starts: in the order of time, with what is no longer so.
    timeline: VecDeque<(Time, u64)>,
    /// No segment that starts before it is lost and not sent again.
    repeat_from: u64,
    /// The ranges that the last acknowledgement named: nothing in them is news.
    known: ArrayVec<Segment, 3>,
}

impl Scoreboard {
    /// All before this place is there.
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Segments that are not acknowledged in order.
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Segments that are believed to be on their way.
    pub fn in_flight(&self) -> usize {
        self.sent.len() - self.there - self.lost
    }

    /// Segments that are lost and not sent again.
    pub const fn lost(&self) -> usize {
        self.lost
    }

    /// Segments that selective acknowledgements named.
    pub const fn there(&self) -> usize {
        self.there
    }

    /// A new segment was sent.
    pub fn push(&mut self, segment: Segment, snapshot: Snapshot) {
        self.timeline.push_back((snapshot.at, segment.start));
        self.sent.push_back(Sent {
            segment,
            snapshot,
            was_repeated: false,
            fate: Fate::InFlight,
        });
    }

    /// Where among those sent the first one is that starts at `start` or later.
    fn place(&self, start: u64) -> usize {
        self.sent.partition_point(|sent| sent.segment.start < start)
    }

    /// The first lost segment that was not sent again; it is now.
    pub fn repeat(&mut self, snapshot: Snapshot) -> Option<Segment> {
        if self.lost == 0 {
            return None;
        }
        let from = self.place(self.repeat_from);
        let mut rest = self.sent.iter_mut().skip(from);
        let sent = rest.find(|sent| sent.fate == Fate::Lost)?;
        self.lost -= 1;
        self.repeat_from = sent.segment.end;
        sent.fate = Fate::Repeated;
        sent.snapshot = snapshot;
        sent.was_repeated = true;
        self.timeline.push_back((snapshot.at, sent.segment.start));
        Some(sent.segment)
    }

    /// The last segment, sent again without being believed lost: a probe.
    pub fn probe(&mut self, snapshot: Snapshot) -> Option<Segment> {
        let sent = self.sent.back_mut()?;
        match sent.fate {
            Fate::There => return None,
            Fate::Lost => self.lost -= 1,
            Fate::InFlight | Fate::Repeated => {}
        }
        sent.fate = Fate::Repeated;
        sent.snapshot = snapshot;
        sent.was_repeated = true;
        self.timeline.push_back((snapshot.at, sent.segment.start));
        Some(sent.segment)
    }

    /// A time-out: all that is not there is lost.
    pub fn lose_all(&mut self) {
        self.timeline.clear();
        self.repeat_from = self.acknowledged;
        for sent in &mut self.sent {
            if matches!(sent.fate, Fate::InFlight | Fate::Repeated) {
                sent.fate = Fate::Lost;
                self.lost += 1;
            }
        }
    }

    /// Takes an acknowledgement.
    pub fn acknowledge(
        &mut self,
        now: Time,
        ack: &Ack,
        meter: &mut Meter,
        least: Option<Duration>,
    ) -> News {
        let mut news = News::default();
        let mut newest_once: Option<Time> = None;
        let mut arrive = |sent: &Sent, newest: &mut Option<Newest>| {
            news.acked += 1;
            news.repeated |= sent.was_repeated;
            meter.deliver(now, sent.snapshot);
            let at = sent.snapshot.at;
            if !sent.was_repeated {
                newest_once = newest_once.max(Some(at));
            }
            advance(newest, now, sent, least);
        };
        for block in &ack.blocks {
            let from = match news_from(&self.known, *block) {
                Some(start) => self.sent.partition_point(|sent| sent.segment.start < start),
                None => continue,
            };
            for sent in self.sent.iter_mut().skip(from) {
                if sent.segment.end > block.end {
                    break;
                }
                if sent.fate == Fate::There {
                    continue;
                }
                if sent.fate == Fate::Lost {
                    self.lost -= 1;
                }
                sent.fate = Fate::There;
                self.there += 1;
                arrive(sent, &mut self.newest);
            }
        }
        while let Some(sent) = self
            .sent
            .front()
            .copied()
            .filter(|sent| sent.segment.end <= ack.next)
        {
            self.sent.pop_front();
            match sent.fate {
                Fate::There => self.there -= 1,
                Fate::Lost => {
                    self.lost -= 1;
                    arrive(&sent, &mut self.newest);
                }
                Fate::InFlight | Fate::Repeated => arrive(&sent, &mut self.newest),
            }
        }
        self.known = ack.blocks.clone();
        news.advanced = ack.next > self.acknowledged;
        self.acknowledged = self.acknowledged.max(ack.next);
        news.round_trip = newest_once.map(|at| now - at);
        news
    }

    /// Finds what is lost: what was sent so long before the newest that is there that it would be there too, RFC 8985
    /// section 6.2. How many segments, and when to look again.
    pub fn detect(&mut self, now: Time, reordering: Duration) -> (u32, Option<Time>) {
        let Some(newest) = self.newest else {
            return (0, None);
        };
        let mut found = 0;
        while let Some(&(at, start)) = self.timeline.front() {
            let place = self.place(start);
            let sent = self.sent.get_mut(place).filter(|sent| {
                let is_out = matches!(sent.fate, Fate::InFlight | Fate::Repeated);
                is_out && sent.segment.start == start && sent.snapshot.at == at
            });
            if let Some(sent) = sent {
                if (at, sent.segment.end) >= (newest.at, newest.end) {
                    break;
                }
                let due = at + newest.round_trip + reordering;
                if due > now {
                    return (found, Some(due)); // All behind it were sent later.
                }
                sent.fate = Fate::Lost;
                self.lost += 1;
                self.repeat_from = self.repeat_from.min(start);
                found += 1;
            }
            self.timeline.pop_front();
        }
        (found, None)
    }
}

/// Where in a range of an acknowledgement there may be news, given the ranges of the last one; `None`: nowhere.
fn news_from(known: &[Segment], block: Segment) -> Option<u64> {
    let reaches = known
        .iter()
        .filter(|known| known.start <= block.start && known.end >= block.start)
        .map(|known| known.end)
        .max();
    let from = reaches.unwrap_or(block.start);
    (from < block.end).then_some(from)
}

/// A segment is there: it may be the newest, unless its acknowledgement may be for an earlier sending.
fn advance(newest: &mut Option<Newest>, now: Time, sent: &Sent, least: Option<Duration>) {
    let at = sent.snapshot.at;
    let round_trip = now - at;
    if sent.was_repeated && least.is_some_and(|least| round_trip < least) {
        return;
    }
    let end = sent.segment.end;
    if newest.is_none_or(|newest| (at, end) > (newest.at, newest.end)) {
        *newest = Some(Newest {
            at,
            end,
            round_trip,
        });
    }
}
