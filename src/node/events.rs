//! What happened, as it leaves the engine's thread: for the log, and for whoever watches live.
//!
//! With `--events-stdout` each is a line of JSON on stdout. Every line has `t_us`, microseconds since the Unix
//! epoch, and `event`:
//!
//! | event | further members |
//! | --- | --- |
//! | `ready` | `control data rpc p2p quic electrum`: the addresses listened on |
//! | `session` | `session addr private agent`: a handshake is done; whether over a private link |
//! | `session_down` | `session addr private reason established`: whether its handshake had been done |
//! | `path` | `session addr udp`: data goes over UDP from now on, or no longer |
//! | `addresses` | `session addr count`: a peer told of other nodes |
//! | `addresses_wanted` | `session addr`: a peer asks for other nodes |
//! | `job` | `job height transactions chunks from` |
//! | `chunk` | `job chunk chunks from session`: the session that sent it, or whose short ids named it |
//! | `complete` | `job height bytes elapsed_us local` |
//! | `closed` | `job reason` |
//! | `refused` | `session addr reason score` |
//! | `dropped` | `count`: so many lines before the next one were lost, for they were not read in time |
//!
//! `from` is `local`, `mempool`, or the peer's address as in `getpeerinfo`; `session` its `id` there; `job` the hash of the block.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::engine::Hash;
use super::rpc::hash_text;
use crate::config::ElectrumAddress;
use crate::relay::{Event, SessionId, Source};
use crate::time::Time;

/// News, when it happened, and how many before it were lost.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// When.
    pub time: Time,
    /// What.
    pub news: News,
    /// How many before it could not be handed over.
    pub dropped_before: u64,
}

/// What happened, in plain values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the table above says what the members are")]
pub enum News {
    /// The node listens.
    Ready {
        control: SocketAddr,
        data: SocketAddr,
        rpc: SocketAddr,
        #[serde(skip_serializing_if = "Option::is_none")]
        p2p: Option<SocketAddr>,
        #[serde(skip_serializing_if = "Option::is_none")]
        quic: Option<SocketAddr>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        electrum: Vec<ElectrumAddress>,
    },
    /// A handshake is done.
    Session {
        session: u64,
        addr: Option<SocketAddr>,
        private: bool,
        agent: String,
    },
    /// A session has ended.
    SessionDown {
        session: u64,
        addr: Option<SocketAddr>,
        private: bool,
        reason: &'static str,
        established: bool,
    },
    /// Data goes another way.
    Path {
        session: u64,
        addr: Option<SocketAddr>,
        udp: bool,
    },
    /// A peer told of other nodes.
    Addresses {
        session: u64,
        addr: Option<SocketAddr>,
        count: usize,
    },
    /// A peer asks for other nodes.
    AddressesWanted {
        session: u64,
        addr: Option<SocketAddr>,
    },
    /// A block is being received or served.
    Job {
        job: String,
        height: u32,
        transactions: u32,
        chunks: u32,
        from: String,
    },
    /// A chunk is whole and verified.
    Chunk {
        job: String,
        chunk: u32,
        /// Of how many, while that is remembered.
        #[serde(skip_serializing_if = "Option::is_none")]
        chunks: Option<u32>,
        from: String,
        /// Who sent it, or guided the choice from the cache.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<u64>,
    },
    /// A block is whole.
    Complete {
        job: String,
        height: u32,
        bytes: usize,
        #[serde(rename = "elapsed_us", serialize_with = "as_microseconds")]
        elapsed: Duration,
        requests: u64,
        local: bool,
    },
    /// A job was given up.
    Closed { job: String, reason: &'static str },
    /// A datum was refused and scored.
    Refused {
        session: u64,
        addr: Option<SocketAddr>,
        reason: &'static str,
        score: u32,
    },
}

fn as_microseconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

impl News {
    /// What the engine says, with sessions named by `name`, of which those that `was_up` says were established and
    /// those that `is_private` says are of private links, in a block of `chunks`.
    pub fn new(
        event: &Event,
        name: impl Fn(SessionId) -> Option<SocketAddr>,
        was_up: impl Fn(SessionId) -> bool,
        is_private: impl Fn(SessionId) -> bool,
        chunks: impl Fn(&Hash) -> Option<u32>,
    ) -> Self {
        Self::of_session(event, &name, was_up, is_private)
            .or_else(|| Self::of_block(event, &name, chunks))
            .expect("every event is of a session or of a block")
    }

    fn of_session(
        event: &Event,
        name: &impl Fn(SessionId) -> Option<SocketAddr>,
        was_up: impl Fn(SessionId) -> bool,
        is_private: impl Fn(SessionId) -> bool,
    ) -> Option<Self> {
        let of = |session: &SessionId| (session.as_number(), name(*session));
        Some(match event {
            Event::SessionUp { session, agent, .. } => {
                let (private, agent) = (is_private(*session), agent.clone());
                let (session, addr) = of(session);
                Self::Session {
                    session,
                    addr,
                    private,
                    agent,
                }
            }
            Event::SessionDown {
                session, reason, ..
            } => {
                let (established, private) = (was_up(*session), is_private(*session));
                let (session, addr) = of(session);
                Self::SessionDown {
                    session,
                    addr,
                    private,
                    reason,
                    established,
                }
            }
            Event::PathChanged { session, udp } => {
                let ((session, addr), udp) = (of(session), *udp);
                Self::Path { session, addr, udp }
            }
            Event::Addresses { session, addresses } => {
                let ((session, addr), count) = (of(session), addresses.len());
                Self::Addresses {
                    session,
                    addr,
                    count,
                }
            }
            Event::AddressesWanted { session } => {
                let (session, addr) = of(session);
                Self::AddressesWanted { session, addr }
            }
            Event::Refused {
                session,
                refusal,
                score,
            } => {
                let ((session, addr), score) = (of(session), *score);
                Self::Refused {
                    session,
                    addr,
                    reason: refusal.name(),
                    score,
                }
            }
            Event::JobOpened { .. }
            | Event::ChunkVerified { .. }
            | Event::BlockComplete { .. }
            | Event::JobClosed { .. } => return None,
        })
    }

    fn of_block(
        event: &Event,
        name: &impl Fn(SessionId) -> Option<SocketAddr>,
        chunks: impl Fn(&Hash) -> Option<u32>,
    ) -> Option<Self> {
        Some(match event {
            Event::JobOpened {
                block,
                height,
                transactions,
                chunks,
                source,
            } => Self::Job {
                job: hash_text(block),
                height: *height,
                transactions: *transactions,
                chunks: *chunks,
                from: from(source, name),
            },
            Event::ChunkVerified {
                block,
                chunk,
                source,
            } => Self::Chunk {
                job: hash_text(block),
                chunk: *chunk,
                chunks: chunks(block),
                from: from(source, name),
                session: match source {
                    Source::Local => None,
                    Source::Mempool(session) | Source::Peer(session) => Some(session.as_number()),
                },
            },
            Event::BlockComplete {
                block,
                height,
                whole,
                elapsed,
                requests,
                local,
            } => Self::Complete {
                job: hash_text(block),
                height: *height,
                bytes: whole.bytes.len(),
                elapsed: *elapsed,
                requests: *requests,
                local: *local,
            },
            Event::JobClosed { block, reason } => Self::Closed {
                job: hash_text(block),
                reason,
            },
            Event::SessionUp { .. }
            | Event::SessionDown { .. }
            | Event::PathChanged { .. }
            | Event::Addresses { .. }
            | Event::AddressesWanted { .. }
            | Event::Refused { .. } => return None,
        })
    }
}

/// Whose datum it was.
fn from(source: &Source, name: impl Fn(SessionId) -> Option<SocketAddr>) -> String {
    match source {
        Source::Local => "local".to_owned(),
        Source::Mempool(_) => "mempool".to_owned(),
        Source::Peer(session) => match name(*session) {
            Some(address) => address.to_string(),
            None => format!("session {session}"),
        },
    }
}

impl Stamped {
    /// The line of JSON, preceded by one that tells of lost ones, if any.
    pub fn to_lines(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            t_us: u64,
            #[serde(flatten)]
            news: &'a News,
        }
        let t_us = self.time.as_nanos() / 1_000;
        let line = Line {
            t_us,
            news: &self.news,
        };
        let line = serde_json::to_string(&line).expect("plain values become JSON");
        match self.dropped_before {
            0 => format!("{line}\n"),
            count => {
                format!("{{\"t_us\":{t_us},\"event\":\"dropped\",\"count\":{count}}}\n{line}\n")
            }
        }
    }

    /// A line of the log, at a level that a peer can't drive up.
    pub fn log(&self) {
        self.news.log_session();
        self.news.log_block();
        if self.dropped_before > 0 {
            tracing::warn!(
                count = self.dropped_before,
                "events were lost before this one"
            );
        }
    }
}

/// An address, or that there is none.
fn or_off(address: Option<SocketAddr>) -> String {
    address.map_or("off".to_owned(), |address| address.to_string())
}

impl News {
    fn log_session(&self) {
        match self {
            Self::Ready {
                control,
                data,
                rpc,
                p2p,
                quic,
                electrum,
            } => {
                let (p2p, quic) = (or_off(*p2p), or_off(*quic));
                tracing::info!(%control, %data, %rpc, p2p, quic, "listening");
                let tell = |at| tracing::info!("Electrum wallets are served at {at}");
                electrum.iter().for_each(tell);
            }
            Self::Session {
                session,
                addr,
                private,
                agent,
            } => tracing::info!(session, peer = shown(addr), private, agent, "session is up"),
            Self::SessionDown {
                session,
                addr,
                private,
                reason,
                established: true,
            } => tracing::info!(
                session,
                peer = shown(addr),
                private,
                reason,
                "session has ended"
            ),
            // Whoever dialled tells more of it, and anyone may dial this node.
            Self::SessionDown {
                session,
                addr,
                private,
                reason,
                ..
            } => tracing::debug!(
                session,
                peer = shown(addr),
                private,
                reason,
                "refused before the handshake was done"
            ),
            Self::Path { session, addr, udp } => {
                tracing::debug!(session, peer = shown(addr), udp, "path has changed");
            }
            Self::Addresses {
                session,
                addr,
                count,
            } => tracing::debug!(session, peer = shown(addr), count, "told of other nodes"),
            Self::AddressesWanted { session, addr } => {
                tracing::debug!(session, peer = shown(addr), "asks for other nodes");
            }
            Self::Refused {
                session,
                addr,
                reason,
                score,
            } => tracing::debug!(session, peer = shown(addr), reason, score, "refused"),
            _ => {}
        }
    }

    /// One line for a block that comes whole; its beginning and its end are for those who look closer.
    fn log_block(&self) {
        match self {
            Self::Job {
                job,
                height,
                transactions,
                chunks,
                from,
            } => tracing::debug!(
                block = job,
                height,
                transactions,
                chunks,
                from,
                "a block has been announced"
            ),
            Self::Chunk {
                job, chunk, from, ..
            } => tracing::trace!(block = job, chunk, from, "a chunk is verified"),
            Self::Complete {
                job,
                height,
                bytes,
                elapsed,
                requests,
                local,
            } => {
                let ms = elapsed.as_micros() as f64 / 1e3;
                match local {
                    true => tracing::info!(
                        block = job,
                        height,
                        bytes,
                        "relaying a block from this side"
                    ),
                    false => {
                        tracing::info!(block = job, height, bytes, ms, requests, "block is whole")
                    }
                }
            }
            Self::Closed { job, reason } => {
                tracing::debug!(block = job, reason, "relaying of a block has ended");
            }
            _ => {}
        }
    }
}

fn shown(address: &Option<SocketAddr>) -> String {
    address.map_or_else(|| "?".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object_with_time_and_name() {
        let stamped = Stamped {
            time: Time::from_nanos(7_000_999),
            news: News::Chunk {
                job: "ab".into(),
                chunk: 3,
                chunks: Some(20),
                from: "mempool".into(),
                session: Some(65_536),
            },
            dropped_before: 2,
        };
        assert_eq!(
            stamped.to_lines(),
            "{\"t_us\":7000,\"event\":\"dropped\",\"count\":2}\n\
             {\"t_us\":7000,\"event\":\"chunk\",\"job\":\"ab\",\"chunk\":3,\"chunks\":20,\"from\":\"mempool\",\"session\":65536}\n"
        );
    }
}
