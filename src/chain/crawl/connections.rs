//! The connections there are and the dials under way, as far as they matter for what to do next.

use std::collections::BTreeMap;

use super::{ConnectionKey, Purpose};
use crate::chain::addrbook::Address;
use crate::time::Time;

/// What a connection is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A relay that we chose.
    Relay,
    /// An ordinary peer, for its gossip.
    Gossip,
    /// Somebody looked at.
    Feeler,
    /// A relay that came by itself, or that the operator named.
    Other,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub kind: Kind,
    pub address: Option<Address>,
    pub opened: Time,
    /// It was asked for addresses.
    pub asked: bool,
    /// When to tell it our address next.
    pub announce_at: Option<Time>,
    /// It claims the flag and has not shown that it is a relay.
    pub unproven: bool,
    /// Its host is known, and not where it takes connections.
    pub by_host: bool,
}

impl Connection {
    pub(super) const fn new(kind: Kind, address: Option<Address>, opened: Time) -> Self {
        Self {
            kind,
            address,
            opened,
            asked: false,
            announce_at: None,
            unproven: false,
            by_host: false,
        }
    }

    /// Whether it has not been asked and is to be; feelers ask by themselves, or not.
    pub(super) const fn is_unasked(&self) -> bool {
        !self.asked && !matches!(self.kind, Kind::Feeler)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: BTreeMap<ConnectionKey, Connection>,
    pub dialling: BTreeMap<Address, Purpose>,
}

impl Connections {
    pub(super) fn insert(&mut self, key: ConnectionKey, connection: Connection) {
        self.open.insert(key, connection);
    }

    pub(super) fn remove(&mut self, key: ConnectionKey) -> Option<Connection> {
        self.open.remove(&key)
    }

    pub(super) fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.open.get_mut(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.open.values()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (ConnectionKey, &mut Connection)> {
        self.open.iter_mut().map(|(key, one)| (*key, one))
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        self.iter().filter(|one| one.kind == kind).count()
    }

    /// Those who speak the relay's protocol.
    pub(super) fn relays(&self) -> impl Iterator<Item = ConnectionKey> {
        let speaks = |kind| matches!(kind, Kind::Relay | Kind::Other);
        let relays = self.open.iter().filter(move |(_, one)| speaks(one.kind));
        relays.map(|(key, _)| *key)
    }

    /// Dials under way for which `is_it` holds.
    pub(super) fn count_dials(&self, is_it: impl Fn(&Purpose) -> bool) -> usize {
        self.dialling.values().filter(|one| is_it(one)).count()
    }

    /// The oldest of a kind, and since when it is there.
    pub(super) fn oldest(&self, kind: Kind) -> Option<(ConnectionKey, Time)> {
        let of_kind = self.open.iter().filter(|(_, one)| one.kind == kind);
        of_kind
            .map(|(key, one)| (*key, one.opened))
            .min_by_key(|(key, opened)| (*opened, *key))
    }
}
