//! Outgoing control connections: one attempt, and keeping configured peers connected.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::connection::Stream;
use super::control::{ConnectionId, ControlHub, Direction, Shared, Verdict};
use super::quic::PrivateHub;
use super::{canonical, connection};
use crate::config::PrivatePeer;
use crate::time::Time;

/// How long one attempt to connect may take, name look-up included: what three losses of the first
/// packet cost, after which another attempt later is the better bet.
pub const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried, in the order the system gives.
pub const MAX_ADDRESSES: usize = 4;
/// Peers kept connected: each costs a task and, at worst, an attempt every [`LONGEST_PAUSE`].
pub const MAX_KEPT: usize = 64;
/// The longest name of a target: that of a DNS name and a port.
pub const MAX_TARGET_BYTES: usize = 253 + 6;
/// The pause after a first failure: nodes that start together find each other within a fraction of a
/// second.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: a peer that returns is found within a minute.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A connection that lasted this long was a success: the pauses start again from the first.
pub const STABLE_TIME: Duration = Duration::from_secs(30);
/// Between two warnings of the same trouble with one peer: an operator learns of it at once, and is reminded
/// without having the log filled.
pub const REMINDER_TIME: Duration = Duration::from_secs(3_600);

/// A connection that could not be opened; its display is one line that says what to do.
#[derive(Debug)]
pub struct ConnectError {
    /// The address or name that was tried.
    pub target: String,
    /// Why it failed.
    pub source: io::Error,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot connect to {}: ", self.target)?;
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => self.source.fmt(formatter),
            io::ErrorKind::ConnectionRefused => {
                formatter.write_str("refused; check that a node listens there for control")
            }
            io::ErrorKind::TimedOut => write!(
                formatter,
                "no answer within {} s; check that a node listens there, the address, and the firewalls between",
                CONNECT_TIME.as_secs()
            ),
            _ => write!(formatter, "{}; check the address", self.source),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Why a target is not kept connected; its display is one line.
#[derive(Debug)]
pub enum KeepError {
    /// It is no address and no name with a port.
    Target(ConnectError),
    /// It is kept already.
    Already(String),
    /// [`MAX_KEPT`] are kept.
    TooMany,
    /// The hub has been stopped.
    Stopped,
}

impl fmt::Display for KeepError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(error) => error.fmt(formatter),
            Self::Already(target) => write!(formatter, "{target} is kept connected already"),
            Self::TooMany => write!(formatter, "at most {MAX_KEPT} peers are kept connected"),
            Self::Stopped => formatter.write_str("the node is stopping"),
        }
    }
}

impl std::error::Error for KeepError {}

/// Whether `target` can be an address, or a name, with a port.
pub(super) fn check_target(target: &str) -> Result<(), ConnectError> {
    let named = target.rsplit_once(':').is_some_and(|(name, port)| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        !name.is_empty()
            && name.bytes().all(is_name)
            && port.parse().is_ok_and(|port: u16| port > 0)
    });
    let literal = target
        .parse()
        .is_ok_and(|address: SocketAddr| address.port() > 0);
    if target.len() <= MAX_TARGET_BYTES && (named || literal) {
        return Ok(());
    }
    Err(ConnectError {
        target: target
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_TARGET_BYTES)
            .collect(),
        source: io::Error::new(
            io::ErrorKind::InvalidInput,
            "give an address or a name with a port, such as 192.0.2.1:8433 or [2001:db8::1]:8433",
        ),
    })
}

/// One attempt over TCP.
pub(super) async fn connect(
    shared: &Shared,
    target: &str,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let attempt = async {
        let mut last = no_address();
        for address in look_up(target).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((stream, canonical(address))),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    in_time(shared, target, attempt).await
}

/// The first addresses of a target, in the order the system gives.
pub(super) async fn look_up(target: &str) -> io::Result<impl Iterator<Item = SocketAddr> + use<>> {
    let addresses: Vec<_> = lookup_host(target).await?.take(MAX_ADDRESSES).collect();
    Ok(addresses.into_iter())
}

/// What is told of a name without addresses.
pub(super) fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

/// Gives an attempt [`CONNECT_TIME`], and counts what became of it.
pub(super) async fn in_time<T>(
    shared: &Shared,
    target: &str,
    attempt: impl Future<Output = io::Result<T>>,
) -> Result<T, ConnectError> {
    let result = match timeout(CONNECT_TIME, attempt).await {
        Ok(result) => result,
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    };
    let mut state = shared.state();
    match &result {
        Ok(_) => state.stats.connected += 1,
        Err(_) => state.stats.connect_errors += 1,
    }
    result.map_err(|source| ConnectError {
        target: target.to_owned(),
        source,
    })
}

impl ControlHub {
    /// A name for a connection that is going to be dialled by [`ControlHub::dial`].
    pub fn next_id(&self) -> ConnectionId {
        self.0.new_id()
    }

    /// Dials an address, once and without a word in the log. What is given tells, when the connection has ended or
    /// could not be made, what became of it; the connection lives on if that is dropped.
    pub fn dial(
        &self,
        id: ConnectionId,
        address: SocketAddr,
    ) -> oneshot::Receiver<Result<Verdict, ConnectError>> {
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(&self.0);
        self.0.runtime.spawn(async move {
            let outcome = match connect(&shared, &address.to_string()).await {
                Ok((stream, remote)) => {
                    let (stream, direction) = (Stream::Tcp(stream), Direction::Outbound);
                    let run = connection::run(shared, id, stream, remote, direction);
                    Ok(run.await.await.unwrap_or_default())
                }
                Err(error) => Err(error),
            };
            tell.send(outcome).ok();
        });
        told
    }
}

/// What is known of a target that is kept connected.
#[derive(Debug)]
pub(super) struct Kept {
    /// Dropped with the entry, which ends the task at its next pause.
    _forget: oneshot::Sender<()>,
    /// Why there is no session, if the last attempt failed.
    pub(super) failure: Option<String>,
}

/// Who is kept connected.
#[derive(Debug)]
pub(super) enum Target {
    /// Over TCP: an address or a name with a port.
    Public(String),
    /// Over QUIC: a pinned key besides.
    Private(PrivateHub, PrivatePeer),
}

impl Target {
    /// As it was configured.
    fn name(&self) -> String {
        match self {
            Self::Public(target) => target.clone(),
            Self::Private(_, peer) => peer.to_string(),
        }
    }

    fn address(&self) -> &str {
        match self {
            Self::Public(target) => target,
            Self::Private(_, peer) => &peer.target,
        }
    }

    async fn connect(&self, shared: &Shared) -> Result<(Stream, SocketAddr), ConnectError> {
        match self {
            Self::Public(target) => {
                let (stream, remote) = connect(shared, target).await?;
                Ok((Stream::Tcp(stream), remote))
            }
            Self::Private(hub, peer) => {
                let opened = hub.connect(peer).await?;
                let remote = opened.link().remote();
                Ok((Stream::Quic(Box::new(opened)), remote))
            }
        }
    }
}

/// Starts the task that keeps `target` connected.
pub(super) fn keep(shared: &Arc<Shared>, target: Target) -> Result<(), KeepError> {
    check_target(target.address()).map_err(KeepError::Target)?;
    let name = target.name();
    let forgotten = {
        let mut state = shared.state();
        if state.is_stopped() {
            return Err(KeepError::Stopped);
        }
        if state.kept.contains_key(&name) {
            return Err(KeepError::Already(name));
        }
        if state.kept.len() >= MAX_KEPT {
            return Err(KeepError::TooMany);
        }
        let (forget, forgotten) = oneshot::channel();
        let kept = Kept {
            _forget: forget,
            failure: None,
        };
        state.kept.insert(name, kept);
        forgotten
    };
    let task = dial(Arc::clone(shared), target, forgotten);
    shared.runtime.spawn(task);
    Ok(())
}

impl Shared {
    /// Remembers why a target has no session, or that it has one, for whoever asks.
    fn note_failure(&self, target: &str, failure: Option<String>) {
        if let Some(kept) = self.state().kept.get_mut(target) {
            kept.failure = failure;
        }
    }
}

async fn dial(shared: Arc<Shared>, target: Target, mut forgotten: oneshot::Receiver<()>) {
    let clock = shared.options.clock;
    let mut backoff = Backoff::new(rand::make_rng());
    let mut trouble = Trouble::default();
    let name = target.name();
    loop {
        let attempt = tokio::select! {
            _ = &mut forgotten => return,
            attempt = target.connect(&shared) => attempt,
        };
        match attempt {
            Ok((stream, remote)) => {
                shared.note_failure(&name, None);
                let began = clock.now();
                let id = shared.new_id();
                let fate = match &stream {
                    Stream::Tcp(_) => None,
                    Stream::Quic(opened) => Some(opened.fate()),
                };
                let run =
                    connection::run(Arc::clone(&shared), id, stream, remote, Direction::Outbound);
                let verdict = run.await.await.unwrap_or_default();
                if let Verdict::Never(reason) = verdict {
                    tracing::warn!(peer = name, reason, "not tried again");
                    shared.state().kept.remove(&name);
                    return;
                }
                let refusal = fate.and_then(|fate| fate.refusal());
                match verdict.trouble().map(|reason| refusal.unwrap_or(reason)) {
                    None => trouble.is_over(),
                    Some(reason) => {
                        shared.note_failure(&name, Some(reason.to_owned()));
                        trouble.tell(clock.now(), &name, reason);
                    }
                }
                if clock.now() - began >= STABLE_TIME {
                    backoff.reset();
                }
            }
            Err(error) => {
                let reason = error.to_string();
                trouble.tell(clock.now(), &name, &reason);
                shared.note_failure(&name, Some(reason));
            }
        }
        if shared.events.is_closed() {
            return;
        }
        tokio::select! {
            _ = &mut forgotten => return,
            () = sleep(backoff.pause()) => {}
        }
    }
}

/// What the log has been told of a peer that can't be had.
#[derive(Debug, Default)]
struct Trouble {
    last: Option<(Time, String)>,
}

impl Trouble {
    /// Warns of what is new, and again after [`REMINDER_TIME`].
    fn tell(&mut self, now: Time, target: &str, reason: &str) {
        if self.is_due(now, reason) {
            tracing::warn!(peer = target, reason, "no session; will keep trying");
        } else {
            tracing::debug!(peer = target, reason, "no session");
        }
    }

    /// Whether a warning is due; it counts as given.
    fn is_due(&mut self, now: Time, reason: &str) -> bool {
        let told = self
            .last
            .as_ref()
            .is_some_and(|(time, last)| last == reason && now.since(*time) < REMINDER_TIME);
        if !told {
            self.last = Some((now, reason.to_owned()));
        }
        !told
    }

    /// There was a session: what comes next is new.
    fn is_over(&mut self) {
        self.last = None;
    }
}

/// The pauses between attempts: doubling from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], each drawn from
/// its upper half so that nodes that failed together do not return together.
#[derive(Debug)]
struct Backoff {
    failures: u32,
    random: StdRng,
}

impl Backoff {
    fn new(random: StdRng) -> Self {
        Self {
            failures: 0,
            random,
        }
    }

    fn reset(&mut self) {
        self.failures = 0;
    }

    fn pause(&mut self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        let longest = doubled.min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let half = longest / 2;
        half + half.mul_f64(f64::from(self.random.next_u32()) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let mut backoff = Backoff::new(StdRng::seed_from_u64(1));
        let mut other = Backoff::new(StdRng::seed_from_u64(2));
        let mut expected = FIRST_PAUSE;
        for _ in 0..40 {
            let pause = backoff.pause();
            assert!(
                pause >= expected / 2 && pause <= expected,
                "{pause:?} of {expected:?}"
            );
            assert_ne!(pause, other.pause());
            expected = (expected * 2).min(LONGEST_PAUSE);
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST_PAUSE);
    }

    #[test]
    fn trouble_is_told_when_it_is_new_and_then_rarely() {
        let mut trouble = Trouble::default();
        let at = |seconds: u64| Time::from_unix_seconds(1_000 + seconds);
        assert!(trouble.is_due(at(0), "refused"));
        assert!(!trouble.is_due(at(3_599), "refused"));
        assert!(trouble.is_due(at(3_600), "refused"));
        assert!(trouble.is_due(at(3_601), "other network"));
        trouble.is_over();
        assert!(trouble.is_due(at(3_602), "other network"));
    }

    #[test]
    fn targets_are_addresses_or_names_with_a_port() {
        for good in [
            "127.0.0.1:1",
            "[::1]:8433",
            "relay.example.org:65535",
            "localhost:8433",
        ] {
            assert!(check_target(good).is_ok(), "{good}");
        }
        let long = format!("{}:1", "a".repeat(300));
        for bad in [
            "",
            "127.0.0.1",
            "127.0.0.1:0",
            "name",
            "name:",
            ":1",
            "a b:1",
            "::1",
            "n:70000",
            &long,
        ] {
            let line = check_target(bad).expect_err(bad).to_string();
            assert!(
                line.contains("give an address") && line.len() < 400,
                "{line}"
            );
        }
    }
}
