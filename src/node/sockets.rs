//! The sockets of a node, bound before anything runs, and where they are.

use std::net::TcpListener as StdListener;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use tokio::net::TcpListener;

use super::datadir::Addresses;
use super::{keys, settings};
use crate::chain::p2p::connection::Listener;
use crate::config::{Config, ElectrumAddress, TestOptions};
use crate::net::control::BoundControl;
use crate::net::{BoundUdp, LinkOptions, SharedUplink, UdpOptions, Uplink};

/// The sockets of a node, bound.
pub struct Sockets {
    pub control: BoundControl,
    pub data: BoundUdp,
    pub rpc: StdListener,
    pub private: Option<keys::BoundPrivate>,
    pub uplink: Option<SharedUplink>,
}

/// Binds what peers and callers connect to.
///
/// # Errors
///
/// One line that says what to do.
pub fn bind(config: &Config, folder: &Path) -> anyhow::Result<Sockets> {
    let uplink = uplink(&config.test)?;
    let defaults = settings::defaults(config.network);
    let control_address = config.control_listen.unwrap_or(defaults.control);
    let control = BoundControl::bind(control_address)?;
    let options = UdpOptions {
        uplink: uplink.clone(),
        ..UdpOptions::default()
    };
    let data = match config.data_listen {
        Some(address) => BoundUdp::bind(address, options)?,
        None => {
            let same = BoundUdp::bind(control.local_addr(), options.clone());
            match control_address.port() {
                // The number that the system picked for TCP may be taken for UDP.
                0 => same.or_else(|_| BoundUdp::bind(control_address, options))?,
                _ => same?,
            }
        }
    };
    let rpc_address = config.rpc_listen.unwrap_or(defaults.rpc);
    let rpc = StdListener::bind(rpc_address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow!(
            "cannot listen on {rpc_address} (RPC): the port is in use; stop the program that has it or choose another with --rpc-listen"
        ),
        _ => anyhow!("cannot listen on {rpc_address} (RPC): {error}; choose another with --rpc-listen"),
    })?;
    rpc.set_nonblocking(true)?;
    let private = keys::bind(config, data.local_addr(), folder)?;
    Ok(Sockets {
        control,
        data,
        rpc,
        private,
        uplink,
    })
}

/// Where the sockets listen.
///
/// # Errors
///
/// The system does not say.
pub fn addresses(
    config: &Config,
    sockets: &Sockets,
    rpc: &TcpListener,
    p2p: Option<&Listener>,
    electrum: Vec<ElectrumAddress>,
) -> anyhow::Result<Addresses> {
    Ok(Addresses {
        pid: std::process::id(),
        network: config.network.to_string(),
        control: sockets.control.local_addr(),
        data: sockets.data.local_addr(),
        rpc: rpc.local_addr()?,
        p2p: p2p.map(Listener::local_addr).transpose()?,
        quic: keys::listens_at(config, sockets.private.as_ref()),
        electrum,
    })
}

/// The link that the test options ask for.
fn uplink(test: &TestOptions) -> anyhow::Result<Option<SharedUplink>> {
    let delay_ms = test.emulate_delay_ms.unwrap_or(0.0);
    let options = LinkOptions {
        loss_percent: test.emulate_loss.unwrap_or(0.0),
        delay: Duration::from_secs_f64(delay_ms / 1e3),
        rate_bits_per_s: test
            .emulate_rate_mbit
            .map(|mbit| (mbit * 1e6).round() as u64),
        queue_bytes: None,
    };
    if options.is_transparent() {
        return Ok(None);
    }
    let uplink = Uplink::new(options, test.emulate_seed.unwrap_or(0))?;
    Ok(Some(SharedUplink::new(uplink)))
}
