//! The JSON-RPC client: many calls at once, each with a bound on its time and on the size of its answer.
//!
//! HTTP is hyper's, over connections that are kept for the next call. What this is not: a general HTTP client. It
//! follows no redirect, knows no proxy and no encryption: RPC of bitcoind has none, and belongs on loopback or in a
//! tunnel.

mod connection;
mod methods;
mod wallets;

pub use methods::{MAX_BATCH, MAX_WAIT};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::Semaphore;

use self::connection::{Connections, Failure};
use super::answer;
use super::error::{RpcError, one_line};
use crate::config::Login;

/// Prompt calls at once. Reason: bitcoind had 4 threads for RPC by default before it had 16, and is not ours alone;
/// with a wait and a bulky call besides, one of 4 is left only in short moments.
const MAX_PROMPT: usize = 4;
/// Bulky calls at once. Reason: they serve the mempool, which is never urgent.
const MAX_BULK: usize = 1;
/// Waits at once: each takes a thread of bitcoind for as long as it lasts, so there is one.
const MAX_WAITS: usize = 1;

/// How one logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// By the file that bitcoind writes anew at each start.
    Cookie(PathBuf),
    /// By user and password.
    Login(Login),
}

/// What a call may cost.
#[derive(Clone, Copy, Debug)]
struct Terms {
    lane: Lane,
    /// From the moment the caller asks, the wait for the lane included.
    time: Duration,
    /// Bytes of the answer.
    most_bytes: usize,
    /// Whether the call does no more when it is made twice, so that it may be repeated on a new connection when a kept
    /// one turns out to be closed.
    repeatable: bool,
}

/// Calls of one lane wait for each other only.
#[derive(Clone, Copy, Debug)]
enum Lane {
    Prompt,
    Bulk,
    Wait,
}

/// How often what happened, since the client was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RpcCounts {
    /// Calls made; a batch is one.
    pub calls: u64,
    /// No connection, or it broke.
    pub unreachable: u64,
    /// Login or address refused.
    pub refused: u64,
    /// Answers that made no sense or were too large.
    pub garbage: u64,
    /// No answer in time.
    pub timeouts: u64,
    /// Errors that the node answered, starting up and being busy included.
    pub errors: u64,
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    unreachable: AtomicU64,
    refused: AtomicU64,
    garbage: AtomicU64,
    timeouts: AtomicU64,
    errors: AtomicU64,
}

/// A client of one node. Clones share connections and bounds.
#[derive(Clone, Debug)]
pub struct Rpc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections: Connections,
    prompt: Semaphore,
    bulk: Semaphore,
    waits: Semaphore,
    next_id: AtomicU64,
    counters: Counters,
}

impl Rpc {
    /// A client of the server at `address`, host and port. Connects when the first call is made.
    pub fn new(address: String, credentials: Credentials) -> Self {
        Self(Arc::new(Inner {
            connections: Connections::new(address, credentials),
            prompt: Semaphore::new(MAX_PROMPT),
            bulk: Semaphore::new(MAX_BULK),
            waits: Semaphore::new(MAX_WAITS),
            next_id: AtomicU64::new(1),
            counters: Counters::default(),
        }))
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.0.connections.address()
    }

    /// What happened so far.
    pub fn counts(&self) -> RpcCounts {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RpcCounts {
            calls: read(&counters.calls),
            unreachable: read(&counters.unreachable),
            refused: read(&counters.refused),
            garbage: read(&counters.garbage),
            timeouts: read(&counters.timeouts),
            errors: read(&counters.errors),
        }
    }

    /// Takes `count` ids, the first of which is returned.
    fn ids(&self, count: u64) -> u64 {
        self.0.next_id.fetch_add(count, Ordering::Relaxed)
    }

    /// Posts `body` and has `read` make sense of the answer.
    async fn exchange<T>(
        &self,
        terms: Terms,
        body: Bytes,
        read: impl FnOnce(&[u8]) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let answer = tokio::time::timeout(terms.time, self.post(terms, body)).await;
        let outcome = match answer {
            Ok(answer) => answer.and_then(|(status, body)| self.judge(status, &body, read)),
            Err(_) => Err(RpcError::Timeout(terms.time.as_secs())),
        };
        self.count(outcome.as_ref().err());
        outcome
    }

    async fn post(&self, terms: Terms, body: Bytes) -> Result<(StatusCode, Bytes), RpcError> {
        let inner = &*self.0;
        let lane = match terms.lane {
            Lane::Prompt => &inner.prompt,
            Lane::Bulk => &inner.bulk,
            Lane::Wait => &inner.waits,
        };
        let _permit = lane.acquire().await.expect("the semaphore is never closed");
        let kept = match terms.repeatable {
            true => inner.connections.kept(),
            false => None,
        };
        if let Some(connection) = kept {
            match inner
                .connections
                .post(connection, body.clone(), terms.most_bytes)
                .await
            {
                // The server may close a connection at any moment between two calls.
                Err(Failure::Closed(_)) => {}
                Err(Failure::Call(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        let connection = inner.connections.open().await?;
        let cookie = connection.login().clone();
        let answer = inner
            .connections
            .post(connection, body.clone(), terms.most_bytes)
            .await
            .map_err(|failure| failure.into_error(self.address()))?;
        if answer.0 != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // The node may have restarted between our reading of the cookie and the call.
        let connection = inner.connections.open().await?;
        if *connection.login() == cookie {
            return Ok(answer);
        }
        inner
            .connections
            .post(connection, body, terms.most_bytes)
            .await
            .map_err(|failure| failure.into_error(self.address()))
    }

    fn judge<T>(
        &self,
        status: StatusCode,
        body: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let address = self.address().to_owned();
        match status {
            StatusCode::UNAUTHORIZED => Err(RpcError::Unauthorized {
                address,
                what: self.0.connections.credentials_in_words(),
            }),
            StatusCode::FORBIDDEN => Err(RpcError::Forbidden { address }),
            StatusCode::SERVICE_UNAVAILABLE => Err(RpcError::Busy { address }),
            // Bitcoin Core puts errors of calls under 400, 404 and 500, with the same JSON.
            StatusCode::OK => read(body),
            other => match read(body) {
                Err(RpcError::Garbage(_)) | Ok(_) => Err(RpcError::Garbage(format!(
                    "status {other}: {}",
                    one_line(&String::from_utf8_lossy(answer::head(body)))
                ))),
                Err(error) => Err(error),
            },
        }
    }

    fn count(&self, error: Option<&RpcError>) {
        let counters = &self.0.counters;
        counters.calls.fetch_add(1, Ordering::Relaxed);
        let counter = match error {
            None => return,
            Some(RpcError::Unreachable { .. } | RpcError::NoCookie { .. }) => &counters.unreachable,
            Some(RpcError::Unauthorized { .. } | RpcError::Forbidden { .. }) => &counters.refused,
            Some(RpcError::Garbage(_) | RpcError::TooLarge(_)) => &counters.garbage,
            Some(RpcError::Timeout(_)) => &counters.timeouts,
            Some(
                RpcError::Busy { .. }
                | RpcError::WarmingUp(_)
                | RpcError::WrongNetwork { .. }
                | RpcError::Node { .. },
            ) => &counters.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
