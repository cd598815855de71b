//! Flows over one modelled bottleneck: rate, tail-drop queue, delay, random loss.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::loss::{Outcome, ReceiveLog, Report, SendLog};
use super::*;

const START: Time = Time::from_unix_seconds(1_000);

#[derive(Clone, Copy)]
struct Path {
    rate: u64,
    one_way: Duration,
    queue: u64,
    loss: f64,
    jitter: Duration,
    /// Another sender keeps the queue at least so long, whatever we do.
    rival: Duration,
}

const LINE: Path = Path {
    rate: 6_250_000,
    one_way: Duration::from_millis(50),
    queue: 625_000,
    loss: 0.0,
    jitter: Duration::ZERO,
    rival: Duration::ZERO,
};

enum What {
    Data { sequence: u64 },
    Report(Report),
    Wake,
}

struct Flow {
    pacer: Pacer,
    log: SendLog<()>,
    receiver: ReceiveLog,
    to_send: u64,
    delivered: u64,
    finished: Option<Time>,
    sent: u64,
    wakes_at: Option<Time>,
}

impl Flow {
    fn new(max_rate: Option<u64>, to_send: u64) -> Self {
        Self {
            pacer: Pacer::new(START, max_rate),
            log: SendLog::new(),
            receiver: ReceiveLog::new(),
            to_send,
            delivered: 0,
            finished: None,
            sent: 0,
            wakes_at: None,
        }
    }
}

struct Link {
    path: Path,
    now: Time,
    free_at: Time,
    order: u64,
    events: BinaryHeap<Reverse<(Time, u64, usize)>>,
    payloads: Vec<Option<(usize, What)>>,
    random: StdRng,
    flows: Vec<Flow>,
    queue_delays: Vec<(Time, Duration)>,
    dropped: u64,
}

impl Link {
    fn new(path: Path, flows: Vec<Flow>) -> Self {
        Self {
            path,
            now: START,
            free_at: START,
            order: 0,
            events: BinaryHeap::new(),
            payloads: Vec::new(),
            random: StdRng::seed_from_u64(7),
            flows,
            queue_delays: Vec::new(),
            dropped: 0,
        }
    }

    fn schedule(&mut self, at: Time, flow: usize, what: What) {
        self.order += 1;
        self.payloads.push(Some((flow, what)));
        self.events
            .push(Reverse((at, self.order, self.payloads.len() - 1)));
    }

    fn transmit(&mut self, flow: usize, sequence: u64) {
        self.free_at = self.free_at.max(self.now + self.path.rival);
        let queued = self.free_at - self.now;
        self.queue_delays.push((self.now, queued));
        if per_round_trip(self.path.rate, queued) + DATAGRAM > self.path.queue {
            self.dropped += 1;
            return;
        }
        let wire = Duration::from_nanos(DATAGRAM * 1_000_000_000 / self.path.rate);
        self.free_at = self.free_at.max(self.now) + wire;
        if self.random.random_bool(self.path.loss) {
            return;
        }
        let jitter = self.path.jitter.mul_f64(self.random.random::<f64>());
        let at = self.free_at + self.path.one_way + jitter;
        self.schedule(at, flow, What::Data { sequence });
    }

    fn drive(&mut self, index: usize) {
        let now = self.now;
        loop {
            let flow = &mut self.flows[index];
            if flow.to_send == 0 {
                flow.log.mark_app_limited();
                break;
            }
            let Allowance::Now { bytes } = flow.pacer.can_send(now, flow.log.in_flight()) else {
                break;
            };
            assert!(bytes > 0);
            flow.to_send -= 1;
            flow.sent += 1;
            let sequence = flow.log.next_sequence();
            flow.pacer.on_sent(now, DATAGRAM, flow.log.in_flight());
            flow.log.sent(sequence, now, 1_200, (), true);
            self.transmit(index, sequence);
        }
        let flow = &mut self.flows[index];
        let mut next = flow.log.deadline();
        if flow.to_send > 0
            && let Allowance::At(at) = flow.pacer.can_send(now, flow.log.in_flight())
        {
            assert!(at > now);
            next = Some(next.map_or(at, |held| held.min(at)));
        }
        if let Some(due) = flow.receiver.report_due() {
            next = Some(next.map_or(due, |held| held.min(due)));
        }
        if let Some(at) = next
            && flow.wakes_at.is_none_or(|held| held <= now || at < held)
        {
            flow.wakes_at = Some(at.max(now));
            self.schedule(at.max(now), index, What::Wake);
        }
    }

    fn settle(&mut self, index: usize, out: &mut Outcome<()>) {
        let flow = &mut self.flows[index];
        if out.lost_bytes > 0 {
            flow.pacer.on_lost(self.now, out.lost_bytes);
            flow.to_send += out.lost.len() as u64;
        }
        if let Some(sample) = &out.sample {
            flow.pacer.on_acked(self.now, sample, flow.log.in_flight());
        }
        if let Some(count) = out.probe {
            flow.pacer.on_timeout(self.now, count);
        }
    }

    fn run(&mut self, until: Duration) {
        let end = START + until;
        for index in 0..self.flows.len() {
            self.drive(index);
        }
        let mut out = Outcome::new();
        while let Some(&Reverse((at, _, payload))) = self.events.peek() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = at;
            let (index, what) = self.payloads[payload]
                .take()
                .expect("each event fires once");
            out.clear();
            let flow = &mut self.flows[index];
            match what {
                What::Data { sequence } => {
                    let full = flow
                        .receiver
                        .check(sequence as u32)
                        .expect("never replayed");
                    assert_eq!(full, sequence);
                    flow.receiver.record(full, at, true);
                    flow.delivered += 1;
                }
                What::Report(report) => {
                    flow.log
                        .on_report(report.highest, &report.words, report.delay_us, at, &mut out)
                        .expect("honest reports are accepted");
                    if flow.to_send == 0 && flow.log.in_flight() == 0 && out.lost.is_empty() {
                        flow.finished.get_or_insert(at);
                    }
                }
                What::Wake => {
                    if flow.log.deadline().is_some_and(|due| due <= at) {
                        flow.log.on_timeout(at, &mut out);
                    }
                }
            }
            self.settle(index, &mut out);
            let flow = &mut self.flows[index];
            if flow.receiver.report_due().is_some_and(|due| due <= at) {
                let report = flow.receiver.report(at);
                if !self.random.random_bool(self.path.loss) {
                    self.schedule(at + self.path.one_way, index, What::Report(report));
                }
            }
            self.drive(index);
        }
        self.now = end;
    }

    /// Share of the link's capacity that reached the receivers between two points.
    fn utilisation(&mut self, from: Duration, to: Duration) -> f64 {
        self.run(from);
        let before: u64 = self.flows.iter().map(|flow| flow.delivered).sum();
        self.run(to);
        let after: u64 = self.flows.iter().map(|flow| flow.delivered).sum();
        ((after - before) * DATAGRAM) as f64 / (self.path.rate as f64 * (to - from).as_secs_f64())
    }

    fn median_queue(&self, from: Duration) -> Duration {
        let mut delays: Vec<_> = self
            .queue_delays
            .iter()
            .filter(|(at, _)| *at >= START + from)
            .map(|&(_, delay)| delay)
            .collect();
        delays.sort();
        delays[delays.len() / 2]
    }
}

fn bulk(path: Path) -> Link {
    Link::new(path, vec![Flow::new(None, 1_000_000)])
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn one_flow_fills_the_link_without_a_standing_queue() {
    for rate in [125_000, 625_000, 6_250_000, 62_500_000] {
        for delay in [1, 10, 50, 150] {
            let path = Path {
                rate,
                one_way: ms(delay),
                queue: (rate / 5).max(60_000),
                ..LINE
            };
            let mut link = bulk(path);
            let used = link.utilisation(ms(4_000), ms(8_000));
            let queue = link.median_queue(ms(4_000));
            println!(
                "{rate} B/s {delay} ms: {used:.3} queue {queue:?} dropped {}",
                link.dropped
            );
            assert!(used > 0.85, "{rate} B/s, {delay} ms: {used}");
            assert!(
                queue < ms(12).max(Duration::from_nanos(8 * DATAGRAM * 1_000_000_000 / rate)),
                "{rate} B/s, {delay} ms: {queue:?}"
            );
        }
    }
}

#[test]
fn random_loss_does_not_slow_it_down() {
    for (loss, least) in [(0.01, 0.85), (0.05, 0.80), (0.10, 0.7)] {
        let mut link = bulk(Path { loss, ..LINE });
        let used = link.utilisation(ms(3_000), ms(9_000));
        println!("loss {loss}: {used:.3}");
        assert!(used / (1.0 - loss) > least, "loss {loss}: {used}");
    }
}

#[test]
fn heavy_random_loss_still_moves() {
    let mut link = bulk(Path { loss: 0.3, ..LINE });
    let used = link.utilisation(ms(3_000), ms(9_000));
    println!("30%: {used:.3}");
    assert!(used > 0.03, "{used}");
}

#[test]
fn jitter_does_not_slow_it_down() {
    let mut link = bulk(Path {
        jitter: ms(8),
        ..LINE
    });
    let used = link.utilisation(ms(3_000), ms(9_000));
    let flow = &link.flows[0];
    println!(
        "jitter: {used:.3} sent {} delivered {}",
        flow.sent, flow.delivered
    );
    assert!(used > 0.75, "{used}");
}

#[test]
fn a_shallow_queue_is_survived_without_heavy_loss() {
    let mut link = bulk(Path {
        queue: 36_000,
        ..LINE
    });
    let used = link.utilisation(ms(3_000), ms(9_000));
    let share = link.dropped as f64 / link.flows[0].sent as f64;
    println!("shallow: {used:.3}, lost {share:.3}");
    assert!(used > 0.75, "{used}");
    assert!(share < 0.10, "{share}");
}

#[test]
fn two_flows_share() {
    let late = Flow::new(None, 0);
    let mut link = Link::new(LINE, vec![Flow::new(None, 1_000_000), late]);
    link.run(ms(2_000));
    link.flows[1].to_send = 1_000_000;
    link.drive(1);
    link.run(ms(6_000));
    let before: Vec<u64> = link.flows.iter().map(|flow| flow.delivered).collect();
    let used = link.utilisation(ms(6_000), ms(16_000));
    let got: Vec<u64> = link
        .flows
        .iter()
        .zip(before)
        .map(|(flow, before)| flow.delivered - before)
        .collect();
    println!(
        "two flows: {got:?}, {used:.3}, queue {:?} dropped {}",
        link.median_queue(ms(6_000)),
        link.dropped
    );
    assert!(used > 0.8, "{used}");
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(least * 4 > *most, "{got:?}");
}

#[test]
fn a_queue_that_another_keeps_long_does_not_starve_it() {
    // It begins beside the other, or the other comes later.
    for later in [false, true] {
        let path = Path {
            rival: ms(60),
            ..LINE
        };
        let mut link = bulk(LINE);
        link.path.rival = if later { Duration::ZERO } else { ms(60) };
        link.run(ms(2_000));
        link.path = path;
        let used = link.utilisation(ms(4_000), ms(10_000));
        println!("{used:.3}");
        assert!(used > 0.3, "{used}");
        // The other is gone: nothing of ours stays in the queue, once the least round trip is measured anew.
        link.path = LINE;
        link.run(ms(26_000));
        let queue = link.median_queue(ms(22_000));
        assert!(queue < ms(12), "{queue:?}");
    }
}

#[test]
fn many_flows_over_a_shallow_queue_do_not_take_their_losses_for_granted() {
    let flows = (0..6).map(|_| Flow::new(None, 1_000_000)).collect();
    let mut link = Link::new(
        Path {
            queue: 36_000,
            ..LINE
        },
        flows,
    );
    link.run(ms(3_000));
    let (dropped, sent) = (
        link.dropped,
        link.flows.iter().map(|flow| flow.sent).sum::<u64>(),
    );
    let used = link.utilisation(ms(3_000), ms(13_000));
    let sent = link.flows.iter().map(|flow| flow.sent).sum::<u64>() - sent;
    let share = (link.dropped - dropped) as f64 / sent as f64;
    println!("six flows, shallow: {used:.3}, lost {share:.3}");
    assert!(used > 0.85, "{used}");
    assert!(share < 0.30, "{share}");
}

#[test]
fn a_first_flight_leaves_at_once_again_after_silence() {
    let mut flow = Flow::new(None, 0);
    flow.pacer.note_round_trip(START, ms(100));
    let mut link = Link::new(LINE, vec![flow]);
    for second in 0..5u64 {
        let start = Duration::from_secs(600 * second);
        link.run(start);
        link.flows[0].to_send = 30;
        link.drive(0);
        assert_eq!(link.flows[0].to_send, 0, "flight {second}");
        assert_eq!(link.flows[0].sent, 30 * (second + 1));
    }
}

#[test]
fn a_body_starts_faster_than_by_doubling() {
    // 1.2 MB over 50 ms and 50 Mbit/s: 242 ms is the bound for the last byte, 342 for its report.
    let mut flow = Flow::new(None, 1_000);
    flow.pacer.note_round_trip(START, ms(100));
    let mut link = Link::new(LINE, vec![flow]);
    link.run(ms(3_000));
    let took = link.flows[0].finished.expect("finished") - START;
    println!("unknown rate: {took:?}");
    assert!(took < ms(560), "{took:?}");

    let mut flow = Flow::new(Some(6_250_000), 1_000);
    flow.pacer.note_round_trip(START, ms(100));
    flow.pacer.assume_rate(6_250_000);
    let mut link = Link::new(LINE, vec![flow]);
    link.run(ms(3_000));
    let took = link.flows[0].finished.expect("finished") - START;
    println!("assumed rate: {took:?}");
    assert!(took < ms(355), "{took:?}");
    // And again after ten minutes, by what was learned.
    let again = Duration::from_secs(600);
    link.run(again);
    link.flows[0].finished = None;
    link.flows[0].to_send = 1_000;
    link.drive(0);
    link.run(again + ms(3_000));
    let took = link.flows[0].finished.expect("finished") - (START + again);
    println!("remembered rate: {took:?}");
    assert!(took < ms(365), "{took:?}");
}

#[test]
fn a_wrong_assumption_is_given_up() {
    let mut flow = Flow::new(None, 1_000_000);
    flow.pacer.note_round_trip(START, ms(100));
    flow.pacer.assume_rate(62_500_000);
    let mut link = Link::new(LINE, vec![flow]);
    let used = link.utilisation(ms(2_000), ms(6_000));
    println!(
        "after a wrong assumption: {used:.3}, queue {:?}, dropped {}",
        link.median_queue(ms(2_000)),
        link.dropped
    );
    assert!(used > 0.8, "{used}");
    assert!(link.median_queue(ms(2_000)) < ms(15));
}

#[test]
fn a_dead_path_is_probed_slowly_and_found_again() {
    let mut link = bulk(LINE);
    link.run(ms(3_000));
    link.path.loss = 1.0;
    link.run(ms(4_000));
    let before = link.flows[0].sent;
    link.run(ms(20_000));
    let meanwhile = link.flows[0].sent - before;
    link.path.loss = 0.0;
    let used = link.utilisation(ms(26_000), ms(30_000));
    println!("dead for 17 s: {meanwhile} datagrams meanwhile, then {used:.3}");
    assert!(meanwhile < 700, "{meanwhile}");
    assert!(used > 0.9, "{used}");
}

#[test]
fn a_ceiling_holds() {
    let mut link = bulk(LINE);
    link.flows[0].pacer = Pacer::new(START, Some(1_250_000));
    let used = link.utilisation(ms(0), ms(4_000));
    println!("ceiling: {used:.3}");
    assert!((0.17..0.205).contains(&used), "{used}");
}

#[test]
fn silence_of_the_peer_slows_it_down() {
    let mut pacer = Pacer::new(START, None);
    pacer.assume_rate(10_000_000);
    let before = pacer.window_bytes();
    for count in 1..12 {
        pacer.on_timeout(START + ms(100 * u64::from(count)), count);
    }
    assert!(pacer.window_bytes() < before / 8);
    assert!(pacer.window_bytes() >= LEAST_WINDOW);
    assert!(pacer.rate_bytes_per_s() > 0);
}
