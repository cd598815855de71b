//! What can be wrong with a configuration, each in one line that says what to do.

use std::net::SocketAddr;

use thiserror::Error;

/// A configuration that makes no sense. Its text is one line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A key of the file that is no option.
    #[error("{file}, line {line}: no option is called `{key}`; {advice}")]
    UnknownKey {
        /// The file, as it was named.
        file: String,
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// What the writer may have meant.
        advice: String,
    },
    /// A value of the file that can't be read, or text that is no TOML.
    #[error("{file}, line {line}: {problem}")]
    File {
        /// The file, as it was named.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and with which key.
        problem: String,
    },
    /// A number beyond its bounds.
    #[error("`{name}` is {value}; give a number from {least} to {most}")]
    OutOfRange {
        /// The option.
        name: &'static str,
        /// What was given.
        value: u64,
        /// The least that is taken.
        least: u64,
        /// The most that is taken.
        most: u64,
    },
    /// The RPC server speaks without encryption.
    #[error(
        "`rpc-listen` is {0}, not a loopback address; use 127.0.0.1:PORT or [::1]:PORT (RPC is not encrypted: tunnel it)"
    )]
    RpcNotLoopback(SocketAddr),
    /// Of user and password only one was given.
    #[error("`{0}` is set and `{1}` is not; set both, or neither and use the cookie file")]
    Alone(&'static str, &'static str),
    /// A user that Basic authentication can't carry.
    #[error("`rpc-user` is \"{0}\"; give a name that is not empty and has no colon")]
    BadUser(String),
    /// A password that anyone guesses.
    #[error(
        "`rpc-password` is empty; give one, or neither user nor password and use the cookie file"
    )]
    EmptyPassword,
    /// A comment that does not fit the name told to peers.
    #[error(
        "`uacomment` is \"{0}\"; give at most 32 letters, digits, spaces and .,;-_?@ characters"
    )]
    Comment(String),
    /// What only shows where options meet; the text says what to do.
    #[error("{0}")]
    Senseless(String),
    /// A test option beyond its bounds.
    #[error("`{0}` makes no sense; give {1}")]
    Emulation(&'static str, &'static str),
}
