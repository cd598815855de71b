//! The thread that moves packets between places, each at its time.
//!
//! It sleeps until a device has something or a packet is almost due, and waits the rest awake: a timer of the system comes
//! some tens of microseconds late, which is more than a link of a scenario may. How late packets are given is counted.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use serde::Serialize;
use tun_rs::SyncDevice;

use super::switch::Switch;
use crate::net::Clock;
use crate::time::Time;

/// How long before a packet is due the thread stays awake: longer than a timer of the system is usually late.
const AWAKE: Duration = Duration::from_micros(60);
/// Packets that are read of one device before others have their turn, and due ones are given.
const BATCH: usize = 32;
/// Bytes of the largest packet that a device of the lab gives out.
const LARGEST: usize = 65_536;
/// Lateness that is counted by the microsecond; what is later goes into the last place.
const LATENESS_PLACES: usize = 20_000;
/// The priority of the thread, so that the programs under test do not make it late.
const NICE: i32 = -15;

/// How late packets were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Lateness {
    /// Packets that were given.
    pub packets: u64,
    /// Half of them were late by at most this, in milliseconds.
    pub p50_ms: f64,
    /// 99% of them.
    pub p99_ms: f64,
    /// The latest.
    pub most_ms: f64,
}

/// Moves packets until it is dropped.
#[derive(Debug)]
pub struct Router {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    stop: AtomicBool,
    wake: OwnedFd,
    clock: Clock,
}

#[derive(Debug)]
struct Inner {
    switch: Switch,
    late: Vec<u32>,
    latest: Duration,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router {
    /// Starts the thread. `devices` are those of the nodes, in their order, and do not block.
    ///
    /// # Errors
    ///
    /// The system refuses a thread or an event.
    pub fn start(switch: Switch, devices: Vec<SyncDevice>, clock: Clock) -> anyhow::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context("the system gives no event")?;
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                switch,
                late: vec![0; LATENESS_PLACES],
                latest: Duration::ZERO,
            }),
            stop: AtomicBool::new(false),
            wake,
            clock,
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("lab-router".to_owned())
            .spawn(move || route(&theirs, &devices))
            .context("the system gives no thread")?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Looks at the links, or changes them.
    pub fn with<T>(&self, look: impl FnOnce(&mut Switch) -> T) -> T {
        look(&mut self.shared.lock().switch)
    }

    /// How late packets were given since the last time that this was asked.
    pub fn take_lateness(&self) -> Lateness {
        let mut inner = self.shared.lock();
        let lateness = lateness(&inner.late, inner.latest);
        inner.late.fill(0);
        inner.latest = Duration::ZERO;
        lateness
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // Its panic was told where it happened.
            let _ = thread.join();
        }
    }
}

fn lateness(late: &[u32], latest: Duration) -> Lateness {
    let packets: u64 = late.iter().map(|&count| u64::from(count)).sum();
    let at = |share: f64| {
        let mut left = (packets as f64 * share).ceil() as u64;
        let place = late.iter().position(|&count| {
            left = left.saturating_sub(u64::from(count));
            left == 0
        });
        place.unwrap_or(0) as f64 / 1e3
    };
    Lateness {
        packets,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        most_ms: latest.as_secs_f64() * 1e3,
    }
}

fn route(shared: &Shared, devices: &[SyncDevice]) {
    // Without these it works as well, only less precisely.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let _ = rustix::process::setpriority_process(None, NICE);
    let mut buffer = vec![0; LARGEST];
    while !shared.stop.load(Ordering::Acquire) {
        give_due(shared, devices);
        let next = shared.lock().switch.next_due();
        let wait = next.map(|due| due.since(shared.clock.now()).saturating_sub(AWAKE));
        let Some(ready) = readable(shared, devices, wait) else {
            continue;
        };
        for (node, device) in devices.iter().enumerate() {
            if ready.get(node).copied().unwrap_or(false) {
                read_some(shared, node, device, &mut buffer);
            }
        }
    }
}

/// Waits until a device has a packet, or for `wait`; which devices have some.
fn readable(shared: &Shared, devices: &[SyncDevice], wait: Option<Duration>) -> Option<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = devices
        .iter()
        .map(|device| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN))
        .collect();
    polled.push(PollFd::new(&shared.wake, PollFlags::IN));
    let wait = wait.map(|wait| Timespec {
        tv_sec: wait.as_secs() as i64,
        tv_nsec: wait.subsec_nanos().into(),
    });
    match poll(&mut polled, wait.as_ref()) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(polled.iter().map(|it| !it.revents().is_empty()).collect()),
    }
}

fn read_some(shared: &Shared, node: usize, device: &SyncDevice, buffer: &mut [u8]) {
    for _ in 0..BATCH {
        match rustix::io::read(device, &mut *buffer) {
            Ok(length) => {
                let now = shared.clock.now();
                let packet = buffer.get(..length).unwrap_or_default();
                shared.lock().switch.take(now, node, packet);
            }
            Err(Errno::INTR) => {}
            // Nothing more, or the node's place is being taken down.
            Err(_) => return,
        }
    }
}

fn give_due(shared: &Shared, devices: &[SyncDevice]) {
    loop {
        let now = shared.clock.now();
        let Some(delivery) = shared.lock().switch.give(now) else {
            return;
        };
        if let Some(device) = devices.get(delivery.to) {
            // A place without a program that listens takes it, too; one that is being taken down does not matter.
            let _: Result<usize, io::Error> =
                rustix::io::write(device, &delivery.bytes).map_err(io::Error::from);
        }
        let mut inner = shared.lock();
        note(&mut inner, delivery.due, shared.clock.now());
        inner.switch.recycle(delivery.bytes);
    }
}

fn note(inner: &mut Inner, due: Time, given: Time) {
    let late = given.since(due);
    inner.latest = inner.latest.max(late);
    let place = (late.as_micros() as usize).min(LATENESS_PLACES - 1);
    if let Some(count) = inner.late.get_mut(place) {
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_told_by_shares() {
        let mut late = vec![0; LATENESS_PLACES];
        late[10] = 60;
        late[300] = 39;
        late[4_000] = 1;
        let told = lateness(&late, Duration::from_millis(4));
        assert_eq!((told.p50_ms, told.p99_ms), (0.01, 0.3));
        assert_eq!((told.packets, told.most_ms), (100, 4.0));
        assert_eq!(lateness(&[0; 3], Duration::ZERO), Lateness::default());
    }
}
