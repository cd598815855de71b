//! What a report or a time-out brings to the caller of the sender's log.

use std::time::Duration;

use super::DeliverySample;

/// A datagram that left the log: its sequence number, its bytes and what it carried.
pub(crate) type Departed<T> = (u64, u32, T);

/// What a report or a time-out brought. The caller empties it with [`Outcome::clear`] and hands it in
/// again, so that its vectors are allocated once.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    /// Eliciting datagrams now known to have arrived.
    pub(crate) acked: Vec<Departed<T>>,
    /// Eliciting datagrams now taken as lost, in order of sequence.
    pub(crate) lost: Vec<Departed<T>>,
    /// Bytes of `acked`.
    pub(crate) acked_bytes: u64,
    /// Bytes of `lost`.
    pub(crate) lost_bytes: u64,
    /// Round-trip time by the report's highest datagram, if that one is newly acknowledged.
    pub(crate) rtt_sample: Option<Duration>,
    /// For the pacer, if anything was acknowledged.
    pub(crate) sample: Option<DeliverySample>,
    /// The probe time-out fired: the caller sends something eliciting at once, what came back in `lost`
    /// or a PING. The number counts time-outs in a row, from 1.
    pub(crate) probe: Option<u32>,
    /// Datagrams that had been declared lost and arrived after all.
    pub(crate) spurious: u32,
}

impl<T> Outcome<T> {
    pub(crate) const fn new() -> Self {
        Self {
            acked: Vec::new(),
            lost: Vec::new(),
            acked_bytes: 0,
            lost_bytes: 0,
            rtt_sample: None,
            sample: None,
            probe: None,
            spurious: 0,
        }
    }

    /// Empties it, keeping its allocations.
    pub(crate) fn clear(&mut self) {
        self.acked.clear();
        self.lost.clear();
        self.acked_bytes = 0;
        self.lost_bytes = 0;
        self.rtt_sample = None;
        self.sample = None;
        self.probe = None;
        self.spurious = 0;
    }
}

/// Why a receive report was refused; nothing of it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportRefused {
    /// The highest number is above every number sent, or below every one.
    #[error("report of a sequence that was never sent")]
    NeverSent,
    /// More words than a report has.
    #[error("report with too many words")]
    TooLong,
}
