//! Delivery rate samples, as Linux takes them (`tcp_rate.c`; draft-cheng-iccrg-delivery-rate-estimation).

use std::time::Duration;

use crate::time::Time;

/// What a segment remembers of the moment when it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// When it was sent.
    pub at: Time,
    /// When the segment was sent whose delivery began the present interval.
    pub interval_from: Time,
    /// Segments delivered by then.
    pub delivered: u64,
    /// When the last of them was.
    pub delivered_at: Time,
    /// Whether the application, not the network, held the sender back.
    pub app_limited: bool,
}

/// What one acknowledgement says of the rate.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Segments per second; `None`: the sample is none.
    pub rate: Option<f64>,
    /// Whether the application held the sender back.
    pub app_limited: bool,
    /// Segments that had been delivered when the newest of those acknowledged was sent.
    pub prior_delivered: u64,
    /// Segments that this acknowledgement says are there.
    pub acked: u32,
    /// Segments found lost with it.
    pub lost: u32,
    /// The round-trip time that it shows.
    pub round_trip: Option<Duration>,
}

/// Counts what is delivered.
#[derive(Debug, Default)]
pub struct Meter {
    /// Segments delivered so far.
    pub delivered: u64,
    delivered_at: Time,
    interval_from: Time,
    /// Segments up to which the application held the sender back; 0: none.
    app_limited: u64,
    newest: Option<Snapshot>,
}

impl Meter {
    /// A segment is sent at `now`; whether nothing else is in flight.
    pub fn send(&mut self, now: Time, nothing_in_flight: bool) -> Snapshot {
        if nothing_in_flight {
            self.interval_from = now;
            self.delivered_at = now;
        }
        Snapshot {
            at: now,
            interval_from: self.interval_from,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            app_limited: self.app_limited != 0,
        }
    }

    /// The application has had nothing to send while there was room for `in_flight` and more.
    pub fn limit(&mut self, in_flight: u64) {
        self.app_limited = (self.delivered + in_flight).max(1);
    }

    /// Whether the application holds the sender back.
    pub const fn is_limited(&self) -> bool {
        self.app_limited != 0
    }

    /// A segment is there.
    pub fn deliver(&mut self, now: Time, segment: Snapshot) {
        self.delivered += 1;
        self.delivered_at = now;
        let newer =
            |newest: &Snapshot| (segment.delivered, segment.at) >= (newest.delivered, newest.at);
        if self.newest.as_ref().is_none_or(newer) {
            self.newest = Some(segment);
            self.interval_from = segment.at;
        }
    }

    /// The sample of an acknowledgement whose segments were all delivered. Samples over less than the least round-trip
    /// time are none.
    pub fn sample(&mut self, now: Time, acked: u32, lost: u32, least: Option<Duration>) -> Sample {
        if self.app_limited != 0 && self.delivered > self.app_limited {
            self.app_limited = 0;
        }
        let mut sample = Sample {
            rate: None,
            app_limited: false,
            prior_delivered: 0,
            acked,
            lost,
            round_trip: None,
        };
        let Some(newest) = self.newest.take() else {
            return sample;
        };
        sample.prior_delivered = newest.delivered;
        sample.app_limited = newest.app_limited;
        let sending = newest.at - newest.interval_from;
        let acknowledging = now - newest.delivered_at;
        let interval = sending.max(acknowledging);
        if !interval.is_zero() && least.is_none_or(|least| interval >= least) {
            let delivered = self.delivered - newest.delivered;
            sample.rate = Some(delivered as f64 / interval.as_secs_f64());
        }
        sample
    }
}
