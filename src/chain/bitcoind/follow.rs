//! Drives [`Mempool`] against one node: its commands by RPC, its feed from a queue.

use std::time::Duration;

use bitcoin::{BlockHash, Txid};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::answer::MempoolList;
use super::error::RpcError;
use super::mempool::{Feed, Mempool, MempoolCommand};
use super::notice::{Notice, SequenceEvent, Topic};
use super::rpc::Rpc;
use super::zmq::ZmqEvent;
use crate::time::Time;

/// Inputs that are taken in before anything is given out: a burst becomes one list of transactions.
const MAX_AT_ONCE: usize = 1_024;

/// What a mempool is followed by.
#[derive(Clone, Debug)]
pub enum FollowInput {
    /// Another node is followed from now on, or none for now.
    Switch(Option<(Rpc, Feed)>),
    /// The publisher is connected: what it published before is not known.
    Connected,
    /// Notifications of `sequence` are missing.
    Gap,
    /// See [`SequenceEvent`].
    Sequence(SequenceEvent),
    /// A transaction that came by itself.
    Transaction(Bytes),
    /// A block with these transactions is the tip now.
    Block(BlockHash, Vec<Txid>),
}

impl FollowInput {
    /// What a ZMQ event means to a mempool, if anything.
    pub fn of_zmq(event: ZmqEvent) -> Option<Self> {
        match event {
            ZmqEvent::Connected { .. } => Some(Self::Connected),
            ZmqEvent::Lost {
                topic: Topic::Sequence,
                ..
            } => Some(Self::Gap),
            ZmqEvent::Notice(Notice::Sequence(event)) => Some(Self::Sequence(event)),
            ZmqEvent::Notice(Notice::RawTx(body)) => Some(Self::Transaction(body)),
            // What `rawtx` lost is fetched; what a broken connection lost is listed once it is back.
            ZmqEvent::Lost { .. }
            | ZmqEvent::Disconnected { .. }
            | ZmqEvent::Notice(Notice::RawBlock(_) | Notice::HashBlock(_)) => None,
        }
    }
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowOutput {
    /// Keep these transactions.
    Add(Vec<Bytes>),
    /// The node no longer has these.
    Demote(Vec<Txid>),
    /// A list or a batch failed; it is tried again.
    Trouble(RpcError),
}

enum Answer {
    List(Result<MempoolList, RpcError>),
    Bodies(usize, Result<Vec<Option<Bytes>>, RpcError>),
}

/// Follows the mempool of the node that [`FollowInput::Switch`] names, until `inputs` or `outputs` close.
///
/// `outputs` should have room for little: while nobody takes what is given out, nothing new is asked for.
pub async fn follow(
    mut mempool: Mempool,
    now: impl Fn() -> Time,
    mut inputs: mpsc::Receiver<FollowInput>,
    outputs: mpsc::Sender<FollowOutput>,
) {
    let mut followed: Option<Rpc> = None;
    let mut calls: JoinSet<Answer> = JoinSet::new();
    let mut batch = Vec::with_capacity(MAX_AT_ONCE);
    loop {
        while let Some(output) = followed
            .as_ref()
            .and_then(|rpc| next_output(&mut mempool, now(), rpc, &mut calls))
        {
            if outputs.send(output).await.is_err() {
                return;
            }
        }
        let deadline = mempool.poll_deadline().filter(|_| followed.is_some());
        let wait = deadline.map_or(Duration::MAX, |at| at.since(now()));
        tokio::select! {
            count = inputs.recv_many(&mut batch, MAX_AT_ONCE) => {
                if count == 0 {
                    return;
                }
                for input in batch.drain(..) {
                    match input {
                        FollowInput::Switch(node) => {
                            // What the old one was asked is answered no more.
                            calls = JoinSet::new();
                            let feed = node.as_ref().map_or(Feed::None, |(_, feed)| *feed);
                            mempool.handle_feed(now(), feed);
                            followed = node.map(|(rpc, _)| rpc);
                        }
                        input => take(&mut mempool, now(), input),
                    }
                }
            }
            Some(answer) = calls.join_next() => {
                let answer = answer.expect("a call neither panics nor is cancelled");
                if let Some(error) = settle(&mut mempool, now(), answer)
                    && outputs.send(FollowOutput::Trouble(error)).await.is_err()
                {
                    return;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Carries out what the machine wants until there is something to give out.
fn next_output(
    mempool: &mut Mempool,
    now: Time,
    rpc: &Rpc,
    calls: &mut JoinSet<Answer>,
) -> Option<FollowOutput> {
    loop {
        let rpc = rpc.clone();
        match mempool.poll_command(now)? {
            MempoolCommand::List => {
                calls.spawn(async move { Answer::List(rpc.raw_mempool_with_sequence().await) });
            }
            MempoolCommand::Fetch(ids) => {
                calls.spawn(
                    async move { Answer::Bodies(ids.len(), rpc.raw_transactions(&ids).await) },
                );
            }
            MempoolCommand::Add(transactions) => return Some(FollowOutput::Add(transactions)),
            MempoolCommand::Demote(ids) => return Some(FollowOutput::Demote(ids)),
        }
    }
}

fn take(mempool: &mut Mempool, now: Time, input: FollowInput) {
    match input {
        FollowInput::Connected | FollowInput::Gap => mempool.handle_gap(now),
        FollowInput::Sequence(event) => mempool.handle_sequence(now, event),
        FollowInput::Transaction(body) => mempool.handle_transaction(body),
        FollowInput::Block(hash, txids) => mempool.handle_block(hash, &txids),
        // Taken by whoever holds the client.
        FollowInput::Switch(_) => {}
    }
}

/// Hands an answer over; what went wrong, if anything.
fn settle(mempool: &mut Mempool, now: Time, answer: Answer) -> Option<RpcError> {
    match answer {
        Answer::List(Ok(list)) => mempool.handle_list(now, list),
        Answer::List(Err(error)) => {
            mempool.handle_list_failed(now);
            return Some(error);
        }
        Answer::Bodies(count, Ok(bodies)) if bodies.len() == count => mempool.handle_bodies(bodies),
        Answer::Bodies(_, Ok(_)) => {
            mempool.handle_bodies_failed(now);
            return Some(RpcError::Garbage("a batch has another length".into()));
        }
        Answer::Bodies(_, Err(error)) => {
            mempool.handle_bodies_failed(now);
            return Some(error);
        }
    }
    None
}
