//! QUIC's congestion control, which steps back for the engine's.
//!
//! What a private link carries is paced already: by the engine, from delivery rates and round trips that its own
//! reports measure over the same packets. A second controller below it can only add delay. Cubic, `quinn`'s usual one,
//! would begin each burst after ten quiet minutes with the 12 kB of a slow start and halve at every loss by chance,
//! while a first flight has 37 kB and the lines that need a relay most lose packets at random; its BBR is
//! experimental and knows nothing of blocks.
//!
//! So the window is wide open, with one exception. When all packets of three probe time-outs are lost (persistent
//! congestion, RFC 9002 7.6) the path is jammed or gone: then the window closes to the least one, and opens again as
//! in slow start, by what is acknowledged. What the stream carries is bounded by its own window
//! (256 KiB a round trip) and is little: control frames, and data only while datagrams do not get through.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory};

/// The window while the path carries, in bytes: the engine's own bound (`relay::pacing::MAX_WINDOW`), 2 Gbit/s over 125 ms.
const OPEN_WINDOW: u64 = 32_000_000;

/// The window on a path that was jammed, in packets: RFC 9002's least one.
const LEAST_PACKETS: u64 = 2;

/// Makes a [`StepBackController`] for each path.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepBack;

impl ControllerFactory for StepBack {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(StepBackController {
            window: OPEN_WINDOW,
            packet_bytes: u64::from(current_mtu),
        })
    }
}

/// The window of one path.
#[derive(Clone, Copy, Debug)]
struct StepBackController {
    window: u64,
    packet_bytes: u64,
}

impl Controller for StepBackController {
    fn on_ack(
        &mut self,
        _now: Instant,
        _sent: Instant,
        bytes: u64,
        _app_limited: bool,
        _rtt: &quinn_proto::RttEstimator,
    ) {
        self.window = self.window.saturating_add(bytes).min(OPEN_WINDOW);
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        _lost_bytes: u64,
    ) {
        if is_persistent_congestion {
            self.window = LEAST_PACKETS * self.packet_bytes;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet_bytes = u64::from(new_mtu);
        self.window = self.window.max(LEAST_PACKETS * self.packet_bytes);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        OPEN_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_by_chance_change_nothing_and_a_jam_closes_the_window() {
        let now = Instant::now();
        let mut controller = Arc::new(StepBack).build(now, 1_232);
        assert_eq!(controller.window(), OPEN_WINDOW);
        for _ in 0..100 {
            controller.on_congestion_event(now, now, false, 1_232);
        }
        assert_eq!(controller.window(), OPEN_WINDOW);
        controller.on_congestion_event(now, now, true, 50_000);
        assert_eq!(controller.window(), 2 * 1_232);
        controller.on_mtu_update(1_452);
        assert_eq!(controller.window(), 2 * 1_452);
        assert_eq!(controller.clone_box().window(), 2 * 1_452);
    }
}
