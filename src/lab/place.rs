//! A place for the programs of one node: a network namespace of its own, with one device that leads to the router.
//!
//! The namespace has no name and no file. It lives as long as the thread that made it, the device and the programs in it,
//! so that nothing of it is left behind whatever way the lab ends.
//!
//! Everything that a place's programs are asked and told goes through its thread: what that thread starts (programs,
//! threads, connections) is inside the namespace.

use std::future::Future;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::switch::address_of;
use crate::sim::Trial;
use crate::sim::scenario::ScenarioError;
use crate::study::source::senseless;

/// The name of the device, inside the namespace.
const DEVICE: &str = "lab0";
/// Packets that wait in the kernel for the router, at most: more than the router leaves waiting at its worst.
const DEVICE_QUEUE: u32 = 10_000;
/// Where the kernel says which congestion control its TCP has unless told otherwise.
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// Where it says which there are.
const CONGESTIONS: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
/// What is set in a namespace: no IPv6, whose own talk would only be dropped, and no memory of earlier connections.
const SETTINGS: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
    ("/proc/sys/net/ipv4/tcp_no_metrics_save", "1"),
];
/// Stack of a place's thread: it starts programs and calls them.
const STACK_BYTES: usize = 1 << 20;

/// A node's namespace. Dropped, it ends its thread, and everything that runs on it.
#[derive(Debug)]
pub struct Place {
    plan: Plan,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What a place is to be like.
#[derive(Clone, Debug)]
struct Plan {
    node: usize,
    /// Its neighbours, and the largest packet towards each.
    neighbours: Vec<(usize, usize)>,
    /// The largest packet towards any of them at any time.
    largest: usize,
    congestion: String,
}

impl Place {
    /// Makes the place of a node, and the device through which the router gets and gives its packets.
    ///
    /// # Errors
    ///
    /// One line: what the system refuses.
    pub fn new(trial: &Trial, node: usize, congestion: &str) -> anyhow::Result<(Self, SyncDevice)> {
        let mut neighbours = Vec::new();
        for (&(low, high), [forth, back]) in trial.plan.edges.iter().zip(&trial.links) {
            if low == node {
                neighbours.push((high, forth.mtu));
            } else if high == node {
                neighbours.push((low, back.mtu));
            }
        }
        let events = trial.scenario.event.iter();
        let later = events.flat_map(|event| [event.link.mtu, event.back.mtu]);
        let later = later.flatten().map(usize::from);
        let now = neighbours.iter().map(|(_, mtu)| *mtu);
        let plan = Plan {
            node,
            largest: now.chain(later).max().unwrap_or(1_500),
            neighbours,
            congestion: congestion.to_owned(),
        };
        let theirs = plan.clone();
        let (made, is_made) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("lab-{node}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let (runtime, device) = match inhabit(&theirs) {
                    Ok(place) => place,
                    Err(error) => {
                        let _ = made.send(Err(error));
                        return;
                    }
                };
                let (stop, stopped) = oneshot::channel();
                let handle = runtime.handle().clone();
                if made.send(Ok((handle, stop, device))).is_ok() {
                    let _ = runtime.block_on(stopped);
                }
                // A call to a program that hangs may still be waiting.
                runtime.shutdown_background();
            })
            .context("the system gives no thread")?;
        let made = is_made
            .recv()
            .map_err(|_| anyhow!("the thread of a place has ended"))?;
        let (handle, stop, device) = made.with_context(|| format!("no place for node {node}"))?;
        let place = Self {
            plan,
            handle,
            stop: Some(stop),
            thread: Some(thread),
        };
        Ok((place, device))
    }

    /// Does something inside the namespace.
    ///
    /// # Errors
    ///
    /// What it says, or that the place has ended.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.spawn(work)
            .await
            .context("the place of a node has ended")?
    }

    /// Changes how long packets to a neighbour may be.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub async fn set_mtu(&self, neighbour: usize, mtu: usize) -> anyhow::Result<()> {
        let script = format!("route change {}\n", route(&self.plan, neighbour, mtu));
        self.run(async move { configure(&script) }).await
    }

    /// Begins something inside the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(work)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was told where it happened.
            let _ = thread.join();
        }
    }
}

/// Makes a namespace of this thread's own, and what is in it.
fn inhabit(plan: &Plan) -> anyhow::Result<(tokio::runtime::Runtime, SyncDevice)> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("the system gives no network namespace; run as root (tools/lab does)")?;
    let device = DeviceBuilder::new()
        .name(DEVICE)
        .build_sync()
        .context("the system gives no TUN device; run as root, with /dev/net/tun")?;
    device
        .set_nonblocking(true)
        .context("can't set up the TUN device")?;
    for (file, value) in SETTINGS {
        // A kernel without IPv6 has nothing to be turned off.
        let _ = std::fs::write(file, value);
    }
    configure(&script(plan)).map_err(|error| match error.to_string().contains("congestion") {
        true => no_congestion(&plan.congestion).into(),
        false => error,
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start threads")?;
    Ok((runtime, device))
}

/// What `ip` is to do. A neighbour's route says how long its packets may be, so that TCP keeps to it; whoever probes
/// the path itself may send more, and learns by loss. It also has the congestion control: as the default of a namespace the
/// kernel only takes those of net.ipv4.tcp_allowed_congestion_control, which belongs to the whole machine.
fn script(plan: &Plan) -> String {
    let largest = plan.largest;
    let own = address_of(plan.node);
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link set {DEVICE} mtu {largest} txqueuelen {DEVICE_QUEUE} up"),
        format!("address add {own}/32 dev {DEVICE}"),
    ];
    for (node, mtu) in &plan.neighbours {
        lines.push(format!("route add {}", route(plan, *node, *mtu)));
    }
    lines.join("\n") + "\n"
}

fn route(plan: &Plan, neighbour: usize, mtu: usize) -> String {
    let (own, to) = (address_of(plan.node), address_of(neighbour));
    let congestion = &plan.congestion;
    format!("{to}/32 dev {DEVICE} src {own} mtu {mtu} congctl {congestion}")
}

fn configure(script: &str) -> anyhow::Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't start `ip`; install iproute2")?;
    if let Some(mut stdin) = ip.stdin.take() {
        stdin
            .write_all(script.as_bytes())
            .context("`ip` takes nothing")?;
    }
    let output = ip.wait_with_output().context("`ip` does not end")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("nothing");
        bail!("`ip` can't set up a namespace; it says: {first}");
    }
    Ok(())
}

/// That there is no congestion control of that name, and which there are.
fn no_congestion(name: &str) -> ScenarioError {
    let known = std::fs::read_to_string(CONGESTIONS).unwrap_or_default();
    let known: Vec<&str> = known.split_whitespace().collect();
    let known = known.join(", ");
    senseless(format!(
        "--congestion {name}: this kernel has none of that name; give one of {known}, or load another's module (modprobe tcp_{name})"
    ))
}

/// The congestion control that TCP has here unless told otherwise.
///
/// # Errors
///
/// The kernel does not say.
pub fn default_congestion() -> anyhow::Result<String> {
    let name = std::fs::read_to_string(CONGESTION)
        .context("the kernel does not tell its congestion control")?;
    Ok(name.trim().to_owned())
}

/// Packets that the kernel dropped on its side of a place's device, which the router never saw; to be asked inside.
///
/// # Errors
///
/// The kernel does not say.
pub fn dropped_by_kernel() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")
        .context("the kernel does not tell what devices dropped")?;
    Ok(dropped_of(&text).unwrap_or(0))
}

/// The packets that were not sent: the twelfth number behind the device's name.
fn dropped_of(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'))?;
    line.split_whitespace().nth(11)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_neighbour_has_a_route_with_its_largest_packet() {
        let plan = Plan {
            node: 1,
            neighbours: vec![(0, 1_500), (2, 1_280)],
            largest: 1_500,
            congestion: "cubic".to_owned(),
        };
        let script = script(&plan);
        assert!(script.contains("address add 10.2.0.1/32 dev lab0\n"));
        assert!(script.contains("link set lab0 mtu 1500 txqueuelen"));
        assert!(
            script
                .ends_with("route add 10.3.0.1/32 dev lab0 src 10.2.0.1 mtu 1280 congctl cubic\n")
        );
    }

    #[test]
    fn the_kernel_says_what_it_dropped() {
        let text = "Inter-|   Receive  |  Transmit\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12\n  lab0: 900 9 0 0 0 0 0 0 700 7 0 42 0 0 0 0\n";
        assert_eq!(dropped_of(text), Some(42));
        assert_eq!(dropped_of("lo: 1"), None);
    }
}
