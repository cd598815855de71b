//! What the rest of the node may know of the sessions: which are open, as a state that is always the newest, and
//! what peers say of other nodes, as messages of which some may be lost.
//!
//! The engine's thread never waits for whoever reads this: the state replaces itself, and the messages are dropped
//! where there is no room for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::sync::{mpsc, watch};

use crate::net::{ConnectionId, Direction};
use crate::relay::{Doors, SessionId};
use crate::wire::PeerAddress;

/// What peers tell and ask, on the way: ten peers' answers; what finds no room is lost, and peers ask once.
const MAX_TALK: usize = 64;

/// An open session: its handshake is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its control connection.
    pub connection: ConnectionId,
    /// The other end of that.
    pub remote: SocketAddr,
    /// Who opened it.
    pub direction: Direction,
    /// Where the peer says that it can be reached.
    pub doors: Doors,
}

/// All open sessions.
pub type OpenSessions = BTreeMap<SessionId, SessionView>;

/// What a peer says of other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressTalk {
    /// It tells of some, at most 100 (BTADDR).
    Told(SessionId, Vec<PeerAddress>),
    /// It asks for some (BTGETADDR).
    Asked(SessionId),
}

/// The engine's end.
#[derive(Debug)]
pub struct SessionsOut {
    open: watch::Sender<OpenSessions>,
    talk: mpsc::Sender<AddressTalk>,
}

/// The end of whoever looks for peers.
#[derive(Debug)]
pub struct SessionsIn {
    /// The open sessions.
    pub open: watch::Receiver<OpenSessions>,
    /// What they say.
    pub talk: mpsc::Receiver<AddressTalk>,
}

/// Both ends.
pub fn sessions() -> (SessionsOut, SessionsIn) {
    let (open, read_open) = watch::channel(OpenSessions::new());
    let (talk, read_talk) = mpsc::channel(MAX_TALK);
    let ends = SessionsIn {
        open: read_open,
        talk: read_talk,
    };
    (SessionsOut { open, talk }, ends)
}

impl SessionsOut {
    /// A session is open.
    pub fn up(&self, session: SessionId, view: SessionView) {
        self.open.send_modify(|open| {
            open.insert(session, view);
        });
    }

    /// A session has ended, if it was open.
    pub fn down(&self, session: SessionId) {
        self.open
            .send_if_modified(|open| open.remove(&session).is_some());
    }

    /// A peer has spoken of other nodes.
    pub fn say(&self, talk: AddressTalk) {
        // Whoever should listen has stopped, or is flooded: then a little less of the flood is as good.
        self.talk.try_send(talk).ok();
    }
}
