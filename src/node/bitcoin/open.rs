//! What the configuration says of this side.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::anyhow;
use bitcoin::p2p::ServiceFlags;

use super::dial::Identity;
use super::find::{MAX_INBOUND, Ports};
use crate::chain::Network;
use crate::chain::p2p::Advert;
use crate::chain::p2p::connection::{InboundLimits, Listener};
use crate::config::{Config, ListenOrOff};
use crate::node::datadir::Addresses;

/// Connections above those that stay: newcomers for whom others make room just now.
const SPARE_PLACES: usize = 8;

/// Who we are on Bitcoin's P2P network: a node that has the last two days of blocks, and speaks this protocol too.
pub fn identity(config: &Config, agent: &str, addresses: &Addresses, nonce: u64) -> Identity {
    let flag = 1 << config.service_bit;
    let ports = ports(config, addresses);
    // Who does not want to be found says that nothing listens (DSC-3).
    let told = |port: u16| if config.find.is_on { port } else { 0 };
    let usual = ServiceFlags::WITNESS | ServiceFlags::NETWORK_LIMITED | ServiceFlags::P2P_V2;
    Identity {
        services: usual.to_u64() | flag,
        flag,
        agent: agent.to_owned(),
        advert: Advert {
            version: crate::wire::PROTOCOL_VERSION,
            control_port: told(ports.control),
            data_port: told(ports.data),
        },
        nonce,
    }
}

/// The ports at which others reach this node; 0 where it listens to this machine alone, unless all are on it.
pub fn ports(config: &Config, addresses: &Addresses) -> Ports {
    let reached = |address: SocketAddr| match address.ip().is_loopback() {
        true if !config.find.private_addresses => 0,
        _ => address.port(),
    };
    Ports {
        control: reached(addresses.control),
        data: reached(addresses.data),
        bitcoin: addresses.p2p.map_or(0, reached),
    }
}

/// Listens for the Bitcoin P2P protocol, if that is wanted.
///
/// # Errors
///
/// One line that says what to do.
pub async fn listen(config: &Config, network: Network) -> anyhow::Result<Option<Listener>> {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, network.p2p_port()));
    let address = match config.p2p_listen {
        Some(ListenOrOff::Off) => return Ok(None),
        Some(ListenOrOff::At(address)) => address,
        None => everywhere,
    };
    let usual = InboundLimits::default();
    let limits = InboundLimits {
        total: MAX_INBOUND + SPARE_PLACES,
        ..usual
    };
    let listener = Listener::bind(address, limits).await;
    listener.map(Some).map_err(|error| {
        anyhow!("cannot listen on {address} (Bitcoin P2P): {error}; choose another with --p2p-listen, or `off`")
    })
}
