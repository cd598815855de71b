//! The network of a lab: a place for each node, and the links between them.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::place::{Place, dropped_by_kernel};
use super::router::Router;
use super::switch::Switch;
use crate::net::Clock;
use crate::sim::Trial;
use crate::sim::scenario::LinkChange;

/// The file through which programs get a TUN device.
const TUN: &str = "/dev/net/tun";
/// Programs that the lab starts besides nodes, and where they come from.
const NEEDED: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("sh", "a shell"),
];

/// Places and links. Dropped, nothing of them is left.
#[derive(Debug)]
pub struct Net {
    /// The links. They end before the places do.
    pub router: Router,
    places: Vec<Place>,
}

impl Net {
    /// Makes places and links of a trial.
    ///
    /// # Errors
    ///
    /// One line: what the system refuses. Nothing half made is left.
    pub fn new(trial: &Trial, congestion: &str, clock: Clock) -> anyhow::Result<Self> {
        let mut places = Vec::new();
        let mut devices = Vec::new();
        for node in 0..trial.plan.nodes {
            let (place, device) = Place::new(trial, node, congestion)?;
            places.push(place);
            devices.push(device);
        }
        let router = Router::start(Switch::new(trial), devices, clock)?;
        Ok(Self { router, places })
    }

    /// The place of a node.
    ///
    /// # Errors
    ///
    /// There is no such node.
    pub fn place(&self, node: usize) -> anyhow::Result<&Place> {
        self.places
            .get(node)
            .with_context(|| format!("there is no node {node}"))
    }

    /// Changes one direction of a link, the route that leads there included.
    ///
    /// # Errors
    ///
    /// The system refuses another route.
    pub async fn change(&self, way: (usize, usize), change: &LinkChange) -> anyhow::Result<()> {
        if let Some(mtu) = change.mtu {
            self.place(way.0)?.set_mtu(way.1, mtu.into()).await?;
        }
        self.router.with(|switch| switch.change(way, change));
        Ok(())
    }

    /// Packets that kernels dropped before the router saw them, in all places.
    ///
    /// # Errors
    ///
    /// A kernel does not say.
    pub async fn dropped_by_kernel(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for place in &self.places {
            sum += place.run(async { dropped_by_kernel() }).await?;
        }
        Ok(sum)
    }
}

/// Whether the system has what a lab needs, before anything is made.
///
/// # Errors
///
/// One line: what is lacking, and what to do.
pub fn check_system() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the lab makes network namespaces, for which it must be root; use tools/lab, or sudo"
        );
    }
    if !Path::new(TUN).exists() {
        bail!(
            "there is no {TUN}: load the module (modprobe tun); in a container, give it the device (--device {TUN}) and the capability NET_ADMIN"
        );
    }
    for (program, package) in NEEDED {
        if !on_path(program) {
            bail!("the lab needs `{program}`, which is not on PATH; install {package}");
        }
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
