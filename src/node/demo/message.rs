//! What a node tells on its stdout, as far as the demo listens.

use std::net::SocketAddr;

use serde::Deserialize;

/// One line: when, in microseconds since the Unix epoch, and what.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Line {
    /// When it happened.
    pub t_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub news: News,
}

/// What happened; the members are those of the node's table of events.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "`node::events` says what they are")]
pub enum News {
    /// The node listens.
    Ready {
        control: SocketAddr,
        rpc: SocketAddr,
        #[serde(default)]
        quic: Option<SocketAddr>,
    },
    /// A handshake is done.
    Session { session: u64, agent: String },
    /// A session has ended.
    SessionDown { session: u64 },
    /// Data goes another way.
    Path { session: u64, udp: bool },
    /// The node has heard of a block.
    Job { job: String, chunks: u32 },
    /// A chunk is verified.
    Chunk {
        job: String,
        chunk: u32,
        session: Option<u64>,
    },
    /// A block is whole.
    Complete {
        job: String,
        #[serde(default)]
        requests: u64,
    },
    /// Something was refused and scored.
    Refused { session: u64, reason: String },
    /// So many lines were lost.
    Dropped { count: u64 },
    /// What the demo does not ask about.
    #[serde(other)]
    Other,
}

/// What a node was told to call itself, so that its peers' lines say who it is.
pub fn comment(node: usize) -> String {
    format!("node{node}")
}

/// The node that an agent of a `session` line belongs to.
pub fn node_of(agent: &str) -> Option<usize> {
    let (_, rest) = agent.split_once("(node")?;
    rest.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_nodes_write_them() {
        let read = |text: &str| serde_json::from_str::<Line>(text).unwrap().news;
        let chunk = r#"{"t_us":7,"event":"chunk","job":"ab","chunk":3,"chunks":20,"from":"mempool","session":65536}"#;
        assert_eq!(
            read(chunk),
            News::Chunk {
                job: "ab".into(),
                chunk: 3,
                session: Some(65_536)
            }
        );
        let unknown = r#"{"t_us":7,"event":"addresses","session":1,"addr":null,"count":2}"#;
        assert_eq!(read(unknown), News::Other);
        assert_eq!(node_of("/blocktorrent:0.1.0(node12)/"), Some(12));
        assert_eq!(node_of("/blocktorrent:0.1.0/"), None);
    }
}
