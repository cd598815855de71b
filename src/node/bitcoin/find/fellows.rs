//! Blocks from fellow relays by Bitcoin's own protocol: what is too old for a job, or of which nobody else is left to
//! ask. A relay tells in its handshake where it speaks that protocol (SET_PARAMS key 10, PRM-4), so it can be dialled
//! there while the session lasts.
//!
//! Without a Bitcoin node of the operator the headers come this way as well.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::chain::p2p::{PeerCommand, Role, V2};
use crate::node::bitcoin::desk::Desk;
use crate::node::bitcoin::peers::{Kind, Peer, PeerNumber};
use crate::time::Time;

/// Fellow relays connected at once by Bitcoin's protocol.
///
/// Reason: one may lack the block as well, or be slow; each is asked to send megabytes.
const MAX_FELLOWS: usize = 3;
/// A fellow with whom no connection came about is not dialled again sooner.
const PAUSE: Duration = Duration::from_secs(30);
/// One whose connection has ended, as it does with the session, may be needed in the next one.
const PAUSE_MET: Duration = Duration::from_secs(1);
/// A connection that nothing was wanted of for so long ends.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// What an operator does about a node that nobody gives headers: private links bring none.
pub const CATCH_UP_ADVICE: &str =
    "give this node --bitcoind, or --connect to the public port of a relay";

/// Which fellow relays were dialled by Bitcoin's protocol.
#[derive(Debug, Default)]
pub struct Fellows {
    /// Connections, and dials under way.
    open: BTreeSet<SocketAddr>,
    /// When an ended one may be tried again.
    resting: BTreeMap<SocketAddr, Time>,
    /// When a block was last wanted that nobody else had.
    needed: Option<Time>,
    deadline: Option<Time>,
}

impl Fellows {
    /// A connection has ended, after a handshake or without.
    pub fn closed(&mut self, remote: SocketAddr, met: bool, now: Time) {
        self.open.remove(&remote);
        self.resting.retain(|_, until| *until > now);
        let pause = if met { PAUSE_MET } else { PAUSE };
        self.resting.insert(remote, now + pause);
    }

    /// Whom to dial next of those at `doors`; if there is somebody only later, that becomes the deadline.
    fn next(&mut self, doors: &BTreeSet<SocketAddr>, now: Time) -> Option<SocketAddr> {
        let closed = doors.iter().filter(|door| !self.open.contains(door));
        let rested = |door: &&SocketAddr| self.resting.get(door).is_none_or(|at| *at <= now);
        let (ready, resting): (Vec<&SocketAddr>, Vec<&SocketAddr>) = closed.partition(rested);
        if let Some(door) = ready.first() {
            return Some(**door);
        }
        let again = resting.iter().filter_map(|door| self.resting.get(door));
        self.deadline = self.deadline.into_iter().chain(again.min().copied()).min();
        None
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }
}

impl Desk {
    /// A block can't be judged before the headers below it are here: they are asked of the nodes and of fellows, who
    /// have them as a rule. Whether anybody is asked, or is going to be.
    pub fn lack_headers(&mut self) -> bool {
        self.finder.fellows.needed = Some(self.now());
        self.ask_headers() || !self.doors().is_empty()
    }

    /// The engine has met a block on headers that are not known here.
    pub fn fall_behind(&mut self) {
        if !self.lack_headers()
            && let Some(more) = self.lines.behind.turn()
        {
            tracing::warn!(
                "peers relay blocks on headers that are not known here, and nobody can be asked for them; {CATCH_UP_ADVICE}{more}"
            );
        }
    }

    /// Dials fellow relays while there is need of them, and lets them go afterwards.
    pub(super) fn seek_fellows(&mut self, now: Time) {
        if self.fetches.is_any_missed() {
            self.finder.fellows.needed = Some(now);
        }
        let needed = self.finder.fellows.needed;
        let end = needed.map(|at| at + IDLE_TIME).filter(|end| *end > now);
        self.finder.fellows.deadline = end;
        let wanted = match end {
            Some(_) => MAX_FELLOWS,
            // Whoever has no Bitcoin node hears of headers by one of them.
            None if self.links.is_empty() => 1,
            None => 0,
        };
        let doors = self.doors();
        let held = self.held(&doors);
        while self.finder.fellows.open.len() + held.len() < wanted {
            let free = doors.difference(&held).copied().collect();
            let Some(remote) = self.finder.fellows.next(&free, now) else {
                break;
            };
            tracing::debug!(%remote, "dialling a fellow relay by Bitcoin's protocol");
            self.finder.fellows.open.insert(remote);
            self.dial(Kind::Relay, remote, Role::Relay, V2::Try);
        }
        self.leave_fellows(&doors, wanted);
    }

    /// Where the relays that there are sessions with speak Bitcoin's protocol.
    fn doors(&self) -> BTreeSet<SocketAddr> {
        let sessions = self.finder.sessions.values();
        let doors = sessions.filter_map(|view| {
            let port = view.doors.bitcoin_port;
            (port != 0).then(|| SocketAddr::new(view.remote.ip(), port))
        });
        doors.collect()
    }

    /// Those of them who are connected for their addresses anyway: they can be asked for blocks as well.
    fn held(&self, doors: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
        let gossip = self.peers.iter().filter(|(_, it)| it.kind == Kind::Gossip);
        let remotes = gossip.map(|(_, peer)| peer.remote);
        remotes.filter(|it| doors.contains(it)).collect()
    }

    /// Lets those go that are too many, or with whom there is no session any more.
    fn leave_fellows(&mut self, doors: &BTreeSet<SocketAddr>, keep: usize) {
        let is_fellow = |peer: &Peer| peer.kind == Kind::Relay && !peer.is_leaving;
        let fellows = self.peers.iter().filter(|(_, peer)| is_fellow(peer));
        let (near, gone): (Vec<_>, Vec<_>) = fellows
            .map(|(number, peer)| (number, peer.remote))
            .partition(|(_, remote)| doors.contains(remote));
        let leave: Vec<PeerNumber> = near.iter().skip(keep).chain(&gone).map(|it| it.0).collect();
        for number in leave {
            if let Some(peer) = self.peers.get_mut(number) {
                peer.is_leaving = true;
            }
            let why = "nothing more is wanted";
            self.peers.send(number, PeerCommand::Disconnect(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_dialled_once_and_again_after_a_rest() {
        let at = |seconds: u64| Time::from_unix_seconds(1_000 + seconds);
        let [a, b] = ["1.2.3.4:1", "1.2.3.4:2"].map(|it| it.parse::<SocketAddr>().unwrap());
        let doors = BTreeSet::from([a, b]);
        let mut fellows = Fellows::default();
        assert_eq!(fellows.next(&doors, at(0)), Some(a));
        fellows.open.insert(a);
        assert_eq!(fellows.next(&doors, at(0)), Some(b));
        fellows.closed(a, false, at(0));
        fellows.open.insert(b);
        assert_eq!(fellows.next(&doors, at(29)), None);
        assert_eq!(fellows.deadline(), Some(at(30)));
        assert_eq!(fellows.next(&doors, at(30)), Some(a));
        fellows.open.insert(a);
        fellows.closed(b, true, at(30));
        assert_eq!(fellows.next(&doors, at(30)), None);
        assert_eq!(fellows.next(&doors, at(31)), Some(b));
    }
}
