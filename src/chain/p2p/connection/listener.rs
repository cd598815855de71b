//! Taking connections, so many in all and so many from one part of the network.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// How long accepting rests after a failure that is not one connection's (no descriptors left).
const PAUSE: Duration = Duration::from_millis(500);

/// How many inbound connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundLimits {
    /// In all. 64 by default: each may hold a few megabytes (see [`super::super::MAX_INPUT_BYTES`]).
    pub total: usize,
    /// From one group: a /16 of IPv4, a /32 of IPv6. 8 by default, so that one provider's machines cannot take
    /// every place. Addresses of this machine have no groups.
    pub per_group: usize,
}

impl Default for InboundLimits {
    fn default() -> Self {
        Self {
            total: 64,
            per_group: 8,
        }
    }
}

/// A listening socket with limits. A connection beyond them is closed at once.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    limits: InboundLimits,
    taken: Arc<Mutex<Taken>>,
}

/// A connection that was taken.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub stream: TcpStream,
    /// Its other end; never an IPv4 address in IPv6's clothes.
    pub remote: SocketAddr,
    /// Its place among the limits, given back when dropped.
    pub place: Place,
}

/// A place for a connection.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    group: Option<u32>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_group: BTreeMap<u32, usize>,
    refused: u64,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// The system's.
    pub async fn bind(address: SocketAddr, limits: InboundLimits) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(address).await?,
            limits,
            taken: Arc::default(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// How many connections were refused because of the limits.
    pub fn refused(&self) -> u64 {
        lock(&self.taken).refused
    }

    /// The next connection within the limits. May be dropped and called again at any time.
    pub async fn accept(&self) -> Accepted {
        loop {
            match self.socket.accept().await {
                Ok((stream, remote)) => {
                    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                    if let Some(place) = self.admit(remote.ip()) {
                        return Accepted {
                            stream,
                            remote,
                            place,
                        };
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, remote: IpAddr) -> Option<Place> {
        let group = group(remote);
        let mut taken = lock(&self.taken);
        let of_group = group.and_then(|group| taken.by_group.get(&group).copied());
        if taken.total >= self.limits.total || of_group.unwrap_or(0) >= self.limits.per_group {
            taken.refused += 1;
            return None;
        }
        taken.total += 1;
        if let Some(group) = group {
            *taken.by_group.entry(group).or_default() += 1;
        }
        Some(Place {
            taken: Arc::clone(&self.taken),
            group,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.total -= 1;
        if let Some(group) = self.group
            && let Some(count) = taken.by_group.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_group.remove(&group);
            }
        }
    }
}

/// Counters stay right even if somebody panicked while holding them: no step leaves them half done.
fn lock(taken: &Mutex<Taken>) -> std::sync::MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of the network that an address is in; IPv4 and IPv6 never meet (2000::/3 starts above). `None`: this
/// machine.
fn group(address: IpAddr) -> Option<u32> {
    match address {
        _ if address.is_loopback() => None,
        IpAddr::V4(ip) => Some(u32::from_be_bytes(ip.octets()) >> 16),
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            Some(u32::from(first) << 16 | u32::from(second))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_limited_and_given_back() {
        let limits = InboundLimits {
            total: 5,
            per_group: 2,
        };
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).await;
        let listener = listener.expect("loopback can be listened on");
        let admit = |text: &str| listener.admit(text.parse().expect("an address"));
        let first = admit("10.1.0.1");
        let second = admit("10.1.255.1");
        assert!(first.is_some() && second.is_some());
        assert!(admit("10.1.3.3").is_none());
        let third = admit("10.2.3.3");
        drop(first);
        let fourth = admit("10.1.3.3");
        let here: Vec<_> = (0..3).map(|_| admit("127.0.0.1")).collect();
        assert!(third.is_some() && fourth.is_some());
        assert_eq!(here.iter().flatten().count(), 2);
        assert_eq!(listener.refused(), 2);
        drop((second, third, fourth, here));
        assert_eq!(lock(&listener.taken).total, 0);
        assert!(lock(&listener.taken).by_group.is_empty());
    }
}
