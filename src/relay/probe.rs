//! TEST_MTU and ESTIMATE_BANDWIDTH: what size and what rate a path carries.
//!
//! Both announce PINGs that the announcer itself sends, so that nobody can make another send more than it
//! was sent. The receiver counts them and answers with one PROBE_REPORT on the control connection. A
//! PING of a probe gets no PONG.

use std::time::Duration;

use rand::RngExt;

use super::Engine;
use super::event::Transmit;
use super::stats::Refusal;
use crate::time::Time;
use crate::wire::{
    DATAGRAM_OVERHEAD, DEFAULT_MAX_DATAGRAM, DatagramBuilder, EstimateBandwidth, Message, Ping,
    ProbeReport, TestMtu,
};

/// How long PINGs of a probe are waited for after they were announced.
const COUNT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// The most of a probe's announced duration that is waited for: 512 PINGs of 1,200 bytes take it at
/// half a Mbit/s.
const MAX_PROBE_TIME: Duration = Duration::from_secs(10);

/// Between two rounds of probes of one path, each of all sizes and the bandwidth once (PRB-4).
const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// Between two rounds of a peer's probes: what the control connection may delay the first of two announcements
/// more than the second is taken off.
const MIN_PROBE_INTERVAL: Duration = Duration::from_secs(50);

/// TEST_MTUs in one round: twice the sizes that are tried here.
const MAX_SIZES: u32 = 8;

/// The highest rate that a report may claim, bytes per second: 10 Gbit/s. A peer that reports an impossible
/// one would have us flood the path until it is measured.
const MAX_CLAIMED_RATE: u64 = 1_250_000_000;

/// How long the announcement of a probe goes ahead of its PINGs: it travels on the control connection, and
/// PINGs that overtake it are not counted.
const HEAD_START: Duration = Duration::from_millis(20);

/// PINGs of each size that is tried: at 10% loss all three are lost once in a thousand times.
const PINGS_PER_SIZE: u8 = 3;

/// Sizes that are tried, largest first, after [`DEFAULT_MAX_DATAGRAM`] works: Ethernet with jumbo frames,
/// Ethernet, Ethernet under PPPoE or a tunnel; each less 28 bytes of IPv4 and UDP headers, or 48 for IPv6.
const SIZES: [u16; 4] = [8_952, 1_472, 1_452, 1_392];

/// PINGs of a bandwidth estimate: 32 of 1,200 bytes are 38 kB, 6 ms at 50 Mbit/s.
const BANDWIDTH_PINGS: u16 = 32;

/// Between two PINGs of a bandwidth estimate: they come in a train, and what the path spreads them to is
/// its rate.
const BANDWIDTH_GAP_US: u32 = 0;

/// A probe that we send.
#[derive(Clone, Copy, Debug)]
struct Sending {
    nonce: u64,
    size: u16,
    left: u16,
    total: u16,
    gap: Duration,
    next: Time,
    /// When its report is given up.
    until: Time,
    bandwidth: bool,
}

/// A probe that we count.
#[derive(Clone, Copy, Debug)]
struct Counting {
    nonce: u64,
    expected: u16,
    received: u16,
    largest: u16,
    first: Option<Time>,
    last: Time,
    until: Time,
}

/// The probes of one session: at most one in each direction.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    sending: Option<Sending>,
    counting: Option<Counting>,
    /// When to begin: a path that comes and goes is probed once in [`PROBE_INTERVAL`].
    begin_at: Option<Time>,
    /// Index into `SIZES` of the size that is tried next.
    next_size: usize,
    bandwidth_done: bool,
}

/// When probes were made, whatever became of their path since.
#[derive(Debug, Default)]
pub(crate) struct ProbeClock {
    /// When our last round began.
    begun: Option<Time>,
    /// When the peer's last round of TEST_MTU began, and how many came in it.
    sizes: Option<(Time, u32)>,
    /// When the peer's last ESTIMATE_BANDWIDTH came.
    bandwidth: Option<Time>,
}

impl ProbeClock {
    /// Whether a peer may announce a probe now; counts it if so.
    fn admit(&mut self, bandwidth: bool, now: Time) -> bool {
        let over = |begun: Time| now.since(begun) >= MIN_PROBE_INTERVAL;
        if bandwidth {
            let free = self.bandwidth.is_none_or(over);
            if free {
                self.bandwidth = Some(now);
            }
            return free;
        }
        let (begun, count) = match self.sizes {
            Some((begun, count)) if !over(begun) => (begun, count),
            _ => (now, 0),
        };
        self.sizes = Some((begun, count + 1));
        count < MAX_SIZES
    }
}

impl Probes {
    /// Whether all has been sent and answered, or given up, since the path was proven.
    pub fn is_done(&self) -> bool {
        self.begin_at.is_none()
            && self.bandwidth_done
            && self.sending.is_none()
            && self.counting.is_none()
    }

    /// When a probe has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let sending = self.sending.map(|probe| match probe.left {
            0 => probe.until,
            _ => probe.next,
        });
        let counting = self.counting.map(|probe| probe.until);
        let all = [sending, counting, self.begin_at];
        all.into_iter().flatten().min()
    }
}

impl Engine {
    /// Begins the probes of a path that was just proven.
    pub(super) fn begin_probes(&mut self, slot: u32) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        session.max_datagram = DEFAULT_MAX_DATAGRAM;
        let earliest = session.probe_clock.begun.map(|at| at + PROBE_INTERVAL);
        session.probes = Probes {
            begin_at: Some(earliest.map_or(now, |at| at.max(now))),
            ..Probes::default()
        };
        self.probe_timeouts(slot);
    }

    /// Begins the next probe: sizes from the largest down, then the bandwidth.
    fn next_probe(&mut self, slot: u32) {
        let (now, limit) = (self.now, self.config.max_datagram);
        let nonce: u64 = self.random.random();
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        if session.probes.sending.is_some() || !session.path.proven {
            return;
        }
        let allowed = limit.min(session.peer_max_datagram);
        let probes = &mut session.probes;
        while SIZES
            .get(probes.next_size)
            .is_some_and(|size| *size > allowed)
        {
            probes.next_size += 1;
        }
        let size = SIZES.get(probes.next_size).copied();
        if size.is_none() && probes.bandwidth_done {
            return;
        }
        let until = now + COUNT_TIMEOUT * 2;
        let (message, probe) = match size {
            Some(size) => {
                probes.next_size += 1;
                let count = PINGS_PER_SIZE;
                (
                    Message::TestMtu(TestMtu { nonce, size, count }),
                    (size, u16::from(count), Duration::ZERO, false),
                )
            }
            None => {
                probes.bandwidth_done = true;
                let (size, count, gap_us) =
                    (DEFAULT_MAX_DATAGRAM, BANDWIDTH_PINGS, BANDWIDTH_GAP_US);
                let estimate = EstimateBandwidth {
                    nonce,
                    size,
                    count,
                    gap_us,
                };
                (
                    Message::EstimateBandwidth(estimate),
                    (size, count, Duration::from_micros(u64::from(gap_us)), true),
                )
            }
        };
        let (size, total, gap, bandwidth) = probe;
        session.probes.sending = Some(Sending {
            nonce,
            size,
            left: total,
            total,
            gap,
            next: now + HEAD_START,
            until,
            bandwidth,
        });
        let sent = session.push_control(&message);
        self.control_sent(slot, sent);
        self.wake(slot);
    }

    /// The PING of a probe that is due.
    pub(super) fn build_probe(&mut self, slot: u32, buffer: &mut [u8]) -> Option<Transmit> {
        let now = self.now;
        let session = self.session_mut(slot)?;
        let probe = session.probes.sending.as_mut()?;
        if probe.left == 0 || probe.next > now || !session.path.proven {
            return None;
        }
        probe.left -= 1;
        probe.next = now + probe.gap;
        let probe = *probe;
        let room = usize::from(probe.size).checked_sub(DATAGRAM_OVERHEAD)?;
        let ping = Ping::filling(probe.nonce, room)?;
        let sequence = session.next_sequence();
        let (connection, key) = (session.their_connection, session.their_key);
        let buffer = buffer.get_mut(..usize::from(probe.size))?;
        let mut builder = DatagramBuilder::new(buffer, connection, sequence);
        builder.push(&Message::Ping(ping)).ok()?;
        let bytes = builder.finish(&key);
        // A probe may be lost for its size; that says nothing about the path.
        session
            .sent
            .sent(sequence, now, bytes as u32, Vec::new(), false);
        session.path.count_sent(bytes);
        session.bytes_out += bytes as u64;
        session.datagrams_out += 1;
        Some(Transmit {
            to: session.path.address,
            len: bytes,
        })
    }

    /// The peer announces the PINGs of TEST_MTU.
    pub(super) fn take_size_probe(&mut self, slot: u32, probe: &TestMtu) {
        let count = u16::from(probe.count);
        self.take_probe(slot, false, (probe.nonce, count), Duration::ZERO);
    }

    /// The peer announces the PINGs of ESTIMATE_BANDWIDTH.
    pub(super) fn take_bandwidth_probe(&mut self, slot: u32, probe: &EstimateBandwidth) {
        let announced = Duration::from_micros(u64::from(probe.gap_us)) * u32::from(probe.count);
        let duration = announced.min(MAX_PROBE_TIME);
        self.take_probe(slot, true, (probe.nonce, probe.count), duration);
    }

    fn take_probe(
        &mut self,
        slot: u32,
        bandwidth: bool,
        (nonce, expected): (u64, u16),
        duration: Duration,
    ) {
        let now = self.now;
        if let Some(session) = self.session_mut(slot) {
            if !session.probe_clock.admit(bandwidth, now) {
                self.blame(slot, Refusal::Probe);
                return;
            }
            // One at a time: another one ends it.
            session.probes.counting = Some(Counting {
                nonce,
                expected,
                received: 0,
                largest: 0,
                first: None,
                last: now,
                until: now + COUNT_TIMEOUT + duration,
            });
        }
    }

    /// Counts a PING if it belongs to a probe.
    pub(super) fn count_probe(&mut self, slot: u32, nonce: u64, bytes: u16) -> bool {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return false;
        };
        let Some(probe) = session.probes.counting.as_mut() else {
            return false;
        };
        if probe.nonce != nonce {
            return false;
        }
        probe.received = probe.received.saturating_add(1).min(probe.expected);
        probe.largest = probe.largest.max(bytes);
        probe.first.get_or_insert(now);
        probe.last = now;
        if probe.received == probe.expected {
            self.report_probe(slot);
        }
        true
    }

    fn report_probe(&mut self, slot: u32) {
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let Some(probe) = session.probes.counting.take() else {
            return;
        };
        let span = probe.last.since(probe.first.unwrap_or(probe.last));
        let report = ProbeReport {
            nonce: probe.nonce,
            received: probe.received,
            largest: probe.largest,
            first_to_last_us: u32::try_from(span.as_micros()).unwrap_or(u32::MAX),
        };
        let sent = session.push_control(&Message::ProbeReport(report));
        self.control_sent(slot, sent);
    }

    /// The peer reports what it counted of our PINGs.
    pub(super) fn take_probe_report(&mut self, slot: u32, report: &ProbeReport) {
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let Some(probe) = session.probes.sending else {
            return;
        };
        if probe.nonce != report.nonce {
            return;
        }
        session.probes.sending = None;
        if probe.bandwidth {
            let lost = probe.total.saturating_sub(report.received);
            session.loss.note(probe.total.into(), lost.into());
            let bytes = u64::from(report.received.min(probe.total).saturating_sub(1))
                * u64::from(probe.size);
            // A train that came in one piece, or not at all, says nothing.
            if report.first_to_last_us > 0 && bytes > 0 {
                let rate = bytes * 1_000_000 / u64::from(report.first_to_last_us);
                session.pacer.assume_rate(rate.min(MAX_CLAIMED_RATE));
            }
        } else if report.received > 0 && report.largest == probe.size {
            session.max_datagram = probe.size;
            session.probes.next_size = SIZES.len();
        }
        self.next_probe(slot);
        self.wake(slot);
    }

    /// The clocks of the probes.
    pub(super) fn probe_timeouts(&mut self, slot: u32) {
        let now = self.now;
        let Some(session) = self.session_mut(slot) else {
            return;
        };
        let begins = session.probes.begin_at.is_some_and(|at| at <= now);
        if begins {
            session.probes.begin_at = None;
            session.probe_clock.begun = Some(now);
        }
        let report = session
            .probes
            .counting
            .is_some_and(|probe| probe.until <= now);
        let given_up = session
            .probes
            .sending
            .is_some_and(|probe| probe.left == 0 && probe.until <= now);
        if given_up {
            session.probes.sending = None;
        }
        if report {
            self.report_probe(slot);
        }
        if given_up || begins {
            self.next_probe(slot);
        }
    }
}
