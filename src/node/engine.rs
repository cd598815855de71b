//! The seam between the engine's thread and everyone else: commands with a reply each, through one
//! bounded channel.
//!
//! Whoever holds an [`EngineHandle`] can ask; only the engine's thread answers. Tests answer in its place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::headers::{ChainView, HeaderView};
use crate::chain::{Accepted, HeaderRefusal};
use crate::config::Fingerprint;
use crate::net::udp::UdpStats;
use crate::relay::{
    CompactAnswer, CompactBlock, CompleteBlock, EngineTotals, JobSnapshot, MempoolSnapshot,
    PeerSnapshot, SessionId, SubmitRefusal,
};
use crate::wire::PeerAddress;

/// A hash, internal byte order.
pub type Hash = [u8; 32];

/// Commands that wait for the engine: more callers than RPC lets in at once.
pub const MAX_COMMANDS: usize = 64;
/// How long an answer may take. The engine answers in microseconds, a block in milliseconds; who waits
/// this long waits for a bug.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Where an answer goes. The asker may have left.
pub type Reply<T> = oneshot::Sender<T>;

/// What the engine's thread is asked.
#[derive(Debug)]
pub enum Command {
    /// Relay a block of this side.
    SubmitBlock {
        /// The serialized block.
        block: Bytes,
        /// Its hash, or why not.
        reply: Reply<Result<Hash, SubmitRefusal>>,
    },
    /// Hold a transaction.
    AddTransaction {
        /// The serialized transaction.
        transaction: Bytes,
        /// Its txid, or why not.
        reply: Reply<Result<Hash, &'static str>>,
    },
    /// Hold transactions of the Bitcoin node's mempool; those that are none are counted and left out.
    AddTransactions(Vec<Bytes>),
    /// Let these transactions be the first to leave: the Bitcoin node holds them no longer.
    DemoteTransactions(Vec<Hash>),
    /// Relay a block that the Bitcoin node announced in compact form.
    OfferCompact {
        /// The compact block.
        compact: CompactBlock,
        /// What it came to, or why not.
        reply: Reply<Result<CompactAnswer, SubmitRefusal>>,
    },
    /// End the job of a block that the Bitcoin node calls invalid, and take it no more.
    RejectBlock(Hash),
    /// Complete such a block.
    CompleteCompact {
        /// Its hash.
        block: Hash,
        /// The transactions that it lacked, in the order in which they were named.
        lacking: Vec<Bytes>,
        /// What it came to, or why not.
        reply: Reply<Result<CompactAnswer, SubmitRefusal>>,
    },
    /// The hash at a height of the active chain.
    HashAt {
        /// The height.
        height: u32,
        /// The hash, if the chain has it.
        reply: Reply<Option<Hash>>,
    },
    /// Judge a header and add it to the chain.
    SubmitHeader {
        /// The header.
        header: [u8; 80],
        /// What it is to the chain, or why not.
        reply: Reply<Result<Accepted, HeaderRefusal>>,
    },
    /// The header chain as a whole.
    Chain(Reply<ChainView>),
    /// One header.
    Header {
        /// Its hash.
        hash: Hash,
        /// `None` if it is not known.
        reply: Reply<Option<HeaderView>>,
    },
    /// A block that the engine still holds.
    Block {
        /// Its hash.
        hash: Hash,
        /// The serialized block.
        reply: Reply<Option<Bytes>>,
    },
    /// The sessions.
    Peers(Reply<Vec<PeerView>>),
    /// The jobs, newest last.
    Jobs(Reply<Vec<JobSnapshot>>),
    /// What has been counted.
    Counters(Reply<Counters>),
    /// Ask a peer for other nodes.
    AskAddresses(SessionId),
    /// Tell a peer of other nodes.
    SendAddresses(SessionId, Vec<PeerAddress>),
    /// End a session; whether there was such.
    Disconnect {
        /// Which one.
        peer: PeerName,
        /// Whether it was there.
        reply: Reply<bool>,
    },
}

/// How a caller names a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerName {
    /// The `id` of `getpeerinfo`.
    Number(u64),
    /// The `addr` of `getpeerinfo`.
    Address(SocketAddr),
}

/// One session, as callers see it.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// What the engine knows; its `address` is of use to the engine alone if the link is private.
    pub relay: PeerSnapshot,
    /// Where the peer is on the network.
    pub address: SocketAddr,
    /// The key that the peer of a private link has shown.
    pub key: Option<Fingerprint>,
}

/// A block that is whole in the engine.
#[derive(Clone, Debug)]
pub struct WholeBlock {
    /// Its hash.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// Its bytes and transactions.
    pub block: Arc<CompleteBlock>,
    /// From the first that was heard of it to now.
    pub elapsed: Duration,
    /// Requests that the relay sent for it.
    pub requests: u64,
    /// Whether it came from this side: RPC or a Bitcoin node.
    pub local: bool,
}

/// What the engine and its socket have counted.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// The engine's.
    pub engine: EngineTotals,
    /// The socket's.
    pub udp: UdpStats,
    /// Datagrams of the socket that claimed to come from a private peer.
    pub pretended: u64,
    /// The transactions held.
    pub mempool: MempoolSnapshot,
}

/// The engine does not answer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EngineGone {
    /// It has stopped, or stops.
    #[error("the node is stopping")]
    Stopped,
    /// It did not answer in time.
    #[error("the engine does not answer")]
    Silent,
}

/// Asks the engine. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct EngineHandle(mpsc::Sender<Command>);

impl EngineHandle {
    /// A handle, and where its commands arrive.
    pub fn channel() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(MAX_COMMANDS);
        (Self(sender), receiver)
    }

    /// Tells what needs no answer; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// The engine is gone.
    pub async fn tell(&self, command: Command) -> Result<(), EngineGone> {
        let sent = self.0.send(command).await;
        sent.map_err(|_| EngineGone::Stopped)
    }

    /// Asks what `command` makes of a place for the reply.
    ///
    /// # Errors
    ///
    /// The engine is gone, or silent for half a minute.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, EngineGone> {
        self.begin(command).await
    }

    /// The same, but the question is on its way when this returns, if there is room: so the engine takes in order
    /// what one caller hands in, whoever waits for the answers.
    ///
    /// # Errors
    ///
    /// As [`EngineHandle::ask`].
    pub fn begin<T, C>(&self, command: C) -> impl Future<Output = Result<T, EngineGone>> + use<T, C>
    where
        C: FnOnce(Reply<T>) -> Command,
    {
        let (reply, answer) = oneshot::channel();
        let unsent = self.0.try_send(command(reply)).err();
        let sender = self.0.clone();
        let asked = async move {
            match unsent {
                None => {}
                Some(TrySendError::Full(command)) => {
                    let sent = sender.send(command).await;
                    sent.map_err(|_| EngineGone::Stopped)?;
                }
                Some(TrySendError::Closed(_)) => return Err(EngineGone::Stopped),
            }
            answer.await.map_err(|_| EngineGone::Stopped)
        };
        async move {
            tokio::time::timeout(ANSWER_TIME, asked)
                .await
                .unwrap_or(Err(EngineGone::Silent))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_arrive_in_the_order_in_which_they_were_begun() {
        let (engine, mut commands) = EngineHandle::channel();
        let count = MAX_COMMANDS as u32;
        let answers: Vec<_> = (0..count)
            .map(|height| engine.begin(move |reply| Command::HashAt { height, reply }))
            .collect();
        let late = tokio::spawn(engine.begin(move |reply| Command::HashAt {
            height: count,
            reply,
        }));
        for expected in 0..=count {
            let Some(Command::HashAt { height, reply }) = commands.recv().await else {
                panic!("another command");
            };
            assert_eq!(height, expected);
            reply.send(Some([height as u8; 32])).unwrap();
        }
        for (height, answer) in (0..).zip(answers) {
            assert_eq!(answer.await, Ok(Some([height; 32])));
        }
        assert_eq!(late.await.unwrap(), Ok(Some([count as u8; 32])));
    }

    #[tokio::test]
    async fn an_engine_that_is_gone_is_no_hang() {
        let (engine, commands) = EngineHandle::channel();
        drop(commands);
        assert_eq!(
            engine.ask(Command::Peers).await.err(),
            Some(EngineGone::Stopped)
        );
        let (engine, mut commands) = EngineHandle::channel();
        let drops_the_question = async { drop(commands.recv().await) };
        let (answer, ()) = tokio::join!(engine.ask(Command::Chain), drops_the_question);
        assert_eq!(answer.err(), Some(EngineGone::Stopped));
    }
}
