//! What the configuration says of this side.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::anyhow;
use bitcoin::p2p::ServiceFlags;

use super::dial::Identity;
use crate::chain::Network;
use crate::chain::p2p::Advert;
use crate::chain::p2p::connection::{InboundLimits, Listener};
use crate::config::{Config, ListenOrOff};
use crate::node::datadir::Addresses;

/// Who we are on Bitcoin's P2P network: a node that has the last two days of blocks, and speaks this protocol too.
pub fn identity(config: &Config, agent: &str, addresses: &Addresses, nonce: u64) -> Identity {
    let flag = 1 << config.service_bit;
    let usual = ServiceFlags::WITNESS | ServiceFlags::NETWORK_LIMITED | ServiceFlags::P2P_V2;
    Identity {
        services: usual.to_u64() | flag,
        flag,
        agent: agent.to_owned(),
        advert: Advert {
            version: crate::wire::PROTOCOL_VERSION,
            control_port: addresses.control.port(),
            data_port: addresses.data.port(),
        },
        nonce,
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
    let listener = Listener::bind(address, InboundLimits::default()).await;
    listener.map(Some).map_err(|error| {
        anyhow!("cannot listen on {address} (Bitcoin P2P): {error}; choose another with --p2p-listen, or `off`")
    })
}
