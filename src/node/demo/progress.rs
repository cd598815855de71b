//! How far each node is, from what the nodes tell. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{News, node_of};

/// Where a chunk came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The node was handed the block.
    Own,
    /// Another node.
    Node(usize),
    /// A session that nobody knows.
    Unknown,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeProgress {
    /// Whose sessions these are, by their number at this node.
    pub sessions: BTreeMap<u64, usize>,
    /// Sessions that are up, and whether their data goes over UDP.
    pub up: BTreeMap<u64, bool>,
    /// The block's chunks, once it is known how many there are.
    pub chunks: Vec<Option<Origin>>,
    /// Time of the first chunk, microseconds since the Unix epoch.
    pub first_chunk_us: Option<u64>,
    /// Time when the block was whole.
    pub complete_us: Option<u64>,
    /// What was refused and scored, by the node that sent it.
    pub refused: BTreeMap<Origin, u32>,
    /// Lines that were lost on the way here.
    pub dropped: u64,
}

/// All nodes, on the way of one block.
#[derive(Clone, Debug)]
pub struct Progress {
    hash: String,
    nodes: Vec<NodeProgress>,
    /// When the block was handed over, microseconds since the Unix epoch.
    pub handed_us: Option<u64>,
}

impl Progress {
    /// Nodes that know nothing yet of the block with this hash.
    pub fn new(nodes: usize, hash: &str) -> Self {
        Self {
            hash: hash.to_owned(),
            nodes: vec![NodeProgress::default(); nodes],
            handed_us: None,
        }
    }

    /// The nodes in their order.
    pub fn nodes(&self) -> &[NodeProgress] {
        &self.nodes
    }

    /// Takes what `node` has told.
    pub fn hear(&mut self, node: usize, t_us: u64, news: &News) {
        let Some(progress) = self.nodes.get_mut(node) else {
            return;
        };
        match news {
            News::Session { session, agent } => {
                if let Some(peer) = node_of(agent) {
                    progress.sessions.insert(*session, peer);
                }
                progress.up.entry(*session).or_insert(false);
            }
            News::SessionDown { session } => drop(progress.up.remove(session)),
            News::Path { session, udp } => drop(progress.up.insert(*session, *udp)),
            News::Job { job, chunks } if *job == self.hash => {
                progress.chunks.resize(*chunks as usize, None);
            }
            News::Chunk {
                job,
                chunk,
                session,
            } if *job == self.hash => {
                progress.first_chunk_us.get_or_insert(t_us);
                let origin = progress.origin(*session);
                if let Some(place) = progress.chunks.get_mut(*chunk as usize) {
                    place.get_or_insert(origin);
                }
            }
            News::Complete { job, .. } if *job == self.hash => {
                progress.complete_us.get_or_insert(t_us);
                if node == 0 {
                    progress.first_chunk_us.get_or_insert(t_us);
                    progress.chunks.fill(Some(Origin::Own));
                }
            }
            News::Refused { session, .. } => {
                let origin = progress.origin(Some(*session));
                *progress.refused.entry(origin).or_default() += 1;
            }
            News::Dropped { count } => progress.dropped += count,
            _ => {}
        }
    }

    /// Whether any node has refused anything.
    pub fn has_refused(&self) -> bool {
        self.nodes.iter().any(|node| !node.refused.is_empty())
    }

    /// Milliseconds from the hand-over to `t_us`.
    pub fn since_handed_ms(&self, t_us: Option<u64>) -> Option<f64> {
        let elapsed = t_us?.saturating_sub(self.handed_us?);
        Some(elapsed as f64 / 1e3)
    }
}

impl NodeProgress {
    fn origin(&self, session: Option<u64>) -> Origin {
        match session {
            None => Origin::Own,
            Some(session) => self
                .sessions
                .get(&session)
                .map_or(Origin::Unknown, |node| Origin::Node(*node)),
        }
    }

    /// Nodes whose data came over TCP, as far as is known: UDP did not get through from them.
    pub fn by_tcp(&self) -> BTreeSet<usize> {
        let way = |udp: bool| {
            let sessions = self.up.iter().filter(move |(_, is_udp)| **is_udp == udp);
            sessions.filter_map(|(session, _)| self.sessions.get(session).copied())
        };
        let by_udp: BTreeSet<usize> = way(true).collect();
        let given = self.sources();
        way(false)
            .filter(|node| !by_udp.contains(node) && given.contains_key(&Origin::Node(*node)))
            .collect()
    }

    /// Chunks that are here.
    pub fn filled(&self) -> usize {
        self.chunks.iter().flatten().count()
    }

    /// Chunks by where they came from.
    pub fn sources(&self) -> BTreeMap<Origin, u32> {
        let mut sources = BTreeMap::new();
        for origin in self.chunks.iter().flatten() {
            *sources.entry(*origin).or_default() += 1;
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(chunk: u32, session: Option<u64>) -> News {
        News::Chunk {
            job: "ab".into(),
            chunk,
            session,
        }
    }

    fn complete(job: &str) -> News {
        News::Complete {
            job: job.into(),
            requests: 0,
        }
    }

    #[test]
    fn chunks_are_put_down_to_whom_they_came_from() {
        let mut progress = Progress::new(2, "ab");
        progress.handed_us = Some(1_000);
        let session = News::Session {
            session: 9,
            agent: "/blocktorrent:0.1.0(node0)/".into(),
        };
        let job = News::Job {
            job: "ab".into(),
            chunks: 3,
        };
        for (t_us, news) in [
            (10, session),
            (2_000, job),
            (3_000, chunk(0, Some(9))),
            (4_000, chunk(2, Some(7))),
            (5_000, chunk(99, Some(9))),
            (6_000, complete("cd")),
            (7_000, complete("ab")),
        ] {
            progress.hear(1, t_us, &news);
        }
        progress.hear(5, 1, &chunk(0, None));
        let node = &progress.nodes()[1];
        assert_eq!(node.filled(), 2);
        let sources = BTreeMap::from([(Origin::Node(0), 1), (Origin::Unknown, 1)]);
        assert_eq!(node.sources(), sources);
        assert_eq!(progress.since_handed_ms(node.first_chunk_us), Some(2.0));
        assert_eq!(progress.since_handed_ms(node.complete_us), Some(6.0));
        assert_eq!(node.by_tcp(), BTreeSet::from([0]));
        let udp = |udp| News::Path { session: 9, udp };
        progress.hear(1, 8_000, &udp(true));
        assert_eq!(progress.nodes()[1].by_tcp(), BTreeSet::new());
        assert!(!progress.has_refused());
        let reason = "leaf".to_owned();
        progress.hear(1, 9_000, &News::Refused { session: 9, reason });
        assert!(progress.has_refused());
    }
}
