//! Why a call failed, each in one line that says what to do.

use thiserror::Error;

/// Code of "the node starts up and answers later" (`RPC_IN_WARMUP`).
pub const IN_WARMUP: i64 = -28;
/// Code of "no such block, transaction or key" (`RPC_INVALID_ADDRESS_OR_KEY`).
pub const NOT_FOUND: i64 = -5;
/// Code of errors that have no code of their own (`RPC_MISC_ERROR`): pruned blocks, wrong arguments.
pub const MISC: i64 = -1;
/// Characters of a node's message that are shown: what a line of a log can take.
const MAX_SHOWN: usize = 200;

/// A call that has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RpcError {
    /// No connection, or it broke.
    #[error(
        "can't reach bitcoind's RPC at {address}: {problem}; is it running, and is the port right?"
    )]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system says.
        problem: String,
    },
    /// The cookie file can't be read while the server can be reached.
    #[error(
        "can't read bitcoind's cookie {path}: {problem}; give cookie=FILE, or user and password"
    )]
    NoCookie {
        /// The file.
        path: String,
        /// What the system says.
        problem: String,
    },
    /// Wrong user, password or cookie.
    #[error(
        "bitcoind at {address} refuses {what}; give the user and password or the cookie file of this node"
    )]
    Unauthorized {
        /// Host and port.
        address: String,
        /// What was tried.
        what: String,
    },
    /// It answers no calls from here.
    #[error("bitcoind at {address} refuses calls from this machine; add it to `rpcallowip` there")]
    Forbidden {
        /// Host and port.
        address: String,
    },
    /// More calls than it queues.
    #[error(
        "bitcoind at {address} has too many calls queued; raise `rpcworkqueue` there if this stays"
    )]
    Busy {
        /// Host and port.
        address: String,
    },
    /// It is starting.
    #[error("bitcoind starts up: {0}")]
    WarmingUp(String),
    /// It is on another network.
    #[error(
        "bitcoind at {address} is on another network: its first block is {genesis}; give the node of network {network}"
    )]
    WrongNetwork {
        /// Host and port.
        address: String,
        /// The hash of its first block.
        genesis: String,
        /// Ours.
        network: String,
    },
    /// It understood and refused.
    #[error("bitcoind answers error {code}: {message}")]
    Node {
        /// Bitcoin Core's code.
        code: i64,
        /// Its text.
        message: String,
    },
    /// What came is no answer to the call.
    #[error("bitcoind's answer makes no sense: {0}; is it really a bitcoind that listens there?")]
    Garbage(String),
    /// The answer is larger than any sensible one.
    #[error("bitcoind's answer is larger than {0} bytes, which no answer to this call is")]
    TooLarge(usize),
    /// The answer took too long.
    #[error("bitcoind took longer than {0} s to answer")]
    Timeout(u64),
}

impl RpcError {
    /// What a node said in its `error` object.
    pub fn from_node(code: i64, message: &str) -> Self {
        let message = one_line(message);
        match code {
            IN_WARMUP => Self::WarmingUp(message),
            _ => Self::Node { code, message },
        }
    }
}

/// `text` without control characters, cut to what a line can take.
pub fn one_line(text: &str) -> String {
    let clean = |character: char| match character.is_control() {
        true => ' ',
        false => character,
    };
    text.chars().map(clean).take(MAX_SHOWN).collect()
}
