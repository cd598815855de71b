//! From the first byte to both `verack`s, and what each side said of itself.

use bitcoin::consensus::serialize;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message_network::VersionMessage;

use super::Peer;
use crate::chain::p2p::kind::Kind;
use crate::chain::p2p::message::{Message, Version, put_send_compact};
use crate::chain::p2p::{
    Advert, CloseReason, Direction, MIN_PEER_VERSION, PROTOCOL_VERSION, PeerCommand, PeerEvent,
    PeerInfo, Refusal, Role,
};
use crate::time::Time;
use std::collections::VecDeque;

/// First version with `wtxidrelay` (BIP339); `sendaddrv2` (BIP155) goes to those only as well, as in Bitcoin Core.
const WTXID_RELAY_VERSION: u32 = 70_016;
/// First version with `feature` (BIP434).
const FEATURE_VERSION: u32 = 70_017;
/// Most commands kept back until the handshake is done.
///
/// Reason: an owner that knows what it does gives none; these are a few announcements that crossed the handshake.
pub(super) const MAX_EARLY_COMMANDS: usize = 16;

/// How far the handshake is, and what it told.
#[derive(Default)]
pub(super) struct Greeting {
    /// What the peer said.
    version: Option<Version>,
    sent_version: bool,
    clock_offset_s: i64,
    advert: Option<Advert>,
    pub(super) wtxid_relay: bool,
    pub(super) address_v2: bool,
    pub(super) prefers_headers: bool,
    /// It gives and takes compact blocks of version 2.
    pub(super) compact: bool,
    pub(super) wants_high_bandwidth: bool,
    pub(super) advertised_late: bool,
    /// A block may be sent to it before it asks.
    pub(super) takes_unasked_blocks: bool,
    done_at: Option<Time>,
    /// Commands that came too early.
    early: VecDeque<PeerCommand>,
}

impl Greeting {
    /// Whether both have said `verack`.
    pub(super) fn is_done(&self) -> bool {
        self.done_at.is_some()
    }

    pub(super) fn done_at(&self) -> Option<Time> {
        self.done_at
    }

    /// Keeps a command back; `false`: there is no room.
    pub(super) fn keep(&mut self, command: PeerCommand) -> bool {
        let has_room = self.early.len() < MAX_EARLY_COMMANDS;
        if has_room {
            self.early.push_back(command);
        }
        has_room
    }
}

impl Peer {
    /// Says `version` if we are the one who speaks first and may speak.
    pub(super) fn greet_first(&mut self) {
        if self.config.direction == Direction::Outbound && self.transport.is_ready() {
            self.send_version();
        } else if !self.transport.is_ready() && self.config.direction == Direction::Outbound {
            // Starts the handshake of the transport: our key goes out before a byte has come.
            self.transport.next(self.output.raw());
        }
    }

    fn send_version(&mut self) {
        if self.greeting.sent_version {
            return;
        }
        self.greeting.sent_version = true;
        let nobody = ([0, 0, 0, 0], 0).into();
        let message = VersionMessage {
            version: PROTOCOL_VERSION,
            services: ServiceFlags::from(self.config.services),
            timestamp: i64::try_from(self.now.as_unix_seconds()).unwrap_or(i64::MAX),
            receiver: Address::new(&self.config.remote, ServiceFlags::NONE),
            sender: Address::new(&nobody, ServiceFlags::from(self.config.services)),
            nonce: self.config.nonce,
            user_agent: self.config.agent.clone(),
            start_height: i32::try_from(self.config.start_height).unwrap_or(i32::MAX),
            relay: self.config.relay_transactions,
        };
        self.send(Kind::Version, serialize(&message));
    }

    /// A message before both `verack`s.
    pub(super) fn handle_greeting(&mut self, message: Message) {
        match message {
            Message::Version(version) => self.handle_version(version),
            // "Must have a version message before anything else" (Bitcoin Core passes over the rest as well).
            _ if self.greeting.version.is_none() => self.refuse(Refusal::Order),
            Message::Verack => self.handle_verack(),
            Message::WtxidRelay => self.greeting.wtxid_relay = self.speaks(WTXID_RELAY_VERSION),
            Message::SendAddrV2 => self.greeting.address_v2 = true,
            // BIP434: "MUST NOT send feature messages to peers that advertise a protocol version number < 70017".
            // We advertise more, so only the sender's own version can be too low.
            Message::Feature(_) if !self.speaks(FEATURE_VERSION) => self.refuse(Refusal::Order),
            Message::Feature(Some(advert)) if self.greeting.advert.is_none() => {
                self.greeting.advert = Some(advert);
            }
            Message::Feature(Some(_)) => self.refuse(Refusal::Duplicate),
            Message::Feature(None) => {}
            Message::Unknown | Message::Unserved => self.count(Refusal::Unknown),
            _ => self.refuse(Refusal::Order),
        }
    }

    fn speaks(&self, version: u32) -> bool {
        self.greeting
            .version
            .as_ref()
            .is_some_and(|theirs| theirs.version >= version)
    }

    fn handle_version(&mut self, version: Version) {
        if self.greeting.version.is_some() {
            return self.refuse(Refusal::Duplicate);
        }
        if version.nonce == self.config.nonce && version.nonce != 0 {
            return self.close(CloseReason::OurselfNonce);
        }
        if version.version < MIN_PEER_VERSION {
            return self.close(CloseReason::TooOld(version.version));
        }
        let now = i64::try_from(self.now.as_unix_seconds()).unwrap_or(i64::MAX);
        self.greeting.clock_offset_s = version.time.saturating_sub(now);
        self.greeting.version = Some(version);
        self.send_version();
        if self.speaks(WTXID_RELAY_VERSION) {
            self.send(Kind::WtxidRelay, Vec::new());
            self.send(Kind::SendAddrV2, Vec::new());
        }
        if let Some(advert) = self.config.advert
            && self.speaks(FEATURE_VERSION)
        {
            self.send(Kind::Feature, advert.to_feature());
        }
        self.send(Kind::Verack, Vec::new());
    }

    fn handle_verack(&mut self) {
        let Some(version) = &self.greeting.version else {
            return;
        };
        let info = PeerInfo {
            version: version.version,
            services: version.services,
            agent: version.agent.clone(),
            start_height: version.start_height,
            advert: self.greeting.advert,
            v2: self.transport.is_v2(),
            relay_transactions: version.relay,
            wtxid_relay: self.greeting.wtxid_relay,
            clock_offset_s: self.greeting.clock_offset_s,
            sees_us_at: version.sees_us_at,
        };
        let claims_flag = version.services & self.config.flag != 0;
        self.greeting.takes_unasked_blocks =
            self.config.role == Role::OurNode && info.takes_unasked_blocks();
        self.greeting.done_at = Some(self.now);
        self.keep_alive.greeted(self.now);
        self.tell(PeerEvent::Ready(info));
        if let Role::Feeler { ask_addresses } = self.config.role {
            if ask_addresses {
                self.ask_addresses();
            } else {
                self.close(CloseReason::FeelerDone);
            }
            return;
        }
        let high_bandwidth = self.config.role == Role::OurNode;
        self.fetches.high_bandwidth = high_bandwidth;
        self.send(Kind::SendCompact, put_send_compact(high_bandwidth));
        self.send(Kind::SendHeaders, Vec::new());
        if let Some(advert) = self.config.advert
            && claims_flag
            && !self.speaks(FEATURE_VERSION)
        {
            self.send(Kind::Advert, advert.to_bytes().to_vec());
        }
        for command in std::mem::take(&mut self.greeting.early) {
            self.obey(command);
        }
    }
}
